"""Sinks of live pictures: recording, slate, preview, pyvirtualcam."""

from __future__ import annotations

import sys
import threading
import types
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from rt_swap.errors import ConfigError, SinkError
from rt_swap.frames import U8, Frame
from rt_swap.io import preview, virtual_camera
from rt_swap.io.pixels import i420_from_bgr
from rt_swap.io.preview import PreviewWindow, with_lines
from rt_swap.io.slate import fitted, slate
from rt_swap.io.tee import FileTee
from rt_swap.io.video import VideoWriter
from rt_swap.io.virtual_camera import PyVirtualCamSink, open_virtual_camera
from tests.support.videos import numbered, probe, quadrants_bgr

MICRO = Fraction(1, 1_000_000)


def frame_of(picture: U8, pts: int = 0) -> Frame:
    return Frame(picture, pts, MICRO)


# --- recording ---
def test_recording_keeps_the_pictures_own_times_and_first_size(tmp_path: Path) -> None:
    pictures = numbered(4, 48, 64)
    pts = [5_000_000, 5_033_000, 5_200_000, 5_210_000]
    with FileTee(tmp_path / "t.mp4") as tee:
        for picture, at in zip(pictures[:3], pts, strict=False):
            tee.write(frame_of(picture, at))
        tee.write(frame_of(np.full((96, 64, 3), 255, np.uint8), pts[3]))
    out = probe(tmp_path / "t.mp4")
    assert out.stream["size_wh"] == (64, 48)
    assert len(out.pictures) == 4
    times = [float(t - out.times[0]) for t in out.times]
    assert times == pytest.approx([0, 0.033, 0.2, 0.21], abs=1e-4)
    assert np.abs(out.pictures[1].astype(int) - pictures[1]).mean() < 12
    assert out.pictures[3][:, :10].max() < 30  # upright in a wide file
    assert [p.name for p in tmp_path.iterdir()] == ["t.mp4"]


def test_slow_encoder_costs_pictures_of_the_file_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()
    write = VideoWriter.write

    def slow(writer: VideoWriter, frame: Frame) -> None:
        assert go.wait(10)
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", slow)
    with FileTee(tmp_path / "t.mp4") as tee:
        for number, picture in enumerate(numbered(30, 48, 64)):
            tee.write(frame_of(picture, number * 33_000))
        assert tee.dropped >= 20
        assert tee.frames + tee.dropped == 30
        go.set()
    assert len(probe(tmp_path / "t.mp4").pictures) == tee.frames
    assert caplog.text.count("does not keep up") == 1


def test_recording_without_a_picture_or_aborted_leaves_nothing(tmp_path: Path) -> None:
    with FileTee(tmp_path / "a.mp4"):
        pass
    for name, error in (("b.mp4", RuntimeError), ("c.mp4", KeyboardInterrupt)):
        tee = FileTee(tmp_path / name)
        tee.__enter__()
        tee.write(frame_of(quadrants_bgr()))
        tee.__exit__(error, error(), None)
    assert [p.name for p in tmp_path.iterdir()] == ["c.mp4"]


def test_error_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.mp4").touch()
    with pytest.raises(SinkError, match="exists already"):
        FileTee(tmp_path / "there.mp4")
    with pytest.raises(ConfigError, match="codec"):
        FileTee(tmp_path / "x.mp4", codec="nonsense")
    tee = FileTee(tmp_path / "full.mp4")
    failed = threading.Event()

    def full(*_: object) -> None:
        failed.set()
        raise SinkError("the disk is full")

    monkeypatch.setattr(VideoWriter, "write", full)
    tee.write(frame_of(quadrants_bgr()))
    assert failed.wait(5)
    with pytest.raises(SinkError, match="the disk is full"):
        tee.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["there.mp4"]


# --- slate ---
@pytest.mark.parametrize("size_wh", [(1280, 720), (161, 97), (16, 16), (1, 1)])
def test_slate_is_dark_with_a_line_in_its_middle(size_wh: tuple[int, int]) -> None:
    picture = slate(size_wh)
    assert picture.shape == (size_wh[1], size_wh[0], 3)
    assert np.median(picture) < 70
    if size_wh[0] > 100:
        rows, columns = np.nonzero((picture > 150).all(axis=2))
        assert abs(rows.mean() - size_wh[1] / 2) < 0.05 * size_wh[1] + 1
        assert abs(columns.mean() - size_wh[0] / 2) < 0.05 * size_wh[0]
        assert columns.min() >= 0.2 * size_wh[0]
    assert (slate(size_wh, "") <= 62).all()


def test_fitted_keeps_the_shape_of_things() -> None:
    square = np.full((40, 40, 3), 200, np.uint8)
    wide = fitted(square, (100, 50))
    assert wide.shape == (50, 100, 3)
    assert (wide[:, 25:75] == 200).all()
    assert (wide[:, :25] == 0).all()
    assert (wide[:, 75:] == 0).all()
    assert fitted(square, (40, 40)) is square


