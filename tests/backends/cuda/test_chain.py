"""The GPU chain on an emulated GPU: the same bits as the CPU's kernels, and every driver call in
order, in size and in its life time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_swap import geometry, ops
from rt_swap.backends.cuda.session import GpuSession
from rt_swap.contract import GraphSpec, TensorSpec
from rt_swap.errors import BackendUnavailable, ContractError, InferenceError, ModelFileError
from rt_swap.frames import F32, F64
from tests.support.fake_gpu import EmulatedBackend, FakeGpu, fatbin_for
from tests.support.warp_cases import PLACES, Maps, noise_frame, placed, random_maps, still_maps

_warp = pytest.importorskip("rt_swap._warp", reason="needs the native module (make ext)")


def spec_of(size_px: int) -> GraphSpec:
    """The generator's inputs and outputs in small."""
    s = size_px
    return GraphSpec(
        "target_generator",
        (TensorSpec("target_rgb", (1, 3, s, s)), TensorSpec("gains", (1, 5))),
        (
            TensorSpec("flow_xy", (1, 2, s, s)),
            TensorSpec("keep", (1, 1, s, s)),
            TensorSpec("fill_rgb", (1, 3, s, s)),
            TensorSpec("shade", (1, 1, s, s)),
            TensorSpec("aus_lr", (1, 5, 2)),
        ),
    )


class Bench:
    """A session on an emulated GPU whose engine answers the given maps."""

    def __init__(self, folder: Path, size_px: int, maps: Maps, **options: Any) -> None:
        self.made = EmulatedBackend(fatbin_for(folder / "k.fatbin"), **options)
        self.maps, self.crops, self.gains = maps, [], []  # type: ignore[var-annotated]
        self.made.function = self._answer
        self._folder, self._spec = folder, spec_of(size_px)

    def load(self) -> GpuSession:
        path = self._folder / "target_generator.onnx"
        path.write_bytes(b"any")
        return self.made.backend.load(path, self._spec, 0)

    @property
    def gpu(self) -> FakeGpu:
        return self.made.gpus[-1]

    def _answer(self, inputs: dict[str, F32]) -> dict[str, Any]:
        self.crops.append(inputs["target_rgb"].copy())
        self.gains.append(inputs["gains"].copy())
        names = ("flow_xy", "keep", "fill_rgb", "shade")
        answers: dict[str, Any] = dict(zip(names, self.maps, strict=False))
        answers["aus_lr"] = np.full((1, 5, 2), inputs["gains"].sum(), np.float32)
        return answers


def feathered(rng: np.random.Generator, size_px: int, flow_px: float = 3.0) -> Maps:
    return random_maps(rng, size_px, ops.feather(size_px), flow_px)


def gains(value: float = 1.0) -> dict[str, F32]:
    return {"gains": np.full((1, 5), value, np.float32)}


def whole(session: GpuSession, frame: Any, matrix: F64, **options: Any) -> Any:
    """The frame with the composed box put in."""
    composed = session.swap(frame, matrix, gains(), **options)
    out = frame.copy()
    x0, y0, x1, y1 = composed.box_xyxy
    out[y0:y1, x0:x1] = composed.roi_bgr
    composed.release()
    return out


# --- the CPU's bits -------------------------------------------------------------------------------
@pytest.mark.parity
@pytest.mark.parametrize("place", PLACES)
def test_parity_emulated_gpu_and_cpu_give_the_same_bits(place, rng, tmp_path):
    (height, width), size_px, centre, scale, degrees = PLACES[place]
    frame = noise_frame(rng, height, width)
    frame_from_crop = placed(centre, scale, degrees, size_px)
    matrix = geometry.invert(frame_from_crop)
    maps = feathered(rng, size_px)
    bench = Bench(tmp_path, size_px, maps)
    with bench.load() as session:
        out = whole(session, frame, matrix)
    again = geometry.invert(matrix)  # the inverse that the session itself makes
    np.testing.assert_array_equal(bench.crops[-1], ops.crop_rgb(frame, again, size_px))
    np.testing.assert_array_equal(out, ops.compose_bgr(frame, matrix, *maps))


