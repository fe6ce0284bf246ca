"""The Python API: load a model once, encode sources, re-express frames or whole files.

from rt_swap import Swapper

with Swapper.load() as swapper:
    smile = swapper.encode("smile.jpg")
    result = swapper.process(frame_bgr, smile, gains="brows=0.5,mouth=1")
    swapper.reenact("target.mp4", smile, "out.mp4")
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from rt_swap import expression as expressions
from rt_swap import stream
from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.backends import Backend, Session, get_backend
from rt_swap.config import MODES, ON_LOST, SOURCE_TIMINGS
from rt_swap.contract import ENCODER_SPEC, GENERATOR_SPEC
from rt_swap.errors import ConfigError, ContractError, ExpressionError, SourceError
from rt_swap.expression import ExpressionCache
from rt_swap.expression.files import SUFFIX as EXPRESSION_SUFFIX
from rt_swap.frames import F32, F64, U8, Expression, Frame, FrameResult, FrameStatus, TrackState
from rt_swap.io.base import FrameSink
from rt_swap.io.picture import is_still_picture, read_picture
from rt_swap.io.pixels import scaled
from rt_swap.io.still import STILL_SUFFIXES, StillWriter
from rt_swap.io.video import VideoInfo, VideoReader, VideoWriter
from rt_swap.metrics import Metrics, stage
from rt_swap.model import ModelBundle, load_bundle, sha256_of
from rt_swap.pipeline import AuMeter, Pipeline, Work
from rt_swap.provenance.manifest import Sealer
from rt_swap.provenance.marker import Marker
from rt_swap.provenance.marks import Marks
from rt_swap.tracking import FaceFollower, FaceTracker, MediapipeTracker

logger = logging.getLogger(__name__)

FaceChoice = str | int
GainsLike = str | float | Mapping[str, float] | npt.NDArray[np.float32] | None
MakeTracker = Callable[[int, bool], FaceTracker]
"""(faces to follow at once, whether each picture stands alone) -> tracker."""
Progress = Callable[[int, int | None], None]
"""(frames done, frames in all, estimated where the file does not say, or None): called after each
frame."""

_SEVERAL: Final = 4
"""Faces followed at once where one is to be chosen by position."""
_MAX_COMPARE_WIDTH: Final = 7680
_AU_SAMPLES_PER_S: Final = 2
_TIME_SLACK_S: Final = 1e-6
"""Rounding of times in floating point must not cost a frame."""
_ARRAY_TIME_BASE: Final = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Summary:
    """What :meth:`Swapper.reenact` did.

    Attributes:
        target: The target file.
        source: What gave the expression.
        output: The file written.
        model: Name of the model.
        backend: What ran it.
        frames_in: Frames taken from the target.
        frames_out: Frames written.
        statuses: Frames by what happened to them: "swapped", "held", "no_face".
        width: Of the output, pixels.
        height: Of the output, pixels.
        duration_s: From the first frame to the end of the last one.
        audio: Whether sound was copied.
        metrics: fps, stage and age percentiles; see rt_swap.metrics.
        aus_source: Mean intensity of the source, by AU.
        aus_before: Mean intensity of the target over the re-expressed frames, by AU; empty where
            there were none.
        aus_after: The same, read off the output in two frames a second.
        face_found: False where not one frame showed a face.
        damage: One sentence about a damaged target, or None.
        interrupted: True where Ctrl-C ended it early; the file is complete up to there.
        marks: Which marks the output carries, and why one is missing; see rt_swap.provenance.
    """

    target: str
    source: str
    output: str
    model: str
    backend: str
    frames_in: int
    frames_out: int
    statuses: dict[str, int]
    width: int
    height: int
    duration_s: float
    audio: bool
    metrics: dict[str, object]
    aus_source: dict[str, float]
    aus_before: dict[str, float]
    aus_after: dict[str, float]
    face_found: bool
    damage: str | None
    interrupted: bool
    marks: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain values for json.dumps."""
        values = dict(self.__dict__)
        values.update(values.pop("metrics"))
        return values


class ReenactInterrupted(KeyboardInterrupt):
    """Ctrl-C came during a reenactment; the output is complete up to there.

    Attributes:
        summary: What was done until then.
    """

    def __init__(self, summary: Summary) -> None:
        super().__init__(f"stopped after {summary.frames_out} frames; {summary.output} is complete")
        self.summary = summary


def _mediapipe(max_faces: int, static: bool) -> FaceTracker:
    return MediapipeTracker(max_faces=max_faces, static=static)


