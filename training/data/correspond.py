"""Which ICT-FaceKit vertex each mediapipe landmark is.

The 68 Multi-PIE points give the first pairs. Between two of them on a lid or lip, mediapipe has
further contour points;
theirs are found by walking the mesh along the rim and matching arc length.

The tracker's idea of a point is not the model's: its brows lie half a centimetre beside the model's
for everybody. What people at rest have in common of that (training.data.calibrate) is part of the
correspondence, or fits would take it for expressions that everybody shows.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csgraph

from rt_swap.errors import ConfigError
from training.data.ict import RANGES, IctModel

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

# mediapipe face-mesh index of each Multi-PIE point
MEDIAPIPE68 = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip

# contour runs in mediapipe indices whose ends (and middles) are Multi-PIE points: (multi-pie ids,
# mediapipe ids)
_RUNS = (
    ((36, 37, 38, 39), (33, 246, 161, 160, 159, 158, 157, 173, 133)),
    ((39, 40, 41, 36), (133, 155, 154, 153, 145, 144, 163, 7, 33)),
    ((42, 43, 44, 45), (362, 398, 384, 385, 386, 387, 388, 466, 263)),
    ((45, 46, 47, 42), (263, 249, 390, 373, 374, 380, 381, 382, 362)),
    ((48, 49, 50, 51, 52, 53, 54), (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)),
    ((54, 55, 56, 57, 58, 59, 48), (291, 375, 321, 405, 314, 17, 84, 181, 91, 146, 61)),
    ((60, 61, 62, 63, 64), (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)),
    ((64, 65, 66, 67, 60), (308, 324, 318, 402, 317, 14, 87, 178, 88, 95, 78)),
)

OFFSETS_PATH: Final = Path(__file__).with_name("landmark_offsets.json")
"""What training.data.calibrate wrote."""

CONTOUR_COUNT = 17
IRIS_LANDMARKS = (473, 468)
"""mediapipe's iris centres of the person's left and right eye."""
MIDDLE_LANDMARKS = (1, 4, 10, 152, 168)
"""Points of the face's middle line."""


@dataclass(frozen=True)
class Correspondence:
    """Pairs of one mediapipe landmark and one vertex.

    Attributes:
        landmarks: (N,) mediapipe indices.
        vertices: (N,) ICT vertex indices.
        weights: (N,) trust in each pair, 1 = a clear point of the face.
        is_contour: (N,) bool, the jaw line, which slides over the surface as the head turns.
        offsets: (N, 3) from the vertex of a face at rest to where the tracker sees the landmark,
            model units, the same for everybody.
    """

    landmarks: I32
    vertices: I32
    weights: F32
    is_contour: npt.NDArray[np.bool_]
    offsets: F32


def build(model: IctModel, offsets_path: Path | None = OFFSETS_PATH) -> Correspondence:
    """Find the pairs.

    Args:
        model: The morphable model.
        offsets_path: A file that training.data.calibrate wrote; None for offsets of 0.

    Raises:
        ConfigError: If that file cannot be read or has no offset for one of the landmarks.
    """
    end = RANGES["face"][1]
    face = model.triangles[(model.triangles < end).all(1)]
    edges = np.unique(
        np.sort(np.concatenate([face[:, [0, 1]], face[:, [1, 2]], face[:, [2, 0]]]), 1), axis=0
    )
    length = np.linalg.norm(model.vertices[edges[:, 0]] - model.vertices[edges[:, 1]], axis=1)
    graph = sparse.coo_matrix((length, (edges[:, 0], edges[:, 1])), (end, end)).tocsr()

    pair: dict[int, int] = dict(zip(MEDIAPIPE68, model.landmarks68.tolist(), strict=True))
    for pie, media in _RUNS:
        anchors = [media.index(MEDIAPIPE68[p]) for p in pie]
        for a, b, p, q in zip(anchors[:-1], anchors[1:], pie[:-1], pie[1:], strict=True):
            if b - a < 2:
                continue
            walk = _shortest(graph, int(model.landmarks68[p]), int(model.landmarks68[q]))
            along = np.concatenate(
                [[0.0], np.cumsum(np.linalg.norm(np.diff(model.vertices[walk], axis=0), axis=1))]
            )
            share = np.linspace(0, 1, b - a + 1)[1:-1]
            for m, s in zip(media[a + 1 : b], share, strict=True):
                pair[m] = walk[int(np.abs(along - s * along[-1]).argmin())]
    landmarks = np.array(list(pair), np.int32)
    contour = np.isin(landmarks, MEDIAPIPE68[:CONTOUR_COUNT])
    weights = np.ones(len(landmarks), np.float32)
    weights[contour] = 0.25
    weights[np.isin(landmarks, MEDIAPIPE68[8])] = 0.6
    for _, media in _RUNS[:4]:
        weights[np.isin(landmarks, media)] = 1.6
    for _, media in _RUNS[6:]:
        weights[np.isin(landmarks, media)] = 1.3
    vertices = np.array(list(pair.values()), np.int32)
    offsets = np.zeros((len(landmarks), 3), np.float32)
    if offsets_path is not None:
        offsets = read_offsets(offsets_path, landmarks)
    return Correspondence(landmarks, vertices, weights, contour, offsets)


def read_offsets(path: Path, landmarks: I32) -> F32:
    """Offsets of some landmarks from a file that training.data.calibrate wrote.

    Args:
        path: JSON with ``offsets``, by landmark three numbers.
        landmarks: (N,) which.

    Returns:
        (N, 3) model units.

    Raises:
        ConfigError: If the file cannot be read, or one is missing or not three numbers.
    """
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8"))["offsets"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(
            f"{path} cannot be read as offsets of landmarks: {exc!r}; make the file anew with "
            "python -m training.data.calibrate"
        ) from exc
    missing = [int(m) for m in landmarks if not _is_point(known.get(str(m)))]
    if missing:
        raise ConfigError(
            f"{path}: no offset of three numbers for landmarks {missing[:5]}; make the file anew "
            "with python -m training.data.calibrate"
        )
    return np.array([known[str(m)] for m in landmarks], np.float32)


def _is_point(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )


def mirror_pairs(model: IctModel, vertices: I32) -> npt.NDArray[np.int64]:
    """(N,) the pair on the other side of the face of each: the model's neutral face is symmetric.

    Args:
        model: The morphable model.
        vertices: (N,) of the pairs.
    """
    points = model.vertices[vertices].astype(np.float64)
    return _partners(points, points * (-1.0, 1.0, 1.0))


def _shortest(graph: sparse.csr_matrix, start: int, end: int) -> list[int]:
    _, before = csgraph.dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    walk = [end]
    while walk[-1] != start:
        walk.append(int(before[walk[-1]]))
    return walk[::-1]


def mirror_landmarks(mean_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Which landmark of a face its mirror image has in the place of each: pairs of points that lie
    mirrored to each other in a mean face.

    Args:
        mean_xy: (478, 2) mean of many faces that look ahead, pixels.

    Returns:
        (478,) such that ``mirrored[l] = face[result[l]]``, up to the mirroring itself.
    """
    middle = mean_xy[list(MIDDLE_LANDMARKS), 0].mean()
    mirrored = np.stack([2 * middle - mean_xy[:, 0], mean_xy[:, 1]], 1)
    return _partners(mean_xy, mirrored)


def _partners(
    points: npt.NDArray[np.float64], mirrored: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    apart = ((mirrored[:, None] - points[None]) ** 2).sum(2)
    return np.asarray(linear_sum_assignment(apart)[1], np.int64)
