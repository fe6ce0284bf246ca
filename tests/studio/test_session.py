"""One live stream: the newest picture wins, changes apply, and its end frees everything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rt_swap.errors import ConfigError, SinkError
from rt_swap.frames import U8, Frame
from rt_swap.studio.controls import Controls
from rt_swap.studio.output import RETRY_S, Outputs
from rt_swap.studio.session import Incoming, Session
from rt_swap.swapper import Swapper

MakeSwapper = Callable[[], Swapper]


class Emitted:
    """Collects what comes out."""

    def __init__(self) -> None:
        self.pictures: list[tuple[U8, Incoming]] = []
        self._new = threading.Condition()

    def __call__(self, picture_bgr: U8, incoming: Incoming) -> None:
        with self._new:
            self.pictures.append((picture_bgr, incoming))
            self._new.notify_all()

    def wait(self, count: int) -> None:
        with self._new:
            assert self._new.wait_for(lambda: len(self.pictures) >= count, 20)


def incoming(number: int, read: Callable[[], U8] | None = None) -> Incoming:
    picture = np.full((96, 128, 3), 60 + number, np.uint8)
    return Incoming(read or (lambda: picture), number * 3000, time.perf_counter())


@pytest.fixture
def quiet() -> Outputs:
    return Outputs(why_not=lambda: "none in tests")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_pictures_come_out_with_figures(make_tiny: MakeSwapper, quiet: Outputs) -> None:
    emitted = Emitted()
    smile = make_tiny().preset("smile")
    session = Session(make_tiny, emitted, Controls(chosen="x"), smile, quiet)
    try:
        assert session.stats()["phase"] in ("loading", "live")
        for number in range(4):
            session.offer(incoming(number))
            emitted.wait(number + 1)
            session.sent(emitted.pictures[-1][1], 2.0)
        stats = session.stats()
        assert stats["phase"] == "live"
        assert stats["size"] == [128, 96]
        assert stats["face"] is True
        assert stats["age_ms"] > 0
        assert {"receive", "track", "generate", "compose", "send"} <= set(stats["stage_ms"])
        assert set(stats["own"]) == set(stats["shown"]) >= {"AU12"}
        assert [i.pts for _, i in emitted.pictures] == [0, 3000, 6000, 9000]
    finally:
        session.close()


def test_the_newest_picture_wins_and_skipped_ones_are_never_read(
    make_tiny: MakeSwapper, quiet: Outputs
) -> None:
    emitted, gate, read = Emitted(), threading.Event(), []

    def slow() -> U8:
        gate.wait(20)
        return np.full((96, 128, 3), 9, np.uint8)

    def never() -> U8:
        read.append(1)
        return np.zeros((96, 128, 3), np.uint8)

    session = Session(make_tiny, emitted, Controls(), None, quiet)
    try:
        session.offer(incoming(0, slow))
        until(lambda: session.stats()["phase"] == "live" and not session._slot._items)
        for number in range(1, 5):
            session.offer(incoming(number, never))
        session.offer(incoming(5))
        gate.set()
        emitted.wait(2)
        assert [i.pts for _, i in emitted.pictures] == [0, 15000]
        assert session.stats()["dropped"] == 4
        assert read == []
    finally:
        gate.set()
        session.close()


def test_without_an_expression_the_picture_is_the_cameras(
    make_tiny: MakeSwapper, quiet: Outputs
) -> None:
    emitted = Emitted()
    session = Session(make_tiny, emitted, Controls(), None, quiet)
    try:
        session.offer(incoming(3))
        emitted.wait(1)
        assert (emitted.pictures[0][0] == 63).all()
        stats = session.stats()
        assert stats["face"] is True
        assert stats["own"] and stats["shown"]  # what is seen is told all the same
    finally:
        session.close()


def test_changes_apply_and_a_chosen_clip_goes_on(make_tiny: MakeSwapper, quiet: Outputs) -> None:
    emitted = Emitted()
    smile = make_tiny().preset("smile")
    session = Session(make_tiny, emitted, Controls(), None, quiet)
    try:
        until(lambda: session.stats()["phase"] == "live")
        engine: Any = session._engine
        set_: list[object] = []
        keep = engine.set_expression
        engine.set_expression = lambda e, *, name: (set_.append(e), keep(e, name=name))
        session.apply(Controls(mode="relative", keep_speech=True, overall=0.5), smile)
        session.apply(Controls(mode="relative", overall=0.25), smile)
        assert set_ == [smile]  # the second change does not start a clip again
        state = engine.state
        assert (state.mode, state.keep_speech, state.keep_blink) == ("relative", False, True)
        assert state.gains == pytest.approx(0.25)
        assert session.calibrate(0.5)
        assert session.stats()["calibrating_left_s"] > 0
        assert session.stats()["calibrations"] == 0
        with pytest.raises(ConfigError, match="calibration"):
            session.calibrate(99)
    finally:
        session.close()


def test_the_end_releases_everything(make_tiny: MakeSwapper, quiet: Outputs) -> None:
    made: list[Any] = []

    def make() -> Swapper:
        swapper = make_tiny()
        closed = swapper.close
        swapper.close = lambda: (made.append("closed"), closed())  # type: ignore[method-assign, assignment]
        return swapper

    ends: list[str] = []
    session = Session(make, Emitted(), Controls(), None, quiet, on_end=ends.append)
    until(lambda: session.stats()["phase"] == "live")
    session.close()
    session.close()
    assert made == ["closed"]
    assert ends == [""]
    assert session.stats()["phase"] == "ended"
    session.offer(incoming(1))  # harmless
    assert not session.calibrate(2.0)
    assert not [t for t in threading.enumerate() if t.name == "rt_swap studio live"]


def test_a_failure_is_told_and_ends_the_stream(quiet: Outputs) -> None:
    def broken() -> Swapper:
        raise ConfigError("the model is not there")

    session = Session(broken, Emitted(), Controls(), None, quiet)
    until(lambda: session.stats()["phase"] == "ended")
    assert session.stats()["error"] == "the model is not there"
    session.close()


def test_a_portrait_is_handed_on_when_asked_for(make_tiny: MakeSwapper, quiet: Outputs) -> None:
    emitted, portraits = Emitted(), []
    session = Session(
        make_tiny, emitted, Controls(), None, quiet, on_portrait=lambda p: portraits.append(p)
    )
    try:
        session.offer(incoming(0))
        emitted.wait(1)
        assert portraits == []
        session.ask_portrait()
        for number in (1, 2):
            session.offer(incoming(number))
            emitted.wait(number + 1)
        assert len(portraits) == 1
        assert (portraits[0] == 61).all()
    finally:
        session.close()


# --- the virtual camera --------------------------------------------------------------------------
class FakeSink:
    name = "Fake Cam"

    def __init__(self, fail_at: int = -1) -> None:
        self.pictures: list[Frame] = []
        self.aborted = 0
        self._fail_at = fail_at

    def write(self, frame: Frame) -> None:
        if len(self.pictures) == self._fail_at:
            raise SinkError("virtual camera: is gone")
        self.pictures.append(frame)

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        raise AssertionError("not for live")

    def abort(self) -> None:
        self.aborted += 1


def test_the_virtual_camera_gets_pictures_only_while_wanted(make_tiny: MakeSwapper) -> None:
    sinks: list[FakeSink] = []

    def open_(size_wh: tuple[int, int]) -> FakeSink:
        assert size_wh == (128, 96)
        sinks.append(FakeSink())
        return sinks[-1]

    outputs = Outputs(open_, lambda: "")
    emitted = Emitted()
    session = Session(make_tiny, emitted, Controls(), None, outputs)
    try:
        for number, wanted in enumerate((False, True, True, False, True)):
            session.apply(Controls(virtual_camera=wanted), None)
            session.offer(incoming(number))
            emitted.wait(number + 1)
        assert [len(sink.pictures) for sink in sinks] == [2, 1]
        assert sinks[0].aborted == 1
        assert outputs.as_json()["device"] == "Fake Cam"
    finally:
        session.close()
    assert sinks[1].aborted == 1
    assert outputs.as_json() == {"available": True, "reason": "", "device": "", "error": ""}


def test_a_virtual_camera_that_fails_is_told_and_the_stream_goes_on(make_tiny: MakeSwapper) -> None:
    now_s = [0.0]
    opened: list[FakeSink] = []

    def open_(_: tuple[int, int]) -> FakeSink:
        opened.append(FakeSink(fail_at=1))
        return opened[-1]

    outputs = Outputs(open_, lambda: "", lambda: now_s[0])
    emitted = Emitted()
    session = Session(make_tiny, emitted, Controls(virtual_camera=True), None, outputs)
    try:
        for number in range(4):
            session.offer(incoming(number))
            emitted.wait(number + 1)
        assert outputs.as_json()["error"] == "is gone"
        assert session.stats()["output_error"] == "is gone"
        assert len(opened) == 1
        now_s[0] += RETRY_S  # it is tried again by itself, and whoever looks is told
        session.offer(incoming(4))
        emitted.wait(5)
        assert len(opened) == 2
        assert session.stats()["output_device"] == "Fake Cam"
        assert session.stats()["output_error"] == ""
        outputs.forget_error()
        assert outputs.as_json()["error"] == ""
    finally:
        session.close()


def test_why_there_is_no_virtual_camera_is_told() -> None:
    answer = Outputs(why_not=lambda: "load the driver").as_json()
    assert (answer["available"], answer["reason"]) == (False, "load the driver")
