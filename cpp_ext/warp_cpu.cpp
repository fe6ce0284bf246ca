#include "warp_cpu.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>

#include "thread_pool.h"

// Two copies of each row loop, one for any x86-64 and one for AVX2; the loader picks once. Neither has fused multiply-adds
// (see setup.py), so both give the same bits. Elsewhere (macOS, ARM, -march=native) one copy is compiled.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(RT_SWAP_NATIVE)
#define RT_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define RT_CLONES
#endif

namespace rt_swap {
namespace {

// Rows per piece of work: small enough that two threads end together although some rows are dearer than others.
constexpr int kRowsPerChunk = 16;

// Pixels below which another thread costs more to wake than it saves.
constexpr int64_t kPixelsPerThread = 4096;

int threads_for(int64_t pixels, int threads) {
  if (threads <= 0) threads = usable_cores();
  return static_cast<int>(std::clamp<int64_t>(pixels / kPixelsPerThread, 1, threads));
}

int chunks_of(int rows) { return (rows + kRowsPerChunk - 1) / kRowsPerChunk; }

// ---- crop --------------------------------------------------------------------------------------------------------------
RT_CLONES void crop_rows(const CropParams& p, int row_begin, int row_end) {
  const int64_t plane = static_cast<int64_t>(p.size_px) * p.size_px;
  for (int row = row_begin; row < row_end; ++row) {
    float* red = p.out + static_cast<int64_t>(row) * p.size_px;
    float* green = red + plane;
    float* blue = green + plane;
    for (int col = 0; col < p.size_px; ++col) {
      const Pack4 bgr = crop_pixel(p, col, row);
      red[col] = bgr[2];
      green[col] = bgr[1];
      blue[col] = bgr[0];
    }
  }
}

void crop_chunk(void* context, int chunk) {
  const CropParams& p = *static_cast<const CropParams*>(context);
  const int row = chunk * kRowsPerChunk;
  crop_rows(p, row, std::min(row + kRowsPerChunk, p.size_px));
}

// ---- compose -----------------------------------------------------------------------------------------------------------
// Scratch for the interleaved maps: 2 MiB at S = 256, kept per calling thread so that a frame allocates nothing.
class PackedBuffer {
 public:
  Pack8* at_least(int64_t count) {
    if (count > capacity_) {
      capacity_ = 0;
      storage_.reset(static_cast<Pack8*>(::operator new(static_cast<size_t>(count) * sizeof(Pack8), kAlignment)));
      capacity_ = count;
    }
    return storage_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};  // a cache line, and enough for any vector store
  struct Free {
    void operator()(Pack8* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<Pack8, Free> storage_;
  int64_t capacity_ = 0;
};

struct ComposeJob {
  const ComposeParams* params;
  const PlanarMaps* planar;
  Pack8* packed;
};

RT_CLONES void pack_rows(const PlanarMaps& planar, Pack8* packed, int row_begin, int row_end) {
  for (int row = row_begin; row < row_end; ++row) {
    Pack8* out = packed + static_cast<int64_t>(row) * planar.size_px;
    for (int col = 0; col < planar.size_px; ++col) out[col] = planar.at(col, row);
  }
}

void pack_chunk(void* context, int chunk) {
  const ComposeJob& job = *static_cast<const ComposeJob*>(context);
  const int row = chunk * kRowsPerChunk;
  pack_rows(*job.planar, job.packed, row, std::min(row + kRowsPerChunk, job.planar->size_px));
}

// Narrows [*begin, *end) to the columns where 0 <= slope * col + offset < size may hold. A column too many costs a little
// time; compose_pixel decides.
void narrow(double slope, double offset, double size, int* begin, int* end) {
  if (slope == 0.0) {
    if (offset < -1.0 || offset > size + 1.0) *end = *begin;
    return;
  }
  const double a = -offset / slope, b = (size - offset) / slope;
  const double low = std::floor(std::min(a, b)) - 1.0, high = std::ceil(std::max(a, b)) + 2.0;
  if (low > *begin) *begin = static_cast<int>(std::min<double>(low, *end));
  if (high < *end) *end = static_cast<int>(std::max<double>(high, *begin));
}

RT_CLONES void compose_row(const ComposeParams& p, const PackedMaps& maps, int row, int col_begin, int col_end) {
  uint8_t* out = p.out + row * p.out_stride_bytes;
  for (int col = col_begin; col < col_end; ++col) compose_pixel(p, maps, col, row, out + 3 * static_cast<int64_t>(col));
}

void compose_chunk(void* context, int chunk) {
  const ComposeJob& job = *static_cast<const ComposeJob*>(context);
  const ComposeParams& p = *job.params;
  const PackedMaps maps{job.packed, p.size_px};
  const Affine& m = p.crop_from_anchor;
  const int row_begin = chunk * kRowsPerChunk, row_end = std::min(row_begin + kRowsPerChunk, p.frame.height);
  for (int row = row_begin; row < row_end; ++row) {
    // the frame's own row first ...
    std::memcpy(p.out + row * p.out_stride_bytes, p.frame.data + row * p.frame.stride_bytes,
                3 * static_cast<size_t>(p.frame.width));
    if (row < p.box_y0 || row >= p.box_y1) continue;
    // ... then the part of it that lies in the crop
    int begin = p.box_x0, end = p.box_x1;
    const double down = static_cast<double>(row) - p.anchor_row;
    narrow(m.xx, m.xy * down + m.x0 - static_cast<double>(m.xx) * p.anchor_col, p.size_px, &begin, &end);
    narrow(m.yx, m.yy * down + m.y0 - static_cast<double>(m.yx) * p.anchor_col, p.size_px, &begin, &end);
    if (begin < end) compose_row(p, maps, row, begin, end);
  }
}

}  // namespace

void crop_cpu(const CropParams& p, int threads) {
  if (p.size_px <= 0) return;
  const int64_t taps = static_cast<int64_t>(p.size_px) * p.size_px * p.grid * p.grid;
  CropParams params = p;
  parallel_for(chunks_of(p.size_px), threads_for(taps, threads), crop_chunk, &params);
}

void compose_cpu(const ComposeParams& p, const PlanarMaps& maps, int threads) {
  ComposeJob job{&p, &maps, nullptr};
  const int64_t box_pixels =
      static_cast<int64_t>(std::max(p.box_x1 - p.box_x0, 0)) * std::max(p.box_y1 - p.box_y0, 0);
  if (box_pixels > 0) {
    static thread_local PackedBuffer buffer;
    const int64_t map_pixels = static_cast<int64_t>(maps.size_px) * maps.size_px;
    job.packed = buffer.at_least(map_pixels);
    parallel_for(chunks_of(maps.size_px), threads_for(map_pixels, threads), pack_chunk, &job);
  }
  // a copied pixel costs a small fraction of a composed one
  const int64_t copied = static_cast<int64_t>(p.frame.width) * p.frame.height / 16;
  parallel_for(chunks_of(p.frame.height), threads_for(box_pixels + copied, threads), compose_chunk, &job);
}

}  // namespace rt_swap
