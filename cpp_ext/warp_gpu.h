// The GPU kernels of `crop` and `compose`, block by block, over the arithmetic of warp.h.
//
// Here is everything but the launch: warp_cuda.cu turns each kernel below into a __global__
// function, and a test runs the same kernels on the host, block by block and thread by thread. A
// kernel is a struct with
//   Shared         what a block's threads share
//   kThreads       threads a block
//   tiles(p, b)    how many tiles the work has; block i does tiles i, i + grid, ...
//   first(...)     one thread's part of a tile
//   second(...)    the same after all threads of the block have done first()
//
// A frame's way (BGR; NV12 takes its own kernels and stays NV12)
//   staged   the part of the frame that is needed, in pinned host memory the GPU can read: rows of
//            packed BGR, `in_stride` bytes apart
//   part     the same on the device, 4 bytes a pixel: what a kernel reads at random it reads in one
//            load a pixel
//   crop     (3, S, S), RGB, [0, 1], float or half: the engine's input
//   packed   the engine's answers interleaved, with a border: two 16-byte loads bring a crop pixel
//   out      the composed box, packed BGR, in pinned host memory the GPU can write
// A frame's own numbers (FrameParams) lie in device memory and not in the kernels' arguments, so
// that one captured graph serves every frame.
//
// Convention: as in warp.h. Coordinates are the whole frame's, not the part's.
#pragma once

#include "warp.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace rt_swap {

// hints for nvcc; other compilers would warn of them
#if defined(__CUDACC__)
#define RT_UNROLL _Pragma("unroll")
#define RT_UNROLL_1 _Pragma("unroll 1")
#else
#define RT_UNROLL
#define RT_UNROLL_1
#endif

#if defined(__CUDACC__)
using Half = __half;
RT_HD Half half_of(float f) { return __float2half_rn(f); }
#define RT_SWAP_HAS_HALF 1
#elif defined(__FLT16_MANT_DIG__)
using Half = _Float16;  // rounds to even as the GPU does
RT_HD Half half_of(float f) { return static_cast<Half>(f); }
#define RT_SWAP_HAS_HALF 1
#endif

// 16 bytes: the widest load and store there is on every GPU served.
struct alignas(16) Quad {
  uint32_t word[4];
};

constexpr int32_t kGpuAbi =
    1;  // raised whenever FrameParams, Buffers or a kernel's meaning changes

constexpr int32_t kTileCols = 128;   // of compose, pixels
constexpr int32_t kTileRows = 4;     // of compose, pixels
constexpr int32_t kRowAlign = 48;    // staged BGR rows: 16 pixels, 3 quads
constexpr int32_t kPlaneAlign = 16;  // staged NV12 rows: 1 quad

// Video range YCbCr <-> BGR, in grey levels; which one (BT.601, BT.709) the host decides.
struct Colours {
  float y_offset, c_offset;  // 16 and 128
  float y_scale;             // of Y - y_offset
  float r_from_v, g_from_u, g_from_v, b_from_u;
  float y_from_bgr[3], u_from_bgr[3], v_from_bgr[3];
  float chroma_x, chroma_y;  // of the first chroma sample, from the first luma pixel's centre,
                             // luma pixels: (0, 1/2) for H.264's and HEVC's usual siting
};

// What changes from frame to frame. Filled by fill_frame_params on the host.
struct alignas(16) FrameParams {
  int64_t in_address, out_address;             // staged, out
  CropParams crop;                             // frame, out: unused
  ComposeParams compose;                       // frame, out: unused; the box may be empty
  float a_xx, a_xy, a_yx, a_yy;                // see PlanarMaps
  int32_t width, height;                       // of the whole frame
  int32_t part_x0, part_y0, part_x1, part_y1;  // what is staged, half-open
  int32_t in_stride;                           // bytes from row to row of staged
  int32_t out_stride;                          // bytes from row to row of out
  int32_t in_chroma, out_chroma;               // bytes from the first luma to the first chroma row
  Colours colours;                             // NV12 only
};

