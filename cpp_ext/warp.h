// The arithmetic of one pixel of `crop` and `compose`, written once for g++, clang++ and nvcc.
//
// Convention (the same as rt_swap/geometry.py)
//   Coordinates are (x, y) in pixels, origin at the top-left *corner*; the centre of pixel [row,
//   col] is (col + 0.5, row + 0.5). This header is the only C++ file that writes 0.5. Pictures are
//   uint8, HWC, BGR, packed pixels with any row stride. Tensors are float32, NCHW, RGB, [0, 1].
//   "in" is what is read, "out" what is written; affines are backward maps, in from out. What lies
//   outside a picture repeats its edge.
//
// Exactness
//   Every interpolation has the form a + (b - a) * f, so that equal neighbours give back exactly
//   themselves, and the two blends are written so that keep = 1 returns the fetched pixel and an
//   unchanged pixel stays exactly itself. Hence flow = 0, keep = 1, shade = 1 copies the frame bit
//   for bit; no special case is needed for it to hold.
//   Nothing here may be contracted to fused multiply-adds or reordered, or the CPU's code paths and
//   the GPU would round differently: build with -ffp-contract=off, nvcc with -fmad=false, never
//   with -ffast-math.
//   float32 cannot hold a position in an 8K frame to better than 1/2000 px. Positions are therefore
//   kept as a whole "anchor" pixel plus a small float32 distance from its centre.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

#ifdef __FAST_MATH__
#error "rt_swap's warps promise bit-exact results; build them without -ffast-math"
#endif

#if defined(__CUDACC__)
#define RT_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// always_inline: the baseline and the AVX2 copy of a function that is not inlined would have the
// same name, and the linker would keep either
#define RT_HD inline __attribute__((always_inline))
#else
#define RT_HD inline
#endif

