"""The native module itself: code paths that must agree bit for bit, threads, processes, and what
happens without it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest

from rt_swap import geometry, ops
from rt_swap.errors import BackendUnavailable
from rt_swap.ops import _native
from tests.support.warp_cases import PLACES, noise_frame, placed, random_maps

CHECKOUT = Path(__file__).resolve().parents[2]
CPP_EXT = CHECKOUT / "cpp_ext"
HERE = Path(__file__).resolve().parent

_warp = pytest.importorskip("rt_swap._warp", reason="needs the native module (make ext)")


def both_ops(rng: np.random.Generator, place: str) -> tuple[np.ndarray, np.ndarray]:
    """A crop and a composed frame of one place."""
    (height, width), size_px, centre, scale, degrees = PLACES[place]
    frame = noise_frame(rng, height, width)
    matrix = placed(centre, scale, degrees, size_px)
    maps = random_maps(rng, size_px, np.ones((size_px, size_px), np.float32))
    return ops.crop_rgb(frame, matrix, size_px), ops.compose_bgr(
        frame, geometry.invert(matrix), *maps
    )


@pytest.fixture
def restored_instruction_set():
    yield
    _warp.select_instruction_set(_warp.instruction_sets()[0])


@pytest.mark.parity
@pytest.mark.parametrize("place", PLACES)
def test_parity_instruction_sets_give_the_same_bits(place, restored_instruction_set):
    names = _warp.instruction_sets()
    if len(names) < 2:
        pytest.skip("needs a processor with AVX2 and a build without RT_SWAP_NATIVE")
    results = []
    for name in names:
        _warp.select_instruction_set(name)
        results.append(both_ops(np.random.default_rng(5), place))
    for crop, out in results[1:]:
        np.testing.assert_array_equal(crop, results[0][0])
        np.testing.assert_array_equal(out, results[0][1])


def test_unknown_instruction_set_is_an_error():
    with pytest.raises(ValueError, match="no such instruction set"):
        _warp.select_instruction_set("mmx")


@pytest.fixture(scope="module")
def plain_packs(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("plain") / "plain_packs.so"
    command = [
        compiler,
        "-O1",
        "-std=c++17",
        "-ffp-contract=off",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    subprocess.run(
        [*command, f"-I{CPP_EXT}", str(HERE / "plain_packs.cpp"), "-o", str(library)], check=True
    )
    return ctypes.CDLL(str(library))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parity
@pytest.mark.parametrize("place", PLACES)
def test_parity_plain_structs_and_vectors_give_the_same_bits(place, plain_packs, rng):
    (height, width), size_px, centre, scale, degrees = PLACES[place]
    frame = noise_frame(rng, height, width)
    frame_from_crop = placed(centre, scale, degrees, size_px)
    crop_from_frame = geometry.invert(frame_from_crop)
    maps = random_maps(rng, size_px, np.ones((size_px, size_px), np.float32))

    crop = np.empty((1, 3, size_px, size_px), np.float32)
    plain_packs.plain_crop(
        pointer(frame), height, width, pointer(frame_from_crop), size_px, pointer(crop)
    )
    np.testing.assert_array_equal(ops.crop_rgb(frame, frame_from_crop, size_px), crop)

    # the inverse that compose_bgr itself makes
    again = np.ascontiguousarray(geometry.invert(crop_from_frame))
    out = frame.copy()
    plain_packs.plain_compose(
        pointer(frame), height, width, pointer(crop_from_frame), pointer(again), size_px,
        *(pointer(m) for m in maps), pointer(out),
    )  # fmt: skip
    np.testing.assert_array_equal(ops.compose_bgr(frame, crop_from_frame, *maps), out)


def test_small_and_large_faces_take_different_paths_with_the_same_bits(rng):
    # a crop of 128 pixels: over more than 65 x 65 frame pixels the maps are interleaved first, over
    # fewer they are not; a box that cuts the larger face to a small one gives the same pixels
    frame = noise_frame(rng, 150, 170)
    maps = random_maps(rng, 128, ops.feather(128))
    matrix = geometry.invert(placed((80.0, 70.0), 0.9, 21.0, 128))
    whole = ops.compose_bgr(frame, matrix, *maps)
    cut = ops.compose_bgr(frame, matrix, *maps, box_xyxy=(70, 60, 90, 80))
    np.testing.assert_array_equal(cut[60:80, 70:90], whole[60:80, 70:90])


def test_many_python_threads_at_once_get_what_one_gets(rng):
    size_px = 64
    work = []
    for k in range(4):
        frame = noise_frame(rng, 120 + k, 160 - k)
        matrix = placed((70.0 + k, 60.0), 1.1 + 0.2 * k, 10.0 * k, size_px)
        maps = random_maps(rng, size_px, ops.feather(size_px))
        expected = (
            ops.crop_rgb(frame, matrix, size_px, threads=1),
            ops.compose_bgr(frame, geometry.invert(matrix), *maps, threads=1),
        )
        work.append((frame, matrix, maps, expected))
    failures: list[str] = []
    start = threading.Barrier(len(work))

    def run(frame, matrix, maps, expected):
        start.wait()
        for repeat in range(30):
            crop = ops.crop_rgb(frame, matrix, size_px, threads=3)
            out = ops.compose_bgr(frame, geometry.invert(matrix), *maps, threads=3)
            if not (np.array_equal(crop, expected[0]) and np.array_equal(out, expected[1])):
                failures.append(f"repeat {repeat}")

    threads = [threading.Thread(target=run, args=args) for args in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def test_gil_is_released_while_a_kernel_runs(rng):
    # the other thread only gets on if the long call lets go of the GIL
    frame = noise_frame(rng, 2000, 2000)
    matrix = placed((1000.0, 1000.0), 7.6, 10.0, 1024)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)  # Python itself takes the GIL from nobody now
    try:
        done = threading.Event()
        thread = threading.Thread(
            target=lambda: (ops.crop_rgb(frame, matrix, 1024, threads=1), done.set())
        )
        thread.start()
        turns_before_the_end = 0
        while not done.is_set() and turns_before_the_end < 100:
            done.wait(0.0005)
            turns_before_the_end += not done.is_set()
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert turns_before_the_end >= 3


def _crop_in_child(queue) -> None:
    queue.put(both_ops(np.random.default_rng(7), "shrunk_5"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_of_a_process_with_a_pool_works():
    expected = both_ops(np.random.default_rng(7), "shrunk_5")  # the parent's pool is up now
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_crop_in_child, args=(queue,))
    child.start()
    crop, out = queue.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(crop, expected[0])
    np.testing.assert_array_equal(out, expected[1])


def test_usable_cores_follow_the_affinity_mask():
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("needs sched_getaffinity")
    assert _warp.usable_cores() == len(os.sched_getaffinity(0))


def test_missing_native_module_says_how_to_build_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rt_swap._warp", None)  # makes the import fail
    _native.warp.cache_clear()
    try:
        with pytest.raises(
            BackendUnavailable, match=r"rt_swap\._warp .*`pip install -e \.` or `make ext`"
        ):
            ops.crop_rgb(np.zeros((4, 4, 3), np.uint8), np.eye(3)[:2], 4)
    finally:
        _native.warp.cache_clear()


def test_native_module_refuses_what_would_touch_foreign_memory():
    frame, matrix = np.zeros((4, 4, 3), np.uint8), np.eye(3)[:2].copy()
    out = np.zeros((1, 3, 4, 4), np.float32)
    with pytest.raises(ValueError, match="packed"):
        _warp.crop_rgb(frame[:, ::-1], matrix, out, 0)
    with pytest.raises(ValueError, match=r"\(1, C, S, S\)"):
        _warp.crop_rgb(frame, matrix, np.zeros((1, 3, 3, 4), np.float32), 0)
    with pytest.raises(TypeError):
        _warp.crop_rgb(frame, matrix, out.astype(np.float64), 0)
    read_only = out.copy()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        _warp.crop_rgb(frame, matrix, read_only, 0)


def test_fast_math_is_refused():
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    command = [
        compiler,
        "-x",
        "c++",
        "-ffast-math",
        "-E",
        str(CPP_EXT / "warp.h"),
        "-o",
        os.devnull,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "without -ffast-math" in result.stderr


def test_only_the_header_writes_half_pixels():
    for source in CPP_EXT.iterdir():
        if source.suffix in {".cpp", ".inc", ".h", ".cu"} and source.name != "warp.h":
            code = re.sub(r"//.*", "", source.read_text())
            if source.name == "warp_rows.inc":
                # tap_position(), of which this is the part that a block of pixels has in common
                code = code.replace("(static_cast<float>(tap_x) + 0.5f) * step", "")
            assert "0.5" not in code, source.name


# the oldest supported, Jetson Orin, the newest; one of them is enough for every run
@pytest.mark.parametrize(
    "arch",
    [
        pytest.param("sm_75", marks=pytest.mark.slow),
        "sm_87",
        pytest.param("sm_120", marks=pytest.mark.slow),
    ],
)
def test_header_compiles_with_nvcc(arch, tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    known = subprocess.run(
        [nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True
    ).stdout.split()
    if arch not in known:
        pytest.skip(f"needs an nvcc that knows {arch}")
    command = [
        nvcc,
        "-std=c++17",
        "-fmad=false",
        f"-arch={arch}",
        "-cubin",
        "-Werror",
        "all-warnings",
    ]
    subprocess.run(
        [
            *command,
            f"-I{CPP_EXT}",
            str(HERE / "warp_kernels.cu"),
            "-o",
            str(tmp_path / "warp.cubin"),
        ],
        check=True,
    )
    assert (tmp_path / "warp.cubin").stat().st_size > 1000


def test_module_was_built_for_this_python():
    path = Path(_warp.__file__)
    assert path.name.endswith(sysconfig.get_config_var("EXT_SUFFIX"))
