"""What can run here: the kernels' file, the driver's library, and the reasons why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rt_swap.backends.cuda import fatbin
from rt_swap.backends.cuda.libcuda import LibCuda
from rt_swap.backends.cuda.probe import why_not
from rt_swap.errors import BackendUnavailable, InferenceError
from tests.support.fake_gpu import fatbin_for
from tests.support.fake_libcuda import Library


# --- fatbin ---------------------------------------------------------------------------------------
def test_targets_are_read(tmp_path):
    image = fatbin_for(tmp_path / "f", archs=(120, 75, 87), ptx=(75,)).read_bytes()
    targets = fatbin.targets_of(image)
    assert targets.sms == ((7, 5), (8, 7), (12, 0))
    assert targets.ptx == ((7, 5),)
    assert str(targets) == "7.5, 8.7, 12.0, PTX 7.5"


@pytest.mark.parametrize(
    ("sm", "served"),
    [((8, 0), True), ((8, 9), True), ((7, 5), False), ((9, 0), True), ((12, 1), True)],
)
def test_code_serves_later_minors_and_ptx_everything_newer(tmp_path, sm, served):
    # 8.0 as code; PTX of 9.0
    image = fatbin_for(tmp_path / "f", archs=(80,), ptx=(90,)).read_bytes()
    assert fatbin.targets_of(image).serves(sm) is served


def test_shipped_fatbin_serves_all_that_setup_names():
    if not fatbin.FATBIN.is_file():
        pytest.skip("needs a build with nvcc (make ext)")
    targets = fatbin.targets_of(fatbin.FATBIN.read_bytes())
    for sm in ((7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)):
        assert targets.serves(sm), sm
    assert targets.ptx == ((7, 5),)
    assert not targets.serves((7, 0))


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "no_entries", "short_entry"])
def test_damaged_fatbin_is_named_for_what_it_is(tmp_path, damage):
    path = fatbin_for(tmp_path / "_warp.fatbin")
    image = path.read_bytes()
    path.write_bytes({
        "cut": image[:-5],
        "noise": b"x" * 200,
        "empty": b"",
        "no_entries": image[:8] + bytes(8),
        "short_entry": image[:20] + bytes(4) + image[24:],
    }[damage])  # fmt: skip
    reason = fatbin.why_missing(path)
    assert reason is not None
    assert "GPU kernels are unusable (_warp.fatbin: " in reason
    assert "make ext" in reason
    with pytest.raises(BackendUnavailable, match="unusable"):
        fatbin.load_fatbin((8, 9), path)


def test_missing_fatbin_says_how_to_build_it(tmp_path):
    with pytest.raises(BackendUnavailable, match=r"were not built .*nvcc.*make ext"):
        fatbin.load_fatbin((8, 9), tmp_path / "_warp.fatbin")


def test_fatbin_without_this_gpu_names_both(tmp_path):
    path = fatbin_for(tmp_path / "f", archs=(80, 90), ptx=(90,))
    with pytest.raises(BackendUnavailable, match=r"8\.0, 9\.0, PTX 9\.0, not .* 7\.5"):
        fatbin.load_fatbin((7, 5), path)


# --- probe ----------------------------------------------------------------------------------------
def ask(tmp_path: Path, flavour: Any = "rtx", **changed: Any) -> str | None:
    given = {
        "has_package": lambda name: True,
        "version": lambda flavour: None,
        "library": Library,
        "kernels": fatbin_for(tmp_path / "_warp.fatbin"),
        "targets": lambda flavour: (),
    }
    return why_not(flavour, **{**given, **changed})


def test_everything_there_is_no_reason(tmp_path):
    assert ask(tmp_path) is None
    assert ask(tmp_path, "tensorrt") is None


@pytest.mark.parametrize(
    ("changed", "flavour", "parts"),
    [
        ({"has_package": lambda name: name != "tensorrt_rtx"}, "rtx",
         ["package tensorrt_rtx not installed", "pip install 'rt-swap[rtx]'"]),
        ({"has_package": lambda name: False}, "tensorrt",
         ["packages tensorrt and pycuda not installed", "pip install 'rt-swap[tensorrt]'"]),
        ({"version": lambda flavour: f"{flavour} is too old"}, "rtx", ["rtx is too old"]),
        ({"library": lambda: None}, "rtx", ["no NVIDIA driver", "nvidia.com/drivers"]),
        ({"library": lambda: Library(cuInit=100)}, "rtx",
         ["cuInit failed with error 100 (said by CUDA)", "there is no NVIDIA GPU here"]),
        ({"library": lambda: Library(cuInit=35)}, "rtx", ["update the NVIDIA driver"]),
        ({"library": lambda: Library(cuInit=804)}, "rtx", ["error 804 (said by CUDA)"]),
        ({"library": lambda: Library(count=0)}, "rtx", ["no GPU number 0 (0 found)"]),
        ({"ordinal": 3}, "rtx", ["no GPU number 3 (1 found)"]),
        ({"library": lambda: Library(sm=(6, 1))}, "tensorrt",
         ["NVIDIA Something has compute capability 6.1, tensorrt needs 7.5"]),
        ({"targets": lambda flavour: (75, 86), "library": lambda: Library(sm=(9, 0))}, "rtx",
         ["NVIDIA Something has compute capability 9.0, which tensorrt_rtx does not build for",
          "--backend tensorrt"]),
        ({"kernels": Path("nowhere/_warp.fatbin")}, "rtx", ["GPU kernels were not built"]),
    ],
)  # fmt: skip
def test_reasons_say_what_is_missing_and_what_to_do(tmp_path, changed, flavour, parts):
    reason = ask(tmp_path, flavour, **changed)
    assert reason is not None
    for part in parts:
        assert part in reason


def test_kernels_without_this_gpu_are_a_reason(tmp_path):
    kernels = fatbin_for(tmp_path / "f", archs=(90,), ptx=(90,))
    reason = ask(tmp_path, kernels=kernels)
    assert reason is not None
    assert "not for this GPU's compute capability 8.9" in reason


def test_all_reasons_come_at_once(tmp_path):
    reason = ask(tmp_path, has_package=lambda n: False, library=lambda: None, kernels=Path("no/f"))
    assert reason is not None
    assert reason.count("; ") >= 3
    for part in ("not installed", "not built", "no NVIDIA driver"):
        assert part in reason


# --- graphs ---------------------------------------------------------------------------------------
def test_capture_makes_an_executable_and_drops_the_graph():
    library = Library()
    cuda = LibCuda(library)
    cuda.begin_capture(7)
    assert cuda.end_capture(7) == 0xE0E0
    assert library.calls == [
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
    ]


def test_failed_instantiation_drops_the_graph_too():
    library = Library(cuGraphInstantiateWithFlags=801)
    with pytest.raises(InferenceError, match="cuGraphInstantiateWithFlags failed with error 801"):
        LibCuda(library).end_capture(7)
    assert "cuGraphDestroy" in library.calls


def test_abandoned_capture_never_fails():
    library = Library(cuStreamEndCapture=901)
    LibCuda(library).abandon_capture(7)
    assert library.calls == ["cuStreamEndCapture"]
    assert LibCuda(library).driver_version() == 13000
