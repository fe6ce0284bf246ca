#include "warp_cpu.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>

#include "thread_pool.h"
#include "warp_rows.inc"

namespace rt_swap {
namespace {

// ---- instruction sets ------------------------------------------------------------------------
#if defined(RT_SWAP_NATIVE)
constexpr char kBaselineName[] = "native";
#else
constexpr char kBaselineName[] = "baseline";
#endif

const RowKernels kBaseline = {kBaselineName, crop_rows, pack_rows, compose_row_packed,
                              compose_row_planar};

std::atomic<const RowKernels*> g_kernels{nullptr};

const RowKernels& kernels() {
  const RowKernels* chosen = g_kernels.load(std::memory_order_relaxed);
  if (!chosen) {
    chosen = available_kernels()[0];
    g_kernels.store(chosen, std::memory_order_relaxed);
  }
  return *chosen;
}

// ---- work sizes ------------------------------------------------------------------------------
// Rows per piece of work: small enough that two threads end together although some rows are dearer
// than others.
constexpr int kRowsPerChunk = 16;

// Pixels below which another thread costs more to wake than it saves.
constexpr int64_t kPixelsPerThread = 4096;

int threads_for(int64_t pixels, int threads) {
  if (threads <= 0) threads = usable_cores();
  return static_cast<int>(std::clamp<int64_t>(pixels / kPixelsPerThread, 1, threads));
}

int chunks_of(int rows) { return (rows + kRowsPerChunk - 1) / kRowsPerChunk; }

// ---- crop ------------------------------------------------------------------------------------
struct CropJob {
  const CropParams* params;
  const RowKernels* kernels;
};

void crop_chunk(void* context, int chunk) {
  const CropJob& job = *static_cast<const CropJob*>(context);
  const int row = chunk * kRowsPerChunk;
  job.kernels->crop_rows(*job.params, row, std::min(row + kRowsPerChunk, job.params->size_px));
}

// ---- compose ---------------------------------------------------------------------------------
// Scratch for the interleaved maps: 2 MiB at S = 256, kept per calling thread so that a frame
// allocates nothing.
class PackedBuffer {
 public:
  PackedBuffer() = default;
  PackedBuffer(const PackedBuffer&) = delete;
  PackedBuffer& operator=(const PackedBuffer&) = delete;
  ~PackedBuffer() { release(); }

  Pack8* at_least(int64_t count) {
    if (count > capacity_) {
      release();
      storage_ = ::operator new(static_cast<size_t>(count) * sizeof(Pack8), kAlignment);
      capacity_ = count;
    }
    return static_cast<Pack8*>(storage_);
  }

 private:
  static constexpr std::align_val_t kAlignment{
      64};  // a cache line, and enough for any vector store

  void release() {
    ::operator delete(storage_, kAlignment);
    storage_ = nullptr;
    capacity_ = 0;
  }

  void* storage_ = nullptr;
  int64_t capacity_ = 0;
};

struct ComposeJob {
  const ComposeParams* params;
  const PlanarMaps* planar;
  Pack8* packed;  // null: read the planes as they are
  const RowKernels* kernels;
};

void pack_chunk(void* context, int chunk) {
  const ComposeJob& job = *static_cast<const ComposeJob*>(context);
  const int row = chunk * kRowsPerChunk;
  job.kernels->pack_rows(*job.planar, job.packed, row,
                         std::min(row + kRowsPerChunk, job.planar->size_px + 2));
}

// Narrows [*begin, *end) to the columns where 0 <= slope * col + offset < size may hold, a few too
// many.
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

// The columns of a row whose pixels lie in the crop. Positions along a row are monotonous, also
// when rounded, so these are one run, exactly those that is_in_crop() lets through.
void columns_in_crop(const ComposeParams& p, int row, int* begin, int* end) {
  const Affine& m = p.crop_from_anchor;
  const double down = static_cast<double>(row) - p.anchor_row;
  *begin = p.box_x0;
  *end = p.box_x1;
  narrow(m.xx, m.xy * down + m.x0 - static_cast<double>(m.xx) * p.anchor_col, p.size_px, begin,
         end);
  narrow(m.yx, m.yy * down + m.y0 - static_cast<double>(m.yx) * p.anchor_col, p.size_px, begin,
         end);
  while (*begin < *end && !is_in_crop(p, crop_point(p, *begin, row))) ++*begin;
  while (*begin < *end && !is_in_crop(p, crop_point(p, *end - 1, row))) --*end;
}

void compose_chunk(void* context, int chunk) {
  const ComposeJob& job = *static_cast<const ComposeJob*>(context);
  const ComposeParams& p = *job.params;
  const PackedMaps packed{job.packed, p.size_px + 2};
  const int row_begin = chunk * kRowsPerChunk,
            row_end = std::min(row_begin + kRowsPerChunk, p.frame.height);
  for (int row = row_begin; row < row_end; ++row) {
    // the frame's own row first ...
    std::memcpy(p.out + row * p.out_stride_bytes, p.frame.data + row * p.frame.stride_bytes,
                3 * static_cast<size_t>(p.frame.width));
    if (row < p.box_y0 || row >= p.box_y1) continue;
    // ... then the part of it that lies in the crop
    int begin, end;
    columns_in_crop(p, row, &begin, &end);
    if (begin >= end) continue;
    if (job.packed)
      job.kernels->compose_row_packed(p, packed, row, begin, end);
    else
      job.kernels->compose_row_planar(p, *job.planar, row, begin, end);
  }
}

}  // namespace

const RowKernels* const* available_kernels() {
  static const RowKernels* const* list = [] {
    static const RowKernels* found[3] = {};
    int count = 0;
    if (const RowKernels* avx2 = avx2_kernels()) found[count++] = avx2;
    found[count] = &kBaseline;
    return found;
  }();
  return list;
}

bool select_kernels(const char* name) {
  for (const RowKernels* const* k = available_kernels(); *k; ++k) {
    if (std::strcmp((*k)->name, name) == 0) {
      g_kernels.store(*k, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

void crop_cpu(const CropParams& p, int threads) {
  if (p.size_px <= 0) return;
  CropJob job{&p, &kernels()};
  const int64_t taps = static_cast<int64_t>(p.size_px) * p.size_px * p.grid * p.grid;
  parallel_for(chunks_of(p.size_px), threads_for(taps, threads), crop_chunk, &job);
}

void compose_cpu(const ComposeParams& p, const PlanarMaps& maps, int threads) {
  ComposeJob job{&p, &maps, nullptr, &kernels()};
  const int64_t box_pixels =
      static_cast<int64_t>(std::max(p.box_x1 - p.box_x0, 0)) * std::max(p.box_y1 - p.box_y0, 0);
  // interleaving pays where each crop pixel is read several times; a small face is quicker without
  const int64_t side = static_cast<int64_t>(maps.size_px) + 2;
  if (4 * box_pixels > side * side) {
    static thread_local PackedBuffer buffer;
    job.packed = buffer.at_least(side * side);
    parallel_for(chunks_of(static_cast<int>(side)), threads_for(side * side, threads), pack_chunk,
                 &job);
  }
  // a copied pixel costs a small fraction of a composed one
  const int64_t copied = static_cast<int64_t>(p.frame.width) * p.frame.height / 16;
  parallel_for(chunks_of(p.frame.height), threads_for(box_pixels + copied, threads), compose_chunk,
               &job);
}

}  // namespace rt_swap