class Swapper:
    """A loaded model with everything around it. Use from one thread; a context manager.

    Args:
        bundle: The model.
        backend: What runs it.
        face: Whose face in a source: "largest", or a number counted from the left, 0 being the
            leftmost.
        target_face: Whose face in the target: the same.
        threads: CPU threads per network run; 0 chooses.
        on_lost: What is shown while nobody is there: "passthrough", "hold" or "blur".
        cache: Where encoded sources are kept.
        make_tracker: Makes face trackers; mediapipe where not given.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        backend: Backend,
        *,
        face: FaceChoice = "largest",
        target_face: FaceChoice = "largest",
        threads: int = 0,
        on_lost: str = "passthrough",
        cache: ExpressionCache | None = None,
        make_tracker: MakeTracker = _mediapipe,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self._face = _face_choice("face", face)
        self._target_face = _face_choice("target_face", target_face)
        self._threads = threads
        self._on_lost = _one_of("on_lost", on_lost, ON_LOST)
        self._cache = cache if cache is not None else ExpressionCache(None)
        self._make_tracker = make_tracker
        self._closing = contextlib.ExitStack()
        self._encoder_session: Session | None = None
        self._generator_session: Session | None = None
        self._still_tracker: FaceTracker | None = None
        self._live: Pipeline | None = None
        self._first_time_s: float | None = None
        self._last_pts = -1
        self._parsed: dict[object, F32] = {}
        self._neutral: tuple[Expression, Expression | None, F32] | None = None

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        backend: str = "auto",
        *,
        face: FaceChoice = "largest",
        target_face: FaceChoice = "largest",
        threads: int = 0,
        on_lost: str = "passthrough",
        cache: str | Path | Literal["default"] | None = "default",
    ) -> Swapper:
        """Load a model.

        Args:
            model: Folder of a model bundle, or the name of an installed one, such as "nano"; None
                takes what RT_SWAP_MODEL names, else the default one.
            backend: "auto" or the name of one; a named one is never replaced by another.
            face: Whose face in a source; see Swapper.
            target_face: Whose face in the target; see Swapper.
            threads: CPU threads per network run; 0 chooses.
            on_lost: "passthrough", "hold" or "blur".
            cache: Folder of encoded sources; "default" is the user's cache folder, None keeps them
                in memory only.

        Raises:
            ModelFileError: If the model is missing or damaged.
            BackendUnavailable: If the backend cannot run here.
            ConfigError: If an option is wrong.
        """
        folder = None
        if cache is not None:
            folder = expressions.cache_dir(None if cache == "default" else cache)
        return cls(
            load_bundle(Path(model) if model is not None else None),
            get_backend(backend),
            face=face,
            target_face=target_face,
            threads=threads,
            on_lost=on_lost,
            cache=ExpressionCache(folder),
        )

    @property
    def cache(self) -> ExpressionCache:
        """Where encoded sources are kept."""
        return self._cache

    # --- sources ---
    def encode(self, picture: str | Path | U8, *, name: str | None = None) -> Expression:
        """The expression in a picture.

        Args:
            picture: A file, or (H, W, 3) uint8 BGR.
            name: What to call it in messages; the file's name where not given.

        Raises:
            SourceError: If the file cannot be read.
            NoFaceError: If it shows no face, or not as many as ``face`` asks for.
        """
        if isinstance(picture, np.ndarray):
            picture_bgr = _picture(picture, "Swapper.encode: picture")
            called = name or "picture"
        else:
            picture_bgr, called = read_picture(Path(picture)), name or str(picture)
        key = expressions.cache_key(
            expressions.hash_of_picture(picture_bgr), self.bundle.sha256, self._face
        )
        return self._cache.get_or_make(
            key, lambda: self._encode_picture(picture_bgr, called), called
        )

    def encode_clip(
        self, clip: str | Path, *, progress: Callable[[float], None] | None = None
    ) -> Expression:
        """The expressions in a clip, one entry per frame.

        Args:
            clip: A video file.
            progress: Called with the seconds encoded so far.

        Raises:
            SourceError: If the file cannot be read.
            NoFaceError: If no frame shows a face.
        """
        path = Path(clip)
        with VideoReader(path):
            pass  # says what is wrong with the file before it is hashed
        try:
            content = sha256_of(path)
        except OSError as exc:
            raise SourceError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
        key = expressions.cache_key(content, self.bundle.sha256, f"clip {self._face}")

        def make() -> Expression:
            # more than one, as in _encode_picture
            with self._follower(self._face, _SEVERAL) as follower:
                return expressions.encode_clip(
                    path,
                    self._encoder,
                    follower,
                    name=str(path),
                    model_sha256=self.bundle.sha256,
                    progress=progress,
                )

        return self._cache.get_or_make(key, make, str(path))

    def encode_source(
        self, path: str | Path, *, progress: Callable[[float], None] | None = None
    ) -> Expression:
        """The expression in any file: a picture, a clip (told apart by content) or a saved
        expression (.safetensors).

        Raises:
            SourceError: If the file cannot be read.
            NoFaceError: If it shows no face.
            ExpressionFileError: If a saved expression is damaged or belongs to another model.
        """
        path = Path(path)
        if path.suffix.lower() == EXPRESSION_SUFFIX:
            if not path.is_file():
                raise SourceError(f"{path}: there is no such file; check the spelling")
            return expressions.load_expression(path, self.bundle.sha256)
        if is_still_picture(path):
            return self.encode(path)
        return self.encode_clip(path, progress=progress)

    def preset(self, name: str) -> Expression:
        """A named expression that comes with the model.

        Raises:
            ConfigError: If there is no such preset.
            ModelFileError: If the model ships none of that name.
        """
        return expressions.preset(name, self.bundle)

    def neutral_of(self, source: Expression, neutral: str | Path | Expression = "auto") -> F32:
        """The resting face that "relative" subtracts.

        Args:
            source: Who gives the expression.
            neutral: An expression or a file of one; "auto" takes a clip's calmest moment, and for a
                still the preset "neutral".

        Returns:
            (K, D) float32.
        """
        if isinstance(neutral, Expression):
            self._check_model(neutral)
            return expressions.neutral_tokens(neutral)
        if neutral != "auto":
            return expressions.neutral_tokens(self.encode_source(neutral))
        if len(source.times_s) > 1:
            return expressions.neutral_tokens(source)
        return expressions.neutral_tokens(self.preset("neutral"))

    # --- frames ---
    def process(
        self,
        frame: U8 | Frame,
        source: Expression | None,
        gains: GainsLike = None,
        *,
        mode: str = "absolute",
        neutral: Expression | None = None,
        source_timing: str = "loop",
    ) -> FrameResult:
        """Re-express the next frame of a live stream.

        Args:
            frame: (H, W, 3) uint8 BGR, whose time is now; or a Frame with its own time. Not
                changed.
            source: Who gives the expression; None for nobody.
            gains: Per AU; see rt_swap.expression.parse_gains. None is 1 everywhere.
            mode: "absolute" or "relative".
            neutral: The source's resting face for "relative"; found as by :meth:`neutral_of` where
                not given.
            source_timing: How a clip goes on when it ends: "loop", "hold" or "trim" (as "hold").

        Returns:
            The picture and what happened; its array belongs to the caller.

        Raises:
            ContractError: If the frame is no picture.
            ExpressionError: If another model made the expression.
        """
        if not isinstance(frame, Frame):
            now = time.perf_counter()
            pts = max(round(now / _ARRAY_TIME_BASE), self._last_pts + 1)
            self._last_pts = pts
            frame = Frame(_picture(frame), pts, _ARRAY_TIME_BASE, now)
        if self._live is None:
            follower = self._closing.enter_context(self._follower(self._target_face))
            self._live = self._pipeline(follower)
        if self._first_time_s is None:
            self._first_time_s = frame.time_s
        tokens = neutral_tokens = None
        if source is not None:
            self._check_model(source)
            tokens = expressions.at(source, frame.time_s - self._first_time_s, source_timing)
            if mode == "relative":
                neutral_tokens = self._resting(source, neutral)
        elif mode == "relative":
            mode = "absolute"  # there is nothing to take a difference of
        return self._live.process(frame, tokens, self._gains(gains), mode, neutral_tokens)

    def _resting(self, source: Expression, neutral: Expression | None) -> F32:
        known = self._neutral
        if known is None or known[0] is not source or known[1] is not neutral:
            known = (source, neutral, self.neutral_of(source, neutral or "auto"))
            self._neutral = known
        return known[2]

    def reset(self) -> None:
        """Begin another stream for :meth:`process`: forget the person followed and the source
        clip's place.
        """
        self._first_time_s = None
        if self._live is not None:
            self._live.reset()

    def marker(self, marks: Marks | None = None) -> Marker:
        """What puts marks into the pictures that :meth:`process` gives; it puts in none itself.

        Args:
            marks: Which; None takes all (a live picture has no manifest).
        """
        return Marker(
            marks or Marks(),
            self.bundle.generator_sha256,
            threads=self._threads,
        )

    @contextlib.contextmanager
    def live_pipeline(self) -> Iterator[Pipeline]:
        """The line of one live stream with a face tracker of its own; what rt_swap.live is made of.

        It shares the loaded generator with :meth:`process`, so use one of them at a time.
        """
        # two, so that somebody on a poster or behind does not keep the person at the camera out
        with (
            self._follower(self._target_face, 2, prefers_larger=True) as follower,
            self._pipeline(follower) as pipeline,
        ):
            yield pipeline

    @contextlib.contextmanager
    def live_reader(self) -> Iterator[Callable[[Frame], tuple[F32, F32] | None]]:
        """Reads the expression of a live source, frame by frame, on a thread of its own.

        Yields:
            A function of a frame (times ascend): tokens (K, D) and aus_lr (K, 2), the caller's
            own, or None where the face is not seen. Its tracker and network are shared with nobody.
        """
        with (
            self._follower(self._face) as follower,
            self.backend.load(self.bundle.encoder_path, ENCODER_SPEC, self._threads) as session,
        ):

            def read(frame: Frame) -> tuple[F32, F32] | None:
                crop = follower.follow(frame)
                if crop is None or crop.state is not TrackState.TRACKED:
                    return None
                return expressions.encode_face(frame.frame_bgr, crop, session)

            yield read

    def check_model(self, expression: Expression) -> None:
        """Tokens mean something only to the encoder that made them.

        Raises:
            ExpressionError: If it was another one.
        """
        self._check_model(expression)

    def gains_of(self, gains: GainsLike) -> F32 | None:
        """Gains as an array; None where they are 1 everywhere.

        Args:
            gains: As for :meth:`process`.

        Returns:
            (K,) float32, in the order of rt_swap.aus, not to be written to; or None.

        Raises:
            ConfigError: If a name or number is wrong.
            ContractError: If an array has a wrong shape or range.
        """
        return self._gains(gains)

    # --- files ---
    def reenact(
        self,
        target: str | Path,
        source: Expression | str | Path,
        output: str | Path,
        *,
        gains: GainsLike = None,
        mode: str = "absolute",
        neutral: str | Path | Expression = "auto",
        source_timing: str = "hold",
        compare: bool = False,
        codec: str | None = None,
        crf: int | None = None,
        audio: bool = True,
        overwrite: bool = False,
        marks: Marks | None = None,
        progress: Progress | None = None,
        source_progress: Callable[[float], None] | None = None,
    ) -> Summary:
        """Re-express a whole file.

        Every frame of the target comes out once, at its own time, with the sound unchanged. Nothing
        appears under the output's name before it is complete; Ctrl-C completes it at once.

        Args:
            target: A video, or a picture.
            source: Who gives the expression: an expression, or a file as for :meth:`encode_source`.
            output: A video file (.mp4, .mkv, .webm, ...), or a picture for a target of one frame.
            gains: Per AU; None is 1 everywhere.
            mode: "absolute" or "relative".
            neutral: The source's resting face for "relative"; see :meth:`neutral_of`.
            source_timing: "stretch", "loop", "hold" or "trim".
            compare: Write source | target | output side by side.
            codec: FFmpeg's name of the encoder; None takes the container's usual one.
            crf: Quality, smaller is better and larger; None takes the encoder's default.
            audio: Copy the target's sound.
            overwrite: Replace an existing output.
            marks: Which marks of provenance the output gets; None leaves it unmarked (the command
                line marks unless told otherwise).
            progress: Called after each frame written.
            source_progress: Called while a source clip is encoded, with its seconds so far.

        Returns:
            What was done.

        Raises:
            SourceError: If the target or source cannot be read.
            SinkError: If the output cannot be written; nothing is left under its name.
            NoFaceError: If the source shows no face. (A target without one is copied, and the
                summary says so.)
            ExpressionError: If another model made the expression.
            ConfigError: If an option is wrong.
            ReenactInterrupted: At Ctrl-C, when the file is complete.
        """
        _one_of("mode", mode, MODES)
        _one_of("source_timing", source_timing, SOURCE_TIMINGS)
        gains_k = self._gains(gains)
        if mode != "relative" and neutral != "auto":
            logger.warning("--neutral is not used: only --mode relative has a use for it")
        output = Path(output)
        source_path = None if isinstance(source, Expression) else Path(source)
        inputs = [p for p in (source_path, _as_path(neutral)) if p is not None]
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(VideoReader(target))
            info = reader.info
            panels = None
            if compare:
                panels = stack.enter_context(_Comparison(source_path, info))
            wanted = marks or Marks.none()
            marker = self.marker(wanted)
            seal = self.sealer(wanted, marker, output, info.path, mode)
            sink: FrameSink
            if output.suffix.lower() in STILL_SUFFIXES:
                still = StillWriter(
                    output, overwrite=overwrite, inputs=[info.path, *inputs], seal=seal
                )
                sink = stack.enter_context(_discarding(still))
            else:
                video = VideoWriter(
                    output,
                    info,
                    size_wh=panels.size_wh if panels else None,
                    codec=codec,
                    crf=crf,
                    audio_from=info if audio else None,
                    overwrite=overwrite,
                    inputs=inputs,
                    seal=seal,
                )
                sink = stack.enter_context(_discarding(video))
            if isinstance(source, Expression):
                self._check_model(source)
                shown = source
            else:
                shown = self.encode_source(source, progress=source_progress)
            duration_s = info.duration_s
            if source_timing == "stretch" and duration_s is None and len(shown.times_s) > 1:
                duration_s = _measured_duration_s(info.path)
            neutral_tokens = self.neutral_of(shown, neutral) if mode == "relative" else None
            follower = stack.enter_context(self._follower(self._target_face))
            seal.ready()
            with self._pipeline(follower) as pipeline:
                run = _Run(self, pipeline, reader, sink, shown, panels, progress, marker)
                run.options(gains_k, mode, neutral_tokens, source_timing, duration_s)
                report = run.go()
            if report.interrupted and report.emitted == 0:
                raise KeyboardInterrupt
            early = report.interrupted or run.trimmed
            complete = functools.partial(
                sink.finish,
                last_duration=None if early else reader.last_duration,
                cut_audio=early,
            )
            interrupted = stream.finish(complete) or report.interrupted
        summary = run.summary(output, interrupted, audio and info.has_audio)
        if interrupted:
            raise ReenactInterrupted(summary)
        if not summary.face_found:
            logger.warning(
                "%s: not one of its %d frames showed a face, so nothing was re-expressed",
                info.path,
                summary.frames_out,
            )
        if summary.damage:
            logger.warning("%s", summary.damage)
        return summary

    def sealer(
        self,
        marks: Marks,
        marker: Marker,
        output: Path,
        target: Path,
        mode: str,
        *,
        other_models: Sequence[ModelBundle] = (),
    ) -> Sealer:
        """What signs an output file and says in it what was done.

        Args:
            marks: Which are wanted.
            marker: What marked its pictures; what becomes of the manifest is added to its record.
            output: The file's final name.
            target: The file that was re-expressed; ``Path("camera")`` where there was none.
            mode: "absolute" or "relative".
            other_models: Others that may have made some of the pictures.

        Raises:
            ConfigError: If the certificate given cannot be used.
        """
        hashes = {
            "expression_encoder": self.bundle.sha256,
            "target_generator": self.bundle.generator_sha256,
        }
        others = {bundle.name: bundle.generator_sha256 for bundle in other_models}
        return Sealer(
            marks,
            marker.record,
            output,
            target,
            model=self.bundle.name,
            model_sha256=hashes,
            about={"mode": mode, **({"other_models": others} if others else {})},
        )

    # --- parts ---
    @property
    def _encoder(self) -> Session:
        if self._encoder_session is None:
            session = self.backend.load(self.bundle.encoder_path, ENCODER_SPEC, self._threads)
            self._closing.callback(session.close)
            self._encoder_session = session
        return self._encoder_session

    def _pipeline(self, follower: FaceFollower) -> Pipeline:
        if self._generator_session is None:
            session = self.backend.load(self.bundle.generator_path, GENERATOR_SPEC, self._threads)
            self._closing.callback(session.close)
            self._generator_session = session
        return Pipeline(
            self.bundle,
            self.backend,
            follower,
            on_lost=self._on_lost,
            threads=self._threads,
            session=self._generator_session,
        )

    @contextlib.contextmanager
    def _follower(
        self,
        face: Literal["largest"] | int,
        at_least: int = 1,
        *,
        prefers_larger: bool = False,
    ) -> Iterator[FaceFollower]:
        many = at_least if face == "largest" else max(_SEVERAL, face + 1)
        tracker = self._make_tracker(many, False)
        try:
            yield FaceFollower(tracker, face=face, prefers_larger=prefers_larger)
        finally:
            tracker.close()

    def _encode_picture(self, picture_bgr: U8, name: str) -> Expression:
        if self._still_tracker is None:
            # more than one, so that "several, the largest is taken" can be said
            self._still_tracker = self._make_tracker(
                _SEVERAL if self._face == "largest" else max(_SEVERAL, self._face + 1), True
            )
            self._closing.callback(self._still_tracker.close)
        return expressions.encode_picture(
            picture_bgr,
            self._encoder,
            self._still_tracker,
            self._face,
            name=name,
            model_sha256=self.bundle.sha256,
        )

    def _check_model(self, expression: Expression) -> None:
        """Tokens mean something only to the encoder that made them.

        Raises:
            ExpressionError: If it was another one.
        """
        if expression.model_sha256 != self.bundle.sha256:
            raise ExpressionError(
                f"expression {expression.name!r}: made by model {expression.model_sha256[:12]}, but"
                f" the model in use is {self.bundle.sha256[:12]}; encode the source again"
            )

    def _gains(self, gains: GainsLike) -> F32 | None:
        if gains is None or (isinstance(gains, str) and not gains.strip()):
            return None
        if isinstance(gains, np.ndarray):
            if gains.shape != (NUM_AUS,):
                raise ContractError(
                    f"gains must be ({NUM_AUS},), one per AU in the order of rt_swap.aus,"
                    f" got {gains.shape}",
                    expected=f"({NUM_AUS},)",
                    actual=str(gains.shape),
                )
            if not ((gains >= 0) & (gains <= expressions.MAX_GAIN)).all():  # nor NaN
                raise ContractError(
                    f"gains must be numbers from 0 to {expressions.MAX_GAIN:g}, got {gains}"
                )
            return gains.astype(np.float32)
        if isinstance(gains, str | float | int):
            if gains not in self._parsed:
                self._parsed[gains] = expressions.parse_gains(gains)
            return self._parsed[gains]
        return expressions.parse_gains(gains)

    # --- lifetime ---
    def close(self) -> None:
        """Release networks and trackers; harmless when done twice."""
        self._closing.close()
        self._encoder_session = self._generator_session = None
        self._still_tracker = self._live = None

    def __enter__(self) -> Swapper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class _Item:
    """A frame with what the sink needs besides the pipeline's own."""

    frame: Frame
    time_s: float
    decode_ms: float
    work: Work | None = None


