"""The live engine: changes while frames run, transitions, gains, lost faces, calibration."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.config import LIVE_ON_LOST
from rt_swap.contract import TOKEN_DIM
from rt_swap.errors import ConfigError, ContractError, ExpressionError, InferenceError
from rt_swap.frames import F32, U8, Frame, FrameStatus
from rt_swap.io.slate import slate
from rt_swap.live.calibration import Neutral
from rt_swap.live.engine import SPEECH_UNITS, LiveEngine
from rt_swap.model import ModelBundle, load_bundle
from rt_swap.pipeline import Pipeline, Work
from rt_swap.swapper import Swapper
from tests.support.expressions import clip, still
from tests.support.faces import face_at
from tests.support.swapping import sitting_swapper
from tests.support.tiny_model import tiny_bundle
from tests.support.videos import moving_portrait

HW = (120, 160)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return load_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def swapper(bundle: ModelBundle) -> Iterator[Swapper]:
    with sitting_swapper(bundle) as made:
        yield made


@pytest.fixture
def picture() -> U8:
    rng = np.random.default_rng(4)
    return rng.integers(0, 255, (*HW, 3), dtype=np.uint8)


class Asked:
    """What the pipeline was asked for, frame by frame."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[F32 | None] = []
        self.gains: list[F32 | None] = []
        self.modes: list[str | float] = []
        self.bases: list[F32 | None] = []
        generate = Pipeline.generate

        def spy(
            pipeline: Pipeline,
            work: Work,
            tokens: F32 | None,
            gains: F32 | None = None,
            mode: str | float = "absolute",
            neutral_tokens: F32 | None = None,
        ) -> Work:
            self.tokens.append(None if tokens is None else tokens.copy())
            self.gains.append(None if gains is None else gains.copy())
            self.modes.append(mode)
            self.bases.append(neutral_tokens)
            return generate(pipeline, work, tokens, gains, mode, neutral_tokens)

        monkeypatch.setattr(Pipeline, "generate", spy)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def frame_of(picture: U8, number: int, rate: int = 30) -> Frame:
    return Frame(picture, number, Fraction(1, rate))


def level(bundle: ModelBundle, value: float) -> object:
    """A still whose tokens all hold one value."""
    made = still(value)
    return type(made)(**{**made.__dict__, "model_sha256": bundle.sha256})


def loop(bundle: ModelBundle, values: list[float], times_s: list[float], duration_s: float):
    return clip(values, times_s, duration_s, model_sha256=bundle.sha256)


# --- expressions and transitions ---
def test_without_expression_frames_pass_bit_for_bit(swapper: Swapper, picture: U8) -> None:
    with LiveEngine(swapper) as engine:
        result = engine.process(frame_of(picture, 0))
        np.testing.assert_array_equal(result.frame.frame_bgr, picture)
        assert result.frame.frame_bgr is not picture
        assert engine.state.face_found
        assert engine.state.expression == ""


def test_first_frame_shows_the_expression_at_once(swapper: Swapper, picture: U8) -> None:
    # nobody's own face may flash up before the expression they chose
    with LiveEngine(swapper, transition_s=1.0) as engine:
        engine.set_expression(swapper.preset("smile"), name="smile")
        engine.set_keep_blink(False)
        result = engine.process(frame_of(picture, 0))
        expected = swapper.process(frame_of(picture, 0), swapper.preset("smile")).frame
    assert result.status is FrameStatus.SWAPPED
    np.testing.assert_array_equal(result.frame.frame_bgr, expected.frame_bgr)


