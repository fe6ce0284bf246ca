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


# --- NV12: what the GPU kernels do with video frames ----------------------------------------------
def _planes(frame_nv12: U8) -> tuple[F64, F64]:
    """Luma (H, W, 1) and chroma (H / 2, W / 2, 2), float64."""
    height, width = frame_nv12.shape[0] // 3 * 2, frame_nv12.shape[1]
    luma = frame_nv12[:height, :, None].astype(np.float64)
    chroma = frame_nv12[height:].reshape(height // 2, width // 2, 2).astype(np.float64)
    return luma, chroma


def _chroma_xy(x: F64, y: F64, colours: tuple[float, ...]) -> tuple[F64, F64]:
    """Luma points to points of the chroma planes, pixel centres at +0.5 in both."""
    first_x, first_y = colours[16:18]
    return (x - 0.5 - first_x) / 2 + 0.5, (y - 0.5 - first_y) / 2 + 0.5


def crop_rgb_nv12(
    frame_nv12: U8, M_frame_from_crop: F64, size_px: int, colours: tuple[float, ...]
) -> F32:
    """As :func:`crop_rgb`, of an NV12 frame.

    Luma and chroma are sampled bilinearly, each in its own plane, converted to RGB and limited to
    [0, 255]; then the taps are averaged.

    Args:
        frame_nv12: (H * 3 / 2, W) uint8: luma rows, then rows of Cb and Cr in turn.
        M_frame_from_crop: (2, 3), luma pixels.
        size_px: S.
        colours: ``Colours`` of cpp_ext/warp_gpu.h.

    Returns:
        (1, 3, S, S) float32, RGB, [0, 1].
    """
    scale = geometry.scale_of(M_frame_from_crop)
    n = 1 if scale <= 1.5 else int(min(np.rint(scale), 8))
    fine = (np.arange(size_px * n) + 0.5) / n
    p_frame = geometry.apply(M_frame_from_crop, np.stack(np.meshgrid(fine, fine), axis=-1))
    x, y = p_frame[..., 0], p_frame[..., 1]
    luma_plane, chroma_plane = _planes(frame_nv12)
    luma = (_bilinear(luma_plane, x, y)[..., 0] - colours[0]) * colours[2]
    chroma = _bilinear(chroma_plane, *_chroma_xy(x, y, colours)) - colours[1]
    u, v = chroma[..., 0], chroma[..., 1]
    red_v, green_u, green_v, blue_u = colours[3:7]
    bgr = np.stack([luma + blue_u * u, luma + green_u * u + green_v * v, luma + red_v * v], -1)
    mean = np.clip(bgr, 0, 255).reshape(size_px, n, size_px, n, 3).mean(axis=(1, 3)) / 255.0
    return np.ascontiguousarray(mean[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32)


def compose_nv12(
    frame_nv12: U8,
    M_crop_from_frame: F64,
    flow_xy: F32,
    keep: F32,
    fill_rgb: F32,
    shade: F32,
    weight: F32,
    colours: tuple[float, ...],
) -> U8:
    """As :func:`compose_bgr`, in Y, Cb and Cr: each luma pixel and each chroma sample is composed
    where it lies. Shading scales Y above black, and Cb and Cr around grey; the fill is converted.

    Args:
        frame_nv12: (H * 3 / 2, W) uint8.
        M_crop_from_frame: (2, 3), luma pixels.
        flow_xy: As in compose_bgr, as the other maps.
        keep: Likewise.
        fill_rgb: Likewise.
        shade: Likewise.
        weight: Likewise.
        colours: ``Colours`` of cpp_ext/warp_gpu.h.

    Returns:
        A new frame of the same layout.
    """
    size_px = weight.shape[0]
    linear = geometry.invert(M_crop_from_frame)[:, :2]
    from_bgr = np.array(colours[7:16]).reshape(3, 3)
    offsets = np.array([colours[0], colours[1], colours[1]])
    fill = 255.0 * fill_rgb[0, ::-1].astype(np.float64).transpose(1, 2, 0) @ from_bgr.T + offsets
    flat = np.concatenate([flow_xy[0], keep[0], shade[0], weight[None]]).astype(np.float64)
    maps = np.concatenate([flat.transpose(1, 2, 0), fill], axis=-1)
    luma, chroma = _planes(frame_nv12)

    def composed(plane: F64, step: int, first_xy: tuple[float, float], channels: slice) -> U8:
        rows, cols = plane.shape[:2]
        x, y = np.meshgrid(
            np.arange(cols) * step + 0.5 + first_xy[0], np.arange(rows) * step + 0.5 + first_xy[1]
        )
        q = geometry.apply(M_crop_from_frame, np.stack([x, y], axis=-1))
        inside = ((q >= 0) & (q < size_px)).all(axis=-1)
        m = _bilinear(maps, q[..., 0], q[..., 1])
        offset = m[..., :2] @ linear.T / step
        col, row = np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5)
        fetched = _bilinear(plane, col + offset[..., 0], row + offset[..., 1])
        keep_q, shade_q, w = m[..., 2:3], m[..., 3:4], m[..., 4:5]
        zero = offsets[channels]
        shaded = np.clip((fetched - zero) * shade_q + zero, 0, 255)
        changed = keep_q * shaded + (1 - keep_q) * m[..., 5:][..., channels]
        result = np.where(inside[..., None], (1 - w) * plane + w * changed, plane)
        made: U8 = np.clip(np.rint(result), 0, 255).astype(np.uint8)
        return made

    first = (colours[16], colours[17])
    parts = [
        composed(luma, 1, (0.0, 0.0), slice(0, 1))[..., 0],
        composed(chroma, 2, first, slice(1, 3)).reshape(chroma.shape[0], -1),
    ]
    return np.concatenate(parts)
