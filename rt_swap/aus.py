"""The action units (AUs): ids, names, regions, order and sides. The only place where an AU index
is a number.

One AU *token* exists per entry of :data:`AUS`, in this order. An intensity is FACS intensity / 5,
so in [0, 1].
Most AUs have a left and a right muscle; "left" and "right" are the *person's own*. ``aus_lr``
arrays are
(..., K, 2) with [left, right]; ``aus`` arrays are (..., K), the larger of the two. For the
sideways jaw (AU30)
left and right are the directions. For a midline AU both sides carry the same value.

ICT-FaceKit's blendshapes are partitioned among the AUs (``shapes_left``/``shapes_right``), so
replacing the shapes of
one AU leaves every other AU alone; this is what gives per-AU mixing a ground truth. AU numbers
follow FACS (Ekman,
Friesen, Hager 2002); the mapping follows ICT-FaceKit's own documentation, except AU10, which
``mouthUpperUp`` shows
better than ``mouthShrugUpper`` does. AU23 and AU25 are readings derived from other units, see
:func:`derived_aus`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt


class AuId(enum.IntEnum):
    """FACS action units that have a token. The value is the FACS number, not the index."""

    AU1 = 1
    AU2 = 2
    AU4 = 4
    AU5 = 5
    AU6 = 6
    AU7 = 7
    AU9 = 9
    AU10 = 10
    AU12 = 12
    AU14 = 14
    AU15 = 15
    AU16 = 16
    AU17 = 17
    AU18 = 18
    AU20 = 20
    AU22 = 22
    AU24 = 24
    AU26 = 26
    AU28 = 28
    AU29 = 29
    AU30 = 30
    AU33 = 33
    AU45 = 45
    AU61 = 61
    AU62 = 62
    AU63 = 63
    AU64 = 64

    @property
    def index(self) -> int:
        """Position of this AU's token, 0 .. NUM_AUS - 1."""
        return _INDEX[self]


@dataclass(frozen=True)
class ActionUnit:
    """One action unit.

    Attributes:
        id: FACS number.
        name: FACS name.
        region: "brows", "eyes", "gaze", "nose", "cheeks", "mouth" or "jaw".
        shapes_left: ICT-FaceKit blendshapes of the person's left side.
        shapes_right: The same of the right side; equal to ``shapes_left`` for a midline AU.
    """

    id: AuId
    name: str
    region: str
    shapes_left: tuple[str, ...]
    shapes_right: tuple[str, ...]

    @property
    def is_midline(self) -> bool:
        """True where left and right are the same shapes."""
        return self.shapes_left == self.shapes_right


def _pair(id_: AuId, name: str, region: str, *stems: str) -> ActionUnit:
    left, right = (tuple(f"{stem}_{side}" for stem in stems) for side in "LR")
    return ActionUnit(id_, name, region, left, right)


def _midline(id_: AuId, name: str, region: str, *shapes: str) -> ActionUnit:
    return ActionUnit(id_, name, region, shapes, shapes)


