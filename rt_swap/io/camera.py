"""Cameras by OpenCV: V4L2 on Linux, DirectShow or Media Foundation on Windows, AVFoundation on
macOS.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap.errors import SourceError
from rt_swap.io.capture import CaptureInfo, Picture

logger = logging.getLogger(__name__)

SYSFS: Final = Path("/sys/class/video4linux")
_MAX_INDEX: Final = 10
_OPENING_S: Final = 4.0
"""How long a camera may take to its first picture."""
_STALE_S: Final = 2.0
"""A driver's time stamp that is older counts as one of another clock."""
_MJPG_FROM_PX: Final = 640 * 480
"""Larger pictures do not fit through USB 2 uncompressed at 30 a second."""


@dataclass(frozen=True)
class CameraDevice:
    """A camera of this machine.

    Attributes:
        index: What OpenCV calls it.
        path: Its device file; "" where there is none.
        name: What its driver calls it.
        is_virtual: Made by software, as v4l2loopback's.
        readable: Whether this user may open it.
    """

    index: int
    path: str
    name: str
    is_virtual: bool
    readable: bool


def list_cameras(sysfs: Path = SYSFS, dev: Path = Path("/dev")) -> list[CameraDevice]:
    """Cameras that Linux knows, in order of their numbers; empty elsewhere.

    Device nodes that carry metadata only are left out.

    Args:
        sysfs: Where the kernel lists video devices.
        dev: Where their files are.
    """
    found = []
    for folder in sysfs.glob("video*"):
        number = re.fullmatch(r"video(\d+)", folder.name)
        if number is None or _read(folder / "index", "0") != "0":
            continue
        path = dev / folder.name
        found.append(
            CameraDevice(
                index=int(number[1]),
                path=str(path),
                name=_read(folder / "name", folder.name),
                is_virtual="/virtual/" in str(folder.resolve()),
                readable=os.access(path, os.R_OK | os.W_OK),
            )
        )
    return sorted(found, key=lambda device: device.index)


def find_camera(wanted: str, cameras: list[CameraDevice]) -> CameraDevice | None:
    """A camera by number, device file, or part of its name.

    Args:
        wanted: As "0", "/dev/video0", "Logitech".
        cameras: Of this machine.

    Returns:
        None where a number or device file is not listed (it may exist all the same).

    Raises:
        SourceError: If a name fits none or several; says which there are.
    """
    if wanted.isdecimal():
        return next((c for c in cameras if c.index == int(wanted)), None)
    if wanted.startswith("/"):
        return next((c for c in cameras if c.path == wanted), None)
    fits = [c for c in cameras if wanted.casefold() in c.name.casefold()]
    exact = [c for c in fits if c.name.casefold() == wanted.casefold()]
    fits = exact or fits
    listed = ", ".join(f"{c.index} ({c.name})" for c in cameras) or "none at all"
    if not fits:
        raise SourceError(
            f"camera {wanted!r}: there is no file and no camera of that name; there are: {listed}"
        )
    if len(fits) > 1:
        raise SourceError(f"camera {wanted!r}: fits {len(fits)} cameras; give a number: {listed}")
    return fits[0]


