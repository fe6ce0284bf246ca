from __future__ import annotations

import itertools

import numpy as np
import pytest

from rt_swap.tracking.plausibility import in_frame_fraction, plausibility, template_residual
from tests.support.faces import landmarks_at

HW = (480, 640)


def test_whole_frontal_face_is_fully_plausible():
    assert template_residual(landmarks_at(300, 200, 128, 0.4)) == pytest.approx(0, abs=1e-9)
    assert plausibility(landmarks_at(300, 200, 128, 0.4), HW, 16) == 1.0


@pytest.mark.parametrize("yaw_deg", [0, 30, 50, 65])
def test_turned_face_is_still_plausible(yaw_deg):
    # foreshortening alone; real clips, where the nose's depth adds to it, are tested elsewhere
    face = landmarks_at(300, 200, 128)
    face[:, 0] = 300 + (face[:, 0] - 300) * np.cos(np.radians(yaw_deg))
    assert plausibility(face, HW, 16) > 0.5


def test_face_beyond_the_edge_is_believed_less_and_less():
    factors = [plausibility(landmarks_at(x, 200, 128), HW, 16) for x in (64, 20, 5, -10, -60)]
    assert factors[0] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(factors))
    assert factors[-1] == 0.0


def test_in_frame_fraction_counts():
    points = np.array([[0, 0], [639.9, 479.9], [640, 10], [-0.1, 10]], np.float64)
    assert in_frame_fraction(points, HW) == 0.5


def test_shuffled_landmarks_are_no_face(rng):
    face = landmarks_at(300, 200, 128)
    assert template_residual(rng.permutation(face)) > 0.85
    assert plausibility(rng.permutation(face), HW, 16) == 0.0


@pytest.mark.parametrize("side_px", [0.0, 10.0])
def test_tiny_or_collapsed_face_is_none(side_px):
    assert plausibility(landmarks_at(300, 200, side_px), HW, 16) == 0.0


def test_mirrored_or_flat_mesh_is_none():
    face = landmarks_at(300, 200, 128)
    flat = face * (1, 0.1) + (0, 180)
    assert plausibility(flat, HW, 16) == 0.0
    upside_down = face * (1, -1) + (0, 400)
    assert plausibility(upside_down, HW, 16) == 0.0


def test_not_finite_is_none():
    face = landmarks_at(300, 200, 128)
    face[5] = np.nan
    assert plausibility(face, HW, 16) == 0.0


def test_coinciding_points_have_no_fit():
    assert template_residual(np.zeros((478, 2))) == 1.0
