"""Cameras by OpenCV, on an OpenCV whose cameras are made up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from rt_swap.errors import ConfigError, SourceError
from rt_swap.io import camera as camera_module
from rt_swap.io import captures
from rt_swap.io.camera import CameraCapture, CameraDevice, find_camera, list_cameras

DEVICES = [
    CameraDevice(0, "/dev/video0", "Integrated Camera", False, True),
    CameraDevice(2, "/dev/video2", "Logitech BRIO", False, True),
    CameraDevice(3, "/dev/video3", "Logitech C920", False, True),
]


class FakeVideo:
    """A cv2.VideoCapture of one camera."""

    cameras: ClassVar[dict[int, dict[str, Any]]] = {}
    opened: ClassVar[list[FakeVideo]] = []

    def __init__(self, index: int, api: int) -> None:
        self.index, self.api = index, api
        self.settings: list[tuple[int, float]] = []
        self.released = False
        self.reads = 0
        FakeVideo.opened.append(self)

    @property
    def camera(self) -> dict[str, Any]:
        return self.cameras.get(self.index, {})

    def isOpened(self) -> bool:
        return bool(self.camera)

    def set(self, what: int, value: float) -> bool:
        self.settings.append((what, value))
        return True

    @property
    def mjpg(self) -> bool:
        return (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")) in self.settings

    def get(self, what: int) -> float:
        if what == cv2.CAP_PROP_FPS:
            return 30.0
        if what == cv2.CAP_PROP_FOURCC:
            return float(cv2.VideoWriter.fourcc(*("MJPG" if self.mjpg else "YUYV")))
        if what == cv2.CAP_PROP_POS_MSEC:
            return self.camera.get("stamp", lambda: 0.0)()
        return 0.0

    def read(self) -> tuple[bool, Any]:
        self.reads += 1
        if self.mjpg and self.camera.get("mjpg_is_dead"):
            return False, None
        if self.reads > self.camera.get("pictures", 10**9):
            return False, None
        width, height = self.camera["size"]
        return True, np.full((height, width, 3), self.reads, np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cv2, "VideoCapture", FakeVideo)
    monkeypatch.setattr(FakeVideo, "cameras", {0: {"size": (1280, 720)}})
    monkeypatch.setattr(FakeVideo, "opened", [])
    monkeypatch.setattr(camera_module, "list_cameras", lambda: list(DEVICES))
    monkeypatch.setattr(camera_module, "_check_there", lambda *_: None)
    monkeypatch.setattr(camera_module, "_OPENING_S", 0.1)
    monkeypatch.setattr(camera_module.sys, "platform", "linux")
    yield
    for video in FakeVideo.opened:
        assert video.released, "a camera was left open"


def test_camera_is_asked_for_mjpg_size_rate_and_no_queue() -> None:
    capture = CameraCapture(0, size_wh=(1280, 720), rate_hz=30)
    video = FakeVideo.opened[-1]
    assert video.api == cv2.CAP_V4L2
    asked = dict(video.settings)
    assert video.mjpg
    # the format first: sizes and rates depend on it
    assert video.settings[0][0] == cv2.CAP_PROP_FOURCC
    assert asked[cv2.CAP_PROP_FRAME_WIDTH] == 1280
    assert asked[cv2.CAP_PROP_FRAME_HEIGHT] == 720
    assert asked[cv2.CAP_PROP_FPS] == 30
    assert asked[cv2.CAP_PROP_BUFFERSIZE] == 1
    info = capture.info
    assert (info.name, info.width, info.height) == ("Integrated Camera", 1280, 720)
    assert (info.rate_hz, info.format, info.ends) == (30.0, "MJPG", False)
    shades = []
    for _ in range(3):
        picture = capture.read()
        assert picture is not None
        shades.append(int(picture.frame_bgr[0, 0, 0]))
    assert shades == [1, 2, 3]  # the picture that proved it alive is not lost
    capture.close()
    capture.close()
    with pytest.raises(SourceError, match="gives no more pictures"):
        capture.read()


def test_small_pictures_come_uncompressed() -> None:
    capture = CameraCapture(0, size_wh=(640, 480))
    assert not FakeVideo.opened[-1].mjpg
    capture.close()


def test_camera_that_lies_about_mjpg_is_asked_for_its_own_format() -> None:
    FakeVideo.cameras[0]["mjpg_is_dead"] = True
    capture = CameraCapture(0)
    assert [video.mjpg for video in FakeVideo.opened] == [True, False]
    assert FakeVideo.opened[0].released
    assert capture.info.format == "YUYV"
    capture.close()


def test_another_size_than_asked_for_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rt_swap")
    FakeVideo.cameras[0]["size"] = (640, 480)
    capture = CameraCapture(0)
    assert (capture.info.width, capture.info.height) == (640, 480)
    assert "gives 640x480 instead of 1280x720" in caplog.text
    capture.close()


def test_drivers_time_stamp_is_taken_where_it_is_of_our_clock() -> None:
    FakeVideo.cameras[0]["stamp"] = lambda: (time.perf_counter() - 0.05) * 1e3
    capture = CameraCapture(0)
    picture = capture.read()
    assert picture is not None
    assert 0.04 < time.perf_counter() - picture.captured_s < 2.0
    for other_clock in (0.0, time.time() * 1e3, (time.perf_counter() + 60) * 1e3):
        FakeVideo.cameras[0]["stamp"] = lambda value=other_clock: value
        before = time.perf_counter()
        picture = capture.read()
        assert picture is not None
        assert picture.captured_s >= before
    capture.close()


def test_windows_falls_back_to_media_foundation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module.sys, "platform", "win32")

    class OnlyMsmf(FakeVideo):
        def isOpened(self) -> bool:
            return self.api == cv2.CAP_MSMF

    monkeypatch.setattr(cv2, "VideoCapture", OnlyMsmf)
    capture = CameraCapture(0)
    assert [v.api for v in FakeVideo.opened] == [cv2.CAP_DSHOW, cv2.CAP_MSMF]
    capture.close()


def test_error_unplugged_in_the_middle() -> None:
    FakeVideo.cameras[0]["pictures"] = 2
    capture = CameraCapture(0)
    capture.read()
    capture.read()
    with pytest.raises(SourceError, match=r"camera 0 \(Integrated Camera\): gives no more"):
        capture.read()
    capture.close()


def test_error_camera_without_pictures_or_in_use() -> None:
    FakeVideo.cameras[0]["pictures"] = 0
    with pytest.raises(SourceError, match="another program may be using it"):
        CameraCapture(0)
    with pytest.raises(SourceError, match="camera 7: gives no picture"):
        CameraCapture("7")


# --- finding ---
@pytest.mark.parametrize(
    ("wanted", "index"),
    [("0", 0), ("/dev/video2", 2), ("brio", 2), ("C920", 3), ("integrated camera", 0)],
)
def test_find_camera(wanted: str, index: int) -> None:
    found = find_camera(wanted, DEVICES)
    assert found is not None
    assert found.index == index


def test_find_camera_prefers_the_exact_name() -> None:
    devices = [*DEVICES, CameraDevice(5, "/dev/video5", "Logitech", False, True)]
    found = find_camera("logitech", devices)
    assert found is not None
    assert found.index == 5
    assert find_camera("9", devices) is None
    assert find_camera("/dev/video9", devices) is None


def test_error_find_camera() -> None:
    with pytest.raises(SourceError, match=r"fits 2 cameras; give a number: 0 \(Integrated"):
        find_camera("logitech", DEVICES)
    with pytest.raises(SourceError, match=r"no file and no camera of that name; there are: 0"):
        find_camera("sony", DEVICES)
    with pytest.raises(SourceError, match="there are: none at all"):
        find_camera("sony", [])


def sysfs_with(tmp_path: Path, *nodes: tuple[str, str, str, bool]) -> Path:
    """A folder like /sys/class/video4linux: (node, name, index, is virtual)."""
    sysfs = tmp_path / "class"
    sysfs.mkdir()
    for node, name, index, is_virtual in nodes:
        real = tmp_path / "devices" / ("virtual" if is_virtual else "pci0") / node
        real.mkdir(parents=True)
        (real / "name").write_text(f"{name}\n", encoding="utf-8")
        (real / "index").write_text(f"{index}\n", encoding="utf-8")
        (sysfs / node).symlink_to(real)
    return sysfs


def test_list_cameras_reads_what_the_kernel_says(tmp_path: Path) -> None:
    sysfs = sysfs_with(
        tmp_path,
        ("video10", "rt-swap camera", "0", True),
        ("video0", "Integrated Camera", "0", False),
        ("video1", "Integrated Camera", "1", False),  # metadata
    )
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "video0").touch()
    found = list_cameras(sysfs, dev)
    assert [(c.index, c.name, c.is_virtual, c.readable) for c in found] == [
        (0, "Integrated Camera", False, True),
        (10, "rt-swap camera", True, False),
    ]
    assert list_cameras(tmp_path / "none", dev) == []


# --- what a user names ---
def test_open_capture_tells_what_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Opened:
        def __init__(self, kind: str) -> None:
            self.kind = kind

        def __call__(self, *arguments: object, **options: object) -> tuple[object, ...]:
            return (self.kind, arguments[0], options)

    for name in ("CameraCapture", "NetworkCapture", "GStreamerCapture", "PacedFile"):
        monkeypatch.setattr(captures, name, Opened(name))
    (tmp_path / "0").write_bytes(b"x")
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"x")

    def kind_of(spec: str) -> tuple[object, object]:
        kind, first, _ = captures.open_capture(spec)  # type: ignore[misc]
        return kind, first

    monkeypatch.chdir(tmp_path)
    assert kind_of("0") == ("CameraCapture", "0")  # a number is a camera, whatever files there are
    assert kind_of("/dev/video2") == ("CameraCapture", "/dev/video2")
    assert kind_of("Logitech BRIO") == ("CameraCapture", "Logitech BRIO")
    assert kind_of("clip.mp4") == ("PacedFile", "clip.mp4")
    assert kind_of("RTSP://host/a") == ("NetworkCapture", "RTSP://host/a")
    assert kind_of("gst: videotestsrc ! a") == ("GStreamerCapture", "videotestsrc ! a")
    kind, pipeline = kind_of("csi://1")
    assert kind == "GStreamerCapture"
    assert "sensor-id=1" in str(pipeline)
    assert "width=1280,height=720,framerate=30/1" in str(pipeline)


def test_error_open_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"none/clip\.mp4: there is no such file"):
        captures.open_capture("none/clip.mp4")
    with pytest.raises(SourceError, match="not an empty text"):
        captures.open_capture(" ")
    with pytest.raises(ConfigError, match="write csi://0"):
        captures.open_capture("csi://left")
    monkeypatch.setattr(captures.sys, "platform", "win32")
    with pytest.raises(SourceError, match="cannot find cameras by name; give its number"):
        captures.open_capture("Logitech")


@pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")
def test_error_no_device_file_and_no_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    with pytest.raises(SourceError, match="camera 77: there is no /dev/video77"):
        CameraCapture(77)
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(camera_module.os, "access", lambda *_: False)
    with pytest.raises(SourceError, match="group video"):
        CameraCapture(77)
