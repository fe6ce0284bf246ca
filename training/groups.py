"""Whom a held-out case shows, as far as the picture itself can tell: for figures by group.

Groups say where a model is worse, not who somebody is: tones are those of the *picture*, light
included, and nobody's age, sex or descent is guessed.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

TONES: Final = (
    (55.0, "very light"),
    (41.0, "light"),
    (28.0, "intermediate"),
    (10.0, "tan"),
    (-30.0, "brown"),
    (-90.0, "dark"),
)
"""Lower bounds of the individual typology angle, degrees, and their names (Del Bino and Bernerd,
British Journal of Dermatology 169(s3), 2013).
"""
TURNED_DEG: Final = 12.0
DIM_L: Final = 40.0
"""Median lightness (CIE L*, 0..100) of the skin below which a face counts as dim."""
_MIN_SKIN_PX: Final = 200


def typology_angle_deg(lightness: float, b: float) -> float:
    """``atan2(L* - 50, b*)``, the individual typology angle (Chardon, Cretois and Hourseau,
    International Journal of Cosmetic Science 13, 1991), in degrees.

    Args:
        lightness: CIE L*, 0..100.
        b: CIE b*; skin's is positive.
    """
    return math.degrees(math.atan2(lightness - 50.0, max(b, 1e-3)))


def tone_and_light(rgb: U8, skin: Bools) -> tuple[str, str] | None:
    """The skin's tone in a picture and how the face is lit.

    Args:
        rgb: (H, W, 3) uint8 sRGB.
        skin: (H, W) bool, where skin is.

    Returns:
        A name of TONES, and "dim" or "lit"; None where hardly any skin shows.
    """
    if skin.sum() < _MIN_SKIN_PX:
        return None
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)[skin]
    lightness, _, b = (float(v) for v in np.median(lab, axis=0))
    angle = typology_angle_deg(lightness, b)
    tone = next(name for bound, name in TONES if angle >= bound)
    return tone, "dim" if lightness < DIM_L else "lit"


def turn_deg(landmarks_xy: npt.NDArray[np.float64]) -> float:
    """About how far a head is turned to its side, degrees, positive to the picture's right.

    The tip of the nose lies about as far before the outer corners of the eyes as these lie from the
    middle between them, so its way to the side, in that unit, is the turn's tangent.

    Args:
        landmarks_xy: (478, 2) pixels, mediapipe's order.
    """
    right, left, tip = landmarks_xy[33], landmarks_xy[263], landmarks_xy[1]
    across = left - right
    length = max(float(np.linalg.norm(across)), 1e-6)
    aside = float((tip - (left + right) / 2) @ across) / length
    return math.degrees(math.atan(aside / (length / 2)))


def groups_of(
    dataset: str, rgb: U8, skin: Bools, landmarks_xy: npt.NDArray[np.float64] | None
) -> dict[str, str]:
    """The groups that a picture belongs to: {"portraits", "skin in the picture", "light", "head"};
    a kind that cannot be told is left out.

    Args:
        dataset: Where the portrait is from.
        rgb: (H, W, 3) uint8 sRGB.
        skin: (H, W) bool.
        landmarks_xy: (478, 2) pixels, or None where no face was found.
    """
    found = {"portraits": dataset}
    seen = tone_and_light(rgb, skin)
    if seen is not None:
        found["skin in the picture"], found["light"] = seen
    if landmarks_xy is not None:
        turned = abs(turn_deg(landmarks_xy)) > TURNED_DEG
        found["head"] = "turned" if turned else "ahead"
    return found
