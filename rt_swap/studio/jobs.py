"""Whole files: a video comes in, is re-expressed on one thread, and waits to be fetched."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rt_swap.config import SOURCE_TIMINGS
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import F32, Expression
from rt_swap.provenance.marks import Marks
from rt_swap.studio.gallery import MakeSwapper
from rt_swap.studio.uploads import Upload, Uploads, check_video, kind_of, remove

logger = logging.getLogger(__name__)

MAX_JOBS: Final = 8
"""Jobs kept at once, finished ones included: their results take room."""
WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


@dataclass(frozen=True)
class Wanted:
    """What is to be done to a video; fixed when it is handed in.

    Attributes:
        expression: Who gives the expression.
        name: Its name, to be shown.
        gains: (K,) float32.
        mode: "absolute" or "relative".
        timing: How a clip fills the video.
    """

    expression: Expression
    name: str
    gains: F32
    mode: str
    timing: str = "loop"

    def __post_init__(self) -> None:
        if self.timing not in SOURCE_TIMINGS:
            raise ConfigError(
                f"timing: must be one of {', '.join(SOURCE_TIMINGS)}, got {self.timing!r}"
            )


@dataclass
class Job:
    """One video. Fields are read by any thread and written by the jobs' own.

    Attributes:
        id: What the page calls it by.
        upload: The video; its file is gone once the job has ended.
        wanted: What is done to it.
        state: WAITING, RUNNING, DONE, FAILED or CANCELLED.
        done: Frames done.
        total: Frames in all, or None where the file does not say.
        message: What went wrong, or is worth telling.
        result: The video made, once DONE.
        started_s: ``time.monotonic()`` when it began.
        ended_s: The same when it ended.
    """

    id: str
    upload: Upload
    wanted: Wanted
    state: str = WAITING
    done: int = 0
    total: int | None = None
    message: str = ""
    result: Path | None = None
    started_s: float = 0.0
    ended_s: float = 0.0
    cancel: threading.Event = field(default_factory=threading.Event)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        now = self.ended_s or time.monotonic()
        elapsed_s = now - self.started_s if self.started_s else 0.0
        left_s = None
        if self.state == RUNNING and self.total and self.done > 4:
            left_s = round(elapsed_s / self.done * max(self.total - self.done, 0), 1)
        return {
            "id": self.id,
            "name": self.upload.name,
            "expression": self.wanted.name,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "elapsed_s": round(elapsed_s, 1),
            "left_s": left_s,
            "message": self.message,
            "download": self.download_name if self.state == DONE else None,
        }

    @property
    def download_name(self) -> str:
        """What the result is called on the user's disk."""
        stem = self.upload.name.rsplit(".", 1)[0] or "video"
        return f"{stem} - {self.wanted.name.rsplit('.', 1)[0].lower()}.mp4"


class _Cancelled(Exception):
    """The user changed their mind."""


class Jobs:
    """A queue with one worker.

    Args:
        make_swapper: Loads the model; a loaded one is kept until the queue is empty.
        uploads: Where results are written.
    """

    def __init__(
        self, make_swapper: MakeSwapper, uploads: Uploads, marks: Marks | None = None
    ) -> None:
        self._make_swapper, self._uploads, self._marks = make_swapper, uploads, marks
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def check_room(self) -> None:
        """Refuse another job while there are too many.

        Raises:
            ConfigError: If there are.
        """
        with self._lock:
            if self._closed:
                raise ConfigError("the studio is being closed")
            if len(self._jobs) >= MAX_JOBS:
                raise ConfigError(f"{MAX_JOBS} videos are kept at once; remove one first")

    def add(self, upload: Upload, wanted: Wanted) -> Job:
        """Take a video in; its file belongs to the job from now on.

        Raises:
            SourceError: If the file is not a video that can be read.
            ConfigError: If there are too many jobs.
        """
        try:
            self.check_room()
            if kind_of(upload) != "video":
                raise ConfigError(
                    f"{upload.name}: is a picture; drop it into the gallery to use its expression,"
                    " or give a video here"
                )
            check_video(upload)
        except RtSwapError as error:
            remove(upload.path)
            raise type(error)(upload.told(error)) from error
        except BaseException:
            remove(upload.path)
            raise
        job = Job(secrets.token_hex(8), upload, wanted)
        with self._lock:
            self._jobs[job.id] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="rt_swap jobs", daemon=True)
                self._thread.start()
        self._queue.put(job)
        return job

    def get(self, id_: str) -> Job:
        """A job.

        Raises:
            ConfigError: If there is none of that id.
        """
        with self._lock:
            job = self._jobs.get(id_)
        if job is None:
            raise ConfigError("there is no such video; it may have been removed")
        return job

    def all(self) -> list[Job]:
        """Every job, in order of arrival."""
        with self._lock:
            return list(self._jobs.values())

    def remove(self, id_: str) -> None:
        """Cancel a job where it has not ended, and remove its files.

        Raises:
            ConfigError: If there is none of that id.
        """
        job = self.get(id_)
        job.cancel.set()
        with self._lock:
            self._jobs.pop(id_, None)
            if job.state in (DONE, FAILED, CANCELLED):
                self._remove_files(job)
            # else its thread does when it sees the cancellation

    def close(self, timeout_s: float = 10.0) -> None:
        """Cancel all and wait; harmless when done twice."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)

    # --- on the jobs' thread ---
    def _work(self) -> None:
        swapper = None
        try:
            while (job := self._queue.get()) is not None:
                if not job.cancel.is_set():
                    try:
                        if swapper is None:
                            swapper = self._make_swapper()
                        self._run(swapper, job)
                    except _Cancelled:
                        self._end(job, CANCELLED, "cancelled")
                    except RtSwapError as error:
                        self._end(job, FAILED, job.upload.told(error))
                    except Exception as error:  # a job may fail; the page goes on
                        logger.exception("a job failed")
                        self._end(job, FAILED, f"{type(error).__name__}: {job.upload.told(error)}")
                else:
                    self._end(job, CANCELLED, "cancelled")
                remove(job.upload.path)
                if swapper is not None and self._queue.empty():
                    swapper.close()
                    swapper = None
        finally:
            if swapper is not None:
                swapper.close()

    def _run(self, swapper: Any, job: Job) -> None:
        job.state, job.started_s = RUNNING, time.monotonic()

        def progress(done: int, total: int | None) -> None:
            job.done, job.total = done, total
            if job.cancel.is_set():
                raise _Cancelled

        job.result = self._uploads.new_path(".mp4")
        wanted = job.wanted
        summary = swapper.reenact(
            job.upload.path,
            wanted.expression,
            job.result,
            gains=wanted.gains,
            mode=wanted.mode,
            source_timing=wanted.timing,
            marks=self._marks,
            progress=progress,
        )
        job.total = job.done = summary.frames_out
        notes = []
        if not summary.face_found:
            notes.append("no face was seen in it, so nothing was changed")
        if summary.damage:
            notes.append(job.upload.told(Exception(summary.damage)))
        self._end(job, DONE, "; ".join(notes))

    def _end(self, job: Job, state: str, message: str) -> None:
        with self._lock:
            job.ended_s, job.message, job.state = time.monotonic(), message, state
            if state != DONE or job.id not in self._jobs:
                self._remove_files(job)

    def _remove_files(self, job: Job) -> None:
        remove(job.upload.path)
        if job.result is not None:
            remove(job.result)
            job.result = None
