"""Carry the generator's instructions out on the frame's own pixels, in one native pass over the
region of interest.
"""

from __future__ import annotations

import functools

import numpy as np

from rt_swap import geometry
from rt_swap.contract import FEATHER_FRACTION
from rt_swap.errors import ContractError
from rt_swap.frames import F32, F64, U8
from rt_swap.ops import _check
from rt_swap.ops._native import warp
from rt_swap.ops.crop import crop_shape


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
    """Writes the frame with the crop's instructions carried out.

    For each pixel centre p of the region of interest, with q = M_crop_from_frame p inside the
    crop::

        out(p) = (1 - w(q)) frame(p)
                 + w(q) [ keep(q) clamp(shade(q) frame(p + A flow(q))) + (1 - keep(q)) fill(q) ]

    A is the 2x2 part of M_frame_from_crop. Elsewhere out is the frame. The result is rounded half
    to even and clamped.

    Convention:
        (x, y) in pixels, origin at the top-left corner, pixel centres at +0.5. The maps are sampled
        bilinearly at q and the frame at p + A flow; both repeat their edge. Where flow is 0, keep 1
        and shade 1 (or w 0), the output is the input bit for bit. A pixel whose instructions are
        NaN stays as it is.

    Args:
        frame_bgr: (H, W, 3) uint8, BGR. Rows may lie apart (a cut-out of a larger picture); other
            strides are copied.
        M_crop_from_frame: (2, 3), invertible.
        flow_xy: (1, 2, S, S) float32, where to fetch, offset in crop pixels, order (x, y).
        keep: (1, 1, S, S) float32, [0, 1], how far to trust the fetched pixel.
        fill_rgb: (1, 3, S, S) float32, [0, 1], what to paint otherwise.
        shade: (1, 1, S, S) float32, factor on the fetched pixel; None means 1.
        weight: (S, S) float32, w, [0, 1]; see :func:`feather`.
        box_xyxy: Half-open box of the frame outside which nothing changes; None allows all of the
            crop.
        out_bgr: (H, W, 3) uint8 to be written, every pixel of it; must not share memory with
            frame_bgr; rows may lie apart. None allocates.
        threads: How many threads may work; 0 means one per usable core.

    Returns:
        (H, W, 3) uint8, BGR; ``out_bgr`` where it was given. No input is changed.

    Raises:
        ContractError: If an argument is not as said above.
        BackendUnavailable: If the native module has not been built.
    """
    who = "compose_bgr"
    frame = _check.frame(who, frame_bgr)
    M_crop_from_frame = _check.affine(f"{who}: M_crop_from_frame", M_crop_from_frame)
    M_frame_from_crop = geometry.invert(M_crop_from_frame)
    size_px = weight_size(who, weight)
    flow_xy = _check.tensor(f"{who}: flow_xy", flow_xy, (1, 2, size_px, size_px))
    keep = _check.tensor(f"{who}: keep", keep, (1, 1, size_px, size_px))
    fill_rgb = _check.tensor(f"{who}: fill_rgb", fill_rgb, (1, 3, size_px, size_px))
    if shade is not None:
        shade = _check.tensor(f"{who}: shade", shade, (1, 1, size_px, size_px))
    weight = np.ascontiguousarray(weight)
    box = region_of_interest(
        who, M_frame_from_crop, size_px, (frame.shape[0], frame.shape[1]), box_xyxy
    )
    if out_bgr is None:
        out_bgr = np.empty(frame.shape, np.uint8)
    else:
        _check.output(f"{who}: out_bgr", out_bgr, np.uint8, frame.shape)
        check_layout_and_overlap(who, frame_bgr, out_bgr)
    warp().compose_bgr(
        frame,
        M_crop_from_frame,
        M_frame_from_crop,
        flow_xy,
        keep,
        fill_rgb,
        shade,
        weight,
        box,
        out_bgr,
        _check.thread_count(who, threads),
    )
    return out_bgr


