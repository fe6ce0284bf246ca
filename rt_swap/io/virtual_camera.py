"""A virtual camera by pyvirtualcam: OBS's on Windows and macOS, v4l2loopback on Linux."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rt_swap.errors import ConfigError, SinkError
from rt_swap.frames import Frame
from rt_swap.io.base import FrameSink
from rt_swap.io.slate import fitted
from rt_swap.io.v4l2 import LoopbackSink

WAYS = ("auto", "v4l2", "pyvirtualcam")
"""How a virtual camera may be written to."""


class PyVirtualCamSink:
    """Pictures to pyvirtualcam.

    Its size is fixed while it is open: pictures of another one are scaled to lie inside it.

    Args:
        device: Its name, as pyvirtualcam takes it; None for the first.
        size_wh: Of the virtual camera.
        rate_hz: Nominal rate, which some programs show.

    Raises:
        SinkError: If pyvirtualcam is not installed or finds no virtual camera.
    """

    def __init__(self, device: str | None, size_wh: tuple[int, int], rate_hz: float) -> None:
        try:
            import pyvirtualcam
        except ImportError as exc:
            raise SinkError(
                "virtual camera: pyvirtualcam is not installed; pip install 'rt-swap[live]'"
            ) from exc
        self.size_wh = size_wh[0] // 2 * 2, size_wh[1] // 2 * 2
        self.frames = 0
        try:
            self._camera: Any = pyvirtualcam.Camera(
                *self.size_wh, rate_hz, fmt=pyvirtualcam.PixelFormat.BGR, device=device
            )
        except (RuntimeError, ValueError, OSError) as exc:
            raise SinkError(f"virtual camera: {exc}{_hint()}") from exc
        self.name = str(self._camera.device)

    def write(self, frame: Frame) -> None:
        """Show one picture.

        Raises:
            SinkError: If the device is gone.
        """
        if self._camera is None:
            raise SinkError(f"virtual camera {self.name}: a picture came after it was closed")
        try:
            self._camera.send(fitted(frame.frame_bgr, self.size_wh))
        except (RuntimeError, ValueError, OSError) as exc:
            raise SinkError(f"virtual camera {self.name}: {exc}") from exc
        self.frames += 1

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Close the device."""
        self.abort()

    def abort(self) -> None:
        """Close the device; harmless when done twice."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()

    def __enter__(self) -> PyVirtualCamSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


def open_virtual_camera(
    device: str | None, size_wh: tuple[int, int], rate_hz: float, *, by: str = "auto"
) -> FrameSink:
    """Open a virtual camera.

    Args:
        device: Device file or name; None for the first.
        size_wh: Its size.
        rate_hz: Nominal rate.
        by: "v4l2" (written to directly, Linux), "pyvirtualcam", or "auto": v4l2 on Linux, and
            pyvirtualcam elsewhere.

    Raises:
        SinkError: If there is none; says what to do.
        ConfigError: If there is no such way.
    """
    if by not in WAYS:
        raise ConfigError(f"--virtual-cam-by: must be one of {', '.join(WAYS)}, got {by!r}")
    platform: str = sys.platform
    if by == "v4l2" or (by == "auto" and platform == "linux"):
        return LoopbackSink(device, size_wh)
    return PyVirtualCamSink(device, size_wh, rate_hz)


def _hint() -> str:
    obs = "; install OBS Studio (obsproject.com) and start its virtual camera once, then close OBS"
    return {"linux": ""}.get(sys.platform, obs)
