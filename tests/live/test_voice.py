"""Mixing what is asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rt_swap.live.voice import Ask, approach, mix, smoothstep

RNG = np.random.default_rng(3)


def ask(mode: str = "absolute", presence: float = 1.0) -> Ask:
    tokens, base = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    return Ask(tokens, base if mode == "relative" else None, float(mode == "relative"), presence)


def change(a: Ask | None, own: np.ndarray) -> np.ndarray:
    """What the graph adds to the target's own tokens, per unit of gain."""
    if a is None:
        return np.zeros_like(own)
    base = own if a.base is None else a.relative * a.base + (1 - a.relative) * own
    return a.presence * (a.tokens - base)


@pytest.mark.parametrize("modes", list(itertools.product(["absolute", "relative"], repeat=2)))
@pytest.mark.parametrize("presences", [(1.0, 1.0), (0.3, 1.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("progress", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_mix_mixes_the_graphs_own_sum(
    modes: tuple[str, str], presences: tuple[float, float], progress: float
) -> None:
    a, b = ask(modes[0], presences[0]), ask(modes[1], presences[1])
    own, w = RNG.normal(size=(5, 3)), smoothstep(progress)
    expected = (1 - w) * change(a, own) + w * change(b, own)
    np.testing.assert_allclose(change(mix(a, b, progress), own), expected, atol=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.7, 1.0])
def test_mix_with_nothing_fades(progress: float) -> None:
    a, own, w = ask(), RNG.normal(size=(5, 3)), smoothstep(progress)
    np.testing.assert_allclose(change(mix(None, a, progress), own), w * change(a, own), atol=1e-6)
    np.testing.assert_allclose(
        change(mix(a, None, progress), own), (1 - w) * change(a, own), atol=1e-6
    )
    assert mix(None, None, progress) is None


def test_mix_of_a_mixture_of_modes_goes_on_from_there() -> None:
    """A change of mind in the middle of a transition."""
    a, b, c, own = ask("absolute"), ask("relative"), ask("relative"), RNG.normal(size=(5, 3))
    half = mix(a, b, 0.5)
    assert half is not None
    assert half.relative == pytest.approx(0.5)
    expected = 0.5 * change(half, own) + 0.5 * change(c, own)
    np.testing.assert_allclose(change(mix(half, c, 0.5), own), expected, atol=1e-6)


def test_mix_ends_as_what_was_wanted_itself() -> None:
    a, b = ask(), ask()
    assert mix(a, b, 1.0) is b
    assert mix(a, b, 7.0) is b
    assert mix(a, None, 1.0) is None
    assert mix(a, a, 0.5) is a


def test_approach_takes_its_time_and_arrives() -> None:
    value, wanted = np.zeros(4, np.float32), np.ones(4, np.float32)
    moved = approach(value, wanted, 0.1, 0.1)
    np.testing.assert_allclose(moved, 1 - np.exp(-1), rtol=1e-5)
    np.testing.assert_array_equal(approach(value, wanted, 0.0, 0.1), value)
    assert approach(value, wanted, 0.1, 0.0) is wanted
    for _ in range(100):
        value = approach(value, wanted, 0.1, 0.1)
    assert value is wanted
