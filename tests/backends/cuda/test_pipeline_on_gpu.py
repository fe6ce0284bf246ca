"""The pipeline and the Swapper over a fused session, against the CPU's: the same bits, whatever
happens to the face.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_swap import geometry
from rt_swap.aus import NUM_AUS
from rt_swap.backends import FusedSession, Session, get_backend
from rt_swap.contract import ENCODER_SPEC, GENERATOR_SPEC, TOKEN_DIM
from rt_swap.frames import F32, FaceCrop, Frame, FrameStatus, TrackState
from rt_swap.model import ModelBundle, load_bundle
from rt_swap.pipeline import Pipeline
from rt_swap.swapper import Swapper
from tests.support.faces import face_at
from tests.support.fake_gpu import EmulatedBackend, fatbin_for
from tests.support.swapping import SittingTracker
from tests.support.tiny_model import tiny_bundle
from tests.support.videos import moving_portrait, write_video

pytest.importorskip("rt_swap._warp", reason="needs the native module (make ext)")

HW = (180, 240)
FACE = face_at(120.0, 90.0, 110.0, 0.1)
TRACKED, HELD, LOST = TrackState.TRACKED, TrackState.HELD, TrackState.LOST


class Follower:
    def __init__(self, *states: TrackState) -> None:
        self._states, self._calls = states, 0

    def follow(self, frame: Frame) -> FaceCrop | None:
        state = self._states[min(self._calls, len(self._states) - 1)]
        self._calls += 1
        M = geometry.crop_from_landmarks(FACE.landmarks_xy)
        return None if state is LOST else FaceCrop(M, state, FACE, 0)

    def reset(self) -> None: ...


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return load_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> EmulatedBackend:
    return EmulatedBackend(fatbin_for(tmp_path_factory.mktemp("kernels") / "k.fatbin"))


@pytest.fixture(scope="module")
def fused(bundle: ModelBundle, emulated: EmulatedBackend) -> Iterator[Session]:
    with emulated.backend.load(bundle.generator_path, GENERATOR_SPEC, 0) as session:
        assert isinstance(session, FusedSession)
        yield session


@pytest.fixture(scope="module")
def plain(bundle: ModelBundle) -> Iterator[Session]:
    with get_backend("onnxruntime").load(bundle.generator_path, GENERATOR_SPEC, 1) as session:
        assert not isinstance(session, FusedSession)
        yield session


def make(bundle: ModelBundle, session: Session, *states: TrackState, **options: Any) -> Pipeline:
    follower = Follower(*(states or (TRACKED,)))
    return Pipeline(bundle, get_backend("onnxruntime"), follower, session=session, **options)


def frame(index: int = 0) -> Frame:
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 255, (HW[0] // 10, HW[1] // 10, 3), dtype=np.uint8)
    picture = np.ascontiguousarray(coarse.repeat(10, 0).repeat(10, 1))
    return Frame(picture, index, Fraction(1, 30), 1.5)


def tokens(seed: int = 1) -> F32:
    return np.random.default_rng(seed).normal(size=(NUM_AUS, TOKEN_DIM)).astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize("on_lost", ["passthrough", "hold"])
def test_parity_fused_and_plain_pipeline_give_the_same_bits(bundle, fused, plain, on_lost):
    states = (LOST, TRACKED, HELD, LOST, TRACKED)
    pipelines = [make(bundle, s, *states, on_lost=on_lost) for s in (fused, plain)]
    for k in range(len(states)):
        given = None if k == 4 else tokens(k)  # nobody's expression in the last frame
        ours, theirs = (p.process(frame(k), given, mode="absolute") for p in pipelines)
        assert ours.status is theirs.status
        np.testing.assert_array_equal(ours.frame.frame_bgr, theirs.frame.frame_bgr)
        if theirs.target_aus_lr is None:
            assert ours.target_aus_lr is None
        else:
            np.testing.assert_array_equal(ours.target_aus_lr, theirs.target_aus_lr)
    relative = [p.process(frame(9), tokens(9), mode="relative", neutral_tokens=tokens(8))
                for p in pipelines]  # fmt: skip
    np.testing.assert_array_equal(relative[0].frame.frame_bgr, relative[1].frame.frame_bgr)


def test_fused_in_place_writes_into_the_frame_and_only_where_it_may(bundle, fused):
    pipeline, given = make(bundle, fused), frame(3)
    expected = pipeline.process(given, tokens()).frame.frame_bgr
    work = pipeline.generate(pipeline.track(given), tokens())
    result = pipeline.compose(work, in_place=True)
    assert result.frame.frame_bgr is given.frame_bgr
    np.testing.assert_array_equal(given.frame_bgr, expected)
    read_only = frame(3)
    read_only.frame_bgr.flags.writeable = False
    work = pipeline.generate(pipeline.track(read_only), tokens())
    result = pipeline.compose(work, in_place=True)
    assert result.status is FrameStatus.SWAPPED
    np.testing.assert_array_equal(result.frame.frame_bgr, expected)


def test_fused_stages_are_told_and_the_frame_is_the_callers_own(bundle, fused):
    given = frame()
    before = given.frame_bgr.copy()
    result = make(bundle, fused).process(given, tokens())
    assert list(result.stage_ms) == ["track", "generate", "compose"]
    np.testing.assert_array_equal(given.frame_bgr, before)
    assert not np.shares_memory(result.frame.frame_bgr, given.frame_bgr)


def swapper_over(backend: Any, bundle: ModelBundle) -> Swapper:
    return Swapper(bundle, backend, threads=1, make_tracker=lambda many, still: SittingTracker())


def test_two_swappers_at_once_each_give_what_one_gives(bundle, emulated):
    source = Swapper(bundle, get_backend("onnxruntime")).preset("smile")
    with swapper_over(get_backend("onnxruntime"), bundle) as reference:
        expected = [reference.process(frame(k), source).frame.frame_bgr for k in range(3)]
    start, wrong = threading.Barrier(2), []
    swappers = [swapper_over(emulated.backend, bundle) for _ in range(2)]
    for swapper in swappers:  # a process may load one after the other only
        swapper.process(frame(0), source)
        swapper.reset()

    def work(swapper: Swapper) -> None:
        start.wait()
        for _ in range(2):
            swapper.reset()
            for k in range(3):
                out = swapper.process(frame(k), source).frame.frame_bgr
                if not np.array_equal(out, expected[k]):
                    wrong.append(k)

    threads = [threading.Thread(target=work, args=(s,)) for s in swappers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for swapper in swappers:
        swapper.close()
    assert wrong == []


def test_source_is_encoded_by_the_same_engine_path(bundle, emulated):
    crop = np.random.default_rng(0).random(ENCODER_SPEC.inputs[0].shape, dtype=np.float32)
    with get_backend("onnxruntime").load(bundle.encoder_path, ENCODER_SPEC, 1) as cpu:
        expected = {n: a.copy() for n, a in cpu.run({"source_rgb": crop}).items()}
    with emulated.backend.load(bundle.encoder_path, ENCODER_SPEC, 0) as gpu:
        for name, array in gpu.run({"source_rgb": crop}).items():
            np.testing.assert_array_equal(array, expected[name])
        # from a frame, cropped on the GPU
        M = geometry.crop_from_landmarks(FACE.landmarks_xy)
        composed = gpu.swap(frame().frame_bgr, M, {}, compose=False)
        assert set(composed.outputs) == {"tokens", "aus_lr"}
        composed.release()


def test_whole_file_on_the_threads_of_a_stream(bundle, emulated, tmp_path: Path):
    target = write_video(tmp_path / "target.mp4", moving_portrait(6, 120, 160))
    with swapper_over(emulated.backend, bundle) as swapper:
        summary = swapper.reenact(target, swapper.preset("smile"), tmp_path / "out.mp4")
        again = swapper.reenact(target, swapper.preset("smile"), tmp_path / "again.mp4")
    assert summary.backend == "rtx"
    assert summary.statuses["swapped"] == summary.frames_out == again.frames_out == 6
    assert all(gpu.living == [] for gpu in emulated.gpus if gpu.closed)
