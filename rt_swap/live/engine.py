"""The live engine: frames in, re-expressed frames out, while other threads change what is wanted.

:meth:`LiveEngine.process` belongs to one thread. Everything else may be called from any thread at
any moment; it takes effect with the next frame, and no frame waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Protocol

import numpy as np

from rt_swap import expression as expressions
from rt_swap.aus import AUS, NUM_AUS, AuId
from rt_swap.config import LIVE_ON_LOST, MODES
from rt_swap.errors import ConfigError, ExpressionError, in_one_line
from rt_swap.frames import (
    F32,
    U8,
    Expression,
    Frame,
    FrameResult,
    FrameStatus,
    TrackState,
)
from rt_swap.io.pixels import blurred
from rt_swap.io.slate import DEFAULT_TEXT, fitted, slate
from rt_swap.live.calibration import Calibration, Moment, Neutral, NeutralSearch
from rt_swap.live.voice import Ask, approach, mix
from rt_swap.pipeline import Pipeline, Work
from rt_swap.swapper import GainsLike, Swapper

logger = logging.getLogger(__name__)

SPEECH_UNITS: Final = (
    AuId.AU10,
    AuId.AU16,
    AuId.AU17,
    AuId.AU18,
    AuId.AU22,
    AuId.AU24,
    AuId.AU26,
    AuId.AU28,
    AuId.AU29,
    AuId.AU30,
)
"""What opens, closes and rounds a speaking mouth; ``keep_speech`` leaves these to the target. Lip
corners (AU12, AU14, AU15, AU20) stay with the source: they are the smile."""

_WINK: Final = 0.4
"""Difference of a still's two AU45 from which it means its closed eye."""
_GAIN_TIME: Final = 0.25
"""Time constant of gains, as a part of the transition's time: a slider is followed at once."""
_NEUTRAL_TIME_S: Final = 0.5
"""Time constant with which a better resting face replaces the one in use."""
_FPS_TIME_S: Final = 1.0
_MAX_FAILURES: Final = 30
"""Frames in a row that may fail before the failure is raised."""


class TokenSource(Protocol):
    """Gives tokens moment by moment, such as a second camera."""

    def tokens_at(self, time_s: float) -> F32 | None:
        """(K, D) for now, or None while there is nothing to give; called once per frame."""
        ...

    def neutral(self) -> F32 | None:
        """(K, D) the giver's own resting face, or None where it is not known."""
        ...


@dataclass(frozen=True)
class LiveState:
    """What the engine is doing, for people to look at.

    Attributes:
        expression: Name of the expression in use; "" for none.
        gains: (K,) float32 as set, before keep-speech and keep-blink.
        mode: "absolute" or "relative".
        keep_speech: Whether the target's own mouth opening stays.
        keep_blink: Whether the target's own blink stays.
        calibrated: Whether a resting face of the target is known.
        neutral_origin: "calibrated", "stored", "found", or "" where there is none.
        calibrating_left_s: Seconds left of the calibration that runs; 0 where none does.
        calibration_message: What became of the last one; "" before.
        calibrations: How many have ended, well or not.
        face_found: Whether the last frame showed the target's face.
        status: What happened to the last frame; None before the first.
        target_aus_lr: (K, 2) the target's own intensities in the last frame, or None.
        stage_ms: Milliseconds by stage of the last frame.
        age_ms: Time from capture to the end of processing (or to emission, where that is
            reported), last frame; 0 where the frame told no capture time.
        fps: Frames processed per second, over about the last second.
        frames: Frames processed.
        failures: Frames that failed inside and were replaced by what ``on_lost`` shows.
        message: The last thing worth telling; "" for nothing.
    """

    expression: str
    gains: F32
    mode: str
    keep_speech: bool
    keep_blink: bool
    calibrated: bool
    neutral_origin: str
    calibrating_left_s: float
    calibration_message: str
    calibrations: int
    face_found: bool
    status: FrameStatus | None
    target_aus_lr: F32 | None
    stage_ms: dict[str, float]
    age_ms: float
    fps: float
    frames: int
    failures: int
    message: str


