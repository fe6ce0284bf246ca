"""A person's resting face: measured in two seconds, found on the way, and kept.

How active a face is, is the sum of its AU intensities (the stronger side of each) without blink and
gaze, which move at rest, too. A resting face is the element-wise median of the tokens over the
calm part of the moments looked at, so that neither a blink nor a badly tracked frame enters it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from rt_swap.aus import AUS, NUM_AUS, AuId
from rt_swap.contract import TOKEN_DIM
from rt_swap.errors import ConfigError, ExpressionError
from rt_swap.expression import load_expression, save_expression
from rt_swap.expression.files import SUFFIX
from rt_swap.frames import F32, Expression

MIN_FRAMES: Final = 10
"""Moments that a measurement needs at least."""
_CALM_SHARE: Final = 0.5
"""Part of a calibration's moments, the calmest ones, that is averaged over."""
_SEARCH_SHARE: Final = 0.15
"""The same of a search, in which people talk and laugh."""
_BLINK: Final = 0.45
"""Intensity of AU45 from which a moment counts as a blink."""
_RESTLESS: Final = 0.35
"""Largest change of any unit between the calm moments' lower and upper quartile for them to count
as one face."""

_STILL_UNITS: Final = np.array([au.id is not AuId.AU45 and au.region != "gaze" for au in AUS])


def activity(aus_lr: F32) -> float:
    """How much a face does: the sum over units, without blink and gaze.

    Args:
        aus_lr: (K, 2), [0, 1].

    Returns:
        0 or more.
    """
    return float(aus_lr.max(axis=-1)[..., _STILL_UNITS].sum())


@dataclass(frozen=True)
class Moment:
    """One frame's reading.

    Attributes:
        time_s: When.
        tokens: (K, D) float32.
        aus_lr: (K, 2) float32.
    """

    time_s: float
    tokens: F32
    aus_lr: F32


@dataclass(frozen=True)
class Neutral:
    """A resting face.

    Attributes:
        tokens: (K, D) float32.
        aus_lr: (K, 2) float32.
        origin: "calibrated", "stored" or "found".
    """

    tokens: F32
    aus_lr: F32
    origin: str


def resting(moments: list[Moment], share: float, origin: str) -> Neutral | None:
    """The resting face in some moments.

    Args:
        moments: What was read.
        share: Part of them, the calmest ones, that is averaged over, in (0, 1].
        origin: For :class:`Neutral`.

    Returns:
        None where too few of them show open eyes.
    """
    blink = AuId.AU45.index
    usable = [m for m in moments if float(m.aus_lr[blink].max()) < _BLINK]
    if len(usable) < MIN_FRAMES:
        # somebody whose open eyes read as closed has no other moments
        usable = moments
    if len(usable) < MIN_FRAMES:
        return None
    order = np.argsort([activity(m.aus_lr) for m in usable], kind="stable")
    kept = [usable[i] for i in order[: max(round(share * len(usable)), MIN_FRAMES)]]
    return Neutral(
        np.median([m.tokens for m in kept], axis=0).astype(np.float32),
        np.median([m.aus_lr for m in kept], axis=0).astype(np.float32),
        origin,
    )


class Calibration:
    """Reads a resting face for a time.

    Args:
        start_s: When it begins.
        seconds: How long it takes.
    """

    def __init__(self, start_s: float, seconds: float) -> None:
        self._end_s = start_s + seconds
        self._moments: list[Moment] = []

    def left_s(self, time_s: float) -> float:
        """Seconds that are missing."""
        return max(self._end_s - time_s, 0.0)

    def add(self, moment: Moment) -> None:
        """Take one frame's reading."""
        self._moments.append(moment)

    def finish(self) -> Neutral:
        """The resting face.

        Raises:
            ExpressionError: If the face was seen too little, or did not rest; says what to do.
        """
        neutral = resting(self._moments, _CALM_SHARE, "calibrated")
        if neutral is None:
            raise ExpressionError(
                f"calibration: a face was seen in {len(self._moments)} frames only, at least"
                f" {MIN_FRAMES} are needed; look into the camera, in good light, and calibrate"
                " again"
            )
        aus = np.array([m.aus_lr.max(axis=-1)[_STILL_UNITS] for m in self._moments])
        low, high = np.percentile(aus, (25, 75), axis=0)
        if float((high - low).max()) > _RESTLESS:
            raise ExpressionError(
                "calibration: the face moved; keep it relaxed, mouth closed, without speaking, and"
                " calibrate again"
            )
        return neutral


class NeutralSearch:
    """Looks for the resting face in a stream's first seconds, where none was measured.

    Args:
        seconds: How long it goes on looking once a face is there.
        first_s: When it gives its first answer.
        every_s: How often it gives a better one.
    """

    def __init__(self, seconds: float = 12.0, first_s: float = 1.5, every_s: float = 0.5) -> None:
        self._seconds, self._first_s, self._every_s = seconds, first_s, every_s
        self._moments: list[Moment] = []
        self._next_s = first_s
        self.done = False

    def add(self, moment: Moment) -> Neutral | None:
        """Take one frame's reading.

        Returns:
            A resting face where there is a new one, else None.
        """
        if self.done:
            return None
        if self._moments and moment.time_s < self._moments[-1].time_s:
            self._moments.clear()  # the stream began again
            self._next_s = self._first_s
        self._moments.append(moment)
        since_s = moment.time_s - self._moments[0].time_s
        if since_s < self._next_s:
            return None
        self._next_s = since_s + self._every_s
        neutral = resting(self._moments, _SEARCH_SHARE, "found")
        if since_s >= self._seconds and neutral is not None:
            self.done = True
            self._moments.clear()
        return neutral


class NeutralStore:
    """Resting faces on disk, one file per person and camera.

    Args:
        folder: Where; None takes the user's data folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            import platformdirs

            folder = Path(platformdirs.user_data_dir("rt_swap", appauthor=False)) / "neutral"
        self.folder = folder

    def path(self, person: str, camera: str) -> Path:
        """The file of a person before a camera."""
        return self.folder / file_name(person) / f"{file_name(camera)}{SUFFIX}"

    def save(self, neutral: Neutral, person: str, camera: str, model_sha256: str) -> Path:
        """Keep a resting face; replaces the one before.

        Raises:
            ConfigError: If it cannot be written.
        """
        path = self.path(person, camera)
        expression = Expression(
            tokens=neutral.tokens.reshape(1, NUM_AUS, TOKEN_DIM),
            aus_lr=neutral.aus_lr.reshape(1, NUM_AUS, 2),
            times_s=np.zeros(1),
            duration_s=0.0,
            name=f"resting face of {person} before {camera}",
            model_sha256=model_sha256,
        )
        try:
            save_expression(expression, path)
        except OSError as exc:
            raise ConfigError(
                f"the resting face cannot be kept in {path} ({exc.strerror or exc}); make the"
                " folder writable, or name another one"
            ) from exc
        return path

    def load(self, person: str, camera: str, model_sha256: str) -> Neutral | None:
        """A resting face kept earlier.

        Returns:
            None where there is none.

        Raises:
            ExpressionFileError: If the file is damaged, or was made by another model; calibrating
                again replaces it.
        """
        path = self.path(person, camera)
        if not path.is_file():
            return None
        expression = load_expression(path, model_sha256)
        return Neutral(expression.tokens[0], expression.aus_lr[0], "stored")


def file_name(text: str) -> str:
    """A text as part of a path: letters, digits, ``-`` and ``_``; never empty, never a way out."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_")[:80]
    if plain and plain == text:
        return plain
    # another text must not end up in the same file
    import hashlib

    return f"{plain or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