// Fixed addresses, captured in the graph. All but `params` may be null where a kernel has no use.
struct Buffers {
  const FrameParams* params;
  uint8_t* part;
  void* crop;                                     // float or half
  const void *flow_xy, *keep, *fill_rgb, *shade;  // float or half, the engine's outputs
  const float* weight;                            // (S, S)
  Pack8* packed;                                  // (S + 2, S + 2)
  int32_t* left_part;  // set to 1 where a pixel had to be fetched from beyond the part
};

// A pointer from an address in global memory (pinned host memory included), which the compiler then
// knows to be one.
template <class T>
RT_HD T* global_pointer(int64_t address) {
#if defined(__CUDA_ARCH__)
  return static_cast<T*>(__cvta_global_to_generic(static_cast<size_t>(address)));
#else
  return reinterpret_cast<T*>(address);
#endif
}

RT_HD int32_t divide_up(int32_t count, int32_t size) { return (count + size - 1) / size; }
RT_HD int32_t round_up(int32_t count, int32_t size) { return divide_up(count, size) * size; }
RT_HD int32_t part_width(const FrameParams& p) { return p.part_x1 - p.part_x0; }
RT_HD int32_t part_height(const FrameParams& p) { return p.part_y1 - p.part_y0; }

// ---- pictures: a part of a frame ---------------------------------------------------------------
// Indices are limited to the part, so that nothing foreign is ever read; where that gives another
// pixel than the whole frame would, `left` is set.
RT_HD int32_t in_part(int32_t index, int32_t count, int32_t begin, int32_t end, bool* left) {
  const int32_t in_frame = clamp_index(index, count);
  *left |= in_frame < begin || in_frame >= end;
  return clamp_index(in_frame - begin, end - begin);
}

// Pixels of 4 bytes: b, g, r, 0.
struct PartBgr {
  const uint32_t* data;
  int32_t stride;  // pixels
  int32_t x0, y0, x1, y1, width, height;
  bool* left;
};

RT_HD PartBgr part_bgr(const FrameParams& p, const Buffers& b, bool* left) {
  return {reinterpret_cast<const uint32_t*>(b.part),
          p.in_stride / 3,
          p.part_x0,
          p.part_y0,
          p.part_x1,
          p.part_y1,
          p.width,
          p.height,
          left};
}

RT_HD Pack4 bgr_of(uint32_t word) {
  Pack4 bgr = {static_cast<float>(word & 0xff), static_cast<float>((word >> 8) & 0xff),
               static_cast<float>((word >> 16) & 0xff), 0.0f};
  return bgr;
}

RT_HD Pack4 sample_bgr(const PartBgr& in, int32_t col, int32_t row, float fraction_x,
                       float fraction_y) {
  const int64_t left = in_part(col, in.width, in.x0, in.x1, in.left);
  const int64_t right = in_part(col + 1, in.width, in.x0, in.x1, in.left);
  const int64_t top = in_part(row, in.height, in.y0, in.y1, in.left);
  const int64_t bottom = in_part(row + 1, in.height, in.y0, in.y1, in.left);
  const uint32_t* upper = in.data + top * in.stride;
  const uint32_t* lower = in.data + bottom * in.stride;
  const uint32_t word[4] = {upper[left], upper[right], lower[left], lower[right]};
  return bilinear_bgr(join_bgr(bgr_of(word[0]), bgr_of(word[1])),
                      join_bgr(bgr_of(word[2]), bgr_of(word[3])), fraction_x, fraction_y);
}

// One plane of bytes; `step` values beside each other (1: luma, 2: chroma) make a sample.
struct PartPlane {
  const uint8_t* data;
  int32_t stride;                         // bytes
  int32_t x0, y0, x1, y1, width, height;  // samples
  bool* left;
};

RT_HD PartPlane part_luma(const FrameParams& p, const Buffers& b, bool* left) {
  return {b.part, p.in_stride, p.part_x0, p.part_y0, p.part_x1, p.part_y1, p.width, p.height, left};
}

