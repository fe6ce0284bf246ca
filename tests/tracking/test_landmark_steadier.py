"""Landmarks that stand still, stand still; those that move, move."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap.tracking import LandmarkSteadier
from rt_swap.tracking.landmark_steadier import GAP_S, JUMP_PX

FPS = 25.0
STILL = np.random.default_rng(0).uniform(20, 236, (478, 2))


def noisy(rng: np.random.Generator) -> np.ndarray:
    return STILL + rng.normal(0.0, 0.4, STILL.shape)


def test_trembling_landmarks_come_to_rest() -> None:
    rng, steadier = np.random.default_rng(1), LandmarkSteadier()
    raw = [noisy(rng) for _ in range(60)]
    out = np.array([steadier.update(x, 3, t / FPS) for t, x in enumerate(raw)])[10:]
    before, after = (np.diff(x, 2, axis=0).std() for x in (np.array(raw)[10:], out))
    assert after < 0.5 * before
    assert np.abs(out.mean(0) - STILL).max() < 0.4


def test_a_blink_passes_and_the_rest_stays_steady() -> None:
    rng, steadier = np.random.default_rng(2), LandmarkSteadier()
    lid = 159
    went, others = [], []
    for t in range(40):
        xy = noisy(rng)
        xy[lid, 1] += {20: 4.0, 21: 10.0, 22: 10.0, 23: 5.0}.get(t, 0.0)
        out = steadier.update(xy, 0, t / FPS)
        went.append(out[lid, 1] - STILL[lid, 1])
        others.append(np.delete(out - STILL, lid, axis=0))
    assert max(went[20:24]) > 7.5  # of 10 pixels that last for two pictures
    assert abs(went[28]) < 1.5
    # a lid that moves does not loosen the other landmarks
    assert np.array(others)[20:24].std() < 1.1 * np.array(others)[10:20].std()


@pytest.mark.parametrize("why", ["another face", "a gap", "a jump", "time runs back", "a still"])
def test_it_starts_afresh(why: str) -> None:
    rng, steadier = np.random.default_rng(3), LandmarkSteadier()
    for t in range(10):
        steadier.update(noisy(rng), 0, t / FPS)
    track_id, time_s, xy = 0, 10 / FPS, noisy(rng)
    if why == "another face":
        track_id = 1
    elif why == "a gap":
        time_s += GAP_S
    elif why == "a jump":
        xy = xy + (JUMP_PX + 2.0)
    elif why == "time runs back":
        time_s = 0.0
    else:
        time_s = 9 / FPS
    np.testing.assert_array_equal(steadier.update(xy, track_id, time_s), xy)


def test_the_first_passes_and_the_input_stays_as_it_is() -> None:
    steadier = LandmarkSteadier()
    first = STILL.copy()
    np.testing.assert_array_equal(steadier.update(first, 0, 5.0), STILL)
    second = STILL + 1.0
    out = steadier.update(second, 0, 5.04)
    assert 0.0 < (out - STILL).mean() < 1.0
    np.testing.assert_array_equal(first, STILL)
    np.testing.assert_array_equal(second, STILL + 1.0)