@pytest.mark.parity
def test_parity_flow_beyond_what_was_sent_is_fetched_all_the_same(rng, tmp_path):
    frame = noise_frame(rng, 240, 320)
    matrix = geometry.invert(placed((160.0, 120.0), 1.0, 10.0, 33))
    maps = feathered(rng, 33, flow_px=40.0)
    bench = Bench(tmp_path, 33, maps)
    with bench.load() as session:
        out = whole(session, frame, matrix)
        assert session.on_owner(lambda chain: chain.whole_frames) == 1
        assert bench.gpu.names().count("launch_graph") == 2
    np.testing.assert_array_equal(out, ops.compose_bgr(frame, matrix, *maps))


def test_margin_grows_so_that_strong_flow_is_not_sent_whole_for_ever(rng, tmp_path):
    frame = noise_frame(rng, 240, 320)
    matrix = geometry.invert(placed((160.0, 120.0), 1.0, 0.0, 33))
    maps = still_maps(33, ops.feather(33))
    maps.flow_xy[0, 0] = 20.0
    bench = Bench(tmp_path, 33, maps)
    with bench.load() as session:
        for _ in range(4):
            out = whole(session, frame, matrix)
        assert session.on_owner(lambda chain: chain.whole_frames) == 1
    np.testing.assert_array_equal(out, ops.compose_bgr(frame, matrix, *maps))


def test_still_instructions_give_the_frame_bit_for_bit(rng, tmp_path):
    frame = noise_frame(rng, 97, 131)
    matrix = geometry.invert(placed((60.0, 50.0), 1.7, 33.0, 33))
    with Bench(tmp_path, 33, still_maps(33, ops.feather(33))).load() as session:
        composed = session.swap(frame, matrix, gains())
        assert composed.roi_bgr.size > 1000
        np.testing.assert_array_equal(whole(session, frame, matrix), frame)


def test_half_engine_gets_the_crop_rounded_and_its_maps_are_read_as_they_are(rng, tmp_path):
    from tests.support.fake_gpu import emulator

    if not emulator().emulated_has_half():
        pytest.skip("needs a C++ compiler with _Float16")
    frame = noise_frame(rng, 97, 131)
    matrix = geometry.invert(placed((60.0, 50.0), 1.2, 12.0, 33))
    maps = feathered(rng, 33)
    names = ("target_rgb", "flow_xy", "keep", "fill_rgb", "shade", "aus_lr")
    bench = Bench(tmp_path, 33, maps)
    bench.made.dtypes = dict.fromkeys(names, "float16")
    with bench.load() as session:
        out = whole(session, frame, matrix)
        answers = session.run({"target_rgb": bench.crops[-1], **gains()})
        assert {a.dtype.name for a in answers.values()} == {"float32"}
    crop = ops.crop_rgb(frame, geometry.invert(matrix), 33)
    np.testing.assert_array_equal(bench.crops[-1], crop.astype(np.float16).astype(np.float32))
    halves = [m.astype(np.float16).astype(np.float32) for m in maps[:4]]
    np.testing.assert_array_equal(out, ops.compose_bgr(frame, matrix, *halves, maps.weight))


def test_views_of_larger_pictures_and_other_sizes_follow_each_other(rng, tmp_path):
    maps = feathered(rng, 33)
    bench = Bench(tmp_path, 33, maps)
    with bench.load() as session:
        for hw in ((97, 131), (60, 83), (240, 320), (97, 131)):
            canvas = noise_frame(rng, hw[0] + 9, hw[1] + 9)
            frame = canvas[4:-5, 3:-6]
            matrix = geometry.invert(placed((hw[1] / 2, hw[0] / 2), 1.3, 20.0, 33))
            expected = ops.compose_bgr(frame, matrix, *maps)
            np.testing.assert_array_equal(whole(session, frame, matrix), expected)
    assert bench.gpu.living == []