AUS: Final[tuple[ActionUnit, ...]] = (
    _pair(AuId.AU1, "inner brow raiser", "brows", "browInnerUp"),
    _pair(AuId.AU2, "outer brow raiser", "brows", "browOuterUp"),
    _pair(AuId.AU4, "brow lowerer", "brows", "browDown"),
    _pair(AuId.AU5, "upper lid raiser", "eyes", "eyeWide"),
    _pair(AuId.AU6, "cheek raiser", "cheeks", "cheekSquint", "cheekRaiser"),
    _pair(AuId.AU7, "lid tightener", "eyes", "eyeSquint"),
    _pair(AuId.AU9, "nose wrinkler", "nose", "noseSneer"),
    _pair(AuId.AU10, "upper lip raiser", "mouth", "mouthUpperUp"),
    _pair(AuId.AU12, "lip corner puller", "mouth", "mouthSmile"),
    _pair(AuId.AU14, "dimpler", "mouth", "mouthDimple"),
    _pair(AuId.AU15, "lip corner depressor", "mouth", "mouthFrown"),
    _pair(AuId.AU16, "lower lip depressor", "mouth", "mouthLowerDown"),
    _midline(AuId.AU17, "chin raiser", "mouth", "mouthShrugLower", "mouthShrugUpper"),
    _midline(AuId.AU18, "lip pucker", "mouth", "mouthPucker"),
    _pair(AuId.AU20, "lip stretcher", "mouth", "mouthStretch"),
    _midline(AuId.AU22, "lip funneler", "mouth", "mouthFunnel"),
    _pair(AuId.AU24, "lip pressor", "mouth", "mouthPress"),
    _midline(AuId.AU26, "jaw drop", "jaw", "jawOpen"),
    _midline(AuId.AU28, "lip suck", "mouth", "mouthRollLower", "mouthRollUpper"),
    _midline(AuId.AU29, "jaw thrust", "jaw", "jawForward"),
    ActionUnit(
        AuId.AU30, "jaw sideways", "jaw", ("jawLeft", "mouthLeft"), ("jawRight", "mouthRight")
    ),
    _pair(AuId.AU33, "cheek blow", "cheeks", "cheekPuff"),
    _pair(AuId.AU45, "blink", "eyes", "eyeBlink"),
    _midline(AuId.AU61, "eyes turn left", "gaze", "eyeLookOut_L", "eyeLookIn_R"),
    _midline(AuId.AU62, "eyes turn right", "gaze", "eyeLookIn_L", "eyeLookOut_R"),
    _midline(AuId.AU63, "eyes up", "gaze", "eyeLookUp_L", "eyeLookUp_R"),
    _midline(AuId.AU64, "eyes down", "gaze", "eyeLookDown_L", "eyeLookDown_R"),
)
"""Every AU that has a token, in token order."""

NUM_AUS: Final = len(AUS)
"""K, the number of AU tokens."""

AU_NAMES: Final[tuple[str, ...]] = tuple(au.id.name for au in AUS)
"""("AU1", "AU2", ...) in token order."""

REGIONS: Final[tuple[str, ...]] = tuple(dict.fromkeys(au.region for au in AUS))
"""Region names that gains accept, in order of first use."""

_INDEX: Final[dict[AuId, int]] = {au.id: k for k, au in enumerate(AUS)}

UNMAPPED_SHAPES: Final[tuple[str, ...]] = ("mouthClose", "PupilDilate_L", "PupilDilate_R")
"""ICT shapes no AU drives: ``mouthClose`` only corrects an open jaw, and no AU is a pupil."""

OPENFACE_AUS: Final[tuple[int, ...]] = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
"""The 17 units OpenFace reads; all are in AU_NAMES or in derived_aus()."""


def region_mask(region: str) -> npt.NDArray[np.bool_]:
    """Which tokens belong to a region.

    Args:
        region: One of REGIONS.

    Returns:
        (K,) bool.

    Raises:
        KeyError: If there is no such region.
    """
    if region not in REGIONS:
        raise KeyError(f"no region {region!r}; there are {', '.join(REGIONS)}")
    return np.array([au.region == region for au in AUS])


def derived_aus(aus: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """AU23 (lip tightener) and AU25 (lips part), which have no token of their own.

    The lips part because a lip is raised (AU10), lowered (AU16), funnelled (AU22) or the jaw drops
    (AU26); they are
    tight when they press (AU24) or roll in (AU28). Each is the largest of its causes (our reading
    of FACS, not a
    formula from the manual; the factor on AU22 is where the model's lips part).

    Args:
        aus: (..., K) intensities in [0, 1].

    Returns:
        {"AU23": (...), "AU25": (...)} float32 in [0, 1].
    """

    def col(au: AuId) -> npt.NDArray[np.float32]:
        return np.asarray(aus[..., au.index], np.float32)

    tight = np.maximum(col(AuId.AU24), col(AuId.AU28))
    part = np.maximum.reduce([col(AuId.AU10), col(AuId.AU16), 0.5 * col(AuId.AU22), col(AuId.AU26)])
    return {"AU23": tight.astype(np.float32), "AU25": part.astype(np.float32)}
