// The CPU side of `crop` and `compose`. Thread-safe; call without the GIL.
#pragma once

#include "warp.h"

namespace rt_swap {

// Writes p.out. threads: how many may work, 0 = one per usable core.
void crop_cpu(const CropParams& p, int threads);

// Writes every pixel of p.out: the frame's own, and inside p.box what the maps say.
void compose_cpu(const ComposeParams& p, const PlanarMaps& maps, int threads);

}  // namespace rt_swap
