"""The picture that is shown while there is nothing that may be shown."""

from __future__ import annotations

from typing import Final

import numpy as np

from rt_swap.frames import U8
from rt_swap.io.pixels import scaled

DEFAULT_TEXT: Final = "One moment, please"
_TOP_BGR: Final = np.array((62.0, 48.0, 40.0))
_BOTTOM_BGR: Final = np.array((34.0, 26.0, 22.0))
_TEXT_BGR: Final = (214, 205, 200)
_TEXT_WIDTH: Final = 0.5
"""Share of the picture's width that the text takes at most."""
_TEXT_HEIGHT: Final = 0.07
"""Share of the picture's height that a line takes at most."""

_LEAST_WIDTH_PX: Final = 64
"""Narrower pictures have no text: it could not be read."""


def slate(size_wh: tuple[int, int], text: str = DEFAULT_TEXT) -> U8:
    """A dark picture with one line of text in the middle.

    Args:
        size_wh: (width, height) in pixels, 1 or more each.
        text: ASCII; empty for none.

    Returns:
        (height, width, 3) uint8 BGR, a new array.
    """
    import cv2

    width, height = size_wh
    share = (np.arange(height) + 0.5)[:, None, None] / height
    shades = _TOP_BGR + share * (_BOTTOM_BGR - _TOP_BGR)
    picture = np.ascontiguousarray(
        np.broadcast_to(np.rint(shades), (height, width, 3)).astype(np.uint8)
    )
    if not text or width < _LEAST_WIDTH_PX:
        return picture
    font = cv2.FONT_HERSHEY_DUPLEX
    (text_w, text_h), _ = cv2.getTextSize(text, font, 1.0, 1)
    scale = min(_TEXT_WIDTH * width / text_w, _TEXT_HEIGHT * height / text_h)
    thickness = max(round(scale), 1)
    (text_w, text_h), _ = cv2.getTextSize(text, font, scale, thickness)
    place = ((width - text_w) // 2, (height + text_h) // 2)
    cv2.putText(picture, text, place, font, scale, _TEXT_BGR, thickness, cv2.LINE_AA)
    return picture


def fitted(picture_bgr: U8, size_wh: tuple[int, int]) -> U8:
    """A picture scaled to lie whole and in the middle of a size, on black.

    Args:
        picture_bgr: (H, W, 3) uint8.
        size_wh: (width, height) in pixels.

    Returns:
        (height, width, 3) uint8; the same array where the size is right already.
    """
    width, height = size_wh
    if picture_bgr.shape[:2] == (height, width):
        return picture_bgr
    factor = min(width / picture_bgr.shape[1], height / picture_bgr.shape[0])
    inner_w = max(round(picture_bgr.shape[1] * factor), 1)
    inner_h = max(round(picture_bgr.shape[0] * factor), 1)
    canvas = np.zeros((height, width, 3), np.uint8)
    x, y = (width - inner_w) // 2, (height - inner_h) // 2
    canvas[y : y + inner_h, x : x + inner_w] = scaled(picture_bgr, (inner_w, inner_h))
    return canvas
