"""Checks of arguments that crop and compose share; messages name the function and the argument."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rt_swap.errors import ContractError
from rt_swap.frames import F32, F64, U8

MAX_SIDE_PX = (1 << 24) - 1
"""Longest side of a picture: float32 counts whole pixels up to here."""

MAX_CROP_PX = 16384
"""Longest side of a crop."""


def describe(value: object) -> str:
    """What came, for a message: dtype and shape of an array, else the type."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__


def fail(who: str, expected: str, value: object, advice: str) -> ContractError:
    """A ContractError in the project's form: who, what was expected, what came, what to do."""
    actual = describe(value)
    return ContractError(
        f"{who} must be {expected}, got {actual}; {advice}", expected=expected, actual=actual
    )


def is_packed(picture: U8) -> bool:
    """Whether each row is a run of BGR bytes (rows may lie apart, as in a cut-out of a larger
    picture).
    """
    return picture.strides[2] == 1 and picture.strides[1] == 3


def frame(who: str, frame_bgr: U8) -> U8:
    """Checks a frame. Returns it, or a packed copy where its pixels are not packed (a flipped view,
    say).
    """
    if (
        not isinstance(frame_bgr, np.ndarray)
        or frame_bgr.dtype != np.uint8
        or frame_bgr.ndim != 3
        or frame_bgr.shape[2] != 3
    ):
        raise fail(
            f"{who}: frame_bgr",
            "uint8 HWC with 3 channels",
            frame_bgr,
            "pass the frame as the camera gave it",
        )
    height, width = frame_bgr.shape[:2]
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise fail(
            f"{who}: frame_bgr",
            f"1 .. {MAX_SIDE_PX} pixels high and wide",
            frame_bgr,
            "skip empty frames",
        )
    return frame_bgr if is_packed(frame_bgr) else np.ascontiguousarray(frame_bgr)


def affine(who: str, matrix: F64) -> F64:
    """Checks a 2x3 affine: shape, numbers, and that it can be inverted. Returns it as contiguous
    float64.
    """
    if (
        not isinstance(matrix, np.ndarray)
        or matrix.shape != (2, 3)
        or matrix.dtype.kind not in "fiu"
    ):
        raise fail(who, "a (2, 3) array of numbers", matrix, "build it with rt_swap.geometry")
    checked = np.ascontiguousarray(matrix, np.float64)
    xx, xy, _, yx, yy, _ = checked.ravel().tolist()
    determinant = xx * yy - xy * yx
    if not (np.isfinite(checked).all() and 1e-12 < abs(determinant) < 1e12):
        raise ContractError(
            f"{who} must be finite and invertible, got determinant {determinant:g} in "
            f"{checked.tolist()}; a face cannot be zero or endless in size, so treat it as lost",
            expected="a finite, invertible affine",
            actual=f"determinant {determinant:g}",
        )
    return checked


def tensor(who: str, value: F32, shape: Sequence[int]) -> F32:
    """Checks a float32 input of fixed shape. Returns it C-contiguous, a copy where it is not."""
    if (
        not isinstance(value, np.ndarray)
        or value.dtype != np.float32
        or value.shape != tuple(shape)
    ):
        raise fail(who, f"float32 {tuple(shape)}", value, "pass the graph's output as it came")
    return np.ascontiguousarray(value)


def output(
    who: str, value: npt.NDArray[np.generic], dtype: npt.DTypeLike, shape: Sequence[int]
) -> None:
    """Checks dtype, shape and writability of an output; its layout is the caller's to check."""
    expected = f"writable {np.dtype(dtype).name} {tuple(shape)}"
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != tuple(shape):
        raise fail(
            who, expected, value, "allocate it with np.empty and reuse it from frame to frame"
        )
    if not value.flags.writeable:
        raise ContractError(
            f"{who} must be {expected}, got a read-only array; pass a copy",
            expected=expected,
            actual="read-only",
        )


def thread_count(who: str, threads: int) -> int:
    """Checks a number of threads: 0 (all usable cores) or more."""
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 0:
        raise ContractError(
            f"{who}: threads must be a whole number, 0 for all cores or more, got {threads!r}",
            expected="an int >= 0",
            actual=repr(threads),
        )
    return min(int(threads), 1 << 16)
