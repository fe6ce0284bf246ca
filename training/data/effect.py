"""What a unit of each intensity does to the picture, measured on training shards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rt_swap.aus import AUS, NUM_AUS
from training.data.dataset import FLOW_UNITS_PER_PX, ShardSet

GRID_PX = 32
_FLOOR = {"eyes": 0.4, "gaze": 0.3, "brows": 0.15}
_OTHER_FLOOR = 0.1
"""Added to the metric's diagonal, in units of its mean: what is small in pixels still matters to
whoever looks, most of all around the eyes."""


def effect_factor(shards: ShardSet, quadruples: int = 600) -> npt.NDArray[np.float32]:
    """Cholesky factor of the metric that training.losses.token_effect measures errors in.

    The mean motion per unit of intensity, B, is fitted by ridge regression of the flow between a
    person's two pictures (averaged over a 32 x 32 grid, 0 where nothing can be fetched) on the
    difference of their intensities. The metric is ``B B^T``, scaled to a mean diagonal of 1, plus a
    floor.

    Args:
        shards: Where from.
        quadruples: How many are looked at, evenly spread.

    Returns:
        (2K, 2K) float32 lower triangular L with ``L L^T`` the metric.
    """
    rows = np.unique(np.linspace(0, len(shards) - 1, min(quadruples, len(shards))).astype(int))
    changes, motions = [], []
    block = shards.size_px // GRID_PX
    for row in rows:
        q = shards.quadruple(int(row))
        for into, partner in ((0, 1), (2, 3)):
            seen = np.asarray(q["keep"][into]) > 127
            flow = np.asarray(q["flow"][into], np.float32) * seen / FLOW_UNITS_PER_PX
            motions.append(flow.reshape(2, GRID_PX, block, GRID_PX, block).mean((2, 4)).ravel())
            # the flow fetches: it points from this picture back to its partner
            changes.append((q["aus_lr"][partner] - q["aus_lr"][into]).ravel())
    X, F = np.asarray(changes, np.float64), np.asarray(motions, np.float64)
    B = np.linalg.solve(X.T @ X + np.eye(2 * NUM_AUS), X.T @ F)
    metric = B @ B.T
    metric /= max(float(np.diagonal(metric).mean()), 1e-9)
    floor = np.repeat([_FLOOR.get(au.region, _OTHER_FLOOR) for au in AUS], 2)
    factor: npt.NDArray[np.float32] = np.linalg.cholesky(metric + np.diag(floor)).astype(np.float32)
    return factor
