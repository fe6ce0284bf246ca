"""Expressions made by hand."""

from __future__ import annotations

import numpy as np

from rt_swap.aus import NUM_AUS
from rt_swap.contract import TOKEN_DIM
from rt_swap.frames import Expression


def clip(
    values: list[float],
    times_s: list[float],
    duration_s: float,
    valid: list[bool] | None = None,
    model_sha256: str = "a" * 64,
) -> Expression:
    """An expression whose token entries at one time all hold one value; intensities a tenth of
    it.
    """
    column = np.array(values, np.float32)[:, None, None]
    return Expression(
        tokens=np.broadcast_to(column, (len(values), NUM_AUS, TOKEN_DIM)).copy(),
        aus_lr=np.broadcast_to(column / 10, (len(values), NUM_AUS, 2)).copy(),
        times_s=np.array(times_s, np.float64),
        duration_s=duration_s,
        name="by hand",
        model_sha256=model_sha256,
        valid=np.array([True] * len(values) if valid is None else valid),
    )


def still(value: float = 7.0) -> Expression:
    return clip([value], [0.0], 0.0)
