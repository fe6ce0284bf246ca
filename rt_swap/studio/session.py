"""One live stream on a thread of its own: the newest picture in, the re-expressed one out."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from rt_swap.aus import AU_NAMES
from rt_swap.contract import ENCODER_SPEC
from rt_swap.errors import RtSwapError
from rt_swap.frames import F32, U8, Expression, Frame, FrameStatus
from rt_swap.live.engine import LiveEngine
from rt_swap.pipeline import AuMeter
from rt_swap.provenance.marker import Marker
from rt_swap.provenance.marks import Marks
from rt_swap.stream import EndedError, Handover
from rt_swap.studio.controls import Controls
from rt_swap.studio.gallery import MakeSwapper
from rt_swap.studio.output import Outputs

logger = logging.getLogger(__name__)

CLOCK: Final = Fraction(1, 90_000)
"""RTP's clock of video."""
_READ_EVERY_S: Final = 0.4
"""How often the intensities of the output are read off, seconds: they are for people to look at."""
_WINDOW: Final = 60
_JOIN_S: Final = 5.0


@dataclass(frozen=True)
class Incoming:
    """A picture on its way in.

    Attributes:
        read: Makes it (H, W, 3) uint8 BGR; done on the session's thread, and only for pictures that
            are not replaced by newer ones first.
        pts: Its time in units of CLOCK; ascends.
        arrived_s: ``time.perf_counter()`` when it was there.
    """

    read: Callable[[], U8]
    pts: int
    arrived_s: float


Emit = Callable[[U8, Incoming], None]
"""Takes each picture made, on the session's thread; the array is its own from then on."""


