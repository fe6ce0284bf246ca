// crop and compose pixel by pixel, straight from warp.h and with its plain structs instead of
// vector types: the path that nvcc compiles. test_native.py compares it with the module, bit for
// bit.
#define RT_SWAP_PLAIN_PACKS
#include "warp.h"

using namespace rt_swap;

extern "C" void plain_crop(const uint8_t* frame, int height, int width,
                           const double* frame_from_crop, int size_px, float* out) {
  CropParams p{};
  p.frame = {frame, 3 * static_cast<int64_t>(width), width, height};
  p.size_px = size_px;
  set_crop_affine(&p, frame_from_crop);
  const int64_t plane = static_cast<int64_t>(size_px) * size_px;
  for (int row = 0; row < size_px; ++row) {
    for (int col = 0; col < size_px; ++col) {
      const Pack4 bgr = crop_pixel(p, col, row);
      for (int c = 0; c < 3; ++c) out[c * plane + row * size_px + col] = bgr[2 - c];
    }
  }
}

// out holds the frame already
extern "C" void plain_compose(const uint8_t* frame, int height, int width,
                              const double* crop_from_frame, const double* frame_from_crop,
                              int size_px, const float* flow_xy, const float* keep,
                              const float* fill_rgb, const float* shade, const float* weight,
                              uint8_t* out) {
  ComposeParams p{};
  p.frame = {frame, 3 * static_cast<int64_t>(width), width, height};
  p.size_px = size_px;
  PlanarMaps maps{flow_xy, keep, fill_rgb, shade, weight, size_px, 0, 0, 0, 0};
  set_compose_affines(&p, &maps, crop_from_frame, frame_from_crop);
  for (int row = 0; row < height; ++row)
    for (int col = 0; col < width; ++col)
      compose_pixel(p, maps, col, row, out + 3 * (row * width + col));
}
