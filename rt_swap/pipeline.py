"""One frame's way through the house, as a straight line: track, stabilise, crop, generate, compose.

No threads in here. ``process`` runs the whole line; ``rt_swap.stream`` runs the three parts that it
is made of on threads of their own, ``track`` (with stabilise and crop), ``generate`` and
``compose``, each part on one thread and all frames in order. Where the backend's session is a
FusedSession, ``generate`` crops and composes too, on the GPU, and ``compose`` puts the piece in.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import numpy as np

from rt_swap import geometry, ops
from rt_swap.aus import NUM_AUS
from rt_swap.backends.base import Backend, Composed, FusedSession, Session
from rt_swap.config import MODES, ON_LOST
from rt_swap.contract import CROP_SIZE_PX, ENCODER_SPEC, GENERATOR_SPEC, TOKEN_DIM
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import F32, F64, U8, FaceCrop, Frame, FrameResult, FrameStatus, TrackState
from rt_swap.io.pixels import blurred
from rt_swap.metrics import stage
from rt_swap.model import ModelBundle
from rt_swap.tracking import LandmarkSteadier

_MAPS = ("flow_xy", "keep", "fill_rgb", "shade")


class Follower(Protocol):
    """What the pipeline needs of :class:`rt_swap.tracking.FaceFollower`."""

    def follow(self, frame: Frame) -> FaceCrop | None:
        """The followed person's crop in the next frame, or None."""
        ...

    def reset(self) -> None:
        """Forget whom to follow."""
        ...


class _Buffers:
    """What one frame needs on its way; used again for another frame when it has arrived."""

    def __init__(self) -> None:
        self.target_rgb: F32 = np.empty(GENERATOR_SPEC.inputs[0].shape, np.float32)
        self.maps: dict[str, F32] = {
            spec.name: np.empty(spec.shape, np.float32)
            for spec in GENERATOR_SPEC.outputs
            if spec.name in _MAPS
        }


@dataclass
class Work:
    """One frame between the parts of the line.

    Attributes:
        frame: The frame as it came.
        crop: The face in it, or None.
        landmarks_xy: (478, 2) of that face, pixels of the crop, or None.
        swaps: True once there are instructions to carry out.
        composed: They are carried out already: what a fused session made.
        target_aus_lr: (K, 2) the target's own intensities, or None.
        target_tokens: (K, D) the target's own tokens, or None.
        stage_ms: Milliseconds by stage so far.
    """

    frame: Frame
    crop: FaceCrop | None
    buffers: _Buffers | None
    landmarks_xy: F32 | None = None
    swaps: bool = False
    composed: Composed | None = None
    target_aus_lr: F32 | None = None
    target_tokens: F32 | None = None
    stage_ms: dict[str, float] = field(default_factory=dict)