RT_HD PartPlane part_chroma(const FrameParams& p, const Buffers& b, bool* left) {
  return {b.part + p.in_chroma, p.in_stride, p.part_x0 / 2, p.part_y0 / 2, p.part_x1 / 2,
          p.part_y1 / 2,        p.width / 2, p.height / 2,  left};
}

RT_HD float sample_luma(const PartPlane& in, int32_t col, int32_t row, float fraction_x,
                        float fraction_y) {
  const int64_t left = in_part(col, in.width, in.x0, in.x1, in.left);
  const int64_t right = in_part(col + 1, in.width, in.x0, in.x1, in.left);
  const uint8_t* upper =
      in.data + static_cast<int64_t>(in_part(row, in.height, in.y0, in.y1, in.left)) * in.stride;
  const uint8_t* lower =
      in.data +
      static_cast<int64_t>(in_part(row + 1, in.height, in.y0, in.y1, in.left)) * in.stride;
  const float a =
      lerp(static_cast<float>(upper[left]), static_cast<float>(lower[left]), fraction_y);
  const float b =
      lerp(static_cast<float>(upper[right]), static_cast<float>(lower[right]), fraction_y);
  return lerp(a, b, fraction_x);
}

// (u, v) as x and y.
RT_HD Point sample_chroma(const PartPlane& in, int32_t col, int32_t row, float fraction_x,
                          float fraction_y) {
  const int64_t left = 2 * static_cast<int64_t>(in_part(col, in.width, in.x0, in.x1, in.left));
  const int64_t right = 2 * static_cast<int64_t>(in_part(col + 1, in.width, in.x0, in.x1, in.left));
  const uint8_t* upper =
      in.data + static_cast<int64_t>(in_part(row, in.height, in.y0, in.y1, in.left)) * in.stride;
  const uint8_t* lower =
      in.data +
      static_cast<int64_t>(in_part(row + 1, in.height, in.y0, in.y1, in.left)) * in.stride;
  Point uv;
  const float u_left =
      lerp(static_cast<float>(upper[left]), static_cast<float>(lower[left]), fraction_y);
  const float u_right =
      lerp(static_cast<float>(upper[right]), static_cast<float>(lower[right]), fraction_y);
  const float v_left =
      lerp(static_cast<float>(upper[left + 1]), static_cast<float>(lower[left + 1]), fraction_y);
  const float v_right =
      lerp(static_cast<float>(upper[right + 1]), static_cast<float>(lower[right + 1]), fraction_y);
  uv.x = lerp(u_left, u_right, fraction_x);
  uv.y = lerp(v_left, v_right, fraction_x);
  return uv;
}

RT_HD float limit_255(float f) {
  f = f < 0.0f ? 0.0f : f;
  return f > 255.0f ? 255.0f : f;
}

// Where luma position `index + fraction`, counted from pixels' centres, lies among the chroma
// samples. `first` as Colours::chroma_x.
RT_HD Split split_chroma(int32_t index, float fraction, float first) {
  const int32_t half = index >> 1;  // floor
  Split s = split((static_cast<float>(index & 1) + fraction - first) / 2.0f);
  s.index += half;
  return s;
}

// NV12 as a picture that crop_pixel can sample: converted sample by sample.
struct PartNv12 {
  PartPlane luma, chroma;
  const Colours* colours;
};

RT_HD Pack4 sample_bgr(const PartNv12& in, int32_t col, int32_t row, float fraction_x,
                       float fraction_y) {
  const Colours& c = *in.colours;
  const float y = (sample_luma(in.luma, col, row, fraction_x, fraction_y) - c.y_offset) * c.y_scale;
  const Split u = split_chroma(col, fraction_x, c.chroma_x);
  const Split v = split_chroma(row, fraction_y, c.chroma_y);
  const Point uv = sample_chroma(in.chroma, u.index, v.index, u.fraction, v.fraction);
  const float cb = uv.x - c.c_offset, cr = uv.y - c.c_offset;
  Pack4 bgr = {limit_255(y + c.b_from_u * cb), limit_255(y + (c.g_from_u * cb + c.g_from_v * cr)),
               limit_255(y + c.r_from_v * cr), 0.0f};
  return bgr;
}

