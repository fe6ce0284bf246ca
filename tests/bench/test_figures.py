"""Percentiles, and telling slower from noise."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rt_swap.bench.about import use_cores
from rt_swap.bench.figures import change_of, timing_summary
from rt_swap.errors import ConfigError


def test_timing_summary_known_values() -> None:
    got = timing_summary([float(v) for v in range(100, 0, -1)])
    # nearest rank above, never between two samples
    assert got == {
        "count": 100,
        "mean": 50.5,
        "p50": 51.0,
        "p90": 91.0,
        "p95": 96.0,
        "p99": 100.0,
        "max": 100.0,
        "iqr": 50.0,
    }
    assert timing_summary([7.0])["p99"] == 7.0


def test_timing_summary_one_bad_frame_shows_in_the_p99_of_few() -> None:
    assert timing_summary([1.0] * 50 + [99.0])["p99"] == 99.0


def test_timing_summary_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing was timed"):
        timing_summary([])


def run_of(rng: np.random.Generator, ms: float, frames: int = 2000) -> list[float]:
    """Frame times with slow spells, as a shared machine has them."""
    spells = np.repeat(rng.gamma(2.0, 0.3, frames // 20), 20)
    return list(ms + spells + rng.gamma(2.0, 0.2, frames))


def test_change_of_ten_percent_slower_is_slower_and_the_way_back_faster(
    rng: np.random.Generator,
) -> None:
    old, new = run_of(rng, 20.0), run_of(rng, 22.5)
    there = change_of(old, new)
    assert there.verdict == "slower"
    assert 1.05 < there.low < there.ratio < there.high < 1.2
    assert change_of(new, old).verdict == "faster"


def test_change_of_the_same_program_is_the_same_whatever_the_seed() -> None:
    verdicts = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        old, new = run_of(rng, 20.0), run_of(rng, 20.0)
        verdicts += [change_of(old, new, at).verdict for at in (0.5, 0.99)]
    assert set(verdicts) == {"same"}


def test_change_of_less_than_the_tolerance_is_the_same(rng: np.random.Generator) -> None:
    old, new = run_of(rng, 20.0), run_of(rng, 20.6)
    assert change_of(old, new, tolerance=0.05).verdict == "same"
    assert change_of(old, new, tolerance=0.0).verdict == "slower"


def test_change_of_slow_spells_are_not_many_witnesses(rng: np.random.Generator) -> None:
    # one spell of 300 frames, 30 % slower: the median of single frames moves, but it is one event
    old = list(20 + rng.normal(0, 0.2, 600))
    new = list(20 + rng.normal(0, 0.2, 600))
    new[100:400] = list(26 + rng.normal(0, 0.2, 300))
    assert change_of(old, new).low < 1.05


def test_change_of_tail_that_grew_shows_in_the_p99_only(rng: np.random.Generator) -> None:
    old = list(20 + rng.normal(0, 0.3, 3000))
    new = list(20 + rng.normal(0, 0.3, 3000))
    new[::30] = [40.0] * 100
    assert change_of(old, new, 0.5).verdict == "same"
    assert change_of(old, new, 0.99).verdict == "slower"


@pytest.mark.parametrize(("frames", "fraction"), [(60, 0.5), (400, 0.99)])
def test_change_of_too_few_frames_is_unclear(frames: int, fraction: float) -> None:
    assert change_of([1.0] * frames, [9.0] * frames, fraction).verdict == "unclear"


def test_change_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="without frames"):
        change_of([], [1.0])


def test_use_cores_never_under_one_and_never_more_than_there_are() -> None:
    with pytest.raises(ConfigError, match="--cores"):
        use_cores(0)
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("needs a system with CPU affinity")
    before = os.sched_getaffinity(0)
    try:
        assert use_cores(1) == 1
        assert len(os.sched_getaffinity(0)) == 1
        os.sched_setaffinity(0, before)
        assert use_cores(10_000) == len(before)
    finally:
        os.sched_setaffinity(0, before)