# --- what is asked of the driver ------------------------------------------------------------------
@pytest.fixture
def bench(rng, tmp_path) -> Bench:
    return Bench(tmp_path, 33, feathered(rng, 33))


@pytest.fixture
def session(bench) -> Iterator[GpuSession]:
    with bench.load() as loaded:
        yield loaded


MATRIX = geometry.invert(placed((60.0, 50.0), 1.3, 12.0, 33))


def test_graph_holds_the_whole_chain_in_order(bench, session, rng):
    session.swap(noise_frame(rng, 97, 131), MATRIX, gains()).release()
    (graph,) = bench.gpu.graphs.values()
    assert [name for name, _ in graph] == [
        "copy_in",
        "rt_swap_unpack_bgr",
        "rt_swap_crop_bgr_float32",
        "engine",
        "rt_swap_pack_maps_bgr_float32",
        "rt_swap_compose_bgr",
        "copy_out",
    ]


def test_engine_has_run_before_anything_is_captured(bench, session):
    names = bench.gpu.names()
    assert "begin_capture" not in names
    assert names[names.index("enqueue_engine") + 1] == "synchronise"
    assert bench.made.engines[-1].runs == 1


def test_frame_is_one_launch_and_one_wait_and_nothing_else(bench, session, rng):
    for _ in range(2):
        session.swap(noise_frame(rng, 97, 131), MATRIX, gains()).release()
    before = len(bench.gpu.calls)
    for k in range(5):
        # another place and region of interest each time
        matrix = geometry.invert(placed((50.0 + 3 * k, 40.0 + k), 0.8 + 0.2 * k, 9.0 * k, 33))
        session.swap(noise_frame(rng, 97, 131), matrix, gains(k)).release()
    assert bench.gpu.names()[before:] == ["launch_graph", "synchronise"] * 5
    assert len(bench.gpu.graphs) == 1


def test_run_is_one_launch_and_one_wait_too(bench, session, rng):
    crop = rng.random((1, 3, 33, 33), dtype=np.float32)
    first = session.run({"target_rgb": crop, **gains()})
    before = len(bench.gpu.calls)
    second = session.run({"target_rgb": crop, **gains(2.0)})
    assert bench.gpu.names()[before:] == ["launch_graph", "synchronise"]
    assert all(second[n] is first[n] for n in first)
    np.testing.assert_array_equal(bench.crops[-1], crop)
    np.testing.assert_array_equal(second["flow_xy"], bench.maps.flow_xy)
    assert second["aus_lr"][0, 0, 0] == 10.0


def test_only_the_region_of_interest_and_its_margin_goes_up(bench, session, rng):
    frame = noise_frame(rng, 480, 640)
    session.swap(frame, geometry.invert(placed((300.0, 200.0), 1.0, 0.0, 33)), gains()).release()
    params = bench.gpu.memory_at(session.on_owner(lambda c: c._exchange_host.address))
    sent = session.on_owner(lambda c: int((c._staged.array != 0).sum()))
    # 33 pixels and 12 + 2 on each side, of 3 bytes; noise is 0 in one of 256
    assert 0.98 * 61 * 61 * 3 < sent <= 62 * 62 * 3
    assert params.pinned
    copied = [call[1] for call in bench.gpu.calls if call[0] in ("copy_in", "copy_out")]
    # the weight once at the start; after that numbers and small tensors, no pixels
    assert sorted(copied)[-1] == 33 * 33 * 4
    assert all(n < 2048 for n in sorted(copied)[:-1])


