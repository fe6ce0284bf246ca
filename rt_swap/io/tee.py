"""A recording of live pictures, written on a thread of its own so that nobody waits for it."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final

from rt_swap.errors import RtSwapError, SinkError
from rt_swap.frames import Frame
from rt_swap.io.slate import fitted
from rt_swap.io.video import VideoInfo, VideoWriter

logger = logging.getLogger(__name__)

_TIME_BASE: Final = Fraction(1, 90_000)
_WAITING: Final = 8
"""Frames that may wait for the encoder; about a quarter of a second."""
_FAST: Final = {"libx264": {"preset": "veryfast", "tune": "zerolatency"}}
_JOIN_S: Final = 30.0


class FileTee:
    """Writes a video file beside whatever else is shown. Pictures keep their own times.

    The size is that of the first picture; others are scaled to lie inside it. Where the encoder
    does not keep up, pictures are left out of the file and counted; nothing else slows down.

    Args:
        path: The file; it appears under its name when it is complete.
        rate_hz: Nominal rate.
        overwrite: Replace an existing file.
        codec: FFmpeg's name of the encoder; None takes the container's usual one.
        crf: Quality; None takes the encoder's default.
        seal: See PartFile.

    Attributes:
        frames: Pictures handed over.
        dropped: Pictures left out.

    Raises:
        SinkError: If the path cannot be used.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rate_hz: float = 30.0,
        overwrite: bool = False,
        codec: str | None = None,
        crf: int | None = None,
        seal: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.frames = self.dropped = 0
        self._rate = Fraction(rate_hz or 30.0).limit_denominator(1001)
        self._overwrite, self._codec, self._crf, self._seal = overwrite, codec, crf, seal
        # opened now, so that a path that cannot be written fails before the call begins
        VideoWriter(
            self.path, self._info((16, 16)), codec=codec, crf=crf, overwrite=overwrite
        ).abort()
        self._queue: queue.Queue[Frame | None] = queue.Queue(_WAITING)
        self._writer: VideoWriter | None = None
        self._failure: RtSwapError | None = None
        self._thread: threading.Thread | None = None
        self._last_pts = -1

    def _info(self, size_wh: tuple[int, int]) -> VideoInfo:
        return VideoInfo(
            path=Path("camera"),
            width=size_wh[0],
            height=size_wh[1],
            rate=self._rate,
            time_base=_TIME_BASE,
            duration_s=None,
            frame_count=None,
            has_audio=False,
        )

    def write(self, frame: Frame) -> None:
        """Hand one picture over; its array must not be changed afterwards.

        Raises:
            SinkError: If the file could not be written (a full disk).
        """
        if self._failure is not None:
            raise SinkError(str(self._failure)) from self._failure
        if self._thread is None:
            height, width = (side // 2 * 2 for side in frame.frame_bgr.shape[:2])
            codec = self._codec or ("libvpx-vp9" if self.path.suffix == ".webm" else "libx264")
            self._writer = VideoWriter(
                self.path,
                self._info((width, height)),
                codec=self._codec,
                crf=self._crf,
                overwrite=self._overwrite,
                options=_FAST.get(codec),
                threads=1,
                seal=self._seal,
            )
            self._size_wh = (width, height)
            self._thread = threading.Thread(
                target=self._write_on, args=(self._writer,), name="rt_swap tee", daemon=True
            )
            self._thread.start()
        try:
            self._queue.put_nowait(frame)
            self.frames += 1
        except queue.Full:
            if self.dropped == 0:
                logger.warning("%s: the encoder does not keep up; frames are left out", self.path)
            self.dropped += 1

    def _write_on(self, writer: VideoWriter) -> None:
        while True:
            frame = self._queue.get()
            if frame is None:
                return
            if self._failure is not None:
                continue
            pts = max(round(frame.pts * frame.time_base / _TIME_BASE), self._last_pts + 1)
            self._last_pts = pts
            try:
                writer.write(
                    replace(
                        frame,
                        frame_bgr=fitted(frame.frame_bgr, self._size_wh),
                        pts=pts,
                        time_base=_TIME_BASE,
                    )
                )
            except RtSwapError as error:
                self._failure = error

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Complete the file; without a picture there is none.

        Raises:
            SinkError: If it cannot be completed.
        """
        writer = self._end_thread()
        if writer is None:
            return
        if self._failure is not None:
            writer.abort()
            raise SinkError(str(self._failure)) from self._failure
        writer.finish(cut_audio=cut_audio)

    def abort(self) -> None:
        """Throw the file away; never raises; harmless after finish."""
        with contextlib.suppress(SinkError):
            writer = self._end_thread()
            if writer is not None:
                writer.abort()

    def _end_thread(self) -> VideoWriter | None:
        thread, self._thread = self._thread, None
        writer, self._writer = self._writer, None
        if thread is None:
            return None
        self._queue.put(None)
        thread.join(_JOIN_S)
        if thread.is_alive():
            raise SinkError(f"{self.path}: the encoder does not come to an end; nothing is written")
        return writer

    def __enter__(self) -> FileTee:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.finish()
        else:
            self.abort()
