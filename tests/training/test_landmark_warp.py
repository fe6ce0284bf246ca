"""The landmark-warp baseline: exact where it can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap.aus import AUS, NUM_AUS, region_mask
from rt_swap.errors import ContractError
from training.baselines import landmark_warp
from training.baselines.landmark_warp import moved_landmarks, warp_flow

S = 256


def mesh(seed: int = 0) -> np.ndarray:
    """(478, 2) points that lie like a face does where the warp looks: lips, lids, corners and brows
    in their rows."""
    p = np.random.default_rng(seed).uniform(40, 216, (478, 2))
    n = len(landmark_warp._INNER_LIPS[0])
    for chain, y in zip(landmark_warp._INNER_LIPS, (168.0, 172.0), strict=True):
        p[list(chain)] = np.stack([np.linspace(105, 150, n), np.full(n, y)], 1)
    for x0, lids in ((80.0, landmark_warp._RIGHT_LIDS), (140.0, landmark_warp._LEFT_LIDS)):
        for chain, y in zip(lids, (82.0, 92.0), strict=True):
            p[list(chain)] = np.stack(
                [np.linspace(x0 + 4, x0 + 28, len(chain)), np.full(len(chain), y)], 1
            )
    p[33], p[133], p[362], p[263] = (80, 87), (110, 87), (140, 87), (172, 87)
    return p


def grid_points(n: int = 9) -> np.ndarray:
    t = np.linspace(30.0, 226.0, n)
    return np.stack(np.meshgrid(t, t), -1).reshape(-1, 2)


def test_warp_flow_nothing_moves_flow_is_zero() -> None:
    p = grid_points()
    flow = warp_flow(p, p, S, move_all=True)
    assert flow.shape == (1, 2, S, S)
    assert flow.dtype == np.float32
    np.testing.assert_allclose(flow, 0.0, atol=1e-4)


def test_convention_warp_flow_is_backward_and_in_xy_order() -> None:
    p = grid_points()
    # the answer shows everything 3 px further right and 1 px lower: it fetches from left and above
    flow = warp_flow(p, p + np.array([3.0, 1.0]), S, move_all=True)
    np.testing.assert_allclose(flow[0, 0, 100:150, 100:150], -3.0, atol=1e-4)
    np.testing.assert_allclose(flow[0, 1, 100:150, 100:150], -1.0, atol=1e-4)
    np.testing.assert_allclose(flow[0, :, 0, :], 0.0, atol=0.5)  # the border stays


def test_convention_warp_flow_is_exact_at_pixel_centres() -> None:
    # enlarging by 1.25 about (128, 128) is affine: every triangle inside has the same closed form
    p = grid_points()
    p = p[np.abs(p - 128).max(1) < 80]
    moved = 128 + 1.25 * (p - 128)
    flow = warp_flow(p, moved, S, move_all=True)
    at = np.arange(90, 160) + 0.5
    expected = 128 + (at - 128) / 1.25 - at
    np.testing.assert_allclose(flow[0, 0, 100, 90:160], expected, atol=1e-3)
    np.testing.assert_allclose(flow[0, 1, 90:160, 100], expected, atol=1e-3)


def test_warp_flow_never_exceeds_the_largest_displacement() -> None:
    rng = np.random.default_rng(1)
    p = grid_points(12)
    moved = p + rng.normal(0, 4, p.shape)
    flow = warp_flow(p, moved, S, move_all=True)
    length = np.linalg.norm(flow[0], axis=0)
    assert length.max() <= np.linalg.norm(moved - p, axis=1).max() + 1e-3
    assert length.max() > 1.0


def test_warp_flow_covers_every_pixel_that_moves() -> None:
    # points on the answer's side fetch from where they were
    p = grid_points()
    moved = p.copy()
    centre = np.argmin(np.linalg.norm(p - 128, axis=1))
    moved[centre] += (6.0, -4.0)
    flow = warp_flow(p, moved, S, move_all=True)
    x, y = (moved[centre] - 0.5).round().astype(int)
    np.testing.assert_allclose(flow[0, :, y, x], (-6.0, 4.0), atol=0.5)


def test_warp_flow_unequal_or_infinite_landmarks_is_an_error() -> None:
    p = grid_points()
    with pytest.raises(ContractError, match="two arrays"):
        warp_flow(p, p[:-1], S)
    bad = p.copy()
    bad[3, 0] = np.nan
    with pytest.raises(ContractError, match="finite"):
        warp_flow(p, bad, S)


def test_moved_landmarks_same_face_stays() -> None:
    p = mesh()
    np.testing.assert_allclose(moved_landmarks(p, p), p, atol=1e-9)


def test_moved_landmarks_step_zero_or_no_gain_stays() -> None:
    target, source = mesh(0), mesh(5)
    np.testing.assert_array_equal(moved_landmarks(target, source, step=0.0), target)
    none = np.zeros(NUM_AUS, np.float32)
    np.testing.assert_array_equal(moved_landmarks(target, source, none), target)


def test_moved_landmarks_open_mouth_moves_lips_and_chin() -> None:
    target, source = mesh(), mesh()
    lower = list(landmark_warp._INNER_LIPS[1])
    source[lower, 1] += 20.0
    moved = moved_landmarks(target, source)
    np.testing.assert_allclose(moved[lower, 1], target[lower, 1] + 20.0)
    assert moved[152, 1] == pytest.approx(target[152, 1] + 20.0)
    assert moved[33, 1] == target[33, 1]


def test_moved_landmarks_wider_set_eye_does_not_move_but_a_shut_one_closes() -> None:
    target, source = mesh(), mesh()
    eye = [*landmark_warp._RIGHT_EYE, 33, 133]
    source[eye] += (-7.0, 3.0)
    np.testing.assert_allclose(moved_landmarks(target, source)[eye], target[eye], atol=1e-9)
    source[list(landmark_warp._RIGHT_LIDS[0]), 1] += 10.0
    moved = moved_landmarks(target, source)
    np.testing.assert_allclose(moved[159], target[159] + (0.0, 10.0), atol=1e-9)


def test_moved_landmarks_brow_keeps_its_shape_and_rises() -> None:
    target, source = mesh(), mesh()
    brow = list(landmark_warp._RIGHT_BROW)
    source[brow, 1] -= 8.0
    moved = moved_landmarks(target, source)
    np.testing.assert_allclose(moved[brow], target[brow] - (0.0, 8.0), atol=1e-9)


def test_moved_landmarks_gains_pick_the_part() -> None:
    target, source = mesh(0), mesh(0)
    source[list(landmark_warp._RIGHT_BROW), 1] -= 8.0
    source[list(landmark_warp._INNER_LIPS[1]), 1] += 20.0
    brows_only = region_mask("brows").astype(np.float32)
    assert brows_only.sum() < len(AUS)
    moved = moved_landmarks(target, source, brows_only)
    np.testing.assert_array_equal(moved[14], target[14])
    assert moved[105, 1] == pytest.approx(target[105, 1] - 8.0)


def test_moved_landmarks_wrong_shape_names_the_argument() -> None:
    with pytest.raises(ContractError, match="source_xy"):
        moved_landmarks(mesh(), mesh()[:468])
