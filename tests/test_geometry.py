from __future__ import annotations

import cv2
import numpy as np
import pytest

from rt_swap.contract import CROP_SIZE_PX, STABLE_LANDMARKS, template_xy
from rt_swap.errors import ContractError
from rt_swap.geometry import (
    apply,
    compose,
    crop_from_landmarks,
    invert,
    roi_of_crop,
    scale_of,
    similarity_from_points,
    to_cv2,
)
from tests.support.faces import landmarks_at

QUARTER_TURN = np.array([[0.0, -1.0, 10.0], [1.0, 0.0, 0.0]])  # (x, y) -> (10 - y, x)


def random_affine(rng):
    return np.concatenate(
        [np.eye(2) + rng.uniform(-0.4, 0.4, (2, 2)), rng.uniform(-50, 50, (2, 1))], 1
    )


def test_convention_apply_maps_x_y():
    np.testing.assert_allclose(apply(QUARTER_TURN, np.array([3.0, 1.0])), [9.0, 3.0])


def test_apply_takes_any_number_of_points():
    points = np.arange(24.0).reshape(3, 4, 2)
    got = apply(QUARTER_TURN, points)
    assert got.shape == (3, 4, 2)
    np.testing.assert_allclose(got[2, 1], apply(QUARTER_TURN, points[2, 1]))
    assert apply(QUARTER_TURN, np.zeros((0, 2))).shape == (0, 2)


def test_compose_applies_the_right_one_first(rng):
    M_b_from_a, M_c_from_b = random_affine(rng), random_affine(rng)
    points = rng.uniform(-100, 100, (20, 2))
    np.testing.assert_allclose(
        apply(compose(M_c_from_b, M_b_from_a), points),
        apply(M_c_from_b, apply(M_b_from_a, points)),
    )
    assert not np.allclose(compose(M_c_from_b, M_b_from_a), compose(M_b_from_a, M_c_from_b))


def test_invert_undoes(rng):
    M = random_affine(rng)
    identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    np.testing.assert_allclose(compose(invert(M), M), identity, atol=1e-12)
    np.testing.assert_allclose(compose(M, invert(M)), identity, atol=1e-12)


@pytest.mark.parametrize(
    "M",
    [
        np.zeros((2, 3)),
        np.array([[1.0, 2, 0], [2, 4, 0]]),
        np.array([[np.nan, 0, 0], [0, 1, 0]]),
        np.array([[1.0, 0, np.inf], [0, 1, 0]]),
    ],
)
def test_invert_singular_is_refused(M):
    with pytest.raises(ContractError, match="singular or not finite"):
        invert(M)


def test_scale_of_counts_pixels_of_the_left_per_pixel_of_the_right():
    assert scale_of(np.array([[3.0, 0, 7], [0, 3.0, 9]])) == pytest.approx(3)
    assert scale_of(QUARTER_TURN) == pytest.approx(1)
    assert scale_of(np.array([[0, 2.0, 0], [8.0, 0, 0]])) == pytest.approx(4)


def test_similarity_from_points_finds_the_one_that_made_them(rng):
    M = np.array([[0.6, -0.8, 12.0], [0.8, 0.6, -5.0]]) * 1.7
    points = rng.uniform(-100, 100, (7, 2))
    np.testing.assert_allclose(similarity_from_points(points, apply(M, points)), M, atol=1e-10)


def test_similarity_from_points_is_the_least_squares_one(rng):
    a, b = rng.uniform(0, 100, (9, 2)), rng.uniform(0, 100, (9, 2))
    weights = rng.uniform(0.1, 1, 9)

    def misfit(M):
        return float(weights @ ((apply(M, a) - b) ** 2).sum(1))

    # the same by linear least squares over (real, imaginary, x, y)
    rows = np.zeros((18, 4))
    rows[0::2] = np.stack([a[:, 0], -a[:, 1], np.ones(9), np.zeros(9)], 1)
    rows[1::2] = np.stack([a[:, 1], a[:, 0], np.zeros(9), np.ones(9)], 1)
    root = np.sqrt(np.repeat(weights, 2))
    re, im, x, y = np.linalg.lstsq(rows * root[:, None], b.ravel() * root, rcond=None)[0]
    expected = np.array([[re, -im, x], [im, re, y]])
    got = similarity_from_points(a, b, weights)
    np.testing.assert_allclose(got, expected, atol=1e-10)
    for nudge in rng.normal(0, 1e-3, (10, 4)):
        re, im, x, y = nudge
        assert misfit(got + np.array([[re, -im, x], [im, re, y]])) > misfit(got)


