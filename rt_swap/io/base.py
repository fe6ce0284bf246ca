"""What every source and sink of frames promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from rt_swap.frames import Frame


class FrameSource(Protocol):
    """Gives frames in order, once.

    One thread iterates; ``close`` may be called from another one and must make the iteration end
    soon.
    """

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order of their time stamps, which strictly ascend.

        Raises:
            SourceError: If nothing more can be read although more should be there.
        """
        ...

    def close(self) -> None:
        """Release file or device; harmless when done twice."""
        ...


class FrameSink(Protocol):
    """Takes frames in order. One thread uses it at a time."""

    def write(self, frame: Frame) -> None:
        """Take one frame; its array is not kept after the call returns.

        Raises:
            SinkError: If it cannot be written.
        """
        ...

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Complete the output and give it its final name.

        Args:
            last_duration: How long the last frame is shown, in units of its time base, where known.
            cut_audio: End the sound where the pictures end instead of copying all of it.

        Raises:
            SinkError: If the output cannot be completed; nothing is left under the final name then.
        """
        ...

    def abort(self) -> None:
        """Throw away what was written; never raises; harmless after finish."""
        ...
