"""Reads the marks of a file: the manifest, the badge and the mark in the pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap.errors import ConfigError, SourceError
from rt_swap.frames import F64
from rt_swap.io.video import VideoReader
from rt_swap.provenance import badge, manifest
from rt_swap.provenance.watermark import DETECTION_SCORE, Detection, Detector
from rt_swap.tracking import FaceFollower, FaceTracker, MediapipeTracker

FRAMES: Final = 300
"""Frames looked at unless said otherwise."""
_CHECKS: Final = (30, 100)
"""Numbers of faces after which a clear result ends the search."""
_CLEAR: Final = 1.5 * DETECTION_SCORE
_FACES: Final = 4

MakeTracker = Callable[[], FaceTracker]


def _tracker() -> FaceTracker:
    return MediapipeTracker(max_faces=_FACES)


def inspect_file(
    path: str | Path, *, frames: int = FRAMES, make_tracker: MakeTracker = _tracker
) -> dict[str, Any]:
    """Read all three marks.

    Args:
        path: A video or picture.
        frames: How many frames to look at, from the first, 1 or more.
        make_tracker: Makes the face tracker.

    Returns:
        Plain values: file, altered (whether any mark says so), manifest (see manifest.read), badge
        (corner or None, correlation) and watermark (found, score, threshold, model, version,
        pictures, faces looked at).

    Raises:
        SourceError: If the file cannot be read.
        ConfigError: If frames is under 1.
    """
    if frames < 1:
        raise ConfigError(f"--frames: must be 1 or more, got {frames}")
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file; check the spelling")
    seen = _Seen()
    best = seen.look(path, "largest", frames, make_tracker)
    if not best.found:
        for face in range(seen.most_faces if seen.most_faces > 1 else 0):
            other = seen.look(path, face, frames, make_tracker)
            best = max(best, other, key=lambda detection: detection.score)
            if best.found:
                break
    signed = manifest.read(path)
    corner, correlation = badge.find(seen.mean())
    return {
        "file": str(path),
        "altered": bool(best.found or corner or signed.get("rt_swap") or signed.get("synthetic")),
        "manifest": signed,
        "badge": {"corner": corner, "correlation": correlation},
        "watermark": {
            "found": best.found,
            "score": best.score,
            "threshold": DETECTION_SCORE,
            "model": best.payload.model_text if best.found else None,
            "version": best.payload.version if best.found else None,
            "pictures": best.pictures,
            "faces": seen.most_faces,
        },
    }


class _Seen:
    """What passes over the file have in common."""

    def __init__(self) -> None:
        self._sum: F64 | None = None
        self._count = 0
        self.most_faces = 0

    def mean(self) -> Any:
        """(H, W, 3) uint8, the mean of the frames."""
        assert self._sum is not None
        return (self._sum / self._count).astype(np.uint8)

    def look(self, path: Path, face: Any, frames: int, make_tracker: MakeTracker) -> Detection:
        """One pass for one face."""
        detector, first = Detector(), self._sum is None
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(VideoReader(path))
            tracker = make_tracker()
            stack.callback(tracker.close)
            follower = FaceFollower(tracker, face=face)
            for number, frame in enumerate(reader):
                if number >= frames:
                    break
                if first:
                    picture = frame.frame_bgr.astype(np.float64)
                    self._sum = picture if self._sum is None else self._sum + picture
                    self._count += 1
                crop = follower.follow(frame)
                self.most_faces = max(self.most_faces, min(len(follower.faces), _FACES))
                if crop is None:
                    continue
                detector.see(frame.frame_bgr, crop.M_crop_from_frame)
                if detector.pictures in _CHECKS:
                    so_far = detector.result()
                    if so_far.score >= _CLEAR:
                        return so_far
        if not detector.pictures:
            return Detection.nothing()
        return detector.result()