class CameraCapture:
    """A camera.

    Args:
        wanted: Number, device file (Linux) or part of the name (Linux).
        size_wh: Size to ask for; the driver may choose another one.
        rate_hz: Rate to ask for.
        mjpg: Ask for motion JPEG, which lets USB cameras keep their rate; None asks where the
            pictures are large.

    Raises:
        SourceError: If it is not there, in use, not allowed, or gives no picture.
    """

    def __init__(
        self,
        wanted: str | int = 0,
        *,
        size_wh: tuple[int, int] = (1280, 720),
        rate_hz: float = 30.0,
        mjpg: bool | None = None,
    ) -> None:
        self._lock = threading.Lock()  # release() while read() runs crashes some drivers
        self._closed = False
        self._device: Any = None
        self._waiting: Picture | None = None
        cameras = list_cameras()
        text = str(wanted)
        device = find_camera(text, cameras)
        index = device.index if device is not None else _index_of(text)
        self._who = f"camera {index}" + (f" ({device.name})" if device is not None else "")
        _check_there(index, device, cameras)
        if mjpg is None:
            mjpg = size_wh[0] * size_wh[1] > _MJPG_FROM_PX
        # a camera that says it can do MJPG and then gives nothing is asked for its own format
        for fourcc in ("MJPG", None) if mjpg else (None,):
            opened = self._open(index, size_wh, rate_hz, fourcc)
            first = self._first(opened) if opened is not None else None
            if first is not None:
                self._device, self._waiting = opened, first
                break
            if opened is not None:
                opened.release()
        else:
            raise SourceError(
                f"{self._who}: gives no picture; another program may be using it, or its plug is"
                " loose. Close what uses it, plug it in again, or choose another one (rt-swap"
                " doctor lists them)"
            )
        height, width = first.frame_bgr.shape[:2]
        self._info = CaptureInfo(
            name=device.name if device is not None else f"camera {index}",
            width=width,
            height=height,
            rate_hz=max(float(self._get("CAP_PROP_FPS")), 0.0),
            format=_fourcc_text(int(self._get("CAP_PROP_FOURCC"))),
        )
        if (width, height) != size_wh:
            logger.info("%s: gives %dx%d instead of %dx%d", self._who, width, height, *size_wh)

    @property
    def info(self) -> CaptureInfo:
        """What was opened."""
        return self._info

    def read(self) -> Picture | None:
        """The next picture.

        Raises:
            SourceError: If none comes: unplugged, asleep, or closed.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            return waiting
        with self._lock:
            picture = None if self._closed else self._grab(self._device)
        if picture is None:
            raise SourceError(f"{self._who}: gives no more pictures; is it still plugged in?")
        return picture

    def close(self) -> None:
        """Release the device; harmless when done twice."""
        self._closed = True
        with self._lock:
            device, self._device = self._device, None
            if device is not None:
                device.release()

    # --- by OpenCV ---
    def _open(
        self, index: int, size_wh: tuple[int, int], rate_hz: float, fourcc: str | None
    ) -> Any:
        # how long OpenCV's V4L2 reader waits for a picture, seconds; read at the first opening
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
        import cv2

        for api in _backends(cv2):
            device = cv2.VideoCapture(index, api)
            if not device.isOpened():
                device.release()
                continue
            if fourcc is not None:
                device.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
            device.set(cv2.CAP_PROP_FRAME_WIDTH, size_wh[0])
            device.set(cv2.CAP_PROP_FRAME_HEIGHT, size_wh[1])
            device.set(cv2.CAP_PROP_FPS, rate_hz)
            device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            return device
        return None

    def _first(self, device: Any) -> Picture | None:
        end_s = time.perf_counter() + _OPENING_S
        while True:
            picture = self._grab(device)
            if picture is not None or time.perf_counter() > end_s:
                return picture
            time.sleep(0.05)

    def _grab(self, device: Any) -> Picture | None:
        import cv2

        done, frame_bgr = device.read()
        now = time.perf_counter()
        if not done or frame_bgr is None or frame_bgr.ndim != 3:
            return None
        captured_s = now
        if sys.platform == "linux":
            # V4L2 stamps pictures by the monotonic clock, which perf_counter shows, too
            stamp_s = float(device.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
            if now - _STALE_S < stamp_s <= now:
                captured_s = stamp_s
        return Picture(np.ascontiguousarray(frame_bgr, np.uint8), captured_s)

    def _get(self, name: str) -> float:
        import cv2

        return float(self._device.get(getattr(cv2, name)))


def _backends(cv2: Any) -> tuple[int, ...]:
    known: dict[str, tuple[int, ...]] = {
        "linux": (cv2.CAP_V4L2,),
        "win32": (cv2.CAP_DSHOW, cv2.CAP_MSMF),
        "darwin": (cv2.CAP_AVFOUNDATION,),
    }
    return known.get(sys.platform, (cv2.CAP_ANY,))


def _index_of(text: str) -> int:
    if text.isdecimal():
        return int(text)
    number = re.fullmatch(r"/dev/video(\d+)", text)
    if number is None and text.startswith("/"):  # as /dev/v4l/by-id/...
        number = re.fullmatch(r"/dev/video(\d+)", str(Path(text).resolve()))
    if number is None:
        raise SourceError(f"camera {text!r}: there is no such camera; give its number, as 0")
    return int(number[1])


def _check_there(index: int, device: CameraDevice | None, cameras: list[CameraDevice]) -> None:
    """Say what is wrong before OpenCV says nothing."""
    if sys.platform != "linux":
        return
    path = Path(f"/dev/video{index}")
    listed = ", ".join(f"{c.index} ({c.name})" for c in cameras)
    if not path.exists():
        there = f"there are: {listed}" if listed else "no camera is plugged in"
        raise SourceError(f"camera {index}: there is no {path}; {there}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(
            f"camera {index}: {path} may not be opened by this user; add yourself to the group"
            " video (sudo usermod -aG video $USER) and log in again"
        )
    if device is not None and device.is_virtual:
        logger.info("camera %d (%s) is a virtual one", index, device.name)


def _fourcc_text(code: int) -> str:
    text = "".join(chr((code >> (8 * k)) & 0xFF) for k in range(4))
    return text if text.isprintable() and text.strip() else ""


def _read(path: Path, default: str) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return default