def test_without_compose_no_pixel_comes_back(bench, session, rng):
    composed = session.swap(noise_frame(rng, 97, 131), MATRIX, gains(3.0), compose=False)
    assert composed.roi_bgr.size == 0
    assert composed.box_xyxy[0] == composed.box_xyxy[2]
    assert composed.outputs["aus_lr"][0, 0, 0] == 15.0
    assert set(composed.outputs) == {"aus_lr"}


def test_boxes_that_are_out_are_not_written_again(bench, session, rng):
    frames = [noise_frame(rng, 97, 131) for _ in range(3)]
    out = [session.swap(frame, MATRIX, gains()) for frame in frames]
    for frame, composed in zip(frames, out, strict=True):
        x0, y0, x1, y1 = composed.box_xyxy
        expected = ops.compose_bgr(frame, MATRIX, *bench.maps)[y0:y1, x0:x1]
        np.testing.assert_array_equal(composed.roi_bgr, expected)
    made = bench.gpu.names().count("allocate_pinned")
    for composed in out:
        composed.release()
    for frame in frames:
        session.swap(frame, MATRIX, gains()).release()
    assert bench.gpu.names().count("allocate_pinned") == made


def test_close_frees_everything_and_ends_the_driver_last(bench, rng):
    session = bench.load()
    session.swap(noise_frame(rng, 97, 131), MATRIX, gains()).release()
    session.run({"target_rgb": bench.crops[-1], **gains()})
    session.close()
    session.close()
    gpu = bench.gpu
    assert gpu.living == []
    assert gpu.graphs == {}
    names = gpu.names()
    assert names[-1] == "close"
    last_free = len(names) - 1 - names[::-1].index("free")
    assert names.index("close_engine") < last_free
    with pytest.raises(InferenceError, match="closed"):
        session.swap(noise_frame(rng, 97, 131), MATRIX, gains())


def test_another_thread_than_the_owner_is_refused(session, rng):
    chain = session.on_owner(lambda c: c)
    with pytest.raises(InferenceError, match="belong to the thread that made them"):
        chain.swap(noise_frame(rng, 97, 131), MATRIX, gains())
    with pytest.raises(InferenceError, match="MainThread"):
        chain.close()


def test_session_may_be_called_from_any_thread(session, bench, rng):
    frame = noise_frame(rng, 97, 131)
    expected = ops.compose_bgr(frame, MATRIX, *bench.maps)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(5):
            if not np.array_equal(whole(session, frame, MATRIX), expected):
                wrong.append(threading.current_thread().name)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert wrong == []


