"""How close two results must be, by what they are. Fix the data first, widen last, write why."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CROP_ATOL = 2e-4
"""Crop, native float32 against reference float64, in units of 1.

Positions are float32 distances from an anchor pixel near the crop's middle: at 1,000 px from it
they are good to 6e-5 px, and noise, the worst picture there is, changes by 1 per pixel in each
direction.
"""

CROP_SMALL_ATOL = 5e-6
"""The same for crops within 50 px of their anchor, where only the arithmetic's own rounding is
left.
"""

COMPOSE_ATOL_LEVELS = 1
"""Compose, grey levels: float32 and float64 may fall on two sides of a rounding tie, never further
apart.
"""

COMPOSE_MAX_DIFFERING = 2e-3
"""Compose, share of channel values that may be one level off. Measured: below 2e-4 on noise in
small frames.
"""


def assert_compose_close(actual: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> None:
    """Asserts that two composed frames agree within the tolerances above."""
    assert actual.shape == expected.shape
    difference = np.abs(actual.astype(np.int16) - expected.astype(np.int16))
    worst, share = int(difference.max(initial=0)), float((difference > 0).mean())
    assert worst <= COMPOSE_ATOL_LEVELS, (
        f"off by {worst} levels at {np.argwhere(difference > 1)[:5].tolist()}"
    )
    assert share <= COMPOSE_MAX_DIFFERING, f"{share:.2e} of all values are one level off"
