"""Descriptors: hand-made faces, what moves each one, and that a turned head changes none."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap.errors import ContractError
from rt_swap.frames import TrackedFace
from training import descriptors
from training.descriptors import NAMES, RIGID_POINTS

BROWS = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336)


def rotation(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis],
        np.float64,
    )


def face() -> np.ndarray:
    """A made-up face in the frontal frame, outer canthal distance 1; points that matter have
    hand-set places."""
    p = np.random.default_rng(3).uniform(-0.4, 0.4, (478, 3))
    for i, xyz in RIGID_POINTS.items():
        p[i] = xyz
    for x, (up, low) in zip((0.0, -0.1, 0.1), ((13, 14), (82, 87), (312, 317)), strict=True):
        p[up], p[low] = (x, 0.75, -0.2), (x, 0.75, -0.2)
    p[61], p[291] = (-0.25, 0.77, -0.1), (0.25, 0.77, -0.1)
    for up, low, x in (
        (160, 144, -0.40), (159, 145, -0.35), (158, 153, -0.30),
        (385, 380, 0.30), (386, 374, 0.35), (387, 373, 0.40),
    ):  # fmt: skip
        p[up], p[low] = (x, -0.04, 0.0), (x, 0.04, 0.0)
    for i in BROWS:
        p[i, 1] = -0.24
    return p


def reading(points: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, descriptors.describe(points), strict=True))


def test_describe_hand_made_face_has_the_hand_made_distances() -> None:
    got = reading(face())
    assert got["mouth_opening"] == pytest.approx(0.0, abs=1e-9)
    assert got["mouth_width"] == pytest.approx(0.5)
    assert got["smile"] == pytest.approx(-0.77)
    assert got["brow_height"] == pytest.approx(0.24 + (0 + 0 + 0.02 + 0.02) / 4)
    assert got["eye_opening"] == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("moves", "name", "by"),
    [
        ({14: (0, 0.3, 0), 87: (0, 0.3, 0), 317: (0, 0.3, 0)}, "mouth_opening", 0.3),
        ({61: (-0.05, 0, 0), 291: (0.05, 0, 0)}, "mouth_width", 0.1),
        ({61: (0, -0.06, 0), 291: (0, -0.06, 0)}, "smile", 0.06),
        (dict.fromkeys(BROWS, (0, -0.1, 0)), "brow_height", 0.1),
        (dict.fromkeys((144, 145, 153, 373, 374, 380), (0, -0.08, 0)), "eye_opening", -0.08),
    ],
)  # fmt: skip
def test_describe_movement_changes_its_own_descriptor_only(
    moves: dict, name: str, by: float
) -> None:
    moved = face()
    for i, xyz in moves.items():
        moved[i] += xyz
    before, after = reading(face()), reading(moved)
    for other in NAMES:
        change = by if other == name else 0.0
        assert after[other] - before[other] == pytest.approx(change, abs=1e-9), other


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_describe_turned_scaled_shifted_head_reads_the_same(axis: str) -> None:
    p = face()
    seen = 137.0 * p @ rotation(axis, 25.0).T + np.array([310.0, 205.0, -7.0])
    np.testing.assert_allclose(descriptors.describe(seen), descriptors.describe(p), atol=1e-9)


def test_describe_one_sided_squash_does_not_read_the_same() -> None:
    # depth in another unit than x and y is no similarity: the invariance above is not vacuous
    p = face()
    seen = p @ rotation("y", 25.0).T * np.array([1.0, 1.0, 0.3])
    assert np.abs(descriptors.describe(seen) - descriptors.describe(p)).max() > 1e-3


def test_describe_wrong_shape_says_what_to_pass() -> None:
    with pytest.raises(ContractError, match="points_from_face"):
        descriptors.describe(np.zeros((478, 2)))


def test_describe_coinciding_points_is_an_error() -> None:
    with pytest.raises(ContractError, match="coincide"):
        descriptors.describe(np.full((478, 3), 5.0))


def test_points_from_face_joins_depth() -> None:
    p = face()
    tracked = TrackedFace(p[:, :2], p[:, 2], 1.0, 0)
    np.testing.assert_array_equal(descriptors.points_from_face(tracked), p)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("degrees", [0.0, 0.001, 1.5, 30.0, 170.0])
def test_pose_angle_is_the_turn(axis: str, degrees: float) -> None:
    p = face()
    turned = 2.0 * p @ rotation(axis, degrees).T + 4.0
    assert descriptors.pose_angle_deg(p, turned) == pytest.approx(degrees, abs=1e-6)


def test_pose_angle_ignores_the_mouth() -> None:
    p, q = face(), face()
    q[[61, 291, 13, 14, 152]] += 0.2
    assert descriptors.pose_angle_deg(p, q) == pytest.approx(0.0, abs=1e-6)


def test_similarity_3d_mirrored_points_is_never_a_reflection() -> None:
    a = np.random.default_rng(0).normal(size=(9, 3))
    _, r, _ = descriptors.similarity_3d(a, a * [-1, 1, 1])
    assert np.linalg.det(r) == pytest.approx(1.0)


def test_correlation_known_values() -> None:
    r, n, span = descriptors.correlation([0, 1, 2, 3], [1, 3, 5, 7])
    assert (r, n) == (pytest.approx(1.0), 4)
    assert span == pytest.approx(2.7)  # 5th percentile 0.15, 95th 2.85
    assert descriptors.correlation([0, 1, 2], [0, -1, -2])[0] == pytest.approx(-1.0)
    assert descriptors.correlation([1, 2, 3, 4], [1, 3, 2, 4])[0] == pytest.approx(0.8)


def test_correlation_skips_unknown_and_refuses_the_still() -> None:
    r, n, _ = descriptors.correlation([0, 1, np.nan, 2, 9], [0, 1, 5, 2, np.nan])
    assert (r, n) == (pytest.approx(1.0), 3)
    assert np.isnan(descriptors.correlation([1, 1, 1], [1, 2, 3])[0])
    assert np.isnan(descriptors.correlation([0, 0.1, 0.2], [1, 2, 3], min_range=1.0)[0])
    assert np.isnan(descriptors.correlation([1, 2], [1, 2])[0])
    assert descriptors.correlation([np.nan, np.nan], [1, 2]) == (
        pytest.approx(np.nan, nan_ok=True),
        0,
        0.0,
    )


def test_slope_known_values() -> None:
    assert descriptors.slope([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert descriptors.slope([0, 1, 2], [5, 3, 1]) == pytest.approx(-2.0)
    x, y = [0, 1, 2, 3, np.nan, 9], [0, 4, 0, 8, 5, np.nan]
    assert descriptors.slope(x, y) == pytest.approx(np.polyfit(x[:4], y[:4], 1)[0])
    assert descriptors.slope([0, 1, 2], [3, 3, 3]) == 0.0
    for unknown in ([1, 1, 1], [1, 2, np.nan]):
        assert np.isnan(descriptors.slope(unknown, [0, 1, 2]))


def test_jitter_known_values() -> None:
    assert descriptors.jitter([0, 2, 4, 6]) == pytest.approx(0.0)
    assert descriptors.jitter([0, 1, 0]) == pytest.approx(2.0)
    assert descriptors.jitter([0, 1, 0, np.nan, 5]) == pytest.approx(2.0)
    assert np.isnan(descriptors.jitter([0, 1]))
    # a vector's length, not the sum of its parts: second difference (3, 4)
    assert descriptors.jitter([[0, 0], [0, 0], [3, 4]]) == pytest.approx(5.0)


def test_rigid_points_xy_unit_is_the_canthal_distance() -> None:
    p = 50.0 * face()
    xy = descriptors.rigid_points_xy(p)
    assert xy.shape == (len(RIGID_POINTS), 2)
    assert np.linalg.norm(xy[0] - xy[1]) == pytest.approx(1.0)
