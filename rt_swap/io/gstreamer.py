"""GStreamer pipelines as cameras, by gst-python; and the pipeline of a Jetson's CSI camera."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
import re
import sys
import sysconfig
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap.errors import ConfigError, SourceError
from rt_swap.io.capture import CaptureInfo, Picture

logger = logging.getLogger(__name__)

_SINK_NAME: Final = "rt_swap_sink"
_SINK: Final = (
    f"videoconvert ! video/x-raw,format=BGR ! appsink name={_SINK_NAME} sync=false drop=true"
    " max-buffers=1"
)
_OPEN_NS: Final = 10_000_000_000
_READ_NS: Final = 3_000_000_000
_BUS_NS: Final = 200_000_000
_SYSTEM_FOLDERS: Final = (
    "/usr/lib/python3/dist-packages",
    f"/usr/lib/python3.{sys.version_info[1]}/site-packages",
    f"/usr/lib64/python3.{sys.version_info[1]}/site-packages",
)
INSTALL_HINT: Final = (
    "install it (Debian, Ubuntu: sudo apt install python3-gi gir1.2-gstreamer-1.0"
    " gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good; where the"
    " system's Python is another one, pip install 'PyGObject<3.52')"
)


def csi_pipeline(sensor: int, size_wh: tuple[int, int] = (1280, 720), rate_hz: float = 30.0) -> str:
    """The pipeline of a camera on a Jetson's CSI port, up to raw pictures in system memory.

    Args:
        sensor: Number of the port's sensor, 0 or more.
        size_wh: Size to ask for.
        rate_hz: Rate to ask for.

    Returns:
        A pipeline description without a sink.
    """
    rate = round(rate_hz)
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={size_wh[0]},"
        f"height={size_wh[1]},framerate={rate}/1,format=NV12 ! nvvidconv ! video/x-raw,format=BGRx"
    )


def csi_sensor(spec: str) -> int | None:
    """The sensor's number in ``csi://N``; None where the text is something else.

    Raises:
        ConfigError: If it begins like that but names no number.
    """
    if not spec.lower().startswith("csi://"):
        return None
    number = re.fullmatch(r"csi://(\d+)/?", spec, re.IGNORECASE)
    if number is None:
        raise ConfigError(f"--camera {spec}: write csi://0, where 0 is the sensor's number")
    return int(number[1])


class GStreamerCapture:
    """What a GStreamer pipeline gives.

    Args:
        pipeline: A description as for gst-launch-1.0, without a sink, such as
            "v4l2src ! video/x-raw,width=1280".
        name: What to call it; the pipeline where not given.

    Raises:
        SourceError: If GStreamer is not here, the description is wrong, or no picture comes.
    """

    def __init__(self, pipeline: str, *, name: str | None = None) -> None:
        self._name = name or pipeline
        self._gst: Any = _gstreamer()
        self._pipeline: Any = None
        self._lock = threading.Lock()
        try:
            self._pipeline = self._gst.parse_launch(f"{pipeline} ! {_SINK}")
        except Exception as exc:  # GLib.Error, which lives in the optional library
            raise SourceError(f"GStreamer pipeline {pipeline!r}: {exc}") from exc
        self._sink = self._pipeline.get_by_name(_SINK_NAME)
        if self._pipeline.set_state(self._gst.State.PLAYING) == self._gst.StateChangeReturn.FAILURE:
            reason = self._error() or "it cannot be started"
            self.close()
            raise SourceError(f"GStreamer pipeline {self._name!r}: {reason}")
        self._waiting = self._pull(_OPEN_NS)
        if self._waiting is None:
            reason = self._error() or "no picture came"
            self.close()
            raise SourceError(f"GStreamer pipeline {self._name!r}: {reason}")
        height, width = self._waiting.frame_bgr.shape[:2]
        self._info = CaptureInfo(self._name, width, height, self._rate_hz, "GStreamer")

    @property
    def info(self) -> CaptureInfo:
        """What was opened."""
        return self._info

    def read(self) -> Picture | None:
        """The next picture.

        Raises:
            SourceError: If none comes: an error of the pipeline, or its end.
        """
        waiting, self._waiting = self._waiting, None
        picture = waiting or (self._pull(_READ_NS) if self._pipeline is not None else None)
        if picture is None:
            reason = self._error() or "no more pictures come"
            raise SourceError(f"GStreamer pipeline {self._name!r}: {reason}")
        return picture

    def _pull(self, timeout_ns: int) -> Picture | None:
        sample = self._sink.emit("try-pull-sample", timeout_ns)
        if sample is None:
            return None
        now = time.perf_counter()
        structure = sample.get_caps().get_structure(0)
        width, height = structure.get_value("width"), structure.get_value("height")
        found, numerator, denominator = structure.get_fraction("framerate")
        self._rate_hz = numerator / denominator if found and denominator else 0.0
        buffer = sample.get_buffer()
        mapped, memory = buffer.map(self._gst.MapFlags.READ)
        if not mapped:
            return None
        try:
            # rows of raw video are padded to four bytes
            stride = -(-width * 3 // 4) * 4
            rows = np.frombuffer(memory.data, np.uint8, count=stride * height)
            frame_bgr = rows.reshape(height, stride)[:, : width * 3].reshape(height, width, 3)
            return Picture(np.array(frame_bgr), now)
        finally:
            buffer.unmap(memory)

    def _error(self) -> str | None:
        """What the pipeline says went wrong."""
        kinds = self._gst.MessageType.ERROR | self._gst.MessageType.EOS
        pipeline = self._pipeline
        if pipeline is None:
            return None
        # the sink may know before the bus does
        message = pipeline.get_bus().timed_pop_filtered(_BUS_NS, kinds)
        if message is None:
            return None
        if message.type == self._gst.MessageType.EOS:
            return "the stream ended"
        error, _ = message.parse_error()
        return str(error.message)

    def close(self) -> None:
        """Stop the pipeline; harmless when done twice."""
        with self._lock:
            pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:  # a waiting read is woken by it
            pipeline.set_state(self._gst.State.NULL)


def _gstreamer() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old importers and of overrides, none of it ours
            if importlib.util.find_spec("gi") is None:
                _load_systems_gi()
            import gi

            gi.require_version("Gst", "1.0")
            from gi.repository import Gst
    except (ImportError, ValueError) as exc:
        raise SourceError(f"GStreamer for Python is not here ({exc}); {INSTALL_HINT}") from exc
    if not Gst.is_initialized():
        Gst.init(None)
    return Gst


def _load_systems_gi() -> None:
    """The system's PyGObject, which a virtual environment hides, where it was built for this very
    Python; nothing else of the system's packages comes along.
    """
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ""
    for folder in _SYSTEM_FOLDERS:
        if not (Path(folder) / "gi" / f"_gi{suffix}").is_file():
            continue
        spec = importlib.machinery.PathFinder.find_spec("gi", [folder])
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        sys.modules["gi"] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules["gi"]
            raise
        return
