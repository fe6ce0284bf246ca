"""Faces made of numbers, a tracker that plays them, and real clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from rt_swap.contract import CROP_SIZE_PX, STABLE_LANDMARKS, template_xy
from rt_swap.frames import F64, U8, Frame, TrackedFace
from rt_swap.geometry import apply


def landmarks_at(
    x: float, y: float, side_px: float = 128.0, angle_rad: float = 0.0, noise: F64 | None = None
) -> F64:
    """478 landmarks of a frontal face whose aligned crop has its middle at (x, y).

    The stable landmarks fit the template exactly; the others fill the oval, always the same way.

    Args:
        x: Middle of the crop, pixels.
        y: The same.
        side_px: Side of the crop in the frame.
        angle_rad: Tilt.
        noise: (478, 2) added in the end, or None.
    """
    rng = np.random.default_rng(7)
    radius, turn = np.sqrt(rng.uniform(0, 1, 478)), rng.uniform(0, 2 * np.pi, 478)
    oval = np.stack([0.5 + 0.3 * radius * np.cos(turn), 0.5 + 0.4 * radius * np.sin(turn)], 1)
    crop_xy = oval * CROP_SIZE_PX
    crop_xy[list(STABLE_LANDMARKS)] = template_xy()
    frame_xy = apply(similarity(x, y, side_px, angle_rad), crop_xy)
    return frame_xy if noise is None else frame_xy + noise


def similarity(x: float, y: float, side_px: float, angle_rad: float) -> F64:
    """``M_frame_from_crop`` of a crop with its middle at (x, y)."""
    scale = side_px / CROP_SIZE_PX
    real, imag = scale * np.cos(angle_rad), scale * np.sin(angle_rad)
    linear = np.array([[real, -imag], [imag, real]])
    middle = np.full(2, CROP_SIZE_PX / 2)
    return np.concatenate([linear, (np.array([x, y]) - linear @ middle)[:, None]], axis=1)


def face_at(
    x: float,
    y: float,
    side_px: float = 128.0,
    angle_rad: float = 0.0,
    *,
    track_id: int = 0,
    confidence: float = 1.0,
    noise: F64 | None = None,
) -> TrackedFace:
    """A tracked face of such landmarks."""
    landmarks_xy = landmarks_at(x, y, side_px, angle_rad, noise)
    return TrackedFace(landmarks_xy, np.zeros(478), confidence, track_id)


class FakeTracker:
    """Plays a script: one list of faces per picture; nobody after its end."""

    def __init__(self, script: Sequence[Sequence[TrackedFace]]) -> None:
        self._script = [list(faces) for faces in script]
        self.calls = 0
        self.closed = False

    def detect(self, frame_bgr: U8) -> list[TrackedFace]:
        self.calls += 1
        return self._script[self.calls - 1] if self.calls <= len(self._script) else []

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeTracker:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def blank_frame(index: int, *, rate_hz: int = 30, hw: tuple[int, int] = (480, 640)) -> Frame:
    """A grey picture with a time."""
    return Frame(np.full((*hw, 3), 90, np.uint8), index, Fraction(1, rate_hz))


def clip_frames(path: Path) -> Iterator[Frame]:
    """A real clip's frames with their own time stamps."""
    import av

    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            assert picture.pts is not None
            assert picture.time_base is not None
            yield Frame(picture.to_ndarray(format="bgr24"), picture.pts, picture.time_base)
