"""The newest picture, and cameras that go away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from rt_swap.errors import SourceError
from rt_swap.frames import U8, Frame
from rt_swap.live.grabber import CameraState, Grabber
from tests.support.captures import FakeCapture, FakePlug

QUICK = (0.01, 0.02)


def shade(value: int, hw: tuple[int, int] = (12, 16)) -> U8:
    return np.full((*hw, 3), value, np.uint8)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def value_of(frame: Frame | None) -> int:
    assert frame is not None
    return int(frame.frame_bgr[0, 0, 0])


def test_newest_wins_and_drops_are_counted() -> None:
    plug = FakePlug(FakeCapture([shade(v) for v in range(10)]))
    with Grabber(plug) as grabber:
        grabber.start()
        until(lambda: grabber.report.received == 10)
        frame = grabber.take(1.0)
        assert value_of(frame) == 9
        assert grabber.report.dropped == 9
        assert grabber.take(0.05) is None
    assert plug.opened[0].closed.is_set()
    assert grabber.report.state is CameraState.CLOSED


def test_whoever_keeps_up_gets_every_picture_in_order() -> None:
    capture = FakeCapture([shade(v) for v in range(20)], pace_s=0.005)
    with Grabber(FakePlug(capture)) as grabber:
        grabber.start()
        frames = [grabber.take(2.0) for _ in range(20)]
        report = grabber.report
    assert [value_of(f) for f in frames] == list(range(20))
    times = [f.pts for f in frames if f is not None]
    assert times == sorted(set(times))
    assert report.dropped == 0
    assert all(f is not None and f.captured_s == pytest.approx(f.time_s, abs=1e-3) for f in frames)


def test_fresh_leaves_out_the_one_that_waits() -> None:
    capture = FakeCapture([shade(1), 0.2, shade(2)])
    with Grabber(FakePlug(capture)) as grabber:
        grabber.start()
        until(lambda: grabber.report.received == 1)
        assert value_of(grabber.take(2.0, fresh=True)) == 2
        assert grabber.report.skipped == 1
        assert grabber.report.dropped == 0


def test_error_at_the_start_is_raised() -> None:
    with Grabber(FakePlug()) as grabber, pytest.raises(SourceError, match="nothing is plugged in"):
        grabber.start()


def test_unplugged_camera_is_tried_again_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    plug = FakePlug(
        FakeCapture([shade(1), 0.05, SourceError("unplugged")]),
        SourceError("no such device"),
        SourceError("device busy"),
        FakeCapture([shade(2)]),
    )
    caplog.set_level("INFO", "rt_swap")
    with Grabber(plug, name="camera 0", back_off_s=QUICK) as grabber:
        grabber.start()
        assert value_of(grabber.take(2.0)) == 1
        assert value_of(grabber.take(5.0)) == 2
        report = grabber.report
    assert (report.losses, report.reconnects, report.state) == (1, 1, CameraState.RUNNING)
    assert plug.attempts == 4
    assert all(capture.closed.is_set() for capture in plug.opened)
    assert "camera 0: went away (unplugged)" in caplog.text
    assert "camera 0: is back" in caplog.text


def test_camera_that_opens_but_gives_nothing_is_not_hammered() -> None:
    dead = [FakeCapture([SourceError("dead")]) for _ in range(50)]
    with Grabber(FakePlug(*dead), back_off_s=(0.05, 0.1)) as grabber:
        grabber.start()
        time.sleep(0.4)
        assert 1 <= grabber.report.losses <= 8


def test_what_waited_before_the_loss_is_not_given_after_it() -> None:
    plug = FakePlug(FakeCapture([shade(1), SourceError("gone")]), FakeCapture([0.2, shade(2)]))
    with Grabber(plug, back_off_s=QUICK) as grabber:
        grabber.start()
        until(lambda: grabber.report.losses == 1)
        assert grabber.take(0.02) is None
        assert value_of(grabber.take(5.0)) == 2


def test_a_driver_error_that_nobody_foresaw_is_a_loss_too() -> None:
    plug = FakePlug(FakeCapture([MemoryError("driver"), shade(0)]), FakeCapture([shade(3)]))
    with Grabber(plug, back_off_s=QUICK) as grabber:
        grabber.start()
        assert value_of(grabber.take(5.0)) == 3
        assert "MemoryError" in grabber.report.last_error


def test_stuck_read_is_left_behind() -> None:
    stuck, good = FakeCapture([shade(1)]), FakeCapture([shade(2)])
    with Grabber(FakePlug(stuck, good), stall_s=0.1, back_off_s=QUICK) as grabber:
        grabber.start()
        assert value_of(grabber.take(2.0)) == 1
        assert value_of(grabber.take(5.0)) == 2
        assert stuck.closed.wait(2.0)
        assert "does not answer" in grabber.report.last_error
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("rt_swap grab")])


def test_after_sleep_the_camera_is_opened_anew() -> None:
    wall = [0.0]
    plug = FakePlug(FakeCapture([shade(1), 0.1, shade(2), shade(3)]), FakeCapture([shade(9)]))
    with Grabber(plug, back_off_s=QUICK, wall_clock=lambda: time.monotonic() + wall[0]) as grabber:
        grabber.start()
        assert value_of(grabber.take(2.0)) == 1
        wall[0] = 3600.0  # an hour passed that the monotonic clock did not see
        assert value_of(grabber.take(5.0)) == 9
        assert grabber.report.last_error == "the machine slept"
        assert plug.attempts == 2


def test_changed_resolution_is_noticed_and_goes_on() -> None:
    steps = [shade(1), 0.05, shade(2, (24, 32)), 0.05, shade(3, (24, 32))]
    with Grabber(FakePlug(FakeCapture(steps))) as grabber:
        grabber.start()
        shapes = []
        for _ in range(3):
            frame = grabber.take(2.0)
            assert frame is not None
            shapes.append(frame.frame_bgr.shape[:2])
        assert shapes == [(12, 16), (24, 32), (24, 32)]
        assert grabber.report.resizes == 1


def test_end_of_a_file_ends() -> None:
    with Grabber(FakePlug(FakeCapture([shade(1), None], ends=True))) as grabber:
        grabber.start()
        until(lambda: grabber.report.state is CameraState.ENDED)
        assert value_of(grabber.take(1.0)) == 1  # what came is still given
        begin = time.monotonic()
        assert grabber.take(10.0) is None
        assert time.monotonic() - begin < 5
        assert grabber.report.losses == 0


def test_close_wakes_whoever_waits() -> None:
    grabber = Grabber(FakePlug(FakeCapture([])))
    grabber.start()
    threading.Timer(0.1, grabber.close).start()
    assert grabber.take(30.0) is None
    grabber.close()
