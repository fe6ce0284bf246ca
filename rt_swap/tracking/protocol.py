"""The seam behind which a face tracker sits."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, runtime_checkable

from rt_swap.frames import U8, TrackedFace


@runtime_checkable
class FaceTracker(Protocol):
    """Finds faces in consecutive pictures and says who is who.

    One object serves one stream of pictures, from one thread.
    :class:`rt_swap.tracking.FaceFollower` calls :meth:`detect` once per frame, in order, and
    :meth:`close` is called by whoever made the tracker.

    Obligations:
        * ``track_id`` stays the same for one person while in view and over short losses; it does
          not depend on the order in which faces are found. An id is never given to anybody else
          later on.
        * ``confidence`` is low for what merely looks like a face to a part of the tracker; faces
          under the tracker's own threshold are not returned.
        * Coordinates follow :mod:`rt_swap.geometry`: pixels of the frame as given, corner origin.
        * No face is an empty list, never an exception.
    """

    def detect(self, frame_bgr: U8) -> list[TrackedFace]:
        """Find the faces of the next picture.

        Args:
            frame_bgr: (H, W, 3) uint8, BGR; any size; not changed and not kept.

        Returns:
            One entry per face, the largest first; empty where there is none.

        Raises:
            ContractError: If the picture is not (H, W, 3) uint8.
        """

    def close(self) -> None:
        """Free everything; may be called again."""

    def __enter__(self) -> FaceTracker: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
