"""Steadies a face's landmarks in its crop.

The crop itself is steady already (stabiliser), and what is left of a tracker's trembling, some
tenths of a pixel, makes whatever is drawn at landmarks swim on the skin.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from rt_swap.frames import F64
from rt_swap.tracking.one_euro import OneEuroFilter

MIN_CUTOFF_HZ: Final = 1.5
BETA: Final = 0.05
"""Hertz per pixel of the crop and second: a blink or a word passes nearly as it is."""
DERIVATIVE_CUTOFF_HZ: Final = 5.0
"""The steadier of two settings tried on eight held-out sequences (training.evaluate_sequences);
neither cost any correlation."""
JUMP_PX: Final = 12.0
"""Where most landmarks are farther than this from where they were, the filter starts afresh."""
GAP_S: Final = 0.5
"""So it does after so long without a face."""


class LandmarkSteadier:
    """A One-Euro filter for each landmark, that starts afresh with another face, after a gap, a
    jump, and where time runs back.
    """

    def __init__(self) -> None:
        self._filter = OneEuroFilter(
            min_cutoff_hz=MIN_CUTOFF_HZ, beta=BETA, derivative_cutoff_hz=DERIVATIVE_CUTOFF_HZ
        )
        self._last: tuple[int, float] | None = None

    def update(self, landmarks_xy: F64, track_id: int, time_s: float) -> F64:
        """Take in the next picture's.

        Args:
            landmarks_xy: (V, 2) pixels of a 256-px crop, finite.
            track_id: Whose they are.
            time_s: The picture's time.

        Returns:
            (V, 2) the same, steadier.
        """
        before = self._filter.value
        dt_s = 0.0
        if self._last is not None and self._last[0] == track_id:
            dt_s = time_s - self._last[1]
        self._last = track_id, time_s
        if before is not None and not (
            0.0 < dt_s <= GAP_S
            and before.shape == landmarks_xy.shape
            and np.median(np.linalg.norm(landmarks_xy - before, axis=1)) <= JUMP_PX
        ):
            self._filter.reset()
        return self._filter.update(landmarks_xy, max(dt_s, 1e-3))