namespace rt_swap {

// ---- packs: a few floats that go through the same arithmetic ----------------------------------
// Pack4 is one BGR pixel and a spare lane; Pack8 is two neighbouring pixels, or everything the
// generator says about one crop pixel (see kFlowX). GCC and Clang get vector types, which they map
// to SSE, AVX or NEON; nvcc and others get a plain struct with the same operators, so the formulas
// below are written once. The few intrinsics only move or convert data. RT_SWAP_PLAIN_PACKS forces
// the struct (a test compares the two bit for bit).
#if defined(__GNUC__) && !defined(__CUDACC__) && !defined(RT_SWAP_PLAIN_PACKS)
#define RT_SWAP_VECTOR_PACKS 1
#ifdef __SSE2__
#define RT_SWAP_SSE2 1
#endif
#if defined(__AVX2__) && !defined(RT_SWAP_AVX2)
#define RT_SWAP_AVX2 \
  1  // warp_cpu_avx2.cpp defines it itself: a target pragma does not always define __AVX2__
#endif

typedef float Pack4 __attribute__((vector_size(16)));
// aligned: without AVX, g++ would give this type 16 bytes only, and other files store it with
// aligned AVX instructions
typedef float Pack8 __attribute__((vector_size(32), aligned(32)));

RT_HD Pack4 broadcast(float f) {
  Pack4 pack = {f, f, f, f};
  return pack;
}

// a where it is a number, b where it is NaN
RT_HD Pack4 number_or(Pack4 a, Pack4 b) { return a == a ? a : b; }

// Limits to [0, 255]; NaN stays NaN.
RT_HD Pack4 clamp_255(Pack4 a) {
  const Pack4 low = broadcast(0.0f), high = broadcast(255.0f);
#ifdef RT_SWAP_SSE2
  // these return their second operand where one is NaN
  return _mm_min_ps(high, _mm_max_ps(low, a));
#else
  a = a < low ? low : a;
  return a > high ? high : a;
#endif
}

// Lanes 0 .. 3 and 4 .. 7.
RT_HD Pack4 low_half(Pack8 a) {
  Pack4 half;
  std::memcpy(&half, &a, sizeof half);
  return half;
}
RT_HD Pack4 high_half(Pack8 a) {
  Pack4 half;
  std::memcpy(&half, reinterpret_cast<const char*>(&a) + sizeof half, sizeof half);
  return half;
}

#else

template <int N>
struct alignas(4 * N) Pack {
  float lane[N];
  RT_HD float& operator[](int k) { return lane[k]; }
  RT_HD float operator[](int k) const { return lane[k]; }
};
using Pack4 = Pack<4>;
using Pack8 = Pack<8>;

template <int N>
RT_HD Pack<N> operator+(Pack<N> a, Pack<N> b) {
  for (int k = 0; k < N; ++k) a.lane[k] = a.lane[k] + b.lane[k];
  return a;
}
template <int N>
RT_HD Pack<N> operator-(Pack<N> a, Pack<N> b) {
  for (int k = 0; k < N; ++k) a.lane[k] = a.lane[k] - b.lane[k];
  return a;
}
template <int N>
RT_HD Pack<N> operator*(Pack<N> a, float f) {
  for (int k = 0; k < N; ++k) a.lane[k] = a.lane[k] * f;
  return a;
}
template <int N>
RT_HD Pack<N> operator/(Pack<N> a, float f) {
  for (int k = 0; k < N; ++k) a.lane[k] = a.lane[k] / f;
  return a;
}

RT_HD Pack4 broadcast(float f) { return {{f, f, f, f}}; }

RT_HD Pack4 number_or(Pack4 a, Pack4 b) {
  for (int k = 0; k < 4; ++k) a.lane[k] = a.lane[k] == a.lane[k] ? a.lane[k] : b.lane[k];
  return a;
}

RT_HD Pack4 clamp_255(Pack4 a) {
  for (int k = 0; k < 4; ++k) {
    a.lane[k] = a.lane[k] < 0.0f ? 0.0f : a.lane[k];
    a.lane[k] = a.lane[k] > 255.0f ? 255.0f : a.lane[k];
  }
  return a;
}

RT_HD Pack4 low_half(Pack8 a) { return {{a[0], a[1], a[2], a[3]}}; }
RT_HD Pack4 high_half(Pack8 a) { return {{a[4], a[5], a[6], a[7]}}; }
#endif

// a at f = 0, b at f = 1; exactly a wherever a == b
template <class P>
RT_HD P lerp(P a, P b, float f) {
  return a + (b - a) * f;
}

// ---- coordinates ------------------------------------------------------------------------------
// Whole pixel at or below a coordinate, and how far beyond it.
struct Split {
  int32_t index;
  float fraction;
};

// Far outside any frame, yet twice this still fits int32. Coordinates are limited to it, so that no
// matrix or flow, however large, and no NaN can make an index overflow.
constexpr float kFar = 536870912.0f;  // 2^29

RT_HD Split split(float x) {
  x = x > -kFar ? x : -kFar;  // also catches NaN
  x = x < kFar ? x : kFar;
  int32_t index = static_cast<int32_t>(x);  // towards zero ...
  index -= x < static_cast<float>(index);   // ... to floor
  return {index, x - static_cast<float>(index)};
}

RT_HD int32_t clamp_index(int32_t index, int32_t count) {
  index = index < count - 1 ? index : count - 1;
  return index > 0 ? index : 0;
}

struct Point {
  float x, y;
};

// float32 affine; the callers choose origins so that its numbers stay small
struct Affine {
  float xx, xy, x0;  // x_in = xx * x_out + xy * y_out + x0
  float yx, yy, y0;  // y_in = yx * x_out + yy * y_out + y0
};

RT_HD Point map_point(const Affine& m, float x, float y) {
  return {m.xx * x + (m.xy * y + m.x0), m.yx * x + (m.yy * y + m.y0)};
}

// ---- pictures ---------------------------------------------------------------------------------
struct Picture {
  const uint8_t* data;    // row 0, column 0, blue
  int64_t stride_bytes;   // from one row to the next, any sign
  int32_t width, height;  // pixels, at least 1
};

// One pixel as (b, g, r, 0), in grey levels. Reads 3 bytes.
RT_HD Pack4 load_bgr(const uint8_t* pixel) {
  Pack4 bgr = {static_cast<float>(pixel[0]), static_cast<float>(pixel[1]),
               static_cast<float>(pixel[2]), 0.0f};
  return bgr;
}

// The same, the spare lane undefined. Reads 4 bytes, so another pixel must follow.
RT_HD Pack4 load_bgr_not_last(const uint8_t* pixel) {
#ifdef RT_SWAP_SSE2
  int32_t four;
  std::memcpy(&four, pixel, sizeof four);
  const __m128i zero = _mm_setzero_si128();
  return _mm_cvtepi32_ps(
      _mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero));
#else
  return load_bgr(pixel);
#endif
}