// A grey level, [0, 255] and rounded half to even, as a byte.
RT_HD uint8_t level_of(float f) {
  return static_cast<uint8_t>((limit_255(f) + 8388608.0f) - 8388608.0f);
}

// ---- kernels -----------------------------------------------------------------------------------
struct Nothing {};

// Staged BGR -> part. A tile is 2,048 pixels of a row: 384 quads in, 512 out, both in the order of
// the threads.
struct UnpackBgr {
  static constexpr int kThreads = 128;
  static constexpr int kPixels = 2048, kIn = 3 * kPixels / 16, kOut = kPixels / 4;
  struct Shared {
    Quad in[kIn];
  };
  RT_HD static int32_t tiles_across(const FrameParams& p) {
    return divide_up(p.in_stride / 3, kPixels);
  }
  RT_HD static int32_t tiles(const FrameParams& p, const Buffers&) {
    return tiles_across(p) * part_height(p);
  }
  RT_HD static void first(const FrameParams& p, const Buffers&, int32_t tile, int32_t thread,
                          Shared& shared) {
    const int32_t across = tiles_across(p), row = tile / across;
    const int32_t begin = tile % across * kIn, count = p.in_stride / 16;
    const Quad* in = reinterpret_cast<const Quad*>(global_pointer<const uint8_t>(p.in_address) +
                                                   static_cast<int64_t>(row) * p.in_stride);
    RT_UNROLL
    for (int32_t k = thread; k < kIn; k += kThreads)
      if (begin + k < count) shared.in[k] = in[begin + k];
  }
  RT_HD static void second(const FrameParams& p, const Buffers& b, int32_t tile, int32_t thread,
                           const Shared& shared) {
    const int32_t across = tiles_across(p), row = tile / across;
    const int32_t begin = tile % across * kOut, count = p.in_stride / 12;
    const uint32_t* words = shared.in[0].word;
    Quad* out = reinterpret_cast<Quad*>(b.part) + static_cast<int64_t>(row) * count;
    RT_UNROLL
    for (int32_t k = thread; k < kOut; k += kThreads) {
      if (begin + k >= count) break;
      // bgrb grbg rbgr -> four pixels
      const uint32_t a = words[3 * k], m = words[3 * k + 1], z = words[3 * k + 2];
      Quad pixels;
      pixels.word[0] = a & 0xffffff;
      pixels.word[1] = (a >> 24) | ((m & 0xffff) << 8);
      pixels.word[2] = (m >> 16) | ((z & 0xff) << 16);
      pixels.word[3] = z >> 8;
      out[begin + k] = pixels;
    }
  }
};

// Staged NV12 -> part, byte for byte: luma rows, then chroma rows. A tile is 512 quads.
struct CopyNv12 {
  static constexpr int kThreads = 128;
  static constexpr int kQuads = 512;
  using Shared = Nothing;
  RT_HD static int32_t quads(const FrameParams& p) {
    return p.in_stride / 16 * (part_height(p) + part_height(p) / 2);
  }
  RT_HD static int32_t tiles(const FrameParams& p, const Buffers&) {
    return divide_up(quads(p), kQuads);
  }
  RT_HD static void first(const FrameParams& p, const Buffers& b, int32_t tile, int32_t thread,
                          Shared&) {
    const Quad* in = global_pointer<const Quad>(p.in_address);
    Quad* out = reinterpret_cast<Quad*>(b.part);
    const int32_t begin = tile * kQuads, count = quads(p);
    RT_UNROLL
    for (int32_t k = thread; k < kQuads; k += kThreads)
      if (begin + k < count) out[begin + k] = in[begin + k];
  }
  RT_HD static void second(const FrameParams&, const Buffers&, int32_t, int32_t, const Shared&) {}
};

