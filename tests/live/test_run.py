"""A whole live run: camera failures, lost faces, hiding, sinks that break, what is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from rt_swap.errors import ConfigError, InferenceError, SinkError, SourceError
from rt_swap.frames import U8, Frame, FrameResult
from rt_swap.io.handheld import HandheldCamera
from rt_swap.io.slate import slate
from rt_swap.live.controls import HELP, Controls, Offer
from rt_swap.live.engine import LiveEngine
from rt_swap.live.governor import Governor, Plan
from rt_swap.live.grabber import Grabber
from rt_swap.live.run import LiveRun, SinkSlot, StatusFile
from rt_swap.live.second import SecondCamera
from rt_swap.model import ModelBundle, load_bundle
from rt_swap.pipeline import Pipeline
from rt_swap.swapper import Swapper
from tests.support.captures import FakeCapture, FakePlug
from tests.support.swapping import sitting_swapper
from tests.support.tiny_model import tiny_bundle

HW = (120, 160)
QUICK = (0.01, 0.05)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return load_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def engine(bundle: ModelBundle) -> Iterator[LiveEngine]:
    with sitting_swapper(bundle) as swapper, LiveEngine(swapper) as made:
        made.set_expression(swapper.preset("smile"), name="smile")
        yield made


class KeepingSink:
    """Keeps copies of what it is given; breaks when told."""

    def __init__(self) -> None:
        self.pictures: list[U8] = []
        self.pts: list[int] = []
        self.breaks = False
        self.finished = self.aborted = False

    def write(self, frame: Frame) -> None:
        if self.breaks:
            raise SinkError("the device is gone")
        self.pictures.append(frame.frame_bgr.copy())
        self.pts.append(frame.pts)

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True


def slot_of(sink: KeepingSink, *, comes_back: bool = False) -> SinkSlot:
    slot = SinkSlot("kept", lambda *_: sink, comes_back=comes_back)
    slot.open((160, 120), 30.0)
    return slot


def shots(count: int, hw: tuple[int, int] = HW, seed: int = 1) -> list[U8]:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, (*hw, 3), dtype=np.uint8)
    pictures = []
    for number in range(count):
        picture = base.copy()
        picture[:4, :4] = number
        pictures.append(picture)
    return pictures


def run_of(engine: LiveEngine, plug: FakePlug, sink: KeepingSink, **options: object) -> LiveRun:
    grabber = Grabber(plug, back_off_s=QUICK)
    grabber.start()
    return LiveRun([engine], grabber, [slot_of(sink)], **options)  # type: ignore[arg-type]


def no_faster_than(sink: KeepingSink, capture: FakeCapture) -> FakeCapture:
    """A camera that waits until each picture has come out."""
    capture.ready = lambda: len(sink.pictures) >= capture.reads
    return capture


def same_as_own(shown: U8, own: list[U8]) -> bool:
    return any(shown.shape == o.shape and (shown == o).all() for o in own)


def test_every_picture_of_a_camera_comes_out_re_expressed_in_order(engine: LiveEngine) -> None:
    pictures = shots(12)
    sink = KeepingSink()
    capture = no_faster_than(sink, FakeCapture([*pictures, None]))
    live = run_of(engine, FakePlug(capture), sink)
    summary = live.go()
    live.grabber.close()
    assert summary.statuses == {"swapped": 12, "held": 0, "no_face": 0}
    assert sink.pts == sorted(set(sink.pts))
    assert sink.finished
    assert not sink.aborted
    told = summary.as_json()
    assert told["received"] == 12
    assert told["dropped"] == 0
    assert told["age_ms"]["count"] == 12
    assert {"track", "generate", "compose", "emit"} <= set(told["stage_ms"])
    assert told["video_delay_ms"] > 0
    json.dumps(told, allow_nan=False)
    assert not any(same_as_own(shown, pictures) for shown in sink.pictures)


def test_camera_failure_shows_the_last_safe_picture_and_recovers(engine: LiveEngine) -> None:
    first, second = shots(5), shots(5, (90, 120), seed=2)
    plug = FakePlug(
        FakeCapture([*first, 0.1, SourceError("unplugged")], pace_s=0.03),
        *[SourceError("nothing is plugged in")] * 14,
        FakeCapture([0.05, *second, None], pace_s=0.03),
    )
    sink = KeepingSink()
    live = run_of(engine, plug, sink)
    summary = live.go()
    live.grabber.close()
    assert (summary.losses, summary.reconnects, summary.resizes) == (1, 1, 1)
    assert summary.stand_ins >= 1
    assert summary.statuses["swapped"] >= 4
    shapes = [p.shape[:2] for p in sink.pictures]
    gap = shapes.index((90, 120))
    standing = sink.pictures[gap - summary.stand_ins : gap]
    last = sink.pictures[gap - summary.stand_ins - 1]
    for picture in standing:
        np.testing.assert_array_equal(picture, last)
    assert sink.pts == sorted(set(sink.pts))
    assert not any(same_as_own(shown, [*first, *second]) for shown in sink.pictures)


def test_camera_that_never_came_shows_the_slate(engine: LiveEngine) -> None:
    sink = KeepingSink()
    live = run_of(engine, FakePlug(FakeCapture([])), sink)
    summary = live.go(1.0)
    live.grabber.close()
    assert summary.stand_ins >= 2
    np.testing.assert_array_equal(sink.pictures[-1], slate((1280, 720)))


def test_hiding_shows_the_slate_from_the_next_picture_on(engine: LiveEngine) -> None:
    sink = KeepingSink()

    def look(live: LiveRun) -> None:
        if len(sink.pictures) == 3:
            live.hidden.set()
        elif len(sink.pictures) == 6:
            live.hidden.clear()

    capture = no_faster_than(sink, FakeCapture([*shots(9), None]))
    live = run_of(engine, FakePlug(capture), sink, on_frame=look)
    live.go()
    live.grabber.close()
    hidden = [bool((p == slate((160, 120))).all()) for p in sink.pictures]
    assert hidden[:3] == [False] * 3
    assert hidden[3:6] == [True] * 3
    assert hidden[6:] == [False] * len(hidden[6:])


def test_everything_that_leaves_is_decorated(engine: LiveEngine) -> None:
    results: list[FrameResult | None] = []

    def mark(frame: Frame, result: FrameResult | None) -> Frame:
        results.append(result)
        frame.frame_bgr[-1, -1] = (1, 2, 3)
        return frame

    sink = KeepingSink()
    live = run_of(engine, FakePlug(FakeCapture(shots(3), pace_s=0.03)), sink, decorate=mark)
    live.go(1.0)
    live.grabber.close()
    assert {tuple(p[-1, -1]) for p in sink.pictures} == {(1, 2, 3)}
    assert results[0] is not None
    assert results[-1] is None  # a stand-in
    # a mark on a stand-in must not end up on the held picture, or it were drawn twice
    assert (engine.stand_in((160, 120))[-1, -1] != (1, 2, 3)).any()


def test_virtual_camera_that_breaks_is_opened_again(
    engine: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rt_swap.live.run._SINK_AGAIN_S", 0.05)
    opened: list[KeepingSink] = []

    def open_sink(size_wh: tuple[int, int], rate_hz: float) -> KeepingSink:
        opened.append(KeepingSink())
        if len(opened) == 2:
            raise SinkError("still gone")
        return opened[-1]

    slot = SinkSlot("virtual camera", open_sink, comes_back=True)
    slot.open((160, 120), 30.0)
    grabber = Grabber(FakePlug(FakeCapture([*shots(20), None], pace_s=0.03)))
    grabber.start()
    live = LiveRun([engine], grabber, [slot], on_frame=lambda _: setattr(opened[0], "breaks", True))
    summary = live.go()
    grabber.close()
    assert len(opened) >= 3
    assert opened[0].aborted
    assert opened[-1].pictures
    assert summary.sinks == {"virtual camera": None}
    assert slot.losses == 1


def test_file_that_breaks_is_told_and_the_rest_goes_on(engine: LiveEngine) -> None:
    good, bad = KeepingSink(), KeepingSink()
    bad.breaks = True
    grabber = Grabber(FakePlug(no_faster_than(good, FakeCapture([*shots(5), None]))))
    grabber.start()
    broken = SinkSlot("file", lambda *_: bad, comes_back=False)
    broken.open((160, 120), 30.0)
    summary = LiveRun([engine], grabber, [broken, slot_of(good)]).go()
    grabber.close()
    assert len(good.pictures) == 5
    assert summary.sinks == {"file": "the device is gone", "kept": None}
    assert bad.aborted


def test_error_of_a_model_that_keeps_failing_ends_the_run(
    engine: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise InferenceError("broken for good")

    monkeypatch.setattr(Pipeline, "generate", broken)
    sink = KeepingSink()
    live = run_of(engine, FakePlug(FakeCapture(shots(60), pace_s=0.01)), sink)
    with pytest.raises(InferenceError, match="broken for good"):
        live.go(20.0)
    live.grabber.close()
    assert sink.aborted
    assert all((p == slate((160, 120))).all() for p in sink.pictures)


def test_ctrl_c_ends_and_completes(engine: LiveEngine) -> None:
    sink = KeepingSink()

    def look(live: LiveRun) -> None:
        if len(sink.pictures) == 2:
            raise KeyboardInterrupt

    live = run_of(engine, FakePlug(FakeCapture(shots(9), pace_s=0.02)), sink, on_frame=look)
    summary = live.go()
    live.grabber.close()
    assert summary.interrupted
    assert sink.finished


def test_governor_scales_and_picks_models_and_every_second_frame(bundle: ModelBundle) -> None:
    class Fixed(Governor):
        def saw(self, *_: object) -> None:
            return None

    governor = Fixed(50.0, models=2)
    sink = KeepingSink()
    with (
        sitting_swapper(bundle) as one,
        sitting_swapper(bundle) as two,
        LiveEngine(one) as first,
        LiveEngine(two) as second,
    ):
        for each, swapper in ((first, one), (second, two)):
            each.set_expression(swapper.preset("smile"), name="smile")

        def look(live: LiveRun) -> None:
            plans = [Plan(), Plan(scale=0.5), Plan(model=1), Plan(share=2)]
            governor.plan = plans[min(len(sink.pictures) // 3, 3)]

        grabber = Grabber(FakePlug(FakeCapture([*shots(22), None], pace_s=0.05)))
        grabber.start()
        live = LiveRun(
            [first, second],
            grabber,
            [slot_of(sink)],
            governor=governor,
            on_frame=look,
            period_s=0.05,
        )
        summary = live.go()
        grabber.close()
        assert [p.shape[0] for p in sink.pictures[:6]] == [120] * 3 + [60] * 3
        assert second.state.frames == 3
        assert first.state.frames == len(sink.pictures) - 3
    # of the last 13 every second one: some were skipped on purpose, none dropped for slowness
    assert len(sink.pictures) <= 9 + 8
    assert summary.skipped + int(str(summary.metrics["dropped"])) >= 5
    with pytest.raises(ConfigError, match="needs an engine"):
        LiveRun([], grabber, [])


def test_status_file_tells_the_delay_and_is_removed(engine: LiveEngine, tmp_path: Path) -> None:
    sink = KeepingSink()
    seen: list[dict[str, object]] = []
    path = tmp_path / "status.json"
    grabber = Grabber(FakePlug(FakeCapture([*shots(30), None], pace_s=0.02)))
    grabber.start()

    def look(live: LiveRun) -> None:
        if path.exists():
            seen.append(json.loads(path.read_text(encoding="utf-8")))

    live = LiveRun([engine], grabber, [slot_of(sink)], on_frame=look)
    with StatusFile(path, live, every_s=0.03):
        live.go()
    grabber.close()
    last = seen[-1]
    assert float(str(last["video_delay_ms"])) > 0
    assert last["expression"] == "smile"
    assert last["camera"] in ("running", "ended")
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SinkError, match="--status-file"):
        StatusFile(tmp_path / "none" / "s.json", live)


# --- keys ---
@pytest.fixture
def controls(engine: LiveEngine) -> Controls:
    swapper = engine.swapper
    offers = [Offer(name, (swapper.preset(name),)) for name in ("smile", "anger", "fear")]
    return Controls([engine], offers)


def test_keys_change_the_expression_and_switches(engine: LiveEngine, controls: Controls) -> None:
    assert controls.press("2") == "anger"
    assert engine.state.expression == "anger"
    assert controls.press("n") == "fear"
    assert controls.press("n") == "smile"
    assert controls.press("p") == "fear"
    assert controls.press("0") == "own face"
    assert engine.state.expression == ""
    assert controls.press("n") == "smile"
    assert controls.press("9") is None
    assert controls.press("x") is None
    assert controls.press("m") == "mode relative"
    assert engine.state.mode == "relative"
    controls.press("s")
    assert engine.state.keep_speech
    controls.press("B")
    assert not engine.state.keep_blink
    controls.press("-")
    controls.press("-")
    np.testing.assert_allclose(engine.state.gains, 0.8)
    for _ in range(20):
        controls.press("+")
    np.testing.assert_allclose(engine.state.gains, 2.0)
    assert "calibrating" in str(controls.press("c"))
    assert engine.state.calibrating_left_s == 2.0
    assert controls.press("l") == "when lost: passthrough"
    assert engine.on_lost == "passthrough"


def test_keys_hide_help_and_quit_reach_the_run(engine: LiveEngine, controls: Controls) -> None:
    grabber = Grabber(FakePlug(FakeCapture([])))
    live = LiveRun([engine], grabber, [])
    controls.press("h")
    controls.press("?")
    controls.apply(live)
    assert live.hidden.is_set()
    lines = controls.lines(live)
    assert any("HIDDEN" in line for line in lines)
    assert set(HELP) <= set(lines)
    controls.press(" ")
    controls.apply(live)
    assert not live.hidden.is_set()
    controls.press("escape")
    controls.apply(live)
    assert live.stop.is_set()


# --- a second camera ---
def test_second_camera_gives_its_expression_and_returns_to_rest(bundle: ModelBundle) -> None:
    pictures = shots(40)
    with sitting_swapper(bundle) as swapper:
        grabber = Grabber(FakePlug(FakeCapture(pictures, pace_s=0.01)))
        grabber.start()
        with SecondCamera(swapper, grabber) as second:
            end = time.monotonic() + 10
            while second.frames < 20 and time.monotonic() < end:
                time.sleep(0.01)
            tokens = second.tokens_at(0.0)
            assert tokens is not None
            own = swapper.encode(pictures[0]).tokens[0]
            np.testing.assert_allclose(tokens, own, atol=0.1)
            assert second.failure is None
    assert not [t for t in threading.enumerate() if t.name == "rt_swap second"]


def test_real_faces_before_two_cameras(bundle: ModelBundle) -> None:
    """One real face drives another one, both in motion, through the whole run."""
    portrait = np.ascontiguousarray(skimage.data.astronaut()[:, :, ::-1])

    def filmed(count: int, seed: int) -> list[U8]:
        camera = HandheldCamera(portrait, (320, 240), Fraction(30), count, seed)
        return [frame.frame_bgr for frame in camera]

    sink = KeepingSink()
    target, source = filmed(20, 1), filmed(40, 2)
    with Swapper.load(bundle.path, "onnxruntime", cache=None, threads=1) as swapper:
        other = Grabber(FakePlug(FakeCapture(source, pace_s=0.03)), name="second")
        other.start()
        with SecondCamera(swapper, other) as second, LiveEngine(swapper) as engine:
            end = time.monotonic() + 20
            while second.tokens_at(0.0) is None and time.monotonic() < end:
                time.sleep(0.02)
            engine.set_live_source(second, name="camera 2")
            live = run_of(engine, FakePlug(FakeCapture([*target, None], pace_s=0.05)), sink)
            summary = live.go()
            live.grabber.close()
    assert summary.statuses["no_face"] == 0
    assert summary.statuses["swapped"] >= 10
    assert not any(same_as_own(shown, target) for shown in sink.pictures)
