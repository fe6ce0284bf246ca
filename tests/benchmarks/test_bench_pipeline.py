"""The pipeline benchmark: its other side does the same thing, and the whole program runs. Nothing
is timed here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_pipeline, schema
from benchmarks.bench_pipeline import Kept, plain_compose, plain_crop
from rt_swap import geometry, ops
from rt_swap.contract import CROP_SIZE_PX as S
from tests.support.tiny_model import tiny_bundle

# turned by 17 degrees, 1.3 frame pixels a crop pixel, hanging over the frame's edge
_C, _S = 1.3 * np.cos(0.3), 1.3 * np.sin(0.3)
M_FRAME_FROM_CROP = np.array([[_C, -_S, 60.0], [_S, _C, -20.0]])


def kept(seed: int = 0) -> Kept:
    """Smooth picture and instructions, so that two ways of rounding agree to a grey level."""
    import cv2

    rng = np.random.default_rng(seed)

    def smooth(low: float, high: float, channels: int) -> np.ndarray:
        coarse = rng.uniform(low, high, (6, 6, channels)).astype(np.float32)
        return cv2.resize(coarse, (S, S), interpolation=cv2.INTER_LINEAR).reshape(S, S, channels)

    coarse = rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)
    frame = cv2.resize(coarse, (400, 301), interpolation=cv2.INTER_CUBIC)
    maps = {
        "flow_xy": smooth(-6, 6, 2),
        "keep": smooth(0, 1, 1),
        "fill_rgb": smooth(0, 1, 3),
        "shade": smooth(0.7, 1.3, 1),
    }
    chw = {k: np.ascontiguousarray(v.transpose(2, 0, 1)[None]) for k, v in maps.items()}
    return Kept(frame, geometry.invert(M_FRAME_FROM_CROP), **chw)


def test_plain_crop_is_the_native_crop() -> None:
    k = kept()
    ours = ops.crop_rgb(k.frame_bgr, M_FRAME_FROM_CROP, S)
    theirs = plain_crop(k.frame_bgr, k.M_crop_from_frame)
    assert theirs.shape == ours.shape
    assert theirs.dtype == ours.dtype
    # OpenCV's bilinear weights have 5 bits
    assert np.abs(ours - theirs).max() < 4 / 255


def test_plain_compose_is_the_native_composition() -> None:
    k, weight = kept(), ops.feather(S)
    ours = ops.compose_bgr(
        k.frame_bgr, k.M_crop_from_frame, k.flow_xy, k.keep, k.fill_rgb, k.shade, weight
    )
    theirs = plain_compose(k, weight)
    off = np.abs(ours.astype(int) - theirs)
    assert off.max() <= 4
    assert off.mean() < 0.3
    # and it does something
    assert np.abs(ours.astype(int) - k.frame_bgr).mean() > 5


def test_plain_compose_crop_outside_the_frame_changes_nothing() -> None:
    k = kept()
    away = geometry.compose(k.M_crop_from_frame, np.array([[1.0, 0, 9000.0], [0, 1.0, 0]]))
    far = Kept(k.frame_bgr, away, k.flow_xy, k.keep, k.fill_rgb, k.shade)
    np.testing.assert_array_equal(plain_compose(far, ops.feather(S)), k.frame_bgr)


def test_compare_counts_every_frame_of_every_timed_round() -> None:
    got = bench_pipeline.compare([kept(0), kept(1)], repeats=3, threads=1)
    assert got["samples"] == 6
    assert got["largest_difference"] <= 4
    schema_errors = schema.RESULTS["pipeline"]("x", {"crop_and_compose": got})
    assert not [e for e in schema_errors if "crop_and_compose" in e]


@pytest.fixture
def _same_cores() -> Iterator[None]:
    """The benchmark ties the process to some cores; give them back."""
    import cv2

    threads = cv2.getNumThreads()
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    cv2.setNumThreads(threads)
    if before is not None:
        os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("_same_cores")
def test_main_runs_writes_a_good_file_and_its_exit_code_says_what_the_file_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out.json"
    arguments = ["--model", str(bundle), "--frames", "8", "--warm-up", "2", "--repeats", "1"]
    code = bench_pipeline.main([*arguments, "--json", str(out)])
    made = schema.loads(out.read_text())
    assert code == (0 if made["passed"] else 1)
    assert made["results"]["frames"] == 8
    assert made["results"]["swapped"] >= 6
    assert set(made["results"]["stage_ms"]) >= {"track", "crop", "generate", "compose"}
    text = capsys.readouterr().out
    assert "OpenCV and NumPy" in text
    assert "capture to emit, p99" in text


@pytest.mark.usefixtures("_same_cores")
def test_main_missed_bound_is_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_pipeline, "P50_MS", 0.0)
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out.json"
    arguments = ["--model", str(bundle), "--frames", "2", "--warm-up", "1", "--repeats", "1"]
    assert bench_pipeline.main([*arguments, "--json", str(out)]) == 1
    assert schema.loads(out.read_text())["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--frames", "0"], "--frames must be"),
        (["--model", "nowhere"], "no such model folder"),
        (["--cores", "0"], "--cores"),
    ],
)
@pytest.mark.usefixtures("_same_cores")
def test_main_wrong_options_one_sentence_and_code_2(
    arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_pipeline.main(arguments) == 2
    assert match in capsys.readouterr().err