RT_HD void store_value(float* out, float f) { *out = f; }
#ifdef RT_SWAP_HAS_HALF
RT_HD void store_value(Half* out, float f) { *out = half_of(f); }
#endif

// Part -> crop. One thread a crop pixel, a warp 32 beside each other.
template <class Value, bool kNv12>
struct Crop {
  static constexpr int kThreads = 128;
  using Shared = Nothing;
  RT_HD static int32_t tiles(const FrameParams& p, const Buffers&) {
    return divide_up(p.crop.size_px * p.crop.size_px, kThreads);
  }
  RT_HD static void first(const FrameParams& p, const Buffers& b, int32_t tile, int32_t thread,
                          Shared&) {
    const int32_t size = p.crop.size_px, k = tile * kThreads + thread, plane = size * size;
    if (k >= plane) return;
    const int32_t row = k / size, col = k % size;
    bool left = false;  // the host has made the part large enough for the crop
    Pack4 bgr;
    if constexpr (kNv12) {
      const PartNv12 frame{part_luma(p, b, &left), part_chroma(p, b, &left), &p.colours};
      bgr = crop_pixel(p.crop, frame, col, row);
    } else {
      bgr = crop_pixel(p.crop, part_bgr(p, b, &left), col, row);
    }
    Value* out = static_cast<Value*>(b.crop) + k;
    store_value(out, bgr[2]);
    store_value(out + plane, bgr[1]);
    store_value(out + 2 * plane, bgr[0]);
  }
  RT_HD static void second(const FrameParams&, const Buffers&, int32_t, int32_t, const Shared&) {}
};

// The engine's answers -> packed; the border repeats the edge. One thread a crop pixel. For NV12
// the fill becomes Y, Cb, Cr.
template <class Value, bool kNv12>
struct PackMaps {
  static constexpr int kThreads = 128;
  using Shared = Nothing;
  RT_HD static int32_t tiles(const FrameParams& p, const Buffers&) {
    const int32_t side = p.compose.size_px + 2;
    return divide_up(side * side, kThreads);
  }
  RT_HD static void first(const FrameParams& p, const Buffers& b, int32_t tile, int32_t thread,
                          Shared&) {
    const int32_t side = p.compose.size_px + 2, k = tile * kThreads + thread;
    if (k >= side * side) return;
    const PlanarMapsOf<Value> maps{static_cast<const Value*>(b.flow_xy),
                                   static_cast<const Value*>(b.keep),
                                   static_cast<const Value*>(b.fill_rgb),
                                   static_cast<const Value*>(b.shade),
                                   b.weight,
                                   p.compose.size_px,
                                   p.a_xx,
                                   p.a_xy,
                                   p.a_yx,
                                   p.a_yy};
    Pack8 m = maps.at(k % side - 1, k / side - 1);
    if constexpr (kNv12) {
      const Colours& c = p.colours;
      const float blue = m[kFillB], green = m[kFillG], red = m[kFillR];
      const auto dot = [&](const float* row) {
        return row[0] * blue + (row[1] * green + row[2] * red);
      };
      m[kFillB] = dot(c.y_from_bgr) + c.y_offset;
      m[kFillG] = dot(c.u_from_bgr) + c.c_offset;
      m[kFillR] = dot(c.v_from_bgr) + c.c_offset;
    }
    b.packed[k] = m;
  }
  RT_HD static void second(const FrameParams&, const Buffers&, int32_t, int32_t, const Shared&) {}
};

RT_HD int32_t compose_tiles_across(const FrameParams& p) {
  return divide_up(p.compose.box_x1 - p.compose.box_x0, kTileCols);
}
RT_HD int32_t compose_tiles(const FrameParams& p) {
  return compose_tiles_across(p) * divide_up(p.compose.box_y1 - p.compose.box_y0, kTileRows);
}
RT_HD PackedMaps packed_maps(const FrameParams& p, const Buffers& b) {
  return {b.packed, p.compose.size_px + 2};
}

