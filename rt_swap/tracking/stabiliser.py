"""The aligned crop's transform without its jitter, and the states of a face that comes and goes.

The transform is filtered in the three quantities that a similarity consists of, each by a One-Euro
filter of its own:

    anchor   where the middle of the template's points lies in the frame, pixels; the fit puts the
             middle of the landmarks exactly there, so it does not shake with scale and angle
    size     natural logarithm of frame pixels per crop pixel
    angle    radians, followed without a break at +-pi

Speeds count in crop sides per second, e-foldings per second and radians per second, so that one
setting serves every resolution and every distance from the camera.

States, with t the time since the face was last seen:

    face seen                     -> TRACKED
    not seen and t <= hold_s      -> HELD, the last transform goes on being used
    otherwise                     -> LOST, no crop; the next face starts afresh
"""

from __future__ import annotations

import math

import numpy as np

from rt_swap.contract import CROP_SIZE_PX, template_xy
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import F64, FaceCrop, TrackedFace, TrackState
from rt_swap.geometry import apply, crop_from_landmarks, invert, roi_of_crop
from rt_swap.tracking.one_euro import OneEuroFilter

HOLD_S = 0.25
"""How long a face may be out of sight before it counts as lost, seconds."""

_NOMINAL_DT_S = 1.0 / 30.0  # used where the time stamps say nothing
_SEEK_S = 0.5  # time running back by more than this is a seek, not a disorder of time stamps
_GAP_S = 1.0  # a longer pause between two pictures leaves nothing to smooth over


