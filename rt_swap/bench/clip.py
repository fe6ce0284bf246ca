"""Frames to measure on: a real face, never the same picture twice."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap import geometry
from rt_swap.errors import ConfigError
from rt_swap.frames import U8, Frame
from rt_swap.io.handheld import HandheldCamera, HandMotion

RATE: Final = Fraction(30)
_STILLS_PER_S: Final = 12.5
_MAX_STILLS: Final = 120
"""Pictures of a clip that are kept; a 1280x720 one takes 2.6 MiB."""
PORTRAIT: Final = "skimage.data.astronaut"


@dataclass(frozen=True)
class Clip:
    """A face to film.

    Attributes:
        stills: At least one (H, W, 3) uint8 BGR picture.
        shown: What they are, in words without paths.
        is_portrait: One still picture, filmed so that it fills the frame's width; else the pictures
            of a clip, each scaled to lie inside the frame.
    """

    stills: Sequence[U8]
    shown: str
    is_portrait: bool

    def frames(self, size_wh: tuple[int, int], count: int) -> Iterator[Frame]:
        """Film it with a hand-held camera.

        Args:
            size_wh: Of the frames, pixels.
            count: How many, at RATE.

        Yields:
            New frames; ``captured_s`` is when each was made.
        """
        if self.is_portrait:
            yield from HandheldCamera(self.stills[0], size_wh, RATE, max(count, 1))
            return
        fitted = [fit(still, size_wh) for still in self.stills]
        for number, picture in enumerate(moving_pictures(fitted, count)):
            yield Frame(picture, number, 1 / RATE, time.perf_counter())


def open_clip(target: Path | None) -> Clip:
    """The face to measure on.

    Args:
        target: A video or picture; None takes scikit-image's public-domain portrait.

    Raises:
        ConfigError: If there is no portrait either.
        SourceError: If the target cannot be read.
    """
    if target is None:
        return Clip([portrait_bgr()], f"{PORTRAIT}, hand-held", True)
    stills = read_stills(target)
    shown = f"{target.name}, {len(stills)} frames, forwards and backwards, hand-held"
    return Clip(stills, shown if len(stills) > 1 else f"{target.name}, hand-held", len(stills) == 1)


def read_stills(target: Path) -> list[U8]:
    """The first pictures of a video, or the one of a picture.

    Raises:
        ConfigError: If it has none.
        SourceError: If it cannot be read.
    """
    from rt_swap.io.video import VideoReader

    with VideoReader(target) as video:
        stills = [frame.frame_bgr for frame in itertools.islice(video, _MAX_STILLS)]
    if not stills:
        raise ConfigError(f"{target}: has no frames; give another clip")
    return stills


def portrait_bgr() -> U8:
    """scikit-image's portrait of Eileen Collins (NASA, public domain), (512, 512, 3) uint8 BGR.

    Raises:
        ConfigError: If scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError as exc:
        raise ConfigError(
            "there is no face to measure on: give a video or picture of one with --target FILE, or"
            " pip install 'rt-swap[demo]', whose portrait is used"
        ) from exc
    read: Any = skimage.data.astronaut
    return np.ascontiguousarray(read()[..., ::-1])


def fit(picture_bgr: U8, size_wh: tuple[int, int]) -> U8:
    """Scale a picture to lie inside a size, edges replicated around it.

    Args:
        picture_bgr: (H, W, 3) uint8.
        size_wh: (width, height).

    Returns:
        (height, width, 3) uint8, a new array.
    """
    import cv2

    height, width = picture_bgr.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    inner_wh = max(round(width * scale), 1), max(round(height * scale), 1)
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    scaled = cv2.resize(picture_bgr, inner_wh, interpolation=how)
    left, top = (size_wh[0] - inner_wh[0]) // 2, (size_wh[1] - inner_wh[1]) // 2
    right, bottom = size_wh[0] - inner_wh[0] - left, size_wh[1] - inner_wh[1] - top
    padded = cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(padded, np.uint8)


def moving_pictures(stills: Sequence[U8], count: int) -> Iterator[U8]:
    """Pictures forwards and backwards, 12.5 a second, seen by a hand-held camera at RATE; no two
    alike.

    Args:
        stills: (H, W, 3) uint8 BGR, all of one size.
        count: How many to give.

    Yields:
        New (H, W, 3) uint8 BGR arrays.
    """
    import cv2

    height, width = stills[0].shape[:2]
    motion = HandMotion((width, height))
    period = max(2 * (len(stills) - 1), 1)
    for t in range(count):
        time_s = t / float(RATE)
        k = int(_STILLS_PER_S * time_s) % period
        still = stills[min(k, period - k) if len(stills) > 1 else 0]
        moved = cv2.warpAffine(
            still,
            geometry.to_cv2(motion.pose(time_s)),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        yield np.ascontiguousarray(moved, np.uint8)
