"""mediapipe's face models behind :class:`rt_swap.tracking.FaceTracker`. The only module that
imports mediapipe.

Two detectors (short and full range) and the landmark network with its attention heads, all from the
wheel. They are driven one by one instead of through ``mediapipe.solutions.face_mesh``, whose graph
hides the presence score, sees faces only within about two metres, lists faces in no particular
order, and runs its detector on every picture that shows fewer faces than asked for.

Per picture: the landmark network looks at where each face is expected; the detectors run where a
face was lost, in the very same picture, and now and then while there is room for another face.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import numpy as np

from rt_swap.errors import BackendUnavailable, ConfigError, ContractError, InferenceError
from rt_swap.frames import F64, U8, TrackedFace
from rt_swap.tracking.identity import FacePlace, IdentityBook, place_of, same_face
from rt_swap.tracking.plausibility import plausibility
from rt_swap.tracking.scene_cut import CutDetector

_log = logging.getLogger(__name__)

_LANDMARK_GRAPH: Final = """
input_stream: "image"
input_stream: "roi"
input_side_packet: "with_attention"
output_stream: "landmarks"
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:roi"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks"
}
"""
_PRESENCE_STREAM: Final = "facelandmarkcpu__face_presence_score"
_PRESENCE_THRESHOLD: Final = "facelandmarkcpu__ThresholdingCalculator.threshold"

_ROI_SCALE: Final = 1.5  # region of interest over face box, as mediapipe's own graphs have it
# The network sees 192 pixels of a face; more picture than this only costs copying.
_MAX_SIDE_PX: Final = 1920
_MIN_FACE_PX: Final = 16.0
# What mediapipe calls x times width counts from the *centre* of the first pixel: its converter
# hands the region's corners to OpenCV as they are. Measured as half the disagreement between a
# picture and the same turned by 180 degrees: (-0.50, -0.45) px whatever the size of the face.
_CENTRE_PX: Final = 0.5
# And the network sees faces a little to the side. Measured as half the disagreement between a
# picture and its mirror image at 5 sizes: 0.26 * (pixels per network pixel) - 0.46, along x of the
# face; what there is along y, no symmetry can tell from the face itself.
_NETWORK_BIAS_PX: Final = 0.26
_NETWORK_SIDE_PX: Final = 192
# Pictures between detector runs while there is room for another face.
_LOOK_AROUND_EVERY: Final = 10
# Pictures during which a lost face is searched for in every picture.
_SEARCH_FOR: Final = 10
# Pictures for which its place is kept when there is none to spare.
_RESERVE_FOR: Final = 5
# Pictures after the start and after a cut in which everybody is looked for.
_ARRIVAL: Final = 3
# Pictures without any face in which both detectors run. After that, and while looking around, they
# take turns: both at once would be felt as a stutter.
_SEARCH_PATIENCE: Final = 2

# What mediapipe, absl and TensorFlow Lite say on every start, to the file descriptor, past every
# logging setting.
_CHATTER: Final = re.compile(
    r"Created TensorFlow Lite XNNPACK delegate"
    r"|All log messages before absl::InitializeLog"
    r"|inference_feedback_manager\.cc.*Feedback manager requires"
    r"|landmark_projection_calculator\.cc.*Using NORM_RECT without IMAGE_DIMENSIONS"
    r"|gl_context(_egl)?\.cc.*(GL version|Successfully initialized EGL)"
)
_stderr_lock = threading.Lock()


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Hold back what native code writes to stderr, drop the known chatter, pass on the rest."""
    with _stderr_lock, contextlib.ExitStack() as stack:
        try:
            saved = os.dup(2)
        except OSError:  # no stderr at all, hence nothing to keep tidy
            yield
            return
        held = stack.enter_context(tempfile.TemporaryFile())
        # sys.stderr may be None or closed
        with contextlib.suppress(AttributeError, ValueError, OSError):
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            kept = [
                line
                for line in held.read().decode(errors="replace").splitlines(keepends=True)
                if not _CHATTER.search(line)
            ]
            if kept:
                with contextlib.suppress(OSError):
                    os.write(2, "".join(kept).encode())


@dataclass(frozen=True)
class _Found:
    """One answer of the landmark network, in pixels of the frame."""

    landmarks_xy: F64
    depth: F64
    confidence: float
    place: FacePlace


@dataclass(frozen=True)
class _Roi:
    """A square region of interest in pixels of the picture mediapipe sees."""

    centre_xy: F64
    side_px: float
    angle_rad: float


