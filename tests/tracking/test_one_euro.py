from __future__ import annotations

import math

import numpy as np
import pytest

from rt_swap.errors import ConfigError
from rt_swap.tracking.one_euro import OneEuroFilter, smoothing_factor


def paper(samples: list[float], dts: list[float], fc_min: float, beta: float, fc_d: float):
    """Algorithm 1 of the paper, written down once more, for one number and without a class."""
    out, x_hat, dx_hat, last = [], 0.0, 0.0, 0.0
    for i, (x, dt) in enumerate(zip(samples, dts, strict=True)):
        if i == 0:
            x_hat, dx_hat = x, 0.0
        else:
            dx = (x - last) / dt
            a_d = 1 / (1 + 1 / (2 * math.pi * fc_d) / dt)
            dx_hat = a_d * dx + (1 - a_d) * dx_hat
            a = 1 / (1 + 1 / (2 * math.pi * (fc_min + beta * abs(dx_hat))) / dt)
            x_hat = a * x + (1 - a) * x_hat
        last = x
        out.append(x_hat)
    return out


def test_golden_smoothing_factor():
    # python -c "import math; r = 2 * math.pi * 1.0 / 60; print(r / (1 + r))"
    assert smoothing_factor(1.0, 1 / 60) == pytest.approx(0.09479305, abs=1e-8)


def test_one_euro_follows_the_paper_at_varying_rate(rng):
    samples = list(np.cumsum(rng.normal(0, 1, 50)))
    dts = list(rng.uniform(0.005, 0.2, 50))
    one = OneEuroFilter(min_cutoff_hz=0.7, beta=0.4, derivative_cutoff_hz=1.3)
    got = [float(one.update(np.array([x]), dt)[0]) for x, dt in zip(samples, dts, strict=True)]
    np.testing.assert_allclose(got, paper(samples, dts, 0.7, 0.4, 1.3), rtol=1e-12)


def test_one_euro_first_sample_and_after_reset_passes():
    one = OneEuroFilter(min_cutoff_hz=0.1)
    assert one.value is None
    assert one.update(np.array([5.0]), 0.03)[0] == 5.0
    assert one.update(np.array([9.0]), 0.03)[0] < 6.0
    one.reset()
    assert one.value is None
    assert one.update(np.array([9.0]), 0.03)[0] == 9.0


def test_one_euro_does_not_depend_on_the_axes(rng):
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    path = np.cumsum(rng.normal(0, 3, (40, 2)), 0)
    straight, turned = (OneEuroFilter(min_cutoff_hz=1, beta=0.5) for _ in range(2))
    for point in path:
        expected = turn @ straight.update(point, 0.04)
        np.testing.assert_allclose(turned.update(turn @ point, 0.04), expected, atol=1e-9)


def test_one_euro_filters_each_row_of_a_matrix_by_itself(rng):
    path = np.cumsum(rng.normal(0, 3, (40, 5, 2)), 0) * np.array([[[1], [2], [0], [5], [1]]])
    together = OneEuroFilter(min_cutoff_hz=1, beta=0.5)
    apart = [OneEuroFilter(min_cutoff_hz=1, beta=0.5) for _ in range(5)]
    for points in path:
        rows = [one.update(row, 0.04) for one, row in zip(apart, points, strict=True)]
        np.testing.assert_allclose(together.update(points, 0.04), rows, rtol=1e-12)


def test_one_euro_unit_makes_it_independent_of_resolution(rng):
    path = np.cumsum(rng.normal(0, 3, (40, 2)), 0)
    small, large = (OneEuroFilter(min_cutoff_hz=1, beta=5) for _ in range(2))
    for point in path:
        expected = 4 * small.update(point, 0.04, unit=100)
        np.testing.assert_allclose(large.update(4 * point, 0.04, unit=400), expected, atol=1e-9)


def test_one_euro_beta_buys_lag_for_speed():
    lag = []
    for beta in (0.0, 1.0):
        one = OneEuroFilter(min_cutoff_hz=1.0, beta=beta)
        for i in range(60):
            value = one.update(np.array([i * 1.0]), 1 / 30)[0]
        lag.append(59 - value)
    assert lag[0] > 4
    assert lag[1] < 0.5


def test_one_euro_leaves_its_input_alone():
    sample = np.array([1.0, 2.0])
    one = OneEuroFilter()
    out = one.update(sample, 0.1)
    sample[0] = 99
    assert out[0] == 1.0
    assert one.update(np.array([1.0, 2.0]), 0.1)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"min_cutoff_hz": 0.0},
        {"beta": -1.0},
        {"derivative_cutoff_hz": -2.0},
        {"beta": math.nan},
        {"min_cutoff_hz": math.inf},
    ],
)
def test_one_euro_option_out_of_range_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        OneEuroFilter(**options)
