"""Where the time goes: stage timers, percentiles in constant memory, drops, age of frames."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

_LOWEST_MS: Final = 1e-4
_GROWTH: Final = 1.01
_LOG_GROWTH: Final = math.log(_GROWTH)
_BINS: Final = 2100  # 1e-4 ms * 1.01^2100 = 33 h


class Percentiles:
    """Percentiles of durations, however many: bins that grow by 1 %, so a quantile is off by 0.5 %
    at most.

    Attributes:
        count: Values taken.
        total_ms: Their sum.
        max_ms: The largest; 0 before the first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total_ms = 0.0
        self.max_ms = 0.0
        self._min_ms = math.inf
        self._bins = [0] * _BINS

    def add(self, value_ms: float) -> None:
        """Take one duration, in milliseconds, 0 or more."""
        self.count += 1
        self.total_ms += value_ms
        self.max_ms = max(self.max_ms, value_ms)
        self._min_ms = min(self._min_ms, value_ms)
        place = 0
        if value_ms > _LOWEST_MS:
            place = min(int(math.log(value_ms / _LOWEST_MS) / _LOG_GROWTH), _BINS - 1)
        self._bins[place] += 1

    def at(self, fraction: float) -> float:
        """The quantile.

        Args:
            fraction: In [0, 1]; 0.5 is the median. The value at or below which that part of all
                values lies.

        Returns:
            Milliseconds; NaN before the first value.
        """
        if self.count == 0:
            return math.nan
        wanted = max(math.ceil(fraction * self.count), 1)
        seen = 0
        for place, number in enumerate(self._bins):
            seen += number
            if seen >= wanted:
                middle = _LOWEST_MS * math.exp(_LOG_GROWTH * (place + 0.5))
                return min(max(middle, self._min_ms), self.max_ms)
        return self.max_ms

    def summary(self) -> dict[str, float]:
        """count, mean, p50, p95, p99, max; milliseconds, rounded to microseconds."""
        if self.count == 0:
            return {"count": 0}
        figures = {
            "mean": self.total_ms / self.count,
            "p50": self.at(0.5),
            "p95": self.at(0.95),
            "p99": self.at(0.99),
            "max": self.max_ms,
        }
        return {"count": self.count, **{name: round(ms, 3) for name, ms in figures.items()}}


@contextmanager
def stage(stage_ms: dict[str, float], name: str) -> Iterator[None]:
    """Add the time a block takes to ``stage_ms[name]``, in milliseconds."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        stage_ms[name] = stage_ms.get(name, 0.0) + (time.perf_counter() - begin) * 1e3


class Metrics:
    """What a run measured. One thread records; reading it afterwards needs no lock.

    Attributes:
        stages: Percentiles by stage, in order of first appearance.
        age: Time from capture (or decoding) to emission.
        frames: Frames emitted.
        dropped: Frames thrown away on the way; 0 offline.
    """

    def __init__(self) -> None:
        self.stages: dict[str, Percentiles] = {}
        self.age = Percentiles()
        self.frames = 0
        self.dropped = 0
        self._first_s: float | None = None
        self._last_s: float | None = None

    def start(self) -> None:
        """Begin the clock for frames per second; without it the first frame does."""
        self._first_s = time.perf_counter()

    def record(self, stage_ms: Mapping[str, float], captured_s: float | None = None) -> None:
        """Take one emitted frame.

        Args:
            stage_ms: Milliseconds by stage.
            captured_s: ``time.perf_counter()`` when the frame was had; None where unknown.
        """
        now = time.perf_counter()
        if self._first_s is None:
            self._first_s = now
        self._last_s = now
        self.frames += 1
        for name, value_ms in stage_ms.items():
            self.stages.setdefault(name, Percentiles()).add(value_ms)
        if captured_s:
            self.age.add((now - captured_s) * 1e3)

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start to the last frame."""
        if self._first_s is None or self._last_s is None:
            return 0.0
        return self._last_s - self._first_s

    @property
    def fps(self) -> float:
        """Frames per second over the whole run; 0 where no time has passed."""
        return self.frames / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def summary(self) -> dict[str, object]:
        """Plain numbers for JSON."""
        return {
            "fps": round(self.fps, 2),
            "elapsed_s": round(self.elapsed_s, 3),
            "dropped": self.dropped,
            "age_ms": self.age.summary(),
            "stage_ms": {name: values.summary() for name, values in self.stages.items()},
        }
