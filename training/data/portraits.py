"""Folders of portraits: read them, find the face, fit it. What cannot be used is counted and
named.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rt_swap import geometry
from rt_swap.errors import ConfigError
from training.data import correspond, ict
from training.data.fit import Fit, Fitter
from training.data.render import Person, Rasteriser

logger = logging.getLogger(__name__)

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_YAW_DEG = 35.0
MAX_FIT_ERROR = 0.06
"""Largest landmark error of a fit, in outer canthal distances, that is still believed."""
MIN_CANTHAL_PX = 28.0


@dataclass(frozen=True)
class Portrait:
    """One picture of one person.

    Attributes:
        path: The file.
        dataset: Name of the folder's manifest, or of the folder.
        person: Who it is; the file's name where no manifest says.
    """

    path: Path
    dataset: str
    person: str


@dataclass
class Rejects:
    """Portraits that could not be used, by reason."""

    by_reason: dict[str, list[str]] = field(default_factory=dict)

    def add(self, portrait: Portrait, reason: str) -> None:
        """Remember one."""
        self.by_reason.setdefault(reason, []).append(f"{portrait.dataset}/{portrait.path.name}")

    def count(self) -> int:
        """How many in all."""
        return sum(map(len, self.by_reason.values()))


def list_portraits(folders: list[Path]) -> list[Portrait]:
    """Every picture of some folders, in a fixed order.

    A folder's ``manifest.json`` ({"name", "pictures": [{"file", "person"}]}) says who is who;
    without one each file
    is a person of its own. A folder of such folders is walked.

    Raises:
        ConfigError: If a folder is missing or holds no picture.
    """
    out: list[Portrait] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"no folder of portraits at {folder}")
        found = _list_folder(folder)
        if not found:
            for inner in sorted(p for p in folder.iterdir() if p.is_dir()):
                found += _list_folder(inner)
        if not found:
            raise ConfigError(
                f"{folder}: no pictures ({', '.join(PICTURE_SUFFIXES)}) in this folder"
            )
        out += found
    return out


def _list_folder(folder: Path) -> list[Portrait]:
    manifest = folder / "manifest.json"
    if manifest.is_file():
        said: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        return [
            Portrait(
                folder / p["file"],
                str(said.get("name", folder.name)),
                str(p.get("person", p["file"])),
            )
            for p in sorted(said["pictures"], key=lambda p: str(p["file"]))
        ]
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
    return [Portrait(p, folder.name, p.name) for p in files]


class PortraitEngine:
    """Landmarks, fit and renderer together. One per process (it owns an OpenGL context and a face
    mesh).
    """

    def __init__(self, ict_path: Path) -> None:
        from rt_swap.tracking import MediapipeTracker

        self.model = ict.load(ict_path)
        self.fitter = Fitter(self.model, correspond.build(self.model))
        self.rasteriser = Rasteriser(self.model, self.fitter)
        self._tracker = MediapipeTracker(static=True)

    def fit(self, portrait_bgr: U8) -> tuple[Fit, F64] | str:
        """Find and fit the face.

        Returns:
            The fit and its (478, 2) landmarks in pixels, or the reason why there is none.
        """
        faces = self._tracker.detect(portrait_bgr)
        if not faces:
            return "no face found"
        face = faces[0]
        xy = face.landmarks_xy
        if np.linalg.norm(xy[33] - xy[263]) < MIN_CANTHAL_PX:
            return "face too small"
        fit = self.fitter.fit(xy, face.depth)
        if abs(fit.yaw_deg) > MAX_YAW_DEG:
            return "turned too far"
        if fit.error > MAX_FIT_ERROR:
            return "fit too far off"
        return fit, xy

    def landmarks(self, pictures: U8) -> npt.NDArray[np.float32]:
        """(Q, 4, S, S, 3) -> (Q, 4, 478, 3), see training.data.landmarks.landmarks_of."""
        from training.data.landmarks import landmarks_of

        return landmarks_of(self._tracker, pictures)

    def person(
        self, portrait: Portrait, size_px: int, rng: np.random.Generator | None = None
    ) -> tuple[Person, U8] | str:
        """Prepare a portrait for rendering.

        Args:
            portrait: Which.
            size_px: Side of the aligned crop.
            rng: Draws a small jitter of the crop, as a tracker would leave; None for none.

        Returns:
            The person and the untouched aligned crop (RGB uint8), or the reason why not.
        """
        picture = cv2.imread(str(portrait.path), cv2.IMREAD_COLOR)
        if picture is None:
            return "unreadable"
        fitted = self.fit(picture)
        if isinstance(fitted, str):
            return fitted
        fit, xy = fitted
        M_crop = geometry.crop_from_landmarks(xy)
        M_crop[:] *= size_px / 256
        if rng is not None:
            M_crop = geometry.compose(crop_jitter(rng, size_px), M_crop)
        person = Person(self.fitter, self.rasteriser, picture, fit, xy, M_crop, size_px)
        return person, person.untouched


def crop_jitter(rng: np.random.Generator, size_px: int) -> F64:
    """A similarity near the identity: turn +-4 degrees, scale +-6 %, shift +-3 % of the side
    (about 1.5 sigma).
    """
    angle, scale = np.radians(rng.normal(0, 2.2)), np.exp(rng.normal(0, 0.035))
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    middle = np.array([size_px / 2, size_px / 2])
    linear = np.array([[c, -s], [s, c]])
    shift = middle - linear @ middle + rng.normal(0, 0.016 * size_px, 2)
    return np.concatenate([linear, shift[:, None]], 1)
