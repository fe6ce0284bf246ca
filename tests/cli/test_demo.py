"""``rt-swap demo`` with a tiny model: what it writes, what it prints, what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_swap import cli, geometry
from rt_swap.aus import AU_NAMES
from rt_swap.cli import demo
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.expression import PRESETS
from rt_swap.frames import FaceCrop, TrackState
from rt_swap.io.picture import read_picture
from rt_swap.io.video import VideoReader
from rt_swap.provenance import badge
from rt_swap.swapper import Swapper
from tests.support.tiny_model import tiny_bundle, write_manifest
from tests.support.videos import numbered, write_video

Demo = Callable[..., int]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def run(bundle: Path, tmp_path: Path) -> Demo:
    """Runs the verb; writes to tmp_path/out; returns its exit code."""

    def go(*arguments: str, model: Path = bundle) -> int:
        common = ["--model", str(model), "--cache", str(tmp_path / "cache")]
        return cli.main(["demo", *common, "--out", str(tmp_path / "out"), *arguments])

    return go


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's portrait as a file."""
    import cv2

    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    cv2.imwrite(str(path), demo._portrait())
    return path


def _frames(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.frame_bgr for frame in reader]


def test_demo_re_expresses_the_portrait_with_every_preset(
    run: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--seconds", "0.2") == 0
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["contact_sheet.jpg", "demo.mp4", "target.mp4"]
    target, both = _frames(out / "target.mp4"), _frames(out / "demo.mp4")
    assert len(target) == len(both) == 6
    assert target[0].shape == (720, 1280, 3)
    assert both[0].shape == (720, 2560, 3)
    # the left half is the target (twice through H.264), the right half is not
    assert np.abs(both[3][:, :1280].astype(int) - target[3]).mean() < 3

    sheet = read_picture(out / "contact_sheet.jpg")
    columns = 1 + len(PRESETS)
    assert sheet.shape[1] == columns * (demo._CELL_PX + 4) + 4
    # the badge has a margin of its own: on a face it would hide what the sheet is for
    pictures_end = 32 + 4 + demo._ROWS * (demo._CELL_PX + 4)
    assert badge.find(sheet)[0] == "bottom-right"
    assert badge.badge_for(*sheet.shape[:2]).box(*sheet.shape[:2], "bottom-right")[1] > pictures_end

    told = capsys.readouterr().out
    assert "6 frames of" in told
    assert "frames per second" in told
    assert "p50/p95: decode" in told
    for name in PRESETS:
        assert f"  {name:<9} AU" in told
    assert "outside the face's crop: 0 grey levels" in told


def test_demo_json_holds_every_figure(run: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seconds", "0.1", "--json") == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert figures["frames_out"] == 3
    assert figures["statuses"]["swapped"] == 3
    assert set(figures["stage_ms"]) >= {"track", "crop", "generate", "compose"}
    assert set(figures["presets"]) == set(PRESETS)
    for aus in figures["presets"].values():
        assert set(aus) == set(AU_NAMES)
        for values in aus.values():
            assert all(0 <= values[key] <= 1 for key in ("asked", "before", "after"))
    # all presets were given to the same frames
    assert (
        len(
            {
                json.dumps({k: v["before"] for k, v in a.items()})
                for a in figures["presets"].values()
            }
        )
        == 1
    )
    assert figures["checks"]["pictures"] == 3 * len(PRESETS)
    assert figures["checks"]["outside_face_max_difference"] == 0


def test_demo_on_own_target_and_source(
    run: Demo, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face_bgr = read_picture(portrait)[:256, 100:356]
    clip = write_video(tmp_path / "clip.mp4", [np.roll(face_bgr, i, axis=1) for i in range(5)])
    assert run("--target", str(clip), "--source", str(portrait)) == 0
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["contact_sheet.jpg", "demo.mp4"]
    shown = _frames(out / "demo.mp4")
    assert len(shown) == 5
    assert shown[0].shape == (256, 3 * 256, 3)  # source | target | output
    told = capsys.readouterr().out
    assert str(clip) in told
    assert "AUs, mean over the video" in told


def test_panels_are_named_as_they_are_shown() -> None:
    assert demo._panels(Path("face.jpg")) == "source | target | output"
    assert demo._panels(Path("saved.SAFETENSORS")) == "target | output"


def test_demo_on_own_target_gives_it_the_presets(run: Demo, portrait: Path, tmp_path: Path) -> None:
    face_bgr = read_picture(portrait)[:256, 100:356]
    clip = write_video(tmp_path / "clip.mp4", [face_bgr] * 10)
    assert run("--target", str(clip), "--seconds", "0.2") == 0
    assert len(_frames(tmp_path / "out" / "demo.mp4")) == 5  # --seconds cuts it
    assert (tmp_path / "out" / "contact_sheet.jpg").exists()


def test_demo_replaces_what_an_earlier_demo_left(run: Demo, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("demo.mp4", "target.mp4", "contact_sheet.jpg"):
        (out / name).write_text("old")
    assert run("--seconds", "0.04") == 0
    assert all(p.read_bytes() != b"old" for p in out.iterdir())


def test_demo_target_without_face_has_its_exit_code_and_no_stale_sheet(
    run: Demo, tmp_path: Path
) -> None:
    clip = write_video(tmp_path / "clip.mp4", numbered(4, 96, 128))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "contact_sheet.jpg").write_text("an earlier demo's")
    assert run("--target", str(clip)) == 40
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["demo.mp4"]


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--target", "demo.mp4"),
        ("--source", "demo.mp4"),
        ("--source", "target.mp4"),
        ("--source", "contact_sheet.jpg"),
    ],
)
def test_demo_refuses_to_write_over_its_input(
    run: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    given = tmp_path / "out" / name
    given.parent.mkdir()
    given.write_bytes(b"mine")
    assert run(option, str(given)) == 32
    assert [p.read_bytes() for p in given.parent.iterdir()] == [b"mine"]
    assert "is also an input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--seconds", "0"], 2, "--seconds: must be from"),
        (["--seconds", "nan"], 2, "--seconds: must be from"),
        (["--seconds", "1", "--target", "a.mp4", "--source", "b.png"], 2, "leave it out"),
        (["--target", "nowhere.mp4"], 31, "nowhere.mp4"),
        (["--seconds", "0.04", "--source", "nowhere.png"], 31, "nowhere.png"),
    ],
)
def test_demo_says_what_is_wrong(
    run: Demo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    assert run(*arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "demo.mp4").exists()


def test_demo_out_that_is_a_file_is_refused(
    run: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    assert run("--seconds", "0.04") == 32
    assert "cannot be made" in capsys.readouterr().err


def test_demo_without_scikit_image_says_what_to_install(
    run: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert run("--seconds", "0.04") == 31
    assert "rt-swap[demo]" in capsys.readouterr().err


def test_demo_model_without_presets_says_so(
    run: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tiny_bundle(tmp_path / "bare")
    for path in (bare / "presets").iterdir():
        path.unlink()
    write_manifest(bare)
    assert run("--seconds", "0.04", model=bare) == 14
    assert "ships no presets" in capsys.readouterr().err


def test_order_of_the_show_has_every_preset_once_and_begins_with_smile() -> None:
    assert sorted(demo.ORDER) == sorted(PRESETS)
    assert demo.ORDER[0] == "smile"


def test_show_reaches_every_preset_and_never_jumps(bundle: Path) -> None:
    with Swapper.load(bundle, cache=None) as swapper:
        show = demo._show(swapper, 18.0, None)
        presets = [swapper.preset(name) for name in demo.ORDER]
    assert show.tokens.shape[0] == len(show.times_s) == 18 * 30
    assert show.duration_s == 18.0
    for number, preset in enumerate(presets):
        at = int((number + 0.3) * 2.0 * 30)
        np.testing.assert_array_equal(show.tokens[at], preset.tokens[0])
        np.testing.assert_array_equal(show.aus_lr[at], preset.aus_lr[0])
    stacked = np.concatenate([p.tokens for p in presets])
    widest = np.abs(np.diff(stacked, axis=0, append=stacked[:1])).max()
    # a smoothstep's steepest slope is 1.5 over the 0.7 s that a change takes
    assert np.abs(np.diff(show.tokens, axis=0)).max() <= widest * 1.5 / (0.7 * 30) * 1.01


def test_show_begins_and_ends_with_the_portraits_own(bundle: Path) -> None:
    portrait_bgr = demo._portrait()
    with Swapper.load(bundle, cache=None) as swapper:
        own = swapper.encode(portrait_bgr)
        show = demo._show(swapper, 2.0, portrait_bgr)
    np.testing.assert_array_equal(show.tokens[0], own.tokens[0])
    np.testing.assert_allclose(show.tokens[-1], own.tokens[0], atol=1e-6)


def test_turned_deg_measures_a_rotation_and_ignores_shift() -> None:
    rng = np.random.default_rng(5)
    points = rng.normal(size=(9, 3)) * 40
    angle = np.deg2rad(7.0)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    assert demo._turned_deg(points, points @ turn.T + [3, -8, 20]) == pytest.approx(7.0, abs=1e-6)
    assert demo._turned_deg(points, points) == pytest.approx(0.0, abs=1e-5)
    assert demo._turned_deg(points, None) is None


def _crop_at(x: float, y: float, side_px: float) -> FaceCrop:
    M_frame_from_crop = np.array(
        [[side_px / CROP_SIZE_PX, 0, x], [0, side_px / CROP_SIZE_PX, y]], np.float64
    )
    return FaceCrop(geometry.invert(M_frame_from_crop), TrackState.TRACKED, None, 0)


def test_outside_sees_one_pixel_beyond_the_crop_and_none_within() -> None:
    target_bgr = np.full((60, 80, 3), 100, np.uint8)
    crop = _crop_at(20, 10, 32)
    output_bgr = target_bgr.copy()
    output_bgr[10:42, 20:52] = 0
    assert demo._outside(target_bgr, output_bgr, crop) == 0
    output_bgr[42, 30, 1] = 93
    assert demo._outside(target_bgr, output_bgr, crop) == 7


def test_cell_shows_the_crops_square() -> None:
    frame_bgr = np.zeros((100, 100, 3), np.uint8)
    frame_bgr[20:60, 30:70] = (10, 120, 240)
    side_px = 40 / demo._CELL_ZOOM
    corner = 20 - side_px / 2
    cell = demo._cell(frame_bgr, _crop_at(30 + corner, 20 + corner, side_px))
    assert cell.shape == (demo._CELL_PX, demo._CELL_PX, 3)
    inner = cell[8:-8, 8:-8].reshape(-1, 3)
    assert np.abs(inner.astype(int) - (10, 120, 240)).max() <= 1
