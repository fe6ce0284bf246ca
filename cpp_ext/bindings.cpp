// rt_swap._warp: the private native module behind rt_swap.ops, which checks arguments with proper
// messages. The checks here only keep a wrong call from touching memory it must not.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "thread_pool.h"
#include "warp_cpu.h"
#include "warp_gpu.h"

namespace py = pybind11;

namespace rt_swap {
namespace {

using Bytes = py::array_t<uint8_t, 0>;  // any strides
using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(std::string("rt_swap._warp: ") + what);
}

void require_picture(const Bytes& picture) {
  require(picture.ndim() == 3 && picture.shape(2) == 3, "a picture must be (H, W, 3)");
  require(picture.shape(0) >= 1 && picture.shape(1) >= 1, "a picture must not be empty");
  require(picture.shape(0) < (1 << 24) && picture.shape(1) < (1 << 24),
          "a picture's sides must be below 2^24");
  require(picture.strides(2) == 1 && picture.strides(1) == 3, "a picture's pixels must be packed");
}

Picture picture_of(const Bytes& array) {
  return {array.data(), array.strides(0), static_cast<int32_t>(array.shape(1)),
          static_cast<int32_t>(array.shape(0))};
}

std::array<double, 6> matrix_of(const Doubles& array) {
  require(array.ndim() == 2 && array.shape(0) == 2 && array.shape(1) == 3,
          "a matrix must be (2, 3)");
  std::array<double, 6> m;
  std::copy(array.data(), array.data() + 6, m.begin());
  return m;
}

const float* planes_of(const Floats& array, int planes, py::ssize_t size_px) {
  require(array.ndim() == 4 && array.shape(0) == 1 && array.shape(1) == planes &&
              array.shape(2) == size_px && array.shape(3) == size_px,
          "a map must be (1, C, S, S)");
  return array.data();
}

void crop_rgb(const Bytes& frame_bgr, const Doubles& M_frame_from_crop, Floats out, int threads) {
  require_picture(frame_bgr);
  require(out.ndim() == 4, "out must be (1, 3, S, S)");
  const py::ssize_t size_px = out.shape(3);
  require(size_px >= 1 && size_px <= 16384, "S must be 1 .. 16384");
  planes_of(out, 3, size_px);

  CropParams p{};
  p.frame = picture_of(frame_bgr);
  p.out = out.mutable_data();
  p.size_px = static_cast<int32_t>(size_px);
  set_crop_affine(&p, matrix_of(M_frame_from_crop).data());

  py::gil_scoped_release unlocked;
  crop_cpu(p, threads);
}

void compose_bgr(const Bytes& frame_bgr, const Doubles& M_crop_from_frame,
                 const Doubles& M_frame_from_crop, const Floats& flow_xy, const Floats& keep,
                 const Floats& fill_rgb, const py::object& shade, const Floats& weight,
                 const std::array<int32_t, 4>& box_xyxy, Bytes out_bgr, int threads) {
  require_picture(frame_bgr);
  require_picture(out_bgr);
  require(out_bgr.shape(0) == frame_bgr.shape(0) && out_bgr.shape(1) == frame_bgr.shape(1),
          "out_bgr must have the frame's size");
  require(weight.ndim() == 2 && weight.shape(0) == weight.shape(1), "weight must be (S, S)");
  const py::ssize_t size_px = weight.shape(0);
  require(size_px >= 1 && size_px <= 16384, "S must be 1 .. 16384");

  PlanarMaps maps{};
  maps.size_px = static_cast<int32_t>(size_px);
  maps.flow_xy = planes_of(flow_xy, 2, size_px);
  maps.keep = planes_of(keep, 1, size_px);
  maps.fill_rgb = planes_of(fill_rgb, 3, size_px);
  Floats shade_array;  // keeps the memory alive
  if (!shade.is_none()) {
    shade_array = shade.cast<Floats>();
    maps.shade = planes_of(shade_array, 1, size_px);
  }
  maps.weight = weight.data();

  ComposeParams p{};
  p.frame = picture_of(frame_bgr);
  p.out = out_bgr.mutable_data();
  p.out_stride_bytes = out_bgr.strides(0);
  p.size_px = maps.size_px;
  p.box_x0 = std::max(box_xyxy[0], 0);
  p.box_y0 = std::max(box_xyxy[1], 0);
  p.box_x1 = std::min(box_xyxy[2], p.frame.width);
  p.box_y1 = std::min(box_xyxy[3], p.frame.height);
  set_compose_affines(&p, &maps, matrix_of(M_crop_from_frame).data(),
                      matrix_of(M_frame_from_crop).data());

  py::gil_scoped_release unlocked;
  compose_cpu(p, maps, threads);
}

Colours colours_of(const std::array<float, 18>& values) {
  Colours c{};
  c.y_offset = values[0];
  c.c_offset = values[1];
  c.y_scale = values[2];
  c.r_from_v = values[3];
  c.g_from_u = values[4];
  c.g_from_v = values[5];
  c.b_from_u = values[6];
  std::copy(values.begin() + 7, values.begin() + 10, c.y_from_bgr);
  std::copy(values.begin() + 10, values.begin() + 13, c.u_from_bgr);
  std::copy(values.begin() + 13, values.begin() + 16, c.v_from_bgr);
  c.chroma_x = values[16];
  c.chroma_y = values[17];
  return c;
}

// Whether inner lies in outer; empty boxes do.
bool is_box_in(const std::array<int32_t, 4>& inner, const std::array<int32_t, 4>& outer) {
  if (inner[0] >= inner[2] || inner[1] >= inner[3]) return true;
  return inner[0] >= outer[0] && inner[1] >= outer[1] && inner[2] <= outer[2] &&
         inner[3] <= outer[3];
}

void gpu_frame_params(Bytes out, const std::array<int32_t, 2>& size_wh, int32_t size_px,
                      const Doubles& M_frame_from_crop, const Doubles& M_crop_from_frame,
                      const std::array<int32_t, 4>& part_xyxy,
                      const std::array<int32_t, 4>& box_xyxy, int64_t in_address,
                      int64_t out_address, const std::array<int32_t, 4>& layout,
                      const py::object& colours) {
  require(out.ndim() == 1 && out.strides(0) == 1 && out.shape(0) == sizeof(FrameParams),
          "out must be one FrameParams of bytes");
  require(size_px >= 1 && size_px <= 16384, "S must be 1 .. 16384");
  require(part_xyxy[0] < part_xyxy[2] && part_xyxy[1] < part_xyxy[3] &&
              is_box_in(part_xyxy, {0, 0, size_wh[0], size_wh[1]}),
          "the part must not be empty and must lie in the frame");
  require(is_box_in(box_xyxy, part_xyxy), "the box must lie in the part");
  FrameRequest r{};
  r.width = size_wh[0];
  r.height = size_wh[1];
  r.size_px = size_px;
  std::copy(part_xyxy.begin(), part_xyxy.end(), r.part);
  std::copy(box_xyxy.begin(), box_xyxy.end(), r.box);
  r.in_address = in_address;
  r.out_address = out_address;
  r.in_stride = layout[0];
  r.out_stride = layout[1];
  r.in_chroma = layout[2];
  r.out_chroma = layout[3];
  const FrameParams params = frame_params(
      r, matrix_of(M_frame_from_crop).data(), matrix_of(M_crop_from_frame).data(),
      colours.is_none() ? Colours{} : colours_of(colours.cast<std::array<float, 18>>()));
  std::memcpy(out.mutable_data(), &params, sizeof params);
}

}  // namespace
}  // namespace rt_swap

