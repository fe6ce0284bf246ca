"""How a rendered face moves with each of its units, and taking a flow apart into such motions.

A rendered face is linear in its units: what is shown at a place came from there less the sum, over
intensities, of change times field (training.data.render; 0.1 % of the motion is left over), but for
eyeballs, which turn: their fields are those of the gaze that a picture shows. So what
one unit alone would do is known for every rendered picture, and a flow can be asked how much of
each unit is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from rt_swap.aus import NUM_AUS
from rt_swap.errors import ConfigError
from rt_swap.frames import F32, F64
from training.data.layout import FIELDS_SIDE, NOTHING
from training.data.nudge import came_from

if TYPE_CHECKING:
    from training.evaluate import Quadruple

RIDGE: Final = 0.02
"""Of the least squares, columns scaled to length 1: units that move the same places alike share
what they cannot be told apart by."""
FETCHED: Final = 0.5
"""Least ``keep`` of a place whose flow is looked at."""
_STEPS: Final = 6
"""Of the search for where a place came from; one is right to half a pixel already."""


@dataclass(frozen=True)
class UnitFields:
    """What one unit of each intensity does to a picture.

    Attributes:
        moved_px: (F, F, 2K, 2) float32, pixels of the crop, order (x, y): where what is shown in
            a cell's middle goes. 0 off the face's mesh.
        seen: (F, F) bool, where the mesh is.
        side_px: Of the crop.
    """

    moved_px: F32
    seen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    side_px: int

    @classmethod
    def of(cls, quad: Quadruple, picture: int) -> UnitFields:
        """Those of a quadruple's picture.

        Raises:
            ConfigError: If its shard holds pictures only.
        """
        if quad.fields is None or quad.step_px is None:
            raise ConfigError(
                "a shard holds pictures only, without the fields of units; render it without "
                "--pictures-only (training.data.shards)"
            )
        steps = quad.fields[picture].reshape(FIELDS_SIDE, FIELDS_SIDE, 2 * NUM_AUS, 2)
        seen = steps[..., 0, 0] != NOTHING
        moved = np.where(seen[..., None, None], steps, 0).astype(np.float32)
        moved *= quad.step_px[picture].reshape(2 * NUM_AUS, 1)
        return cls(moved, seen, quad.rgb.shape[2])


def moved_alone(fields: UnitFields, au: int, change_lr: F64) -> UnitFields:
    """The fields of the picture in which one AU has changed and nothing else.

    Args:
        fields: Before.
        au: Which, index.
        change_lr: (2,) of its intensity, [left, right].

    Returns:
        Each place has the fields of what is shown there now.
    """
    to_cells = np.float32(fields.moved_px.shape[0] / fields.side_px)
    way = _sum(fields.moved_px[:, :, 2 * au : 2 * au + 2], change_lr) * to_cells
    side = way.shape[0]
    x, y = came_from(way, _STEPS)
    flat = fields.moved_px.reshape(side, side, -1)
    moved = cv2.remap(flat, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.remap(fields.seen.astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=0) > 0.99
    moved = np.where(seen[..., None], moved, np.float32(0)).reshape(fields.moved_px.shape)
    return UnitFields(moved, seen, fields.side_px)


@dataclass(frozen=True)
class Apart:
    """A flow, taken apart. All are root mean squares over the face, pixels.

    Attributes:
        motion_px: (K,) float64: for the AU asked for the flow's part along the motion that was
            asked for; for each other its part in what is left, negative where it goes back.
        asked_px: The motion asked for.
        other_px: What is left, the asked AU's own motion on a side that was not asked included.
    """

    motion_px: F64
    asked_px: float
    other_px: float


def taken_apart(fields: UnitFields, flow_xy: F32, keep: F32, au: int, change_lr: F64) -> Apart:
    """How much of each AU a flow has.

    The motion asked for is taken out first (a projection), and what is left is shared out by least
    squares: a flow that is just what was asked for has nothing else, also where two AUs are each
    other's opposites, as looking left and looking right.

    Args:
        fields: Of the picture that the flow should make.
        flow_xy: (2, S, S) pixels, from each place to where its content is fetched: minus the way
            that content goes.
        keep: (S, S) [0, 1], where content is fetched; where it is painted no flow means anything.
        au: Index of the AU asked for.
        change_lr: (2,) asked for, [left, right].
    """
    side = fields.moved_px.shape[0]
    seen = fields.seen & (_middles(keep[None]).min(-1) > FETCHED)
    way = -_middles(flow_xy)[seen].astype(np.float64).reshape(-1)
    by_unit = fields.moved_px[seen].astype(np.float64).transpose(0, 2, 1)
    by_unit = by_unit.reshape(len(way), 2 * NUM_AUS)
    asked = by_unit[:, 2 * au : 2 * au + 2] @ change_lr
    along = float(asked @ way / max(asked @ asked, 1e-12))
    left = way - along * asked

    power = np.square(by_unit).sum(0)
    columns = by_unit / np.sqrt(np.maximum(power, 1e-6 * side**2))  # a still unit stays nothing
    amounts = np.linalg.solve(columns.T @ columns + RIDGE * np.eye(2 * NUM_AUS), columns.T @ left)
    by_au = (columns * amounts).reshape(len(way), NUM_AUS, 2).sum(2)
    signs = np.sign(amounts.reshape(NUM_AUS, 2).sum(1))
    root = np.sqrt(max(len(way) / 2, 1.0))
    motion = signs * np.linalg.norm(by_au, axis=0) / root
    asked_px = float(np.linalg.norm(asked) / root)
    motion[au] = along * asked_px
    return Apart(motion, asked_px, float(np.linalg.norm(left) / root))


def _middles(maps: F32) -> F32:
    """(C, S, S) -> (F, F, C): means of the four pixels about each cell's middle."""
    step, at = maps.shape[1] // FIELDS_SIDE, maps.shape[1] // FIELDS_SIDE // 2
    cells = maps.reshape(-1, FIELDS_SIDE, step, FIELDS_SIDE, step)
    middles: F32 = cells[:, :, at - 1 : at + 1, :, at - 1 : at + 1].mean((2, 4))
    return middles.transpose(1, 2, 0)


def _sum(fields: F32, change_lr: F64) -> F32:
    """(F, F, 2, 2) and (2,) -> (F, F, 2)."""
    total: F32 = np.einsum("hwuc,u->hwc", fields, change_lr.astype(np.float32))
    return np.ascontiguousarray(total)