// Part and packed -> out. A tile is 128 x 4 pixels of the box; one thread a column of it. The
// pixels are gathered in shared memory, so that they leave as quads.
struct ComposeBgr {
  static constexpr int kThreads = kTileCols;
  static constexpr int kQuadsPerRow = 3 * kTileCols / 16;
  struct Shared {
    Quad out[kTileRows * kQuadsPerRow];
  };
  RT_HD static int32_t tiles(const FrameParams& p, const Buffers&) { return compose_tiles(p); }
  RT_HD static void first(const FrameParams& p, const Buffers& b, int32_t tile, int32_t thread,
                          Shared& shared) {
    const int32_t across = compose_tiles_across(p);
    const int32_t col = p.compose.box_x0 + tile % across * kTileCols + thread;
    const int32_t row_begin = p.compose.box_y0 + tile / across * kTileRows;
    if (col >= p.compose.box_x1) return;
    const PackedMaps maps = packed_maps(p, b);
    bool left = false;
    const PartBgr frame = part_bgr(p, b, &left);
    uint8_t* out = reinterpret_cast<uint8_t*>(shared.out) + 3 * thread;
    RT_UNROLL_1
    for (int32_t k = 0; k < kTileRows; ++k, out += 3 * kTileCols) {
      const int32_t row = row_begin + k;
      if (row >= p.compose.box_y1) break;
      const uint32_t own =
          frame.data[static_cast<int64_t>(row - frame.y0) * frame.stride + (col - frame.x0)];
      uint32_t blue = own & 0xff, green = (own >> 8) & 0xff, red = own >> 16;
      Pack8 m;
      if (instructions_at(p.compose, maps, crop_point(p.compose, col, row), &m)) {
        // counted from this pixel's own centre: flow 0 reads exactly this pixel
        const Split dx = split(m[kFlowX]), dy = split(m[kFlowY]);
        const Pack4 fetched =
            sample_bgr(frame, col + dx.index, row + dy.index, dx.fraction, dy.fraction);
        const Pack4 made = paint_and_feather(m, clamp_255(fetched * m[kShade]), bgr_of(own));
        blue = level_of(made[0]);
        green = level_of(made[1]);
        red = level_of(made[2]);
      }
      out[0] = static_cast<uint8_t>(blue);
      out[1] = static_cast<uint8_t>(green);
      out[2] = static_cast<uint8_t>(red);
    }
    if (left) *b.left_part = 1;  // all who write, write the same
  }
  RT_HD static void second(const FrameParams& p, const Buffers&, int32_t tile, int32_t thread,
                           const Shared& shared) {
    const int32_t across = compose_tiles_across(p);
    if (thread >= kTileRows * kQuadsPerRow) return;
    const int32_t k = thread / kQuadsPerRow, quad = thread % kQuadsPerRow;
    const int32_t row = tile / across * kTileRows + k;  // of the box
    if (row >= p.compose.box_y1 - p.compose.box_y0) return;
    Quad* out = reinterpret_cast<Quad*>(global_pointer<uint8_t>(p.out_address) +
                                        static_cast<int64_t>(row) * p.out_stride);
    out[tile % across * kQuadsPerRow + quad] = shared.out[thread];
  }
};

// The same for NV12, in Y, Cb and Cr; the box has even corners. Each luma pixel and each chroma
// sample is composed where it lies; shading scales what lies above black, and Cb and Cr around
// grey.
struct ComposeNv12 {
  static constexpr int kThreads = kTileCols;
  static constexpr int kQuadsPerRow = kTileCols / 16;
  static constexpr int kRows = kTileRows + kTileRows / 2;  // luma, then chroma
  struct Shared {
    Quad out[kRows * kQuadsPerRow];
  };
  RT_HD static int32_t tiles(const FrameParams& p, const Buffers&) { return compose_tiles(p); }