def test_similarity_from_points_weight_of_zero_is_ignored(rng):
    a = rng.uniform(0, 100, (4, 2))
    b = a + (5, 6)
    b[3] += 1000
    M = similarity_from_points(a, b, np.array([1.0, 1, 1, 0]))
    np.testing.assert_allclose(M, [[1, 0, 5], [0, 1, 6]], atol=1e-9)


def test_similarity_from_points_never_mirrors():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    M = similarity_from_points(square, square * (-1, 1) + (1e-9, 0))
    assert np.linalg.det(M[:, :2]) >= 0


def test_similarity_from_points_that_coincide_is_refused():
    with pytest.raises(ContractError, match="coincide"):
        similarity_from_points(np.ones((3, 2)), np.arange(6.0).reshape(3, 2))


@pytest.mark.parametrize("angle_rad", [0.0, 0.5, -2.0])
def test_crop_from_landmarks_puts_the_stable_ones_on_the_template(angle_rad):
    landmarks_xy = landmarks_at(310, 190, 97, angle_rad)
    M_crop_from_frame = crop_from_landmarks(landmarks_xy)
    np.testing.assert_allclose(
        apply(M_crop_from_frame, landmarks_xy[list(STABLE_LANDMARKS)]), template_xy(), atol=1e-9
    )
    np.testing.assert_allclose(apply(M_crop_from_frame, np.array([310.0, 190.0])), [128, 128])
    assert scale_of(M_crop_from_frame) == pytest.approx(CROP_SIZE_PX / 97)


def test_convention_to_cv2_shifts_by_one_pixel():
    picture = np.zeros((5, 7), np.uint8)
    picture[1, 2] = 255
    M = np.array([[1.0, 0, 1], [0, 1.0, 2]])  # one to the right, two down
    out = cv2.warpAffine(picture, to_cv2(M), (7, 5))
    assert np.argwhere(out).tolist() == [[3, 3]]


def test_convention_to_cv2_quarter_turn_keeps_every_pixel():
    picture = np.arange(1, 26, dtype=np.uint8).reshape(5, 5)
    M = np.array([[0.0, -1, 5], [1, 0, 0]])  # clockwise about the middle of 5 x 5
    out = cv2.warpAffine(picture, to_cv2(M), (5, 5), flags=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(out, np.rot90(picture, -1))


def test_convention_to_cv2_doubling_agrees_with_resize():
    picture = np.random.default_rng(3).integers(0, 256, (8, 8), dtype=np.uint8)
    M = np.array([[2.0, 0, 0], [0, 2.0, 0]])
    out = cv2.warpAffine(picture, to_cv2(M), (16, 16), borderMode=cv2.BORDER_REPLICATE)
    expected = cv2.resize(picture, (16, 16), interpolation=cv2.INTER_LINEAR)
    assert np.abs(out.astype(int) - expected).max() <= 1


def test_to_cv2_leaves_its_input_alone():
    M = QUARTER_TURN.copy()
    to_cv2(M)
    np.testing.assert_array_equal(M, QUARTER_TURN)


@pytest.mark.parametrize(
    ("offset", "box_xyxy"),
    [
        ((10.0, 20.0), (10, 20, 26, 36)),
        ((10.5, 20.25), (10, 20, 27, 37)),
        ((-4.0, -8.0), (0, 0, 12, 8)),
        ((90.0, 50.0), (90, 50, 100, 60)),
    ],
)
def test_roi_of_crop_is_the_smallest_box_inside_the_frame(offset, box_xyxy):
    M_frame_from_crop = np.array([[1.0, 0, offset[0]], [0, 1.0, offset[1]]])
    assert roi_of_crop(M_frame_from_crop, 16, (60, 100)) == box_xyxy


def test_roi_of_turned_crop_holds_its_corners():
    root = np.sqrt(0.5)
    M_frame_from_crop = np.array([[root, -root, 50.0], [root, root, 10.0]])
    assert roi_of_crop(M_frame_from_crop, 20, (100, 100)) == (35, 10, 65, 39)


@pytest.mark.parametrize("offset", [(-40.0, 0.0), (200.0, 0.0), (0.0, 100.0)])
def test_roi_of_crop_outside_is_empty(offset):
    M_frame_from_crop = np.array([[1.0, 0, offset[0]], [0, 1.0, offset[1]]])
    x0, y0, x1, y1 = roi_of_crop(M_frame_from_crop, 16, (60, 100))
    assert x1 <= x0 or y1 <= y0