@pytest.mark.parametrize("hw", [(48, 64), (49, 65)])
def test_i420_goes_back(hw: tuple[int, int]) -> None:
    picture = cv2.resize(quadrants_bgr(), (hw[1], hw[0]), interpolation=cv2.INTER_NEAREST)
    planes = i420_from_bgr(picture)
    height, width = hw[0] // 2 * 2, hw[1] // 2 * 2
    assert planes.shape == (height * 3 // 2, width)
    back = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
    assert np.abs(back.astype(int) - picture[:height, :width]).mean() < 20


# --- preview ---
def test_lines_do_not_touch_the_picture_itself() -> None:
    picture = np.full((240, 320, 3), 200, np.uint8)
    shown = with_lines(picture, ("smile | 30 fps", "age 20 ms"))
    assert (picture == 200).all()
    assert (shown[:8] != 200).any()
    np.testing.assert_array_equal(shown[120:], picture[120:])


def test_window_mirrors_and_reads_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[U8] = []
    # 0xFF51: the arrow to the left, whose low byte is a Q
    codes = iter([-1, ord("m"), 27, 0x100000 + ord("q"), 0xFF51, 0x10FF53, 0])
    visible = [1.0]
    monkeypatch.setattr(preview, "has_display", lambda: True)
    for name in ("namedWindow", "resizeWindow", "destroyWindow"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, p: shown.append(p))
    monkeypatch.setattr(cv2, "waitKeyEx", lambda _: next(codes, -1))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: visible[0])
    picture = quadrants_bgr()
    with PreviewWindow(mirror=True) as window:
        window.write(frame_of(picture))
        np.testing.assert_array_equal(shown[0], picture[:, ::-1])
        assert [window.key() for _ in range(4)] == [None, "m", "escape", "q"]
        assert [window.key() for _ in range(3)] == [None, None, None]
        visible[0] = 0.0
        assert window.key() == "closed"
        assert window.key() == "closed"
        window.write(frame_of(picture))
        assert len(shown) == 1


def test_error_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform == "linux":
        with pytest.raises(SinkError, match="there is no display here"):
            PreviewWindow()

    def headless(*_: object) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(preview, "has_display", lambda: True)
    monkeypatch.setattr(cv2, "namedWindow", headless)
    with pytest.raises(SinkError, match="this OpenCV has no windows"):
        PreviewWindow()


# --- pyvirtualcam ---
class FakeCamera:
    """pyvirtualcam.Camera, as far as it is used."""

    made: ClassVar[list[FakeCamera]] = []
    error: ClassVar[str | None] = None

    def __init__(self, width: int, height: int, fps: float, **options: Any) -> None:
        if self.error is not None:
            raise RuntimeError(self.error)
        self.size_wh, self.fps, self.options = (width, height), fps, options
        self.device = options["device"] or "OBS Virtual Camera"
        self.sent: list[U8] = []
        self.closed = False
        FakeCamera.made.append(self)

    def send(self, picture: U8) -> None:
        if self.closed:
            raise RuntimeError("closed")
        assert picture.shape == (*self.size_wh[::-1], 3)
        self.sent.append(picture.copy())

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pyvirtualcam(monkeypatch: pytest.MonkeyPatch) -> type[FakeCamera]:
    module = types.ModuleType("pyvirtualcam")
    module.Camera = FakeCamera  # type: ignore[attr-defined]
    module.PixelFormat = types.SimpleNamespace(BGR="BGR")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    monkeypatch.setattr(FakeCamera, "made", [])
    monkeypatch.setattr(FakeCamera, "error", None)
    return FakeCamera


def test_pyvirtualcam_gets_bgr_of_its_size(pyvirtualcam: type[FakeCamera]) -> None:
    picture = quadrants_bgr()
    with open_virtual_camera(None, (64, 48), 30.0, by="pyvirtualcam") as sink:
        sink.write(frame_of(picture))
        sink.write(frame_of(np.zeros((96, 128, 3), np.uint8)))
        assert sink.name == "OBS Virtual Camera"
    (camera,) = pyvirtualcam.made
    assert camera.options == {"fmt": "BGR", "device": None}
    assert camera.fps == 30.0
    np.testing.assert_array_equal(camera.sent[0], picture)
    assert camera.closed
    with pytest.raises(SinkError, match="after it was closed"):
        sink.write(frame_of(picture))


def test_auto_takes_what_the_system_has(
    pyvirtualcam: type[FakeCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct: list[object] = []
    monkeypatch.setattr(virtual_camera, "LoopbackSink", lambda *a: direct.append(a))
    monkeypatch.setattr(virtual_camera.sys, "platform", "linux")
    open_virtual_camera("x", (64, 48), 30.0)
    assert direct == [("x", (64, 48))]
    monkeypatch.setattr(virtual_camera.sys, "platform", "darwin")
    open_virtual_camera("x", (64, 48), 30.0)
    assert len(pyvirtualcam.made) == 1


def test_error_pyvirtualcam(
    pyvirtualcam: type[FakeCamera], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="--virtual-cam-by"):
        open_virtual_camera(None, (64, 48), 30.0, by="magic")
    sink = PyVirtualCamSink(None, (64, 48), 30.0)
    pyvirtualcam.made[-1].closed = True
    with pytest.raises(SinkError, match="closed"):
        sink.write(frame_of(quadrants_bgr()))
    monkeypatch.setattr(pyvirtualcam, "error", "no camera found")
    monkeypatch.setattr(virtual_camera.sys, "platform", "win32")
    with pytest.raises(SinkError, match="no camera found; install OBS Studio"):
        PyVirtualCamSink(None, (64, 48), 30.0)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(SinkError, match=r"pip install 'rt-swap\[live\]'"):
        PyVirtualCamSink(None, (64, 48), 30.0)
