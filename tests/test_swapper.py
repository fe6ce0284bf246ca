"""The Python API: sources, frames and whole files."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import rt_swap
from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.backends import get_backend
from rt_swap.contract import TOKEN_DIM
from rt_swap.errors import (
    ConfigError,
    ContractError,
    ExpressionError,
    ExpressionFileError,
    NoFaceError,
    SinkError,
    SourceError,
)
from rt_swap.expression import ExpressionCache, save_expression
from rt_swap.frames import Expression, Frame, FrameStatus
from rt_swap.model import ModelBundle, load_bundle
from rt_swap.swapper import ReenactInterrupted, Swapper
from tests.support.faces import face_at
from tests.support.swapping import SittingTracker, sitting_swapper
from tests.support.tiny_model import tiny_bundle
from tests.support.videos import RATE, moving_portrait, numbered, probe, quadrants_bgr, write_video

HW = (120, 160)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return load_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "target.mp4"
    return write_video(path, numbered(12, *HW), audio=["aac"])


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if ".part" in p.name)


def clip_expression(bundle: ModelBundle, times_s: list[float], duration_s: float) -> Expression:
    rng = np.random.default_rng(2)
    count = len(times_s)
    return Expression(
        tokens=rng.normal(size=(count, NUM_AUS, TOKEN_DIM)).astype(np.float32),
        aus_lr=rng.uniform(size=(count, NUM_AUS, 2)).astype(np.float32),
        times_s=np.array(times_s),
        duration_s=duration_s,
        name="clip",
        model_sha256=bundle.sha256,
        valid=np.ones(count, np.bool_),
    )


# --- sources ---
def test_swapper_is_exported_lazily() -> None:
    assert rt_swap.Swapper is Swapper


def test_encode_picture_from_file_and_array_agree_and_are_cached(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    picture = moving_portrait(1)[0]
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    cache = ExpressionCache(tmp_path / "cache")
    with sitting_swapper(bundle, cache=cache) as swapper:
        a = swapper.encode(picture)
        b = swapper.encode(tmp_path / "p.png")
        np.testing.assert_array_equal(a.tokens, b.tokens)
        assert b.name == str(tmp_path / "p.png")
        assert a.model_sha256 == bundle.sha256
    assert len(cache.entries()) == 1


def test_encode_source_tells_files_apart_by_content(bundle: ModelBundle, tmp_path: Path) -> None:
    picture = moving_portrait(1)[0]
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    os.rename(tmp_path / "p.png", tmp_path / "photo.mp4")
    write_video(tmp_path / "c.mkv", numbered(5, *HW))
    os.rename(tmp_path / "c.mkv", tmp_path / "clip.jpg")
    from PIL import Image

    moving = [Image.fromarray(p) for p in numbered(3, *HW)]
    moving[0].save(tmp_path / "moving.gif", save_all=True, append_images=moving[1:], duration=100)
    with sitting_swapper(bundle) as swapper:
        assert swapper.encode_source(tmp_path / "photo.mp4").tokens.shape[0] == 1
        clip = swapper.encode_source(tmp_path / "clip.jpg")
        assert clip.tokens.shape == (5, NUM_AUS, TOKEN_DIM)
        np.testing.assert_allclose(clip.times_s, np.arange(5) / RATE, atol=1e-3)
        assert swapper.encode_source(tmp_path / "moving.gif").tokens.shape[0] == 3
        save_expression(clip, tmp_path / "saved.safetensors")
        np.testing.assert_array_equal(
            swapper.encode_source(tmp_path / "saved.safetensors").tokens, clip.tokens
        )


def test_error_sources(bundle: ModelBundle, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wall.png"), quadrants_bgr())
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 40)
    with sitting_swapper(bundle, still_faces=lambda _: []) as swapper:
        with pytest.raises(NoFaceError, match=r"wall\.png: no face was found"):
            swapper.encode_source(tmp_path / "wall.png")
        with pytest.raises(SourceError, match="there is no such file"):
            swapper.encode_source(tmp_path / "none.jpg")
        with pytest.raises(SourceError, match="there is no such file"):
            swapper.encode_source(tmp_path / "none.safetensors")
        with pytest.raises(ExpressionFileError, match="not an expression file, or a damaged one"):
            swapper.encode_source(tmp_path / "broken.safetensors")
        with pytest.raises(ConfigError, match="there is no preset 'grin'"):
            swapper.preset("grin")


def test_several_faces_the_largest_is_taken_and_said_and_face_chooses(
    bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    picture = moving_portrait(1)[0]
    small, large = face_at(60, 60, 60), face_at(200, 120, 160)

    def both(_: int) -> list[object]:
        return [large, small]

    with sitting_swapper(bundle, still_faces=both) as swapper:  # type: ignore[arg-type]
        largest = swapper.encode(picture, name="group.jpg")
    assert "group.jpg: 2 faces were found; using the largest" in caplog.text
    # by number they are counted from the left
    with sitting_swapper(bundle, still_faces=both, face="1") as swapper:  # type: ignore[arg-type]
        np.testing.assert_array_equal(swapper.encode(picture).tokens, largest.tokens)
    with sitting_swapper(bundle, still_faces=both, face=0) as swapper:  # type: ignore[arg-type]
        assert (swapper.encode(picture).tokens != largest.tokens).any()
    with (
        sitting_swapper(bundle, still_faces=both, face=2) as swapper,  # type: ignore[arg-type]
        pytest.raises(NoFaceError, match="face 2 was asked for, but only 2 faces were found"),
    ):
        swapper.encode(picture)
    with pytest.raises(ConfigError, match="--face: must be 'largest' or a number"):
        sitting_swapper(bundle, face="left")


def test_several_faces_in_a_source_clip_are_said(
    bundle: ModelBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "s.mp4", numbered(3, *HW))
    asked: list[int] = []

    def make(max_faces: int, static: bool) -> SittingTracker:
        asked.append(max_faces)
        two = [face_at(40, 60, 50, track_id=1), face_at(110, 60, 80, track_id=2)]
        return SittingTracker(lambda _: two[:max_faces])

    caplog.set_level(logging.INFO, "rt_swap")
    with Swapper(bundle, get_backend("onnxruntime"), make_tracker=make) as swapper:
        swapper.encode_clip(tmp_path / "s.mp4")
    assert asked[0] > 1
    assert "2 faces are in view; following the largest" in caplog.text


def test_neutral_auto_is_a_clips_calmest_moment_or_the_preset(bundle: ModelBundle) -> None:
    clip = clip_expression(bundle, [0.0, 0.1, 0.2], 0.3)
    clip.aus_lr[1] = 0.0
    with sitting_swapper(bundle) as swapper:
        np.testing.assert_array_equal(swapper.neutral_of(clip), clip.tokens[1])
        smile, neutral = swapper.preset("smile"), swapper.preset("neutral")
        np.testing.assert_array_equal(swapper.neutral_of(smile), neutral.tokens[0])
        np.testing.assert_array_equal(swapper.neutral_of(clip, smile), smile.tokens[0])


# --- frames ---
def test_process_takes_arrays_and_frames(bundle: ModelBundle) -> None:
    picture = moving_portrait(1)[0]
    with sitting_swapper(bundle) as swapper:
        smile = swapper.preset("smile")
        first = swapper.process(picture, smile)
        assert first.status is FrameStatus.SWAPPED
        assert (first.frame.frame_bgr != picture).any()
        second = swapper.process(picture, smile, gains=0.0)
        np.testing.assert_array_equal(second.frame.frame_bgr, picture)
        assert second.frame.time_s > first.frame.time_s
        assert swapper.process(picture, None).status is FrameStatus.NO_FACE
        swapper.reset()
        at = Frame(picture, 5, Fraction(1, 25))
        third = swapper.process(at, smile, gains={"mouth": 0.5, "AU1": 0})
        assert third.frame.pts == 5


def test_process_relative_finds_the_resting_face(bundle: ModelBundle) -> None:
    picture = moving_portrait(1)[0]
    with sitting_swapper(bundle) as swapper:
        neutral = swapper.preset("neutral")
        result = swapper.process(picture, neutral, mode="relative")
        np.testing.assert_array_equal(result.frame.frame_bgr, picture)
        result = swapper.process(picture, swapper.preset("smile"), mode="relative")
        assert (result.frame.frame_bgr != picture).any()


def test_process_plays_a_clip_by_the_frames_own_time(bundle: ModelBundle) -> None:
    picture = moving_portrait(1)[0]
    clip = clip_expression(bundle, [0.0, 1.0], 2.0)
    stills = [
        Expression(
            clip.tokens[i : i + 1], clip.aus_lr[i : i + 1], np.zeros(1), 0.0, "s", bundle.sha256
        )
        for i in range(2)
    ]
    base = Fraction(1, 10)
    with sitting_swapper(bundle) as swapper:
        shown = [swapper.process(Frame(picture, 70 + p, base), clip) for p in (0, 10, 20)]
    with sitting_swapper(bundle) as swapper:
        wanted = [swapper.process(Frame(picture, p, base), stills[p % 2]) for p in (0, 1, 2)]
    for actual, expected in zip(shown, wanted, strict=True):
        np.testing.assert_array_equal(actual.frame.frame_bgr, expected.frame.frame_bgr)


def test_error_process(bundle: ModelBundle) -> None:
    with sitting_swapper(bundle) as swapper:
        with pytest.raises(ContractError, match="frame must be uint8"):
            swapper.process(np.zeros((4, 4, 3), np.float32), None)  # type: ignore[arg-type]
        with pytest.raises(ContractError, match="gains must be"):
            swapper.process(quadrants_bgr(), None, np.ones(3, np.float32))
        with pytest.raises(ConfigError, match="gains: there is no 'nostril'"):
            swapper.process(quadrants_bgr(), None, "nostril=1")
        for outside in (-0.1, 2.1, np.nan):
            with pytest.raises(ContractError, match="gains must be numbers from 0 to 2"):
                swapper.process(quadrants_bgr(), None, np.full(NUM_AUS, outside, np.float32))


@pytest.mark.parametrize("frame", [None, [[1]], np.zeros((0, 4, 3), np.uint8)])
def test_error_what_is_no_picture(bundle: ModelBundle, frame: Any) -> None:
    with sitting_swapper(bundle) as swapper:
        with pytest.raises(ContractError, match=r"frame must be uint8 \(H, W, 3\), BGR, and not"):
            swapper.process(frame, None)
        if isinstance(frame, np.ndarray):
            with pytest.raises(ContractError, match=r"encode: picture must be uint8"):
                swapper.encode(frame)


def test_error_expression_of_another_model(bundle: ModelBundle, tmp_path: Path) -> None:
    target = write_video(tmp_path / "t.mp4", numbered(3, *HW))
    with sitting_swapper(bundle) as swapper:
        smile = swapper.preset("smile")
        foreign = replace(smile, model_sha256="b" * 64)
        with pytest.raises(ExpressionError, match="'smile': made by model bbbbbbbbbbbb, but"):
            swapper.process(quadrants_bgr(), foreign)
        with pytest.raises(ExpressionError, match="made by model"):
            swapper.reenact(target, foreign, tmp_path / "o.mp4")
        with pytest.raises(ExpressionError, match="made by model"):
            swapper.process(quadrants_bgr(), smile, mode="relative", neutral=foreign)
    assert [path.name for path in tmp_path.iterdir()] == ["t.mp4"]


# --- files ---
def test_reenact_keeps_frames_times_and_sound(
    bundle: ModelBundle, target: Path, tmp_path: Path
) -> None:
    done: list[tuple[int, int | None]] = []
    with sitting_swapper(bundle) as swapper:
        summary = swapper.reenact(
            target,
            swapper.preset("smile"),
            tmp_path / "out.mp4",
            crf=5,
            progress=lambda n, total: done.append((n, total)),
        )
    before, after = probe(target), probe(tmp_path / "out.mp4")
    assert after.times == before.times
    assert after.sounds == before.sounds
    assert done == [(i, 12) for i in range(1, 13)]
    assert (summary.frames_in, summary.frames_out) == (12, 12)
    assert summary.statuses == {"swapped": 12, "held": 0, "no_face": 0}
    assert (summary.width, summary.height) == (HW[1], HW[0])
    assert summary.audio
    assert summary.face_found
    assert summary.damage is None
    assert not summary.interrupted
    assert summary.duration_s == pytest.approx(12 / RATE)
    assert set(summary.aus_before) == set(summary.aus_after) == set(AU_NAMES)
    assert summary.aus_source["AU12"] == pytest.approx(
        float(swapper.preset("smile").aus_lr[0, AU_NAMES.index("AU12")].max()), abs=1e-3
    )
    values = json.loads(json.dumps(summary.as_json(), allow_nan=False))
    assert values["fps"] > 0
    for stage in ("decode", "track", "crop", "generate", "compose", "encode"):
        assert values["stage_ms"][stage]["count"] == 12
        assert values["stage_ms"][stage]["p50"] <= values["stage_ms"][stage]["p95"]
    assert values["dropped"] == 0
    assert left_behind(tmp_path) == []


def test_reenact_changes_the_face_only(bundle: ModelBundle, tmp_path: Path) -> None:
    still = np.full((*HW, 3), 90, np.uint8)
    still[20:100, 40:120] = moving_portrait(1)[0][80:160, 120:200]
    write_video(tmp_path / "a.mkv", [still] * 4, codec="ffv1", pix_fmt="bgr0")
    faces = [face_at(80, 60, 60)]
    with sitting_swapper(bundle, faces=lambda _: faces) as swapper:
        smile = swapper.preset("smile")
        swapper.reenact(tmp_path / "a.mkv", smile, tmp_path / "out.mkv", codec="ffv1")
        expected = swapper.process(still, smile).frame.frame_bgr
    out = probe(tmp_path / "out.mkv").pictures[2].astype(int)
    changed = np.abs(expected.astype(int) - still).max(axis=2) > 20
    assert changed.sum() > 50
    outside = np.ones(HW, np.bool_)
    outside[28:92, 48:112] = False
    assert np.abs(out - still)[outside].mean() < 2.0  # 4:2:0 costs a little at colour edges
    assert np.abs(out - expected).mean() < 3.0


def test_reenact_variable_rate_and_rotation(bundle: ModelBundle, tmp_path: Path) -> None:
    pts = [0, 1001, 1500, 9000, 9001, 40_000]
    base = Fraction(1, 30_000)
    write_video(tmp_path / "a.mp4", numbered(6, *HW), pts=pts, time_base=base, rotation=90)
    with sitting_swapper(bundle) as swapper:
        summary = swapper.reenact(tmp_path / "a.mp4", swapper.preset("smile"), tmp_path / "o.mp4")
    out = probe(tmp_path / "o.mp4")
    assert out.times == [p * base for p in pts]
    assert out.stream["size_wh"] == (summary.width, summary.height) == HW
    assert out.stream["rotation"] == 0


@pytest.mark.parametrize("on_lost", ["passthrough", "hold", "blur"])
def test_reenact_face_comes_and_goes(bundle: ModelBundle, tmp_path: Path, on_lost: str) -> None:
    pictures = numbered(80, *HW)
    write_video(tmp_path / "a.mp4", pictures)
    face = face_at(80, 60, 90)

    def faces(number: int) -> list[object]:
        return [face] if 5 <= number < 15 or number >= 70 else []

    with sitting_swapper(bundle, faces=faces, on_lost=on_lost) as swapper:  # type: ignore[arg-type]
        summary = swapper.reenact(tmp_path / "a.mp4", swapper.preset("smile"), tmp_path / "o.mp4")
    assert summary.frames_out == 80
    assert sum(summary.statuses.values()) == 80
    assert summary.statuses["swapped"] == 20
    assert summary.statuses["held"] > 0
    assert summary.statuses["no_face"] >= 35
    assert summary.face_found
    out = probe(tmp_path / "o.mp4")
    assert out.times == [Fraction(i, RATE) for i in range(80)]
    lost, bar = out.pictures[65].astype(int), np.s_[42:43, :78]  # the growing bar's row
    if on_lost == "passthrough":
        assert np.abs(lost - pictures[65]).mean() < 5
    elif on_lost == "hold":
        assert lost[bar][:, 60:].mean() < 200  # of frame 15 or so: the bar had not come that far
        assert np.abs(lost - out.pictures[60]).mean() < 2
    else:
        assert np.abs(np.diff(lost, axis=1)).max() < 80
        assert np.abs(np.diff(pictures[65].astype(int), axis=1)).max() > 200


def test_reenact_face_never_comes_gives_a_complete_file_and_says_so(
    bundle: ModelBundle, target: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sitting_swapper(bundle, faces=lambda _: []) as swapper:
        summary = swapper.reenact(target, swapper.preset("smile"), tmp_path / "o.mp4")
    assert not summary.face_found
    assert summary.statuses["no_face"] == summary.frames_out == 12
    assert summary.aus_before == summary.aus_after == {}
    assert "not one of its 12 frames showed a face" in caplog.text
    assert len(probe(tmp_path / "o.mp4").pictures) == 12


@pytest.mark.parametrize("hw", [(16, 16), (17, 31)])
def test_reenact_tiny_and_odd(bundle: ModelBundle, tmp_path: Path, hw: tuple[int, int]) -> None:
    write_video(tmp_path / "a.mkv", numbered(3, *hw), codec="ffv1", pix_fmt="bgr0")
    with sitting_swapper(bundle) as swapper:
        swapper.reenact(tmp_path / "a.mkv", swapper.preset("smile"), tmp_path / "o.mp4")
    assert probe(tmp_path / "o.mp4").stream["size_wh"] == (hw[1], hw[0])


def test_reenact_source_clip_timings(bundle: ModelBundle, target: Path, tmp_path: Path) -> None:
    clip = clip_expression(bundle, [0.0, 0.08, 0.16], 0.24)
    seen: dict[str, int] = {}
    with sitting_swapper(bundle) as swapper:
        for timing in ("stretch", "loop", "hold", "trim"):
            out = tmp_path / f"{timing}.mp4"
            summary = swapper.reenact(target, clip, out, source_timing=timing)
            seen[timing] = summary.frames_out
            assert not summary.interrupted
            assert len(probe(out).pictures) == summary.frames_out
    assert seen == {"stretch": 12, "loop": 12, "hold": 12, "trim": 6}
    assert probe(tmp_path / "trim.mp4").sounds[0][-1][0] < Fraction(24, 100)


@pytest.mark.parametrize(
    ("suffix", "timing", "expected"), [("mp4", "hold", 12), ("mkv", "hold", 12), ("mkv", "trim", 5)]
)
def test_reenact_progress_knows_or_estimates_the_frames_in_all(
    bundle: ModelBundle, tmp_path: Path, suffix: str, timing: str, expected: int
) -> None:
    path = write_video(tmp_path / f"t.{suffix}", numbered(12, *HW))
    write_video(tmp_path / "s.mp4", numbered(5, *HW))
    calls: list[tuple[int, int | None]] = []
    with sitting_swapper(bundle) as swapper:
        swapper.reenact(
            path,
            tmp_path / "s.mp4",
            tmp_path / "o.mp4",
            source_timing=timing,
            progress=lambda done, total: calls.append((done, total)),
        )
    frames = min(expected, 12)
    assert calls == [(done, expected) for done in range(1, frames + 1)]


def test_reenact_stretch_measures_a_target_that_does_not_tell_its_length(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    write_video(tmp_path / "a.h264", numbered(10, *HW))
    clip = clip_expression(bundle, [0.0, 0.5], 1.0)
    with sitting_swapper(bundle) as swapper:
        summary = swapper.reenact(
            tmp_path / "a.h264", clip, tmp_path / "o.mp4", source_timing="stretch"
        )
    assert summary.frames_out == 10


def test_reenact_compare_shows_source_target_and_output(
    bundle: ModelBundle, target: Path, tmp_path: Path
) -> None:
    green = np.zeros((100, 50, 3), np.uint8)
    green[:] = (0, 200, 0)
    cv2.imwrite(str(tmp_path / "green.png"), green)
    with sitting_swapper(bundle) as swapper:
        out = tmp_path / "out.mp4"
        summary = swapper.reenact(target, tmp_path / "green.png", out, compare=True, crf=5)
        swapper.reenact(target, swapper.preset("smile"), tmp_path / "two.mp4", compare=True)
        alone = tmp_path / "alone.mp4"
        swapper.reenact(target, tmp_path / "green.png", alone, crf=5)
    assert (summary.width, summary.height) == (60 + 160 + 160, 120)
    picture = probe(out).pictures[7].astype(int)
    assert picture.shape == (120, 380, 3)
    np.testing.assert_allclose(picture[10:110, 5:50].mean((0, 1)), (0, 200, 0), atol=6)
    assert np.abs(picture[:, 62:220] - numbered(12, *HW)[7][:, 2:]).mean() < 6
    assert np.abs(picture[:, 220:] - probe(alone).pictures[7]).mean() < 4
    assert probe(tmp_path / "two.mp4").stream["size_wh"] == (320, 120)


def test_reenact_compare_plays_a_source_clip(
    bundle: ModelBundle, target: Path, tmp_path: Path
) -> None:
    shades = [np.full((*HW, 3), level, np.uint8) for level in (0, 60, 120, 180, 240)]
    write_video(tmp_path / "s.mkv", shades, codec="ffv1", pix_fmt="bgr0")
    with sitting_swapper(bundle) as swapper:
        for timing in ("loop", "hold"):
            swapper.reenact(
                target,
                tmp_path / "s.mkv",
                tmp_path / f"{timing}.mp4",
                compare=True,
                source_timing=timing,
                crf=5,
            )
    looped = [p[60, 80, 0] for p in probe(tmp_path / "loop.mp4").pictures]
    held = [p[60, 80, 0] for p in probe(tmp_path / "hold.mp4").pictures]
    np.testing.assert_allclose(looped, (np.arange(12) % 5) * 60.0, atol=8)
    np.testing.assert_allclose(held, np.minimum(np.arange(12), 4) * 60.0, atol=8)


def test_reenact_compare_stretches_a_source_clip_over_a_target_of_untold_length(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    from PIL import Image

    pages = [Image.fromarray(picture) for picture in numbered(10, *HW)]
    pages[0].save(tmp_path / "t.gif", save_all=True, append_images=pages[1:], duration=100)
    shades = [np.full((*HW, 3), level, np.uint8) for level in (0, 60, 120, 180, 240)]
    write_video(tmp_path / "s.mkv", shades, codec="ffv1", pix_fmt="bgr0")
    with sitting_swapper(bundle) as swapper:
        out = tmp_path / "out.mp4"
        swapper.reenact(
            tmp_path / "t.gif",
            tmp_path / "s.mkv",
            out,
            compare=True,
            source_timing="stretch",
            crf=5,
        )
    shown = [p[60, 80, 0] for p in probe(out).pictures]
    np.testing.assert_allclose(shown, (np.arange(10) // 2) * 60.0, atol=8)


def test_reenact_picture_gives_picture(bundle: ModelBundle, tmp_path: Path) -> None:
    picture = moving_portrait(1)[0]
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    with sitting_swapper(bundle) as swapper:
        smile = swapper.preset("smile")
        summary = swapper.reenact(tmp_path / "p.png", smile, tmp_path / "o.png")
        assert summary.frames_out == 1
        np.testing.assert_array_equal(
            cv2.imread(str(tmp_path / "o.png")), swapper.process(picture, smile).frame.frame_bgr
        )
        swapper.reenact(tmp_path / "p.png", smile, tmp_path / "o.mp4")
        assert len(probe(tmp_path / "o.mp4").pictures) == 1


def test_error_video_to_picture(bundle: ModelBundle, target: Path, tmp_path: Path) -> None:
    with (
        sitting_swapper(bundle) as swapper,
        pytest.raises(SinkError, match=r"more than one frame; write to o\.mp4"),
    ):
        swapper.reenact(target, swapper.preset("smile"), tmp_path / "o.png")
    assert list(tmp_path.iterdir()) == []


def test_error_in_the_middle_reaches_the_caller_and_leaves_nothing(
    bundle: ModelBundle, target: Path, tmp_path: Path
) -> None:
    with (
        sitting_swapper(bundle, fail_at=6) as swapper,
        pytest.raises(RuntimeError, match="the tracker broke on purpose"),
    ):
        swapper.reenact(target, swapper.preset("smile"), tmp_path / "o.mp4")
    assert list(tmp_path.iterdir()) == []
    assert [t.name for t in threading.enumerate() if t.name.startswith("rt_swap")] == []


def test_error_bad_source_or_output_leaves_nothing(
    bundle: ModelBundle, target: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "wall.png"), quadrants_bgr())
    with sitting_swapper(bundle, still_faces=lambda _: []) as swapper:
        with pytest.raises(NoFaceError):
            swapper.reenact(target, tmp_path / "wall.png", tmp_path / "o.mp4")
        with pytest.raises(SinkError, match="is also an input"):
            swapper.reenact(target, tmp_path / "wall.png", tmp_path / "wall.png", overwrite=True)
        with pytest.raises(SinkError, match="is also an input"):
            swapper.reenact(target, swapper.preset("smile"), target, overwrite=True)
        with pytest.raises(ConfigError, match="--source-timing"):
            swapper.reenact(target, "x", tmp_path / "o.mp4", source_timing="backwards")
        with pytest.raises(SourceError, match="there is no such file"):
            swapper.reenact(tmp_path / "none.mp4", swapper.preset("smile"), tmp_path / "o.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["wall.png"]


def test_ctrl_c_completes_the_file_with_sound_as_long_as_the_pictures(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    write_video(tmp_path / "a.mp4", numbered(100, *HW), audio=["aac"])

    def progress(done: int, total: int | None) -> None:
        if done == 10:
            os.kill(os.getpid(), signal.SIGINT)
        if done > 10:
            time.sleep(0.05)

    with sitting_swapper(bundle) as swapper, pytest.raises(ReenactInterrupted) as caught:
        swapper.reenact(
            tmp_path / "a.mp4", swapper.preset("smile"), tmp_path / "o.mp4", progress=progress
        )
    summary = caught.value.summary
    assert summary.interrupted
    assert 10 <= summary.frames_out < 60
    out = probe(tmp_path / "o.mp4")
    assert out.times == [Fraction(i, RATE) for i in range(summary.frames_out)]
    assert abs(float(out.sounds[0][-1][0]) - summary.frames_out / RATE) < 0.1
    assert left_behind(tmp_path) == []


def test_truncated_target_is_written_as_far_as_it_goes(
    bundle: ModelBundle, tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    noise = [rng.integers(0, 255, (*HW, 3), dtype=np.uint8) for _ in range(30)]
    options = {"g": "5", "bf": "0"}
    path = write_video(
        tmp_path / "a.mp4", noise, options=options, container_options={"movflags": "faststart"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with sitting_swapper(bundle) as swapper:
        summary = swapper.reenact(path, swapper.preset("smile"), tmp_path / "o.mp4")
    assert 5 < summary.frames_out < 30
    assert summary.damage is not None
    assert "cut short" in summary.damage
    assert "cut short" in caplog.text
    assert len(probe(tmp_path / "o.mp4").pictures) == summary.frames_out


def test_relative_mode_with_neutral_file(bundle: ModelBundle, target: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "calm.png"), moving_portrait(1)[0])
    with sitting_swapper(bundle) as swapper:
        swapper.reenact(
            target,
            tmp_path / "calm.png",
            tmp_path / "o.mp4",
            mode="relative",
            neutral=tmp_path / "calm.png",
            crf=1,
        )
    # the source minus itself is nothing: the target comes back
    for actual, expected in zip(
        probe(tmp_path / "o.mp4").pictures, probe(target).pictures, strict=True
    ):
        assert np.abs(actual.astype(int) - expected).mean() < 2


def test_neutral_without_relative_mode_is_said_to_be_unused(
    bundle: ModelBundle, target: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sitting_swapper(bundle) as swapper:
        smile = swapper.preset("smile")
        swapper.reenact(target, smile, tmp_path / "a.mp4", neutral=swapper.preset("neutral"))
        assert "--neutral is not used" in caplog.text
        caplog.clear()
        swapper.reenact(target, smile, tmp_path / "b.mp4", mode="relative", neutral=smile)
    assert "not used" not in caplog.text


def test_a_real_face_is_found_followed_and_changed(bundle: ModelBundle, tmp_path: Path) -> None:
    pictures = moving_portrait(12)
    write_video(tmp_path / "a.mp4", pictures, audio=["aac"])
    cv2.imwrite(str(tmp_path / "face.jpg"), pictures[0])
    with Swapper.load(bundle.path, "onnxruntime", cache=None, threads=1) as swapper:
        summary = swapper.reenact(
            tmp_path / "a.mp4", tmp_path / "face.jpg", tmp_path / "o.mp4", mode="absolute"
        )
        assert summary.statuses == {"swapped": 12, "held": 0, "no_face": 0}
        result = swapper.process(pictures[0], swapper.preset("smile"))
    assert result.crop is not None
    changed = (result.frame.frame_bgr != pictures[0]).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed.mean() > 0.02
    # around the portrait's face, which the camera keeps in the middle
    assert abs(columns.mean() - 160) < 40
    assert abs(rows.mean() - 120) < 40


def test_real_source_without_a_face(bundle: ModelBundle, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wall.png"), quadrants_bgr(200, 300))
    with (
        Swapper.load(bundle.path, "onnxruntime", cache=None, threads=1) as swapper,
        pytest.raises(NoFaceError, match=r"wall\.png: no face was found"),
    ):
        swapper.encode(tmp_path / "wall.png")
