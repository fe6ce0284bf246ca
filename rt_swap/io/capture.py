"""What every device or stream that gives live pictures promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rt_swap.frames import U8


@dataclass(frozen=True)
class CaptureInfo:
    """What was opened.

    Attributes:
        name: For people, and the key under which a resting face before this camera is kept.
        width: Pixels; 0 where it is not known before the first picture.
        height: The same.
        rate_hz: Pictures per second as the device says, or 0 where it does not.
        format: How the pictures come, such as "MJPG"; "" where it is not known.
        ends: Whether it may come to an end of its own (a file), so that an end is no failure.
    """

    name: str
    width: int
    height: int
    rate_hz: float
    format: str = ""
    ends: bool = False


@dataclass(frozen=True)
class Picture:
    """One picture had from a device.

    Attributes:
        frame_bgr: (H, W, 3) uint8 BGR; its size may differ from the one before. The receiver owns
            it.
        captured_s: ``time.perf_counter()`` of its capture, as near to the sensor as is known.
        missed: Pictures that the device gave and nobody read, since the one before.
    """

    frame_bgr: U8
    captured_s: float
    missed: int = 0


class Capture(Protocol):
    """An opened camera, file or stream. One thread reads; ``close`` may come from another one.

    ``read`` returns within about three seconds whatever happens to the device, so that whoever
    waits can tell that nothing comes.
    """

    @property
    def info(self) -> CaptureInfo:
        """What was opened."""
        ...

    def read(self) -> Picture | None:
        """Wait for the next picture.

        Returns:
            None at the end of what ends.

        Raises:
            SourceError: If no picture comes although one should.
        """
        ...

    def close(self) -> None:
        """Release the device; harmless when done twice."""
        ...
