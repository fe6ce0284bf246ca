// The row loops once more, for AVX2. The pragma comes after the standard headers, so that their
// inline functions stay baseline, and before warp.h, so that its vector types are compiled to AVX
// from the start (function multiversioning by target_clones would split them into SSE halves
// first). There is no FMA in "avx2", so both copies give the same bits.
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(RT_SWAP_NATIVE)
#include <immintrin.h>
#pragma GCC target("avx2")
#define RT_SWAP_HAS_AVX2_COPY 1
#define RT_SWAP_AVX2 1
#endif

#include "warp_cpu.h"

#ifdef RT_SWAP_HAS_AVX2_COPY
#include "warp_rows.inc"

namespace rt_swap {

static const RowKernels kAvx2 = {"avx2", crop_rows, pack_rows, compose_row_packed,
                                 compose_row_planar};

const RowKernels* avx2_kernels() { return __builtin_cpu_supports("avx2") ? &kAvx2 : nullptr; }

}  // namespace rt_swap

#else

namespace rt_swap {
const RowKernels* avx2_kernels() { return nullptr; }
}  // namespace rt_swap

#endif
