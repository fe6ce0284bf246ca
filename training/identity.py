"""Whether the person in a picture is still the same to a face recogniser: identity as a figure.

The recogniser is dlib's ResNet (King, *High Quality Face Recognition with Deep Metric Learning*,
2017; 99.4 % on LFW by its author), whose weights the ``face_recognition_models`` package carries
(CC0 1.0). It only measures; nothing is trained with it. Two pictures are of one person where their
descriptors are less than :data:`SAME_PERSON_BELOW` apart, by its author's rule.

A changed expression moves a descriptor even where the person is the same, so every distance is
reported beside that of the *true answer* and that of two different people.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from rt_swap.errors import BackendUnavailable
from rt_swap.frames import F32, F64, U8

SAME_PERSON_BELOW: Final = 0.6
"""Distance under which dlib's author calls two pictures the same person."""
CORNERS: Final = (263, 362, 33, 133, 2)
"""Face-mesh landmarks in the order that dlib's five-point alignment expects: the outer and inner
corner of the left eye, the outer and inner corner of the right eye, the base of the nose."""


class IdentityReader(Protocol):
    """Describes whose face a picture shows."""

    def describe(self, rgb: U8, landmarks_xy: F64) -> F32:
        """(S, S, 3) uint8 and (478, 2) pixels -> (128,) descriptor."""


class DlibIdentity:
    """dlib's face recogniser on faces that face-mesh landmarks align.

    Raises:
        BackendUnavailable: If dlib or the weights are not installed.
    """

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as exc:
            raise BackendUnavailable(
                "identity is measured with dlib; install the 'identity' extra: "
                "pip install 'rt-swap[identity]'"
            ) from exc
        self._dlib: Any = dlib
        self._net: Any = dlib.face_recognition_model_v1(str(_weights_file()))

    def describe(self, rgb: U8, landmarks_xy: F64) -> F32:
        """Align the face to 150 px as the recogniser was trained, and describe it."""
        dlib = self._dlib
        points = [dlib.point(round(x), round(y)) for x, y in landmarks_xy[list(CORNERS)]]
        (left, top), (right, bottom) = landmarks_xy.min(0), landmarks_xy.max(0)
        box = dlib.rectangle(round(left), round(top), round(right), round(bottom))
        face = dlib.full_object_detection(box, points)
        picture = np.ascontiguousarray(rgb)
        return np.asarray(self._net.compute_face_descriptor(picture, face), np.float32)


def _weights_file() -> Path:
    # the package's own code wants pkg_resources, which is gone from setuptools: find the file only
    spec = importlib.util.find_spec("face_recognition_models")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for folder in folders:
        path = Path(folder) / "models" / "dlib_face_recognition_resnet_model_v1.dat"
        if path.is_file():
            return path
    raise BackendUnavailable(
        "the face recogniser's weights are missing; install the 'identity' extra: "
        "pip install 'rt-swap[identity]'"
    )


class IdentityScore:
    """Distances of descriptors from the target's, by method."""

    def __init__(self) -> None:
        self._apart: dict[str, list[float]] = {}
        self._people: list[float] = []

    def add(self, target: F32, others: Mapping[str, F32]) -> None:
        """Count a case in: each method's picture against the target it was made from."""
        for name, described in others.items():
            self._apart.setdefault(name, []).append(float(np.linalg.norm(described - target)))

    def add_people(self, one: F32, other: F32) -> None:
        """Count in how far two different people are apart."""
        self._people.append(float(np.linalg.norm(one - other)))

    def result(self) -> dict[str, Any]:
        """{"rows": {method: {"distance", "lost"}}, "two_people": {...}, "same_person_below"}.

        ``distance`` is the mean, ``lost`` the share of cases that the rule no longer calls the same
        person; for two people, of pairs that it tells apart.
        """
        return {
            "same_person_below": SAME_PERSON_BELOW,
            "rows": {name: _summary(values) for name, values in self._apart.items()},
            "two_people": _summary(self._people),
        }


def _summary(values: Sequence[float]) -> dict[str, float]:
    array = np.asarray(values, np.float64)
    if not len(array):
        return {"cases": 0, "distance": float("nan"), "lost": float("nan")}
    return {
        "cases": len(array),
        "distance": float(array.mean()),
        "lost": float((array >= SAME_PERSON_BELOW).mean()),
    }