// Two pixels as (b, g, r, b', g', r', any, any).
RT_HD Pack8 join_bgr(Pack4 left, Pack4 right) {
  Pack8 pair = {left[0], left[1], left[2], right[0], right[1], right[2], 0.0f, 0.0f};
  return pair;
}

// The same of two neighbours in memory. Reads 8 bytes, so a third pixel must follow.
RT_HD Pack8 load_bgr_pair(const uint8_t* pixels) {
#if defined(RT_SWAP_SSE2) && defined(RT_SWAP_AVX2)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixels));
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
#elif defined(RT_SWAP_SSE2)
  const __m128i zero = _mm_setzero_si128();
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixels));
  const __m128i halves = _mm_unpacklo_epi8(bytes, zero);
  const __m128 words[2] = {_mm_cvtepi32_ps(_mm_unpacklo_epi16(halves, zero)),
                           _mm_cvtepi32_ps(_mm_unpackhi_epi16(halves, zero))};
  Pack8 pair;
  std::memcpy(&pair, words, sizeof pair);
  return pair;
#elif defined(RT_SWAP_VECTOR_PACKS)
  typedef uint8_t Bytes8 __attribute__((vector_size(8)));
  Bytes8 bytes;
  std::memcpy(&bytes, pixels, sizeof bytes);
  return __builtin_convertvector(bytes, Pack8);
#else
  return join_bgr(load_bgr(pixels), load_bgr(pixels + 3));
#endif
}

// The right one of a pair, as (b, g, r, any); low_half is the left one.
RT_HD Pack4 right_bgr(Pack8 pair) {
#ifdef RT_SWAP_SSE2
  const __m128 low = low_half(pair), high = high_half(pair);
  const __m128 middle = _mm_shuffle_ps(low, high, _MM_SHUFFLE(0, 0, 3, 3));  // b' b' g' g'
  return _mm_shuffle_ps(middle, high, _MM_SHUFFLE(1, 1, 2, 0));              // b' g' r' r'
#else
  Pack4 bgr = {pair[3], pair[4], pair[5], pair[6]};
  return bgr;
#endif
}

// Limits to [0, 255], rounds half to even and writes 3 bytes.
RT_HD void store_bgr(uint8_t* pixel, Pack4 bgr) {
  // adding 2^23 leaves no bits for the fraction, so the addition itself rounds, to even on a tie
  const Pack4 rounded = clamp_255(bgr) + broadcast(8388608.0f);
#ifdef RT_SWAP_SSE2
  // the low byte of each float's bits is the level
  __m128i bits = _mm_and_si128(_mm_castps_si128(rounded), _mm_set1_epi32(0xff));
  bits = _mm_packs_epi32(bits, bits);
  const uint32_t bytes = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_packus_epi16(bits, bits)));
  const uint16_t blue_green = static_cast<uint16_t>(bytes);
  std::memcpy(pixel, &blue_green, 2);
  pixel[2] = static_cast<uint8_t>(bytes >> 16);
