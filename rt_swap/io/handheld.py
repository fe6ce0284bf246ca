"""A still picture filmed by a simulated hand-held camera: movement where there is no clip."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import numpy as np

from rt_swap import geometry
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import F64, U8, Frame

_MARGIN: Final = 0.1
"""Room around what the resting camera sees, as a fraction of the frame's longer side."""
_OVERLAP: Final = 1.06
"""Width of the picture in frame widths, so that its sides stay out of sight most of the time."""

# A hand's motion: slow drift, sway, and a little tremor. Hertz from .. to, share of the whole.
_BANDS: Final = ((0.08, 0.2, 0.5), (0.25, 0.6, 0.3), (0.8, 1.5, 0.15), (2.0, 3.5, 0.05))
_LARGEST: Final = (0.03, 0.02, np.deg2rad(2.5), 0.04)
"""Bounds: shift right and down in frame widths, tilt in radians, log zoom."""


class HandMotion:
    """How a hand moves a camera: slow drift, sway and a tremor, smooth, bounded, drawn from a seed.

    Args:
        size_wh: Of the frames, pixels.
        seed: Another seed, another hand.
    """

    def __init__(self, size_wh: tuple[int, int], seed: int = 1) -> None:
        self._size_wh = size_wh
        rng = np.random.default_rng(seed)
        low, high, share = (np.array(column) for column in zip(*_BANDS, strict=True))
        # one row per axis of motion, one column per band
        self._hertz = rng.uniform(low, high, (len(_LARGEST), len(_BANDS)))
        self._phase = rng.uniform(0, 2 * np.pi, self._hertz.shape)
        self._amplitude = np.array(_LARGEST)[:, None] * share

    def pose(self, time_s: float) -> F64:
        """Where the camera is.

        Args:
            time_s: Seconds from the start.

        Returns:
            ``M_frame_from_still``, (2, 3): maps what a resting camera would show into the frame.
        """
        sway = (self._amplitude * np.sin(2 * np.pi * self._hertz * time_s + self._phase)).sum(1)
        width, height = self._size_wh
        centre_xy = np.array([width, height]) / 2
        zoom = np.exp(sway[3])
        linear = zoom * np.array(
            [[np.cos(sway[2]), -np.sin(sway[2])], [np.sin(sway[2]), np.cos(sway[2])]]
        )
        offset = centre_xy + sway[:2] * width - linear @ centre_xy
        return np.concatenate([linear, offset[:, None]], axis=1)


class HandheldCamera:
    """A source of frames of one still picture, as a hand-held camera would film it.

    The picture fills the frame's width and its upper part is shown; what lies beyond its edges is
    its border continued and blurred. The motion is smooth, bounded and drawn from a seed.

    Args:
        picture_bgr: (H, W, 3) uint8, BGR.
        size_wh: Of the frames, pixels.
        rate: Frames per second.
        frame_count: Frames in all, 1 or more.
        seed: Another seed, another hand.

    Raises:
        ContractError: If the picture is not (H, W, 3) uint8.
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        picture_bgr: U8,
        size_wh: tuple[int, int] = (1280, 720),
        rate: Fraction = Fraction(30),
        frame_count: int = 600,
        seed: int = 1,
    ) -> None:
        if picture_bgr.dtype != np.uint8 or picture_bgr.ndim != 3 or picture_bgr.shape[2] != 3:
            raise ContractError(
                "HandheldCamera: picture_bgr must be uint8 (H, W, 3),"
                f" got {picture_bgr.dtype} {picture_bgr.shape}",
                expected="uint8 (H, W, 3)",
                actual=f"{picture_bgr.dtype} {picture_bgr.shape}",
            )
        if min(size_wh) < 16 or frame_count < 1 or rate <= 0:
            raise ConfigError(
                "HandheldCamera: size_wh must be 16 or more each, frame_count 1 or more and rate"
                f" above 0, got {size_wh}, {frame_count} and {rate}"
            )
        self.size_wh, self.rate, self.frame_count = size_wh, rate, frame_count
        self.time_base = 1 / rate
        self._motion = HandMotion(size_wh, seed)
        self._margin_px = round(_MARGIN * max(size_wh))
        self._canvas_bgr = _canvas(picture_bgr, size_wh, self._margin_px)
        self._closed = False

    def pose(self, time_s: float) -> F64:
        """Where the camera is.

        Args:
            time_s: Seconds from the start.

        Returns:
            ``M_frame_from_canvas``, (2, 3): maps the prepared picture into the frame.
        """
        M_still_from_canvas = np.array([[1.0, 0.0, -self._margin_px], [0.0, 1.0, -self._margin_px]])
        return geometry.compose(self._motion.pose(time_s), M_still_from_canvas)

    def __iter__(self) -> Iterator[Frame]:
        """The frames, in order."""
        import cv2

        for number in range(self.frame_count):
            if self._closed:
                return
            M_frame_from_canvas = self.pose(float(number * self.time_base))
            frame_bgr = cv2.warpAffine(
                self._canvas_bgr,
                geometry.to_cv2(M_frame_from_canvas),
                self.size_wh,
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            )
            yield Frame(
                np.asarray(frame_bgr, np.uint8), number, self.time_base, time.perf_counter()
            )

    def close(self) -> None:
        """End the iteration; harmless when done twice."""
        self._closed = True


def _canvas(picture_bgr: U8, size_wh: tuple[int, int], margin_px: int) -> U8:
    """The picture at the frame's scale, with its surroundings made up.

    Returns:
        (height + 2 * margin_px, width + 2 * margin_px, 3) uint8.
    """
    import cv2

    canvas_w, canvas_h = (side + 2 * margin_px for side in size_wh)
    scale = size_wh[0] * _OVERLAP / picture_bgr.shape[1]
    inner_wh = tuple(max(round(side * scale), 1) for side in picture_bgr.shape[1::-1])
    inner = cv2.resize(picture_bgr, inner_wh, interpolation=cv2.INTER_LANCZOS4)
    x0, y0 = (canvas_w - inner_wh[0]) // 2, margin_px
    inner = inner[: canvas_h - y0]
    below = canvas_h - y0 - inner.shape[0]
    sides = (y0, below, x0, canvas_w - x0 - inner_wh[0])
    extended = cv2.copyMakeBorder(inner, *sides, cv2.BORDER_REPLICATE)
    surroundings = cv2.GaussianBlur(extended, (0, 0), margin_px / 4)

    feather_px = max(margin_px // 5, 1)
    weight = np.zeros((canvas_h, canvas_w, 1), np.float32)
    end_y = canvas_h - below - feather_px if below else canvas_h
    weight[y0 + feather_px : end_y, x0 + feather_px : canvas_w - sides[3] - feather_px] = 1
    soft = cv2.GaussianBlur(weight, (0, 0), feather_px / 2.5)[..., None]
    mixed = surroundings + soft * (extended.astype(np.float32) - surroundings)
    return np.asarray(np.rint(np.clip(mixed, 0, 255)), np.uint8)
