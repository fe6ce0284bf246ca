"""One frame's way: what is cut, what is shown, and what happens when nobody is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from rt_swap import geometry, ops
from rt_swap.aus import NUM_AUS
from rt_swap.backends import get_backend
from rt_swap.backends.base import Session
from rt_swap.contract import (
    CROP_SIZE_PX,
    ENCODER_SPEC,
    GENERATOR_SPEC,
    STABLE_LANDMARKS,
    TOKEN_DIM,
    template_xy,
)
from rt_swap.errors import ConfigError, ContractError, InferenceError
from rt_swap.frames import F32, FaceCrop, Frame, FrameStatus, TrackState
from rt_swap.model import ModelBundle, load_bundle
from rt_swap.pipeline import AuMeter, Pipeline
from tests.support.faces import face_at
from tests.support.tiny_model import tiny_bundle

HW = (300, 420)
FACE = face_at(200.0, 150.0, 180.0, 0.1)


class ScriptedFollower:
    """Gives one state per frame; the face sits still."""

    def __init__(self, *states: TrackState) -> None:
        self.states = list(states)
        self.calls = 0
        self.resets = 0
        self.track_id = 0

    def follow(self, frame: Frame) -> FaceCrop | None:
        state = self.states[min(self.calls, len(self.states) - 1)]
        self.calls += 1
        if state is TrackState.LOST:
            return None
        M = geometry.crop_from_landmarks(FACE.landmarks_xy)
        return FaceCrop(M, state, FACE if state is TrackState.TRACKED else None, self.track_id)

    def reset(self) -> None:
        self.resets += 1


TRACKED, HELD, LOST = TrackState.TRACKED, TrackState.HELD, TrackState.LOST


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return load_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def generator(bundle: ModelBundle) -> Iterator[Session]:
    with get_backend("onnxruntime").load(bundle.generator_path, GENERATOR_SPEC, 1) as session:
        yield session


def make(
    bundle: ModelBundle,
    generator: Session | None,
    *states: TrackState,
    on_lost: str = "passthrough",
) -> Pipeline:
    follower = ScriptedFollower(*(states or (TRACKED,)))
    return Pipeline(
        bundle,
        get_backend("onnxruntime"),
        follower,
        on_lost=on_lost,
        threads=1,
        session=generator,
    )


def frame(index: int = 0, hw: tuple[int, int] = HW) -> Frame:
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 255, (hw[0] // 10 + 1, hw[1] // 10 + 1, 3), dtype=np.uint8)
    picture = np.ascontiguousarray(coarse.repeat(10, 0).repeat(10, 1)[: hw[0], : hw[1]])
    return Frame(picture, index * 100, Fraction(1, 3000), 1.5)


def tokens(seed: int = 1) -> F32:
    return np.random.default_rng(seed).normal(size=(NUM_AUS, TOKEN_DIM)).astype(np.float32)


def test_process_changes_the_face_and_nothing_else(bundle: ModelBundle, generator: Session) -> None:
    given = frame()
    before = given.frame_bgr.copy()
    result = make(bundle, generator).process(given, tokens())
    assert result.status is FrameStatus.SWAPPED
    np.testing.assert_array_equal(given.frame_bgr, before)
    assert not np.shares_memory(result.frame.frame_bgr, given.frame_bgr)
    assert (result.frame.pts, result.frame.time_base) == (given.pts, given.time_base)
    assert result.frame.captured_s == given.captured_s
    assert result.crop is not None
    M_frame_from_crop = geometry.invert(result.crop.M_crop_from_frame)
    x0, y0, x1, y1 = geometry.roi_of_crop(M_frame_from_crop, CROP_SIZE_PX, HW)
    changed = (result.frame.frame_bgr != before).any(axis=2)
    assert changed[y0:y1, x0:x1].mean() > 0.1
    changed[y0:y1, x0:x1] = False
    assert not changed.any()
    assert list(result.stage_ms) == ["track", "crop", "generate", "compose"]
    assert all(ms >= 0 for ms in result.stage_ms.values())
    assert result.target_aus_lr is not None
    assert result.target_aus_lr.shape == (NUM_AUS, 2)


class Remembers:
    """The generator, and what it was given."""

    def __init__(self, generator: Session) -> None:
        self.generator, self.spec = generator, generator.spec
        self.seen: list[np.ndarray] = []

    def run(self, inputs: Mapping[str, F32]) -> Mapping[str, F32]:
        self.seen.append(inputs["landmarks_xy"].copy())
        return self.generator.run(inputs)


def test_landmarks_are_given_in_the_crop_and_kept_while_the_face_is_held(
    bundle: ModelBundle, generator: Session
) -> None:
    spy = Remembers(generator)
    pipeline = make(bundle, spy, TRACKED, HELD)  # type: ignore[arg-type]
    for i in range(2):
        pipeline.process(frame(i), tokens())
    first, held = spy.seen
    assert first.shape == (1, 478, 2) and first.dtype == np.float32
    outer = first[0, list(STABLE_LANDMARKS)]
    np.testing.assert_allclose(outer, template_xy(), atol=12)  # this face's, not the template's
    np.testing.assert_array_equal(held, first)
    # a crop alone is not enough to know how a face moves: somebody else's, or after a reset
    follower = pipeline._follower
    assert isinstance(follower, ScriptedFollower)
    follower.track_id = 7
    for change in (lambda: None, pipeline.reset):
        change()
        given = frame(5)
        result = pipeline.process(given, tokens())
        assert len(spy.seen) == 2 and result.status is FrameStatus.NO_FACE
        np.testing.assert_array_equal(result.frame.frame_bgr, given.frame_bgr)
        follower.track_id = 0


def test_landmarks_that_tremble_are_steadied_and_a_reset_forgets_them(
    bundle: ModelBundle, generator: Session
) -> None:
    rng = np.random.default_rng(0)
    shaken = [
        replace(FACE, landmarks_xy=FACE.landmarks_xy + rng.normal(0, 0.5, FACE.landmarks_xy.shape))
        for _ in range(9)
    ]

    class Shaken(ScriptedFollower):
        def follow(self, frame: Frame) -> FaceCrop | None:
            crop = super().follow(frame)
            assert crop is not None
            return replace(crop, face=shaken[self.calls - 1])

    spy = Remembers(generator)
    pipeline = make(bundle, spy, TRACKED)  # type: ignore[arg-type]
    pipeline._follower = Shaken(TRACKED)
    for i in range(8):
        pipeline.process(frame(i), tokens())
    M = geometry.crop_from_landmarks(FACE.landmarks_xy)
    raw = np.array([geometry.apply(M, face.landmarks_xy) for face in shaken])
    seen = np.array(spy.seen)[:, 0]
    np.testing.assert_allclose(seen[0], raw[0], atol=1e-4)
    assert np.diff(seen, axis=0).std() < 0.6 * np.diff(raw[:8], axis=0).std()
    pipeline.reset()
    pipeline.process(frame(8), tokens())
    np.testing.assert_allclose(spy.seen[-1][0], raw[8], atol=1e-4)


def test_process_is_what_its_parts_are(bundle: ModelBundle, generator: Session) -> None:
    given, source = frame(3), tokens()
    M_crop_from_frame = geometry.crop_from_landmarks(FACE.landmarks_xy)
    crop = ops.crop_rgb(given.frame_bgr, geometry.invert(M_crop_from_frame), CROP_SIZE_PX)
    out = generator.run(
        {
            "target_rgb": crop,
            "landmarks_xy": geometry.apply(M_crop_from_frame, FACE.landmarks_xy)[None].astype(
                np.float32
            ),
            "source_tokens": source[None],
            "base_tokens": np.zeros((1, NUM_AUS, TOKEN_DIM), np.float32),
            "gains": np.ones((1, NUM_AUS), np.float32),
            "relative": np.zeros((1, 1), np.float32),
        }
    )
    expected = ops.compose_bgr(
        given.frame_bgr,
        M_crop_from_frame,
        out["flow_xy"],
        out["keep"],
        out["fill_rgb"],
        out["shade"],
        ops.feather(CROP_SIZE_PX),
    )
    aus = out["aus_lr"][0].copy()
    result = make(bundle, generator).process(given, source)
    np.testing.assert_array_equal(result.frame.frame_bgr, expected)
    np.testing.assert_array_equal(result.target_aus_lr, aus)


@pytest.mark.parametrize("what", ["gains of zero", "the target's own tokens"])
def test_nothing_asked_for_gives_the_input_bit_for_bit(
    bundle: ModelBundle, generator: Session, what: str
) -> None:
    pipeline = make(bundle, generator)
    given = frame(2)
    if what == "gains of zero":
        result = pipeline.process(given, tokens(), np.zeros(NUM_AUS, np.float32))
    else:
        work = pipeline.track(given)
        assert work.buffers is not None
        encoder = get_backend("onnxruntime").load(bundle.encoder_path, ENCODER_SPEC, 1)
        own = encoder.run({"source_rgb": work.buffers.target_rgb})["tokens"][0].copy()
        result = pipeline.process(given, own)
    assert result.status is FrameStatus.SWAPPED
    np.testing.assert_array_equal(result.frame.frame_bgr, given.frame_bgr)


def test_gains_are_per_au(bundle: ModelBundle, generator: Session) -> None:
    pipeline = make(bundle, generator)
    gains = np.zeros(NUM_AUS, np.float32)
    gains[4] = 1.0
    one = pipeline.process(frame(), tokens(), gains).frame.frame_bgr
    source = tokens().copy()
    source[:4] += 1.0  # AUs that are not taken
    again = pipeline.process(frame(), source, gains).frame.frame_bgr
    np.testing.assert_array_equal(one, again)
    source[4] += 1.0
    assert (pipeline.process(frame(), source, gains).frame.frame_bgr != one).any()


def test_relative_with_the_sources_own_rest_changes_nothing(
    bundle: ModelBundle, generator: Session
) -> None:
    pipeline, given = make(bundle, generator), frame()
    result = pipeline.process(given, tokens(), mode="relative", neutral_tokens=tokens())
    np.testing.assert_array_equal(result.frame.frame_bgr, given.frame_bgr)
    result = pipeline.process(given, tokens(1), mode="relative", neutral_tokens=tokens(2))
    assert (result.frame.frame_bgr != given.frame_bgr).any()


def test_held_is_swapped_with_the_last_crop(bundle: ModelBundle, generator: Session) -> None:
    pipeline = make(bundle, generator, TRACKED, HELD)
    first = pipeline.process(frame(), tokens())
    second = pipeline.process(frame(), tokens())
    assert (first.status, second.status) == (FrameStatus.SWAPPED, FrameStatus.HELD)
    np.testing.assert_array_equal(first.frame.frame_bgr, second.frame.frame_bgr)


def test_lost_passthrough_shows_the_frame(bundle: ModelBundle, generator: Session) -> None:
    given = frame()
    result = make(bundle, generator, LOST).process(given, tokens())
    assert result.status is FrameStatus.NO_FACE
    assert result.crop is None
    assert result.target_aus_lr is None
    np.testing.assert_array_equal(result.frame.frame_bgr, given.frame_bgr)
    assert not np.shares_memory(result.frame.frame_bgr, given.frame_bgr)


def test_lost_hold_shows_the_last_picture_again(bundle: ModelBundle, generator: Session) -> None:
    pipeline = make(bundle, generator, LOST, TRACKED, LOST, LOST, TRACKED, on_lost="hold")
    results = [pipeline.process(frame(i), tokens()) for i in range(5)]
    np.testing.assert_array_equal(results[0].frame.frame_bgr, frame(0).frame_bgr)
    results[1].frame.frame_bgr[0, 0] = 0  # the caller's own: what is held does not change with it
    for result in results[2:4]:
        assert result.status is FrameStatus.NO_FACE
        np.testing.assert_array_equal(result.frame.frame_bgr[1:], results[1].frame.frame_bgr[1:])
        np.testing.assert_array_equal(result.frame.frame_bgr[0, 0], frame(1).frame_bgr[0, 0])
    assert [r.frame.pts for r in results] == [0, 100, 200, 300, 400]
    assert results[4].status is FrameStatus.SWAPPED
    pipeline.reset()
    assert pipeline._follower.resets == 1  # type: ignore[attr-defined]
    pipeline._follower.states = [LOST]  # type: ignore[attr-defined]
    after = pipeline.process(frame(9), tokens())
    np.testing.assert_array_equal(after.frame.frame_bgr, frame(9).frame_bgr)


def test_lost_blur_hides_everything(bundle: ModelBundle, generator: Session) -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[::2] = 200  # detail everywhere
    picture[:, 160:] //= 2
    given = Frame(picture, 0, Fraction(1, 30))
    result = make(bundle, generator, LOST, on_lost="blur").process(given, tokens())
    shown = result.frame.frame_bgr.astype(int)
    assert np.abs(np.diff(shown, axis=0)).max() <= 4
    assert shown[120, 20] == pytest.approx((100, 100, 100), abs=4)
    assert shown[120, 300] == pytest.approx((50, 50, 50), abs=4)


def test_no_source_counts_as_nobody_but_still_reads_the_target(
    bundle: ModelBundle, generator: Session
) -> None:
    given = frame()
    result = make(bundle, generator).process(given, None)
    assert result.status is FrameStatus.NO_FACE
    assert result.target_aus_lr is not None
    np.testing.assert_array_equal(result.frame.frame_bgr, given.frame_bgr)


@pytest.mark.parametrize("placed", [(200.0, 150.0), (10.0, 290.0), (415.0, 5.0), (900.0, 900.0)])
def test_in_place_gives_the_same_picture(
    bundle: ModelBundle, generator: Session, placed: tuple[float, float]
) -> None:
    pipeline = make(bundle, generator)
    M = geometry.crop_from_landmarks(face_at(*placed, 180.0, 0.3).landmarks_xy)
    crop = FaceCrop(M, TRACKED, None, 0)
    pipeline._follower.follow = lambda _: crop  # type: ignore[method-assign]
    expected = pipeline.process(frame(5), tokens()).frame.frame_bgr
    given = frame(5)
    work = pipeline.generate(pipeline.track(given), tokens())
    result = pipeline.compose(work, in_place=True)
    assert result.frame.frame_bgr is given.frame_bgr
    off = np.abs(result.frame.frame_bgr.astype(int) - expected.astype(int))
    # the same arithmetic at another origin: a rounding may fall to the other side
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3


def test_in_place_leaves_a_read_only_frame_alone(bundle: ModelBundle, generator: Session) -> None:
    pipeline, given = make(bundle, generator), frame()
    given.frame_bgr.flags.writeable = False
    result = pipeline.compose(pipeline.generate(pipeline.track(given), tokens()), in_place=True)
    assert not np.shares_memory(result.frame.frame_bgr, given.frame_bgr)
    assert result.status is FrameStatus.SWAPPED


def test_parts_on_threads_of_their_own_do_not_mix_frames(
    bundle: ModelBundle, generator: Session
) -> None:
    from rt_swap import stream

    count = 10
    reference = make(bundle, generator)
    expected = [reference.process(frame(i), tokens(i)).frame.frame_bgr for i in range(count)]
    pipeline = make(bundle, generator)
    seen: list[np.ndarray] = []
    names: set[str] = set()

    def generate(item: tuple[int, object]) -> object:
        names.add(threading.current_thread().name)
        return pipeline.generate(item[1], tokens(item[0]))  # type: ignore[arg-type]

    stream.run(
        iter(range(count)),
        [("track", lambda i: (i, pipeline.track(frame(i)))), ("generate", generate)],
        lambda work: seen.append(pipeline.compose(work, in_place=False).frame.frame_bgr),
        slots=4,
    )
    assert names == {"rt_swap generate"}
    for actual, wanted in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_buffers_are_used_again(bundle: ModelBundle, generator: Session) -> None:
    pipeline = make(bundle, generator)
    addresses = set()
    for i in range(6):
        work = pipeline.track(frame(i))
        assert work.buffers is not None
        addresses.add(work.buffers.target_rgb.ctypes.data)
        pipeline.compose(pipeline.generate(work, tokens()))
    assert len(addresses) == 1


def test_results_are_the_callers_own(bundle: ModelBundle, generator: Session) -> None:
    pipeline = make(bundle, generator)
    first = pipeline.process(frame(0), tokens(0))
    assert first.target_aus_lr is not None
    picture, aus = first.frame.frame_bgr.copy(), first.target_aus_lr.copy()
    pipeline.process(frame(1), tokens(1))
    np.testing.assert_array_equal(first.frame.frame_bgr, picture)
    np.testing.assert_array_equal(first.target_aus_lr, aus)


def test_au_meter_reads_what_the_encoder_reads(bundle: ModelBundle, generator: Session) -> None:
    with get_backend("onnxruntime").load(bundle.encoder_path, ENCODER_SPEC, 1) as encoder:
        M = geometry.crop_from_landmarks(FACE.landmarks_xy)
        given = frame(8)
        read = AuMeter(encoder, 1).read(given.frame_bgr, FaceCrop(M, TRACKED, FACE, 0))
        crop = ops.crop_rgb(given.frame_bgr, geometry.invert(M), CROP_SIZE_PX)
        np.testing.assert_array_equal(read, encoder.run({"source_rgb": crop})["aus_lr"][0])


@pytest.mark.parametrize("hw", [(16, 16), (17, 41)])
def test_tiny_frames_pass(bundle: ModelBundle, generator: Session, hw: tuple[int, int]) -> None:
    result = make(bundle, generator).process(frame(0, hw), tokens())
    assert result.frame.frame_bgr.shape == (*hw, 3)


def test_errors(bundle: ModelBundle, generator: Session) -> None:
    with pytest.raises(ConfigError, match="--on-lost: must be one of passthrough, hold, blur"):
        make(bundle, generator, on_lost="freeze")
    pipeline = make(bundle, generator)
    with pytest.raises(ConfigError, match="--mode: must be one of absolute, relative"):
        pipeline.process(frame(), tokens(), mode="both")
    with pytest.raises(ConfigError, match="needs the source's resting face"):
        pipeline.process(frame(), tokens(), mode="relative")
    with pytest.raises(ContractError, match="source_tokens"):
        pipeline.process(frame(), tokens()[:3])
    with pytest.raises(ContractError, match="gains must be a float32 array, got float64"):
        pipeline.process(frame(), tokens(), np.ones(NUM_AUS))  # type: ignore[arg-type]


def test_a_pipeline_closes_what_it_loaded_only(bundle: ModelBundle) -> None:
    with make(bundle, None) as pipeline:
        pipeline.process(frame(), tokens())
    with pytest.raises(InferenceError):
        pipeline.process(frame(), tokens())
    shared = get_backend("onnxruntime").load(bundle.generator_path, GENERATOR_SPEC, 1)
    with make(bundle, shared):
        pass
    make(bundle, shared).process(frame(), tokens())
