"""A Swapper without trained weights and, where the face is not the point, without mediapipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rt_swap.backends import get_backend
from rt_swap.expression import ExpressionCache
from rt_swap.frames import U8, TrackedFace
from rt_swap.model import ModelBundle
from rt_swap.swapper import Swapper
from tests.support.faces import face_at

FacesAt = Callable[[int], list[TrackedFace]]
"""Number of the picture -> the faces in it."""


class SittingTracker:
    """Sees a face in the middle of every picture, or what it is told."""

    def __init__(
        self, faces: FacesAt | None = None, fail_at: int | None = None, delay_s: float = 0.0
    ) -> None:
        self._faces = faces
        self._fail_at = fail_at
        self._delay_s = delay_s
        self.calls = 0
        self.closed = False

    def detect(self, frame_bgr: U8) -> list[TrackedFace]:
        number = self.calls
        self.calls += 1
        time.sleep(self._delay_s)
        if number == self._fail_at:
            raise RuntimeError("the tracker broke on purpose")
        if self._faces is not None:
            return self._faces(number)
        height, width = frame_bgr.shape[:2]
        return [face_at(width / 2, height / 2, 0.8 * min(height, width))]

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> SittingTracker:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def sitting_swapper(
    bundle: ModelBundle,
    *,
    faces: FacesAt | None = None,
    still_faces: FacesAt | None = None,
    fail_at: int | None = None,
    cache: ExpressionCache | None = None,
    **options: object,
) -> Swapper:
    """A Swapper over such trackers.

    Args:
        bundle: The model.
        faces: Faces of the target's frames (and of clips).
        still_faces: Faces of a source picture.
        fail_at: Number of the frame at which the target's tracker breaks.
        cache: Of encoded sources.
        options: The Swapper's own.
    """

    def make(max_faces: int, static: bool) -> SittingTracker:
        if static:
            return SittingTracker(still_faces)
        return SittingTracker(faces, fail_at)

    return Swapper(
        bundle,
        get_backend("onnxruntime"),
        threads=1,
        cache=cache,
        make_tracker=make,
        **options,  # type: ignore[arg-type]
    )
