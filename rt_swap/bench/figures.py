"""Numbers out of samples: percentiles, and whether one run was slower than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rt_swap.errors import ConfigError
from rt_swap.frames import F64

PERCENTS: Final = (50, 90, 95, 99)
_RESAMPLES: Final = 2000
_CONFIDENCE: Final = 0.99
_BLOCKS: Final = 20
"""Blocks that a run is cut into; frames within one are alike, blocks hardly."""
_LEAST_FRAMES: Final = 100
_SEED: Final = 20211


def timing_summary(
    samples_ms: Sequence[float], percents: Sequence[int] = PERCENTS
) -> dict[str, float | int]:
    """Percentiles of durations.

    Args:
        samples_ms: At least one, milliseconds.
        percents: Which ones.

    Returns:
        count, mean, p50, ..., max and iqr (75th minus 25th percentile), rounded to microseconds.
        Percentiles are observed values (nearest rank above), never interpolated below a sample that
        was worse.

    Raises:
        ConfigError: If there is none.
    """
    if not len(samples_ms):
        raise ConfigError("timing_summary: nothing was timed")
    samples = np.asarray(samples_ms, np.float64)

    def at(percent: float) -> float:
        return round(float(np.percentile(samples, percent, method="higher")), 3)

    return {
        "count": len(samples),
        "mean": round(float(samples.mean()), 3),
        **{f"p{percent}": at(percent) for percent in percents},
        "max": at(100),
        "iqr": round(at(75) - at(25), 3),
    }


@dataclass(frozen=True)
class Change:
    """How a quantile moved from an old run to a new one.

    Attributes:
        old_ms: The old run's.
        new_ms: The new run's.
        ratio: new / old.
        low: Lower end of the ratio's confidence interval.
        high: Upper end.
        verdict: "slower", "faster", "same" (what moved is within the noise) or "unclear" (too few
            frames to tell).
    """

    old_ms: float
    new_ms: float
    ratio: float
    low: float
    high: float
    verdict: str


def change_of(
    old_ms: Sequence[float],
    new_ms: Sequence[float],
    fraction: float = 0.5,
    *,
    tolerance: float = 0.05,
) -> Change:
    """Tell whether a quantile got worse beyond the noise.

    The frames of each run are resampled in blocks of neighbours (the moving-block bootstrap of
    Kuensch, Annals of Statistics 17, 1989: a slow spell lasts for many frames, and resampling
    single frames would take it for many independent witnesses). The 99 % interval of the ratio
    new / old must lie wholly beyond 1 + tolerance to count as slower. The interval knows the noise
    *within* each run; the tolerance stands for what differs *between* two runs of the same program
    (memory layout, clocks, neighbours), which one run cannot know.

    Args:
        old_ms: Frame times of the old run, in order.
        new_ms: Of the new run.
        fraction: Which quantile; 0.5 is the median.
        tolerance: Least relative change that counts, 0 or more.

    Raises:
        ConfigError: If a run has no frames.
    """
    old, new = np.asarray(old_ms, np.float64), np.asarray(new_ms, np.float64)
    if not len(old) or not len(new):
        raise ConfigError("change_of: a run without frames cannot be compared")
    rng = np.random.default_rng(_SEED)
    ratios = _quantiles(new, fraction, rng) / np.maximum(_quantiles(old, fraction, rng), 1e-9)
    edge = (1 - _CONFIDENCE) / 2
    low, high = (float(v) for v in np.quantile(ratios, [edge, 1 - edge]))
    was, now = (float(np.quantile(v, fraction, method="higher")) for v in (old, new))
    # a quantile rests on the frames beyond it; fewer than five of them say nothing
    least = max(_LEAST_FRAMES, 5 / min(fraction, 1 - fraction))
    if min(len(old), len(new)) < least:
        verdict = "unclear"
    elif low > 1 + tolerance:
        verdict = "slower"
    elif high < 1 / (1 + tolerance):
        verdict = "faster"
    else:
        verdict = "same"
    return Change(was, now, now / max(was, 1e-9), low, high, verdict)


def _quantiles(samples: F64, fraction: float, rng: np.random.Generator) -> F64:
    """The quantile of each of many resampled runs."""
    length = max(len(samples) // _BLOCKS, 1)
    number = -(-len(samples) // length)
    starts = rng.integers(0, len(samples) - length + 1, (_RESAMPLES, number))
    # sorted once, a resample is a multiset of ranks: quantiles of ranks are exact and quick
    order = np.argsort(samples, kind="stable")
    rank = np.empty(len(samples), np.int64)
    rank[order] = np.arange(len(samples))
    place = min(int(np.ceil(fraction * number * length)), number * length) - 1
    found = np.empty(_RESAMPLES)
    for i, begins in enumerate(starts):
        taken = rank[(begins[:, None] + np.arange(length)).ravel()]
        found[i] = samples[order[np.partition(taken, max(place, 0))[max(place, 0)]]]
    return found
