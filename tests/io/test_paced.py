"""A file as a camera. Times are those of a clock that the test moves."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from rt_swap.errors import SourceError
from rt_swap.io import paced
from rt_swap.io.paced import PacedFile
from rt_swap.io.video import VideoReader
from tests.support.videos import numbered, write_video


class Clock:
    """Moves when somebody waits, or when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(paced.time, "perf_counter", lambda: self.now)

    def attach(self, capture: PacedFile) -> None:
        def wait(seconds: float | None = None) -> bool:
            self.now += seconds or 0.0
            return False

        capture._closed.wait = wait  # type: ignore[method-assign]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "c.mp4", numbered(5, 48, 64))


def test_pictures_come_at_their_times_and_the_file_begins_again(clip: Path, clock: Clock) -> None:
    capture = PacedFile(clip)
    clock.attach(capture)
    times, missed = [], 0
    for _ in range(12):
        picture = capture.read()
        assert picture is not None
        times.append(picture.captured_s - 100.0)
        missed += picture.missed
    capture.close()
    assert times == pytest.approx([k / 25 for k in range(12)], abs=1e-6)
    assert missed == 0
    assert capture.info.rate_hz == pytest.approx(25)
    assert not capture.info.ends
    assert capture.read() is None


def test_a_file_that_cannot_be_rewound_is_opened_again(
    clip: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    reader = paced.VideoReader

    def opening(path: Path) -> VideoReader:
        opened.append(path)
        return reader(path)

    monkeypatch.setattr(paced, "VideoReader", opening)
    for rewinds in (True, False):
        opened.clear()
        if not rewinds:
            monkeypatch.setattr(reader, "rewind", lambda _: False)
        capture = PacedFile(clip)
        clock.attach(capture)
        pictures = [capture.read() for _ in range(12)]
        capture.close()
        assert all(p is not None for p in pictures)
        assert len(opened) == (1 if rewinds else 3)


def test_without_loop_it_ends(clip: Path, clock: Clock) -> None:
    capture = PacedFile(clip, loop=False)
    clock.attach(capture)
    assert capture.info.ends
    assert [capture.read() is None for _ in range(6)] == [False] * 5 + [True]
    capture.close()


def test_a_late_reader_misses_pictures_as_with_a_camera(clip: Path, clock: Clock) -> None:
    capture = PacedFile(clip)
    clock.attach(capture)
    capture.read()
    clock.now += 0.13  # three more were due at 0.04, 0.08, 0.12
    late = capture.read()
    assert late is not None
    assert late.captured_s == pytest.approx(100.12)
    assert late.missed == 2
    on_time = capture.read()
    assert on_time is not None
    assert on_time.captured_s == pytest.approx(100.16)
    assert on_time.missed == 0
    capture.close()


def test_after_a_long_pause_it_counts_anew(clip: Path, clock: Clock) -> None:
    capture = PacedFile(clip)
    clock.attach(capture)
    capture.read()
    clock.now += 3600.0
    picture = capture.read()
    assert picture is not None
    assert picture.captured_s == clock.now
    assert picture.missed == 0
    capture.close()


def test_rate_and_size_may_be_chosen(clip: Path, clock: Clock) -> None:
    capture = PacedFile(clip, rate_hz=10.0, size_wh=(32, 24))
    clock.attach(capture)
    pictures = [capture.read() for _ in range(3)]
    capture.close()
    assert capture.info.width == 32
    assert [round(p.captured_s - 100, 6) for p in pictures if p is not None] == [0.0, 0.1, 0.2]
    assert all(p is not None and p.frame_bgr.shape == (24, 32, 3) for p in pictures)


def test_close_wakes_a_waiting_reader_and_both_may_close(clip: Path) -> None:
    capture = PacedFile(clip, rate_hz=0.01)
    capture.read()
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.append(capture.read()))
    reader.start()
    time.sleep(0.05)
    closers = [threading.Thread(target=capture.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    for thread in (reader, *closers):
        thread.join(5.0)
        assert not thread.is_alive()
    assert got == [None]


def test_error_no_video(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file"):
        PacedFile(tmp_path / "none.mp4")
