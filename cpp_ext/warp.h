// The arithmetic of one pixel of `crop` and `compose`, written once for g++, clang++ and nvcc.
//
// Convention (the same as rt_swap/geometry.py)
//   Coordinates are (x, y) in pixels, origin at the top-left *corner*; the centre of pixel [row, col] is
//   (col + 0.5, row + 0.5). This header is the only C++ file that writes 0.5. Pictures are uint8, HWC, BGR, packed
//   pixels with any row stride. Tensors are float32, NCHW, RGB, [0, 1]. "in" is what is read, "out" what is written;
//   affines are backward maps, in from out. What lies outside a picture repeats its edge.
//
// Exactness
//   * Every interpolation has the form a + (b - a) * f, so that equal neighbours give back exactly themselves, and the
//     two blends are written so that keep = 1 returns the fetched pixel and an unchanged pixel stays exactly itself.
//     Hence flow = 0, keep = 1, shade = 1 copies the frame bit for bit; no special case is needed for it to hold.
//   * Nothing here may be contracted to fused multiply-adds or reordered, or the CPU's code paths and the GPU would
//     round differently: build with -ffp-contract=off, nvcc with -fmad=false, never with -ffast-math.
//   * float32 cannot hold a position in an 8K frame to better than 1/2000 px. Positions are therefore kept as a whole
//     "anchor" pixel plus a small float32 distance from its centre.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __FAST_MATH__
#error "rt_swap's warps promise bit-exact results; build them without -ffast-math"
#endif

#if defined(__CUDACC__)
#define RT_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// always_inline: a function that is not inlined would keep the baseline instruction set inside an AVX2 clone
#define RT_HD inline __attribute__((always_inline))
#else
#define RT_HD inline
#endif

