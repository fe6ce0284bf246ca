// The CPU side of `crop` and `compose`. Thread-safe; call without the GIL.
#pragma once

#include "warp.h"

namespace rt_swap {

// Writes p.out. threads: how many may work, 0 = one per usable core.
void crop_cpu(const CropParams& p, int threads);

// Writes every pixel of p.out: the frame's own, and inside p.box what the maps say.
void compose_cpu(const ComposeParams& p, const PlanarMaps& maps, int threads);

// The row loops of one instruction set (warp_rows.inc). All give the same bits.
struct RowKernels {
  const char* name;
  void (*crop_rows)(const CropParams&, int row_begin, int row_end);
  void (*pack_rows)(const PlanarMaps&, Pack8* packed, int row_begin, int row_end);
  void (*compose_row_packed)(const ComposeParams&, const PackedMaps&, int row, int col_begin,
                             int col_end);
  void (*compose_row_planar)(const ComposeParams&, const PlanarMaps&, int row, int col_begin,
                             int col_end);
};

// Those of AVX2, or null where the compiler or this processor has none.
const RowKernels* avx2_kernels();

// What this processor can run, best first, null-terminated.
const RowKernels* const* available_kernels();

// Makes crop_cpu and compose_cpu use one of available_kernels(); false where there is none of that
// name. The best is used from the start; this is for tests and measurements.
bool select_kernels(const char* name);

}  // namespace rt_swap
