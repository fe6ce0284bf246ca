"""Scores on hand-made cases."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rt_swap.errors import ContractError
from training.scores import Answer, Case, Score, au_errors, reduction, ssim_map, unchanged

S = 8


def make_case() -> Case:
    """A grey target in which a 2x2 patch gets 51 grey levels (0.2) brighter and a 1-pixel hole
    opens."""
    target = np.full((S, S, 3), 100, np.uint8)
    truth = target.copy()
    truth[2:4, 2:4] += 51
    truth[6, 6] = 202
    keep = np.ones((S, S), np.float32)
    keep[6, 6] = 0.0
    flow = np.zeros((2, S, S), np.float32)
    flow[:, 2:4, 2:4] = np.array([3.0, 4.0])[:, None, None]
    region = np.zeros((S, S), np.uint8)
    region[2:5, 2:5] = 1
    region[6, 6] = 2
    return Case(target, truth, flow, keep, region)


def result(case: Case, answer: Answer) -> dict[str, float]:
    score = Score()
    score.add(case, answer)
    return score.result()


def test_changed_is_what_differs_moves_or_opens() -> None:
    changed = make_case().changed()
    expected = np.zeros((S, S), bool)
    expected[2:4, 2:4] = expected[6, 6] = True
    np.testing.assert_array_equal(changed, expected)


def test_changed_small_difference_is_not_a_change_but_one_channel_is_enough() -> None:
    case = make_case()
    truth = case.target_rgb.copy()
    truth[0, 0] += 8  # at the level, not above it
    truth[0, 1, 2] += 9
    flow = np.zeros_like(case.flow_xy)
    flow[0, 7, 0] = 0.5  # not above it
    flow[0, 7, 1] = -0.51
    changed = Case(case.target_rgb, truth, flow, np.ones_like(case.keep), case.region).changed()
    assert set(map(tuple, np.argwhere(changed))) == {(0, 1), (7, 1)}


def test_score_unchanged_has_the_hand_made_errors() -> None:
    got = result(make_case(), unchanged(make_case()))
    # four pixels off by 51 and one by 102, of 255, over 5 changed pixels
    assert got["image"] == pytest.approx((4 * 51 + 102) / 5 / 255)
    # flow length 5 in 4 of the 9 visible face pixels (the hole is not visible)
    assert got["flow_px"] == pytest.approx(4 * 5 / 9)
    assert got["hole_iou"] == 0.0
    assert got["spill"] == 0.0
    assert got["skin"] == pytest.approx(51 / 255)
    assert got["mouth_interior"] == pytest.approx(102 / 255)
    assert np.isnan(got["lips"])


def test_score_perfect_answer_has_no_error() -> None:
    case = make_case()
    got = result(case, Answer(case.truth_rgb, case.flow_xy, case.keep))
    assert got["image"] == got["flow_px"] == got["spill"] == 0.0
    assert got["hole_iou"] == 1.0
    assert got["ssim"] == pytest.approx(1.0)


def test_ssim_agrees_with_scikit_images() -> None:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image (pip)")
    from skimage.metrics import structural_similarity

    face = np.ascontiguousarray(data.astronaut()[:256, 128:384])
    noise = np.random.default_rng(0).normal(0, 12, face.shape)
    other = np.clip(np.roll(face, 2, 1) + noise, 0, 255).astype(np.uint8)
    grey = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).astype(np.float64) for x in (face, other)]
    _, theirs = structural_similarity(
        *grey, data_range=255, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    inner = np.s_[6:-6, 6:-6]  # the two continue a picture beyond its edge differently
    np.testing.assert_allclose(ssim_map(face, other)[inner], theirs[inner], atol=2e-3)
    np.testing.assert_allclose(ssim_map(face, face), 1.0, atol=1e-4)


def test_score_ssim_is_the_mean_over_the_face() -> None:
    case = make_case()
    answer = unchanged(case)
    face = case.region > 0
    whole = ssim_map(case.target_rgb, case.truth_rgb)
    assert result(case, answer)["ssim"] == pytest.approx(float(whole[face].mean()))
    assert whole[face].mean() < whole[~face].mean()


def test_score_spill_counts_what_should_have_stayed() -> None:
    case = make_case()
    picture = case.truth_rgb.copy()
    picture[0, 0] += 59
    got = result(case, Answer(picture, case.flow_xy, case.keep))
    assert got["image"] == 0.0
    assert got["spill"] == pytest.approx(59 / (S * S - 5) / 255)


def test_score_hole_iou_is_summed_over_cases() -> None:
    case, score = make_case(), Score()
    two = case.keep.copy()
    two[6, 5] = 0.4
    score.add(case, Answer(case.truth_rgb, case.flow_xy, two))  # 1 of 2
    score.add(case, Answer(case.truth_rgb, case.flow_xy, np.ones_like(two)))  # 0 of 1
    assert score.result()["hole_iou"] == pytest.approx(1 / 3)


def test_score_merge_is_counting_both() -> None:
    case = make_case()
    both, one, other = Score(), Score(), Score()
    perfect = Answer(case.truth_rgb, case.flow_xy, case.keep)
    for score, answer in ((one, unchanged(case)), (other, perfect)):
        score.add(case, answer)
        both.add(case, answer)
    one.merge(other)
    assert one.result() == pytest.approx(both.result(), nan_ok=True) and one.cases == 2


def test_score_pixels_weigh_the_same_over_cases() -> None:
    case, score = make_case(), Score()
    small = Case(case.target_rgb, case.truth_rgb, case.flow_xy * 0, case.keep, case.region)
    truth = case.target_rgb.copy()
    truth[1, 1] = 201
    small = Case(case.target_rgb, truth, case.flow_xy * 0, np.ones_like(case.keep), case.region)
    score.add(case, unchanged(case))
    own = score.add(small, unchanged(small))
    assert own == pytest.approx(101 / 255)
    assert score.result()["image"] == pytest.approx((4 * 51 + 102 + 101) / 6 / 255)


def test_score_case_without_change_is_nan_not_zero() -> None:
    case = make_case()
    same = Case(
        case.target_rgb, case.target_rgb, case.flow_xy * 0, np.ones_like(case.keep), case.region
    )
    score = Score()
    assert np.isnan(score.add(same, unchanged(same)))
    assert np.isnan(score.result()["image"])


def test_score_wrong_shape_names_it() -> None:
    case = make_case()
    with pytest.raises(ContractError, match="flow_xy"):
        Score().add(case, Answer(case.truth_rgb, case.flow_xy[:, :4], case.keep))
    with pytest.raises(ContractError, match="keep must be"):
        Case(case.target_rgb, case.truth_rgb, case.flow_xy, case.keep[:4], case.region)


def test_reduction_known_values() -> None:
    assert reduction(0.1, 0.1) == 0.0
    assert reduction(0.02, 0.1) == pytest.approx(0.8)
    assert reduction(0.2, 0.1) == pytest.approx(-1.0)
    assert np.isnan(reduction(0.1, 0.0))


def test_au_errors_known_values() -> None:
    label = np.zeros((4, 2, 2), np.float32)
    label[:, 0, 0] = label[:, 0, 1] = [0.0, 0.0, 0.4, 0.8]
    read = label.copy()
    read[:, 0] = 0.5 * label[:, 0] + 0.1  # a straight line of the truth
    read[:, 1, 1] = 0.2
    got = au_errors(read, label)
    # |0.1|, |0.1|, |0.3 - 0.4|, |0.5 - 0.8|
    np.testing.assert_allclose(got["mae"], [(0.1 + 0.1 + 0.1 + 0.3) / 4, 0.1], rtol=1e-5)
    # the label's median is 0.2: 0.2, 0.2, 0.2, 0.6
    np.testing.assert_allclose(got["blind"], [0.3, 0.0], rtol=1e-5)
    assert got["r"][0] == pytest.approx(1.0)
    assert np.isnan(got["r"][1])


def test_au_errors_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ContractError, match="N >= 1"):
        au_errors(np.zeros((0, 2, 2)), np.zeros((0, 2, 2)))
