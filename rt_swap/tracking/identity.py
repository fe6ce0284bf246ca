"""Who is who: face landmarks of consecutive pictures are given stable ids, by geometry alone.

A track is a face's landmarks, its velocity and for how many pictures it has been missing. New faces
are matched to the tracks' *predicted* places, all at once and at the least total cost, so that
neither the order in which a tracker lists faces nor two people passing each other exchanges them,
as long as place, motion, size and tilt tell them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rt_swap.contract import STABLE_LANDMARKS
from rt_swap.frames import F64

_STABLE = list(STABLE_LANDMARKS)
_EYE_OUTER_RIGHT, _EYE_OUTER_LEFT = 33, 263  # mediapipe face-mesh indices of the outer canthi


@dataclass(frozen=True)
class FacePlace:
    """Where a face is, how large and how tilted.

    Attributes:
        centre_xy: (2,) mean of the stable landmarks, pixels.
        size_px: Geometric mean of the landmark box's sides, pixels.
        angle_rad: Direction from the person's right to their left outer canthus.
    """

    centre_xy: F64
    size_px: float
    angle_rad: float


def place_of(landmarks_xy: F64) -> FacePlace:
    """Sum up a face's landmarks.

    Args:
        landmarks_xy: (468 or more, 2) pixels, mediapipe face-mesh order.

    Returns:
        Its place; ``size_px`` is at least a millionth of a pixel.
    """
    width, height = landmarks_xy.max(0) - landmarks_xy.min(0)
    right_to_left = landmarks_xy[_EYE_OUTER_LEFT] - landmarks_xy[_EYE_OUTER_RIGHT]
    return FacePlace(
        centre_xy=np.asarray(landmarks_xy[_STABLE].mean(0), np.float64),
        size_px=max(math.sqrt(float(width) * float(height)), 1e-6),
        angle_rad=math.atan2(float(right_to_left[1]), float(right_to_left[0])),
    )


def same_face(one: FacePlace, other: FacePlace, distance: float = 0.3) -> bool:
    """Whether two sets of landmarks lie on one face: centres within ``distance`` face sizes."""
    apart = float(np.hypot(*(one.centre_xy - other.centre_xy)))
    return apart < distance * min(one.size_px, other.size_px)


def assign(cost: F64) -> list[int]:
    """Match every row to a column of its own at the least total cost.

    The Hungarian method with potentials, O(rows^2 columns): Kuhn, Naval Research Logistics
    Quarterly 2, 1955, in the shortest-augmenting-path form of Jonker and Volgenant, Computing 38,
    1987.

    Args:
        cost: (R, C) finite, R <= C.

    Returns:
        R column indices, all different.

    Raises:
        ValueError: If there are more rows than columns.
    """
    rows, columns = cost.shape
    if rows > columns:
        raise ValueError(f"assign: cost must have no more rows than columns, got {cost.shape}")
    u, v = [0.0] * (rows + 1), [0.0] * (columns + 1)
    row_of = [0] * (columns + 1)  # 1-based; column 0 stands for the row being placed
    for row in range(1, rows + 1):
        row_of[0], column = row, 0
        least, via, seen = [math.inf] * (columns + 1), [0] * (columns + 1), [False] * (columns + 1)
        while row_of[column]:
            seen[column] = True
            current, delta, nearest = row_of[column], math.inf, 0
            for j in range(1, columns + 1):
                if seen[j]:
                    continue
                reduced = float(cost[current - 1, j - 1]) - u[current] - v[j]
                if reduced < least[j]:
                    least[j], via[j] = reduced, column
                if least[j] < delta:
                    delta, nearest = least[j], j
            for j in range(columns + 1):
                if seen[j]:
                    u[row_of[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            column = nearest
        while column:
            row_of[column] = row_of[via[column]]
            column = via[column]
    result = [0] * rows
    for j in range(1, columns + 1):
        if row_of[j]:
            result[row_of[j] - 1] = j - 1
    return result


@dataclass
class _Track:
    track_id: int
    landmarks_xy: F64
    place: FacePlace
    velocity_xy: F64  # pixels per picture
    missing: int = 0  # pictures since it was last seen
    seen: int = 1  # pictures in which it was seen


class IdentityBook:
    """Keeps the tracks of one stream.

    Call :meth:`predictions` to learn where to look in the next picture, then :meth:`update` once
    with all that was found in it. Not thread-safe.
    """

    def __init__(
        self,
        *,
        memory: int = 45,
        gate: float = 1.0,
        gate_growth: float = 0.1,
        gate_max: float = 2.0,
        gate_log_scale: float = 0.45,
    ) -> None:
        """Start with nobody known.

        Args:
            memory: Pictures for which a missing face is remembered.
            gate: How far from its predicted place a face may be found, in face sizes.
            gate_growth: By how much the gate opens per picture missing.
            gate_max: The widest gate.
            gate_log_scale: Largest change of size from one sighting to the next, natural logarithm.
        """
        self._memory = memory
        self._gate, self._gate_growth, self._gate_max = gate, gate_growth, gate_max
        self._gate_log_scale = gate_log_scale
        self._tracks: dict[int, _Track] = {}
        self._next_id = 0

    def forget(self) -> None:
        """Drop every track, as after a cut. Ids go on counting: none is given out twice."""
        self._tracks.clear()

    def predictions(self) -> dict[int, F64]:
        """Landmarks, (N, 2) pixels, expected next of each face seen in the last picture, by id."""
        return {
            t.track_id: t.landmarks_xy + t.velocity_xy
            for t in self._tracks.values()
            if t.missing == 0
        }

    def missing(self, within: int) -> int:
        """How many tracks have been missing for 1 to ``within`` pictures."""
        return sum(1 for t in self._tracks.values() if 1 <= t.missing <= within)

    def would_match(self, place: FacePlace) -> bool:
        """Whether a face found here would continue a track that is missing."""
        return any(t.missing and self._cost(t, place) is not None for t in self._tracks.values())

    def update(self, faces_xy: list[F64]) -> list[int]:
        """Enter what was found in the next picture.

        Args:
            faces_xy: Per face (468 or more, 2) pixels, in any order; each person at most once.

        Returns:
            The id of each, in the same order.
        """
        places = [place_of(face) for face in faces_xy]
        tracks = list(self._tracks.values())
        track_of = self._match(tracks, places)
        ids = []
        for face_xy, place, track in zip(faces_xy, places, track_of, strict=True):
            if track is None:
                track = _Track(self._next_id, face_xy, place, np.zeros(2))
                self._tracks[self._next_id] = track
                self._next_id += 1
            else:
                moved = (place.centre_xy - track.place.centre_xy) / (track.missing + 1)
                # the first step is all that is known; later ones are averaged, for landmarks jitter
                share = 1.0 if track.seen == 1 else 0.5
                track.velocity_xy = share * moved + (1 - share) * track.velocity_xy
                track.landmarks_xy, track.place = face_xy, place
                track.missing, track.seen = 0, track.seen + 1
            ids.append(track.track_id)
        found = set(ids)
        for track in tracks:
            if track.track_id not in found:
                track.missing += 1
                if track.missing > self._memory:
                    del self._tracks[track.track_id]
        return ids

    def _match(self, tracks: list[_Track], places: list[FacePlace]) -> list[_Track | None]:
        if not tracks or not places:
            return [None] * len(places)
        # a face may stay without a track: one dummy column each, dearer than any match within the
        # gates
        nobody = 1e3
        cost = np.full((len(places), len(tracks) + len(places)), nobody)
        for i, place in enumerate(places):
            for j, track in enumerate(tracks):
                match = self._cost(track, place)
                cost[i, j] = 10 * nobody if match is None else match
        return [tracks[j] if j < len(tracks) else None for j in assign(cost)]

    def _cost(self, track: _Track, place: FacePlace) -> float | None:
        """In face sizes; None outside the gates."""
        steps = track.missing + 1
        # whoever is out of sight is not expected to keep walking for ever: 0.9 + 0.81 + ...
        reach = 1.0 if steps == 1 else (1 - 0.9**steps) / (1 - 0.9)
        expected_xy = track.place.centre_xy + reach * track.velocity_xy
        size_px = math.sqrt(track.place.size_px * place.size_px)
        apart = float(np.hypot(*(place.centre_xy - expected_xy))) / size_px
        log_scale = abs(math.log(place.size_px / track.place.size_px))
        gate = min(self._gate + self._gate_growth * track.missing, self._gate_max)
        if apart > gate or log_scale > self._gate_log_scale:
            return None
        tilt = abs(math.remainder(place.angle_rad - track.place.angle_rad, 2 * math.pi))
        # between faces in view and those out of sight the ones in view win a near tie
        return apart + 1.5 * log_scale + 0.3 * tilt + 0.01 * track.missing