@functools.lru_cache(maxsize=8)
def _feather(size_px: int, fraction: float) -> F32:
    # distance of a pixel's centre from the crop's edge, counted from the outermost centres, so that
    # these are exactly 0 and repeating the edge outwards adds nothing
    centre = np.arange(size_px, dtype=np.float64)
    distance = np.minimum(centre, size_px - 1 - centre)
    width = max(fraction * size_px, 1.0)
    t = np.clip(distance / width, 0.0, 1.0)
    ramp = t * t * (3.0 - 2.0 * t)
    weight = np.outer(ramp, ramp).astype(np.float32)
    weight.flags.writeable = False
    return weight


def feather(size_px: int, fraction: float = FEATHER_FRACTION) -> F32:
    """The weight w(q) of a crop: 0 along its edge, 1 inside, a smoothstep between.

    ``w = s(x) s(y)``, ``s = t^2 (3 - 2 t)``, ``t`` = distance from the outermost pixel centres /
    (fraction * S), limited to [0, 1] (Perlin's smoothstep). The outermost pixels are exactly 0.

    Args:
        size_px: S, side of the crop.
        fraction: Width of the ramp along each edge as a fraction of S, in (0, 0.5].

    Returns:
        (S, S) float32, read-only: the same array is given to every caller.

    Raises:
        ContractError: If an argument is out of range.
    """
    crop_shape("feather", size_px)
    if not 0.0 < fraction <= 0.5:
        raise ContractError(
            f"feather: fraction must be in (0, 0.5], got {fraction!r}",
            expected="(0, 0.5]",
            actual=repr(fraction),
        )
    return _feather(int(size_px), float(fraction))


def weight_size(who: str, weight: F32) -> int:
    """S of a checked (S, S) float32 weight.

    Raises:
        ContractError: If it is anything else.
    """
    if (
        not isinstance(weight, np.ndarray)
        or weight.dtype != np.float32
        or weight.ndim != 2
        or weight.shape[0] != weight.shape[1]
        or not 1 <= weight.shape[0] <= _check.MAX_CROP_PX
    ):
        raise _check.fail(
            f"{who}: weight", "float32 (S, S)", weight, "pass feather(S) for maps of side S"
        )
    return int(weight.shape[0])


def region_of_interest(
    who: str,
    M_frame_from_crop: F64,
    size_px: int,
    frame_hw: tuple[int, int],
    box_xyxy: tuple[int, int, int, int] | None,
) -> tuple[int, int, int, int]:
    """The part of the frame that the crop covers, cut with the caller's box.

    Returns:
        ``box_xyxy``, half-open, inside the frame; (0, 0, 0, 0) where nothing is left.

    Raises:
        ContractError: If the caller's box is not four whole numbers.
    """
    x0, y0, x1, y1 = geometry.roi_of_crop(M_frame_from_crop, size_px, frame_hw)
    if box_xyxy is not None:
        box = tuple(box_xyxy)
        if len(box) != 4 or not all(isinstance(v, (int, np.integer)) for v in box):
            raise ContractError(
                f"{who}: box_xyxy must be four whole numbers x0, y0, x1, y1, got {box_xyxy!r}",
                expected="four ints",
                actual=repr(box_xyxy),
            )
        x0, y0 = max(x0, int(box[0])), max(y0, int(box[1]))
        x1, y1 = min(x1, int(box[2])), min(y1, int(box[3]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else (0, 0, 0, 0)


def check_layout_and_overlap(who: str, frame_bgr: U8, out_bgr: U8) -> None:
    """Checks that out has packed pixels and shares no byte with the frame.

    Raises:
        ContractError: If not.
    """
    if not _check.is_packed(out_bgr):
        raise _check.fail(
            f"{who}: out_bgr",
            "packed BGR rows",
            out_bgr,
            "allocate it with np.empty_like(frame_bgr)",
        )
    # the cheap test compares bounds only; the exact one lets two halves of one canvas through
    if np.may_share_memory(frame_bgr, out_bgr) and np.shares_memory(frame_bgr, out_bgr):
        raise ContractError(
            f"{who}: out_bgr must not share memory with frame_bgr, because pixels are fetched from "
            "the frame while out is written; pass another array or None",
            expected="separate memory",
            actual="overlapping arrays",
        )
