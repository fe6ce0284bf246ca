"""Parity of the CUDA and the CPU kernels, and the chain, on a GPU. What runs here is what the
emulated GPU runs elsewhere; only the driver differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from benchmarks.bench_cuda import StaticEngine
from rt_swap import geometry, ops
from rt_swap.backends import available_backends, get_backend
from rt_swap.backends.cuda import fatbin, probe
from rt_swap.backends.cuda.backend import CudaBackend
from rt_swap.backends.cuda.colour import Colour
from rt_swap.backends.cuda.driver import Driver
from rt_swap.backends.cuda.session import GpuSession
from rt_swap.contract import GENERATOR_SPEC, some_landmarks
from rt_swap.frames import F32, F64
from rt_swap.ops import reference
from tests.support.fake_gpu import FakeGpu, emulator, fatbin_for
from tests.support.gpu_specs import generator_like
from tests.support.tolerance import CROP_ATOL, assert_compose_close
from tests.support.warp_cases import PLACES, Maps, noise_frame, placed, random_maps, still_maps

pytest.importorskip("rt_swap._warp", reason="needs the native module (make ext)")

Load = Callable[..., GpuSession]
GAINS: dict[str, F32] = {"gains": np.ones((1, 5), np.float32)}


def skip(reason: str) -> NoReturn:
    """Skip, or fail where somebody means to test a GPU (make test-gpu)."""
    if os.environ.get("RT_SWAP_REQUIRE_GPU"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Load:
    """Makes a session whose engine answers given maps."""
    if request.param == "emulated":
        emulator()
        kernels = fatbin_for(tmp_path / "k.fatbin")
    else:
        reason = probe.why_not(
            "rtx",
            has_package=lambda name: name != "pycuda" or probe.is_installed(name),
            version=lambda flavour: None,
            targets=lambda flavour: (),  # the kernels alone do not need it to build for this GPU
        )
        if reason is not None:
            skip(f"needs a usable GPU: {reason}")
        kernels = fatbin.FATBIN

    def make(maps: Maps, **options) -> GpuSession:
        made: list[Driver] = []

        def driver(ordinal: int) -> Driver:
            if request.param == "emulated":
                made.append(FakeGpu())
            else:
                from rt_swap.backends.cuda.pycuda_driver import PyCudaDriver

                made.append(PyCudaDriver(ordinal))
            return made[-1]

        names = ("flow_xy", "keep", "fill_rgb", "shade")
        outputs = dict(zip(names, maps, strict=False))
        backend = CudaBackend(
            "rtx",
            make_driver=driver,
            open_engine=lambda path, spec, *_: StaticEngine(made[-1], spec, outputs),
            kernels=kernels,
            **options,
        )
        return backend.load(Path(__file__), generator_like(maps.weight.shape[0]), 0)

    return make


def maps_of(rng: np.random.Generator, size_px: int, flow_px: float = 3.0) -> Maps:
    return random_maps(rng, size_px, ops.feather(size_px), flow_px)


def composed(session: GpuSession, frame, matrix: F64, inputs: dict[str, F32] | None = None):
    answer = session.swap(frame, matrix, GAINS if inputs is None else inputs)
    out = frame.copy()
    x0, y0, x1, y1 = answer.box_xyxy
    out[y0:y1, x0:x1] = answer.roi_bgr
    answer.release()
    return out


@pytest.mark.parity
@pytest.mark.parametrize("place", PLACES)
def test_parity_cpu_cuda_same_bits(place, rng, load):
    (height, width), size_px, centre, scale, degrees = PLACES[place]
    frame = noise_frame(rng, height, width)
    matrix = geometry.invert(placed(centre, scale, degrees, size_px))
    maps = maps_of(rng, size_px)
    with load(maps) as session:
        out = composed(session, frame, matrix)
        crop = session.on_owner(lambda chain: chain.peek("target_rgb"))
    np.testing.assert_array_equal(crop, ops.crop_rgb(frame, geometry.invert(matrix), size_px))
    np.testing.assert_array_equal(out, ops.compose_bgr(frame, matrix, *maps))


@pytest.mark.parity
@pytest.mark.parametrize("hw", [(1080, 1920), pytest.param((2160, 3840), marks=pytest.mark.slow)])
def test_parity_cpu_cuda_large_frames(hw, rng, load):
    frame = noise_frame(rng, *hw)
    maps = maps_of(rng, 256)
    matrix = geometry.invert(placed((hw[1] * 0.55, hw[0] * 0.45), 0.9 * hw[0] / 256, 14.0, 256))
    with load(maps) as session:
        out = composed(session, frame, matrix)
    np.testing.assert_array_equal(out, ops.compose_bgr(frame, matrix, *maps))


@pytest.mark.parity
def test_parity_cpu_cuda_flow_beyond_what_was_sent(rng, load):
    frame = noise_frame(rng, 240, 320)
    matrix = geometry.invert(placed((160.0, 120.0), 1.0, 10.0, 33))
    maps = maps_of(rng, 33, flow_px=40.0)
    with load(maps) as session:
        np.testing.assert_array_equal(
            composed(session, frame, matrix), ops.compose_bgr(frame, matrix, *maps)
        )


@pytest.mark.parity
@pytest.mark.parametrize("name", ["flow_xy", "keep", "fill_rgb", "shade"])
def test_parity_cpu_cuda_numbers_that_are_none(name, rng, load):
    frame = noise_frame(rng, 97, 131)
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, 33))
    maps = maps_of(rng, 33)
    getattr(maps, name)[..., ::3, ::4] = np.nan
    with load(maps) as session:
        np.testing.assert_array_equal(
            composed(session, frame, matrix), ops.compose_bgr(frame, matrix, *maps)
        )


def test_cuda_still_instructions_give_the_frame_bit_for_bit(rng, load):
    frame = noise_frame(rng, 97, 131)
    matrix = geometry.invert(placed((60.0, 50.0), 1.7, 33.0, 33))
    with load(still_maps(33, ops.feather(33))) as session:
        np.testing.assert_array_equal(composed(session, frame, matrix), frame)


@pytest.mark.parity
def test_parity_cuda_nv12_reference(rng, load):
    frame = rng.integers(0, 256, (96 * 3 // 2, 130), dtype=np.uint8)
    matrix = geometry.invert(placed((60.0, 50.0), 1.3, 12.0, 33))
    maps, colour = maps_of(rng, 33), Colour()
    with load(maps, pixels="nv12", colour=colour) as session:
        answer = session.swap(frame, matrix, GAINS)
        out = frame.copy()
        x0, y0, x1, y1 = answer.box_xyxy
        out[y0:y1, x0:x1] = answer.roi_bgr[: y1 - y0]
        out[96 + y0 // 2 : 96 + y1 // 2, x0:x1] = answer.roi_bgr[y1 - y0 :]
        crop = session.on_owner(lambda chain: chain.peek("target_rgb"))
    numbers = colour.numbers()
    expected = reference.crop_rgb_nv12(frame, geometry.invert(matrix), 33, numbers)
    np.testing.assert_allclose(crop, expected, atol=3 * CROP_ATOL)
    assert_compose_close(out, reference.compose_nv12(frame, matrix, *maps, numbers))


@pytest.mark.gpu
@pytest.mark.trt
@pytest.mark.parametrize("name", ["tensorrt", "rtx"])
def test_shipped_model_on_a_gpu_shows_what_the_cpu_shows(name, rng):
    reason = available_backends()[name]
    if reason is not None:
        skip(f"needs {name}: {reason}")
    from rt_swap.model import load_bundle

    path = load_bundle().generator_path
    frame = noise_frame(rng, 40, 60).repeat(12, 0).repeat(12, 1)
    matrix = geometry.invert(placed((350.0, 240.0), 1.2, 5.0, 256))
    inputs = {t.name: rng.normal(size=t.shape).astype(np.float32) * 0.3
              for t in GENERATOR_SPEC.inputs[1:]}  # fmt: skip
    inputs["landmarks_xy"] = some_landmarks()
    crop = ops.crop_rgb(frame, geometry.invert(matrix), 256)
    with get_backend("onnxruntime").load(path, GENERATOR_SPEC, 0) as cpu:
        answers = cpu.run({"target_rgb": crop, **inputs})
        expected = ops.compose_bgr(
            frame, matrix, *(answers[n] for n in ("flow_xy", "keep", "fill_rgb", "shade")),
            ops.feather(256),
        )  # fmt: skip
    with get_backend(name).load(path, GENERATOR_SPEC, 0) as session:
        assert isinstance(session, GpuSession)
        out = composed(session, frame, matrix, inputs)
    off = np.abs(out.astype(np.int16) - expected)
    assert np.percentile(off, 99) <= 1