  RT_HD static float made(float fetched, float offset, float own, float fill, const Pack8& m) {
    const float shaded = limit_255((fetched - offset) * m[kShade] + offset);
    const float inside = shaded + (fill - shaded) * (1.0f - m[kKeep]);
    const float sum = own + (inside - own) * m[kWeight];
    return sum == sum ? sum : own;
  }

  RT_HD static void first(const FrameParams& p, const Buffers& b, int32_t tile, int32_t thread,
                          Shared& shared) {
    const int32_t across = compose_tiles_across(p);
    const int32_t tile_col = p.compose.box_x0 + tile % across * kTileCols;
    const int32_t tile_row = p.compose.box_y0 + tile / across * kTileRows;
    const PackedMaps maps = packed_maps(p, b);
    const Colours& c = p.colours;
    bool left = false;
    uint8_t* bytes = reinterpret_cast<uint8_t*>(shared.out);
    Pack8 m;

    // luma: a column
    const PartPlane luma = part_luma(p, b, &left);
    const int32_t col = tile_col + thread;
    if (col < p.compose.box_x1) {
      RT_UNROLL_1
      for (int32_t k = 0; k < kTileRows; ++k) {
        const int32_t row = tile_row + k;
        if (row >= p.compose.box_y1) break;
        uint8_t y = luma.data[static_cast<int64_t>(row - luma.y0) * luma.stride + (col - luma.x0)];
        if (instructions_at(p.compose, maps, crop_point(p.compose, col, row), &m)) {
          const Split dx = split(m[kFlowX]), dy = split(m[kFlowY]);
          const float fetched =
              sample_luma(luma, col + dx.index, row + dy.index, dx.fraction, dy.fraction);
          y = level_of(made(fetched, c.y_offset, static_cast<float>(y), m[kFillB], m));
        }
        bytes[k * kTileCols + thread] = y;
      }
    }

    // chroma: one sample
    const PartPlane chroma = part_chroma(p, b, &left);
    const int32_t in_row = thread % (kTileCols / 2), down = thread / (kTileCols / 2);
    const int32_t sample_col = tile_col / 2 + in_row, sample_row = tile_row / 2 + down;
    if (2 * sample_col < p.compose.box_x1 && 2 * sample_row < p.compose.box_y1) {
      const uint8_t* own = chroma.data +
                           static_cast<int64_t>(sample_row - chroma.y0) * chroma.stride +
                           2 * (sample_col - chroma.x0);
      uint8_t u = own[0], v = own[1];
      const Point q =
          map_point(p.compose.crop_from_anchor,
                    static_cast<float>(2 * sample_col - p.compose.anchor_col) + c.chroma_x,
                    static_cast<float>(2 * sample_row - p.compose.anchor_row) + c.chroma_y);
      if (instructions_at(p.compose, maps, q, &m)) {
        const Split dx = split(m[kFlowX] / 2.0f), dy = split(m[kFlowY] / 2.0f);
        const Point fetched = sample_chroma(chroma, sample_col + dx.index, sample_row + dy.index,
                                            dx.fraction, dy.fraction);
        u = level_of(made(fetched.x, c.c_offset, static_cast<float>(u), m[kFillG], m));
        v = level_of(made(fetched.y, c.c_offset, static_cast<float>(v), m[kFillR], m));
      }
      uint8_t* out = bytes + (kTileRows + down) * kTileCols + 2 * in_row;
      out[0] = u;
      out[1] = v;
    }
    if (left) *b.left_part = 1;
  }

