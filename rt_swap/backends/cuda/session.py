"""A chain behind the Session protocol, on an owner thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from rt_swap.backends.base import Composed
from rt_swap.backends.cuda.chain import Chain
from rt_swap.contract import GraphSpec
from rt_swap.errors import InferenceError
from rt_swap.frames import F32, F64, U8

T = TypeVar("T")


class OwnerThread:
    """A thread that does what it is given, in order: the one that a GPU's context belongs to.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._lock = threading.Lock()
        self._ended = False
        self._thread.start()

    def call(self, job: Callable[[], T]) -> T:
        """Do something on the thread and wait for it; what it raises is raised here.

        Raises:
            InferenceError: If the thread has ended.
        """
        if threading.current_thread() is self._thread:
            return job()
        future: Future[T] = Future()
        with self._lock:
            if self._ended:
                raise InferenceError("cuda: the session is closed")
            self._jobs.put((future, job))
        return future.result()

    def end(self) -> None:
        """Finish what was given and end the thread; harmless when done twice."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._jobs.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _serve(self) -> None:
        while True:
            entry = self._jobs.get()
            if entry is None:
                return
            future, job = entry
            try:
                future.set_result(job())
            except BaseException as exc:  # handed to the caller
                future.set_exception(exc)
            del entry, future, job  # so that nothing of the last frame is kept while waiting


class GpuSession:
    """One graph on a GPU; see rt_swap.backends.base.Session and FusedSession.

    Any thread may call it, one at a time or several: all CUDA work happens on its own thread.

    Args:
        make_chain: Makes the driver and the chain; called on the owner thread. Returns the chain
            and what ends the driver.
        spec: What is loaded.
    """

    def __init__(
        self, make_chain: Callable[[], tuple[Chain, Callable[[], None]]], spec: GraphSpec
    ) -> None:
        self._spec = spec
        self._owner = OwnerThread(f"rt_swap cuda {spec.name}")
        try:
            self._chain, self._end_driver = self._owner.call(make_chain)
        except BaseException:
            self._owner.end()
            raise

    @property
    def spec(self) -> GraphSpec:
        """Names and shapes of inputs and outputs."""
        return self._spec

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """See Session.run."""
        return self._owner.call(lambda: self._chain.run(inputs))

    def prepare(self, width: int, height: int) -> None:
        """Make room for frames of a size, so that the first one does not wait for it."""
        self._owner.call(lambda: self._chain.prepare(width, height))

    def swap(
        self,
        frame_bgr: U8,
        M_crop_from_frame: F64,
        inputs: Mapping[str, F32],
        *,
        compose: bool = True,
    ) -> Composed:
        """See FusedSession.swap."""
        return self._owner.call(
            lambda: self._chain.swap(frame_bgr, M_crop_from_frame, inputs, compose=compose)
        )

    def on_owner(self, job: Callable[[Chain], T]) -> T:
        """Do something with the chain on its thread. For measurements and tests."""
        return self._owner.call(lambda: job(self._chain))

    def close(self) -> None:
        """Free the graph and its buffers; harmless when done twice."""
        try:
            self._owner.call(self._end)
        except InferenceError:
            return  # closed before
        finally:
            self._owner.end()

    def _end(self) -> None:
        try:
            self._chain.close()
        finally:
            self._end_driver()

    def __enter__(self) -> GpuSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
