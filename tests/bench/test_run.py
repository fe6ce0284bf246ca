"""The benchmark as a whole: what its document says is what happened, and its schema agrees."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_swap.bench import measure, schema
from rt_swap.bench.clip import Clip, open_clip
from rt_swap.bench.run import Plan, as_json, warnings_of
from rt_swap.errors import ConfigError, SourceError
from rt_swap.frames import FrameStatus
from rt_swap.model import load_bundle
from tests.support.swapping import sitting_swapper


def test_document_passes_its_schema_by_both_validators(document: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    read = json.loads(as_json(document))
    assert read == document
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema.schema())
    validator(schema.schema()).validate(read)
    assert schema.problems(read) == []


def test_document_counts_what_was_asked_for(document: dict[str, Any]) -> None:
    main = document["main"]
    assert main["frames"] == 6
    assert main["statuses"] == {"swapped": 6, "held": 0, "no_face": 0}
    assert {name: len(v) for name, v in document["samples_ms"].items()} == {
        "capture to emit": 6,
        "track": 6,
        "crop": 6,
        "generate": 6,
        "compose": 6,
    }
    assert main["gpu_ms"] is None
    live = document["live"]
    assert live["emitted"] + live["dropped"] == live["offered"]
    assert len(live["samples_ms"]) == live["emitted"]
    assert [r["size_wh"] for r in document["ladder"]] == [[160, 120], [320, 240]]
    assert len({m["mib"] for m in document["models"]}) >= 1
    assert len(document["models"]) >= 2  # the one in use and the one named beside it
    assert document["starts"] is None


def test_document_stages_add_up_to_no_more_than_the_whole(document: dict[str, Any]) -> None:
    samples = {name: np.array(v) for name, v in document["samples_ms"].items()}
    whole = samples.pop("capture to emit")
    assert (sum(samples.values()) <= whole + 0.01).all()


def test_document_says_why_a_backend_was_not_run(document: dict[str, Any]) -> None:
    by_name = {each["backend"]: each for each in document["backends"]}
    assert by_name["onnxruntime"]["why_not"] is None
    for each in by_name.values():
        assert each["why_not"] or each["frames"] >= 1


def test_document_names_no_path(document: dict[str, Any], bundle: Path) -> None:
    assert str(bundle.parent) not in as_json(document)


def test_warnings_tell_what_spoils_the_figures(document: dict[str, Any]) -> None:
    spoilt = copy.deepcopy(document)
    spoilt["about"] |= {"load_before": 2.5, "cpu_governor": "powersave", "on_battery": True}
    spoilt["about"]["gpus"] = [{"name": "NVIDIA Some Card"}]
    spoilt["power"] |= {
        "cpu_steal_percent": 7.5,
        "cpu_others_percent": 44.0,
        "cpu_throttle_events": 3,
        "gpu_throttled": ["power cap"],
    }
    spoilt["main"]["statuses"]["no_face"] = 2
    told = " | ".join(warnings_of(spoilt))
    for text in (
        "load before the start was 2.5",
        "7.5 %",
        "44.0 %",
        "throttled 3 times",
        "power cap",
        "powersave",
        "battery",
        "2 of 6 frames",
        "NVIDIA Some Card",
        "p99 rests on 1",
    ):
        assert text in told


def test_warnings_of_a_quiet_long_run_are_none(document: dict[str, Any]) -> None:
    quiet = copy.deepcopy(document)
    quiet["about"] |= {"load_before": 0.1, "gpus": []}
    quiet["main"]["frames"] = 5000
    quiet["power"] |= {"cpu_steal_percent": 0.0, "cpu_others_percent": 0.5}
    assert warnings_of(quiet) == []


def test_straight_without_a_face_is_an_error_not_a_figure(bundle: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    swapper = sitting_swapper(load_bundle(bundle), faces=lambda _: [])
    with swapper, pytest.raises(ConfigError, match="nothing was measured"):
        measure.straight(swapper, Clip([picture], "black", True), (128, 96), 3, 1)


def test_straight_takes_gpu_times_where_they_are_offered(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rt_swap.pipeline import Pipeline

    monkeypatch.setattr(Pipeline, "gpu_stage_ms", {"generate": 0.25}, raising=False)
    clip = Clip([np.full((64, 64, 3), 90, np.uint8)], "grey", True)
    with sitting_swapper(load_bundle(bundle)) as swapper:
        got = measure.straight(swapper, clip, (128, 96), 3, 1)
    assert got.gpu_ms == {"generate": [0.25] * 3}
    assert got.summary()["gpu_ms"]["generate"]["p50"] == 0.25


def test_live_slow_stage_drops_frames_and_the_newest_are_shown(bundle: Path) -> None:
    from fractions import Fraction

    clip = Clip([np.full((64, 64, 3), 90, np.uint8)], "grey", True)
    swapper = sitting_swapper(load_bundle(bundle))
    swapper._make_tracker = lambda *_: _slow()
    with swapper:
        got = measure.live(swapper, clip, (128, 96), Fraction(60), 0.5)
    assert got["dropped"] > 0
    assert got["emitted"] + got["dropped"] == got["offered"]
    assert got["emitted_pts"] == sorted(set(got["emitted_pts"]))


def _slow() -> Any:
    from tests.support.swapping import SittingTracker

    return SittingTracker(delay_s=0.06)


def test_ring_goes_there_and_back_without_a_jump() -> None:
    places = [measure._there_and_back([0, 1, 2, 3], n) for n in range(8)]  # type: ignore[list-item]
    assert places == [0, 1, 2, 3, 2, 1, 0, 1]


def test_starts_of_a_real_process(bundle: Path) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image's portrait")
    arguments = {
        "model": str(bundle),
        "backend": "onnxruntime",
        "threads": 1,
        "size_wh": [320, 240],
        "target": None,
    }
    got = measure.starts(arguments, 1)
    cold = got["cold_ms"]
    assert cold["import"] + cold["load"] + cold["first_frame"] <= cold["total"] + 1
    assert min(*cold.values(), *got["warm_ms"].values()) > 0


def test_starts_that_fail_say_why(tmp_path: Path) -> None:
    arguments = {
        "model": str(tmp_path),
        "backend": "onnxruntime",
        "threads": 1,
        "size_wh": [320, 240],
        "target": None,
    }
    with pytest.raises(ConfigError, match=r"could not be measured: .*manifest"):
        measure.starts(arguments, 1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"frames": 0}, "--frames and --warm-up"),
        ({"size_wh": (32, 32)}, "--size"),
        ({"seconds": 0.0}, "--rate"),
        ({"parts": ("live", "dance")}, "no 'dance'"),
    ],
)
def test_plan_wrong_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Plan(**options)


def test_open_clip_of_a_video_and_of_nothing(tmp_path: Path) -> None:
    from tests.support.videos import numbered, write_video

    clip = open_clip(write_video(tmp_path / "v.mp4", numbered(5, 64, 96)))
    assert len(clip.stills) == 5
    assert not clip.is_portrait
    frames = list(clip.frames((160, 120), 7))
    assert len(frames) == 7
    assert frames[0].frame_bgr.shape == (120, 160, 3)
    assert len({f.frame_bgr.tobytes() for f in frames}) == 7
    with pytest.raises(SourceError):
        open_clip(tmp_path / "none.mp4")


def test_statuses_are_the_pipelines_own() -> None:
    assert set(measure.Straight().statuses) == {status.value for status in FrameStatus}
