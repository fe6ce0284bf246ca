"""The benchmark of the pixel mark: what it counts, what it prints, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_watermark as bench
from benchmarks import common, schema
from rt_swap.frames import U8
from rt_swap.provenance.watermark import Detection, Payload
from tests.support.tiny_model import tiny_bundle
from tests.support.videos import moving_portrait, write_video


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle")


def test_call_keeps_every_picture_and_saves_bits() -> None:
    pictures = [
        np.random.default_rng(i).integers(0, 255, (120, 160, 3), np.uint8) for i in range(6)
    ]
    out = bench.call(pictures, 100)
    assert len(out) == 6
    assert out[0].shape == (120, 160, 3)
    assert np.abs(out[3].astype(int) - pictures[3]).mean() > 5  # noise does not fit the rate


def test_windows_are_whole() -> None:
    pictures: list[U8] = moving_portrait(7)
    assert [len(w) for w in bench._windows(pictures, 3)] == [3, 3]


def test_survival_counts_a_wrong_payload_as_missed() -> None:
    right, wrong = Payload(1), Payload(2)
    found = [
        Detection(9.0, right, 5),
        Detection(9.0, wrong, 5),
        Detection(3.0, right, 5),
        Detection.nothing(),
    ]
    assert bench._survival(found, right) == {
        "trials": 3,
        "found": 2,
        "read_right": 1,
        "lowest_score": 3.0,
        "median_score": 9.0,
    }


def test_document_of_a_short_run_is_good(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.swapping import SittingTracker

    monkeypatch.setattr(
        "rt_swap.swapper.MediapipeTracker", lambda max_faces=1, static=False: SittingTracker()
    )
    monkeypatch.setattr(bench, "MediapipeTracker", SittingTracker)
    monkeypatch.setattr(bench, "CONDITIONS", ((720, None), bench._BOUND_AT))
    clips, portraits = tmp_path / "clips", tmp_path / "portraits"
    clips.mkdir()
    portraits.mkdir()
    write_video(clips / "a.mkv", moving_portrait(3), codec="ffv1", pix_fmt="bgr0")
    import cv2

    cv2.imwrite(str(portraits / "p.png"), moving_portrait(1)[0])
    path = tmp_path / "out.json"
    arguments: list[Any] = ["--clips", clips, "--portraits", portraits, "--model", model]
    arguments += ["--frames", 4, "--window", 4, "--json", path]
    assert bench.main([str(a) for a in arguments]) in (0, 1)
    made = schema.loads(path.read_text())
    assert made["results"]["conditions"]["720p, not compressed"]["trials"] == 1
    assert made["results"]["unmarked"]["portraits"] == 1
    text = bench.table(made)
    assert "| 720p, H.264 at 1000 kbit/s | 1 |" in text
    assert "1 portraits and 1 windows" in text


def test_nothing_to_run_on_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "data_dir", lambda: None)
    assert bench.main([]) == 2
    assert "--clips: there are none; name a folder" in capsys.readouterr().err
    assert bench.main(["--clips", str(tmp_path), "--frames", "3", "--window", "9"]) == 2
    assert "--window" in capsys.readouterr().err