@dataclass
class _Totals:
    """Sums over the frames written."""

    statuses: dict[str, int] = field(default_factory=lambda: {s.value: 0 for s in FrameStatus})
    before: F64 = field(default_factory=lambda: np.zeros(NUM_AUS))
    before_count: int = 0
    after: F64 = field(default_factory=lambda: np.zeros(NUM_AUS))
    after_count: int = 0
    end_s: float = 0.0


class _Run:
    """One reenactment on its threads: decode | track and crop | generate | compose and encode."""

    def __init__(
        self,
        swapper: Swapper,
        pipeline: Pipeline,
        reader: VideoReader,
        sink: FrameSink,
        source: Expression,
        panels: _Comparison | None,
        progress: Progress | None,
        marker: Marker,
    ) -> None:
        self._swapper, self._pipeline, self._reader = swapper, pipeline, reader
        self._sink, self._source, self._panels = sink, source, panels
        self._marker = marker
        self._progress = progress
        self._meter = AuMeter(swapper._encoder, swapper._threads)
        self._measure_every = max(round(float(reader.info.rate) / _AU_SAMPLES_PER_S), 1)
        self._metrics = Metrics()
        self._totals = _Totals()
        self._taken = 0
        self.trimmed = False

    def options(
        self,
        gains: F32 | None,
        mode: str,
        neutral_tokens: F32 | None,
        timing: str,
        duration_s: float | None,
    ) -> None:
        """What :meth:`go` does with each frame."""
        self._gains, self._mode, self._neutral = gains, mode, neutral_tokens
        self._timing, self._duration_s = timing, duration_s
        info = self._reader.info
        self._expected = info.frame_count
        if self._expected is None and info.duration_s:  # Matroska and MPEG-TS do not count
            self._expected = max(round(info.duration_s * info.rate), 1)
        if timing == "trim" and len(self._source.times_s) > 1:
            trimmed = max(math.ceil(self._source.duration_s * info.rate), 1)
            self._expected = min(self._expected or trimmed, trimmed)

    def go(self) -> stream.Report:
        """Run to the end."""
        self._metrics.start()
        stages = [("track", self._track), ("generate", self._generate)]
        return stream.run(self._decode(), stages, self._emit, stop=threading.Event())

    def _decode(self) -> Iterator[_Item]:
        start_s: float | None = None
        frames = iter(self._reader)
        while True:
            begin = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            decode_ms = (time.perf_counter() - begin) * 1e3
            start_s = frame.time_s if start_s is None else start_s
            time_s = frame.time_s - start_s
            if expressions.is_over(self._source, time_s, self._timing):
                self.trimmed = True
                return
            self._taken += 1
            yield _Item(frame, time_s, decode_ms)

    def _track(self, item: _Item) -> _Item:
        item.work = self._pipeline.track(item.frame)
        item.work.stage_ms = {"decode": item.decode_ms, **item.work.stage_ms}
        return item

    def _generate(self, item: _Item) -> _Item:
        assert item.work is not None
        tokens = expressions.at(self._source, item.time_s, self._timing, self._duration_s)
        self._pipeline.generate(item.work, tokens, self._gains, self._mode, self._neutral)
        return item

    def _emit(self, item: _Item) -> None:
        assert item.work is not None
        # the decoded picture is ours, so it may become the output, unless it is shown beside it
        result = self._pipeline.compose(item.work, in_place=self._panels is None)
        totals = self._totals
        totals.statuses[result.status.value] += 1
        if result.status is not FrameStatus.NO_FACE and result.target_aus_lr is not None:
            totals.before += result.target_aus_lr.max(axis=1)
            if totals.before_count % self._measure_every == 0 and result.crop is not None:
                with stage(result.stage_ms, "measure"):
                    totals.after += self._meter.read(result.frame.frame_bgr, result.crop).max(
                        axis=1
                    )
                totals.after_count += 1
            totals.before_count += 1
        with stage(result.stage_ms, "mark"):
            result = self._marker.apply(result)
        shown = result.frame
        if self._panels is not None:
            with stage(result.stage_ms, "compare"):
                source_s = expressions.moment_of(
                    self._source, item.time_s, self._timing, self._duration_s
                )
                canvas = self._panels.picture(item.frame.frame_bgr, shown.frame_bgr, source_s)
                shown = replace(shown, frame_bgr=canvas)
        with stage(result.stage_ms, "encode"):
            self._sink.write(shown)
        totals.end_s = item.time_s
        self._metrics.record(result.stage_ms, item.frame.captured_s)
        if self._progress is not None:
            self._progress(self._metrics.frames, self._expected)

    def summary(self, output: Path, interrupted: bool, audio: bool) -> Summary:
        """What was done."""
        totals, info = self._totals, self._reader.info
        size_wh = self._panels.size_wh if self._panels else (info.width, info.height)
        last_s = 0.0
        if not (interrupted or self.trimmed):
            last_s = float((self._reader.last_duration or 0) * info.time_base)
        last_s = last_s or 1 / float(info.rate)
        valid = self._source.valid
        return Summary(
            target=str(info.path),
            source=self._source.name,
            output=str(output),
            model=self._swapper.bundle.name,
            backend=self._swapper.backend.name,
            frames_in=self._taken,
            frames_out=self._metrics.frames,
            statuses=totals.statuses,
            width=size_wh[0],
            height=size_wh[1],
            duration_s=round(totals.end_s + last_s, 6),
            audio=audio,
            metrics=self._metrics.summary(),
            aus_source=_by_name(self._source.aus_lr[valid].max(axis=2).mean(axis=0)),
            aus_before=_mean_by_name(totals.before, totals.before_count),
            aus_after=_mean_by_name(totals.after, totals.after_count),
            face_found=totals.before_count > 0,
            damage=self._reader.damage,
            interrupted=interrupted,
            marks=self._marker.record.as_json(),
        )


