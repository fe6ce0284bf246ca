"""Chooses one person and follows them: what the pipeline calls once per frame."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Literal

from rt_swap.errors import ConfigError
from rt_swap.frames import FaceCrop, Frame, TrackedFace, TrackState
from rt_swap.tracking.identity import place_of
from rt_swap.tracking.protocol import FaceTracker
from rt_swap.tracking.scene_cut import CutDetector
from rt_swap.tracking.stabiliser import HOLD_S, CropStabiliser

_log = logging.getLogger(__name__)

RIVAL_SIZE: Final = 1.5
"""A face so much larger than the followed one is who is meant ..."""
RIVAL_S: Final = 1.0
"""... once it has been so for so long."""

FaceChoice = Literal["largest"] | int


def check_choice(face: FaceChoice) -> None:
    """Refuse what :func:`choose_face` cannot read.

    Raises:
        ConfigError: If ``face`` is neither "largest" nor a whole number of 0 or more.
    """
    if face == "largest" or (isinstance(face, int) and not isinstance(face, bool) and face >= 0):
        return
    raise ConfigError(
        "face must be 'largest' or a number counted from the left, 0 being the leftmost face; "
        f"got {face!r}"
    )


def choose_face(faces: Sequence[TrackedFace], face: FaceChoice = "largest") -> TrackedFace | None:
    """Pick one of the faces in a picture.

    Args:
        faces: What a tracker found, in any order.
        face: "largest", or a position counted from the left of the picture, 0 being the leftmost.

    Returns:
        The face, or None where there are too few.

    Raises:
        ConfigError: If ``face`` is neither.
    """
    check_choice(face)
    if isinstance(face, int):
        from_left = sorted(faces, key=lambda f: float(place_of(f.landmarks_xy).centre_xy[0]))
        return from_left[face] if face < len(from_left) else None
    return max(faces, key=lambda f: place_of(f.landmarks_xy).size_px, default=None)


class FaceFollower:
    """One person, followed through a stream with a steady crop.

    The person is chosen once. Whoever else comes, grows larger or changes places, the choice stays
    as long as the tracker knows the person; it is made anew when they are LOST, or at once after a
    cut that took them away. In a live picture (``prefers_larger``) that would leave out who sits
    down in front of a poster, or comes back after a passer-by was chosen: there a face that is
    RIVAL_SIZE times as large for RIVAL_S takes the choice. One object serves one stream from one
    thread. The tracker belongs to the caller, who closes it.
    """

    def __init__(
        self,
        tracker: FaceTracker,
        face: FaceChoice = "largest",
        hold_s: float = HOLD_S,
        *,
        stabiliser: CropStabiliser | None = None,
        prefers_larger: bool = False,
    ) -> None:
        """Start without a choice.

        Args:
            tracker: Finds the faces. To choose among several it must be made to follow several.
            face: Whom to choose, see :func:`choose_face`.
            hold_s: How long the person may be out of sight before they count as lost, seconds.
            stabiliser: One with other settings; ``hold_s`` is then the stabiliser's own.
            prefers_larger: Whether a much larger face takes the choice; without a meaning where
                ``face`` is a number. The tracker must follow two faces at least.

        Raises:
            ConfigError: If ``face`` or ``hold_s`` is out of range.
        """
        check_choice(face)
        self._tracker = tracker
        self._face = face
        self._stabiliser = stabiliser or CropStabiliser(hold_s=hold_s)
        self._cuts = CutDetector()
        self._faces: list[TrackedFace] = []
        self._track_id: int | None = None
        self._prefers_larger = prefers_larger and face == "largest"
        self._rival: tuple[int, float] | None = None  # who, and since when

    @property
    def faces(self) -> list[TrackedFace]:
        """Everybody in the last frame, the largest first."""
        return self._faces

    @property
    def state(self) -> TrackState:
        """Of the person followed."""
        return self._stabiliser.state

    @property
    def track_id(self) -> int | None:
        """Who is followed; None before anybody was chosen and after they were lost."""
        return self._track_id

    def reset(self) -> None:
        """Forget whom to follow, as when the stream starts over."""
        self._stabiliser.reset()
        self._cuts.reset()
        self._faces = []
        self._track_id = None
        self._rival = None

    def follow(self, frame: Frame) -> FaceCrop | None:
        """Find the followed person in the next frame.

        Args:
            frame: Frames must come in order of time; their own time stamps are used.

        Returns:
            Their crop: TRACKED, or HELD over a short loss; None where nobody is there (LOST).

        Raises:
            ContractError: If the frame's picture is not (H, W, 3) uint8.
        """
        faces = self._tracker.detect(frame.frame_bgr)
        self._faces = sorted(faces, key=lambda f: -place_of(f.landmarks_xy).size_px)
        if self._cuts.update(frame.frame_bgr):
            # what was smoothed or held belongs to the scene before
            self._stabiliser.reset()
        person = next((f for f in self._faces if f.track_id == self._track_id), None)
        if person is not None and self._outgrown(person, frame.time_s):
            person, self._track_id = self._faces[0], self._faces[0].track_id
            self._stabiliser.reset()
            _log.info("a much larger face is in view; following that one now")
        frame_hw = (frame.frame_bgr.shape[0], frame.frame_bgr.shape[1])
        crop = self._stabiliser.update(person, frame.time_s, frame_hw)
        if crop is not None:
            return crop

        # nobody chosen yet, or lost: choose now, in this very frame
        self._track_id = None
        person = choose_face(self._faces, self._face)
        if person is None:
            return None
        self._track_id = person.track_id
        if len(self._faces) > 1:
            _log.info(
                "%d faces are in view; following %s, as long as it stays",
                len(self._faces),
                "the largest" if self._face == "largest" else f"number {self._face} from the left",
            )
        return self._stabiliser.update(person, frame.time_s, frame_hw)

    def _outgrown(self, person: TrackedFace, time_s: float) -> bool:
        """Whether another face has been much larger than the followed one for long enough."""
        largest = self._faces[0]
        if not self._prefers_larger or largest is person:
            self._rival = None
            return False
        sizes = [place_of(face.landmarks_xy).size_px for face in (largest, person)]
        if sizes[0] < RIVAL_SIZE * sizes[1]:
            self._rival = None
            return False
        if self._rival is None or self._rival[0] != largest.track_id or time_s < self._rival[1]:
            self._rival = (largest.track_id, time_s)
        if time_s - self._rival[1] < RIVAL_S:
            return False
        self._rival = None
        return True
