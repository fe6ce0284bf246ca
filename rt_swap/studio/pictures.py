"""Small pictures for the gallery: a portrait to show presets on, faces cut out, JPEG."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from rt_swap import geometry
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.frames import F64, U8

THUMBNAIL_PX: Final = 208
_ZOOM: Final = 0.86
"""Side of a thumbnail in sides of the aligned crop."""
_QUALITY: Final = 86
_MAX_SIDE_PX: Final = 1280


def portrait() -> U8 | None:
    """The public-domain portrait in scikit-image's wheel (NASA's of Eileen Collins).

    Returns:
        (512, 512, 3) uint8 BGR, or None where scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError:
        return None
    read: Any = skimage.data.astronaut
    return np.ascontiguousarray(read()[:, :, ::-1])


def thumbnail(picture_bgr: U8, M_crop_from_frame: F64 | None) -> bytes:
    """A square around a face, or the picture's middle where none is known, as JPEG.

    Args:
        picture_bgr: (H, W, 3) uint8.
        M_crop_from_frame: Where the face is, or None.
    """
    import cv2

    height, width = picture_bgr.shape[:2]
    if M_crop_from_frame is None:
        side = float(min(height, width))
        centre = np.array([width / 2, height / 2])
    else:
        M_frame_from_crop = geometry.invert(M_crop_from_frame)
        side = CROP_SIZE_PX * geometry.scale_of(M_frame_from_crop) * _ZOOM
        middle = np.array([[CROP_SIZE_PX / 2, CROP_SIZE_PX * 0.46]])
        centre = geometry.apply(M_frame_from_crop, middle)[0]
    scale = THUMBNAIL_PX / side
    offset = THUMBNAIL_PX / 2 - scale * centre
    M_thumb_from_frame = np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])
    if scale < 0.5:  # or a large picture's pixels would be skipped
        shrink = 2 * scale
        small_wh = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        picture_bgr = np.asarray(
            cv2.resize(picture_bgr, small_wh, interpolation=cv2.INTER_AREA), np.uint8
        )
        M_thumb_from_frame[:, :2] /= shrink
    square = cv2.warpAffine(
        picture_bgr,
        geometry.to_cv2(M_thumb_from_frame),
        (THUMBNAIL_PX, THUMBNAIL_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    _, data = cv2.imencode(".jpg", square, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)


def shrunk(picture_bgr: U8) -> U8:
    """The picture at a size that is quick to look at; the same one where it is small."""
    from rt_swap.io.pixels import scaled

    height, width = picture_bgr.shape[:2]
    shrink = _MAX_SIDE_PX / max(height, width)
    if shrink >= 1:
        return picture_bgr
    return scaled(picture_bgr, (max(round(width * shrink), 1), max(round(height * shrink), 1)))
