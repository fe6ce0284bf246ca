"""Opens whatever a user names as a camera."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from rt_swap.errors import SourceError
from rt_swap.io.camera import CameraCapture, list_cameras
from rt_swap.io.capture import Capture
from rt_swap.io.gstreamer import GStreamerCapture, csi_pipeline, csi_sensor
from rt_swap.io.network import NetworkCapture, device_formats, is_network
from rt_swap.io.paced import PacedFile

OpenCapture = Callable[[], Capture]

_GST_PREFIXES = ("gst:", "gstreamer:")


def open_capture(
    spec: str,
    *,
    size_wh: tuple[int, int] = (1280, 720),
    rate_hz: float = 30.0,
    loop: bool = True,
) -> Capture:
    """Open a camera, file or stream.

    Args:
        spec: A camera's number ("0"), device file ("/dev/video0") or name ("Logitech"); a video
            file, played in real time; an address (rtsp://, http://, ...); "csi://0" for a Jetson's
            camera port; or "gst:" and a GStreamer pipeline without a sink.
        size_wh: Size to ask a camera for.
        rate_hz: Rate to ask a camera for.
        loop: Begin a file again at its end.

    Raises:
        SourceError: If it cannot be opened; says why and what to do.
        ConfigError: If the text is malformed.
    """
    spec = spec.strip()
    for prefix in _GST_PREFIXES:
        if spec.startswith(prefix):
            return GStreamerCapture(spec[len(prefix) :].strip())
    sensor = csi_sensor(spec)
    if sensor is not None:
        return GStreamerCapture(csi_pipeline(sensor, size_wh, rate_hz), name=f"csi://{sensor}")
    if is_network(spec):
        return NetworkCapture(spec)
    if not spec.isdecimal() and not spec.startswith("/dev/") and Path(spec).is_file():
        return PacedFile(spec, loop=loop)
    if not spec:
        raise SourceError("camera: give a number, a name, a file or an address, not an empty text")
    if not spec.isdecimal() and not spec.startswith("/") and sys.platform != "linux":
        return _by_name(spec, size_wh, rate_hz)
    if "/" in spec and not spec.startswith("/dev/"):
        raise SourceError(f"{spec}: there is no such file; check the spelling")
    return CameraCapture(spec, size_wh=size_wh, rate_hz=rate_hz)


def _by_name(name: str, size_wh: tuple[int, int], rate_hz: float) -> Capture:
    """A camera by name where OpenCV knows numbers only: by FFmpeg's device layer."""
    kind = "dshow" if sys.platform == "win32" else "avfoundation"
    if kind not in device_formats():
        raise SourceError(
            f"camera {name!r}: this PyAV cannot find cameras by name; give its number, as 0"
        )
    options = {"video_size": f"{size_wh[0]}x{size_wh[1]}", "framerate": f"{rate_hz:g}"}
    return NetworkCapture(
        f"video={name}" if kind == "dshow" else name, options=options, device_format=kind
    )


def cameras_in_words() -> str:
    """The cameras of this machine in one line."""
    return ", ".join(f"{c.index} ({c.name})" for c in list_cameras()) or "none"
