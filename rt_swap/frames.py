"""What travels through the pipeline: frozen dataclasses, no behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """A whole picture with its time.

    Attributes:
        frame_bgr: (H, W, 3) uint8, BGR, C-contiguous.
        pts: Presentation time stamp in units of time_base.
        time_base: Seconds per unit of pts.
        captured_s: ``time.perf_counter()`` when the picture was had, seconds.
    """

    frame_bgr: U8
    pts: int
    time_base: Fraction
    captured_s: float = 0.0

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True)
class TrackedFace:
    """A face found by a tracker.

    Attributes:
        landmarks_xy: (478, 2) float64 pixels of the frame, mediapipe face-mesh order (468 points +
            10 of the irises).
        depth: (478,) float64, relative depth in the same pixel unit, smaller is nearer.
        confidence: [0, 1].
        track_id: Stays the same for one person while in view; a new person gets a new one.
    """

    landmarks_xy: F64
    depth: F64
    confidence: float
    track_id: int


class TrackState(enum.Enum):
    """Where the lost-face state machine is."""

    TRACKED = "tracked"  # found in this frame
    HELD = "held"  # missing for a few frames; the last crop is still used
    LOST = "lost"  # nobody there


@dataclass(frozen=True)
class FaceCrop:
    """A stabilised face in a frame.

    Attributes:
        M_crop_from_frame: (2, 3) float64 similarity; see rt_swap.geometry for the pixel convention.
        state: TRACKED, or HELD when the transform is the last one known.
        face: The face behind it; None while HELD.
        track_id: Whose crop it is.
    """

    M_crop_from_frame: F64
    state: TrackState
    face: TrackedFace | None
    track_id: int


@dataclass(frozen=True)
class Expression:
    """AU tokens over time: one entry for a picture or preset, many for a clip.

    Attributes:
        tokens: (T, K, D) float32.
        aus_lr: (T, K, 2) float32, [left, right], [0, 1].
        times_s: (T,) float64, seconds from the start, ascending; [0.] for a still.
        duration_s: Length of the clip in seconds; 0 for a still.
        name: What it was made from, for messages.
        model_sha256: Hash of the encoder that made it.
        valid: (T,) bool, False where the clip showed no face (tokens of the last valid entry are
            repeated there).
    """

    tokens: F32
    aus_lr: F32
    times_s: F64
    duration_s: float
    name: str
    model_sha256: str
    valid: npt.NDArray[np.bool_] = field(default_factory=lambda: np.ones(1, np.bool_))


class FrameStatus(enum.Enum):
    """What happened to a frame."""

    SWAPPED = "swapped"  # the face has the source's expression
    HELD = "held"  # the same, with the last crop known
    NO_FACE = "no_face"  # nobody to re-express; handled as --on-lost says


@dataclass(frozen=True)
class FrameResult:
    """One frame out.

    Attributes:
        frame: The picture to show; owned by the caller.
        status: What happened.
        crop: The face used, or None.
        target_aus_lr: (K, 2) the target's own intensities before the swap, or None.
        stage_ms: Milliseconds spent in each stage, by name.
        repeats: The picture is an earlier re-expressed one, shown again.
    """

    frame: Frame
    status: FrameStatus
    crop: FaceCrop | None
    target_aus_lr: F32 | None
    stage_ms: dict[str, float]
    repeats: bool = False
