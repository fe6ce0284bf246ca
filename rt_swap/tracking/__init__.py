"""Where the face is: tracker seam, mediapipe behind it, steady crop, and whom to follow.

``MediapipeTracker`` loads mediapipe when it is made, not when this package is imported.
"""

from rt_swap.tracking.follower import FaceChoice, FaceFollower, choose_face
from rt_swap.tracking.landmark_steadier import LandmarkSteadier
from rt_swap.tracking.mediapipe_tracker import MediapipeTracker
from rt_swap.tracking.one_euro import OneEuroFilter
from rt_swap.tracking.protocol import FaceTracker
from rt_swap.tracking.scene_cut import CutDetector
from rt_swap.tracking.stabiliser import HOLD_S, CropStabiliser

__all__ = [
    "HOLD_S",
    "CropStabiliser",
    "CutDetector",
    "FaceChoice",
    "FaceFollower",
    "FaceTracker",
    "LandmarkSteadier",
    "MediapipeTracker",
    "OneEuroFilter",
    "choose_face",
]
