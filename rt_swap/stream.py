"""Stages overlapped over threads. Touches no pixels: it hands over whatever the stages give it.

    source -> [queue] -> stage -> [queue] -> stage -> [queue] -> sink       one thread each; order
    is kept

Offline, queues are short and bounded and nothing is ever dropped: a slow stage slows the source
down. Live, a queue has one slot and the newest item wins; what it replaces is counted and handed to
``on_drop``.

Ending: when the source is exhausted, queues drain in order and every thread ends. When anything
    raises, all queues are
abandoned, every thread ends, and the first exception is raised by :func:`run`. At Ctrl-C the source
stops, what is on its way is finished, and the report says so; at a second Ctrl-C all is abandoned
and KeyboardInterrupt is raised.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

_JOIN_S = 5.0
"""How long a thread may take to notice that all is abandoned (one frame's work, or a blocked
camera)."""


class EndedError(Exception):
    """The other end of a queue is gone: drained and closed, or abandoned."""


class Handover(Generic[T]):
    """A bounded queue between two threads.

    Args:
        slots: Items it holds, 1 or more.
        newest_wins: When full, replace the oldest item instead of waiting.
        on_drop: Called with each item replaced.

    Attributes:
        dropped: Items replaced.
    """

    def __init__(
        self, slots: int, *, newest_wins: bool = False, on_drop: Callable[[T], None] | None = None
    ) -> None:
        self._items: deque[T] = deque()
        self._slots = slots
        self._newest_wins = newest_wins
        self._on_drop = on_drop
        self._changed = threading.Condition()
        self._closed = False
        self._abandoned = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Hand one item over; waits while full, unless the newest wins.

        Raises:
            EndedError: If the queue is abandoned.
        """
        replaced: list[T] = []
        with self._changed:
            if self._newest_wins:
                while len(self._items) >= self._slots:
                    replaced.append(self._items.popleft())
                    self.dropped += 1
            else:
                while len(self._items) >= self._slots and not self._abandoned:
                    self._changed.wait()
            if self._abandoned:
                raise EndedError
            self._items.append(item)
            self._changed.notify_all()
        if self._on_drop is not None:
            for old in replaced:
                self._on_drop(old)

    def get(self) -> T:
        """Take the oldest item; waits for one.

        Raises:
            EndedError: If the queue is abandoned, or closed and empty.
        """
        with self._changed:
            while not self._items and not self._closed and not self._abandoned:
                self._changed.wait()
            if self._abandoned or not self._items:
                raise EndedError
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Nothing more will come; what is in it can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody wants what is in it; both ends are woken."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()


@dataclass(frozen=True)
class Report:
    """How a run ended.

    Attributes:
        emitted: Items the sink took.
        dropped: Items replaced by newer ones; 0 unless ``newest_wins``.
        interrupted: True where Ctrl-C or ``stop`` ended it early.
    """

    emitted: int
    dropped: int
    interrupted: bool


def run(
    source: Iterable[Any],
    stages: Sequence[tuple[str, Callable[[Any], Any]]],
    sink: Callable[[Any], None],
    *,
    slots: int = 2,
    newest_wins: bool = False,
    on_drop: Callable[[Any], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Run all items of a source through the stages, overlapped, and wait for the end.

    Args:
        source: Iterated on a thread of its own.
        stages: (name, function of one item) in order, each on a thread of its own.
        sink: Takes each result, in order, on a thread of its own.
        slots: Items each queue holds.
        newest_wins: Live: the first queue holds one item and the newest wins; later ones never
            drop.
        on_drop: Called with each dropped item, on the source's thread.
        stop: Set it from anywhere to end as after the source's last item.

    Returns:
        How it ended. The caller closes source and sink.

    Raises:
        BaseException: The first exception of source, stages or sink, unchanged; KeyboardInterrupt
            at a second Ctrl-C.
    """
    stop = stop or threading.Event()
    first = Handover[Any](1 if newest_wins else slots, newest_wins=newest_wins, on_drop=on_drop)
    queues = [first, *(Handover[Any](1 if newest_wins else slots) for _ in stages)]
    failures: list[BaseException] = []
    lock = threading.Lock()
    emitted = 0
    exhausted = False

    def fail(error: BaseException) -> None:
        with lock:
            failures.append(error)
        abandon()

    def abandon() -> None:
        stop.set()
        for queue in queues:
            queue.abandon()

    def read() -> None:
        nonlocal exhausted
        try:
            for item in source:
                queues[0].put(item)
                if stop.is_set():
                    break
            else:
                exhausted = True
            queues[0].close()
        except EndedError:
            pass
        except BaseException as error:  # handed to the caller of run()
            fail(error)

    def work(function: Callable[[Any], Any], before: Handover[Any], after: Handover[Any]) -> None:
        try:
            while True:
                try:
                    item = before.get()
                except EndedError:
                    after.close()
                    return
                after.put(function(item))
        except EndedError:
            pass
        except BaseException as error:
            fail(error)

    def write() -> None:
        nonlocal emitted
        try:
            while True:
                sink(queues[-1].get())
                emitted += 1
        except EndedError:
            pass
        except BaseException as error:
            fail(error)

    jobs: list[tuple[str, Callable[[], None]]] = [("source", read)]
    for (name, function), before, after in zip(stages, queues, queues[1:], strict=False):
        jobs.append((name, functools.partial(work, function, before, after)))
    jobs.append(("sink", write))
    running = len(jobs)
    all_ended = threading.Event()
    gate = threading.Event()  # nothing is done before all threads are there

    def tell_when_ended(job: Callable[[], None]) -> None:
        nonlocal running
        gate.wait()
        try:
            job()
        finally:
            with lock:
                running -= 1
                if running == 0:
                    all_ended.set()

    threads = [
        threading.Thread(target=tell_when_ended, args=(job,), name=f"rt_swap {name}", daemon=True)
        for name, job in jobs
    ]
    started: list[threading.Thread] = []
    asked = False
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        gate.set()
        # An event, not Thread.join: a join that Ctrl-C interrupts takes a thread that runs on for
        # ended (CPython 3.11, threading._wait_for_tstate_lock).
        while True:
            try:
                while not failures and not all_ended.wait(0.1):
                    pass
                # after a failure, a source blocked in a device ends only when its owner closes it
                all_ended.wait(_JOIN_S)
                break
            except KeyboardInterrupt:
                if asked:
                    raise
                asked = True
                logger.info(
                    "stopping; what is on its way is finished (Ctrl-C again throws it away)"
                )
                stop.set()
    except BaseException:
        abandon()
        gate.set()
        if len(started) == len(threads):
            all_ended.wait(_JOIN_S)
        raise
    if failures:
        raise failures[0]
    return Report(emitted, first.dropped, asked or not exhausted)


def finish(function: Callable[[], None]) -> bool:
    """Do one last thing to its end although Ctrl-C may come; a second one gives it up.

    Args:
        function: As completing a file.

    Returns:
        Whether Ctrl-C came meanwhile.

    Raises:
        BaseException: What the function raises; KeyboardInterrupt at a second Ctrl-C.
    """
    return run([None], [], lambda _: function()).interrupted
