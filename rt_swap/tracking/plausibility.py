"""How far a set of landmarks can be believed to be a face that a crop can be cut from.

A landmark network always answers with something face-shaped, and its own presence score is near 1
on much that it never saw in training. What it cannot fake is geometry: landmarks that lie outside
the picture were guessed, a mesh that does not fit the crop's template cannot be aligned, and a face
of a few pixels has no expression.
"""

from __future__ import annotations

import numpy as np

from rt_swap.contract import STABLE_LANDMARKS, template_xy
from rt_swap.errors import ContractError
from rt_swap.frames import F64
from rt_swap.geometry import apply, crop_from_landmarks


def template_residual(landmarks_xy: F64) -> float:
    """Share of the template's shape that the stable landmarks do not explain.

    The Procrustes distance: root mean square distance after the best similarity over the template's
    own spread (Gower, Psychometrika 40, 1975, normalised by the size of the target).

    Args:
        landmarks_xy: (468 or more, 2) pixels.

    Returns:
        [0, 1]: about 0.1 for a frontal face, 0.5 for a half profile, above 0.9 for points in any
        order and for a mirror image; 1 where no similarity exists.
    """
    try:
        M_crop_from_frame = crop_from_landmarks(landmarks_xy)
    except ContractError:
        return 1.0
    template = template_xy()
    misfit = apply(M_crop_from_frame, landmarks_xy[list(STABLE_LANDMARKS)]) - template
    spread = template - template.mean(0)
    return float(np.sqrt((misfit**2).sum() / (spread**2).sum()))


def in_frame_fraction(landmarks_xy: F64, frame_hw: tuple[int, int]) -> float:
    """Share of the landmarks that lie inside the picture, [0, 1]."""
    x, y = landmarks_xy[:, 0], landmarks_xy[:, 1]
    inside = (x >= 0) & (y >= 0) & (x < frame_hw[1]) & (y < frame_hw[0])
    return float(inside.mean())


def plausibility(landmarks_xy: F64, frame_hw: tuple[int, int], min_face_px: float) -> float:
    """Factor on a tracker's own score.

    Args:
        landmarks_xy: (468 or more, 2) pixels.
        frame_hw: (height, width).
        min_face_px: Side of the landmark box under which there is no face to speak of.

    Returns:
        [0, 1]: 1 for a whole face towards the camera; 0 where it is too small, hardly in the
        picture, not finite or not face-shaped. The bounds are measured: see
        tests/tracking/test_plausibility.py.
    """
    if not np.isfinite(landmarks_xy).all():
        return 0.0
    width, height = landmarks_xy.max(0) - landmarks_xy.min(0)
    # a box wholly flat one way is a mesh gone wrong, whatever its area
    if max(width, height) < min_face_px or min(width, height) < 0.25 * max(width, height):
        return 0.0
    inside = _ramp(in_frame_fraction(landmarks_xy, frame_hw), 0.3, 0.7)
    fits = 1.0 - _ramp(template_residual(landmarks_xy), 0.7, 0.9)
    return inside * fits


def _ramp(value: float, low: float, high: float) -> float:
    """0 below ``low``, 1 above ``high``, straight in between."""
    return min(max((value - low) / (high - low), 0.0), 1.0)