class MediapipeTracker:
    """Face-mesh landmarks (468 and 10 of the irises) with sticky ids.

    Costs about one landmark inference per face and picture; detection comes on top only as the
    module's docstring says. One object serves one stream from one thread.
    """

    def __init__(
        self,
        max_faces: int = 1,
        min_confidence: float = 0.5,
        static: bool = False,
    ) -> None:
        """Load the models.

        Args:
            max_faces: How many faces to follow at once, >= 1. When there are more, those already
                followed stay and free places go to the largest.
            min_confidence: Confidence under which a face is not reported, (0, 1).
            static: Treat each picture on its own: detect always, no motion, ids count up.

        Raises:
            ConfigError: If an option is out of range.
            BackendUnavailable: If mediapipe or OpenCV cannot be loaded, or mediapipe lacks its
                models.
        """
        if max_faces < 1:
            raise ConfigError(f"MediapipeTracker: max_faces must be at least 1, got {max_faces}")
        if not 0.0 < min_confidence < 1.0:
            raise ConfigError(
                f"MediapipeTracker: min_confidence must lie between 0 and 1, got {min_confidence}"
            )
        self._max_faces = max_faces
        self._min_confidence = min_confidence
        self._static = static
        self._book = IdentityBook()
        self._cuts = CutDetector()
        self._pictures_since_detection = 0
        self._pictures_empty = 0
        self._pictures_in_scene = 0
        self._turn = 0
        self._frame_hw: tuple[int, int] | None = None
        with _without_chatter():
            self._graphs: _Graphs | None = _Graphs(detection_confidence=min(0.5, min_confidence))

    def detect(self, frame_bgr: U8) -> list[TrackedFace]:
        """See :meth:`rt_swap.tracking.FaceTracker.detect`.

        Raises:
            ContractError: If the picture is not (H, W, 3) uint8, or the tracker is closed.
            InferenceError: If mediapipe fails.
        """
        graphs = self._graphs
        if graphs is None:
            raise ContractError("MediapipeTracker.detect: the tracker is closed; make a new one")
        _check_picture(frame_bgr)
        frame_hw = (frame_bgr.shape[0], frame_bgr.shape[1])
        # another size is another stream, as after a turned phone
        another = frame_hw != self._frame_hw
        self._frame_hw = frame_hw
        if self._static or self._cuts.update(frame_bgr) or another:
            self._book.forget()
            self._pictures_empty = self._pictures_in_scene = 0
        self._pictures_in_scene += 1

        found: list[_Found] = []
        if min(frame_hw) >= _MIN_FACE_PX:
            picture_rgb, shrink = graphs.prepare(frame_bgr)
            found = self._follow(graphs, picture_rgb, shrink, frame_hw)
            found += self._look_around(graphs, picture_rgb, shrink, frame_hw, found)
        self._pictures_empty = 0 if found else self._pictures_empty + 1

        ids = self._book.update([f.landmarks_xy for f in found])
        faces = [
            TrackedFace(f.landmarks_xy, f.depth, f.confidence, track_id)
            for f, track_id in zip(found, ids, strict=True)
        ]
        size_of = {id_: f.place.size_px for id_, f in zip(ids, found, strict=True)}
        return sorted(faces, key=lambda face: -size_of[face.track_id])

    def _follow(
        self, graphs: _Graphs, picture_rgb: U8, shrink: int, frame_hw: tuple[int, int]
    ) -> list[_Found]:
        """Landmarks where each face of the last picture is expected now."""
        found: list[_Found] = []
        for expected_xy in self._book.predictions().values():
            roi = _roi_of_landmarks(expected_xy / shrink)
            face = self._landmarks(graphs, picture_rgb, roi, shrink, frame_hw)
            # two regions may slide onto one face when people pass each other
            if face is not None:
                _keep_distinct(found, face)
        return found

    def _look_around(
        self,
        graphs: _Graphs,
        picture_rgb: U8,
        shrink: int,
        frame_hw: tuple[int, int],
        known: list[_Found],
    ) -> list[_Found]:
        """Faces not yet in ``known``, as far as there is room and it is time to look."""
        room = self._max_faces - len(known)
        searching = (
            len(self._book.predictions()) > len(known) or self._book.missing(_SEARCH_FOR) > 0
        )
        arriving = self._static or self._pictures_in_scene <= _ARRIVAL
        self._pictures_since_detection += 1
        due = self._pictures_since_detection >= _LOOK_AROUND_EVERY
        if room <= 0 or not (arriving or not known or searching or due):
            return []
        self._pictures_since_detection = 0

        urgent = arriving or searching or self._pictures_empty < _SEARCH_PATIENCE
        self._turn = 1 - self._turn
        detectors = (0, 1) if urgent else (self._turn,)
        new: list[_Found] = []
        for roi in graphs.regions(picture_rgb, detectors):
            centre_xy = roi.centre_xy * shrink
            side_px = roi.side_px * shrink / _ROI_SCALE
            box = FacePlace(centre_xy, side_px, roi.angle_rad)
            if any(same_face(box, f.place, 0.5) for f in [*known, *new]):
                continue
            face = self._landmarks(graphs, picture_rgb, roi, shrink, frame_hw)
            if face is not None and not any(same_face(face.place, f.place) for f in known):
                _keep_distinct(new, face)
        # whoever was there before comes first, then the largest; a place just left is kept free for
        # a while
        returning = [f for f in new if self._book.would_match(f.place)][:room]
        newcomers = [f for f in new if not any(f is r for r in returning)]
        newcomers.sort(key=lambda f: -f.place.size_px)
        lost_now = max(len(self._book.predictions()) - len(known), 0)
        reserved = max(lost_now + self._book.missing(_RESERVE_FOR) - len(returning), 0)
        return returning + newcomers[: max(room - len(returning) - reserved, 0)]

    def _landmarks(
        self,
        graphs: _Graphs,
        picture_rgb: U8,
        roi: _Roi,
        shrink: int,
        frame_hw: tuple[int, int],
    ) -> _Found | None:
        if not (math.isfinite(roi.side_px) and roi.side_px >= 1.0):
            return None
        points, presence = graphs.landmarks(picture_rgb, roi)
        if points is None or presence < self._min_confidence:
            return None
        points *= shrink
        landmarks_xy = np.ascontiguousarray(points[:, :2])
        confidence = presence * plausibility(landmarks_xy, frame_hw, _MIN_FACE_PX)
        if confidence < self._min_confidence:
            return None
        return _Found(landmarks_xy, points[:, 2].copy(), confidence, place_of(landmarks_xy))

    def close(self) -> None:
        """Free mediapipe's graphs; may be called again."""
        graphs, self._graphs = self._graphs, None
        if graphs is not None:
            graphs.close()

    def __enter__(self) -> MediapipeTracker:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Graphs:
    """mediapipe's graphs, called one region at a time."""

    def __init__(self, detection_confidence: float) -> None:
        try:
            import cv2
            from mediapipe.framework.formats import rect_pb2
            from mediapipe.python import solution_base
            from mediapipe.python.solutions import face_detection, face_mesh  # noqa: F401
        except ImportError as exc:
            raise BackendUnavailable(
                f"face tracking needs mediapipe and OpenCV, and one cannot be imported ({exc}); "
                "install mediapipe 0.10.14 to 0.10.21: pip install 'mediapipe<=0.10.21'"
            ) from exc
        self._cv2: Any = cv2
        self._new_rect: Any = rect_pb2.NormalizedRect
        self._open: list[Any] = []
        try:
            self._landmark_graph: Any = solution_base.SolutionBase(
                graph_config=_LANDMARK_GRAPH,
                side_inputs={"with_attention": True},
                # the score decides here, not inside the graph, where a face below it would vanish
                # without a trace
                calculator_params={_PRESENCE_THRESHOLD: 0.0},
                outputs=["landmarks", _PRESENCE_STREAM],
                stream_type_hints={_PRESENCE_STREAM: solution_base.PacketDataType.FLOAT},
            )
            self._open.append(self._landmark_graph)
            self._detectors: list[Any] = []
            for model_selection in (0, 1):
                detector = face_detection.FaceDetection(
                    min_detection_confidence=detection_confidence, model_selection=model_selection
                )
                self._open.append(detector)
                self._detectors.append(detector)
            # the first run finishes loading, and what is said then belongs to the start
            blank = np.zeros((64, 64, 3), np.uint8)
            self.landmarks(blank, _Roi(np.array([32.0, 32.0]), 64.0, 0.0))
            self.regions(blank, (0, 1))
        except (RuntimeError, ValueError, FileNotFoundError, InferenceError) as exc:
            self.close()
            raise BackendUnavailable(
                f"mediapipe's face models cannot be started: {exc}; releases after 0.10.21 no "
                "longer ship them, install one that does: pip install 'mediapipe<=0.10.21'"
            ) from exc

    def prepare(self, frame_bgr: U8) -> tuple[U8, int]:
        """The RGB picture for mediapipe, and the whole factor by which the frame is larger."""
        shrink = -(-max(frame_bgr.shape[:2]) // _MAX_SIDE_PX)
        # A whole factor keeps the middle of each block of pixels its middle (and costs a fifth of
        # averaging the block; mediapipe samples without averaging as well). At most factor - 1 rows
        # and columns at the far edge are left out.
        height, width = (max(side // shrink, 1) for side in frame_bgr.shape[:2])
        if shrink > 1:
            frame_bgr = self._cv2.resize(
                frame_bgr[: height * shrink, : width * shrink],
                (width, height),
                interpolation=self._cv2.INTER_LINEAR,
            )
        return self._cv2.cvtColor(frame_bgr, self._cv2.COLOR_BGR2RGB), shrink

    def landmarks(self, picture_rgb: U8, roi: _Roi) -> tuple[F64 | None, float]:
        """(478, 3) x, y, depth in the picture's pixels, or None, and the presence score."""
        height, width = picture_rgb.shape[:2]
        rect = self._new_rect(
            x_center=float(roi.centre_xy[0]) / width,
            y_center=float(roi.centre_xy[1]) / height,
            width=roi.side_px / width,
            height=roi.side_px / height,
            rotation=roi.angle_rad,
        )
        answer = self._run(self._landmark_graph, {"image": picture_rgb, "roi": rect})
        score = getattr(answer, _PRESENCE_STREAM)
        if answer.landmarks is None or score is None:
            return None, 0.0 if score is None else float(score)
        flat = [value for p in answer.landmarks.landmark for value in (p.x, p.y, p.z)]
        # depth is in units of the picture's width, like x
        points = np.array(flat, np.float64).reshape(-1, 3) * (width, height, width)
        roi_px = roi.side_px / _NETWORK_SIDE_PX
        points[:, 0] += _CENTRE_PX - _NETWORK_BIAS_PX * roi_px * math.cos(roi.angle_rad)
        points[:, 1] += _CENTRE_PX - _NETWORK_BIAS_PX * roi_px * math.sin(roi.angle_rad)
        return points, float(score)

    def regions(self, picture_rgb: U8, detectors: tuple[int, ...]) -> list[_Roi]:
        """Where the detectors see faces, the best score first."""
        height, width = picture_rgb.shape[:2]
        scored: list[tuple[float, _Roi]] = []
        for index in detectors:
            answer = self._run(self._detectors[index], picture_rgb)
            for detection in answer.detections or ():
                box = detection.location_data.relative_bounding_box
                right_eye, left_eye = detection.location_data.relative_keypoints[:2]
                angle_rad = math.atan2(
                    (left_eye.y - right_eye.y) * height, (left_eye.x - right_eye.x) * width
                )
                centre_xy = np.array(
                    [(box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height]
                )
                side_px = _ROI_SCALE * max(box.width * width, box.height * height)
                scored.append((float(detection.score[0]), _Roi(centre_xy, side_px, angle_rad)))
        return [roi for _, roi in sorted(scored, key=lambda pair: -pair[0])]

    @staticmethod
    def _run(graph: Any, inputs: Any) -> Any:
        try:
            return graph.process(inputs)
        except (RuntimeError, ValueError) as exc:
            raise InferenceError(f"mediapipe failed on a picture: {exc}") from exc

    def close(self) -> None:
        """Close every graph that was opened."""
        while self._open:
            with contextlib.suppress(RuntimeError, ValueError):
                self._open.pop().close()


def _check_picture(frame_bgr: U8) -> None:
    is_array = isinstance(frame_bgr, np.ndarray)
    actual = f"{frame_bgr.dtype} {frame_bgr.shape}" if is_array else type(frame_bgr).__name__
    if (
        not is_array
        or frame_bgr.dtype != np.uint8
        or frame_bgr.ndim != 3
        or frame_bgr.shape[2] != 3
        or 0 in frame_bgr.shape
    ):
        raise ContractError(
            "MediapipeTracker.detect: frame_bgr must be uint8 (H, W, 3) and not empty, "
            f"got {actual}; pass the frame as the camera gave it",
            expected="uint8 (H, W, 3)",
            actual=actual,
        )


def _roi_of_landmarks(landmarks_xy: F64) -> _Roi:
    """The square that mediapipe's own graphs take: the box of the landmarks, enlarged."""
    low, high = landmarks_xy.min(0), landmarks_xy.max(0)
    side_px = _ROI_SCALE * float((high - low).max())
    return _Roi((low + high) / 2, side_px, place_of(landmarks_xy).angle_rad)


def _keep_distinct(found: list[_Found], face: _Found) -> None:
    """Add a face, or let the more confident one stand where two are one."""
    for i, other in enumerate(found):
        if same_face(face.place, other.place):
            if face.confidence > other.confidence:
                found[i] = face
            return
    found.append(face)
