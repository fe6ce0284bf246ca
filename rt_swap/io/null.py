"""A source and a sink without file or device, for benchmarks and tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType

from rt_swap.errors import ConfigError, SinkError
from rt_swap.frames import U8, Frame


class NullSource:
    """Gives the same picture over and over at a constant rate.

    Args:
        frame_bgr: (H, W, 3) uint8; every frame shares it, so it must not be written to.
        count: Number of frames, 0 or more.
        rate: Frames per second.

    Raises:
        ConfigError: If count or rate is out of range.
    """

    def __init__(self, frame_bgr: U8, count: int, rate: Fraction = Fraction(30)) -> None:
        if count < 0 or rate <= 0:
            raise ConfigError(
                f"NullSource: count must be >= 0 and rate > 0, got {count} and {rate}"
            )
        self._frame_bgr, self._count, self._time_base = frame_bgr, count, 1 / Fraction(rate)
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        for pts in range(self._count):
            if self._closed:
                return
            yield Frame(self._frame_bgr, pts, self._time_base, time.perf_counter())

    def close(self) -> None:
        """End the iteration."""
        self._closed = True


class NullSink:
    """Counts frames and forgets them.

    Attributes:
        frames: Frames taken.
        finished: True after finish().
    """

    def __init__(self) -> None:
        self.frames = 0
        self.finished = False
        self._last: Frame | None = None

    @property
    def last(self) -> Frame | None:
        """The last frame taken, not copied."""
        return self._last

    def write(self, frame: Frame) -> None:
        """Count one frame.

        Raises:
            SinkError: After finish, or if its time does not come after the last one's.
        """
        if self.finished:
            raise SinkError("NullSink: a frame came after finish(); make a new sink")
        if self._last is not None and frame.pts * frame.time_base <= (
            self._last.pts * self._last.time_base
        ):
            raise SinkError(
                f"NullSink: times must ascend, got {frame.time_s:.6f} s"
                f" after {self._last.time_s:.6f} s"
            )
        self.frames += 1
        self._last = frame

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Mark the end."""
        self.finished = True

    def abort(self) -> None:
        """Nothing to throw away."""

    def __enter__(self) -> NullSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and not self.finished:
            self.finish()
