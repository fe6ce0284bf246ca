"""Plain geometric readings of an expression and a head pose, to judge real pictures by.

All from face-mesh landmarks.

Nothing here is learned and nothing here is used by the networks, so a model cannot have been fitted
to it.

Frame of reference:
    Landmarks are taken in three dimensions (x, y, depth; x to the right, y down, depth away from
    the camera). A similarity of three dimensions maps the points an expression hardly moves
    (:data:`RIGID_POINTS`) onto a fixed frontal head. After it there is no head rotation, position
    or size left; the unit is the outer canthal distance of the frontal head.

What each descriptor is (all in units of the outer canthal distance):
    mouth_opening  mean distance between the inner edges of the lips at three places (13-14, 82-87,
                   312-317); 0 is closed
    mouth_width    distance between the mouth corners (61-291)
    smile          height of the mouth corners: minus the mean y of 61 and 291; grows as the corners
                   rise. The origin is the middle between the outer eye corners, so it is negative
    brow_height    mean height of ten brow points over the line of the eye corners (33, 133, 362,
                   263); grows as brows rise
    eye_opening    mean distance between the lids at three places in each eye; 0 is shut

Distances between people differ at rest (a wide mouth is not a smile), so these are for following
one face over time, or for comparing pictures of one face; across people only their correlation says
something, and never reaches 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from rt_swap.errors import ContractError
from rt_swap.frames import F64, TrackedFace

NAMES: Final = ("mouth_opening", "mouth_width", "smile", "brow_height", "eye_opening")
"""Descriptors, in the order of :func:`describe`."""

RIGID_POINTS: Final[dict[int, tuple[float, float, float]]] = {
    33: (-0.500, 0.000, 0.000),
    263: (0.500, 0.000, 0.000),
    133: (-0.189, 0.020, -0.061),
    362: (0.189, 0.020, -0.061),
    103: (-0.563, -0.487, 0.037),
    332: (0.563, -0.487, 0.037),
    54: (-0.674, -0.382, 0.181),
    284: (0.674, -0.382, 0.181),
    67: (-0.393, -0.555, -0.086),
    297: (0.393, -0.555, -0.086),
    21: (-0.743, -0.250, 0.318),
    251: (0.743, -0.250, 0.318),
    8: (0.000, -0.130, -0.254),
    168: (0.000, -0.049, -0.249),
    6: (0.000, 0.033, -0.301),
    197: (0.000, 0.111, -0.360),
    195: (0.000, 0.187, -0.424),
    5: (0.000, 0.268, -0.489),
}
"""Eye corners, forehead and bridge of the nose, by face-mesh index, and where they lie in the
frontal head.

