"""2x3 affines, boxes and landmarks. NumPy float64, no images.

Convention:
    Coordinates are (x, y) in pixels, origin at the top-left *corner*; the centre of pixel [row i,
    col j] is
    (j + 0.5, i + 0.5). ``M_b_from_a`` maps points of a to points of b: ``p_b = M_b_from_a @ (p_a,
    1)``.
    Sizes scale points by plain multiplication, and affines compose. Only :func:`to_cv2` writes 0.5.
"""

from __future__ import annotations

import numpy as np

from rt_swap.contract import STABLE_LANDMARKS, template_xy
from rt_swap.errors import ContractError
from rt_swap.frames import F64


def apply(M_b_from_a: F64, points_a: F64) -> F64:
    """Map points.

    Args:
        M_b_from_a: (2, 3).
        points_a: (..., 2).

    Returns:
        (..., 2) points of b.
    """
    return np.asarray(points_a @ M_b_from_a[:, :2].T + M_b_from_a[:, 2], np.float64)


def compose(M_c_from_b: F64, M_b_from_a: F64) -> F64:
    """``M_c_from_a``: first b from a, then c from b. Both (2, 3)."""
    linear = M_c_from_b[:, :2] @ M_b_from_a[:, :2]
    offset = M_c_from_b[:, :2] @ M_b_from_a[:, 2] + M_c_from_b[:, 2]
    return np.concatenate([linear, offset[:, None]], axis=1)


def invert(M_b_from_a: F64) -> F64:
    """``M_a_from_b``, (2, 3).

    Raises:
        ContractError: If the matrix is singular or not finite.
    """
    linear = np.asarray(M_b_from_a[:, :2], np.float64)
    det = float(np.linalg.det(linear)) if np.isfinite(M_b_from_a).all() else 0.0
    if not np.isfinite(det) or abs(det) < 1e-12:
        raise ContractError(
            f"invert: the affine is singular or not finite (determinant {det:g}): "
            f"{M_b_from_a.tolist()}"
        )
    inverse = np.linalg.inv(linear)
    return np.concatenate([inverse, (-inverse @ M_b_from_a[:, 2])[:, None]], axis=1)


def scale_of(M_b_from_a: F64) -> float:
    """Pixels of b per pixel of a (square root of the determinant)."""
    return float(np.sqrt(abs(np.linalg.det(M_b_from_a[:, :2]))))


def similarity_from_points(points_a: F64, points_b: F64, weights: F64 | None = None) -> F64:
    """Least-squares similarity (rotation, uniform scale, translation; no reflection) from a to b.

    Umeyama, IEEE TPAMI 13(4), 1991, eq. 40-42, restricted to two dimensions.

    Args:
        points_a: (N, 2), N >= 2.
        points_b: (N, 2).
        weights: (N,) non-negative, or None for equal ones.

    Returns:
        ``M_b_from_a``, (2, 3).

    Raises:
        ContractError: If the points coincide.
    """
    w = np.ones(len(points_a)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    mean_a, mean_b = w @ points_a, w @ points_b
    a, b = points_a - mean_a, points_b - mean_b
    variance = float(w @ (a**2).sum(1))
    if not variance > 1e-12:
        raise ContractError(
            "similarity_from_points: all points coincide; no transform can be found"
        )
    # a rotation and scale is multiplication by a complex number; the best one is <a, b> / <a, a>
    real = float(w @ (a * b).sum(1)) / variance
    imag = float(w @ (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])) / variance
    linear = np.array([[real, -imag], [imag, real]])
    return np.concatenate([linear, (mean_b - linear @ mean_a)[:, None]], axis=1)


def crop_from_landmarks(landmarks_xy: F64) -> F64:
    """The aligned crop's transform from face-mesh landmarks.

    Args:
        landmarks_xy: (468 or more, 2) pixels of the frame, mediapipe face-mesh order.

    Returns:
        ``M_crop_from_frame``, (2, 3): the stable landmarks lie as near to their template as a
        similarity allows.
    """
    return similarity_from_points(landmarks_xy[list(STABLE_LANDMARKS)], template_xy())


def to_cv2(M_b_from_a: F64) -> F64:
    """The same map for OpenCV, whose integer coordinates are pixel *centres*."""
    shifted = M_b_from_a.copy()
    shifted[:, 2] += M_b_from_a[:, :2] @ np.array([0.5, 0.5]) - 0.5
    return shifted


def roi_of_crop(
    M_frame_from_crop: F64, crop_size_px: int, frame_hw: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Smallest box of whole frame pixels that holds the crop, clipped to the frame.

    Args:
        M_frame_from_crop: (2, 3).
        crop_size_px: Side of the square crop.
        frame_hw: (height, width).

    Returns:
        ``box_xyxy``, half-open; empty (x1 <= x0 or y1 <= y0) where the crop lies outside the frame.
    """
    s = float(crop_size_px)
    corners = apply(M_frame_from_crop, np.array([[0, 0], [s, 0], [0, s], [s, s]], np.float64))
    x0, y0 = np.floor(corners.min(0)).astype(int)
    x1, y1 = np.ceil(corners.max(0)).astype(int)
    height, width = frame_hw
    return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)
