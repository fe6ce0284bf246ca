"""Stages on threads: order kept, nothing lost, every ending clean."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from rt_swap import stream
from rt_swap.stream import EndedError, Handover


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("rt_swap")]


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while our_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert our_threads() == []


def test_order_is_kept_and_nothing_lost_at_any_pace() -> None:
    pace = random.Random(5)
    out: list[int] = []

    def slow(item: int) -> int:
        time.sleep(pace.random() / 1000)
        return item * 10

    def collect(item: int) -> None:
        time.sleep(pace.random() / 1000)
        out.append(item)

    stages = [("a", slow), ("b", lambda item: item + 1)]
    report = stream.run(iter(range(200)), stages, collect)
    assert out == [i * 10 + 1 for i in range(200)]
    assert report == stream.Report(emitted=200, dropped=0, interrupted=False)


@pytest.mark.parametrize("stages", [[], [("only", lambda x: x)]])
def test_any_number_of_stages_and_an_empty_source(stages: list[tuple[str, object]]) -> None:
    out: list[int] = []
    assert stream.run([], stages, out.append).emitted == 0  # type: ignore[arg-type]
    assert stream.run([1, 2], stages, out.append).emitted == 2  # type: ignore[arg-type]
    assert out == [1, 2]


def test_stages_overlap() -> None:
    # two parties can only meet when both stages work at once
    meeting = threading.Barrier(2, timeout=10)

    def first(item: int) -> int:
        if item == 1:
            meeting.wait()
        return item

    def second(item: int) -> int:
        if item == 0:
            meeting.wait()
        return item

    out: list[int] = []
    stream.run([0, 1], [("first", first), ("second", second)], out.append)
    assert out == [0, 1]


def test_a_slow_end_slows_the_source_down_instead_of_filling_memory() -> None:
    gate = threading.Event()
    given = 0
    most_ahead = 0
    taken = 0

    def source() -> Iterator[int]:
        nonlocal given, most_ahead
        for i in range(50):
            given += 1
            most_ahead = max(most_ahead, given - taken)
            yield i

    def sink(item: int) -> None:
        nonlocal taken
        if item == 0:
            time.sleep(0.2)
            gate.set()
        taken += 1

    stream.run(source(), [("a", lambda x: x)], sink, slots=2)
    assert gate.is_set()
    assert taken == 50
    # two queues of two, one item in each of source, stage and sink, and one being made
    assert most_ahead <= 8


@pytest.mark.parametrize("where", ["source", "first", "second", "sink"])
def test_error_anywhere_reaches_the_caller_and_ends_all_threads(where: str) -> None:
    def maybe(name: str, item: int) -> int:
        if name == where and item == 7:
            raise ValueError(f"broken in {name}")
        return item

    def source() -> Iterator[int]:
        for i in range(10_000):
            yield maybe("source", i)

    stages = [
        ("first", lambda item: maybe("first", item)),
        ("second", lambda item: maybe("second", item)),
    ]
    out: list[int] = []
    with pytest.raises(ValueError, match=f"broken in {where}"):
        stream.run(source(), stages, lambda item: out.append(maybe("sink", item)))
    assert out == list(range(len(out)))
    assert len(out) <= 7


def test_stop_finishes_what_is_on_its_way() -> None:
    stop = threading.Event()
    given: list[int] = []
    out: list[int] = []

    def source() -> Iterator[int]:
        for i in range(10_000):
            given.append(i)
            if i == 20:
                stop.set()
            yield i

    report = stream.run(source(), [("a", lambda x: x)], out.append, stop=stop)
    assert report.interrupted
    assert out == given == list(range(21))


def test_first_ctrl_c_finishes_what_is_on_its_way() -> None:
    given: list[int] = []
    out: list[int] = []

    def source() -> Iterator[int]:
        for i in range(100_000):
            given.append(i)
            if i == 20:
                os.kill(os.getpid(), signal.SIGINT)
            yield i
            time.sleep(0.001)

    report = stream.run(source(), [("a", lambda x: x)], out.append)
    assert report.interrupted
    assert out == given
    assert 21 <= len(out) < 10_000


def test_first_ctrl_c_waits_for_slow_stages_and_their_threads() -> None:
    given: list[int] = []
    out: list[int] = []

    def source() -> Iterator[int]:
        for i in range(1000):
            given.append(i)
            yield i

    def slow(item: int) -> int:
        if item == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return item

    report = stream.run(source(), [("a", slow), ("b", lambda x: x)], out.append)
    assert report.interrupted
    assert out == given
    assert len(out) < 20


def test_finish_is_not_cut_off_by_ctrl_c() -> None:
    done: list[int] = []

    def last() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        done.append(1)

    assert stream.finish(last)
    assert done == [1]
    assert not stream.finish(lambda: done.append(2))
    assert done == [1, 2]
    with pytest.raises(ZeroDivisionError):
        stream.finish(lambda: 1 / 0)  # type: ignore[arg-type, return-value]


def test_second_ctrl_c_abandons_all() -> None:
    started = threading.Event()

    def stuck(item: int) -> int:
        started.set()
        time.sleep(1.5)
        return item

    def interrupt_twice() -> None:
        started.wait(5)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    helper = threading.Thread(target=interrupt_twice)
    helper.start()
    out: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        stream.run(iter(range(100)), [("stuck", stuck)], out.append)
    helper.join()
    assert len(out) <= 1


def test_live_the_newest_wins_and_drops_are_counted() -> None:
    dropped: list[int] = []
    out: list[int] = []
    busy = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        busy.wait(5)  # 0 is being worked on: the slot is free
        yield from range(1, 6)

    def work(item: int) -> int:
        busy.set()
        if item == 0:
            time.sleep(0.2)
        return item

    report = stream.run(
        source(), [("work", work)], out.append, newest_wins=True, on_drop=dropped.append
    )
    assert out == [0, 5]
    assert dropped == [1, 2, 3, 4]
    assert report == stream.Report(emitted=2, dropped=4, interrupted=False)


def test_handover_close_lets_the_rest_be_taken_and_abandon_does_not() -> None:
    queue: Handover[int] = Handover(3)
    queue.put(1)
    queue.close()
    assert queue.get() == 1
    with pytest.raises(EndedError):
        queue.get()
    queue = Handover(3)
    queue.put(1)
    queue.abandon()
    with pytest.raises(EndedError):
        queue.get()
    with pytest.raises(EndedError):
        queue.put(2)
