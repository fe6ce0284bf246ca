"""Loads ``rt_swap._warp`` on first use, so that a checkout without it can still be imported and
diagnosed.
"""

from __future__ import annotations

import functools
import importlib
from typing import Protocol, cast

from rt_swap.errors import BackendUnavailable
from rt_swap.frames import F32, F64, U8


class WarpModule(Protocol):
    """What the native module offers; see cpp_ext/bindings.cpp."""

    GPU_ABI: int
    GPU_FRAME_PARAMS_BYTES: int

    def crop_rgb(self, frame_bgr: U8, M_frame_from_crop: F64, out: F32, threads: int) -> None:
        """See rt_swap.ops.crop_rgb."""

    def compose_bgr(
        self,
        frame_bgr: U8,
        M_crop_from_frame: F64,
        M_frame_from_crop: F64,
        flow_xy: F32,
        keep: F32,
        fill_rgb: F32,
        shade: F32 | None,
        weight: F32,
        box_xyxy: tuple[int, int, int, int],
        out_bgr: U8,
        threads: int,
    ) -> None:
        """See rt_swap.ops.compose_bgr."""

    def gpu_frame_params(
        self,
        out: U8,
        size_wh: tuple[int, int],
        size_px: int,
        M_frame_from_crop: F64,
        M_crop_from_frame: F64,
        part_xyxy: tuple[int, int, int, int],
        box_xyxy: tuple[int, int, int, int],
        in_address: int,
        out_address: int,
        layout: tuple[int, int, int, int],
        colours: tuple[float, ...] | None,
    ) -> None:
        """Fills one FrameParams of warp_gpu.h."""

    def usable_cores(self) -> int:
        """How many threads ``threads=0`` means."""


@functools.cache
def warp() -> WarpModule:
    """The native module.

    Raises:
        BackendUnavailable: If it has not been built, or does not fit this Python.
    """
    try:
        return cast(WarpModule, importlib.import_module("rt_swap._warp"))
    except ImportError as exc:
        raise BackendUnavailable(
            f"rt_swap.ops: the native module rt_swap._warp cannot be loaded ({exc}); build it with "
            "`pip install -e .` or `make ext` in the checkout, or install a wheel for this Python"
        ) from exc
