"""The visible mark: a small label in a corner of the picture that says what was done.

Drawn once for each picture size, then blended into every frame. Readable on any background (white
on a dark, half-transparent plate), 1/24 of the picture's smaller side high and at least 12 pixels.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np

from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import F32, U8
from rt_swap.provenance.marks import CORNERS

TEXT: Final = "AI: expression altered"
SHORT_TEXT: Final = "AI"
FOUND_CORRELATION: Final = 0.6
"""From here on a corner is taken to show the badge."""

_HEIGHT_FRACTION: Final = 1 / 24
_LEAST_HEIGHT_PX: Final = 12
_MOST_WIDTH_FRACTION: Final = 0.45
_OPACITY: Final = 0.55
_OVERSIZE: Final = 4


@dataclass(frozen=True)
class Badge:
    """A drawn badge.

    Attributes:
        alpha: (h, w) float32, [0, 1], how far it covers the picture.
        grey: (h, w) float32, 0 to 255, what it covers it with.
        margin_px: Distance from the edges.
    """

    alpha: F32
    grey: F32
    margin_px: int

    def box(self, height: int, width: int, corner: str) -> tuple[int, int, int, int]:
        """Where it lies: (x0, y0, x1, y1), clipped to the picture."""
        h, w = self.grey.shape
        x0 = self.margin_px if corner.endswith("left") else width - self.margin_px - w
        y0 = self.margin_px if corner.startswith("top") else height - self.margin_px - h
        x0, y0 = min(max(x0, 0), max(width - w, 0)), min(max(y0, 0), max(height - h, 0))
        return x0, y0, min(x0 + w, width), min(y0 + h, height)


@functools.lru_cache(maxsize=8)
def badge_for(height: int, width: int) -> Badge:
    """The badge of a picture's size."""
    import cv2

    tall = max(round(min(height, width) * _HEIGHT_FRACTION), _LEAST_HEIGHT_PX)
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, 0
    for text in (TEXT, SHORT_TEXT):
        big = tall * _OVERSIZE
        thickness = max(round(big / 14), 1)
        scale = cv2.getFontScaleFromHeight(font, round(big * 0.5), thickness)
        (text_w, text_h), _ = cv2.getTextSize(text, font, scale, thickness)
        wide = text_w + big
        if wide <= _MOST_WIDTH_FRACTION * width * _OVERSIZE or text is SHORT_TEXT:
            break
    plate = np.zeros((big, wide), np.uint8)
    radius = big // 2
    cv2.rectangle(plate, (radius, 0), (wide - radius, big), (255,), -1)
    cv2.circle(plate, (radius, radius), radius, (255,), -1)
    cv2.circle(plate, (wide - radius - 1, radius), radius, (255,), -1)
    letters = np.zeros_like(plate)
    origin = ((wide - text_w) // 2, (big + text_h) // 2)
    cv2.putText(letters, text, origin, font, scale, (255,), thickness, cv2.LINE_AA)
    size = (max(round(wide / _OVERSIZE), 1), tall)
    ink = cv2.resize(letters, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    cover = cv2.resize(plate, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    alpha = np.maximum(cover * _OPACITY, ink)
    grey = 255 * ink / np.maximum(alpha, 1e-6)
    return Badge(alpha, np.minimum(grey, 255).astype(np.float32), max(tall // 2, 2))


def draw(picture_bgr: U8, corner: str) -> None:
    """Blend the badge into a picture, in place.

    Args:
        picture_bgr: (H, W, 3) uint8, writable.
        corner: One of marks.CORNERS.

    Raises:
        ConfigError: If there is no such corner.
        ContractError: If the picture is read-only.
    """
    if corner not in CORNERS:
        raise ConfigError(f"--badge: must be one of {', '.join(CORNERS)}, got {corner!r}")
    if not picture_bgr.flags.writeable:
        raise ContractError("badge.draw: picture_bgr is read-only; pass a copy")
    height, width = picture_bgr.shape[:2]
    badge = badge_for(height, width)
    x0, y0, x1, y1 = badge.box(height, width, corner)
    part = picture_bgr[y0:y1, x0:x1]
    alpha = badge.alpha[: y1 - y0, : x1 - x0, None]
    over = badge.grey[: y1 - y0, : x1 - x0, None] * alpha
    part[:] = (part * (1 - alpha) + (over + 0.5)).astype(np.uint8)


def find(picture_bgr: U8) -> tuple[str | None, float]:
    """Look for a badge in the corners.

    Args:
        picture_bgr: (H, W, 3) uint8, at the size it was written with (the mean of several frames is
            surer than one).

    Returns:
        The corner, or None; and the correlation with the badge there, at most 1.
    """
    height, width = picture_bgr.shape[:2]
    badge = badge_for(height, width)
    best, where = 0.0, None
    # the picture behind shows through: compare with what is opaque, white letters against the plate
    wanted_all = badge.grey * badge.alpha
    grey = picture_bgr.mean(axis=2)
    for corner in CORNERS:
        x0, y0, x1, y1 = badge.box(height, width, corner)
        wanted = wanted_all[: y1 - y0, : x1 - x0]
        for dy, dx in itertools.product((-1, 0, 1), repeat=2):  # margins are whole pixels
            top, left = y0 + dy, x0 + dx
            shown = grey[max(top, 0) : top + y1 - y0, max(left, 0) : left + x1 - x0]
            if shown.shape != wanted.shape:
                continue
            a, b = shown - shown.mean(), wanted - wanted.mean()
            norm = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
            correlation = float((a * b).sum()) / norm if norm > 1e-6 else 0.0
            if correlation > best:
                best, where = correlation, corner
    return (where if best >= FOUND_CORRELATION else None), round(best, 3)
