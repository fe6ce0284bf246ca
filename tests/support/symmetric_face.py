"""A made-up mean face whose sides are mirror images."""

from __future__ import annotations

import numpy as np

from rt_swap.contract import NUM_LANDMARKS
from training.data.correspond import MIDDLE_LANDMARKS


def symmetric_face(rng: np.random.Generator) -> np.ndarray:
    """(478, 2): neighbours in number lie opposite each other, six points in the middle."""
    points = np.empty((NUM_LANDMARKS, 2))
    sides = [i for i in range(NUM_LANDMARKS) if i not in MIDDLE_LANDMARKS]
    middle = list(MIDDLE_LANDMARKS) + [sides.pop()]  # an even number is left
    points[middle] = np.stack([np.full(len(middle), 128.0), rng.uniform(50, 200, len(middle))], 1)
    half = np.stack(
        [rng.uniform(10, 80, len(sides) // 2), rng.uniform(40, 220, len(sides) // 2)], 1
    )
    points[sides[::2]] = half * (-1, 1) + (128, 0)
    points[sides[1::2]] = half + (128, 0)
    return points