#else
  for (int k = 0; k < 3; ++k) pixel[k] = static_cast<uint8_t>(rounded[k] - 8388608.0f);
#endif
}

// Mixes two pairs of pixels, one above the other: first down, then across.
RT_HD Pack4 bilinear_bgr(Pack8 top, Pack8 bottom, float fraction_x, float fraction_y) {
  const Pack8 pair = lerp(top, bottom, fraction_y);
  return lerp(low_half(pair), right_bgr(pair), fraction_x);
}

// Whether [col, row], its neighbours right and below, and the pixel right of those (see
// load_bgr_pair) are in the frame.
RT_HD bool is_well_inside(const Picture& in, int32_t col, int32_t row) {
  return col >= 0 && col < in.width - 2 && row >= 0 && row < in.height - 1;
}

// Bilinear sample between pixel [col, row], which is well inside, and its neighbours: (b, g, r,
// any), grey levels.
RT_HD Pack4 sample_inside(const uint8_t* pixel, int64_t stride_bytes, float fraction_x,
                          float fraction_y) {
  return bilinear_bgr(load_bgr_pair(pixel), load_bgr_pair(pixel + stride_bytes), fraction_x,
                      fraction_y);
}

// The same for any [col, row]; outside the frame its edge is repeated.
RT_HD Pack4 sample_anywhere(const Picture& in, int32_t col, int32_t row, float fraction_x,
                            float fraction_y) {
  const uint8_t* top = in.data + clamp_index(row, in.height) * in.stride_bytes;
  const uint8_t* bottom = in.data + clamp_index(row + 1, in.height) * in.stride_bytes;
  const int64_t left = 3 * static_cast<int64_t>(clamp_index(col, in.width));
  const int64_t right = 3 * static_cast<int64_t>(clamp_index(col + 1, in.width));
  return bilinear_bgr(join_bgr(load_bgr(top + left), load_bgr(top + right)),
                      join_bgr(load_bgr(bottom + left), load_bgr(bottom + right)), fraction_x,
                      fraction_y);
}

RT_HD Pack4 sample_bgr(const Picture& in, int32_t col, int32_t row, float fraction_x,
                       float fraction_y) {
  if (!is_well_inside(in, col, row)) return sample_anywhere(in, col, row, fraction_x, fraction_y);
  const uint8_t* pixel = in.data + row * in.stride_bytes + 3 * static_cast<int64_t>(col);
  return sample_inside(pixel, in.stride_bytes, fraction_x, fraction_y);
}

// ---- crop -------------------------------------------------------------------------------------
struct CropParams {
  Picture frame;
  float* out;       // (3, S, S) contiguous, RGB, [0, 1]
  int32_t size_px;  // S
  int32_t grid;     // n: an n x n grid of taps is averaged for each crop pixel
  int32_t anchor_col,
      anchor_row;  // whole frame pixel near the crop's middle, perhaps outside the frame
  Affine
      anchor_from_crop;  // crop point -> distance from the centre of the anchor pixel, frame pixels
};

// Taps per side for a crop of `scale` frame pixels per crop pixel: one up to 1.5, then one for each
// frame pixel, up to 8.
inline int32_t crop_grid(double scale) {
  if (!(scale > 1.5)) return 1;
  return scale < 8.0 ? static_cast<int32_t>(std::nearbyint(scale)) : 8;
}

// Where tap `tap` of `grid` lies inside crop pixel `pixel`, in x or in y; step = 1 / grid.
RT_HD float tap_position(int32_t pixel, int32_t tap, float step) {
  return static_cast<float>(pixel) + (static_cast<float>(tap) + 0.5f) * step;
}

// Mean of the taps' sum, scaled to [0, 1]. A division, so that white is exactly 1.
RT_HD Pack4 crop_mean(Pack4 sum, int32_t grid) {
  return sum / static_cast<float>(255 * grid * grid);
}