class Pipeline:
    """Re-expresses the followed face of one stream of frames.

    Args:
        bundle: The model.
        backend: What runs it.
        follower: Finds and follows the face; the caller closes its tracker.
        on_lost: What is shown while there is no face, or no expression to give it: "passthrough"
            (the frame itself), "hold" (the last picture shown; the frame itself before there was
            one) or "blur" (the frame, blurred beyond recognition).
        threads: CPU threads per network run and native pass; 0 chooses.
        session: A loaded target generator, to share one among pipelines that run in turn; None
            loads one.

    Raises:
        ConfigError: If on_lost is unknown.
        BackendError: If the model cannot be loaded.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        backend: Backend,
        follower: Follower,
        *,
        on_lost: str = "passthrough",
        threads: int = 0,
        session: Session | None = None,
    ) -> None:
        if on_lost not in ON_LOST:
            raise ConfigError(f"--on-lost: must be one of {', '.join(ON_LOST)}, got {on_lost!r}")
        self._follower = follower
        self._on_lost = on_lost
        self._threads = threads
        self._owns_session = session is None
        self._session = session or backend.load(bundle.generator_path, GENERATOR_SPEC, threads)
        # a GPU's session crops and composes where the network runs
        self._fused = self._session if isinstance(self._session, FusedSession) else None
        self._feather = ops.feather(CROP_SIZE_PX)
        self._free: queue.SimpleQueue[_Buffers] = queue.SimpleQueue()
        self._ones = np.ones((1, NUM_AUS), np.float32)
        self._zeros = np.zeros((1, NUM_AUS), np.float32)
        self._no_tokens = np.zeros((1, NUM_AUS, TOKEN_DIM), np.float32)
        self._shown: U8 | None = None
        self._points: tuple[int, F32] | None = None  # the last face's, and whose they are
        self._steadier = LandmarkSteadier()

    # --- the line ---
    def process(
        self,
        frame: Frame,
        tokens: F32 | None,
        gains: F32 | None = None,
        mode: str = "absolute",
        neutral_tokens: F32 | None = None,
    ) -> FrameResult:
        """Take one frame from end to end.

        Args:
            frame: The next frame; times ascend. Not changed.
            tokens: (K, D) the source's expression now; None means there is none, and ``on_lost``
                decides what is shown.
            gains: (K,) per AU, 0 keeps the target's own; None is 1 everywhere.
            mode: "absolute" or "relative".
            neutral_tokens: (K, D) the source's resting face; needed by "relative".

        Returns:
            The picture and what happened; its array belongs to the caller and is never the frame's
            own.

        Raises:
            ContractError: If an array has the wrong shape or type.
            ConfigError: If the mode is unknown or "relative" lacks the resting face.
            InferenceError: If the network fails.
        """
        work = self.track(frame)
        self.generate(work, tokens, gains, mode, neutral_tokens)
        return self.compose(work)

    # --- its three parts ---
    def track(self, frame: Frame) -> Work:
        """Find the face, steady its crop and cut it out."""
        stage_ms: dict[str, float] = {}
        with stage(stage_ms, "track"):
            crop = self._follower.follow(frame)
        if crop is None or crop.state is TrackState.LOST:
            return Work(frame, None, None, stage_ms=stage_ms)
        landmarks_xy = self._landmarks(crop, frame.time_s)
        if landmarks_xy is None:
            return Work(frame, None, None, stage_ms=stage_ms)
        if self._fused is not None:
            return Work(frame, crop, None, landmarks_xy, stage_ms=stage_ms)
        buffers = self._take_buffers()
        with stage(stage_ms, "crop"):
            M_frame_from_crop = geometry.invert(crop.M_crop_from_frame)
            ops.crop_rgb(
                frame.frame_bgr, M_frame_from_crop, CROP_SIZE_PX, buffers.target_rgb, self._threads
            )
        return Work(frame, crop, buffers, landmarks_xy, stage_ms=stage_ms)

    def generate(
        self,
        work: Work,
        tokens: F32 | None,
        gains: F32 | None = None,
        mode: str | float = "absolute",
        neutral_tokens: F32 | None = None,
    ) -> Work:
        """Run the network; arguments as for :meth:`process`, where ``mode`` may also be a number
        between 0, absolute, and 1, relative: that mixture of the two. Returns ``work``, with the
        instructions in it.
        """
        if isinstance(mode, str):
            if mode not in MODES:
                raise ConfigError(f"--mode: must be one of {', '.join(MODES)}, got {mode!r}")
            mode = float(MODES.index(mode))
        relative = mode
        if relative > 0 and neutral_tokens is None:
            raise ConfigError("--mode relative: needs the source's resting face; pass --neutral")
        if work.crop is None:
            return work
        assert work.landmarks_xy is not None
        inputs = {
            "landmarks_xy": work.landmarks_xy[None],
            "source_tokens": self._no_tokens if tokens is None else _row("tokens", tokens),
            "base_tokens": self._no_tokens
            if neutral_tokens is None
            else _row("neutral_tokens", neutral_tokens),
            # nothing to give: the network still reads the target's own intensities
            "gains": self._zeros
            if tokens is None
            else self._ones
            if gains is None
            else _row("gains", gains),
            "relative": np.full((1, 1), relative, np.float32),
        }
        with stage(work.stage_ms, "generate"):
            if work.buffers is not None:
                outputs = self._session.run({"target_rgb": work.buffers.target_rgb, **inputs})
                for name, buffer in work.buffers.maps.items():
                    np.copyto(buffer, outputs[name])  # the next run overwrites the session's own
            else:
                assert self._fused is not None
                work.composed = self._fused.swap(
                    work.frame.frame_bgr,
                    work.crop.M_crop_from_frame,
                    inputs,
                    compose=tokens is not None,
                )
                outputs = work.composed.outputs
        work.target_aus_lr = outputs["aus_lr"][0].copy()
        work.target_tokens = outputs["tokens"][0].copy()
        work.swaps = tokens is not None
        return work

    def compose(self, work: Work, *, in_place: bool = False) -> FrameResult:
        """Carry the instructions out.

        Args:
            work: From :meth:`generate`; it is used up.
            in_place: Write into the frame's own array, which saves a copy of the whole picture. For
                callers that own it.
        """
        frame, crop, buffers = work.frame, work.crop, work.buffers
        repeats = False
        with stage(work.stage_ms, "compose"):
            if crop is not None and work.swaps:
                if work.composed is not None:
                    picture = self._pasted(frame.frame_bgr, work.composed, in_place)
                else:
                    assert buffers is not None
                    picture = self._composed(frame.frame_bgr, crop, buffers, in_place)
                held = crop.state is TrackState.HELD
                status = FrameStatus.HELD if held else FrameStatus.SWAPPED
                if self._on_lost == "hold":
                    self._remember(picture)
            else:
                picture, repeats = self._lost(frame.frame_bgr, in_place)
                status = FrameStatus.NO_FACE
        if buffers is not None:
            work.buffers = None
            self._free.put(buffers)
        if work.composed is not None:
            work.composed.release()
            work.composed = None
        shown = Frame(picture, frame.pts, frame.time_base, frame.captured_s)
        return FrameResult(shown, status, crop, work.target_aus_lr, work.stage_ms, repeats)

    # --- helpers ---
    def _landmarks(self, crop: FaceCrop, time_s: float) -> F32 | None:
        """(478, 2) pixels of the crop: the face's, steadied, or while it is held those it had
        last, as its crop is the last one; None where it never had any.
        """
        if crop.face is not None:
            there = geometry.apply(crop.M_crop_from_frame, crop.face.landmarks_xy)
            there = self._steadier.update(there, crop.track_id, time_s)
            self._points = crop.track_id, there.astype(np.float32)
        if self._points is None or self._points[0] != crop.track_id:
            return None
        return self._points[1]

    def _take_buffers(self) -> _Buffers:
        try:
            return self._free.get_nowait()
        except queue.Empty:  # only until as many exist as frames are on their way
            return _Buffers()

    def _composed(self, frame_bgr: U8, crop: FaceCrop, buffers: _Buffers, in_place: bool) -> U8:
        maps = buffers.maps
        arguments = (maps["flow_xy"], maps["keep"], maps["fill_rgb"], maps["shade"], self._feather)
        if not in_place or not frame_bgr.flags.writeable:
            return ops.compose_bgr(
                frame_bgr, crop.M_crop_from_frame, *arguments, None, None, self._threads
            )
        # all that is read lies in the crop's box, widened by the longest flow; that part is copied
        # and read from
        x0, y0, x1, y1 = self._reach(crop.M_crop_from_frame, maps["flow_xy"], frame_bgr)
        if x1 <= x0 or y1 <= y0:
            return frame_bgr
        M_crop_from_part = geometry.compose(
            crop.M_crop_from_frame, np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]])
        )
        part = frame_bgr[y0:y1, x0:x1]
        ops.compose_bgr(part.copy(), M_crop_from_part, *arguments, None, part, self._threads)
        return frame_bgr

    @staticmethod
    def _pasted(frame_bgr: U8, composed: Composed, in_place: bool) -> U8:
        picture = frame_bgr if in_place and frame_bgr.flags.writeable else frame_bgr.copy()
        x0, y0, x1, y1 = composed.box_xyxy
        picture[y0:y1, x0:x1] = composed.roi_bgr
        return picture

    @staticmethod
    def _reach(M_crop_from_frame: F64, flow_xy: F32, frame_bgr: U8) -> tuple[int, int, int, int]:
        M_frame_from_crop = geometry.invert(M_crop_from_frame)
        height, width = frame_bgr.shape[:2]
        x0, y0, x1, y1 = geometry.roi_of_crop(M_frame_from_crop, CROP_SIZE_PX, (height, width))
        if x1 <= x0 or y1 <= y0:
            return 0, 0, 0, 0
        longest = max(float(flow_xy.max()), -float(flow_xy.min())) * np.sqrt(2.0)
        if not np.isfinite(longest):
            return 0, 0, width, height
        margin = int(np.ceil(longest * geometry.scale_of(M_frame_from_crop))) + 2
        return (
            max(x0 - margin, 0),
            max(y0 - margin, 0),
            min(x1 + margin, width),
            min(y1 + margin, height),
        )

    def _remember(self, picture_bgr: U8) -> None:
        if self._shown is None or self._shown.shape != picture_bgr.shape:
            self._shown = np.empty_like(picture_bgr)
        np.copyto(self._shown, picture_bgr)

    def _lost(self, frame_bgr: U8, in_place: bool) -> tuple[U8, bool]:
        """What on_lost shows, and whether it is an earlier picture."""
        if self._on_lost == "blur":
            return blurred(frame_bgr), False
        if self._shown is not None and self._shown.shape == frame_bgr.shape:
            return self._shown.copy(), True
        return (frame_bgr if in_place else frame_bgr.copy()), False

    # --- lifetime ---
    def reset(self) -> None:
        """Begin another stream: forget whom to follow and what was shown."""
        self._follower.reset()
        self._steadier = LandmarkSteadier()
        self._shown = None
        self._points = None

    def close(self) -> None:
        """Release the network, where this pipeline loaded it; harmless when done twice."""
        if self._owns_session:
            self._session.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _row(name: str, values: F32) -> F32:
    """Add the batch axis; the session checks the shape."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        kind = getattr(values, "dtype", type(values).__name__)
        raise ContractError(
            f"Pipeline.generate: {name} must be a float32 array, got {kind}",
            expected="float32 array",
            actual=str(kind),
        )
    return values[None]


class AuMeter:
    """Reads AU intensities off a composed picture with the expression encoder, to tell what was
    achieved.

    Args:
        session: A loaded expression encoder; the caller closes it.
        threads: CPU threads for the crop; 0 chooses.
    """

    def __init__(self, session: Session, threads: int = 0) -> None:
        self._session, self._threads = session, threads
        self._crop_rgb = np.empty(ENCODER_SPEC.inputs[0].shape, np.float32)

    def read(self, picture_bgr: U8, crop: FaceCrop) -> F32:
        """Intensities of the face in a crop.

        Args:
            picture_bgr: (H, W, 3) uint8.
            crop: Where the face is.

        Returns:
            (K, 2) float32, [left, right], [0, 1].
        """
        M_frame_from_crop = geometry.invert(crop.M_crop_from_frame)
        ops.crop_rgb(picture_bgr, M_frame_from_crop, CROP_SIZE_PX, self._crop_rgb, self._threads)
        aus_lr = self._session.run({"source_rgb": self._crop_rgb})["aus_lr"]
        return np.array(aus_lr[0], np.float32)
