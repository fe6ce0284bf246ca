"""The plain landmark warp that a network has to beat: piecewise-affine, on the face mesh.

Both faces are in the aligned crop, so position, size and in-plane rotation are already taken out.
The target's moving points are carried towards where the source has them, the rest stays, and every
triangle of the mesh is mapped affinely:

* lips: towards the source's own place in the aligned crop (the template is the common reference);
* chin and jaw line: down by as much as the source's lips are further apart than the target's (their
  own place is the person's);
* lids and irises: towards the source's place *relative to its eye corners*, so that a wider-set or
  larger eye does not move;
* brows: towards the source's height over its eye corners, likewise;
* the rest of the face is held where it is, but for a band around the moved points, which the mesh
  carries along.

``step`` scales the displacement: 1 goes all the way, and with it carries over how the *people*
differ (a wide mouth), which no single picture tells apart from expression. 0 is the unchanged
target. The evaluation gives the baseline the step that does best on the very pictures it is scored
on, and, as a second row, the *true* landmarks of the answer (:func:`warp_flow` with ``step`` 1 and
``move_all``), which no deployable method has. There is nothing to paint with: ``keep`` is 1
everywhere.

Same scheme as scikit-image's ``PiecewiseAffineTransform`` (Delaunay triangles, one affine each),
rasterised triangle by triangle because that class takes seconds for a crop. Coordinates follow
rt_swap.geometry: centres of pixels at +0.5.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

from rt_swap.aus import AUS
from rt_swap.errors import ContractError
from rt_swap.frames import F32, F64
from rt_swap.geometry import similarity_from_points

I64 = npt.NDArray[np.int64]

# face-mesh indices; inner lips and lids are given as (upper, lower) chains between the corners
_INNER_LIPS: Final = (
    (191, 80, 81, 82, 13, 312, 311, 310, 415),
    (95, 88, 178, 87, 14, 317, 402, 318, 324),
)
_LIPS: Final = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
    78, 308, *_INNER_LIPS[0], *_INNER_LIPS[1],
    76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306, 307, 320, 404, 315, 16, 85, 180, 90, 77,
    62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292, 325, 319, 403, 316, 15, 86, 179, 89, 96,
)  # fmt: skip
_CHIN_AND_JAW: Final = (
    152, 148, 176, 149, 150, 136, 172, 377, 400, 378, 379, 365, 397, 175, 199, 200, 18, 83, 182,
    106, 313, 406, 335, 171, 208, 201, 396, 428, 421, 140, 369, 32, 262, 194, 418, 204, 424, 211,
    431, 170, 395,
)  # fmt: skip
_RIGHT_LIDS: Final = (
    (246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155),
)  # fmt: skip
_LEFT_LIDS: Final = (
    (466, 388, 387, 386, 385, 384, 398), (249, 390, 373, 374, 380, 381, 382),
)  # fmt: skip
_RIGHT_EYE: Final = (
    *_RIGHT_LIDS[0],
    *_RIGHT_LIDS[1],
    247,
    30,
    29,
    27,
    28,
    56,
    190,
    *range(468, 473),
)
_LEFT_EYE: Final = (
    *_LEFT_LIDS[0],
    *_LEFT_LIDS[1],
    467,
    260,
    259,
    257,
    258,
    286,
    414,
    *range(473, 478),
)
_RIGHT_BROW: Final = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55)
_LEFT_BROW: Final = (300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
_RIGHT_CORNERS: Final = (33, 133)
_LEFT_CORNERS: Final = (362, 263)

_EYE_GROUPS: Final = (
    (_RIGHT_EYE, _RIGHT_BROW, _RIGHT_CORNERS),
    (_LEFT_EYE, _LEFT_BROW, _LEFT_CORNERS),
)
_FREE_BAND_PX: Final = 22.0
"""Points nearer than this to a moved one (at 256 px) are not held: the mesh carries them along."""

_MOUTH_REGIONS: Final = ("mouth", "jaw", "cheeks", "nose")
_EYE_REGIONS: Final = ("eyes", "gaze")
_BROW_REGIONS: Final = ("brows",)


def _mean_gain(gains: F32, regions: tuple[str, ...]) -> float:
    return float(gains[[au.region in regions for au in AUS]].mean())


def moved_landmarks(
    target_xy: F64, source_xy: F64, gains: F32 | None = None, step: float = 1.0
) -> F64:
    """Where the plain warp puts the target's landmarks.

    Args:
        target_xy: (478, 2) pixels of the target's aligned crop.
        source_xy: (478, 2) pixels of the source's aligned crop, of the same size.
        gains: (K,) in [0, 1], or None for 1 everywhere. A landmark moves by the mean gain of its
            part of the face (mouth with jaw, cheeks and nose; eyes with gaze; brows): landmarks
            know no AUs.
        step: 0 leaves the target, 1 goes all the way.

    Returns:
        (478, 2) float64; points that an expression moves are moved, the others are the target's.

    Raises:
        ContractError: If shapes are wrong.
    """
    for name, points in (("target_xy", target_xy), ("source_xy", source_xy)):
        if points.shape != (478, 2):
            raise ContractError(
                f"moved_landmarks: {name} must be (478, 2) (mesh with irises), got {points.shape}"
            )
    gains = np.ones(len(AUS), np.float32) if gains is None else gains
    moved = np.array(target_xy, np.float64)

    lips, jaw = list(_LIPS), list(_CHIN_AND_JAW)
    amount = step * _mean_gain(gains, _MOUTH_REGIONS)
    moved[lips] += amount * (source_xy[lips] - target_xy[lips])
    moved[jaw, 1] += amount * (_lip_gap(source_xy) - _lip_gap(target_xy))

    for eye, brow, corners in _EYE_GROUPS:
        # the source's eye laid onto the target's eye corners: only its opening and gaze are left
        M_target_from_source = similarity_from_points(
            source_xy[list(corners)], target_xy[list(corners)]
        )
        linear, offset = M_target_from_source[:, :2], M_target_from_source[:, 2]
        for points, regions in ((eye, _EYE_REGIONS), (brow, _BROW_REGIONS)):
            index = list(points)
            amount = step * _mean_gain(gains, regions)
            laid = source_xy[index] @ linear.T + offset
            if points is brow:
                # shape and thickness of a brow are the person's; only its height and slant move
                laid = _slanted(target_xy[index], laid)
            moved[index] += amount * (laid - target_xy[index])
    return moved


def _lip_gap(points_xy: F64) -> float:
    """Mean height of the gap between the inner lips, pixels."""
    upper, lower = _INNER_LIPS
    return float((points_xy[list(lower), 1] - points_xy[list(upper), 1])[2:-2].mean())


def _slanted(target_xy: F64, laid_xy: F64) -> F64:
    """The target's points shifted in y by a straight line fitted to (laid - target) over x."""
    x = target_xy[:, 0] - target_xy[:, 0].mean()
    dy = laid_xy[:, 1] - target_xy[:, 1]
    slope = float((x * dy).sum() / max(float((x**2).sum()), 1e-9))
    out = target_xy.copy()
    out[:, 1] += dy.mean() + slope * x
    return out