namespace rt_swap {

// ---- packs: a few floats that go through the same arithmetic -----------------------------------------------------------
// Pack4 is one BGR pixel and a spare lane, Pack8 is everything the generator says about one crop pixel (see kFlowX).
// GCC and Clang get vector types, which they map to SSE, AVX or NEON; nvcc and others get a plain struct with the same
// operators, so the formulas below are written once. RT_SWAP_PLAIN_PACKS forces the struct (a test compares the two).
#if defined(__GNUC__) && !defined(__CUDACC__) && !defined(RT_SWAP_PLAIN_PACKS)
#define RT_SWAP_VECTOR_PACKS 1

typedef float Pack4 __attribute__((vector_size(16)));
// aligned: without AVX, g++ gives this type 16 bytes only, while an AVX2 clone stores it with aligned instructions
typedef float Pack8 __attribute__((vector_size(32), aligned(32)));

// a where it is a number, b where it is NaN
RT_HD Pack4 number_or(Pack4 a, Pack4 b) { return a == a ? a : b; }

// Limits to [0, 255]; NaN stays NaN.
RT_HD Pack4 clamp_255(Pack4 a) {
  const Pack4 low = {0.0f, 0.0f, 0.0f, 0.0f}, high = {255.0f, 255.0f, 255.0f, 255.0f};
  a = a < low ? low : a;
  return a > high ? high : a;
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
#endif

// a at f = 0, b at f = 1; exactly a wherever a == b
template <class P>
RT_HD P lerp(P a, P b, float f) {
  return a + (b - a) * f;
}

// ---- coordinates -------------------------------------------------------------------------------------------------------
// Whole pixel at or below a coordinate, and how far beyond it.
struct Split {
  int32_t index;
  float fraction;
};

// Far outside any frame, yet twice this still fits int32. Coordinates are limited to it, so that no matrix or flow,
// however large, and no NaN can make an index overflow.
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

// ---- pictures ----------------------------------------------------------------------------------------------------------
struct Picture {
  const uint8_t* data;   // row 0, column 0, blue
  int64_t stride_bytes;  // from one row to the next, any sign
  int32_t width, height;  // pixels, at least 1
};

// One pixel as (b, g, r, 0), in grey levels. Reads 3 bytes.
RT_HD Pack4 load_bgr(const uint8_t* pixel) {
  Pack4 bgr = {static_cast<float>(pixel[0]), static_cast<float>(pixel[1]), static_cast<float>(pixel[2]), 0.0f};
  return bgr;
}

// The same, but reads 4 bytes where that is faster: the spare lane holds the next pixel's blue. Only where there is one.
RT_HD Pack4 load_bgr_and_next(const uint8_t* pixel) {
#ifdef RT_SWAP_VECTOR_PACKS
  typedef uint8_t Bytes4 __attribute__((vector_size(4)));
  Bytes4 bytes;
  std::memcpy(&bytes, pixel, sizeof bytes);
  return __builtin_convertvector(bytes, Pack4);
#else
  return load_bgr(pixel);
#endif
}

// Limits to [0, 255], rounds half to even and writes 3 bytes.
RT_HD void store_bgr(uint8_t* pixel, Pack4 bgr) {
  // adding 2^23 leaves no bits for the fraction, so the addition itself rounds, to even on a tie
  const Pack4 rounder = {8388608.0f, 8388608.0f, 8388608.0f, 8388608.0f};
  const Pack4 rounded = clamp_255(bgr) + rounder;
#ifdef RT_SWAP_VECTOR_PACKS
  typedef uint32_t Words4 __attribute__((vector_size(16)));
  typedef uint8_t Bytes4 __attribute__((vector_size(4)));
  Words4 words;
  std::memcpy(&words, &rounded, sizeof words);
  const Bytes4 bytes = __builtin_convertvector(words & 0xffu, Bytes4);
  std::memcpy(pixel, &bytes, 3);
#else
  for (int k = 0; k < 3; ++k) pixel[k] = static_cast<uint8_t>(rounded[k] - 8388608.0f);
#endif
}

// Bilinear sample, (b, g, r, unused) in grey levels, at the centre of pixel [row, col] moved by (dx, dy) pixels. The pixel
// may lie outside; the edge is repeated there.
RT_HD Pack4 sample_bgr(const Picture& in, int32_t col, int32_t row, float dx, float dy) {
  const Split sx = split(dx), sy = split(dy);
  const int32_t x = col + sx.index, y = row + sy.index;
  Pack4 top_left, top_right, bottom_left, bottom_right;
  // well inside: all four pixels are there, and another one to their right (see load_bgr_and_next)
  if (x >= 0 && x < in.width - 2 && y >= 0 && y < in.height - 1) {
    const uint8_t* top = in.data + y * in.stride_bytes + 3 * x;
    const uint8_t* bottom = top + in.stride_bytes;
    top_left = load_bgr_and_next(top);
    top_right = load_bgr_and_next(top + 3);
    bottom_left = load_bgr_and_next(bottom);
    bottom_right = load_bgr_and_next(bottom + 3);
  } else {
    const uint8_t* top = in.data + clamp_index(y, in.height) * in.stride_bytes;
    const uint8_t* bottom = in.data + clamp_index(y + 1, in.height) * in.stride_bytes;
    const int32_t left = 3 * clamp_index(x, in.width), right = 3 * clamp_index(x + 1, in.width);
    top_left = load_bgr(top + left);
    top_right = load_bgr(top + right);
    bottom_left = load_bgr(bottom + left);
    bottom_right = load_bgr(bottom + right);
  }
  return lerp(lerp(top_left, top_right, sx.fraction), lerp(bottom_left, bottom_right, sx.fraction), sy.fraction);
}

// ---- crop --------------------------------------------------------------------------------------------------------------
struct CropParams {
  Picture frame;
  float* out;               // (3, S, S) contiguous, RGB, [0, 1]
  int32_t size_px;          // S
  int32_t grid;             // n: an n x n grid of taps is averaged for each crop pixel
  int32_t anchor_col, anchor_row;  // whole frame pixel near the crop's middle, perhaps outside the frame
  Affine anchor_from_crop;  // crop point -> distance from the centre of the anchor pixel, frame pixels
};

// Taps per side for a crop of `scale` frame pixels per crop pixel: one up to 1.5, then one for each frame pixel, up to 8.
inline int32_t crop_grid(double scale) {
  if (!(scale > 1.5)) return 1;
  return scale < 8.0 ? static_cast<int32_t>(std::nearbyint(scale)) : 8;
}

// (b, g, r, unused) in [0, 1] of crop pixel [row, col].
RT_HD Pack4 crop_pixel(const CropParams& p, int32_t col, int32_t row) {
  Pack4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
  const float step = 1.0f / static_cast<float>(p.grid);
  for (int32_t tap_y = 0; tap_y < p.grid; ++tap_y) {
    const float y = static_cast<float>(row) + (static_cast<float>(tap_y) + 0.5f) * step;
    for (int32_t tap_x = 0; tap_x < p.grid; ++tap_x) {
      const float x = static_cast<float>(col) + (static_cast<float>(tap_x) + 0.5f) * step;
      const Point offset = map_point(p.anchor_from_crop, x, y);
      sum = sum + sample_bgr(p.frame, p.anchor_col, p.anchor_row, offset.x, offset.y);
    }
  }
  // a division, so that white is exactly 1
  return sum / static_cast<float>(255 * p.grid * p.grid);
}

// ---- compose -----------------------------------------------------------------------------------------------------------
// What Pack8 holds for a crop pixel. The fill is in the order and unit of the frame: BGR, grey levels.
constexpr int kFlowX = 0, kFlowY = 1, kKeep = 2, kShade = 3, kFillB = 4, kFillG = 5, kFillR = 6, kWeight = 7;

// The generator's answers as they come: separate planes, each S x S, contiguous.
struct PlanarMaps {
  const float* flow_xy;   // 2 planes, crop pixels
  const float* keep;      // 1 plane
  const float* fill_rgb;  // 3 planes, [0, 1]
  const float* shade;     // 1 plane, or null for 1 everywhere
  const float* weight;    // 1 plane
  int32_t size_px;        // S

  RT_HD Pack8 at(int32_t col, int32_t row) const {
    const int64_t plane = static_cast<int64_t>(size_px) * size_px;
    const int64_t k = static_cast<int64_t>(row) * size_px + col;
    Pack8 maps;
    maps[kFlowX] = flow_xy[k];
    maps[kFlowY] = flow_xy[plane + k];
    maps[kKeep] = keep[k];
    maps[kShade] = shade ? shade[k] : 1.0f;
    maps[kFillB] = fill_rgb[2 * plane + k] * 255.0f;
    maps[kFillG] = fill_rgb[plane + k] * 255.0f;
    maps[kFillR] = fill_rgb[k] * 255.0f;
    maps[kWeight] = weight[k];
    return maps;
  }
};

// The same, interleaved beforehand, so that one vector load brings all of a crop pixel.
struct PackedMaps {
  const Pack8* data;
  int32_t size_px;
  RT_HD Pack8 at(int32_t col, int32_t row) const { return data[static_cast<int64_t>(row) * size_px + col]; }
};

struct ComposeParams {
  Picture frame;
  uint8_t* out;              // same size as the frame, must not overlap it
  int64_t out_stride_bytes;  // from one row of out to the next
  int32_t size_px;           // S of the maps
  int32_t box_x0, box_y0, box_x1, box_y1;  // half-open, inside the frame: where anything may change
  int32_t anchor_col, anchor_row;          // whole frame pixel near the crop's middle
  Affine crop_from_anchor;  // whole-pixel distance from the anchor -> q, the pixel's centre in the crop
  float a_xx, a_xy, a_yx, a_yy;  // A, the 2x2 part of M_frame_from_crop: flow in crop pixels -> frame pixels
};

// Bilinear sample of all maps at q, a point of the crop.
template <class Maps>
RT_HD Pack8 sample_maps(const Maps& maps, int32_t size_px, Point q) {
  const Split sx = split(q.x - 0.5f), sy = split(q.y - 0.5f);
  const int32_t left = clamp_index(sx.index, size_px), right = clamp_index(sx.index + 1, size_px);
  const int32_t top = clamp_index(sy.index, size_px), bottom = clamp_index(sy.index + 1, size_px);
  return lerp(lerp(maps.at(left, top), maps.at(right, top), sx.fraction),
              lerp(maps.at(left, bottom), maps.at(right, bottom), sx.fraction), sy.fraction);
}

// Carries the instructions out at frame pixel [row, col]:
//   out = (1 - w) frame(p) + w [ keep clamp(shade frame(p + A flow)) + (1 - keep) fill ]
// Returns true and writes out[0..2] where the pixel may change; false where it stays the frame's own: outside the crop,
// where the weight is 0, where the instructions say "leave it", and where one of them is NaN.
template <class Maps>
RT_HD bool compose_pixel(const ComposeParams& p, const Maps& maps, int32_t col, int32_t row, uint8_t* out) {
  // where this pixel lies in the crop
  const Point q = map_point(p.crop_from_anchor, static_cast<float>(col - p.anchor_col),
                            static_cast<float>(row - p.anchor_row));
  const float size = static_cast<float>(p.size_px);
  if (!(q.x >= 0.0f && q.x < size && q.y >= 0.0f && q.y < size)) return false;

  // what to do there; most of a calm face is to be left alone
  const Pack8 m = sample_maps(maps, p.size_px, q);
  const float flow_x = m[kFlowX], flow_y = m[kFlowY], keep = m[kKeep], shade = m[kShade], weight = m[kWeight];
  if (weight == 0.0f || (flow_x == 0.0f && flow_y == 0.0f && keep == 1.0f && shade == 1.0f)) return false;

  // fetch, in frame pixels, counted from this pixel's own centre: flow 0 reads exactly this pixel
  const float dx = p.a_xx * flow_x + p.a_xy * flow_y, dy = p.a_yx * flow_x + p.a_yy * flow_y;
  if (!(dx == dx && dy == dy)) return false;
  const Pack4 fetched = clamp_255(sample_bgr(p.frame, col, row, dx, dy) * shade);

  // paint where nothing can be fetched: exactly `fetched` at keep 1
  const Pack4 fill = {m[kFillB], m[kFillG], m[kFillR], 0.0f};
  const Pack4 inside = fetched + (fill - fetched) * (1.0f - keep);

  // feather into the frame: exactly the frame's pixel where nothing changed
  const Pack4 own = load_bgr(p.frame.data + row * p.frame.stride_bytes + 3 * static_cast<int64_t>(col));
  store_bgr(out, number_or(own + (inside - own) * weight, own));
  return true;
}

// ---- host: float64 matrices to the anchored float32 ones -----------------------------------------------------------------
// Matrices are row-major 2x3. Only here is the anchor chosen: the frame pixel under the crop's middle.
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
  p->anchor_from_crop = {static_cast<float>(m[0]), static_cast<float>(m[1]),
                         static_cast<float>(m[2] - (anchor.col + 0.5)),
                         static_cast<float>(m[3]), static_cast<float>(m[4]),
                         static_cast<float>(m[5] - (anchor.row + 0.5))};
  p->grid = crop_grid(std::sqrt(std::fabs(m[0] * m[4] - m[1] * m[3])));
}

inline void set_compose_affines(ComposeParams* p, const double crop_from_frame[6], const double frame_from_crop[6]) {
  const Anchor anchor = crop_anchor(frame_from_crop, p->size_px);
  p->anchor_col = anchor.col;
  p->anchor_row = anchor.row;
  const double* m = crop_from_frame;
  const double x = anchor.col + 0.5, y = anchor.row + 0.5;
  p->crop_from_anchor = {static_cast<float>(m[0]), static_cast<float>(m[1]),
                         static_cast<float>(m[0] * x + m[1] * y + m[2]),
                         static_cast<float>(m[3]), static_cast<float>(m[4]),
                         static_cast<float>(m[3] * x + m[4] * y + m[5])};
  p->a_xx = static_cast<float>(frame_from_crop[0]);
  p->a_xy = static_cast<float>(frame_from_crop[1]);
  p->a_yx = static_cast<float>(frame_from_crop[3]);
  p->a_yy = static_cast<float>(frame_from_crop[4]);
}

}  // namespace rt_swap
