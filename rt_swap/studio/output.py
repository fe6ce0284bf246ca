"""The virtual camera as a second output: opened when wanted, closed when not, its failure told."""

from __future__ import annotations

import importlib.util
import logging
import platform
import threading
import time
from collections.abc import Callable
from typing import Final

from rt_swap.errors import RtSwapError, SinkError
from rt_swap.frames import Frame
from rt_swap.io.base import FrameSink

logger = logging.getLogger(__name__)

_RATE_HZ: Final = 30.0
RETRY_S: Final = 2.0

OpenCamera = Callable[[tuple[int, int]], FrameSink]
"""(width, height) -> an open device."""


def open_camera(size_wh: tuple[int, int]) -> FrameSink:
    """The system's first virtual camera.

    Raises:
        SinkError: If there is none; says what to do.
    """
    from rt_swap.io.virtual_camera import open_virtual_camera

    return open_virtual_camera(None, size_wh, _RATE_HZ)


def why_not() -> str:
    """Why there can be no virtual camera here; empty where there may be one."""
    if platform.system() == "Linux":
        from rt_swap.io.v4l2 import find_loopback

        try:
            find_loopback(None)
        except SinkError as error:
            return " ".join(str(error).split()).removeprefix("virtual camera: ")
        return ""
    if importlib.util.find_spec("pyvirtualcam") is None:
        return "needs pyvirtualcam: pip install 'rt-swap[live]'"
    return ""


class Outputs:
    """Sends pictures to the virtual camera while that is wanted.

    ``send`` and ``close`` belong to the frames' thread; the rest to any.

    Args:
        open_: Opens the device.
        why_not: Says why there is none, or "".
        clock: Seconds.
    """

    def __init__(
        self,
        open_: OpenCamera = open_camera,
        why_not: Callable[[], str] = why_not,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open, self._why_not, self._clock = open_, why_not, clock
        self._again_s = 0.0
        self._lock = threading.Lock()
        self._sink: FrameSink | None = None
        self._error = ""
        self._device = ""

    def as_json(self) -> dict[str, object]:
        """Whether there is one, why not, which is in use and what went wrong with it."""
        # while it is written to, others may be told that it is taken
        reason = "" if self._device else self._why_not()
        with self._lock:
            return {
                "available": not reason,
                "reason": reason,
                "device": self._device,
                "error": self._error,
            }

    @property
    def device(self) -> str:
        """The device in use; "" for none."""
        return self._device

    @property
    def error(self) -> str:
        """Why the device that is wanted cannot be used, or ""."""
        return self._error

    def forget_error(self) -> None:
        """Try again."""
        with self._lock:
            self._error = ""

    def send(self, frame: Frame, wanted: bool) -> None:
        """Show a picture there, where that is wanted; the first one fixes the device's size.

        A device that fails is tried again every RETRY_S seconds.
        """
        if not wanted:
            self.close()
            self.forget_error()
            return
        if self._error and self._clock() < self._again_s:
            return
        try:
            if self._sink is None:
                height, width = frame.frame_bgr.shape[:2]
                self._sink = self._open((width, height))
                with self._lock:
                    self._device = str(getattr(self._sink, "name", "the virtual camera"))
                    self._error = ""
                logger.info("the virtual camera is %s, %dx%d", self._device, width, height)
            self._sink.write(frame)
        except RtSwapError as error:
            text = " ".join(str(error).split()).removeprefix("virtual camera: ")
            if text != self._error:
                logger.warning("the virtual camera cannot be used: %s", text)
            with self._lock:
                self._error = text
            self._again_s = self._clock() + RETRY_S
            self.close()

    def close(self) -> None:
        """Release the device; harmless when done twice."""
        sink, self._sink = self._sink, None
        with self._lock:
            self._device = ""
        if sink is not None:
            sink.abort()
