// The kernels of warp_gpu.h as CUDA functions; setup.py compiles this to rt_swap/_warp.fatbin.
//
// Each takes one Buffers by value. The grid may have any number of blocks: a block does every
// gridDim.x-th tile, since the captured grid is fixed while the region of interest is not.
#include "warp_gpu.h"

namespace rt_swap {
namespace {

template <class Kernel>
__device__ __forceinline__ void run_tiles(const Buffers& buffers) {
  __shared__ typename Kernel::Shared shared;
  // a copy: stores through byte pointers would make the compiler read it again and again
  const FrameParams params = *buffers.params;
  const int32_t tiles = Kernel::tiles(params, buffers);
  for (int32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    Kernel::first(params, buffers, tile, threadIdx.x, shared);
    __syncthreads();
    Kernel::second(params, buffers, tile, threadIdx.x, shared);
    __syncthreads();  // before the next tile overwrites `shared`
  }
}

}  // namespace
}  // namespace rt_swap

// checked when the module is loaded: a fatbin of another build would misread FrameParams
extern "C" __device__ const int rt_swap_abi = rt_swap::kGpuAbi;
extern "C" __device__ const int rt_swap_params_bytes = sizeof(rt_swap::FrameParams);

#define RT_SWAP_GLOBAL(name, Kernel)                                      \
  extern "C" __global__ void __launch_bounds__(rt_swap::Kernel::kThreads) \
      name(rt_swap::Buffers buffers) {                                    \
    rt_swap::run_tiles<rt_swap::Kernel>(buffers);                         \
  }
RT_SWAP_FLOAT_KERNELS(RT_SWAP_GLOBAL)
RT_SWAP_HALF_KERNELS(RT_SWAP_GLOBAL)
