"""Cut the aligned crop out of a frame: sample, BGR to RGB, scale to [0, 1] and NCHW in one native
pass.
"""

from __future__ import annotations

import numpy as np

from rt_swap.errors import ContractError
from rt_swap.frames import F32, F64, U8
from rt_swap.ops import _check
from rt_swap.ops._native import warp


def crop_rgb(
    frame_bgr: U8,
    M_frame_from_crop: F64,
    size_px: int,
    out: F32 | None = None,
    threads: int = 0,
) -> F32:
    """Samples a square crop from a frame.

    Convention:
        ``M_frame_from_crop`` is the backward map: ``p_frame = M @ (p_crop, 1)``, (x, y) in pixels,
        pixel centres at +0.5. The crop pixel [row, col] shows the frame at ``M @ (col + 0.5, row +
        0.5, 1)``, bilinearly. Where the crop shrinks the frame (more than 1.5 frame pixels per crop
        pixel, by the square root of the determinant), an n x n grid of such samples inside the crop
        pixel is averaged, n = the scale rounded, at most 8, so that a face in a 4K frame does not
        alias. Outside the frame its edge is repeated.

    Args:
        frame_bgr: (H, W, 3) uint8, BGR. Rows may lie apart (a cut-out of a larger picture); other
            strides are copied.
        M_frame_from_crop: (2, 3), invertible.
        size_px: S, side of the crop, 1 .. 16384.
        out: (1, 3, S, S) float32, C-contiguous, to be written; None allocates.
        threads: How many threads may work; 0 means one per usable core.

    Returns:
        (1, 3, S, S) float32, RGB, [0, 1]; ``out`` where it was given. No input is changed.

    Raises:
        ContractError: If an argument is not as said above.
        BackendUnavailable: If the native module has not been built.
    """
    who = "crop_rgb"
    frame = _check.frame(who, frame_bgr)
    matrix = _check.affine(f"{who}: M_frame_from_crop", M_frame_from_crop)
    shape = crop_shape(who, size_px)
    if out is None:
        out = np.empty(shape, np.float32)
    else:
        _check.output(f"{who}: out", out, np.float32, shape)
        if not out.flags.c_contiguous:
            raise _check.fail(f"{who}: out", "C-contiguous", out, "allocate it with np.empty")
    warp().crop_rgb(frame, matrix, out, _check.thread_count(who, threads))
    return out


def crop_shape(who: str, size_px: int) -> tuple[int, int, int, int]:
    """(1, 3, S, S), S checked.

    Raises:
        ContractError: If S is not a whole number in 1 .. 16384.
    """
    if (
        isinstance(size_px, bool)
        or not isinstance(size_px, (int, np.integer))
        or not 1 <= size_px <= _check.MAX_CROP_PX
    ):
        raise ContractError(
            f"{who}: size_px must be a whole number in 1 .. {_check.MAX_CROP_PX}, got {size_px!r}",
            expected=f"1 .. {_check.MAX_CROP_PX}",
            actual=repr(size_px),
        )
    return 1, 3, int(size_px), int(size_px)