  RT_HD static void second(const FrameParams& p, const Buffers&, int32_t tile, int32_t thread,
                           const Shared& shared) {
    const int32_t across = compose_tiles_across(p);
    if (thread >= kRows * kQuadsPerRow) return;
    const int32_t k = thread / kQuadsPerRow, quad = thread % kQuadsPerRow;
    const bool is_luma = k < kTileRows;
    const int32_t row =
        is_luma ? tile / across * kTileRows + k : tile / across * (kTileRows / 2) + (k - kTileRows);
    const int32_t rows = p.compose.box_y1 - p.compose.box_y0;
    if (row >= (is_luma ? rows : rows / 2)) return;
    Quad* out = reinterpret_cast<Quad*>(global_pointer<uint8_t>(p.out_address) +
                                        (is_luma ? 0 : p.out_chroma) +
                                        static_cast<int64_t>(row) * p.out_stride);
    out[tile % across * kQuadsPerRow + quad] = shared.out[thread];
  }
};

using CropBgrFloat = Crop<float, false>;
using CropNv12Float = Crop<float, true>;
using PackMapsBgrFloat = PackMaps<float, false>;
using PackMapsNv12Float = PackMaps<float, true>;
// X(name, kernel): what the fatbin holds.
#define RT_SWAP_FLOAT_KERNELS(X)                       \
  X(rt_swap_unpack_bgr, UnpackBgr)                     \
  X(rt_swap_copy_nv12, CopyNv12)                       \
  X(rt_swap_crop_bgr_float32, CropBgrFloat)            \
  X(rt_swap_crop_nv12_float32, CropNv12Float)          \
  X(rt_swap_pack_maps_bgr_float32, PackMapsBgrFloat)   \
  X(rt_swap_pack_maps_nv12_float32, PackMapsNv12Float) \
  X(rt_swap_compose_bgr, ComposeBgr)                   \
  X(rt_swap_compose_nv12, ComposeNv12)
#ifdef RT_SWAP_HAS_HALF
using CropBgrHalf = Crop<Half, false>;
using CropNv12Half = Crop<Half, true>;
using PackMapsBgrHalf = PackMaps<Half, false>;
using PackMapsNv12Half = PackMaps<Half, true>;
#define RT_SWAP_HALF_KERNELS(X)                     \
  X(rt_swap_crop_bgr_float16, CropBgrHalf)          \
  X(rt_swap_crop_nv12_float16, CropNv12Half)        \
  X(rt_swap_pack_maps_bgr_float16, PackMapsBgrHalf) \
  X(rt_swap_pack_maps_nv12_float16, PackMapsNv12Half)
#else
#define RT_SWAP_HALF_KERNELS(X)
#endif

// ---- host: one frame's numbers -----------------------------------------------------------------
// What the caller knows; boxes lie inside the frame, `box` inside `part`.
struct FrameRequest {
  int32_t width, height, size_px;
  int32_t part[4], box[4];  // x0, y0, x1, y1, half-open
  int64_t in_address, out_address;
  int32_t in_stride, out_stride, in_chroma, out_chroma;
};

inline FrameParams frame_params(const FrameRequest& r, const double frame_from_crop[6],
                                const double crop_from_frame[6], const Colours& colours) {
  FrameParams p{};
  p.in_address = r.in_address;
  p.out_address = r.out_address;
  p.crop.size_px = p.compose.size_px = r.size_px;
  set_crop_affine(&p.crop, frame_from_crop);
  PlanarMaps maps{};
  set_compose_affines(&p.compose, &maps, crop_from_frame, frame_from_crop);
  p.a_xx = maps.a_xx;
  p.a_xy = maps.a_xy;
  p.a_yx = maps.a_yx;
  p.a_yy = maps.a_yy;
  p.compose.box_x0 = r.box[0];
  p.compose.box_y0 = r.box[1];
  p.compose.box_x1 = r.box[2];
  p.compose.box_y1 = r.box[3];
  p.width = r.width;
  p.height = r.height;
  p.part_x0 = r.part[0];
  p.part_y0 = r.part[1];
  p.part_x1 = r.part[2];
  p.part_y1 = r.part[3];
  p.in_stride = r.in_stride;
  p.out_stride = r.out_stride;
  p.in_chroma = r.in_chroma;
  p.out_chroma = r.out_chroma;
  p.colours = colours;
  return p;
}

}  // namespace rt_swap
