// Not the project's CUDA kernels: the least code that makes nvcc compile all of warp.h for a
// device.
#include "warp.h"

using namespace rt_swap;

__global__ void crop_kernel(CropParams p) {
  const int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (col >= p.size_px) return;
  const Pack4 bgr = crop_pixel(p, col, row);
  const int64_t plane = static_cast<int64_t>(p.size_px) * p.size_px;
  for (int c = 0; c < 3; ++c) p.out[c * plane + row * p.size_px + col] = bgr[2 - c];
}

template <class Maps>
__device__ void compose_at(const ComposeParams& p, const Maps& maps) {
  const int col = p.box_x0 + blockIdx.x * blockDim.x + threadIdx.x, row = p.box_y0 + blockIdx.y;
  if (col < p.box_x1) compose_pixel(p, maps, col, row, p.out + row * p.out_stride_bytes + 3 * col);
}

__global__ void compose_planar_kernel(ComposeParams p, PlanarMaps maps) { compose_at(p, maps); }

__global__ void compose_packed_kernel(ComposeParams p, PackedMaps maps) { compose_at(p, maps); }