@dataclass(frozen=True)
class _Wanted:
    """All that can be set; replaced as a whole, under the lock."""

    giver: _Giver | None = None
    name: str = ""
    gains: F32 = field(default_factory=lambda: np.ones(NUM_AUS, np.float32))
    mode: str = "absolute"
    keep_speech: bool = False
    keep_blink: bool = True
    on_lost: str = "hold"
    transition_s: float = 0.25


@dataclass(frozen=True, eq=False)
class _Giver:
    """Who gives the expression: an expression or a live source."""

    expression: Expression | None
    live: TokenSource | None
    own_neutral: F32 | None
    closes_one_eye: bool

    def tokens_at(self, since_s: float, time_s: float) -> F32 | None:
        if self.live is not None:
            return self.live.tokens_at(time_s)
        assert self.expression is not None
        return expressions.at(self.expression, since_s, "loop")

    def neutral(self) -> F32 | None:
        return self.live.neutral() if self.live is not None else self.own_neutral


class LiveEngine:
    """Re-expresses one live stream.

    Modes. "absolute": the face takes the source's expression, unit by unit, as far as the gains
    go. "relative": the source's difference from a resting face is *added*, so that the person's
    own movements stay. That resting face is the source's own where it is known (a clip's calmest
    moment; a second camera's), else the target's calibrated or found one, else the preset
    "neutral".

    What is shown while nobody is there to re-express, or where processing failed, is ``on_lost``:
    "hold" (the last re-expressed picture; the slate before there was one), "slate", "blur" (the
    frame, blurred beyond recognition) or "passthrough" (the frame itself). With no expression set,
    frames pass as they are: then nothing is hidden.

    Args:
        swapper: The loaded model. Sources may be encoded with it on another thread meanwhile;
            its ``process`` may not be used.
        transition_s: How long one expression takes to turn into another, 0 to 10 seconds.
        on_lost: One of LIVE_ON_LOST.
        slate_bgr: (H, W, 3) uint8, the picture of "slate"; None draws one.
        slate_text: What the drawn one says.

    Raises:
        ConfigError: If an option is out of range.
        BackendError: If the model cannot be loaded.
    """

    def __init__(
        self,
        swapper: Swapper,
        *,
        transition_s: float = 0.25,
        on_lost: str = "hold",
        slate_bgr: U8 | None = None,
        slate_text: str = DEFAULT_TEXT,
    ) -> None:
        self.swapper = swapper
        self._lock = threading.Lock()
        self._wanted = _Wanted(on_lost=_on_lost(on_lost), transition_s=_transition_s(transition_s))
        self._slate_bgr, self._slate_text = slate_bgr, slate_text
        self._slates: dict[tuple[int, int], U8] = {}
        self._closing = contextlib.ExitStack()
        self._pipeline: Pipeline = self._closing.enter_context(swapper.live_pipeline())
        self._closed = False
        # what the frames' thread remembers from one frame to the next
        self._in_use: _Wanted = self._wanted
        self._started_s = 0.0  # when the expression in use began
        self._before: Ask | None = None  # what was shown when the transition began
        self._ask: Ask | None = None
        self._transition_from_s = -math.inf
        self._shown_gains: F32 | None = None
        self._last_time_s: float | None = None
        self._size_wh: tuple[int, int] | None = None
        self._held: U8 | None = None
        self._held_true = False
        self._failures_in_a_row = 0
        # the resting face
        self._wanted_calibration_s: float | None = None
        self._calibration: Calibration | None = None
        self._search: NeutralSearch | None = NeutralSearch()
        self._neutral: Neutral | None = None
        self._base: F32 | None = None
        self._preset_neutral: F32 | None = None
        self._on_calibrated: Callable[[Neutral], None] | None = None
        # what people look at
        self._state = LiveState(
            expression="",
            gains=self._wanted.gains,
            mode="absolute",
            keep_speech=False,
            keep_blink=True,
            calibrated=False,
            neutral_origin="",
            calibrating_left_s=0.0,
            calibration_message="",
            calibrations=0,
            face_found=False,
            status=None,
            target_aus_lr=None,
            stage_ms={},
            age_ms=0.0,
            fps=0.0,
            frames=0,
            failures=0,
            message="",
        )

    # --- what may be called from any thread ---
    def set_expression(self, expression: Expression | None, *, name: str) -> None:
        """Turn to another expression, smoothly; a clip starts at its beginning and loops.

        Args:
            expression: Who gives it; None lets the target's own through.
            name: What to call it.

        Raises:
            ExpressionError: If another model made it.
        """
        giver = None
        if expression is not None:
            self.swapper.check_model(expression)
            still = len(expression.times_s) == 1
            blink = expression.aus_lr[0, AuId.AU45.index]
            giver = _Giver(
                expression,
                None,
                None if still else expressions.neutral_tokens(expression),
                still and abs(float(blink[0] - blink[1])) >= _WINK,
            )
        self._set(giver=giver, name=name if giver is not None else "")

    def set_live_source(self, source: TokenSource, *, name: str) -> None:
        """Turn to a source that moves now, such as a second camera's face."""
        self._set(giver=_Giver(None, source, None, False), name=name)

    def set_gains(self, gains: GainsLike) -> None:
        """How much of each unit comes from the source.

        Args:
            gains: As for :meth:`rt_swap.Swapper.process`: "brows=0.5,mouth=1", a mapping, a number
                or (K,) float32; None is 1 everywhere.

        Raises:
            ConfigError: If a name or number is wrong.
            ContractError: If an array has a wrong shape or range.
        """
        values = self.swapper.gains_of(gains)
        self._set(gains=np.ones(NUM_AUS, np.float32) if values is None else values.copy())

    def set_mode(self, mode: str) -> None:
        """Choose "absolute" or "relative".

        Raises:
            ConfigError: If it is neither.
        """
        if mode not in MODES:
            raise ConfigError(f"--mode: must be one of {', '.join(MODES)}, got {mode!r}")
        self._set(mode=mode)

    def set_keep_speech(self, keep: bool) -> None:
        """Leave what a mouth does in speaking to the target (SPEECH_UNITS)."""
        self._set(keep_speech=bool(keep))

    def set_keep_blink(self, keep: bool) -> None:
        """Leave blinking to the target. A still that winks may wink all the same."""
        self._set(keep_blink=bool(keep))

    def set_on_lost(self, on_lost: str) -> None:
        """Choose what is shown while nobody is there.

        Raises:
            ConfigError: If it is none of LIVE_ON_LOST.
        """
        self._set(on_lost=_on_lost(on_lost))

    def set_transition_s(self, transition_s: float) -> None:
        """How long one expression takes to turn into another.

        Raises:
            ConfigError: If it is not 0 to 10 seconds.
        """
        self._set(transition_s=_transition_s(transition_s))

    def set_neutral(self, neutral: Neutral | None) -> None:
        """Use a resting face that was kept; None looks for one again."""
        with self._lock:
            self._neutral = neutral
            self._search = NeutralSearch() if neutral is None else None

    def on_calibrated(self, function: Callable[[Neutral], None] | None) -> None:
        """Have a function called with each resting face measured, on the frames' thread."""
        self._on_calibrated = function

    def start_calibration(self, seconds: float = 2.0) -> None:
        """Measure the target's resting face over the next seconds.

        What is shown meanwhile goes on as it is. :attr:`state` tells how long it takes and what
        became of it.

        Raises:
            ConfigError: If the time is not 0.5 to 30 seconds.
        """
        if not 0.5 <= seconds <= 30:
            raise ConfigError(f"calibration: must take 0.5 to 30 seconds, got {seconds}")
        with self._lock:
            self._wanted_calibration_s = float(seconds)

    @property
    def on_lost(self) -> str:
        """What is shown while nobody is there."""
        return self._wanted.on_lost

    def emitted(self, age_ms: float) -> None:
        """Tell how old a frame was when it reached whoever looks at it."""
        with self._lock:
            self._state = replace(self._state, age_ms=age_ms)

    @property
    def state(self) -> LiveState:
        """What the engine is doing now."""
        with self._lock:
            wanted = self._wanted
            return replace(
                self._state,
                expression=wanted.name,
                gains=wanted.gains,
                mode=wanted.mode,
                keep_speech=wanted.keep_speech,
                keep_blink=wanted.keep_blink,
                calibrated=self._neutral is not None,
                neutral_origin=self._neutral.origin if self._neutral is not None else "",
                calibrating_left_s=self._wanted_calibration_s or self._state.calibrating_left_s,
            )

    def _set(self, **changes: object) -> None:
        with self._lock:
            self._wanted = replace(self._wanted, **changes)  # type: ignore[arg-type]

    # --- the frames' thread ---
    def process(self, frame: Frame) -> FrameResult:
        """Take the next frame.

        Args:
            frame: Times ascend. Not changed.

        Returns:
            The picture and what happened; its array belongs to the caller. A frame that fails
            inside is replaced by what ``on_lost`` shows.

        Raises:
            ConfigError: If the engine is closed.
            Exception: What the last of many frames in a row failed with.
        """
        if self._closed:
            raise ConfigError("LiveEngine: a frame came after close(); make a new engine")
        begin_s = time.perf_counter()
        height, width = frame.frame_bgr.shape[:2]
        if self._size_wh is not None and self._size_wh != (width, height):
            self._pipeline.reset()  # whom it follows is somewhere else now
        self._size_wh = (width, height)
        dt_s = self._step(frame.time_s)
        wanted = self._take_wanted(frame.time_s)
        failed: Exception | None = None
        try:
            result = self._swapped(frame, wanted, dt_s)
            self._failures_in_a_row = 0
        except Exception as error:  # a library's own, too: the camera in the call must not go away
            failed = error
            self._failures_in_a_row += 1
            if self._failures_in_a_row > _MAX_FAILURES:
                raise
            if self._failures_in_a_row == 1:
                logger.warning("a frame failed and was not shown: %s", in_one_line(error))
                logger.debug("it failed like this", exc_info=True)
            self._pipeline.reset()
            shown, repeats = self._lost(frame, wanted, failed=True)
            result = FrameResult(shown, FrameStatus.NO_FACE, None, None, {}, repeats)
        self._tell(frame, result, begin_s, dt_s, failed)
        return result

    def _step(self, time_s: float) -> float:
        """Seconds since the last frame, 0 where time did not go forward."""
        last_s, self._last_time_s = self._last_time_s, time_s
        return 0.0 if last_s is None else max(time_s - last_s, 0.0)

    def _take_wanted(self, time_s: float) -> _Wanted:
        """What is wanted for this frame; a change begins here."""
        with self._lock:
            wanted = self._wanted
            seconds, self._wanted_calibration_s = self._wanted_calibration_s, None
            if seconds is not None:
                self._calibration = Calibration(time_s, seconds)
                self._state = replace(
                    self._state, calibrating_left_s=seconds, calibration_message=""
                )
        used, self._in_use = self._in_use, wanted
        if wanted.giver is not used.giver:
            self._started_s = time_s
        if self._state.frames == 0:
            self._started_s = time_s
        elif wanted.giver is not used.giver or wanted.mode != used.mode:
            self._before, self._transition_from_s = self._ask, time_s
        if time_s < self._transition_from_s:  # time ran back
            self._transition_from_s = -math.inf
        return wanted

    def _swapped(self, frame: Frame, wanted: _Wanted, dt_s: float) -> FrameResult:
        work = self._pipeline.track(frame)
        ask = self._asked(frame.time_s, wanted, dt_s)
        gains = self._gains(wanted, dt_s)
        if ask is not None and ask.presence <= 0:
            ask = None
        if ask is None:
            self._pipeline.generate(work, None)
        else:
            self._pipeline.generate(
                work,
                ask.tokens,
                np.asarray(gains * np.float32(ask.presence), np.float32),
                ask.relative,
                ask.base,
            )
        self._read(work, frame.time_s)
        result = self._pipeline.compose(work)
        if result.status is FrameStatus.SWAPPED:
            if wanted.on_lost != "passthrough":  # which never shows an earlier picture
                self._hold(result.frame.frame_bgr)
            return result
        if wanted.giver is None:
            return result  # nothing is asked for, so the frame itself is what is wanted
        if result.status is FrameStatus.HELD:
            # the face was not found here, so it may have left the place that was re-expressed
            if wanted.on_lost == "passthrough":
                return result
            if self._held is not None:
                return replace(result, frame=self._repeated(frame), repeats=True)
        shown, repeats = self._lost(frame, wanted, failed=False)
        return replace(result, frame=shown, repeats=repeats)

    def _asked(self, time_s: float, wanted: _Wanted, dt_s: float) -> Ask | None:
        """What the face is asked to do now."""
        now: Ask | None = None
        if wanted.giver is not None:
            tokens = wanted.giver.tokens_at(time_s - self._started_s, time_s)
            if tokens is not None:
                base = None
                if wanted.mode == "relative":
                    base = self._resting(wanted.giver, dt_s)
                now = Ask(tokens, base, float(wanted.mode == "relative"))
            elif self._before is not None:
                # it has nothing to give yet: what was shown before goes on
                self._transition_from_s, self._ask = time_s, self._before
                return self._ask
        over_s = time_s - self._transition_from_s
        progress = over_s / wanted.transition_s if wanted.transition_s > 0 else 1.0
        self._ask = mix(self._before, now, progress)
        if progress >= 1.0:
            self._before = None
        return self._ask

    def _resting(self, giver: _Giver, dt_s: float) -> F32:
        """The base of the relative mode; glides to a better one."""
        wanted = giver.neutral()
        if wanted is None:
            with self._lock:
                wanted = self._neutral.tokens if self._neutral is not None else None
        if wanted is None:
            if self._preset_neutral is None:
                self._preset_neutral = expressions.neutral_tokens(self.swapper.preset("neutral"))
            wanted = self._preset_neutral
        if self._base is None or self._before is not None:
            self._base = wanted  # the transition itself is smooth
        elif self._base is not wanted:
            self._base = approach(self._base, wanted, dt_s, _NEUTRAL_TIME_S)
        return self._base

    def _gains(self, wanted: _Wanted, dt_s: float) -> F32:
        """(K,) what the gains are now, on their way to what is wanted."""
        goal = wanted.gains
        one_eye = wanted.giver is not None and wanted.giver.closes_one_eye
        if wanted.keep_speech or wanted.keep_blink:
            goal = goal.copy()
            if wanted.keep_speech:
                goal[_SPEECH] = 0.0
            if wanted.keep_blink and not one_eye:
                goal[AuId.AU45.index] = 0.0
        if self._shown_gains is None:
            self._shown_gains = goal
        else:
            self._shown_gains = approach(
                self._shown_gains, goal, dt_s, _GAIN_TIME * wanted.transition_s
            )
        return self._shown_gains

    def _read(self, work: Work, time_s: float) -> None:
        """Let the calibration and the search see the target's own tokens."""
        moment = None
        seen = work.crop is not None and work.crop.state is TrackState.TRACKED
        if seen and work.target_tokens is not None and work.target_aus_lr is not None:
            moment = Moment(time_s, work.target_tokens, work.target_aus_lr)
        calibration = self._calibration
        if calibration is not None:
            if moment is not None:
                calibration.add(moment)
            if calibration.left_s(time_s) <= 0:
                self._calibration = None
                self._finish_calibration(calibration)
        with self._lock:
            search = self._search
        if search is not None and moment is not None:
            found = search.add(moment)
            if found is not None:
                with self._lock:
                    if self._search is search:
                        self._neutral = found

    def _finish_calibration(self, calibration: Calibration) -> None:
        try:
            neutral = calibration.finish()
            message = "calibrated"
            with self._lock:
                self._neutral, self._search = neutral, None
            if self._on_calibrated is not None:
                self._on_calibrated(neutral)
        except (ExpressionError, ConfigError) as error:
            message = str(error)
            logger.warning("%s", error)
        else:
            logger.info("calibrated: this is the resting face now")
        with self._lock:
            ended = self._state.calibrations + 1
            self._state = replace(self._state, calibration_message=message, calibrations=ended)

    # --- what is shown instead ---
    def _hold(self, picture_bgr: U8) -> None:
        if self._held is None or self._held.shape != picture_bgr.shape:
            self._held = np.empty_like(picture_bgr)
        np.copyto(self._held, picture_bgr)

    def forget_held(self) -> None:
        """Drop the last re-expressed picture, on the frames' thread: what happened while the slate
        was shown is nobody's business afterwards.
        """
        self._held = None

    def _repeated(self, frame: Frame) -> Frame:
        """The last re-expressed picture in place of a frame's own; there must be one."""
        assert self._held is not None
        height, width = frame.frame_bgr.shape[:2]
        picture = fitted(self._held, (width, height))
        return replace(frame, frame_bgr=picture.copy() if picture is self._held else picture)

    def _lost(self, frame: Frame, wanted: _Wanted, *, failed: bool) -> tuple[Frame, bool]:
        """What on_lost shows, and whether it is an earlier picture; a failed frame itself is never
        shown.
        """
        height, width = frame.frame_bgr.shape[:2]
        how = wanted.on_lost
        if how == "passthrough" and (not failed or wanted.giver is None):
            picture = frame.frame_bgr.copy()
        elif how == "blur" and not failed:
            picture = blurred(frame.frame_bgr)
        elif how == "hold" and self._held is not None:
            return self._repeated(frame), True
        else:
            picture = self.slate((width, height)).copy()
        return replace(frame, frame_bgr=picture), False

    def slate(self, size_wh: tuple[int, int]) -> U8:
        """The picture that is shown while there is nothing to show; not to be written to."""
        with self._lock:
            if size_wh not in self._slates:
                if len(self._slates) > 4:
                    self._slates.clear()
                self._slates[size_wh] = (
                    slate(size_wh, self._slate_text)
                    if self._slate_bgr is None
                    else fitted(self._slate_bgr, size_wh)
                )
            return self._slates[size_wh]

    def stand_in(self, size_wh: tuple[int, int]) -> U8:
        """What to show while no frames come at all: the last re-expressed picture where ``on_lost``
        is "hold" and there is one, else the slate. Call it on the frames' thread.

        Returns:
            (height, width, 3) uint8 BGR, not to be written to.
        """
        if self._in_use.on_lost == "hold" and self._held is not None:
            return fitted(self._held, size_wh)
        return self.slate(size_wh)

    # --- telling ---
    def _tell(
        self,
        frame: Frame,
        result: FrameResult,
        begin_s: float,
        dt_s: float,
        failed: Exception | None,
    ) -> None:
        now = time.perf_counter()
        age_ms = (now - frame.captured_s) * 1e3 if frame.captured_s else 0.0
        left_s = self._calibration.left_s(frame.time_s) if self._calibration is not None else 0.0
        with self._lock:
            before = self._state
            fps = before.fps
            if dt_s > 0:
                share = 1.0 - math.exp(-dt_s / _FPS_TIME_S)
                fps = 1.0 / dt_s if fps == 0 else fps + share * (1.0 / dt_s - fps)
            self._state = replace(
                before,
                calibrating_left_s=left_s,
                face_found=result.crop is not None and result.crop.state is TrackState.TRACKED,
                status=result.status,
                target_aus_lr=result.target_aus_lr,
                stage_ms={**result.stage_ms, "process": (now - begin_s) * 1e3},
                age_ms=age_ms,
                fps=fps,
                frames=before.frames + 1,
                failures=before.failures + (failed is not None),
                message=in_one_line(failed) if failed is not None else before.message,
            )

    def reset(self) -> None:
        """Begin another stream, on the frames' thread: forget whom to follow and what was held."""
        self._pipeline.reset()
        self._held = None
        self._last_time_s = None
        self._transition_from_s = -math.inf
        self._before = None

    def close(self) -> None:
        """Release tracker and network; harmless when done twice."""
        self._closed = True
        self._closing.close()

    def __enter__(self) -> LiveEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_SPEECH: Final = np.array([au.id in SPEECH_UNITS for au in AUS])


def _on_lost(on_lost: str) -> str:
    if on_lost not in LIVE_ON_LOST:
        raise ConfigError(f"--on-lost: must be one of {', '.join(LIVE_ON_LOST)}, got {on_lost!r}")
    return on_lost


def _transition_s(seconds: float) -> float:
    if not 0 <= seconds <= 10:
        raise ConfigError(f"--transition: must be 0 to 10 seconds, got {seconds}")
    return float(seconds)


__all__ = ["LIVE_ON_LOST", "SPEECH_UNITS", "LiveEngine", "LiveState", "TokenSource"]
