"""Cameras made of a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rt_swap.errors import SourceError
from rt_swap.frames import U8
from rt_swap.io.capture import CaptureInfo, Picture

Step = U8 | BaseException | float | None
"""A picture; an exception to raise; seconds to wait before the next step; None for the end."""


class FakeCapture:
    """Plays steps; waits for ever (until closed) when they are over.

    Args:
        steps: What read() does, one after another.
        pace_s: Pause before each picture.
        ends: Told in the info.
    """

    def __init__(self, steps: Sequence[Step], *, pace_s: float = 0.0, ends: bool = False) -> None:
        self._steps = list(steps)
        self._pace_s = pace_s
        self.info = CaptureInfo("fake camera", 160, 120, 30.0, "TEST", ends)
        self.closed = threading.Event()
        self.reads = 0
        self.ready: Callable[[], bool] = lambda: True
        """Whether the next picture may come; so that a busy machine drops none."""

    def read(self) -> Picture | None:
        while True:
            if self.closed.is_set():
                raise SourceError("closed")
            if not self._steps:
                self.closed.wait(60)
                continue
            step = self._steps.pop(0)
            if isinstance(step, float):
                self.closed.wait(step)
                continue
            if isinstance(step, BaseException):
                raise step
            if step is None:
                while not self.ready() and not self.closed.wait(0.001):
                    pass
                return None
            if self._pace_s:
                self.closed.wait(self._pace_s)
            end_s = time.monotonic() + 30
            while not self.ready() and time.monotonic() < end_s:
                self.closed.wait(0.001)
            self.reads += 1
            return Picture(step, time.perf_counter())

    def close(self) -> None:
        self.closed.set()


class FakePlug:
    """A camera's socket: each opening gives the next capture, or raises what is there instead."""

    def __init__(self, *openings: FakeCapture | BaseException) -> None:
        self._openings = list(openings)
        self.opened: list[FakeCapture] = []
        self.attempts = 0

    def __call__(self) -> FakeCapture:
        self.attempts += 1
        opening = self._openings.pop(0) if self._openings else SourceError("nothing is plugged in")
        if isinstance(opening, BaseException):
            raise opening
        self.opened.append(opening)
        return opening