// (b, g, r, any) in [0, 1] of crop pixel [row, col]. `frame` is any picture that sample_bgr takes;
// p.frame and p.out are not read.
template <class Frame>
RT_HD Pack4 crop_pixel(const CropParams& p, const Frame& frame, int32_t col, int32_t row) {
  Pack4 sum = broadcast(0.0f);
  const float step = 1.0f / static_cast<float>(p.grid);
  for (int32_t tap_y = 0; tap_y < p.grid; ++tap_y) {
    for (int32_t tap_x = 0; tap_x < p.grid; ++tap_x) {
      const Point offset = map_point(p.anchor_from_crop, tap_position(col, tap_x, step),
                                     tap_position(row, tap_y, step));
      const Split x = split(offset.x), y = split(offset.y);
      sum = sum + sample_bgr(frame, p.anchor_col + x.index, p.anchor_row + y.index, x.fraction,
                             y.fraction);
    }
  }
  return crop_mean(sum, p.grid);
}
RT_HD Pack4 crop_pixel(const CropParams& p, int32_t col, int32_t row) {
  return crop_pixel(p, p.frame, col, row);
}

// ---- compose ----------------------------------------------------------------------------------
// What Pack8 holds for a crop pixel, in the frame's units: the flow times A, in frame pixels; the
// fill in grey levels, BGR.
constexpr int kFlowX = 0, kFlowY = 1, kKeep = 2, kShade = 3, kFillB = 4, kFillG = 5, kFillR = 6,
              kWeight = 7;

// The generator's answers as they come: separate planes, each S x S, contiguous. Value: float, or
// on a GPU a half.
template <class Value>
struct PlanarMapsOf {
  const Value* flow_xy;   // 2 planes, crop pixels
  const Value* keep;      // 1 plane
  const Value* fill_rgb;  // 3 planes, [0, 1]
  const Value* shade;     // 1 plane, or null for 1 everywhere
  const float* weight;    // 1 plane
  int32_t size_px;        // S
  // A, the 2x2 part of M_frame_from_crop: flow in crop pixels -> frame pixels
  float a_xx, a_xy, a_yx, a_yy;

  // Crop pixel [row, col], -1 .. S each; the edge is repeated.
  RT_HD Pack8 at(int32_t col, int32_t row) const {
    const int64_t plane = static_cast<int64_t>(size_px) * size_px;
    const int64_t k =
        static_cast<int64_t>(clamp_index(row, size_px)) * size_px + clamp_index(col, size_px);
    const float flow_x = static_cast<float>(flow_xy[k]),
                flow_y = static_cast<float>(flow_xy[plane + k]);
    Pack8 maps = {a_xx * flow_x + a_xy * flow_y,
                  a_yx * flow_x + a_yy * flow_y,
                  static_cast<float>(keep[k]),
                  shade ? static_cast<float>(shade[k]) : 1.0f,
                  static_cast<float>(fill_rgb[2 * plane + k]) * 255.0f,
                  static_cast<float>(fill_rgb[plane + k]) * 255.0f,
                  static_cast<float>(fill_rgb[k]) * 255.0f,
                  weight[k]};
    return maps;
  }
};
using PlanarMaps = PlanarMapsOf<float>;

// The same, interleaved beforehand, so that one vector load brings all of a crop pixel, with a
// border of one pixel that repeats the edge, so that nothing needs to be clamped.
struct PackedMaps {
  const Pack8* data;  // (S + 2) x (S + 2)
  int32_t stride;     // S + 2
  RT_HD const Pack8* address(int32_t col, int32_t row) const {
    return data + (static_cast<int64_t>(row + 1) * stride + (col + 1));
  }
  RT_HD Pack8 at(int32_t col, int32_t row) const { return *address(col, row); }
};

