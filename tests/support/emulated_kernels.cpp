// The GPU kernels of cpp_ext/warp_gpu.h run on the host: block by block, thread by thread, phase by
// phase, in the order that a GPU guarantees and no other. Threads run backwards, so that nothing
// can lean on the order inside a block. Built by tests/support/emulated_gpu.py.
#define RT_SWAP_PLAIN_PACKS  // as nvcc gets them
#include <cstdlib>
#include <cstring>
#include <memory>

#include "warp_gpu.h"

using namespace rt_swap;

namespace {

template <class Kernel>
void run_grid(const Buffers& buffers, int grid) {
  const FrameParams params = *buffers.params;
  const int32_t tiles = Kernel::tiles(params, buffers);
  for (int block = 0; block < grid; ++block) {
    // shared memory holds anything at first
    auto shared = std::make_unique<typename Kernel::Shared>();
    std::memset(static_cast<void*>(shared.get()), 0xa5, sizeof *shared);
    for (int32_t tile = block; tile < tiles; tile += grid) {
      for (int thread = Kernel::kThreads - 1; thread >= 0; --thread)
        Kernel::first(params, buffers, tile, thread, *shared);
      for (int thread = Kernel::kThreads - 1; thread >= 0; --thread)
        Kernel::second(params, buffers, tile, thread, *shared);
    }
  }
}

}  // namespace

// 0, or -1 for an unknown name, -2 for another number of threads than the kernel is made for.
extern "C" int emulated_launch(const char* name, int grid, int threads,
                               const void* const* pointers) {
  Buffers b;
  static_assert(sizeof b == 10 * sizeof(void*));
  std::memcpy(static_cast<void*>(&b), pointers, sizeof b);
#define TRY(known, Kernel)                               \
  if (std::strcmp(name, #known) == 0) {                  \
    if (threads != rt_swap::Kernel::kThreads) return -2; \
    run_grid<rt_swap::Kernel>(b, grid);                  \
    return 0;                                            \
  }
  RT_SWAP_FLOAT_KERNELS(TRY)
  RT_SWAP_HALF_KERNELS(TRY)
  return -1;
}

extern "C" int emulated_abi() { return kGpuAbi; }
extern "C" int emulated_params_bytes() { return sizeof(FrameParams); }
extern "C" int emulated_has_half() {
#ifdef RT_SWAP_HAS_HALF
  return 1;
#else
  return 0;
#endif
}
