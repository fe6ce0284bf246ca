"""Each loss against literals worked out by hand; the sums stand beside them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from training import losses
from training.config import LossConfig


def picture(values: list[list[float]]) -> torch.Tensor:
    """(1, 1, H, W)."""
    return torch.tensor(values)[None, None]


def test_region_weight_looks_up_each_class() -> None:
    region = torch.tensor([[[[0, 5], [2, 1]]]], dtype=torch.uint8)
    weight = losses.region_weight(region, (0.5, 1.0, 4.0, 9.0, 9.0, 3.0))
    assert weight[0, 0].tolist() == [[0.5, 3.0], [4.0, 1.0]]


def test_changed_weight_grows_with_the_mean_difference_of_channels() -> None:
    target, truth = torch.zeros(1, 3, 1, 1), torch.tensor([0.3, 0.0, 0.6])[None, :, None, None]
    # 1 + 10 * (0.3 + 0 + 0.6) / 3
    assert losses.changed_weight(target, truth, 10.0).item() == pytest.approx(4.0)


def test_weighted_mean_is_over_weights_and_channels() -> None:
    value = torch.tensor([[[[1.0, 2.0]], [[3.0, 6.0]]]])  # channel means 2 and 4
    # (2*1 + 4*3) / 4
    assert losses.weighted_mean(value, picture([[1.0, 3.0]])).item() == pytest.approx(3.5)


def test_weighted_mean_of_nothing_is_zero() -> None:
    assert losses.weighted_mean(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item() == 0.0


def test_image_l1_weights_pixels() -> None:
    out, truth = picture([[0.5, 0.2]]), picture([[0.0, 0.6]])
    # (1*0.5 + 3*0.4) / 4
    assert losses.image_l1(out, truth, picture([[1.0, 3.0]])).item() == pytest.approx(0.425)


def test_laplacian_l1_of_a_constant_is_zero_and_of_a_checkerboard_is_its_amplitude() -> None:
    ones = torch.ones(1, 1, 4, 4)
    assert losses.laplacian_l1(ones * 0.7, ones, levels=2).item() == pytest.approx(0.0)
    board = picture([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]] * 2) * 0.25
    # every 2x2 mean is 0: the first band is the board itself (0.25), the second is 0
    assert losses.laplacian_l1(board, ones, levels=2).item() == pytest.approx(0.25)


def test_laplacian_l1_second_band_sees_what_the_first_does_not() -> None:
    ones = torch.ones(1, 1, 4, 4)
    blocks = picture(
        [[1.0, 1.0, 0.0, 0.0]] * 4
    )  # 2x2 blocks: first band 0; means 1, 0: second band +-1/2
    assert losses.laplacian_l1(blocks, ones, levels=1).item() == pytest.approx(0.0)
    assert losses.laplacian_l1(blocks, ones, levels=2).item() == pytest.approx(0.5)


def test_flow_charbonnier_of_a_3_4_error() -> None:
    flow = torch.tensor([3.0, 4.0])[None, :, None, None].expand(1, 2, 1, 2)
    truth = torch.zeros(1, 2, 1, 2).clone()
    truth[..., 1] = flow[..., 1]
    # first pixel sqrt(25 + 144) - 12 = 1, second 0; weights 1 and 3
    value = losses.flow_charbonnier(flow, truth, picture([[1.0, 3.0]]), eps=12.0)
    assert value.item() == pytest.approx(0.25)


def test_flow_multiscale_averages_before_it_measures() -> None:
    flow = torch.zeros(1, 2, 2, 2)
    flow[0, 0] = torch.tensor([[4.0, -4.0], [4.0, -4.0]])  # weighted mean (3*4 - 4 + ...) / 8 = 2
    weight = picture([[3.0, 1.0], [3.0, 1.0]])
    # one 2x2 cell: d = (2, 0), sqrt(4 + 2.25) - 1.5 would be 1 at eps 1.5; at eps 0.5:
    # sqrt(4.25) - 0.5
    value = losses.flow_multiscale(flow, torch.zeros_like(flow), weight, factors=(2,))
    assert value.item() == pytest.approx(math.sqrt(4.25) - 0.5, abs=1e-5)


def test_keep_bce_of_even_odds_is_ln_2() -> None:
    logit, truth = picture([[0.0, math.log(3.0)]]), picture([[1.0, 1.0]])
    # ln 2 = 0.693147 and -ln(3/4) = 0.287682; weights 1 and 3
    value = losses.keep_bce(logit, truth, picture([[1.0, 3.0]]))
    assert value.item() == pytest.approx((0.693147 + 3 * 0.287682) / 4, abs=1e-5)


def test_shade_l1_treats_halving_and_doubling_alike() -> None:
    ones = torch.ones(1, 1, 1, 2)
    assert losses.shade_l1(
        picture([[1.0, -1.0]]), picture([[0.0, 0.0]]), ones
    ).item() == pytest.approx(1.0)


def test_fill_l1_counts_only_what_is_hidden() -> None:
    fill, truth, keep = picture([[0.5, 0.9]]), picture([[0.1, 0.0]]), picture([[0.0, 1.0]])
    assert losses.fill_l1(fill, truth, keep).item() == pytest.approx(0.4)


def test_au_weights_are_inverse_rates_with_mean_one() -> None:
    # 1/r = 2, 4, 10; n / sum = 3/16
    weights = losses.au_weights(torch.tensor([0.5, 0.25, 0.1]))
    assert weights.tolist() == pytest.approx([0.375, 0.75, 1.875])


@pytest.mark.parametrize("sides", [False, True])
def test_au_bce_weighs_each_au(sides: bool) -> None:
    logits, labels = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[0.5, 0.0]])
    if sides:
        logits, labels = (x[:, :, None].expand(1, 2, 2) for x in (logits, labels))
    # ln 2 = 0.693147 times 1, -ln(1/4) = 1.386294 times 2, mean of the two
    value = losses.au_bce(logits, labels, torch.tensor([1.0, 2.0]))
    assert value.item() == pytest.approx((0.693147 + 2 * 1.386294) / 2, abs=1e-5)


def test_au_dice_of_equal_and_of_disjoint_columns() -> None:
    aus, labels = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # AU 1: 1 - (2*1+1)/(2+1) = 0; AU 2: 1 - (0+1)/(2+1) = 2/3; weights 1 and 3, mean
    value = losses.au_dice(aus, labels, torch.tensor([1.0, 3.0]))
    assert value.item() == pytest.approx(1.0)


def test_au_l1_is_a_mean() -> None:
    assert losses.au_l1(
        torch.tensor([0.5, 0.0]), torch.tensor([0.25, 1.0])
    ).item() == pytest.approx(0.625)


def test_token_teacher_is_smooth_l1() -> None:
    tokens, taught = torch.tensor([[[0.5, 3.0]]]), torch.zeros(1, 1, 2, requires_grad=True)
    # 0.5 * 0.5^2 = 0.125 below 1, 3 - 0.5 above; mean
    value = losses.token_teacher(tokens, taught)
    assert value.item() == pytest.approx(1.3125)
    assert not value.requires_grad  # the teacher is not taught


def test_token_pair_sees_differences_of_one_person_only() -> None:
    labels = torch.tensor([[[0.0]], [[1.0]], [[0.0]], [[0.0]]], requires_grad=True)
    # an identity's own offset (5, 7) cancels; differences 0.5 and 3 against 1 and 0:
    # 0.5 * 0.5^2 = 0.125 and 3 - 0.5 = 2.5; mean
    tokens = torch.tensor([[[5.0]], [[5.5]], [[7.0]], [[10.0]]])
    value = losses.token_pair(tokens, labels)
    assert value.item() == pytest.approx(1.3125)
    assert not value.requires_grad


def test_unit_fields_is_error_over_the_root_of_size() -> None:
    truth = torch.zeros(1, 2, 2, 2, 2)
    truth[:, 0, 0] = 9.0  # one unit moves everything by 9 px, the other nothing
    weight = torch.ones(1, 1, 2, 2)
    assert losses.unit_fields(truth, truth, weight).item() == pytest.approx(0, abs=1e-6)
    said = truth.clone()
    said[:, 0, 1] = 3.0  # 3 px off, at right angles
    want = (3.0 / (9.0 + 0.05) ** 0.5) / 2
    assert losses.unit_fields(said, truth, weight).item() == pytest.approx(want, rel=0.01)
    # what weighs nothing says nothing, and weights are shares
    said[..., 0, 0] = 100.0
    weight[..., 0, 0] = 0
    assert losses.unit_fields(said, truth, 5 * weight).item() == pytest.approx(want, rel=0.01)


def test_token_effect_measures_in_the_metric_and_pairs_people() -> None:
    labels = torch.zeros(2, 1, 2)
    said = torch.tensor([[[1.0, 0.0]], [[1.0, 2.0]]])
    # errors (1, 0) and (1, 2); between them (0, 2): what both share is no difference
    L = torch.tensor([[1.0, 0.0], [3.0, 0.5]])
    # (0, 2) L = (6, 1): (36 + 1) / 2; (1, 0) L = (1, 0), (1, 2) L = (7, 1): (1 + 0 + 49 + 1) / 4
    alone = losses.token_effect(said, labels, L, single=0.0)
    assert alone.item() == pytest.approx(18.5)
    both = losses.token_effect(said, labels, L, single=0.4)
    assert both.item() == pytest.approx(18.5 + 0.4 * 12.75)
    assert losses.token_effect(labels, labels, L, single=1.0).item() == 0


def test_token_invariance_is_relative_to_how_tokens_differ() -> None:
    a, b = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.0, 4.0]]])
    tokens = torch.tensor([[[0.0, 0.0]], [[4.0, 2.0]]])
    # mean |a - b| = 1.5; mean deviation (2 + 2 + 1 + 1) / 4 = 1.5, and 0.1
    value = losses.token_invariance(a, b, tokens)
    assert value.item() == pytest.approx(0.9375)


def test_token_invariance_is_not_lowered_by_shrinking_all_tokens() -> None:
    scale = torch.tensor(1.0, requires_grad=True)
    tokens = torch.rand(4, 3, 2) * 1000
    value = losses.token_invariance(tokens[:2] * scale, tokens[2:] * scale, tokens * scale)
    value.backward()  # type: ignore[no-untyped-call]
    assert scale.grad is not None
    assert abs(scale.grad.item()) < 2e-3


def test_token_spread_is_each_aus_mean_deviation_without_gradient() -> None:
    tokens = torch.tensor([[[1.0, 5.0]], [[3.0, 5.0]]], requires_grad=True)
    spread = losses.token_spread(tokens)
    assert spread.shape == (1, 1)
    assert spread.item() == pytest.approx(0.6)  # (1 + 1 + 0 + 0) / 4, and 0.1
    assert not spread.requires_grad


def test_adversary_classifier_aims_at_presence() -> None:
    # (0.5^2 + 0.2^2) / 2
    value = losses.adversary_classifier(torch.tensor([[0.5, 0.2]]), torch.tensor([[1.0, 0.0]]))
    assert value.item() == pytest.approx(0.145)


def test_adversary_encoder_aims_at_chance_not_at_the_opposite() -> None:
    assert losses.adversary_encoder(torch.tensor([[0.5, 0.5]])).item() == 0.0
    certain = losses.adversary_encoder(torch.tensor([[0.0, 1.0]])).item()
    assert certain == pytest.approx(0.25)


def test_self_reconstruction_and_cross_cycle_are_plain_l1() -> None:
    a, b = torch.tensor([0.5, 0.0]), torch.tensor([0.25, 0.75])
    assert losses.self_reconstruction(a, b).item() == pytest.approx(0.5)
    assert losses.cross_cycle(a, b).item() == pytest.approx(0.5)


def test_feature_terms_are_relative_to_the_features_own_size() -> None:
    again, shown = torch.tensor([[[1.0]]]), torch.tensor([[[4.0]]])
    assert losses.feature_related(again, shown, torch.tensor([[2.0]])).item() == pytest.approx(1.5)
    # mean |1-2|, |-2+2| = 0.5 over mean magnitude 2
    assert losses.feature_free(
        torch.tensor([1.0, -2.0]), torch.tensor([2.0, -2.0])
    ).item() == pytest.approx(0.25)


def test_lsgan_critic_and_generator() -> None:
    # 1/2 (0.5^2) + 1/2 (0.2^2) = 0.145; 1/2 (0.8^2) = 0.32
    real, fake = torch.tensor([[0.5]]), torch.tensor([[0.2]])
    assert losses.lsgan_critic(real, fake).item() == pytest.approx(0.145)
    assert losses.lsgan_generator(fake).item() == pytest.approx(0.32)


def test_equivariance_adds_flow_and_keep() -> None:
    flow, moved = torch.ones(1, 2, 1, 1), torch.tensor([0.0, 3.0])[None, :, None, None]
    keep, keep_moved = picture([[0.5]]), picture([[0.25]])
    # (1 + 2) / 2 + 0.25
    value = losses.equivariance(flow, moved, keep, keep_moved, torch.ones(1, 1, 1, 1))
    assert value.item() == pytest.approx(1.75)


def test_every_weighted_term_of_the_config_is_a_loss_that_objective_computes() -> None:
    import inspect

    from training import objective

    text = inspect.getsource(objective)
    options = (
        "_every",
        "_from",
        "_until",
        "_weight",
        "_weights",
        "_threshold",
        "_fraction",
        "lazy_quadruples",
        "_single",
    )
    names = [f.name for f in dataclasses.fields(LossConfig) if not f.name.endswith(options)]
    assert len(names) == 28
    assert [name for name in names if f'"{name}"' not in text] == []
