"""Writing to v4l2loopback, on a kernel made of a dictionary."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from rt_swap.errors import SinkError
from rt_swap.frames import Frame
from rt_swap.io import v4l2
from rt_swap.io.camera import CameraDevice
from rt_swap.io.v4l2 import LoopbackSink, find_loopback, loopback_devices

fcntl = pytest.importorskip("fcntl", reason="V4L2 is Linux's")

OUTPUT, CAPTURE = 0x2, 0x1


@dataclass
class Device:
    """What the kernel knows of one device."""

    card: str = "rt_swap"
    driver: str = "v4l2 loopback"
    caps: int = OUTPUT
    locked: tuple[int, int] | None = None
    error: int | None = None
    format: tuple[int, int, int] | None = None
    frames: list[bytes] = field(default_factory=list)


class Kernel:
    """Answers open, ioctl, write and close for its devices."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.open_files: dict[int, Device] = {}

    def open(self, path: str, flags: int) -> int:
        if path not in self.devices:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        device = self.devices[path]
        if device.error is not None:
            raise OSError(device.error, os.strerror(device.error))
        number = 1000 + len(self.open_files)
        self.open_files[number] = device
        return number

    def ioctl(self, number: int, request: int, buffer: bytearray) -> int:
        device = self.open_files[number]
        # the request carries the structure's size: a wrong layout fails here
        assert (request >> 16) & 0x3FFF == len(buffer)
        assert (request >> 8) & 0xFF == ord("V")
        if request & 0xFF == 0:
            buffer[0:16] = device.driver.encode().ljust(16, b"\0")
            buffer[16:48] = device.card.encode().ljust(32, b"\0")
            struct.pack_into("=II", buffer, 84, 0x80000000 | OUTPUT | CAPTURE, device.caps)
        elif request & 0xFF == 5:
            (kind,) = struct.unpack_from("=I", buffer, 0)
            assert kind == 2  # V4L2_BUF_TYPE_VIDEO_OUTPUT
            width, height, pixels = struct.unpack_from("=III", buffer, 8)
            if device.locked is not None:
                width, height = device.locked
                struct.pack_into("=II", buffer, 8, width, height)
            device.format = (width, height, pixels)
        else:
            raise OSError(errno.ENOTTY, "not a V4L2 request")
        return 0

    def write(self, number: int, blob: bytes) -> int:
        device = self.open_files[number]
        if device.error is not None:
            raise OSError(device.error, os.strerror(device.error))
        device.frames.append(bytes(blob))
        return len(bytes(blob))

    def close(self, number: int) -> None:
        del self.open_files[number]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel()
    real_open, real_write, real_close = os.open, os.write, os.close

    def is_ours(path: object) -> bool:
        return str(path).startswith("/dev/video")

    monkeypatch.setattr(
        os,
        "open",
        lambda p, f, *a, **k: made.open(p, f) if is_ours(p) else real_open(p, f, *a, **k),
    )
    monkeypatch.setattr(
        os, "write", lambda n, b: made.write(n, b) if n in made.open_files else real_write(n, b)
    )
    monkeypatch.setattr(
        os, "close", lambda n: made.close(n) if n in made.open_files else real_close(n)
    )
    monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
    monkeypatch.setattr(v4l2.sys, "platform", "linux")
    monkeypatch.setattr(
        v4l2,
        "list_cameras",
        lambda: [
            CameraDevice(int(p.removeprefix("/dev/video")), p, d.card, True, True)
            for p, d in sorted(made.devices.items())
        ],
    )
    exists = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda p: str(p) in made.devices if is_ours(p) else exists(p)
    )
    yield made
    assert made.open_files == {}, "a device was left open"


def frame_of(picture: np.ndarray, pts: int = 0) -> Frame:
    return Frame(picture, pts, Fraction(1, 30))


def test_pictures_arrive_as_yu12_with_their_colours(kernel: Kernel) -> None:
    device = kernel.devices["/dev/video10"] = Device()
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = (20, 40, 220), (200, 60, 10)
    with LoopbackSink(None, (64, 48)) as sink:
        assert sink.name == "/dev/video10"
        sink.write(frame_of(picture))
        assert sink.frames == 1
    assert device.format == (64, 48, int.from_bytes(b"YU12", "little"))
    (blob,) = device.frames
    assert len(blob) == 64 * 48 * 3 // 2
    planes = np.frombuffer(blob, np.uint8).reshape(72, 64)
    back = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
    assert np.abs(back.astype(int) - picture).mean() < 3


def test_another_size_is_scaled_to_lie_inside(kernel: Kernel) -> None:
    device = kernel.devices["/dev/video10"] = Device()
    with LoopbackSink("/dev/video10", (65, 49)) as sink:  # odd: rounded down
        assert sink.size_wh == (64, 48)
        sink.write(frame_of(np.full((48, 32, 3), 255, np.uint8)))  # upright in a wide camera
    luma = np.frombuffer(device.frames[0], np.uint8)[: 64 * 48].reshape(48, 64)
    assert luma[:, :14].max() < 20
    assert luma[:, 18:46].min() > 200
    assert luma[:, 50:].max() < 20


def test_free_loopbacks_are_found_by_name(kernel: Kernel) -> None:
    kernel.devices["/dev/video0"] = Device(card="Webcam", driver="uvcvideo", caps=CAPTURE)
    kernel.devices["/dev/video10"] = Device(card="OBS", caps=CAPTURE)  # somebody writes to it
    kernel.devices["/dev/video11"] = Device(card="rt_swap two")
    assert [d.path for d in loopback_devices()] == ["/dev/video10", "/dev/video11"]
    assert find_loopback(None) == "/dev/video11"
    assert find_loopback("TWO") == "/dev/video11"
    with pytest.raises(SinkError, match="is written to by another program"):
        find_loopback("obs")
    with pytest.raises(SinkError, match=r"none of that name; there are /dev/video10 \(OBS\)"):
        find_loopback("zoom")


def test_error_no_device_says_how_to_load_the_module(kernel: Kernel) -> None:
    with pytest.raises(SinkError, match="sudo modprobe v4l2loopback devices=1 exclusive_caps=1"):
        find_loopback(None)
    with pytest.raises(SinkError, match="there is no such device"):
        LoopbackSink("/dev/video99", (64, 48))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Device(error=errno.EACCES), "group video"),
        (Device(error=errno.EBUSY), "in use by another program"),
        (Device(caps=CAPTURE), "another program writes to it"),
        (Device(caps=CAPTURE, driver="uvcvideo"), r"is a real device \(uvcvideo\)"),
        (Device(locked=(640, 360)), "start with --size 640x360"),
    ],
)
def test_error_devices(kernel: Kernel, device: Device, message: str) -> None:
    kernel.devices["/dev/video10"] = device
    with pytest.raises(SinkError, match=message):
        LoopbackSink("/dev/video10", (64, 48))


def test_error_device_that_goes_away(kernel: Kernel) -> None:
    device = kernel.devices["/dev/video10"] = Device()
    picture = np.zeros((48, 64, 3), np.uint8)
    sink = LoopbackSink("/dev/video10", (64, 48))
    device.error = errno.ENODEV
    with pytest.raises(SinkError, match="is not there any more"):
        sink.write(frame_of(picture))
    sink.finish()
    sink.abort()
    with pytest.raises(SinkError, match="after it was closed"):
        sink.write(frame_of(picture))
