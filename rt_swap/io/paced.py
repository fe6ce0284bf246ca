"""A file played as a camera would give it: each picture at its own time, none before."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from rt_swap.frames import U8, Frame
from rt_swap.io.capture import CaptureInfo, Picture
from rt_swap.io.pixels import scaled
from rt_swap.io.video import VideoReader

_LONGEST_S: Final = 1.0
"""A longer gap between two pictures of a file is shortened to this."""
_HOPELESS_S: Final = 0.5
"""Whoever is later than this begins counting anew."""


class PacedFile:
    """A video file in real time.

    The next picture is decoded ahead, so that, as with a camera, its age counts from the moment at
    which it is due. A reader who comes late does not make the file run slower: as with a camera,
    pictures whose successor is due as well are missed, and counted.

    Args:
        path: The file.
        loop: Begin again at its end.
        size_wh: Scale pictures to this; None leaves them.
        rate_hz: Play so many pictures a second, whatever the file says; None keeps its times.

    Raises:
        SourceError: If it cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        loop: bool = True,
        size_wh: tuple[int, int] | None = None,
        rate_hz: float | None = None,
    ) -> None:
        self._path, self._loop, self._size_wh, self._rate_hz = Path(path), loop, size_wh, rate_hz
        self._reader = VideoReader(path)
        self._frames = iter(self._reader)
        info = self._reader.info
        self._step_s = 1 / (rate_hz or float(info.rate))
        self._info = CaptureInfo(
            name=self._path.name,
            width=size_wh[0] if size_wh else info.width,
            height=size_wh[1] if size_wh else info.height,
            rate_hz=rate_hz or float(info.rate),
            format=info.codec,
            ends=not loop,
        )
        self._closed = threading.Event()
        self._lock = threading.Lock()  # a reader must not be closed while it decodes
        self._due_s: float | None = None
        self._before: Frame | None = None

    @property
    def info(self) -> CaptureInfo:
        """What was opened."""
        return self._info

    def read(self) -> Picture | None:
        """Wait until the next picture is due; None at the end of a file that does not loop.

        Raises:
            SourceError: If the file cannot be read any more.
        """
        missed = 0
        while True:
            with self._lock:
                frame = self._next()
            if frame is None:
                return None
            now = time.perf_counter()
            due_s = now if self._due_s is None else self._due_s + self._pause_s(frame)
            if now - due_s > _HOPELESS_S:  # the machine slept, or decodes slower than real time
                due_s = now
            self._before, self._due_s = frame, due_s
            if now - due_s <= self._step_s:
                break
            missed += 1
        picture_bgr: U8 = frame.frame_bgr
        if self._size_wh is not None:
            picture_bgr = scaled(picture_bgr, self._size_wh)
        left_s = due_s - time.perf_counter()
        if left_s > 0 and self._closed.wait(left_s):
            return None
        return Picture(picture_bgr, due_s, missed)

    def _next(self) -> Frame | None:
        """The next picture of the file, or of its next round."""
        if self._closed.is_set():
            return None
        frame = next(self._frames, None)
        if frame is None and self._loop:
            if not self._reader.rewind():
                self._reader.close()
                self._reader = VideoReader(self._path)
            self._frames, self._before = iter(self._reader), None
            frame = next(self._frames)
        return frame

    def _pause_s(self, frame: Frame) -> float:
        """From the picture before to this one."""
        if self._before is None or self._rate_hz:
            return self._step_s
        return min(frame.time_s - self._before.time_s, _LONGEST_S)

    def close(self) -> None:
        """End; a waiting reader is woken. Harmless when done twice."""
        self._closed.set()
        with self._lock:
            self._reader.close()