class _Comparison:
    """Source, target and output side by side, at the target's height where that fits.

    Args:
        source: The source's file; no panel for a preset or a saved expression.
        target: The target.
    """

    def __init__(self, source: Path | None, target: VideoInfo) -> None:
        self._reader: VideoReader | None = None
        self._frames: Iterator[Frame] | None = None
        self._ahead: Frame | None = None
        self._start_s = self._behind_s = 0.0
        self._source_bgr: U8 | None = None
        self._path = source
        if source is not None and source.suffix.lower() != EXPRESSION_SUFFIX:
            if is_still_picture(source):
                self._source_bgr = read_picture(source)
            else:
                self._rewind()
        panel_w, height = target.width, target.height
        widths = [panel_w, panel_w]
        if self._source_bgr is not None:
            source_h, source_w = self._source_bgr.shape[:2]
            widths.insert(0, max(round(source_w * height / source_h), 1))
        shrink = min(_MAX_COMPARE_WIDTH / sum(widths), 1.0)
        if shrink < 1:
            height = max(round(height * shrink), 1)
            widths = [max(round(w * shrink), 1) for w in widths]
        self._panels_wh = [(w, height) for w in widths]
        self.size_wh = (sum(widths), height)
        self._canvas: U8 = np.empty((height, sum(widths), 3), np.uint8)
        if self._source_bgr is not None and self._reader is None:
            self._source_bgr = scaled(self._source_bgr, self._panels_wh[0])

    def _rewind(self) -> None:
        assert self._path is not None
        if self._reader is not None:
            self._reader.close()
        self._reader = VideoReader(self._path)
        self._frames = iter(self._reader)
        first = next(self._frames)
        self._start_s, self._behind_s = first.time_s, 0.0
        self._source_bgr = first.frame_bgr
        self._ahead = next(self._frames, None)

    def _advance(self, source_s: float) -> None:
        if source_s < self._behind_s:
            self._rewind()
        assert self._frames is not None
        nearly = source_s + _TIME_SLACK_S
        while self._ahead is not None and self._ahead.time_s - self._start_s <= nearly:
            self._source_bgr = self._ahead.frame_bgr
            self._ahead = next(self._frames, None)
        self._behind_s = source_s

    def picture(self, target_bgr: U8, output_bgr: U8, source_s: float) -> U8:
        """The panels of one moment, ``source_s`` seconds into a source clip; the array is used
        again for the next.
        """
        if self._reader is not None:
            self._advance(source_s)
        panels = [target_bgr, output_bgr]
        if self._source_bgr is not None:
            panels.insert(0, self._source_bgr)
        x = 0
        for panel, size_wh in zip(panels, self._panels_wh, strict=True):
            self._canvas[:, x : x + size_wh[0]] = scaled(panel, size_wh)
            x += size_wh[0]
        return self._canvas

    def __enter__(self) -> _Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()


