"""Percentiles are right within a percent, however many values there were."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from rt_swap.metrics import Metrics, Percentiles, stage


@pytest.mark.parametrize("scale", [0.01, 1.0, 500.0])
def test_percentiles_match_numpy(rng: np.random.Generator, scale: float) -> None:
    values = rng.lognormal(0.0, 0.7, 5000) * scale
    percentiles = Percentiles()
    for value in values:
        percentiles.add(float(value))
    for fraction in (0.0, 0.01, 0.5, 0.95, 0.99, 1.0):
        expected = np.quantile(values, fraction, method="inverted_cdf")
        assert percentiles.at(fraction) == pytest.approx(expected, rel=0.0101)
    assert percentiles.count == 5000
    assert percentiles.total_ms == pytest.approx(values.sum())
    assert percentiles.max_ms == values.max()


def test_percentiles_of_few_values_are_the_values() -> None:
    percentiles = Percentiles()
    assert math.isnan(percentiles.at(0.5))
    assert percentiles.summary() == {"count": 0}
    percentiles.add(7.25)
    assert percentiles.at(0.0) == percentiles.at(0.5) == percentiles.at(1.0) == 7.25
    assert percentiles.summary() == {
        "count": 1,
        "mean": 7.25,
        "p50": 7.25,
        "p95": 7.25,
        "p99": 7.25,
        "max": 7.25,
    }


def test_percentiles_take_zero_and_huge() -> None:
    percentiles = Percentiles()
    for value in (0.0, 1e9):
        percentiles.add(value)
    assert percentiles.at(0.5) == pytest.approx(0.0, abs=1e-3)
    assert percentiles.max_ms == 1e9


def test_stage_adds_up_and_counts_failures_too() -> None:
    stage_ms: dict[str, float] = {}
    with stage(stage_ms, "a"):
        time.sleep(0.002)
    first = stage_ms["a"]
    assert first >= 2.0
    with pytest.raises(KeyError), stage(stage_ms, "a"):
        raise KeyError
    assert stage_ms["a"] > first


def test_metrics_summary() -> None:
    metrics = Metrics()
    assert metrics.fps == 0.0
    metrics.start()
    for _ in range(3):
        captured_s = time.perf_counter()
        time.sleep(0.001)
        metrics.record({"track": 2.0, "crop": 1.0}, captured_s)
    metrics.dropped = 4
    summary = metrics.summary()
    assert metrics.frames == 3
    assert metrics.fps > 0
    assert summary["dropped"] == 4
    assert list(metrics.stages) == ["track", "crop"]
    assert metrics.stages["track"].at(0.5) == 2.0
    assert metrics.age.count == 3
    assert metrics.age.at(0.0) >= 1.0
