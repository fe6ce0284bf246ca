"""One live run: camera -> engine -> whoever looks, one frame at a time, until somebody ends it.

A straight line on the caller's thread. The camera has a thread of its own (rt_swap.live.grabber), a
recording, too (rt_swap.io.tee). While no pictures come, or while the user hides, a picture that may
be shown goes out in their stead, so that a call never freezes on what it should not show.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap.errors import ConfigError, SinkError
from rt_swap.frames import Frame, FrameResult, FrameStatus
from rt_swap.io.base import FrameSink
from rt_swap.io.pixels import scaled
from rt_swap.live.engine import LiveEngine
from rt_swap.live.governor import Governor
from rt_swap.live.grabber import TIME_BASE, CameraState, Grabber
from rt_swap.metrics import Metrics, stage

logger = logging.getLogger(__name__)

Decorate = Callable[[Frame, FrameResult | None], Frame]
"""Draws on every picture that leaves (a mark, a watermark); the result is None for a stand-in
and for the slate of who hides. It may write into the frame's array."""
OpenSink = Callable[[tuple[int, int], float], FrameSink]
"""(size_wh, rate_hz) -> an opened sink."""

_WAIT_S: Final = 0.1
_STAND_IN_AFTER_S: Final = 0.4
_STAND_IN_EVERY_S: Final = 0.2
_SINK_AGAIN_S: Final = 2.0
_RECENT: Final = 150
"""Frames over which the delay is told."""
_PERIOD_S: Final = 1 / 30


class SinkSlot:
    """A sink that is opened again when it breaks, where that makes sense.

    Args:
        name: For messages.
        open_sink: Opens it.
        comes_back: Try again after a failure (a device); a file is given up.
    """

    def __init__(self, name: str, open_sink: OpenSink, *, comes_back: bool) -> None:
        self.name, self._open_sink, self._comes_back = name, open_sink, comes_back
        self.sink: FrameSink | None = None
        self.failure: str | None = None
        self.losses = 0
        self._again_s = 0.0

    def open(self, size_wh: tuple[int, int], rate_hz: float) -> None:
        """Open it for the first time.

        Raises:
            SinkError: If it cannot be opened.
        """
        self._shape = (size_wh, rate_hz)
        self.sink = self._open_sink(size_wh, rate_hz)

    def write(self, frame: Frame) -> None:
        """Hand a frame over; a failure is told and remembered, not raised."""
        if self.sink is None and not self._reopened():
            return
        assert self.sink is not None
        try:
            self.sink.write(frame)
        except SinkError as error:
            self.losses += 1
            self.failure = str(error)
            logger.warning("%s", error)
            self.sink.abort()
            self.sink = None
            self._again_s = time.monotonic() + _SINK_AGAIN_S

    def _reopened(self) -> bool:
        if not self._comes_back or time.monotonic() < self._again_s:
            return False
        self._again_s = time.monotonic() + _SINK_AGAIN_S
        try:
            self.sink = self._open_sink(*self._shape)
        except SinkError as error:
            logger.debug("%s: not yet: %s", self.name, error)
            return False
        logger.info("%s: is back", self.name)
        self.failure = None
        return True

    def finish(self) -> None:
        """Complete it; a failure is told and remembered."""
        if self.sink is None:
            return
        try:
            self.sink.finish()
        except SinkError as error:
            self.failure = str(error)
            logger.warning("%s", error)
        self.sink = None

    def abort(self) -> None:
        """Throw it away."""
        if self.sink is not None:
            self.sink.abort()
            self.sink = None