struct ComposeParams {
  Picture frame;
  uint8_t* out;                            // same size as the frame, must not overlap it
  int64_t out_stride_bytes;                // from one row of out to the next
  int32_t size_px;                         // S of the maps
  int32_t box_x0, box_y0, box_x1, box_y1;  // half-open, inside the frame: where anything may change
  int32_t anchor_col, anchor_row;          // whole frame pixel near the crop's middle
  Affine crop_from_anchor;                 // distance from the anchor pixel -> q, point of the crop
};

// q: where the centre of frame pixel [row, col] lies in the crop.
RT_HD Point crop_point(const ComposeParams& p, int32_t col, int32_t row) {
  return map_point(p.crop_from_anchor, static_cast<float>(col - p.anchor_col),
                   static_cast<float>(row - p.anchor_row));
}

RT_HD bool is_in_crop(const ComposeParams& p, Point q) {
  const float size = static_cast<float>(p.size_px);
  return q.x >= 0.0f && q.x < size && q.y >= 0.0f && q.y < size;
}

// The crop pixel whose centre is at or above and left of q, and how far q is beyond it.
RT_HD Split split_map(float q) { return split(q - 0.5f); }

RT_HD Pack8 bilinear_maps(Pack8 top_left, Pack8 top_right, Pack8 bottom_left, Pack8 bottom_right,
                          float fraction_x, float fraction_y) {
  return lerp(lerp(top_left, top_right, fraction_x), lerp(bottom_left, bottom_right, fraction_x),
              fraction_y);
}

// Whether the instructions leave a pixel as it is: no weight, or flow 0, keep 1 and shade 1, or one
// of these is NaN.
RT_HD bool is_left_alone(Pack8 m) {
  if (m[kWeight] == 0.0f) return true;
#ifdef RT_SWAP_SSE2
  const __m128 now = low_half(m), still = _mm_setr_ps(0.0f, 0.0f, 1.0f, 1.0f);
  return _mm_movemask_ps(_mm_cmpeq_ps(now, still)) == 15 ||
         _mm_movemask_ps(_mm_cmpunord_ps(now, now)) != 0;
#else
  const float flow_x = m[kFlowX], flow_y = m[kFlowY], keep = m[kKeep], shade = m[kShade];
  if (flow_x == 0.0f && flow_y == 0.0f && keep == 1.0f && shade == 1.0f) return true;
  return !(flow_x == flow_x && flow_y == flow_y && keep == keep && shade == shade);
#endif
}

// The last steps of
//   out = (1 - w) frame(p) + w [ keep clamp(shade frame(p + A flow)) + (1 - keep) fill ]
// in grey levels, not yet rounded; own is frame(p).
RT_HD Pack4 paint_and_feather(Pack8 m, Pack4 shaded, Pack4 own) {
  // paint where nothing can be fetched: exactly `shaded` at keep 1
  const Pack4 fill = high_half(m);
  const Pack4 inside = shaded + (fill - shaded) * (1.0f - m[kKeep]);

  // feather into the frame: exactly the frame's pixel where nothing changed, or where the sum is no
  // number
  return number_or(own + (inside - own) * m[kWeight], own);
}

// Carries the instructions m out at frame pixel [row, col], given what was fetched for it, and
// writes out[0..2].
RT_HD void carry_out(const Picture& frame, Pack8 m, Pack4 fetched, int32_t col, int32_t row,
                     uint8_t* out) {
  const Pack4 shaded = clamp_255(fetched * m[kShade]);
  const uint8_t* pixel = frame.data + row * frame.stride_bytes + 3 * static_cast<int64_t>(col);
  const Pack4 own = col < frame.width - 1 ? load_bgr_not_last(pixel) : load_bgr(pixel);
  store_bgr(out, paint_and_feather(m, shaded, own));
}