class Session:
    """Owns model, engine and thread of one stream; everything is released by :meth:`close`.

    Args:
        make_swapper: Loads the model, on the session's thread.
        emit: Gets the pictures.
        controls: What is wanted at first.
        expression: The expression chosen at first, or None.
        outputs: Where pictures go besides.
        marks: Of provenance, in every picture that leaves; None leaves them unmarked.
        on_portrait: Gets one picture that shows a face, early on; None where nobody wants it.
        on_end: Called once at the very end, on the session's thread, with what went wrong or "".
    """

    def __init__(
        self,
        make_swapper: MakeSwapper,
        emit: Emit,
        controls: Controls,
        expression: Expression | None,
        outputs: Outputs,
        *,
        marks: Marks | None = None,
        on_portrait: Callable[[U8], None] | None = None,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        self._make_swapper, self._emit, self._outputs = make_swapper, emit, outputs
        self._on_portrait, self._on_end, self._marks = on_portrait, on_end, marks
        self._lock = threading.Lock()
        self._wanted: tuple[Controls, Expression | None] = (controls, expression)
        self._applied: Expression | None = None
        self._engine: LiveEngine | None = None
        self._slot = Handover[Incoming](1, newest_wins=True)
        self._own: F32 | None = None
        self._shown: F32 | None = None
        self._phase, self._error = "loading", ""
        self._ages_ms: deque[float] = deque(maxlen=_WINDOW)
        self._emitted_s: deque[float] = deque(maxlen=_WINDOW)
        self._stage_ms: dict[str, float] = {}
        self._offered = 0
        self._size_wh = (0, 0)
        self._portrait_asked = False
        self._swapped_once = False
        self._slate = False
        self._thread = threading.Thread(target=self._run, name="rt_swap studio live", daemon=True)
        self._thread.start()

    # --- from any thread ---
    def offer(self, incoming: Incoming) -> None:
        """Hand a picture in; it replaces one that still waits."""
        self._offered += 1
        with contextlib.suppress(EndedError):
            self._slot.put(incoming)

    def apply(self, controls: Controls, expression: Expression | None) -> None:
        """Change what is wanted.

        Raises:
            RtSwapError: If the engine refuses it.
        """
        with self._lock:
            self._wanted = (controls, expression)
            if self._engine is not None:
                self._configure(self._engine)

    def calibrate(self, seconds: float) -> bool:
        """Begin to measure the resting face.

        Returns:
            Whether there is a stream to measure it in.

        Raises:
            ConfigError: If the time is out of range.
        """
        with self._lock:
            if self._engine is None:
                return False
            self._engine.start_calibration(seconds)
            return True

    def ask_portrait(self) -> None:
        """Have ``on_portrait`` called with the next picture that shows a face."""
        self._portrait_asked = True

    def sent(self, incoming: Incoming, send_ms: float) -> None:
        """Tell that a picture has been sent to the browser.

        Args:
            incoming: What it was made from.
            send_ms: How long encoding and sending took.
        """
        now = time.perf_counter()
        with self._lock:
            self._smooth("send", send_ms)
            self._ages_ms.append((now - incoming.arrived_s) * 1e3)
            self._emitted_s.append(now)

    def stats(self) -> dict[str, Any]:
        """What the page shows while the stream runs: plain values."""
        with self._lock:
            engine = self._engine
            ages, emitted = list(self._ages_ms), list(self._emitted_s)
            own, shown, stage_ms = self._own, self._shown, dict(self._stage_ms)
            phase, error = self._phase, self._error
        values: dict[str, Any] = {
            "phase": phase,
            "error": error,
            "slate": self._slate,
            "age_ms": round(float(np.median(ages)), 1) if ages else None,
            "fps": _rate(emitted),
            "dropped": self._slot.dropped,
            "offered": self._offered,
            "size": list(self._size_wh),
            "stage_ms": {name: round(ms, 2) for name, ms in stage_ms.items()},
            "own": _by_name(own),
            "shown": _by_name(shown),
            "output_device": self._outputs.device,
            "output_error": self._outputs.error,
        }
        if engine is not None:
            state = engine.state
            values |= {
                "face": state.face_found,
                "calibrated": state.calibrated,
                "neutral_origin": state.neutral_origin,
                "calibrating_left_s": round(state.calibrating_left_s, 2),
                "calibration_message": state.calibration_message,
                "calibrations": state.calibrations,
                "message": state.message,
            }
        return values

    def close(self) -> None:
        """End the stream and wait until all is released; harmless when done twice."""
        self._slot.abandon()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)

    def _smooth(self, name: str, ms: float) -> None:
        self._stage_ms[name] = 0.85 * self._stage_ms.get(name, ms) + 0.15 * ms

    # --- the session's thread ---
    def _run(self) -> None:
        error = ""
        try:
            with self._make_swapper() as swapper, LiveEngine(swapper) as engine:
                encoder = swapper.backend.load(swapper.bundle.encoder_path, ENCODER_SPEC, 1)
                try:
                    with self._lock:
                        self._configure(engine)
                        self._engine, self._phase = engine, "live"
                    marker = None if self._marks is None else swapper.marker(self._marks)
                    self._frames(engine, AuMeter(encoder, 1), marker)
                finally:
                    with self._lock:
                        self._engine = None
                    encoder.close()
        except EndedError:
            pass
        except RtSwapError as exc:
            error = " ".join(str(exc).split())
            logger.warning("the live stream ended: %s", error)
        except Exception as exc:  # a stream may fail; the page goes on and says so
            logger.exception("the live stream failed")
            error = f"{type(exc).__name__}: {exc}"
        finally:
            self._slot.abandon()
            self._outputs.close()
            with self._lock:
                self._phase, self._error = "ended", error
            if self._on_end is not None:
                self._on_end(error)

    def _shows_slate(self) -> bool:
        """Whether what is shown without a face has text on it."""
        controls, expression = self._wanted
        without = controls.on_lost == "hold" and not self._swapped_once
        return expression is not None and (controls.on_lost == "slate" or without)

    def _configure(self, engine: LiveEngine) -> None:
        """Hand what is wanted on; a clip goes on where it is unless another one was chosen."""
        controls, expression = self._wanted
        if expression is not self._applied:
            engine.set_expression(expression, name=expression.name if expression else "")
            self._applied = expression
        engine.set_gains(controls.gains())
        engine.set_mode(controls.mode)
        engine.set_keep_speech(controls.keep_speech)
        engine.set_keep_blink(controls.keep_blink)
        engine.set_on_lost(controls.on_lost)

    def _frames(self, engine: LiveEngine, meter: AuMeter, marker: Marker | None) -> None:
        read_s = 0.0
        while True:
            incoming = self._slot.get()
            begin_s = time.perf_counter()
            frame_bgr = incoming.read()
            read_ms = (time.perf_counter() - begin_s) * 1e3
            height, width = frame_bgr.shape[:2]
            self._size_wh = (width, height)
            result = engine.process(Frame(frame_bgr, incoming.pts, CLOCK, incoming.arrived_s))
            picture_bgr = result.frame.frame_bgr
            shown = None
            if result.crop is not None and begin_s - read_s >= _READ_EVERY_S:
                read_s = begin_s
                shown = meter.read(picture_bgr, result.crop)
            if marker is not None:
                result = marker.apply(result)
                picture_bgr = result.frame.frame_bgr
            self._outputs.send(result.frame, self._wanted[0].virtual_camera)
            if result.crop is not None and self._portrait_asked and self._on_portrait is not None:
                self._portrait_asked = False
                self._on_portrait(frame_bgr)
            with self._lock:
                for name, ms in {"receive": read_ms, **result.stage_ms}.items():
                    self._smooth(name, ms)
                self._own = result.target_aus_lr
                self._swapped_once |= result.status is not FrameStatus.NO_FACE
                self._slate = result.crop is None and self._shows_slate()
                if result.crop is None:
                    self._shown = None
                elif shown is not None:
                    self._shown = shown
            self._emit(picture_bgr, incoming)


def _rate(moments_s: list[float]) -> float:
    """Pictures per second over the last ones; 0 where the stream stands still."""
    if len(moments_s) < 2 or time.perf_counter() - moments_s[-1] > 1.0:
        return 0.0
    recent = [m for m in moments_s if m > moments_s[-1] - 1.5]
    if len(recent) < 2:
        return 0.0
    return round((len(recent) - 1) / (recent[-1] - recent[0]), 1)


def _by_name(aus_lr: F32 | None) -> dict[str, float] | None:
    if aus_lr is None:
        return None
    values = aus_lr.max(axis=1)
    return {name: round(float(values[k]), 3) for k, name in enumerate(AU_NAMES)}