def test_transition_is_smooth_monotonic_and_ends(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    with LiveEngine(swapper, transition_s=0.5) as engine:
        engine.set_expression(level(bundle, 1.0), name="one")
        engine.process(frame_of(picture, 0))
        engine.set_expression(level(bundle, 3.0), name="three")
        for number in range(1, 20):
            engine.process(frame_of(picture, number))
        assert engine.state.expression == "three"
    values = np.array([t[0, 0] for t in asked.tokens if t is not None])
    assert len(values) == 20
    assert values[0] == values[1] == 1.0
    assert (np.diff(values) >= 0).all()
    assert np.diff(values).max() < 0.3
    np.testing.assert_array_equal(values[16:], 3.0)
    assert 1.9 < values[8] < 2.1


def test_fading_in_and_out_scales_gains_not_tokens(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    with LiveEngine(swapper, transition_s=0.3) as engine:
        engine.process(frame_of(picture, 0))
        engine.set_expression(level(bundle, 2.0), name="two")
        for number in range(1, 12):
            engine.process(frame_of(picture, number))
        engine.set_expression(None, name="")
        last = [engine.process(frame_of(picture, number)) for number in range(12, 24)]
    assert asked.tokens[0] is None
    shown = [(t, g) for t, g in zip(asked.tokens, asked.gains, strict=True) if t is not None]
    assert {float(t[3, 3]) for t, _ in shown} == {2.0}
    gains = [float(g[0]) for _, g in shown if g is not None]
    assert 0 < gains[0] < 0.2
    assert max(gains) == 1.0
    assert gains[-1] < 0.2
    np.testing.assert_array_equal(last[-1].frame.frame_bgr, picture)


def test_hot_swap_from_another_thread_loses_no_frame(
    swapper: Swapper, bundle: ModelBundle, picture: U8
) -> None:
    presets = [swapper.preset(name) for name in ("smile", "anger", "fear", "surprise")]
    ended = threading.Event()
    failures: list[BaseException] = []

    def change() -> None:
        number = 0
        try:
            while not ended.is_set():
                number += 1
                engine.set_expression(presets[number % 4], name=presets[number % 4].name)
                engine.set_gains({"mouth": number % 3 / 2, "brows": number % 5 / 4})
                engine.set_mode(("absolute", "relative")[number % 2])
                engine.set_keep_speech(number % 3 == 0)
                assert engine.state.calibrating_left_s >= 0
        except BaseException as error:
            failures.append(error)

    with LiveEngine(swapper) as engine:
        engine.set_expression(presets[0], name="smile")
        changer = threading.Thread(target=change)
        changer.start()
        try:
            results = [engine.process(frame_of(picture, number)) for number in range(40)]
        finally:
            ended.set()
            changer.join()
        assert not failures
        assert [r.frame.pts for r in results] == list(range(40))
        assert {r.status for r in results} == {FrameStatus.SWAPPED}
        assert engine.state.frames == 40
        assert engine.state.failures == 0


def test_clip_loops_from_when_it_was_chosen(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    source = loop(bundle, [0.0, 1.0, 2.0], [0.0, 0.1, 0.2], 0.3)
    with LiveEngine(swapper, transition_s=0.0) as engine:
        for number in range(5):
            engine.process(frame_of(picture, number, 10))
        engine.set_expression(source, name="clip")
        for number in range(5, 12):
            engine.process(frame_of(picture, number, 10))
    values = [float(t[0, 0]) for t in asked.tokens if t is not None]
    np.testing.assert_allclose(values, [0, 1, 2, 0, 1, 2, 0], atol=1e-4)


def test_live_source_is_followed_and_its_absence_is_no_own_face(
    swapper: Swapper, picture: U8, asked: Asked
) -> None:
    class Moving:
        value: float | None = 1.0

        def tokens_at(self, time_s: float) -> F32 | None:
            if self.value is None:
                return None
            return np.full((NUM_AUS, TOKEN_DIM), self.value, np.float32)

        def neutral(self) -> F32 | None:
            return np.full((NUM_AUS, TOKEN_DIM), 0.25, np.float32)

    source = Moving()
    with LiveEngine(swapper, on_lost="slate") as engine:
        engine.set_mode("relative")
        engine.set_live_source(source, name="camera 2")
        assert engine.process(frame_of(picture, 0)).status is FrameStatus.SWAPPED
        source.value = 2.0
        engine.process(frame_of(picture, 1))
        source.value = None
        gone = engine.process(frame_of(picture, 2))
    assert [float(t[0, 0]) for t in asked.tokens if t is not None] == [1.0, 2.0]
    assert asked.bases[0] is not None
    assert float(asked.bases[0][0, 0]) == 0.25
    assert gone.status is FrameStatus.NO_FACE
    np.testing.assert_array_equal(gone.frame.frame_bgr, slate((HW[1], HW[0])))


def test_modes_turn_into_each_other_and_not_through_the_own_face(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    with LiveEngine(swapper, transition_s=0.4) as engine:
        engine.set_expression(level(bundle, 1.0), name="one")
        engine.process(frame_of(picture, 0))
        engine.set_mode("relative")
        for number in range(1, 16):
            engine.process(frame_of(picture, number))
    relative = np.array(asked.modes, np.float64)
    assert relative[0] == 0.0
    assert relative[-1] == 1.0
    assert (np.diff(relative) >= 0).all()
    assert np.diff(relative).max() < 0.3
    assert {0.0 if g is None else float(g[0]) for g in asked.gains} == {1.0}
    neutral = swapper.preset("neutral").tokens[0]
    np.testing.assert_array_equal(asked.bases[-1], neutral)


def test_turning_to_a_source_that_sees_nobody_goes_on_with_what_was_shown(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    """A second camera whose chair is empty must not fade to the person's own face."""

    class Empty:
        value: float | None = None

        def tokens_at(self, time_s: float) -> F32 | None:
            return None if self.value is None else np.full((NUM_AUS, TOKEN_DIM), self.value, "f4")

        def neutral(self) -> F32 | None:
            return None

    source = Empty()
    with LiveEngine(swapper, transition_s=0.3) as engine:
        engine.set_expression(level(bundle, 1.0), name="one")
        engine.process(frame_of(picture, 0))
        engine.set_live_source(source, name="camera 2")
        for number in range(1, 31):
            assert engine.process(frame_of(picture, number)).status is FrameStatus.SWAPPED
        source.value = 3.0  # somebody sits down
        for number in range(31, 50):
            engine.process(frame_of(picture, number))
    values = [None if t is None else float(t[0, 0]) for t in asked.tokens]
    assert set(values[:31]) == {1.0}
    assert values[-1] == 3.0
    assert {0.0 if g is None else float(g[0]) for g in asked.gains} == {1.0}


# --- gains, speech, blink ---
def test_gains_are_followed_at_once_and_smoothly(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    with LiveEngine(swapper, transition_s=0.25) as engine:
        engine.set_expression(level(bundle, 1.0), name="one")
        engine.set_gains("all=1")
        engine.process(frame_of(picture, 0))
        for number in range(1, 31):  # a slider that somebody pulls down over a second
            engine.set_gains({"brows": 1 - number / 30, "AU12": 2.0})
            engine.process(frame_of(picture, number))
        for number in range(31, 50):
            engine.process(frame_of(picture, number))
    brow = np.array([g[AuId.AU1.index] for g in asked.gains if g is not None])
    wanted = np.concatenate([[1.0], 1 - np.arange(1, 31) / 30, np.zeros(19)])
    assert np.abs(brow - wanted).max() < 0.1
    assert brow[-1] == 0.0
    assert asked.gains[-1] is not None
    assert asked.gains[-1][AuId.AU12.index] == 2.0
    assert asked.gains[-1][AuId.AU26.index] == 1.0


def test_keep_speech_and_blink_leave_those_units_to_the_target(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    with LiveEngine(swapper, transition_s=0.0) as engine:
        engine.set_expression(level(bundle, 1.0), name="one")
        engine.set_keep_speech(True)
        engine.process(frame_of(picture, 0))
        engine.set_keep_blink(False)
        engine.set_keep_speech(False)
        engine.process(frame_of(picture, 1))
    kept = {AuId.AU45, *SPEECH_UNITS}
    first, second = asked.gains
    assert first is not None
    assert {au for au in AuId if first[au.index] == 0.0} == kept
    assert first[AuId.AU12.index] == 1.0
    assert second is not None
    assert (second == 1.0).all()


def test_a_still_that_winks_may_wink_though_blinks_are_kept(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    winking, blinking = level(bundle, 1.0), level(bundle, 1.0)
    winking.aus_lr[0, AuId.AU45.index] = (0.9, 0.1)
    blinking.aus_lr[0, AuId.AU45.index] = (0.9, 0.9)  # a picture taken at the wrong moment
    with LiveEngine(swapper, transition_s=0.0) as engine:
        for number, expression in enumerate((winking, blinking)):
            engine.set_expression(expression, name="x")
            engine.process(frame_of(picture, number))
    assert [float(g[AuId.AU45.index]) for g in asked.gains if g is not None] == [1.0, 0.0]


# --- lost faces ---
def gone_from(number: int, until: int = 10_000) -> Callable[[int], list[object]]:
    face = face_at(80, 60, 90)
    return lambda n: [] if number <= n < until else [face]


@pytest.mark.parametrize("on_lost", LIVE_ON_LOST)
def test_lost_face_shows_what_was_asked_for(bundle: ModelBundle, picture: U8, on_lost: str) -> None:
    other = picture.copy()
    other[:20, :30] = 255  # no more than that, or it were another scene
    with (
        sitting_swapper(bundle, faces=gone_from(3, 30)) as swapper,  # type: ignore[arg-type]
        LiveEngine(swapper, on_lost=on_lost) as engine,
    ):
        engine.set_expression(swapper.preset("smile"), name="smile")
        seen = [engine.process(frame_of(picture, n)) for n in range(3)]
        held = engine.process(frame_of(other, 3))
        assert held.status is FrameStatus.HELD
        last_held = held
        for n in range(4, 12):
            result = engine.process(frame_of(other, n))
            if result.status is FrameStatus.HELD:
                last_held = result
        lost = [engine.process(frame_of(other, n)) for n in range(12, 30)]
        back = engine.process(frame_of(picture, 30))
        assert not {r.status for r in lost} - {FrameStatus.NO_FACE}
    shown = lost[-1].frame.frame_bgr
    assert shown is not lost[-2].frame.frame_bgr
    if on_lost == "passthrough":
        np.testing.assert_array_equal(shown, other)
    elif on_lost == "hold":
        np.testing.assert_array_equal(shown, last_held.frame.frame_bgr)
    elif on_lost == "slate":
        np.testing.assert_array_equal(shown, slate((HW[1], HW[0])))
    else:
        assert np.abs(np.diff(shown.astype(int), axis=1)).max() < 60
    assert back.status is FrameStatus.SWAPPED
    np.testing.assert_array_equal(back.frame.frame_bgr, seen[-1].frame.frame_bgr)


@pytest.mark.parametrize("on_lost", ["hold", "slate", "blur"])
def test_a_face_that_moves_away_unseen_does_not_leave_bare(
    bundle: ModelBundle, picture: U8, on_lost: str
) -> None:
    """For a moment after the tracker lost it the old place would be re-expressed, and the face
    itself, a little further on, would not.
    """
    elsewhere = picture.copy()
    elsewhere[:20, :30] = 255
    with (
        sitting_swapper(bundle, faces=gone_from(3, 30)) as swapper,  # type: ignore[arg-type]
        LiveEngine(swapper, on_lost=on_lost) as engine,
    ):
        engine.set_expression(swapper.preset("smile"), name="smile")
        shown = [engine.process(frame_of(picture, n)) for n in range(3)][-1].frame.frame_bgr
        statuses = set()
        for n in range(3, 12):
            result = engine.process(frame_of(elsewhere, n))
            statuses.add(result.status)
            if result.status is FrameStatus.HELD:
                assert result.repeats
            if result.repeats:
                np.testing.assert_array_equal(result.frame.frame_bgr, shown)
            # nothing of the newer picture
            assert not (result.frame.frame_bgr[:20, :30] == 255).all()
        assert statuses == {FrameStatus.HELD, FrameStatus.NO_FACE}


def test_what_happened_while_hidden_is_not_shown_afterwards(
    bundle: ModelBundle, picture: U8
) -> None:
    with (
        sitting_swapper(bundle, faces=gone_from(3)) as swapper,  # type: ignore[arg-type]
        LiveEngine(swapper, on_lost="hold") as engine,
    ):
        engine.set_expression(swapper.preset("smile"), name="smile")
        for n in range(3):
            engine.process(frame_of(picture, n))
            engine.forget_held()
        gone = [engine.process(frame_of(picture, n)) for n in range(3, 20)][-1]
    assert gone.status is FrameStatus.NO_FACE
    np.testing.assert_array_equal(gone.frame.frame_bgr, slate((HW[1], HW[0])))


def test_hold_never_shows_the_own_face_before_there_was_a_swap(
    bundle: ModelBundle, picture: U8
) -> None:
    with (
        sitting_swapper(bundle, faces=lambda _: []) as swapper,
        LiveEngine(swapper) as engine,
    ):
        engine.set_expression(swapper.preset("smile"), name="smile")
        first = engine.process(frame_of(picture, 0))
    np.testing.assert_array_equal(first.frame.frame_bgr, slate((HW[1], HW[0])))


@pytest.mark.parametrize("on_lost", LIVE_ON_LOST)
@pytest.mark.parametrize("part", ["track", "generate", "compose"])
@pytest.mark.parametrize("error", [InferenceError, RuntimeError])
def test_a_frame_that_fails_anywhere_is_not_shown(
    swapper: Swapper,
    picture: U8,
    monkeypatch: pytest.MonkeyPatch,
    on_lost: str,
    part: str,
    error: type[Exception],
) -> None:
    other = np.ascontiguousarray(picture[:, ::-1])

    def broken(*_: object, **__: object) -> None:
        raise error("broken on purpose")

    with LiveEngine(swapper, on_lost=on_lost) as engine:
        engine.set_expression(swapper.preset("smile"), name="smile")
        good = engine.process(frame_of(picture, 0))
        with monkeypatch.context() as patch:
            patch.setattr(Pipeline, part, broken)
            bad = engine.process(frame_of(other, 1))
        assert bad.status is FrameStatus.NO_FACE
        assert engine.state.failures == 1
        assert "broken on purpose" in engine.state.message
        shown = bad.frame.frame_bgr
        expected = good.frame.frame_bgr if on_lost == "hold" else slate((HW[1], HW[0]))
        np.testing.assert_array_equal(shown, expected)
        assert engine.process(frame_of(picture, 2)).status is FrameStatus.SWAPPED


def test_error_that_stays_is_raised_in_the_end(
    swapper: Swapper, picture: U8, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise InferenceError("broken for good")

    monkeypatch.setattr(Pipeline, "generate", broken)
    with LiveEngine(swapper) as engine:
        engine.set_expression(swapper.preset("smile"), name="smile")
        for number in range(30):
            engine.process(frame_of(picture, number))
        with pytest.raises(InferenceError, match="broken for good"):
            engine.process(frame_of(picture, 30))
        assert engine.state.failures == 30


def test_resolution_may_change_in_the_middle(swapper: Swapper, picture: U8) -> None:
    small = np.ascontiguousarray(picture[::2, ::2])
    with LiveEngine(swapper) as engine:
        engine.set_expression(swapper.preset("smile"), name="smile")
        engine.process(frame_of(picture, 0))
        result = engine.process(frame_of(small, 1))
        assert result.status is FrameStatus.SWAPPED
        assert result.frame.frame_bgr.shape == small.shape
        assert engine.process(frame_of(picture, 2)).frame.frame_bgr.shape == picture.shape
        assert engine.stand_in((64, 48)).shape == (48, 64, 3)


def test_stand_in_is_the_held_picture_or_the_slate(swapper: Swapper, picture: U8) -> None:
    size_wh = (HW[1], HW[0])
    with LiveEngine(swapper) as engine:
        engine.set_expression(swapper.preset("smile"), name="smile")
        np.testing.assert_array_equal(engine.stand_in(size_wh), slate(size_wh))
        shown = engine.process(frame_of(picture, 0)).frame.frame_bgr
        np.testing.assert_array_equal(engine.stand_in(size_wh), shown)
        engine.set_on_lost("blur")
        engine.process(frame_of(picture, 1))
        np.testing.assert_array_equal(engine.stand_in(size_wh), slate(size_wh))


# --- calibration ---
def test_calibration_measures_the_own_tokens_and_becomes_the_base(
    swapper: Swapper, bundle: ModelBundle, picture: U8, asked: Asked
) -> None:
    kept: list[Neutral] = []
    with LiveEngine(swapper, transition_s=0.0) as engine:
        engine.on_calibrated(kept.append)
        engine.set_mode("relative")
        engine.set_expression(level(bundle, 1.0), name="one")
        engine.start_calibration(1.0)
        assert engine.state.calibrating_left_s == 1.0
        left = []
        for number in range(36):
            engine.process(frame_of(picture, number))
            left.append(engine.state.calibrating_left_s)
        state = engine.state
        assert state.calibrated
        assert state.neutral_origin == "calibrated"
        assert state.calibration_message == "calibrated"
        assert state.calibrations == 1
        assert left[:31] == sorted(left[:31], reverse=True)
        assert left[31:] == [0.0] * 5
        for number in range(36, 220):
            engine.process(frame_of(picture, number))
    own = swapper.encode(picture).tokens[0]
    (neutral,) = kept
    np.testing.assert_allclose(neutral.tokens, own, atol=1e-4)
    assert asked.bases[0] is not None
    np.testing.assert_array_equal(asked.bases[0], swapper.preset("neutral").tokens[0])
    assert asked.bases[-1] is neutral.tokens  # it glided there
    assert asked.bases[40] is not None
    assert np.abs(asked.bases[40] - neutral.tokens).max() > 0


def test_calibration_without_a_face_says_what_to_do(bundle: ModelBundle, picture: U8) -> None:
    with (
        sitting_swapper(bundle, faces=lambda _: []) as swapper,
        LiveEngine(swapper) as engine,
    ):
        engine.start_calibration(0.5)
        for number in range(20):
            engine.process(frame_of(picture, number))
        assert not engine.state.calibrated
        assert "look into the camera" in engine.state.calibration_message
        assert engine.state.calibrations == 1


def test_neutral_is_searched_for_where_none_is_known(
    swapper: Swapper, picture: U8, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the tiny model's intensities are random
    monkeypatch.setattr("rt_swap.live.calibration.AT_REST", 1.0)
    with LiveEngine(swapper) as engine:
        for number in range(50):
            engine.process(frame_of(picture, number))
        assert engine.state.neutral_origin == "found"
        engine.set_neutral(Neutral(*(np.zeros(1, np.float32),) * 2, "stored"))
        engine.process(frame_of(picture, 50))
        assert engine.state.neutral_origin == "stored"


# --- options and ends ---
def test_error_options(swapper: Swapper, bundle: ModelBundle, picture: U8) -> None:
    with pytest.raises(ConfigError, match="--on-lost: must be one of hold, passthrough"):
        LiveEngine(swapper, on_lost="freeze")
    with pytest.raises(ConfigError, match="--transition: must be 0 to 10"):
        LiveEngine(swapper, transition_s=-1.0)
    with LiveEngine(swapper) as engine:
        with pytest.raises(ExpressionError, match="made by model aaaa"):
            engine.set_expression(still(), name="foreign")
        with pytest.raises(ConfigError, match="--mode"):
            engine.set_mode("both")
        with pytest.raises(ConfigError, match="there is no 'ears'"):
            engine.set_gains("ears=1")
        with pytest.raises(ContractError, match="gains must be"):
            engine.set_gains(np.ones(3, np.float32))
        with pytest.raises(ConfigError, match=r"0\.5 to 30 seconds"):
            engine.start_calibration(0.1)
    with pytest.raises(ConfigError, match="after close"):
        engine.process(frame_of(picture, 0))
    engine.close()


def test_state_tells_rate_age_and_stages(swapper: Swapper, picture: U8) -> None:
    import time

    with LiveEngine(swapper) as engine:
        assert engine.state.status is None
        for number in range(10):
            frame = Frame(picture, number, Fraction(1, 30), time.perf_counter())
            engine.process(frame)
        state = engine.state
        assert state.fps == pytest.approx(30, abs=0.5)
        assert {"track", "crop", "generate", "compose", "process"} <= set(state.stage_ms)
        assert state.age_ms >= state.stage_ms["process"]
        engine.emitted(123.0)
        assert engine.state.age_ms == 123.0


def test_a_real_face_smiles_and_can_be_changed_while_it_runs(bundle: ModelBundle) -> None:
    with (
        Swapper.load(bundle.path, "onnxruntime", cache=None, threads=1) as swapper,
        LiveEngine(swapper, transition_s=0.1) as engine,
    ):
        engine.set_expression(swapper.preset("smile"), name="smile")
        results = []
        for number, picture in enumerate(moving_portrait(12)):
            if number == 6:
                engine.set_expression(swapper.preset("anger"), name="anger")
            results.append((picture, engine.process(frame_of(picture, number))))
    assert {r.status for _, r in results} == {FrameStatus.SWAPPED}
    for picture, result in results:
        changed = (result.frame.frame_bgr != picture).any(axis=2)
        assert changed.mean() > 0.02
