"""Whole-picture operations by OpenCV: turn, scale, blur. Pictures are (H, W, 3) uint8, BGR."""

from __future__ import annotations

import numpy as np

from rt_swap.frames import U8


def turned(frame_bgr: U8, *, transpose: bool, flip_x: bool, flip_y: bool) -> U8:
    """Swap rows and columns, then mirror left-right and top-bottom, each as asked for.

    Returns:
        A new array, or the same one where nothing was asked for.
    """
    import cv2

    if transpose:
        frame_bgr = np.asarray(cv2.transpose(frame_bgr), np.uint8)
    if flip_x or flip_y:
        code = -1 if flip_x and flip_y else int(flip_x)
        frame_bgr = np.asarray(cv2.flip(frame_bgr, code), np.uint8)
    return frame_bgr


def scaled(frame_bgr: U8, size_wh: tuple[int, int]) -> U8:
    """Scale to a size: area averages when it shrinks, bilinear when it grows.

    Args:
        frame_bgr: (H, W, 3).
        size_wh: (width, height) wanted, 1 or more each.

    Returns:
        (height, width, 3), a new array, or the same one where the size is right already.
    """
    import cv2

    height, width = frame_bgr.shape[:2]
    if (width, height) == size_wh:
        return frame_bgr
    shrinks = size_wh[0] * size_wh[1] < width * height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame_bgr, size_wh, interpolation=method), np.uint8)


def blurred(frame_bgr: U8, blocks: int = 12) -> U8:
    """Blur so far that nobody and no expression can be recognised: block means, interpolated in
    between.

    Args:
        frame_bgr: (H, W, 3); not changed.
        blocks: Blocks along the shorter side, 1 or more.

    Returns:
        (H, W, 3), a new array.
    """
    import cv2

    height, width = frame_bgr.shape[:2]
    side = max(min(height, width) / blocks, 1.0)
    coarse_wh = (max(round(width / side), 1), max(round(height / side), 1))
    coarse = cv2.resize(frame_bgr, coarse_wh, interpolation=cv2.INTER_AREA)
    return np.array(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def i420_from_bgr(frame_bgr: U8) -> U8:
    """Planar YUV 4:2:0 (BT.601, limited range), as virtual cameras take it.

    Args:
        frame_bgr: (H, W, 3); an odd last row or column is left out.

    Returns:
        (H * 3 // 2, W) uint8: the plane of Y, then U, then V.
    """
    import cv2

    height, width = (side // 2 * 2 for side in frame_bgr.shape[:2])
    even = frame_bgr[:height, :width]
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(even), cv2.COLOR_BGR2YUV_I420), np.uint8)