// What is to be done at point q of the crop; false where the frame stays as it is, because q is not
// in the crop or the instructions say so. Most of a calm face is to be left alone.
template <class Maps>
RT_HD bool instructions_at(const ComposeParams& p, const Maps& maps, Point q, Pack8* m) {
  if (!is_in_crop(p, q)) return false;
  const Split x = split_map(q.x), y = split_map(q.y);
  *m = bilinear_maps(maps.at(x.index, y.index), maps.at(x.index + 1, y.index),
                     maps.at(x.index, y.index + 1), maps.at(x.index + 1, y.index + 1), x.fraction,
                     y.fraction);
  return !is_left_alone(*m);
}

// All of compose for one pixel: true and writes out[0..2] where it may change, false where it stays
// the frame's own.
template <class Maps>
RT_HD bool compose_pixel(const ComposeParams& p, const Maps& maps, int32_t col, int32_t row,
                         uint8_t* out) {
  Pack8 m;
  if (!instructions_at(p, maps, crop_point(p, col, row), &m)) return false;

  // fetch, counted from this pixel's own centre: flow 0 reads exactly this pixel
  const Split dx = split(m[kFlowX]), dy = split(m[kFlowY]);
  const Pack4 fetched =
      sample_bgr(p.frame, col + dx.index, row + dy.index, dx.fraction, dy.fraction);
  carry_out(p.frame, m, fetched, col, row, out);
  return true;
}

// ---- host: float64 matrices to the anchored float32 ones --------------------------------------
// Matrices are row-major 2x3. Only here is the anchor chosen: the frame pixel under the crop's
// middle.
struct Anchor {
  int32_t col, row;
};

inline Anchor crop_anchor(const double frame_from_crop[6], int32_t size_px) {
  const double half = 0.5 * size_px, far = static_cast<double>(kFar);
  const double x = frame_from_crop[0] * half + frame_from_crop[1] * half + frame_from_crop[2];
  const double y = frame_from_crop[3] * half + frame_from_crop[4] * half + frame_from_crop[5];
  return {static_cast<int32_t>(std::floor(std::fmin(std::fmax(x, -far), far))),
          static_cast<int32_t>(std::floor(std::fmin(std::fmax(y, -far), far)))};
}

inline void set_crop_affine(CropParams* p, const double frame_from_crop[6]) {
  const double* m = frame_from_crop;
  const Anchor anchor = crop_anchor(m, p->size_px);
  p->anchor_col = anchor.col;
  p->anchor_row = anchor.row;
  p->anchor_from_crop = {static_cast<float>(m[0]),
                         static_cast<float>(m[1]),
                         static_cast<float>(m[2] - (anchor.col + 0.5)),
                         static_cast<float>(m[3]),
                         static_cast<float>(m[4]),
                         static_cast<float>(m[5] - (anchor.row + 0.5))};
  p->grid = crop_grid(std::sqrt(std::fabs(m[0] * m[4] - m[1] * m[3])));
}

inline void set_compose_affines(ComposeParams* p, PlanarMaps* maps, const double crop_from_frame[6],
                                const double frame_from_crop[6]) {
  const Anchor anchor = crop_anchor(frame_from_crop, p->size_px);
  p->anchor_col = anchor.col;
  p->anchor_row = anchor.row;
  const double* m = crop_from_frame;
  const double x = anchor.col + 0.5, y = anchor.row + 0.5;
  p->crop_from_anchor = {static_cast<float>(m[0]),
                         static_cast<float>(m[1]),
                         static_cast<float>(m[0] * x + m[1] * y + m[2]),
                         static_cast<float>(m[3]),
                         static_cast<float>(m[4]),
                         static_cast<float>(m[3] * x + m[4] * y + m[5])};
  maps->a_xx = static_cast<float>(frame_from_crop[0]);
  maps->a_xy = static_cast<float>(frame_from_crop[1]);
  maps->a_yx = static_cast<float>(frame_from_crop[3]);
  maps->a_yy = static_cast<float>(frame_from_crop[4]);
}

}  // namespace rt_swap
