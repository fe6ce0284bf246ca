"""The distribution of expressions and gains."""

from __future__ import annotations

import numpy as np

from rt_swap.aus import NUM_AUS, AuId
from training.data.expressions import draw_expression, draw_gains, mix, reconcile


def test_draw_expression_is_in_range_and_repeats_by_seed() -> None:
    one = [draw_expression(np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(one[0], one[1])
    rng = np.random.default_rng(0)
    many = np.stack([draw_expression(rng) for _ in range(2000)])
    assert many.shape == (2000, NUM_AUS, 2) and many.min() >= 0 and many.max() <= 1
    shown = (many.max(2) > 0.3).mean(0)
    assert (shown > 0.01).all(), "every AU must be seen in training"
    assert (many.max(2).max(1) < 0.05).mean() > 0.01, "rest must be seen too"
    smiles = many[:, AuId.AU12.index]
    smiles = smiles[smiles.max(1) > 0.3]
    assert 0.05 < (np.abs(smiles[:, 0] - smiles[:, 1]) > 0.2).mean() < 0.6


def test_reconcile_closed_lids_are_not_wide_and_open_jaw_is_not_pressed() -> None:
    aus = np.zeros((NUM_AUS, 2), np.float32)
    for au in (AuId.AU45, AuId.AU5, AuId.AU26, AuId.AU24):
        aus[au.index] = 1
    out = reconcile(aus)
    assert out[AuId.AU5.index].max() == 0 and out[AuId.AU24.index].max() == 0
    assert out[AuId.AU45.index].min() == 1 and out[AuId.AU26.index].min() == 1


def test_gains_are_binary_and_mix_swaps_back() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, b = draw_expression(rng), draw_expression(rng)
        g = draw_gains(rng, a, b)
        assert set(np.unique(g)) <= {0.0, 1.0}
        m, n = mix(a, b, g), mix(b, a, g)
        np.testing.assert_allclose(mix(m, n, g), a, atol=1e-6)  # the published cross-cycle


def test_gains_are_all_or_some_or_few_that_matter() -> None:
    rng = np.random.default_rng(2)
    own, other = np.zeros((2, NUM_AUS, 2), np.float32)
    other[AuId.AU12.index] = 0.9
    drawn = np.stack([draw_gains(rng, own, other) for _ in range(2000)])
    count = drawn.sum(1)
    assert 0.35 < (count == NUM_AUS).mean() < 0.45
    few = drawn[(count >= 1) & (count <= 3)]
    assert 0.12 < len(few) / len(drawn) < 0.3
    # the only unit that differs is nearly always among them
    assert few[:, AuId.AU12.index].mean() > 0.6
    assert (drawn[count < NUM_AUS].mean(0) > 0.1).all()
