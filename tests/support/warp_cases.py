"""Frames, matrices and maps for the tests of crop and compose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rt_swap.frames import F32, F64, U8


class Maps(NamedTuple):
    """Arguments of compose_bgr, in its order after the matrix."""

    flow_xy: F32
    keep: F32
    fill_rgb: F32
    shade: F32 | None
    weight: F32


def noise_frame(rng: np.random.Generator, height: int, width: int) -> U8:
    """Noise: every error of a position shows."""
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def placed(centre_xy: tuple[float, float], scale: float, degrees: float, size_px: int) -> F64:
    """M_frame_from_crop of a crop of `size_px` turned and scaled about its middle, which lies at
    `centre_xy`.
    """
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = np.array(centre_xy) - linear @ np.full(2, size_px / 2)
    return np.concatenate([linear, offset[:, None]], axis=1)


def random_maps(rng: np.random.Generator, size_px: int, weight: F32, flow_px: float = 3.0) -> Maps:
    """Maps in which every term of the formula counts, the clamp of the shading included."""
    shape = (1, 1, size_px, size_px)
    return Maps(
        rng.normal(0, flow_px, (1, 2, size_px, size_px)).astype(np.float32),
        rng.random(shape, dtype=np.float32),
        rng.random((1, 3, size_px, size_px), dtype=np.float32),
        rng.uniform(0.4, 1.8, shape).astype(np.float32),
        weight,
    )


def still_maps(size_px: int, weight: F32, fill: float = 0.5) -> Maps:
    """flow 0, keep 1, shade 1: leave everything as it is."""
    shape = (1, 1, size_px, size_px)
    return Maps(
        np.zeros((1, 2, size_px, size_px), np.float32),
        np.ones(shape, np.float32),
        np.full((1, 3, size_px, size_px), fill, np.float32),
        np.ones(shape, np.float32),
        weight,
    )


# name -> (frame height and width, crop side, where its middle lies, frame pixels per crop pixel,
# degrees)
PLACES: dict[str, tuple[tuple[int, int], int, tuple[float, float], float, float]] = {
    "inside": ((97, 131), 33, (64.3, 45.2), 1.0, 0.0),
    "rotated": ((97, 131), 33, (64.3, 45.2), 1.3, 27.0),
    "quarter_turn": ((97, 131), 33, (60.0, 50.0), 1.0, 90.0),
    "upside_down": ((97, 131), 33, (60.0, 50.0), 0.9, 180.0),
    "over_left": ((97, 131), 33, (3.1, 45.2), 1.1, 5.0),
    "over_right": ((97, 131), 33, (129.7, 45.2), 1.1, -5.0),
    "over_top": ((97, 131), 33, (64.3, -2.4), 1.1, 12.0),
    "over_bottom": ((97, 131), 33, (64.3, 96.9), 1.1, -12.0),
    "over_corner": ((97, 131), 33, (131.0, 97.0), 1.7, 45.0),
    "over_all_edges": ((47, 31), 33, (14.0, 20.0), 2.6, 10.0),
    "outside": ((97, 131), 33, (-300.0, 20.0), 1.0, 10.0),
    "far_outside": ((97, 131), 33, (3e9, -3e9), 1.0, 10.0),
    "upscaled": ((97, 131), 65, (64.3, 45.2), 0.31, 8.0),
    "shrunk_2": ((197, 231), 33, (100.3, 95.2), 2.0, 8.0),
    "shrunk_5": ((397, 331), 33, (164.3, 195.2), 5.2, 31.0),
    "one_pixel_face": ((97, 131), 33, (64.5, 45.5), 1.0 / 33, 0.0),
    "one_pixel_crop": ((97, 131), 1, (64.5, 45.5), 3.0, 20.0),
    "one_pixel_frame": ((1, 1), 33, (0.5, 0.5), 0.2, 20.0),
    "one_row_frame": ((1, 131), 33, (64.0, 0.5), 1.0, 20.0),
    "two_column_frame": ((97, 2), 33, (1.0, 45.0), 1.0, 20.0),
}