Positions: the mirror-symmetric Procrustes mean of mediapipe's own answer on 115 neutral frontal
portraits, in units of the outer canthal distance around its middle. Chosen because neutral and
smiling pictures of one person move them least."""

_RIGID_INDEX: Final = np.array(list(RIGID_POINTS))
_RIGID_XYZ: Final = np.array(list(RIGID_POINTS.values()))
_LIP_PAIRS: Final = ((13, 14), (82, 87), (312, 317))
_CORNERS: Final = (61, 291)
_BROWS: Final = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336)
_EYE_LINE: Final = (33, 133, 362, 263)
_LID_PAIRS: Final = ((160, 144), (159, 145), (158, 153), (385, 380), (386, 374), (387, 373))


def points_from_face(face: TrackedFace) -> F64:
    """Landmarks of a tracked face in three dimensions.

    Args:
        face: What a tracker found; its depth is in pixels like x and y.

    Returns:
        (478, 3) float64 pixels, order (x, y, depth).
    """
    return np.concatenate([face.landmarks_xy, face.depth[:, None]], axis=1).astype(np.float64)


def similarity_3d(points_a: F64, points_b: F64) -> tuple[float, F64, F64]:
    """Least-squares similarity of three dimensions, ``b ~ scale * rotation @ a + offset``.

    Umeyama, IEEE TPAMI 13(4), 1991, eq. 40-42 (a reflection is never answered).

    Args:
        points_a: (N, 3), N >= 3, not all on one line.
        points_b: (N, 3).

    Returns:
        scale (> 0), rotation (3, 3), offset (3,).

    Raises:
        ContractError: If the shapes differ, a value is not finite, or the points coincide.
    """
    if points_a.shape != points_b.shape or points_a.ndim != 2 or points_a.shape[1] != 3:
        raise ContractError(
            "similarity_3d: two arrays of shape (N, 3) are needed, "
            f"got {points_a.shape} and {points_b.shape}"
        )
    mean_a, mean_b = points_a.mean(0), points_b.mean(0)
    a, b = points_a - mean_a, points_b - mean_b
    variance = float((a**2).sum(1).mean())
    if not (np.isfinite(variance) and np.isfinite(b).all() and variance > 1e-18):
        raise ContractError("similarity_3d: the points coincide or are not finite")
    u, singular, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scale = float((singular * sign).sum() / variance)
    return scale, rotation, mean_b - scale * rotation @ mean_a


def frontal_points(points_xyz: F64) -> F64:
    """Landmarks with head rotation, position and size removed.

    Args:
        points_xyz: (468 or more, 3), order (x, y, depth), one unit for all three.

    Returns:
        The same points in the frontal head's frame, unit: its outer canthal distance.

    Raises:
        ContractError: If there are too few points or they are degenerate.
    """
    points = np.asarray(points_xyz, np.float64)
    if points.ndim != 2 or points.shape[0] < 468 or points.shape[1] != 3:
        raise ContractError(
            f"descriptors: landmarks must be (468 or more, 3), got {points.shape}; "
            "pass points_from_face(face)"
        )
    scale, rotation, offset = similarity_3d(points[_RIGID_INDEX], _RIGID_XYZ)
    return np.asarray(scale * points @ rotation.T + offset, np.float64)


def describe(points_xyz: F64) -> F64:
    """The five descriptors of one face; the module's docstring says what each is.

    Args:
        points_xyz: (468 or more, 3) as for :func:`frontal_points`.

    Returns:
        (5,) float64 in the order of NAMES, unit: outer canthal distances.

    Raises:
        ContractError: As :func:`frontal_points`.
    """
    p = frontal_points(points_xyz)

    def gap(pairs: tuple[tuple[int, int], ...]) -> float:
        return float(np.mean([np.linalg.norm(p[a] - p[b]) for a, b in pairs]))

    return np.array(
        [
            gap(_LIP_PAIRS),
            gap((_CORNERS,)),
            -p[list(_CORNERS), 1].mean(),
            p[list(_EYE_LINE), 1].mean() - p[list(_BROWS), 1].mean(),
            gap(_LID_PAIRS),
        ]
    )


def pose_angle_deg(points_a: F64, points_b: F64) -> float:
    """How far a head is turned between two pictures of it.

    The rotation of the similarity between the rigid points of both; its whole angle, about whatever
    axis.

    Args:
        points_a: (468 or more, 3).
        points_b: (468 or more, 3).

    Returns:
        Degrees, 0 .. 180.

    Raises:
        ContractError: If the points are degenerate.
    """
    _, rotation, _ = similarity_3d(points_a[_RIGID_INDEX], points_b[_RIGID_INDEX])
    # atan2 of |axis part| and trace stays precise near 0, where arccos of the trace alone does not
    axis = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    return float(np.degrees(np.arctan2(np.linalg.norm(axis), np.trace(rotation) - 1.0)))


def rigid_points_xy(points_xyz: F64) -> F64:
    """The rigid points in the picture, (18, 2), in units of the face's outer canthal distance
    there.
    """
    unit = float(np.linalg.norm(points_xyz[33] - points_xyz[263]))
    return np.asarray(points_xyz[_RIGID_INDEX, :2] / unit, np.float64)


def correlation(
    a: npt.ArrayLike, b: npt.ArrayLike, min_range: float = 0.0
) -> tuple[float, int, float]:
    """Pearson's r over the entries that are finite in both.

    Args:
        a: (T,), the one that leads; NaN where unknown.
        b: (T,), the one that follows.
        min_range: r is NaN where ``a`` spans less than this between its 5th and 95th percentile.

    Returns:
        r (NaN where fewer than 3 entries are left, one side is constant, or ``a`` hardly moves),
        how many entries were used, and the span of ``a`` (5th to 95th percentile; 0 without
        entries).

    Raises:
        ContractError: If lengths differ.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ContractError(
            f"correlation: two series of one length are needed, got {x.shape}, {y.shape}"
        )
    use = np.isfinite(x) & np.isfinite(y)
    x, y = x[use], y[use]
    span = float(np.ptp(np.percentile(x, [5, 95]))) if len(x) else 0.0
    if len(x) < 3 or span < min_range or np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return float("nan"), len(x), span
    return float(np.corrcoef(x, y)[0, 1]), len(x), span


def slope(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """By how much ``b`` grows per unit of ``a``: least squares with a constant, over the entries
    that are finite in both.

    Args:
        a: (T,), the one that leads; NaN where unknown.
        b: (T,), the one that follows.

    Returns:
        The slope, 0 where ``b`` is constant; NaN where fewer than 3 entries are left or ``a`` is
        constant.

    Raises:
        ContractError: If lengths differ.
    """
    r, used, _ = correlation(a, b)
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    use = np.isfinite(x) & np.isfinite(y)
    if used < 3 or np.ptp(x[use]) < 1e-12:
        return float("nan")
    return float(r * y[use].std() / x[use].std()) if np.isfinite(r) else 0.0


def jitter(series: npt.ArrayLike) -> float:
    """How much a series trembles: the mean length of its second difference, ``|x[t-1] - 2 x[t] +
    x[t+1]|``.

    Steady motion has none. Frames without a value (NaN) take their neighbours' differences out of
    the mean.

    Args:
        series: (T,) or (T, ...) numbers; the last axis of more than one is a vector whose length
            counts.

    Returns:
        Mean in the series' own unit, NaN where no three neighbouring frames have values.
    """
    x = np.asarray(series, np.float64)
    if len(x) < 3:
        return float("nan")
    second = x[:-2] - 2.0 * x[1:-1] + x[2:]
    length = np.abs(second) if x.ndim == 1 else np.linalg.norm(second, axis=-1)
    length = length[np.isfinite(length)]
    return float(length.mean()) if length.size else float("nan")