def _parted(points_xy: F64) -> F64:
    """Landmarks with lips and lids pulled apart by a few pixels, so that triangles never tie one
    lip to the other's far side.
    """
    parted = points_xy.copy()
    for upper, lower in (_INNER_LIPS, _RIGHT_LIDS, _LEFT_LIDS):
        up, low = list(upper), list(lower)
        middle = 0.5 * (points_xy[up] + points_xy[low])
        half = np.maximum(0.5 * (points_xy[low, 1] - points_xy[up, 1]), 2.5)
        parted[up] = middle - half[:, None] * np.array([0.0, 1.0])
        parted[low] = middle + half[:, None] * np.array([0.0, 1.0])
    return parted


def _border(size_px: int) -> F64:
    """16 points around the crop's edge, which stay where they are."""
    s = float(size_px)
    t = np.linspace(0.0, s, 5)[:-1]
    zero, full = np.zeros(4), np.full(4, s)
    return np.concatenate(
        [
            np.stack([t, zero], 1),
            np.stack([full, t], 1),
            np.stack([s - t, full], 1),
            np.stack([zero, s - t], 1),
        ]
    )


def warp_flow(target_xy: F64, moved_xy: F64, size_px: int, *, move_all: bool = False) -> F32:
    """Backward flow of the piecewise-affine warp that carries ``target_xy`` to ``moved_xy``.

    Args:
        target_xy: (N, 2) landmarks in the target's crop, pixels.
        moved_xy: (N, 2) where they shall be in the answer.
        size_px: Side of the crop.
        move_all: True where every landmark has a place of its own to go to (true landmarks); False
            where unmoved landmarks near a moved one shall be carried along by the mesh rather than
            hold it back.

    Returns:
        ``flow_xy`` (1, 2, S, S) float32: ``answer(p) = target(p + flow(p))``; 0 outside the mesh.

    Raises:
        ContractError: If shapes differ or a number is not finite.
    """
    import cv2

    target_xy, moved_xy = np.asarray(target_xy, np.float64), np.asarray(moved_xy, np.float64)
    if target_xy.shape != moved_xy.shape or target_xy.ndim != 2 or target_xy.shape[1] != 2:
        raise ContractError(
            "warp_flow: two arrays of (N, 2) landmarks are needed, "
            f"got {target_xy.shape} and {moved_xy.shape}"
        )
    if not (np.isfinite(target_xy).all() and np.isfinite(moved_xy).all()):
        raise ContractError("warp_flow: a landmark is not finite")

    parted = _parted(target_xy) if len(target_xy) >= 468 else target_xy
    use = np.ones(len(target_xy), bool)
    if not move_all:
        shift = np.linalg.norm(moved_xy - target_xy, axis=1)
        moving = shift > 0.25
        if moving.any():
            away = np.linalg.norm(target_xy[:, None] - target_xy[None, moving], axis=2).min(1)
            use = moving | (away > _FREE_BAND_PX * size_px / 256.0)
            use[[i for i in (*_RIGHT_CORNERS, *_LEFT_CORNERS) if i < len(use)]] = True
    # landmarks outside the crop would fold the mesh over its border
    use &= ((target_xy > 0.5) & (target_xy < size_px - 0.5)).all(1)
    use &= ((moved_xy > 0.5) & (moved_xy < size_px - 0.5)).all(1)

    border = _border(size_px)
    corners_in = np.concatenate([target_xy[use], border])
    corners_out = np.concatenate([moved_xy[use], border])
    triangles: I64 = Delaunay(np.concatenate([parted[use], border])).simplices.astype(np.int64)

    tri_in, tri_out = corners_in[triangles], corners_out[triangles]
    edges_out = tri_out[:, 1:] - tri_out[:, :1]
    doubled_area = edges_out[:, 0, 0] * edges_out[:, 1, 1] - edges_out[:, 0, 1] * edges_out[:, 1, 0]
    parted_edges = _edges(np.concatenate([parted[use], border])[triangles])
    orientation = np.sign(
        parted_edges[:, 0, 0] * parted_edges[:, 1, 1]
        - parted_edges[:, 0, 1] * parted_edges[:, 1, 0]
    )
    # a triangle that the movement turned over is left out: another one covers the same pixels
    good = np.flatnonzero(doubled_area * orientation > 1e-3)

    # per triangle: in(p) = linear @ (p - out0) + in0
    linear = np.einsum(
        "tij,tjk->tik", np.swapaxes(tri_in[good, 1:] - tri_in[good, :1], 1, 2),
        np.linalg.inv(np.swapaxes(edges_out[good], 1, 2)),
    )  # fmt: skip
    offset = tri_in[good, 0] - np.einsum("tij,tj->ti", linear, tri_out[good, 0])

    owner = np.full((size_px, size_px), -1, np.int32)
    # OpenCV counts from pixel centres; 4 fractional bits
    fixed = np.rint((tri_out[good] - 0.5) * 16.0).astype(np.int32)
    for k in np.argsort(-np.abs(doubled_area[good])):  # small ones last: they lie on lips and lids
        cv2.fillConvexPoly(owner, fixed[k], int(k), lineType=cv2.LINE_8, shift=4)

    grid = np.arange(size_px) + 0.5
    at = np.stack(np.meshgrid(grid, grid), axis=-1)  # (S, S, 2), order (x, y)
    inside = owner >= 0
    flow = np.zeros((size_px, size_px, 2))
    k = owner[inside]
    flow[inside] = np.einsum("nij,nj->ni", linear[k], at[inside]) + offset[k] - at[inside]
    # inside a triangle nothing moves further than its corners; what only its outline touches might
    reach = np.linalg.norm(tri_in[good] - tri_out[good], axis=2).max(1)[k]
    length = np.linalg.norm(flow[inside], axis=1)
    flow[inside] *= np.minimum(1.0, reach / np.maximum(length, 1e-9))[:, None]
    return np.ascontiguousarray(flow.transpose(2, 0, 1)[None], np.float32)


def _edges(triangles_xy: F64) -> F64:
    return triangles_xy[:, 1:] - triangles_xy[:, :1]
