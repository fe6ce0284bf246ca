"""A thread that keeps a camera's newest picture and gets the camera back when it goes away.

    opening --picture--> running --error, or nothing for stall_s--> waiting --back-off--> opening
                            |
                            +-- end of a file --> ended

Whoever takes pictures never waits for more than they asked to. A picture that nobody took before
the next one came is dropped and counted: the newest wins. After the machine slept (the wall clock
ran on while the monotonic one stood still) the camera is opened anew.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Final

from rt_swap.errors import RtSwapError, in_one_line
from rt_swap.frames import Frame
from rt_swap.io.capture import Capture, CaptureInfo, Picture
from rt_swap.io.captures import OpenCapture

logger = logging.getLogger(__name__)

TIME_BASE: Final = Fraction(1, 1_000_000)
"""Of live frames: microseconds."""
_BACK_OFF_S: Final = (0.25, 0.5, 1.0, 2.0, 3.0)
_STALL_S: Final = 5.0
"""Nothing for so long: the camera is taken for dead."""
_SLEPT_S: Final = 3.0
"""The clocks drifted apart by so much from one picture to the next: the machine slept."""


class CameraState(enum.Enum):
    """What the camera is doing."""

    OPENING = "opening"
    RUNNING = "running"
    WAITING = "waiting"  # it went away; it is tried again soon
    ENDED = "ended"  # a file came to its end
    CLOSED = "closed"


@dataclass(frozen=True)
class GrabberReport:
    """What happened so far.

    Attributes:
        state: Now.
        info: Of the capture opened last, or None.
        received: Pictures that came.
        dropped: Pictures replaced by a newer one before anybody took them, or missed by the reader.
        skipped: Pictures left out on purpose, to take a fresh one.
        losses: How often the camera went away.
        reconnects: How often it came back.
        resizes: How often its pictures changed their size.
        last_error: Why it went away last, or "".
    """

    state: CameraState
    info: CaptureInfo | None
    received: int
    dropped: int
    skipped: int
    losses: int
    reconnects: int
    resizes: int
    last_error: str


class Grabber:
    """Keeps the newest picture of a capture. A context manager.

    Args:
        open_capture: Opens the camera; called again whenever it has gone away.
        name: For messages.
        stall_s: A read that takes longer than this counts as a loss.
        back_off_s: Pauses before the 1st, 2nd, ... further attempt; the last one repeats.
        wall_clock: Seconds that go on while the machine sleeps.
        monotonic: Seconds that do not.
    """

    def __init__(
        self,
        open_capture: OpenCapture,
        *,
        name: str = "camera",
        stall_s: float = _STALL_S,
        back_off_s: tuple[float, ...] = _BACK_OFF_S,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_capture, self._name = open_capture, name
        self._stall_s, self._back_off_s = stall_s, back_off_s
        self._wall_clock, self._monotonic = wall_clock, monotonic
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._slot: Picture | None = None
        self._generation = 0  # readers of an older one are ignored
        self._read_began_s: float | None = None
        self._capture: Capture | None = None
        self._thread: threading.Thread | None = None
        self._last_pts = -1
        self._size_wh: tuple[int, int] | None = None
        self._state, self._last_error = CameraState.OPENING, ""
        self._info: CaptureInfo | None = None
        self._received = self._dropped = self._skipped = 0
        self._losses = self._reconnects = self._resizes = 0

    # --- starting and ending ---
    def start(self, capture: Capture | None = None) -> None:
        """Begin to read.

        Args:
            capture: One that is open already; None opens one here, so that what cannot be opened
                at all fails now instead of being tried for ever.

        Raises:
            SourceError: If it cannot be opened.
        """
        self._start_reader(capture or self._open_capture())

    def close(self) -> None:
        """End the thread and release the camera; harmless when done twice."""
        self._stop.set()
        with self._changed:
            self._generation += 1
            self._state = CameraState.CLOSED
            self._slot = None
            capture, self._capture = self._capture, None
            self._changed.notify_all()
        if capture is not None:
            _close(capture)
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def __enter__(self) -> Grabber:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- taking ---
    def take(self, timeout_s: float, *, fresh: bool = False) -> Frame | None:
        """The newest picture that nobody has taken yet.

        Args:
            timeout_s: How long to wait for one.
            fresh: Leave out one that waits already and take the next to come, whose age is least.

        Returns:
            A frame whose time is the microsecond of its capture, or None where none came in time
            or the source ended.
        """
        end_s = self._monotonic() + timeout_s
        with self._changed:
            if fresh and self._slot is not None:
                self._slot = None
                self._skipped += 1
            while self._slot is None:
                self._revive()
                left_s = end_s - self._monotonic()
                if left_s <= 0 or self._state in (CameraState.ENDED, CameraState.CLOSED):
                    return None
                self._changed.wait(min(left_s, 0.5))
            picture, self._slot = self._slot, None
        pts = max(round(picture.captured_s / TIME_BASE), self._last_pts + 1)
        self._last_pts = pts
        return Frame(picture.frame_bgr, pts, TIME_BASE, picture.captured_s)

    @property
    def report(self) -> GrabberReport:
        """What happened so far."""
        with self._changed:
            return GrabberReport(
                self._state,
                self._info,
                self._received,
                self._dropped,
                self._skipped,
                self._losses,
                self._reconnects,
                self._resizes,
                self._last_error,
            )

    # --- the reader ---
    def _start_reader(self, capture: Capture | None) -> None:
        with self._changed:
            self._generation += 1
            self._thread = threading.Thread(
                target=self._read_on,
                args=(self._generation, capture),
                name=f"rt_swap grab {self._name}",
                daemon=True,
            )
            self._read_began_s = None
        self._thread.start()

    def _revive(self) -> None:
        """Leave a reader that is stuck in its device to itself and start another; lock held."""
        began_s = self._read_began_s
        if began_s is None or self._monotonic() - began_s < self._stall_s:
            return
        logger.warning("%s: does not answer; opening it again", self._name)
        self._lost("it does not answer")
        stuck, self._capture = self._capture, None
        self._read_began_s = None
        if stuck is not None:  # its own lock may be held by the stuck read, so not here
            threading.Thread(target=_close, args=(stuck,), daemon=True).start()
        self._start_reader(None)

    def _read_on(self, generation: int, capture: Capture | None) -> None:
        attempts = 0
        while not self._stop.is_set():
            if capture is None:
                capture = self._reopen(generation, attempts)
                attempts += 1
                if capture is None:
                    if self._generation != generation:
                        return
                    continue
            if not self._adopt(generation, capture):
                _close(capture)
                return
            if self._run(generation, capture):
                attempts = 0
            else:
                attempts = max(attempts, 1)
            _close(capture)
            if self._generation != generation or self._state is CameraState.ENDED:
                return
            capture = None

    def _reopen(self, generation: int, attempts: int) -> Capture | None:
        """Wait, then try to open; None where that failed."""
        pause_s = self._back_off_s[min(attempts, len(self._back_off_s) - 1)]
        if self._stop.wait(pause_s) or self._generation != generation:
            return None
        try:
            return self._open_capture()
        except Exception as error:  # a driver's own, too; the thread must not die of it
            text = in_one_line(error)
            with self._changed:
                if self._generation == generation:
                    self._last_error = text
            logger.debug("%s: not yet: %s", self._name, text)
            return None

    def _adopt(self, generation: int, capture: Capture) -> bool:
        with self._changed:
            if self._generation != generation or self._stop.is_set():
                return False
            self._capture, self._info = capture, capture.info
            if self._losses > self._reconnects:
                self._reconnects = self._losses
                logger.info("%s: is back", self._name)
            self._state = CameraState.RUNNING
            return True

    def _run(self, generation: int, capture: Capture) -> bool:
        """Read until it ends or fails; whether any picture came."""
        came = False
        drift_s = self._wall_clock() - self._monotonic()
        while True:
            with self._changed:
                if self._generation != generation:
                    return came
                self._read_began_s = self._monotonic()
            try:
                picture = capture.read()
            except RtSwapError as error:
                self._fail(generation, str(error))
                return came
            except Exception as error:  # a driver's own; the thread must not die of it
                self._fail(generation, f"{type(error).__name__}: {error}")
                return came
            now_drift_s = self._wall_clock() - self._monotonic()
            slept = now_drift_s - drift_s > _SLEPT_S
            drift_s = now_drift_s
            with self._changed:
                if self._generation != generation:
                    return came
                self._read_began_s = None
                if picture is None:
                    if not self._stop.is_set():
                        self._state = CameraState.ENDED
                    self._changed.notify_all()
                    return came
                if not slept:
                    came = True
                    self._deliver(picture)
                    continue
            self._fail(generation, "the machine slept")
            return came

    def _deliver(self, picture: Picture) -> None:
        """Put a picture into the slot; lock held."""
        height, width = picture.frame_bgr.shape[:2]
        if self._size_wh is not None and self._size_wh != (width, height):
            self._resizes += 1
            logger.info("%s: now gives %dx%d", self._name, width, height)
        self._size_wh = (width, height)
        self._received += 1 + picture.missed
        self._dropped += picture.missed
        if self._slot is not None:
            self._dropped += 1
        self._slot = picture
        self._changed.notify_all()

    def _fail(self, generation: int, reason: str) -> None:
        with self._changed:
            if self._generation != generation or self._stop.is_set():
                return
            self._read_began_s = None
            self._lost(reason)
        logger.warning("%s: went away (%s); waiting for it to come back", self._name, reason)

    def _lost(self, reason: str) -> None:
        """Lock held."""
        self._losses += 1
        self._last_error = reason
        self._state = CameraState.WAITING
        self._slot = None  # what waited is from before
        self._changed.notify_all()


def _close(capture: Capture) -> None:
    try:
        capture.close()
    except Exception as error:  # a device that is gone may complain about being closed
        logger.debug("closing: %s", error)