PYBIND11_MODULE(_warp, m) {
  m.doc() = "Native crop and compose; use rt_swap.ops, which checks its arguments.";
  // noconvert: a silent copy of an output, or a cast, would hide a mistake
  m.def("crop_rgb", &rt_swap::crop_rgb, py::arg("frame_bgr").noconvert(),
        py::arg("M_frame_from_crop").noconvert(), py::arg("out").noconvert(), py::arg("threads"));
  m.def("compose_bgr", &rt_swap::compose_bgr, py::arg("frame_bgr").noconvert(),
        py::arg("M_crop_from_frame").noconvert(), py::arg("M_frame_from_crop").noconvert(),
        py::arg("flow_xy").noconvert(), py::arg("keep").noconvert(),
        py::arg("fill_rgb").noconvert(), py::arg("shade"), py::arg("weight").noconvert(),
        py::arg("box_xyxy"), py::arg("out_bgr").noconvert(), py::arg("threads"));
  m.def(
      "instruction_sets",
      [] {
        py::list names;
        for (const rt_swap::RowKernels* const* k = rt_swap::available_kernels(); *k; ++k)
          names.append((*k)->name);
        return names;
      },
      "What this processor can run, best first; the best is used.");
  m.def(
      "select_instruction_set",
      [](const std::string& name) {
        rt_swap::require(rt_swap::select_kernels(name.c_str()), "no such instruction set here");
      },
      py::arg("name"), "For tests and measurements: use this one from now on.");
  m.attr("GPU_ABI") = rt_swap::kGpuAbi;
  m.attr("GPU_FRAME_PARAMS_BYTES") = sizeof(rt_swap::FrameParams);
  m.def("gpu_frame_params", &rt_swap::gpu_frame_params, py::arg("out").noconvert(),
        py::arg("size_wh"), py::arg("size_px"), py::arg("M_frame_from_crop").noconvert(),
        py::arg("M_crop_from_frame").noconvert(), py::arg("part_xyxy"), py::arg("box_xyxy"),
        py::arg("in_address"), py::arg("out_address"), py::arg("layout"), py::arg("colours"),
        "One frame's numbers for the GPU kernels; see FrameParams in warp_gpu.h.");
  m.def("usable_cores", &rt_swap::usable_cores, "Cores that threads=0 uses.");
}
