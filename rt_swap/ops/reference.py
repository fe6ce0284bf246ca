"""Crop and compose in NumPy, float64, written to be read: the native kernels are tested against
these.

Same signatures and conventions as :mod:`rt_swap.ops`, no shared code with it beyond geometry; slow.
"""

from __future__ import annotations

import numpy as np

from rt_swap import geometry
from rt_swap.contract import FEATHER_FRACTION
from rt_swap.frames import F32, F64, U8


def _bilinear(picture: F64, x: F64, y: F64) -> F64:
    """Samples a picture at points, edge repeated.

    Args:
        picture: (H, W, C).
        x: (...) pixels, pixel centres at +0.5.
        y: (...) likewise.

    Returns:
        (..., C).
    """
    height, width = picture.shape[:2]
    # outside the outermost centres there is nothing but the edge
    x = np.clip(x - 0.5, 0.0, width - 1.0)
    y = np.clip(y - 0.5, 0.0, height - 1.0)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left)[..., None], (y - top)[..., None]
    return np.asarray(
        (1 - u) * (1 - v) * picture[top, left]
        + u * (1 - v) * picture[top, right]
        + (1 - u) * v * picture[bottom, left]
        + u * v * picture[bottom, right]
    )


def crop_rgb(
    frame_bgr: U8,
    M_frame_from_crop: F64,
    size_px: int,
    out: F32 | None = None,
    threads: int = 0,
) -> F32:
    """See :func:`rt_swap.ops.crop_rgb`; ``threads`` is ignored."""
    scale = geometry.scale_of(M_frame_from_crop)
    n = 1 if scale <= 1.5 else int(min(np.rint(scale), 8))

    # centres of the n x n cells of every crop pixel: a crop n times as fine
    fine = (np.arange(size_px * n) + 0.5) / n
    p_crop = np.stack(np.meshgrid(fine, fine), axis=-1)
    p_frame = geometry.apply(M_frame_from_crop, p_crop)
    taps = _bilinear(frame_bgr.astype(np.float64) / 255.0, p_frame[..., 0], p_frame[..., 1])

    mean_bgr = taps.reshape(size_px, n, size_px, n, 3).mean(axis=(1, 3))
    crop = mean_bgr[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    if out is None:
        return np.ascontiguousarray(crop)
    out[...] = crop
    return out


def compose_bgr(
    frame_bgr: U8,
    M_crop_from_frame: F64,
    flow_xy: F32,
    keep: F32,
    fill_rgb: F32,
    shade: F32 | None,
    weight: F32,
    box_xyxy: tuple[int, int, int, int] | None = None,
    out_bgr: U8 | None = None,
    threads: int = 0,
) -> U8:
    """See :func:`rt_swap.ops.compose_bgr`; ``threads`` is ignored, and every pixel of the frame is
    looked at.
    """
    height, width = frame_bgr.shape[:2]
    size_px = weight.shape[0]
    linear = geometry.invert(M_crop_from_frame)[:, :2]
    frame = frame_bgr.astype(np.float64)

    # where each pixel centre lies in the crop
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    q = geometry.apply(M_crop_from_frame, np.stack([x, y], axis=-1))
    inside = ((q >= 0) & (q < size_px)).all(axis=-1)
    if box_xyxy is not None:
        x0, y0, x1, y1 = box_xyxy
        inside &= (x > x0) & (x < x1) & (y > y0) & (y < y1)

    # what to do there
    maps = np.concatenate(
        [
            flow_xy[0],
            keep[0],
            np.ones((1, size_px, size_px)) if shade is None else shade[0],
            fill_rgb[0],
            weight[None],
        ]
    ).astype(np.float64)
    sampled = _bilinear(maps.transpose(1, 2, 0), q[..., 0], q[..., 1])
    flow, keep_q, shade_q, fill, w = np.split(sampled, [2, 3, 4, 7], axis=-1)

    # the formula
    offset = flow @ linear.T
    known = np.isfinite(offset).all(axis=-1)
    offset = np.where(known[..., None], offset, 0.0)
    fetched = _bilinear(frame, x + offset[..., 0], y + offset[..., 1])
    changed = keep_q * np.clip(shade_q * fetched, 0, 255) + (1 - keep_q) * 255 * fill[..., ::-1]
    blended = (1 - w) * frame + w * changed

    # outside the crop, and where an instruction is not a number, the frame stays
    use = inside & known & np.isfinite(blended).all(axis=-1)
    result = np.where(use[..., None], blended, frame)
    result_u8: U8 = np.clip(np.rint(result), 0, 255).astype(np.uint8)
    if out_bgr is None:
        return result_u8
    out_bgr[...] = result_u8
    return out_bgr


def feather(size_px: int, fraction: float = FEATHER_FRACTION) -> F32:
    """See :func:`rt_swap.ops.feather`."""
    weight = np.empty((size_px, size_px))
    for row in range(size_px):
        for col in range(size_px):
            ramps = []
            for k in (row, col):
                t = min(k, size_px - 1 - k) / max(fraction * size_px, 1.0)
                t = min(t, 1.0)
                ramps.append(t * t * (3 - 2 * t))
            weight[row, col] = ramps[0] * ramps[1]
    return weight.astype(np.float32)