@dataclass(frozen=True)
class LiveSummary:
    """What a live run did.

    Attributes:
        metrics: fps, stages and age, see rt_swap.metrics; ``dropped`` counts pictures that a newer
            one replaced.
        received: Pictures from the camera.
        skipped: Pictures left out on purpose by the governor.
        statuses: Frames by what happened to them.
        stand_ins: Pictures shown while none came.
        losses: How often the camera went away.
        reconnects: How often it came back.
        resizes: How often its pictures changed their size.
        failures: Frames that failed inside and were not shown.
        video_delay_ms: Median age of the last frames: by how much sound must be delayed.
        governor: What was given up, in words, in order.
        sinks: Failure by sink; None where there was none.
        interrupted: Whether Ctrl-C ended it.
    """

    metrics: dict[str, object]
    received: int
    skipped: int
    statuses: dict[str, int]
    stand_ins: int
    losses: int
    reconnects: int
    resizes: int
    failures: int
    video_delay_ms: float | None
    governor: list[str]
    sinks: dict[str, str | None]
    interrupted: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values for json.dumps."""
        values = dict(self.__dict__)
        values.update(values.pop("metrics"))
        return values


class LiveRun:
    """Runs engines on a camera.

    Args:
        engines: One per model, the best first; all know the same expressions. The caller closes
            them.
        grabber: Started.
        sinks: Opened; finished by :meth:`go`.
        governor: Keeps the latency; None never gives anything up.
        decorate: Draws on every picture that leaves.
        on_frame: Called after each picture with this run, as to look at keys; on this thread.
        period_s: Time between two pictures, as the camera says.
    """

    def __init__(
        self,
        engines: Sequence[LiveEngine],
        grabber: Grabber,
        sinks: Sequence[SinkSlot],
        *,
        governor: Governor | None = None,
        decorate: Decorate | None = None,
        on_frame: Callable[[LiveRun], None] | None = None,
        period_s: float = _PERIOD_S,
    ) -> None:
        if not engines:
            raise ConfigError("LiveRun: needs an engine")
        self.engines, self.grabber, self.sinks = tuple(engines), grabber, tuple(sinks)
        self.governor = governor or Governor(None, models=len(self.engines))
        self._decorate, self._on_frame = decorate, on_frame
        self._period_s = period_s
        self.metrics = Metrics()
        self.stop = threading.Event()
        self.hidden = threading.Event()
        self._statuses = {status.value: 0 for status in FrameStatus}
        self._stand_ins = 0
        self._standing_in = False
        self._recent_ms: deque[float] = deque(maxlen=_RECENT)
        self._last_shown_s = time.monotonic()
        self._last_begin_s = 0.0
        self._last_pts = -1
        self._size_wh = (1280, 720)
        self._lock = threading.Lock()

    @property
    def engine(self) -> LiveEngine:
        """The engine in use."""
        return self.engines[self.governor.plan.model]

    @property
    def video_delay_ms(self) -> float | None:
        """Median age of the last frames at emission; None before there were some."""
        with self._lock:
            recent = list(self._recent_ms)
        return float(np.median(recent)) if len(recent) >= 10 else None

    def go(self, duration_s: float | None = None) -> LiveSummary:
        """Run until :attr:`stop` is set, the source ends, time is over, or Ctrl-C.

        Returns:
            What was done; the sinks are finished.

        Raises:
            RtSwapError: If the model keeps failing; the sinks are closed then.
        """
        interrupted = False
        end_s = None if duration_s is None else time.monotonic() + duration_s
        try:
            while not self.stop.is_set() and (end_s is None or time.monotonic() < end_s):
                if not self._one():
                    break
        except KeyboardInterrupt:
            interrupted = True
        except BaseException:
            for slot in self.sinks:
                slot.abort()
            raise
        summary = self.summary(interrupted)  # before a file is completed, which takes its time
        for slot in self.sinks:
            slot.finish()
        return replace(summary, sinks={slot.name: slot.failure for slot in self.sinks})

    def _one(self) -> bool:
        """One picture, or a stand-in; False at the end of the source."""
        frame = self._take()
        if frame is None:
            if self.grabber.report.state in (CameraState.ENDED, CameraState.CLOSED):
                return False
            self._stand_in()
            self._tick()
            return True
        self._show(frame)
        self._tick()
        return True

    def _take(self) -> Frame | None:
        share = self.governor.plan.share
        if share == 1:
            return self.grabber.take(_WAIT_S)
        # no sooner than (share - 1/2) periods after the last one began, then the next fresh one
        wait_s = self._last_begin_s + (share - 0.5) * self._period_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        return self.grabber.take(_WAIT_S + share * self._period_s, fresh=True)

    def _show(self, frame: Frame) -> None:
        self._last_begin_s = time.perf_counter()
        self._standing_in = False
        stage_ms: dict[str, float] = {}
        plan = self.governor.plan
        height, width = frame.frame_bgr.shape[:2]
        self._size_wh = (width, height)
        if plan.scale < 1:
            with stage(stage_ms, "scale"):
                size_wh = tuple(max(round(s * plan.scale) // 2 * 2, 2) for s in (width, height))
                frame = replace(frame, frame_bgr=scaled(frame.frame_bgr, (size_wh[0], size_wh[1])))
        engine = self.engine
        result = engine.process(frame)
        shown = result.frame
        if self.hidden.is_set():
            engine.forget_held()
            height, width = shown.frame_bgr.shape[:2]
            shown = replace(shown, frame_bgr=engine.slate((width, height)).copy())
            self._emit(shown, None, stage_ms)
        else:
            self._emit(shown, result, stage_ms)
        now = time.perf_counter()
        self._last_shown_s = time.monotonic()
        stage_ms = {**result.stage_ms, **stage_ms}
        age_ms = (now - frame.captured_s) * 1e3
        engine.emitted(age_ms)
        with self._lock:
            self._recent_ms.append(age_ms)
            self.metrics.record(stage_ms, frame.captured_s)
            self._statuses[result.status.value] += 1
        self.governor.saw(now, age_ms, stage_ms, self._period_s * 1e3)

    def _emit(self, shown: Frame, result: FrameResult | None, stage_ms: dict[str, float]) -> None:
        if self._decorate is not None:
            with stage(stage_ms, "decorate"):
                shown = self._decorate(shown, result)
        self._last_pts = max(self._last_pts, shown.pts)
        with stage(stage_ms, "emit"):
            for slot in self.sinks:
                slot.write(shown)

    def _stand_in(self) -> None:
        """While no pictures come: something that may be shown, now and then."""
        now = time.monotonic()
        pause_s = _STAND_IN_EVERY_S if self._standing_in else _STAND_IN_AFTER_S
        if now - self._last_shown_s < pause_s:
            return
        self._standing_in = True
        engine = self.engine
        picture = (
            engine.slate(self._size_wh) if self.hidden.is_set() else engine.stand_in(self._size_wh)
        ).copy()
        pts = max(round(time.perf_counter() / TIME_BASE), self._last_pts + 1)
        self._emit(Frame(picture, pts, TIME_BASE), None, {})
        self._last_shown_s = now
        self._stand_ins += 1

    def _tick(self) -> None:
        if self._on_frame is not None:
            self._on_frame(self)

    def summary(self, interrupted: bool = False) -> LiveSummary:
        """What was done so far; from any thread."""
        report = self.grabber.report
        delay_ms = self.video_delay_ms
        with self._lock:
            self.metrics.dropped = report.dropped
            metrics = self.metrics.summary()
            statuses = dict(self._statuses)
        return LiveSummary(
            metrics=metrics,
            received=report.received,
            skipped=report.skipped,
            statuses=statuses,
            stand_ins=self._stand_ins,
            losses=report.losses,
            reconnects=report.reconnects,
            resizes=report.resizes,
            failures=sum(engine.state.failures for engine in self.engines),
            video_delay_ms=None if delay_ms is None else round(delay_ms, 3),
            governor=[event.text for event in list(self.governor.events)],
            sinks={slot.name: slot.failure for slot in self.sinks},
            interrupted=interrupted,
        )

    def status(self) -> dict[str, Any]:
        """What is going on now, for a status file; from any thread."""
        report, state = self.grabber.report, self.engine.state
        delay_ms = self.video_delay_ms
        with self._lock:
            recent = np.array(self._recent_ms) if self._recent_ms else None
        return {
            "video_delay_ms": None if delay_ms is None else round(delay_ms, 1),
            "age_ms_p99": None if recent is None else round(float(np.percentile(recent, 99)), 1),
            "fps": round(state.fps, 1),
            "camera": report.state.value,
            "camera_name": report.info.name if report.info else None,
            "camera_error": report.last_error or None,
            "received": report.received,
            "dropped": report.dropped,
            "skipped": report.skipped,
            "expression": state.expression,
            "mode": state.mode,
            "face_found": state.face_found,
            "calibrated": state.calibrated,
            "hidden": self.hidden.is_set(),
            "plan": str(self.governor.plan),
            "stage_ms": {name: round(ms, 2) for name, ms in state.stage_ms.items()},
        }


class StatusFile:
    """Writes a run's status as JSON once a second, whole or not at all, on its own thread.

    Args:
        path: The file; replaced each time, removed at the end.
        run: Whose status.
        every_s: How often.

    Raises:
        SinkError: If it cannot be written.
    """

    def __init__(self, path: Path, run: LiveRun, every_s: float = 1.0) -> None:
        self._path, self._run, self._every_s = path, run, every_s
        self._stop = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._go, name="rt_swap status", daemon=True)
        self._thread.start()

    def _go(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._write()
            except SinkError as error:
                logger.warning("%s", error)
                return

    def _write(self) -> None:
        text = json.dumps({"pid": os.getpid(), **self._run.status()}, indent=1) + "\n"
        try:
            handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self._path)
        except OSError as exc:
            raise SinkError(
                f"--status-file {self._path}: cannot be written ({exc.strerror}); choose a folder"
                " that exists and that you may write to"
            ) from exc

    def close(self) -> None:
        """Stop, and remove the file."""
        self._stop.set()
        self._thread.join(timeout=2.0)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def __enter__(self) -> StatusFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