@contextlib.contextmanager
def _discarding(sink: Any) -> Iterator[Any]:
    """Throw away what a sink holds unless it was finished."""
    try:
        yield sink
    finally:
        sink.abort()


def _measured_duration_s(path: Path) -> float:
    """Length of a video that does not tell it (a GIF), by decoding it once."""
    with VideoReader(path) as reader:
        first_s = last_s = 0.0
        for number, frame in enumerate(reader):
            first_s = frame.time_s if number == 0 else first_s
            last_s = frame.time_s
        step_s = float((reader.last_duration or 0) * reader.info.time_base)
        return last_s - first_s + (step_s or 1 / float(reader.info.rate))


def _as_path(neutral: str | Path | Expression) -> Path | None:
    if isinstance(neutral, Expression) or neutral == "auto":
        return None
    return Path(neutral)


def _by_name(values: npt.NDArray[Any]) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in zip(AU_NAMES, values, strict=True)}


def _mean_by_name(total: F64, count: int) -> dict[str, float]:
    return _by_name(total / count) if count else {}


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        option = name.replace("_", "-")
        raise ConfigError(f"--{option}: must be one of {', '.join(choices)}, got {value!r}")
    return value


def _face_choice(name: str, face: FaceChoice) -> Literal["largest"] | int:
    if face == "largest":
        return "largest"
    try:
        number = -1 if isinstance(face, bool) else int(face)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        option = name.replace("_", "-")
        raise ConfigError(f"--{option}: must be 'largest' or a number from 0, got {face!r}")
    return number


def _picture(frame_bgr: U8, who: str = "Swapper.process: frame") -> U8:
    is_array = isinstance(frame_bgr, np.ndarray)
    if (
        not is_array
        or frame_bgr.dtype != np.uint8
        or frame_bgr.ndim != 3
        or frame_bgr.shape[2] != 3
        or 0 in frame_bgr.shape
    ):
        actual = f"{frame_bgr.dtype} {frame_bgr.shape}" if is_array else type(frame_bgr).__name__
        raise ContractError(
            f"{who} must be uint8 (H, W, 3), BGR, and not empty, got {actual};"
            " pass it as the camera gave it",
            expected="uint8 (H, W, 3)",
            actual=actual,
        )
    return np.ascontiguousarray(frame_bgr)


__all__ = ["ReenactInterrupted", "Summary", "Swapper"]
