"""The element itself: a filter on BGR pictures that works in place. Import it after
:func:`rt_swap.gst.load`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GLib, GObject, Gst, GstBase, GstVideo  # noqa: E402

from rt_swap.config import BADGES, MODES, ON_LOST  # noqa: E402
from rt_swap.errors import ConfigError, RtSwapError, in_one_line  # noqa: E402

if TYPE_CHECKING:
    from rt_swap.frames import U8, Expression, FrameResult
    from rt_swap.live.engine import LiveEngine
    from rt_swap.provenance.marker import Marker
    from rt_swap.swapper import Swapper

logger = logging.getLogger(__name__)

ELEMENT_NAME: Final = "rtswap"
STATS_NAME: Final = "rtswap-stats"
"""Name of the structure of the element messages that carry statistics."""

_CAPS: Final = "video/x-raw, format=(string)BGR, width=(int)[1, 16384], height=(int)[1, 16384]"
_DEFAULT_LATENCY_MS: Final = 40
_LATENCY_SAMPLES: Final = 120
_NANOSECONDS: Final = Fraction(1, Gst.SECOND)

# GstParamFlags, which introspection does not offer as GObject's
_MUTABLE_READY: Final = 1 << (GObject.PARAM_USER_SHIFT + 2)
_MUTABLE_PLAYING: Final = 1 << (GObject.PARAM_USER_SHIFT + 4)
_READWRITE: Final = int(GObject.ParamFlags.READWRITE)
_LIVE: Final = GObject.ParamFlags(_READWRITE | _MUTABLE_PLAYING)
_BEFORE: Final = GObject.ParamFlags(_READWRITE | _MUTABLE_READY)
_TOLD: Final = GObject.ParamFlags.READABLE

_PROPERTIES: Final[dict[str, tuple[Any, ...]]] = {
    # name: (type, nick, blurb, [least, most,] default, flags)
    "preset": (
        str,
        "Preset",
        "Named expression to give, as smile; empty for none (source comes first)",
        "",
        _LIVE,
    ),
    "source": (
        str,
        "Source",
        "File that gives the expression: a picture, a clip (looped), or a saved expression;"
        " encoded in the background",
        "",
        _LIVE,
    ),
    "gains": (
        str,
        "Gains",
        "How much of each part comes from the source, 0 to 2, as brows=0.5,mouth=1; empty is 1",
        "",
        _LIVE,
    ),
    "mode": (
        str,
        "Mode",
        f"How the expression is given: {' or '.join(MODES)}",
        "absolute",
        _LIVE,
    ),
    "on-lost": (
        str,
        "On lost",
        "What is shown while no face is there: hold, passthrough, blur or slate",
        "hold",
        _LIVE,
    ),
    "transition": (
        float,
        "Transition",
        "Seconds that one expression takes to turn into another",
        0.0,
        10.0,
        0.25,
        _LIVE,
    ),
    "enabled": (
        bool,
        "Enabled",
        "Whether anything is done; when false, buffers pass untouched and unmarked",
        True,
        _LIVE,
    ),
    "keep-speech": (
        bool,
        "Keep speech",
        "Whether what the mouth does in speaking stays the target's own",
        False,
        _LIVE,
    ),
    "keep-blink": (bool, "Keep blink", "Whether blinking stays the target's own", True, _LIVE),
    "badge": (
        str,
        "Badge",
        f"Corner of the visible mark: {', '.join(BADGES)}",
        "bottom-right",
        _LIVE,
    ),
    "watermark": (
        bool,
        "Watermark",
        "Whether the pixels of altered faces are marked imperceptibly",
        True,
        _BEFORE,
    ),
    "model": (str, "Model", "Folder of a model bundle; empty takes the installed one", "", _BEFORE),
    "backend": (str, "Backend", "What runs the networks, as onnxruntime", "auto", _BEFORE),
    "threads": (int, "Threads", "CPU threads per network run; 0 chooses", 0, 256, 0, _BEFORE),
    "target-face": (
        str,
        "Target face",
        "Whose face is altered: largest, or a number from the left, from 0",
        "largest",
        _BEFORE,
    ),
    "stats-interval": (
        int,
        "Statistics interval",
        f"Milliseconds between element messages {STATS_NAME}; 0 posts none",
        0,
        3_600_000,
        1000,
        _LIVE,
    ),
    "latency": (
        int,
        "Latency",
        "Milliseconds that the element tells the pipeline it needs per buffer",
        0,
        60_000,
        _DEFAULT_LATENCY_MS,
        _TOLD,
    ),
    "face-found": (bool, "Face found", "Whether the last buffer showed a face", False, _TOLD),
}


class RtSwap(GstBase.BaseTransform):  # type: ignore[misc]
    """Gives the face in a stream of BGR pictures another expression, in place."""

    __gtype_name__ = "GstRtSwap"
    __gstmetadata__ = (
        "Facial expression transfer",
        "Filter/Effect/Video",
        "Gives the person in the video somebody else's facial expression and marks what it altered",
        "The rt_swap authors",
    )
    __gsttemplates__ = (
        Gst.PadTemplate.new(
            "sink", Gst.PadDirection.SINK, Gst.PadPresence.ALWAYS, Gst.Caps.from_string(_CAPS)
        ),
        Gst.PadTemplate.new(
            "src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, Gst.Caps.from_string(_CAPS)
        ),
    )
    __gproperties__ = _PROPERTIES
    __gsignals__: Final = {
        "calibrate": (
            GObject.SignalFlags.RUN_LAST | GObject.SignalFlags.ACTION,
            None,
            (float,),
        ),
    }

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, Any] = {name: spec[-2] for name, spec in _PROPERTIES.items()}
        self._lock = threading.Lock()
        self._swapper: Swapper | None = None
        self._engine: LiveEngine | None = None
        self._marker: Marker | None = None
        self._info: Any = None
        self._probe = 0
        self._asked = 0  # the number of the newest wish for an expression
        self._encoding: list[threading.Thread] = []
        self._last_pts = -1
        self._spent_ms: deque[float] = deque(maxlen=_LATENCY_SAMPLES)
        self._counts: dict[str, int] = {}
        self._told_s = 0.0
        self._told_frames = 0
        self.set_in_place(True)
        self.set_qos_enabled(True)

    # --- properties ---
    def do_get_property(self, prop: Any) -> Any:
        """The value of a property."""
        return self._values[prop.name]

    def do_set_property(self, prop: Any, value: Any) -> None:
        """Take a property; what is wrong with it is posted as a warning, and the old one stays."""
        name = prop.name
        value = "" if value is None and isinstance(self._values[name], str) else value
        try:
            _check(name, value)
            before, self._values[name] = self._values[name], value
            try:
                self._apply(name)
            except RtSwapError:
                self._values[name] = before
                raise
        except RtSwapError as error:
            self._warn(f"{name}: {error}")

    def _apply(self, name: str) -> None:
        """Hand a property on to what runs."""
        value, engine = self._values[name], self._engine
        if name == "enabled":
            self.set_passthrough(not value)
            self.reconfigure_src()
        if engine is None:
            return
        if name in ("preset", "source"):
            self._choose_expression(wait=False)
        elif name == "gains":
            engine.set_gains(value or None)
        elif name == "mode":
            engine.set_mode(value)
        elif name == "on-lost":
            engine.set_on_lost(value)
        elif name == "transition":
            engine.set_transition_s(value)
        elif name == "keep-speech":
            engine.set_keep_speech(value)
        elif name == "keep-blink":
            engine.set_keep_blink(value)
        elif name == "badge" and self._marker is not None:
            self._marker.corner = value

    def do_calibrate(self, seconds: float) -> None:
        """The action signal: measure the target's resting face over the next seconds."""
        if self._engine is None:
            self._warn("calibrate: nothing runs yet; emit it while playing")
            return
        try:
            self._engine.start_calibration(seconds)
        except RtSwapError as error:
            self._warn(str(error))

    # --- the expression ---
    def _choose_expression(self, *, wait: bool) -> None:
        """Turn to what preset and source say; a file is encoded on a thread of its own.

        Raises:
            RtSwapError: If a preset is unknown; with ``wait``, if a file cannot be used.
        """
        swapper, engine = self._swapper, self._engine
        assert swapper is not None and engine is not None
        with self._lock:
            self._asked += 1
            asked = self._asked
        source, preset = self._values["source"], self._values["preset"]
        if not source:
            engine.set_expression(swapper.preset(preset) if preset else None, name=preset)
            return
        if wait:
            engine.set_expression(swapper.encode_source(source), name=source)
            return

        def encode() -> None:
            try:
                expression: Expression = swapper.encode_source(source)
                with self._lock:
                    if asked == self._asked:  # nobody has asked for another one meanwhile
                        engine.set_expression(expression, name=source)
            except RtSwapError as error:
                self._warn(f"source: {error}")

        thread = threading.Thread(target=encode, name="rtswap source", daemon=True)
        self._encoding = [t for t in self._encoding if t.is_alive()] + [thread]
        thread.start()

    # --- life ---
    def do_start(self) -> bool:
        """Load the model."""
        from rt_swap.live.engine import LiveEngine
        from rt_swap.provenance.marks import Marks
        from rt_swap.swapper import Swapper

        values = self._values
        try:
            self._swapper = Swapper.load(
                values["model"] or None,
                values["backend"],
                threads=values["threads"],
                target_face=values["target-face"],
            )
            self._engine = engine = LiveEngine(
                self._swapper, transition_s=values["transition"], on_lost=values["on-lost"]
            )
            engine.set_gains(values["gains"] or None)
            engine.set_mode(values["mode"])
            engine.set_keep_speech(values["keep-speech"])
            engine.set_keep_blink(values["keep-blink"])
            marks = Marks(badge=values["badge"], watermark=values["watermark"], manifest=False)
            self._marker = self._swapper.marker(marks)
            self._choose_expression(wait=True)
        except RtSwapError as error:
            self._fail(Gst.ResourceError.quark(), Gst.ResourceError.FAILED, str(error))
            self.do_stop()
            return False
        answered = Gst.PadProbeType.QUERY_UPSTREAM | Gst.PadProbeType.PULL
        self._probe = self.get_static_pad("src").add_probe(answered, self._answered)
        self._last_pts, self._told_s, self._told_frames = -1, time.perf_counter(), 0
        self._counts = {}
        self._spent_ms.clear()
        return True

    def do_stop(self) -> bool:
        """Release the model."""
        if self._probe:
            self.get_static_pad("src").remove_probe(self._probe)
            self._probe = 0
        for thread in self._encoding:
            thread.join(30)
        self._encoding = []
        engine, swapper = self._engine, self._swapper
        self._engine = self._swapper = self._marker = None
        if engine is not None:
            engine.close()
        if swapper is not None:
            swapper.close()
        return True

    def do_set_caps(self, incaps: Any, outcaps: Any) -> bool:
        """Learn size and layout of the pictures."""
        self._info = GstVideo.VideoInfo.new_from_caps(incaps)
        return self._info is not None

    # --- pictures ---
    def do_transform_ip(self, buffer: Any) -> Any:
        """Alter one picture where it lies; its time stamps stay."""
        import numpy as np

        engine, marker, info = self._engine, self._marker, self._info
        if engine is None or marker is None or info is None:
            return Gst.FlowReturn.FLUSHING
        if not self._values["enabled"]:  # called all the same, with a buffer not to be written to
            return Gst.FlowReturn.OK
        begin_s = time.perf_counter()
        stride, offset = info.stride[0], info.offset[0]
        meta = GstVideo.buffer_get_video_meta(buffer)
        if meta is not None:
            stride, offset = meta.stride[0], meta.offset[0]
        mapped, where = buffer.map(Gst.MapFlags.READ | Gst.MapFlags.WRITE)
        if not mapped:
            self._fail(
                Gst.StreamError.quark(),
                Gst.StreamError.FAILED,
                "a buffer cannot be written to; put videoconvert before rtswap",
            )
            return Gst.FlowReturn.ERROR
        picture: U8 = np.ndarray(
            (info.height, info.width, 3), np.uint8, where.data, offset, (stride, 3, 1)
        )
        try:
            result = marker.apply(engine.process(self._frame(buffer, picture)))
            np.copyto(picture, result.frame.frame_bgr)
        except Exception as error:  # PyGObject would make OK of it, and the camera's picture leave
            picture[:] = 0
            self._fail(Gst.StreamError.quark(), Gst.StreamError.FAILED, in_one_line(error))
            return Gst.FlowReturn.ERROR
        finally:
            del picture  # it must not outlive the mapping
            buffer.unmap(where)
        self._count(result, (time.perf_counter() - begin_s) * 1e3)
        return Gst.FlowReturn.OK

    def _frame(self, buffer: Any, picture: U8) -> Any:
        """The picture with its time: its own stamp, made to ascend."""
        import numpy as np

        from rt_swap.frames import Frame

        pts = buffer.pts if buffer.pts != Gst.CLOCK_TIME_NONE else self._last_pts + 1
        if pts + Gst.SECOND // 2 < self._last_pts:  # a seek, or a file that begins again
            self._last_pts = -1
            if self._engine is not None and self._marker is not None:
                self._engine.reset()
                self._marker.reset()
        pts = max(pts, self._last_pts + 1) if pts <= self._last_pts else pts
        self._last_pts = pts
        now_s = time.perf_counter()
        captured_s = now_s
        clock = self.get_clock()
        if clock is not None and buffer.pts != Gst.CLOCK_TIME_NONE:
            running = self.segment.to_running_time(Gst.Format.TIME, buffer.pts)
            if running != Gst.CLOCK_TIME_NONE:
                late = (clock.get_time() - self.get_base_time() - running) / Gst.SECOND
                captured_s = now_s - max(late, 0.0)
        return Frame(np.ascontiguousarray(picture), pts, _NANOSECONDS, captured_s)

    # --- latency ---
    def _answered(self, pad: Any, info: Any) -> Any:
        """Probe on answered queries: to upstream's latency is added what is spent here.

        (PyGObject cannot override ``do_query``, which two base classes have.)
        """
        query = info.get_query()
        if query is not None and query.type == Gst.QueryType.LATENCY and self._values["enabled"]:
            live, least, most = query.parse_latency()
            own, none = self._values["latency"] * Gst.MSECOND, Gst.CLOCK_TIME_NONE
            query.set_latency(live, least + own, most if most == none else most + own)
        return Gst.PadProbeReturn.OK

    def _count(self, result: FrameResult, spent_ms: float) -> None:
        """Add a picture to the statistics; tell latency and statistics where it is time."""
        counts, spent = self._counts, self._spent_ms
        counts[result.status.value] = counts.get(result.status.value, 0) + 1
        found = result.crop is not None
        self._values["face-found"] = found
        spent.append(spent_ms)
        ordered = sorted(spent)
        p95 = ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)]
        # the first pictures load and warm up, and are no reason to slow all others
        if len(ordered) >= 30 and p95 > self._values["latency"]:
            self._values["latency"] = min(int(p95 * 1.25) + 1, 60_000)
            self.notify("latency")
            self.post_message(Gst.Message.new_latency(self))
        interval_s = self._values["stats-interval"] / 1e3
        now_s = time.perf_counter()
        if interval_s <= 0 or now_s - self._told_s < interval_s:
            return
        frames = sum(counts.values())
        told = Gst.Structure.new_empty(STATS_NAME)
        engine = self._engine
        values: dict[str, Any] = {
            "frames": frames,
            "swapped": counts.get("swapped", 0),
            "held": counts.get("held", 0),
            "no-face": counts.get("no_face", 0),
            "fps": (frames - self._told_frames) / (now_s - self._told_s),
            "process-ms-p50": ordered[len(ordered) // 2],
            "process-ms-p95": p95,
            "age-ms": engine.state.age_ms if engine is not None else 0.0,
            "face-found": found,
            "expression": engine.state.expression if engine is not None else "",
        }
        for name, value in values.items():
            told.set_value(name, value)
        self._told_s, self._told_frames = now_s, frames
        self.post_message(Gst.Message.new_element(self, told))

    # --- telling ---
    def _warn(self, text: str) -> None:
        logger.warning("%s", text)
        error = GLib.Error.new_literal(Gst.LibraryError.quark(), text, Gst.LibraryError.SETTINGS)
        self.post_message(Gst.Message.new_warning(self, error, text))

    def _fail(self, domain: int, code: Any, text: str) -> None:
        error = GLib.Error.new_literal(domain, text, code)
        self.post_message(Gst.Message.new_error(self, error, text))


_CHOICES: Final = {"mode": MODES, "on-lost": (*ON_LOST, "slate"), "badge": BADGES}


def _check(name: str, value: Any) -> None:
    """Refuse what is none of a property's values.

    Raises:
        ConfigError: Naming them.
    """
    choices = _CHOICES.get(name)
    if choices is not None and value not in choices:
        raise ConfigError(f"must be one of {', '.join(choices)}, got {value!r}")
    if name == "gains" and value:
        from rt_swap.expression import parse_gains

        parse_gains(value)


def register_element() -> None:
    """Register the element in this process; harmless when done twice."""
    if Gst.ElementFactory.find(ELEMENT_NAME) is None:
        Gst.Element.register(None, ELEMENT_NAME, Gst.Rank.NONE, RtSwap)