class CropStabiliser:
    """Turns one face's landmarks into a steady crop. One object per followed face and thread."""

    def __init__(
        self,
        *,
        hold_s: float = HOLD_S,
        anchor_min_cutoff_hz: float = 1.0,
        anchor_beta: float = 20.0,
        size_min_cutoff_hz: float = 0.8,
        size_beta: float = 8.0,
        angle_min_cutoff_hz: float = 0.8,
        angle_beta: float = 8.0,
        derivative_cutoff_hz: float = 3.0,
        jump_anchor: float = 0.25,
        jump_log_size: float = 0.3,
        jump_angle_rad: float = 0.6,
    ) -> None:
        """Start without a face.

        Args:
            hold_s: How long a face may be out of sight before it counts as lost, seconds, >= 0.
            anchor_min_cutoff_hz: One-Euro cut-off of the anchor at rest.
            anchor_beta: Hertz per (crop side / second) on top.
            size_min_cutoff_hz: The same of the size,
            size_beta: in Hertz per (e-folding / second).
            angle_min_cutoff_hz: The same of the angle,
            angle_beta: in Hertz per (radian / second).
            derivative_cutoff_hz: Cut-off of all derivatives.
            jump_anchor: Distance of a new anchor from the filtered one, in crop sides, that is no
                motion but a jump: the filters start afresh there.
            jump_log_size: The same of the size, natural logarithm.
            jump_angle_rad: The same of the angle.

        Raises:
            ConfigError: If a number is out of range.
        """
        if not (hold_s >= 0 and math.isfinite(hold_s)):
            raise ConfigError(f"CropStabiliser: hold_s must be 0 or more seconds, got {hold_s}")
        self._hold_s = hold_s
        self._anchor, self._size, self._angle = (
            OneEuroFilter(
                min_cutoff_hz=cutoff_hz, beta=beta, derivative_cutoff_hz=derivative_cutoff_hz
            )
            for cutoff_hz, beta in (
                (anchor_min_cutoff_hz, anchor_beta),
                (size_min_cutoff_hz, size_beta),
                (angle_min_cutoff_hz, angle_beta),
            )
        )
        self._jump = (jump_anchor, jump_log_size, jump_angle_rad)
        self._template_middle = template_xy().mean(0)
        self._state = TrackState.LOST
        self._crop: FaceCrop | None = None
        self._raw_angle_rad = 0.0
        self._time_s: float | None = None
        self._last_dt_s = _NOMINAL_DT_S
        self._since_update_s = 0.0  # time since the filters last saw a face

    @property
    def state(self) -> TrackState:
        """Where the state machine is."""
        return self._state

    def reset(self) -> None:
        """Forget the face, as after a cut: LOST, and the next face starts afresh."""
        self._state = TrackState.LOST
        self._crop = None
        self._since_update_s = 0.0
        for one in (self._anchor, self._size, self._angle):
            one.reset()

    def update(
        self, face: TrackedFace | None, time_s: float, frame_hw: tuple[int, int]
    ) -> FaceCrop | None:
        """Take in the next picture.

        Args:
            face: The face in it, or None where it was not found. Another ``track_id`` starts
                afresh.
            time_s: The picture's time in seconds. Steps may vary; one that does not go forward
                counts as long as the last good one, and running back by more than half a second as
                a seek.
            frame_hw: (height, width) of the picture.

        Returns:
            The steady crop, TRACKED or HELD; None where LOST.

        Raises:
            ContractError: If the time is not finite.
        """
        if not math.isfinite(time_s):
            raise ContractError(
                f"CropStabiliser.update: time_s must be a finite number of seconds, got {time_s}"
            )
        self._since_update_s += self._step(time_s)
        measured = None if face is None else self._measure(face, frame_hw)
        if face is None or measured is None:
            return self._miss()

        continues = self._crop is not None and self._crop.track_id == face.track_id
        if not continues or self._since_update_s > _GAP_S:
            self.reset()
        M_crop_from_frame = self._filter(*measured)
        self._since_update_s = 0.0
        self._state = TrackState.TRACKED
        self._crop = FaceCrop(M_crop_from_frame, self._state, face, face.track_id)
        return self._crop

    def _step(self, time_s: float) -> float:
        """Seconds since the last picture, > 0."""
        last_s, self._time_s = self._time_s, time_s
        if last_s is None:
            return _NOMINAL_DT_S
        dt_s = time_s - last_s
        if dt_s < -_SEEK_S:
            self.reset()
        if dt_s <= 0:
            return self._last_dt_s
        self._last_dt_s = min(dt_s, _GAP_S)
        return dt_s

    def _measure(
        self, face: TrackedFace, frame_hw: tuple[int, int]
    ) -> tuple[F64, float, float] | None:
        """Anchor, log size and angle of the landmarks; None where they give no crop here."""
        if not np.isfinite(face.landmarks_xy).all():
            return None
        try:
            M_crop_from_frame = crop_from_landmarks(face.landmarks_xy)
            M_frame_from_crop = invert(M_crop_from_frame)
        except ContractError:
            return None
        x0, y0, x1, y1 = roi_of_crop(M_frame_from_crop, CROP_SIZE_PX, frame_hw)
        if x1 <= x0 or y1 <= y0:
            return None
        real, imag = M_frame_from_crop[0, 0], M_frame_from_crop[1, 0]
        return (
            apply(M_frame_from_crop, self._template_middle),
            math.log(math.hypot(real, imag)),
            math.atan2(imag, real),
        )

    def _filter(self, anchor_xy: F64, log_size: float, angle_rad: float) -> F64:
        """``M_crop_from_frame`` after the filters."""
        last_xy, last_size, last_angle = self._anchor.value, self._size.value, self._angle.value
        if last_xy is not None and last_size is not None and last_angle is not None:
            angle_rad = self._raw_angle_rad + math.remainder(
                angle_rad - self._raw_angle_rad, 2 * math.pi
            )
            side_px = CROP_SIZE_PX * math.exp(float(last_size[0]))
            jumps = (
                float(np.hypot(*(anchor_xy - last_xy))) / side_px,
                abs(log_size - float(last_size[0])),
                abs(angle_rad - float(last_angle[0])),
            )
            if any(jump > limit for jump, limit in zip(jumps, self._jump, strict=True)):
                for one in (self._anchor, self._size, self._angle):
                    one.reset()
        self._raw_angle_rad = angle_rad
        dt_s = self._since_update_s
        log_size = float(self._size.update(np.array([log_size]), dt_s)[0])
        anchor_xy = self._anchor.update(anchor_xy, dt_s, CROP_SIZE_PX * math.exp(log_size))
        angle_rad = float(self._angle.update(np.array([angle_rad]), dt_s)[0])
        return self._compose(anchor_xy, log_size, angle_rad)

    def _compose(self, anchor_xy: F64, log_size: float, angle_rad: float) -> F64:
        scale = math.exp(-log_size)  # crop pixels per frame pixel
        real, imag = scale * math.cos(angle_rad), -scale * math.sin(angle_rad)
        linear = np.array([[real, -imag], [imag, real]])
        offset = self._template_middle - linear @ anchor_xy
        return np.concatenate([linear, offset[:, None]], axis=1)

    def _miss(self) -> FaceCrop | None:
        if self._crop is not None and self._since_update_s <= self._hold_s + 1e-9:
            self._state = TrackState.HELD
            last = self._crop
            return FaceCrop(last.M_crop_from_frame, TrackState.HELD, None, last.track_id)
        self.reset()
        return None
