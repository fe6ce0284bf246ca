"""A second camera as the source: its face's tokens, read on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Final

from rt_swap.errors import RtSwapError
from rt_swap.frames import F32
from rt_swap.live.calibration import Moment, Neutral, NeutralSearch
from rt_swap.live.grabber import CameraState, Grabber
from rt_swap.live.voice import approach
from rt_swap.swapper import Swapper

logger = logging.getLogger(__name__)

_SMOOTH_S: Final = 0.04
"""Time constant of the tokens: tracking noise goes, a smile does not come late."""
_REST_AFTER_S: Final = 1.0
"""Without a face for so long, the expression returns to rest, where rest is known."""
_REST_S: Final = 0.4


class SecondCamera:
    """Gives the expression of whoever is before another camera. A TokenSource of the live engine.

    While their face is out of sight their last expression stays; after a second it returns to
    their resting face. The resting face is searched for, or given.

    Args:
        swapper: The model; it reads with a tracker and a network of their own.
        grabber: The other camera, started. It is closed with this.
        neutral: Their resting face, if it was kept.

    Raises:
        BackendError: If the model cannot be loaded.
    """

    def __init__(
        self, swapper: Swapper, grabber: Grabber, *, neutral: Neutral | None = None
    ) -> None:
        self._swapper, self._grabber = swapper, grabber
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._neutral = neutral
        self._search = NeutralSearch() if neutral is None else None
        self._tokens: F32 | None = None
        self._read_s = 0.0
        self._seen_s = 0.0
        self.failure: str | None = None
        self.frames = 0
        self._thread = threading.Thread(target=self._go, name="rt_swap second", daemon=True)
        self._thread.start()

    def tokens_at(self, time_s: float) -> F32 | None:
        """(K, D) now; None before the first face."""
        with self._lock:
            return self._tokens

    def neutral(self) -> F32 | None:
        """(K, D) the resting face, or None while it is not known."""
        with self._lock:
            return self._neutral.tokens if self._neutral is not None else None

    def _go(self) -> None:
        try:
            with self._swapper.live_reader() as read:
                while not self._stop.is_set():
                    frame = self._grabber.take(0.1)
                    if frame is None:
                        if self._grabber.report.state is CameraState.ENDED:
                            return
                        self._rest(time.perf_counter())
                        continue
                    face = read(frame)
                    self.frames += 1
                    if face is None:
                        self._rest(frame.time_s)
                    else:
                        self._take(frame.time_s, *face)
        except RtSwapError as error:
            self.failure = str(error)
            logger.warning("second camera: %s", error)

    def _take(self, time_s: float, tokens: F32, aus_lr: F32) -> None:
        if self._search is not None:
            found = self._search.add(Moment(time_s, tokens, aus_lr))
            if found is not None:
                with self._lock:
                    self._neutral = found
        smooth = tokens
        if self._tokens is not None and time_s - self._seen_s < 0.5:
            smooth = approach(self._tokens, tokens, time_s - self._read_s, _SMOOTH_S)
        self._seen_s = self._read_s = time_s
        with self._lock:
            self._tokens = smooth

    def _rest(self, time_s: float) -> None:
        dt_s, self._read_s = time_s - self._read_s, time_s
        neutral = self.neutral()
        if self._tokens is None or neutral is None or time_s - self._seen_s < _REST_AFTER_S:
            return
        moved = approach(self._tokens, neutral, dt_s, _REST_S)
        with self._lock:
            self._tokens = moved

    def close(self) -> None:
        """End the thread and close the camera; harmless when done twice."""
        self._stop.set()
        self._grabber.close()
        self._thread.join(timeout=5.0)

    def __enter__(self) -> SecondCamera:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
