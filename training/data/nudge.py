"""Other expressions of a rendered picture, without rendering it again.

A rendered face is linear in its units and its shard says how each moves it, so a picture can be
given a little more or less of some units by moving its pixels, and its labels follow. That costs a
thousandth of rendering and gives the encoder endless faces that differ by little: what it reads
worst. Folds do not follow, and what is hidden stays hidden; so the changes are small, and units
that open mouth or eyes are left to the renderer. (Less of a chin raiser or a dimpler may part lips
by a twentieth of what the jaw does: there they are stretched.)
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from rt_swap.aus import AUS, NUM_AUS, AuId
from training.data.layout import FIELDS_SIDE, NOTHING

NUDGED: Final = tuple(
    AuId[f"AU{n}"].index for n in (1, 2, 4, 6, 7, 12, 14, 15, 17, 18, 20, 24, 29, 30, 33)
)
"""Units that move skin and open next to nothing."""
_MORE_ONLY: Final = tuple(AuId[f"AU{n}"].index for n in (6, 7))
"""Less of these opens eyes."""
_ONE_WAY: Final = AuId.AU30.index
"""Its sides are ways that a jaw goes: one at a time."""
MOST_UNITS: Final = 5
MOST_CHANGE: Final = 0.5
MOST_PX: Final = 6.0
"""Longest way, pixels of a 256-px crop; larger changes are made smaller."""
_BOTH_SIDES: Final = 0.75
_STEPS: Final = 4
"""Of the search for where a place came from."""


def draw_change(
    aus_lr: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A change of a few units.

    Args:
        aus_lr: (K, 2) intensities before.
        rng: Source of chance.

    Returns:
        (K, 2), such that the sum stays in [0, 1].
    """
    change = np.zeros((NUM_AUS, 2), np.float32)
    for k in rng.choice(NUDGED, int(rng.integers(1, MOST_UNITS + 1)), replace=False):
        sides = np.full(2, rng.uniform(0.0 if k in _MORE_ONLY else -MOST_CHANGE, MOST_CHANGE))
        if k == _ONE_WAY:
            left, right = aus_lr[k]  # on the way that it has gone, if any
            sides[int(rng.integers(2)) if left == right else int(left > right)] = 0.0
        elif AUS[k].is_midline:
            pass  # no picture tells its sides apart
        elif rng.random() < _BOTH_SIDES:
            sides = sides + rng.normal(0.0, 0.08, 2)
        else:
            sides[int(rng.integers(2))] = 0.0
        change[k] = (aus_lr[k] + sides).clip(0.0, 1.0) - aus_lr[k]
    return change


def way_back(
    steps: npt.NDArray[np.int8],
    step_px: npt.NDArray[np.float32],
    change: npt.NDArray[np.float32],
    full_px: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Where each cell's middle of the changed picture is fetched from.

    Args:
        steps: (F, F, K, 2, 2) int8, a picture's fields as its shard has them.
        step_px: (K, 2).
        change: (K, 2) of the intensities.
        full_px: Side of the shard's pictures.

    Returns:
        (F, F, 2) float32, pixels to add to a place, order (x, y); and the change made, which is
        ``change`` or, where that would move something too far, a part of it.
    """
    weights = (step_px * change).reshape(-1)
    units = np.flatnonzero(weights)
    seen = steps[:, :, 0, 0, 0] != NOTHING
    flat = steps.reshape(FIELDS_SIDE, FIELDS_SIDE, 2 * NUM_AUS, 2)
    way = np.zeros((FIELDS_SIDE, FIELDS_SIDE, 2), np.float32)
    for unit in units:
        way += flat[:, :, unit].astype(np.float32) * weights[unit]
    way[~seen] = 0.0
    longest = float(np.sqrt(np.square(way).sum(2).max()))
    part = np.float32(min(1.0, MOST_PX * full_px / 256.0 / max(longest, 1e-6)))
    way *= part
    # skin ends where the mesh ends, its motion must not: it fades over the cells around
    known = seen.astype(np.float32)
    spread = (
        cv2.GaussianBlur(way, (0, 0), 1.5)
        / np.maximum(cv2.GaussianBlur(known, (0, 0), 1.5), 0.3)[:, :, None]
    )
    way = np.where(seen[:, :, None], way, spread)
    x, y = came_from(way * np.float32(FIELDS_SIDE / full_px), _STEPS)
    at = np.arange(FIELDS_SIDE, dtype=np.float32)
    back = np.stack([x - at[None, :], y - at[:, None]], axis=2)
    return back * np.float32(full_px / FIELDS_SIDE), change * part


def came_from(
    way: npt.NDArray[np.float32], steps: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Where what is in each cell now was: the place that goes here, by fixed-point iteration.

    Args:
        way: (F, F, 2) cells, order (x, y): where what is in a cell's middle goes.
        steps: Of the search.

    Returns:
        x and y, (F, F) each, cells.
    """
    at = np.arange(way.shape[0], dtype=np.float32)
    x0, y0 = np.meshgrid(at, at)
    x, y = x0, y0
    for _ in range(steps):
        gone: Any = cv2.remap(way, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x, y = x0 - gone[..., 0], y0 - gone[..., 1]
    return x, y


def added(
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    back: npt.NDArray[np.float32],
    full_px: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Maps of Geometry.maps that fetch from the changed picture.

    Args:
        maps: X and y in the shard's picture, OpenCV's counting.
        back: From :func:`way_back`.
        full_px: Side of the shard's pictures.
    """
    x, y = maps
    to_cells = np.float32(FIELDS_SIDE / full_px)
    # a cell's middle lies half a cell from its corner, as a pixel's does
    more: Any = cv2.remap(
        back, (x + 0.5) * to_cells - 0.5, (y + 0.5) * to_cells - 0.5, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return x + more[..., 0], y + more[..., 1]