def test_two_sessions_at_once_do_not_mix(rng, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    benches = [Bench(tmp_path / n, 33, feathered(rng, 33)) for n in "ab"]
    frames = [noise_frame(rng, 97, 131), noise_frame(rng, 80, 90)]
    sessions = [bench.load() for bench in benches]
    expected = [
        ops.compose_bgr(frame, MATRIX, *bench.maps)
        for frame, bench in zip(frames, benches, strict=True)
    ]
    start, wrong = threading.Barrier(2), []

    def work(k: int) -> None:
        start.wait()
        for _ in range(8):
            if not np.array_equal(whole(sessions[k], frames[k], MATRIX), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert wrong == []
    assert benches[0].gpu is not benches[1].gpu
    for session in sessions:
        session.close()
    assert benches[0].gpu.living == benches[1].gpu.living == []


# --- what goes wrong ------------------------------------------------------------------------------
def test_failed_capture_is_left_and_the_next_frame_works(bench, session, rng):
    frame = noise_frame(rng, 97, 131)
    bench.gpu.fail_at = "enqueue_engine"
    with pytest.raises(RuntimeError, match="on purpose"):
        session.swap(frame, MATRIX, gains())
    assert bench.gpu.names()[-1] == "abandon_capture"
    bench.gpu.fail_at = None
    expected = ops.compose_bgr(frame, MATRIX, *bench.maps)
    np.testing.assert_array_equal(whole(session, frame, MATRIX), expected)


def test_engine_of_another_graph_lists_every_mismatch_and_leaves_nothing(bench):
    bench.made.dtypes = {"keep": "int32"}
    whole_spec = bench._spec
    bench._spec = GraphSpec(
        whole_spec.name, whole_spec.inputs, (*whole_spec.outputs, TensorSpec("more", (1,)))
    )
    original = bench.made._open

    def without_more(path, spec, flavour, precision, device):
        engine = original(path, spec, flavour, precision, device)
        del engine.tensors["more"]
        engine.tensors["gains"] = ((1, 6), np.dtype("float32"), True)
        engine.tensors["extra"] = ((1,), np.dtype("float32"), False)
        return engine

    bench.made.backend._open_engine = without_more
    with pytest.raises(ModelFileError, match="not the target_generator") as caught:
        bench.load()
    for part in (
        "output more is missing",
        "gains is input (1, 6), expected input (1, 5)",
        "keep is int32",
        "extra is not in the contract",
        "rt-swap engine build",
    ):
        assert part in str(caught.value)
    assert bench.gpu.closed
    assert bench.gpu.living == []
    assert bench.made.engines[-1].closed


def test_maps_of_two_element_types_are_refused(bench):
    bench.made.dtypes = {"flow_xy": "float16"}
    with pytest.raises(ModelFileError, match="must be of one element type"):
        bench.load()


def test_kernels_of_another_build_are_refused(bench, monkeypatch):
    original = FakeGpu.load_kernels
    monkeypatch.setattr(
        FakeGpu,
        "load_kernels",
        lambda self, image, names: {**original(self, image, names), "rt_swap_abi": 99},
    )
    with pytest.raises(BackendUnavailable, match=r"version 99.*different builds.*make ext"):
        bench.load()
    assert bench.gpu.closed


@pytest.mark.parametrize("call", ["allocate_pinned", "allocate", "copy_in"])
def test_failure_while_the_chain_is_made_leaves_nothing(bench, call, monkeypatch):
    monkeypatch.setattr(FakeGpu, "fails_at_first", call, raising=False)
    with pytest.raises(RuntimeError, match=f"{call} fails on purpose"):
        bench.load()
    assert bench.gpu.closed
    assert bench.gpu.living == []
    assert bench.made.engines[-1].closed


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (np.zeros((4, 4), np.uint8), r"frame must be uint8 \(H, W, 3\), BGR, got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "got float32"),
        (np.zeros((0, 4, 3), np.uint8), "got uint8"),
        ("frame", "got str"),
    ],
)
def test_wrong_frames_are_refused(session, frame, match):
    with pytest.raises(ContractError, match=match):
        session.swap(frame, MATRIX, gains())


def test_wrong_inputs_are_listed(session, rng):
    frame = noise_frame(rng, 97, 131)
    with pytest.raises(ContractError, match="gains is missing; target_rgb is not an input"):
        session.swap(frame, MATRIX, {"target_rgb": np.zeros((1, 3, 33, 33), np.float32)})
    with pytest.raises(ContractError, match="singular"):
        session.swap(frame, np.zeros((2, 3)), gains())


def test_native_module_refuses_boxes_outside_the_part():
    out = np.zeros(_warp.GPU_FRAME_PARAMS_BYTES, np.uint8)
    matrix = np.ascontiguousarray(MATRIX)

    def fill(part, box, into=out):
        _warp.gpu_frame_params(into, (131, 97), 33, matrix, matrix, part, box, 0, 0, (0,) * 4, None)

    fill((0, 0, 131, 97), (0, 0, 131, 97))
    with pytest.raises(ValueError, match="box must lie in the part"):
        fill((10, 0, 131, 97), (0, 0, 131, 97))
    with pytest.raises(ValueError, match="part must not be empty"):
        fill((0, 0, 132, 97), (0, 0, 10, 10))
    with pytest.raises(ValueError, match="one FrameParams"):
        fill((0, 0, 131, 97), (0, 0, 1, 1), out[:-1])
