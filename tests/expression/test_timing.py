"""Time mapping: every timing at its edges, gaps where no face was seen, and neutral faces."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap.aus import NUM_AUS
from rt_swap.contract import TOKEN_DIM
from rt_swap.errors import ConfigError, ContractError
from rt_swap.expression import TIMINGS, at, aus_at, is_over, moment_of, neutral_tokens
from rt_swap.frames import Expression
from tests.support.expressions import clip, still

# three frames of one second each: 0, 10, 40
RAMP = clip([0.0, 10.0, 40.0], [0.0, 1.0, 2.0], 3.0)


def value_at(
    expression: Expression, time_s: float, timing: str, target_duration_s: float | None = None
) -> float:
    tokens = at(expression, time_s, timing, target_duration_s)
    assert tokens.shape == (NUM_AUS, TOKEN_DIM)
    assert tokens.dtype == np.float32
    assert np.ptp(tokens) == 0
    aus_lr = aus_at(expression, time_s, timing, target_duration_s)
    np.testing.assert_allclose(aus_lr, tokens[0, 0] / 10, atol=1e-5)
    return float(tokens[0, 0])


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("time_s", [-1.0, 0.0, 5.0, 1e6])
def test_still_is_the_same_at_every_moment(timing: str, time_s: float) -> None:
    assert value_at(still(7.0), time_s, timing) == 7.0
    assert not is_over(still(), time_s, timing)


@pytest.mark.parametrize("timing", ["hold", "loop", "trim"])
@pytest.mark.parametrize(
    ("time_s", "value"), [(0.0, 0.0), (0.25, 2.5), (1.0, 10.0), (1.5, 25.0), (2.0, 40.0), (-3.0, 0)]
)
def test_inside_the_clip_entries_are_interpolated(timing: str, time_s: float, value: float) -> None:
    assert value_at(RAMP, time_s, timing) == pytest.approx(value)


@pytest.mark.parametrize(("time_s", "value"), [(2.5, 40.0), (3.0, 40.0), (100.0, 40.0)])
def test_hold_keeps_the_last_entry(time_s: float, value: float) -> None:
    assert value_at(RAMP, time_s, "hold") == value


@pytest.mark.parametrize(
    ("time_s", "value"),
    [(2.5, 20.0), (2.75, 10.0), (3.0, 0.0), (3.5, 5.0), (5.5, 20.0), (300.25, 2.5)],
)
def test_loop_runs_the_last_entry_into_the_first(time_s: float, value: float) -> None:
    assert value_at(RAMP, time_s, "loop") == pytest.approx(value)


def test_loop_has_no_jump_anywhere() -> None:
    moments = np.arange(0, 9, 0.01)
    values = np.array([value_at(RAMP, float(t), "loop") for t in moments])
    assert np.abs(np.diff(values)).max() < 0.41  # the steepest ramp is 40 a second


def test_loop_of_a_clip_whose_first_face_comes_late() -> None:
    late = clip([5.0, 5.0, 15.0], [0.0, 1.0, 2.0], 3.0, [False, True, True])
    # from 15 at 2 s over the end (3 s) to 5 at 4 s, which is 1 s of the next round
    assert value_at(late, 3.0, "loop") == pytest.approx(10.0)
    assert value_at(late, 3.5, "loop") == pytest.approx(7.5)
    assert value_at(late, 4.0, "loop") == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("time_s", "value"), [(0.0, 0.0), (1.0, 5.0), (2.0, 10.0), (4.0, 40.0), (6.0, 40.0)]
)
def test_stretch_ends_with_the_target(time_s: float, value: float) -> None:
    assert value_at(RAMP, time_s, "stretch", 6.0) == pytest.approx(value)
    assert value_at(RAMP, time_s / 4, "stretch", 1.5) == pytest.approx(value)


@pytest.mark.parametrize("duration_s", [None, 0.0, -1.0, float("nan")])
def test_stretch_without_the_target_s_duration(duration_s: float | None) -> None:
    with pytest.raises(ConfigError, match="stretch needs the target's duration"):
        at(RAMP, 0.0, "stretch", duration_s)


@pytest.mark.parametrize(
    ("timing", "moment_s"), [("hold", 7.5), ("trim", 7.5), ("loop", 1.5), ("stretch", 2.25)]
)
def test_moment_of_the_source_by_timing(timing: str, moment_s: float) -> None:
    assert moment_of(RAMP, 7.5, timing, 10.0) == pytest.approx(moment_s)
    assert moment_of(RAMP, -1.0, timing, 10.0) == 0.0


def test_only_trim_is_ever_over() -> None:
    assert not is_over(RAMP, 2.99, "trim")
    assert is_over(RAMP, 3.0, "trim")
    for timing in ("stretch", "loop", "hold"):
        assert not is_over(RAMP, 1e6, timing)


def test_entries_without_a_face_are_interpolated_over() -> None:
    gap = clip([10.0, 10.0, 10.0, 40.0], [0.0, 1.0, 2.0, 3.0], 4.0, [True, False, False, True])
    assert value_at(gap, 1.0, "hold") == pytest.approx(20.0)
    assert value_at(gap, 2.5, "hold") == pytest.approx(35.0)
    edges = clip([9.0, 9.0, 3.0, 3.0], [0.0, 1.0, 2.0, 3.0], 4.0, [False, True, True, False])
    assert value_at(edges, 0.0, "hold") == 9.0
    assert value_at(edges, 3.5, "hold") == 3.0


def test_uneven_times_are_respected() -> None:
    uneven = clip([0.0, 1.0, 2.0], [0.0, 0.1, 1.0], 1.1)
    assert value_at(uneven, 0.05, "hold") == pytest.approx(0.5)
    assert value_at(uneven, 0.55, "hold") == pytest.approx(1.5)


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="no 'bounce'; there are stretch, loop, hold, trim"):
        at(RAMP, 0.0, "bounce")
    with pytest.raises(ConfigError, match="no 'bounce'"):
        is_over(RAMP, 0.0, "bounce")
    with pytest.raises(ContractError, match="must be finite"):
        at(RAMP, float("nan"))
    with pytest.raises(ContractError, match="no entry is valid"):
        at(clip([1.0, 2.0], [0.0, 1.0], 2.0, [False, False]), 0.0)


def test_neutral_is_the_calmest_or_the_first_valid_entry() -> None:
    moving = clip([1.0, 6.0, 3.0, 8.0], [0.0, 1.0, 2.0, 3.0], 4.0, [False, True, True, True])
    np.testing.assert_array_equal(neutral_tokens(moving), moving.tokens[2])
    np.testing.assert_array_equal(neutral_tokens(moving, "first"), moving.tokens[1])
    neutral_tokens(moving)[:] = 0
    assert moving.tokens[2].max() == 3.0
    with pytest.raises(ConfigError, match="no choice 'last'; there are calmest, first"):
        neutral_tokens(moving, "last")
