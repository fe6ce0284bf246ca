"""Other people's shapes for rendered pictures, without rendering them again.

What a person's landmarks have that their expression does not explain is the shape of their face
(and a little of how the head is turned). From many people's it is known how faces differ, and a
person can be lent such a difference by moving pixels: all their pictures alike, labels as they
were. A network that reads expressions then never meets the same resting face twice, and cannot
know it by heart. Rendering a new shape (training.data.shards, ``--reshaped``) does that better, but
only as often as it is rendered.

Only what is alike on both sides of the face is lent: the other part is mostly the head's turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rt_swap.contract import CROP_SIZE_PX, NUM_LANDMARKS
from rt_swap.errors import ConfigError
from training.data.correspond import mirror_landmarks
from training.data.layout import FIELDS_SIDE

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

MODES: Final = 30
"""Principal ways in which faces differ; more are the tracker's noise."""
FEWEST_PEOPLE: Final = 2 * MODES
RIDGE: Final = 30.0
"""Of the regression of landmarks on intensities."""
MOST_PX: Final = 10.0
"""Longest way of a landmark, pixels of a 256-px crop; larger differences are made smaller."""
WIDTH_PX: Final = 5.0
"""Standard deviation of a landmark's say over the pixels around where it went, 256-px crop."""
_FLOOR: Final = 0.005
"""Weight of "nothing moves" beside the landmarks': it decides where none is near."""


@dataclass(frozen=True)
class Shapes:
    """How the shapes of people's faces differ.

    Attributes:
        modes: (M, 478, 2) pixels of a 256-px crop, each one standard deviation long, alike on both
            sides of the face.
    """

    modes: F32

    def draw(self, rng: np.random.Generator, spread: float) -> F32:
        """A difference between two shapes.

        Args:
            rng: Source of chance.
            spread: Standard deviations of people; 1 lends about as much as a person's own.

        Returns:
            (478, 2) pixels of a 256-px crop, order (x, y), no longer than MOST_PX.
        """
        weights = rng.normal(0.0, spread, len(self.modes)).astype(np.float32)
        way = np.tensordot(weights, self.modes, 1)
        longest = float(np.sqrt(np.square(way).sum(1).max()))
        return np.asarray(way * np.float32(min(1.0, MOST_PX / max(longest, 1e-6))), np.float32)


def shapes_of(landmarks_xy: F64, aus_lr: F32, people: npt.NDArray[np.int64]) -> Shapes:
    """Learn how shapes differ.

    Args:
        landmarks_xy: (N, 478, 2) pixels of a 256-px crop, NaN where no face was found.
        aus_lr: (N, K, 2) intensities in [0, 1].
        people: (N,) who it is.

    Raises:
        ConfigError: If there are fewer than FEWEST_PEOPLE.
    """
    found = ~np.isnan(landmarks_xy).any((1, 2))
    points, who = landmarks_xy[found], people[found]
    names, who = np.unique(who, return_inverse=True)
    if len(names) < FEWEST_PEOPLE:
        raise ConfigError(
            f"augment.reshape: shapes of at least {FEWEST_PEOPLE} people are needed to lend, the "
            f"shards show {len(names)}; render more, or set augment.reshape=0"
        )
    mean = points.mean(0)
    shown = aus_lr[found].reshape(len(points), -1).astype(np.float64)
    shown -= shown.mean(0)
    off = (points - mean).reshape(len(points), -1)
    by_unit = np.linalg.solve(shown.T @ shown + RIDGE * np.eye(shown.shape[1]), shown.T @ off)
    own = np.zeros((len(names), off.shape[1]))
    np.add.at(own, who, off - shown @ by_unit)
    own /= np.bincount(who)[:, None]
    shapes = own.reshape(-1, NUM_LANDMARKS, 2)
    shapes = (shapes + shapes[:, mirror_landmarks(mean)] * (-1.0, 1.0)) / 2
    flat = (shapes - shapes.mean(0)).reshape(len(shapes), -1)
    _, deviations, modes = np.linalg.svd(flat, full_matrices=False)
    kept = deviations[:MODES, None] * modes[:MODES] / len(shapes) ** 0.5
    return Shapes(kept.reshape(-1, NUM_LANDMARKS, 2).astype(np.float32))


def way_back(landmarks_xy: F32, way_xy: F32, full_px: int) -> F32:
    """Where each cell's middle of the reshaped picture is fetched from: a mean of the landmarks'
    ways back, weighted by Gaussians around where they have gone (Nadaraya 1964; Watson 1964).

    Args:
        landmarks_xy: (478, 2) of the picture as it is, pixels of a 256-px crop.
        way_xy: (478, 2) how each moves, the same.
        full_px: Side of the picture.

    Returns:
        (F, F, 2) float32, pixels of the picture to add to a place, order (x, y), for
        training.data.nudge.added.
    """
    gone = landmarks_xy + way_xy
    middles = (np.arange(FIELDS_SIDE, dtype=np.float32) + 0.5) * (CROP_SIZE_PX / FIELDS_SIDE)
    across, down = (
        np.exp(-0.5 * np.square((middles[None] - gone[:, axis, None]) / np.float32(WIDTH_PX)))
        for axis in (0, 1)
    )  # (478, F) each
    total = down.T @ across + np.float32(_FLOOR)
    back = np.stack([down.T @ (across * -way_xy[:, axis, None]) for axis in (0, 1)], axis=2)
    return np.asarray(back / total[:, :, None] * np.float32(full_px / CROP_SIZE_PX), np.float32)
