"""The virtual camera as a second output: opened when wanted, closed when not, its failure told."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from rt_swap.errors import RtSwapError
from rt_swap.frames import U8
from rt_swap.io.pixels import scaled

logger = logging.getLogger(__name__)

_FPS: Final = 30.0
_HOW: Final = {
    "linux": "load v4l2loopback first: sudo modprobe v4l2loopback exclusive_caps=1",
    "win32": "install OBS Studio, which brings the virtual camera",
    "darwin": "install OBS Studio and start its virtual camera once",
}


class VirtualCamera(Protocol):
    """A device that other programs see as a camera."""

    @property
    def device(self) -> str:
        """Its name, as other programs list it."""
        ...

    def send(self, picture_rgb: U8) -> None:
        """Show a picture, (H, W, 3) uint8 RGB of the size it was opened with."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


OpenCamera = Callable[[int, int], VirtualCamera]
"""(width, height) -> an open device."""


def open_camera(width: int, height: int) -> VirtualCamera:
    """The system's virtual camera.

    Raises:
        RuntimeError: If there is none.
    """
    import pyvirtualcam

    camera: VirtualCamera = pyvirtualcam.Camera(width=width, height=height, fps=_FPS)
    return camera


def why_not() -> str | None:
    """Why there can be no virtual camera here, or None where there may be one."""
    if importlib.util.find_spec("pyvirtualcam") is None:
        return "needs pyvirtualcam: pip install 'rt-swap[live]'"
    if sys.platform.startswith("linux"):
        from pathlib import Path

        if not any(
            "loopback" in _text(name) or "Dummy" in _text(name)
            for name in Path("/sys/class/video4linux").glob("*/name")
        ) and not any(Path("/sys/devices/virtual/video4linux").glob("video*")):
            return _HOW["linux"]
    return None


def _text(path: object) -> str:
    try:
        with open(str(path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


class Outputs:
    """Sends pictures to the virtual camera while that is wanted.

    ``send`` and ``close`` belong to the frames' thread; the rest to any.

    Args:
        open_: Opens the device.
        available: Says why there is none, or None.
    """

    def __init__(
        self, open_: OpenCamera = open_camera, available: Callable[[], str | None] = why_not
    ) -> None:
        self._open, self._available = open_, available
        self._lock = threading.Lock()
        self._camera: VirtualCamera | None = None
        self._size_wh = (0, 0)
        self._error = ""
        self._device = ""

    def as_json(self) -> dict[str, object]:
        """Whether there is one, why not, and which is in use."""
        reason = self._available()
        with self._lock:
            return {
                "available": reason is None,
                "reason": reason or "",
                "device": self._device,
                "error": self._error,
            }

    def forget_error(self) -> None:
        """Try again."""
        with self._lock:
            self._error = ""

    def send(self, picture_bgr: U8, wanted: bool) -> None:
        """Show a picture there, where that is wanted; its size is fixed by the first."""
        if not wanted or self._error:
            self.close()
            return
        height, width = picture_bgr.shape[:2]
        try:
            if self._camera is None:
                self._camera = self._open(width, height)
                self._size_wh = (width, height)
                with self._lock:
                    self._device = self._camera.device
                logger.info("the virtual camera is %s, %dx%d", self._device, width, height)
            fitting = scaled(picture_bgr, self._size_wh)
            self._camera.send(np.ascontiguousarray(fitting[:, :, ::-1]))
        except (RuntimeError, OSError, ValueError, RtSwapError) as error:
            how = _HOW.get("linux" if sys.platform.startswith("linux") else sys.platform, "")
            with self._lock:
                self._error = f"{' '.join(str(error).split())}{'; ' + how if how else ''}"
            logger.warning("the virtual camera cannot be used: %s", self._error)
            self.close()

    def close(self) -> None:
        """Release the device; harmless when done twice."""
        camera, self._camera = self._camera, None
        with self._lock:
            self._device = ""
        if camera is not None:
            camera.close()
