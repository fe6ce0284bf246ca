"""The measuring itself: one function a question, each giving plain numbers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap import geometry, stream
from rt_swap.bench.clip import Clip
from rt_swap.bench.figures import timing_summary
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import BackendError, ConfigError
from rt_swap.frames import F32, Frame, FrameResult, FrameStatus
from rt_swap.model import ModelBundle
from rt_swap.pipeline import Pipeline, Work
from rt_swap.swapper import Swapper

LADDER: Final[dict[str, tuple[int, int]]] = {
    "480p": (854, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "1440p": (2560, 1440),
    "4K": (3840, 2160),
}
_RING_MIB: Final = 256.0
_RING_FRAMES: Final = 90
_START_TIMEOUT_S: Final = 600.0

Tell = Callable[[str], None]
"""Called with what is being measured now."""


@dataclass
class Straight:
    """Frames one by one from end to end.

    Attributes:
        total_ms: Capture to emit of each frame after the warm-up.
        stage_ms: Time by stage, in the order of the frames.
        cpu_ms: Processor time of all threads by part of the line.
        gpu_ms: Time on the GPU by stage, from events; empty where the backend tells none.
        first_ms: The very first frame, whose time is not in ``total_ms``.
        statuses: Frames by what happened.
        face_px: Median side of the crop in the frame.
        peak_host_mib: The process's high-water mark since the start of this run, or since its own
            start where the system cannot set the mark back.
    """

    total_ms: list[float] = field(default_factory=list)
    stage_ms: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    gpu_ms: dict[str, list[float]] = field(default_factory=dict)
    first_ms: float = 0.0
    statuses: dict[str, int] = field(default_factory=lambda: {s.value: 0 for s in FrameStatus})
    face_px: float | None = None
    peak_host_mib: float | None = None

    def summary(self) -> dict[str, Any]:
        """Plain numbers, as the schema has them."""
        return {
            "frames": len(self.total_ms),
            "statuses": dict(self.statuses),
            "face_px": self.face_px,
            "first_frame_ms": round(self.first_ms, 3),
            "capture_to_emit_ms": timing_summary(self.total_ms),
            "fps_back_to_back": round(1e3 * len(self.total_ms) / sum(self.total_ms), 2),
            "stage_ms": {name: timing_summary(v) for name, v in self.stage_ms.items()},
            "cpu_ms": {name: timing_summary(v) for name, v in self.cpu_ms.items()},
            "gpu_ms": {name: timing_summary(v) for name, v in self.gpu_ms.items()} or None,
        }

    def samples(self) -> dict[str, list[float]]:
        """Every frame's times, rounded to microseconds, for plots and comparisons."""
        series = {"capture to emit": self.total_ms, **self.stage_ms}
        return {name: [round(v, 3) for v in values] for name, values in series.items()}


def source_tokens(swapper: Swapper) -> F32:
    """(K, D) tokens of the model's preset "smile", or of its first one.

    Raises:
        ConfigError: If the model ships no preset.
    """
    names = swapper.bundle.preset_names
    if not names:
        raise ConfigError(
            f"{swapper.bundle.path}: ships no preset, which is the source of a benchmark"
        )
    tokens: F32 = swapper.preset("smile" if "smile" in names else names[0]).tokens[0]
    return tokens


@contextlib.contextmanager
def _pipeline_of(swapper: Swapper) -> Iterator[Pipeline]:
    with (
        swapper._follower("largest") as follower,
        swapper._pipeline(follower) as pipeline,
    ):
        yield pipeline


def straight(
    swapper: Swapper, clip: Clip, size_wh: tuple[int, int], frames: int, warm_up: int
) -> Straight:
    """One frame after the other, from in memory to out of it; making the frames is not timed.

    Args:
        swapper: The model.
        clip: What is shown.
        size_wh: Of the frames.
        frames: How many count.
        warm_up: How many run before, 1 or more.

    Raises:
        ConfigError: If not one frame shows a face, so that nothing would have been measured.
    """
    tokens, got = source_tokens(swapper), Straight()
    sides: list[float] = []
    _reset_high_water()
    with _pipeline_of(swapper) as pipeline:
        for number, made in enumerate(clip.frames(size_wh, warm_up + frames)):
            cpu = [time.process_time()]
            begin = time.perf_counter()
            frame = replace(made, captured_s=begin)
            work = pipeline.track(frame)
            cpu.append(time.process_time())
            pipeline.generate(work, tokens)
            cpu.append(time.process_time())
            result = pipeline.compose(work)
            spent_ms = (time.perf_counter() - begin) * 1e3
            cpu.append(time.process_time())
            if number == 0:
                got.first_ms = spent_ms
            if number < warm_up:
                continue
            got.total_ms.append(spent_ms)
            _add(got.stage_ms, result.stage_ms)
            parts = dict(zip(("track and crop", "generate", "compose"), np.diff(cpu), strict=True))
            _add(got.cpu_ms, {name: float(s) * 1e3 for name, s in parts.items()})
            _add(got.cpu_ms, {"all": (cpu[-1] - cpu[0]) * 1e3})
            _add(got.gpu_ms, _gpu_ms(pipeline, result))
            got.statuses[result.status.value] += 1
            if result.crop is not None:
                M_frame_from_crop = geometry.invert(result.crop.M_crop_from_frame)
                sides.append(CROP_SIZE_PX * geometry.scale_of(M_frame_from_crop))
    if not sides:
        raise ConfigError(
            f"{clip.shown}: no frame at {size_wh[0]}x{size_wh[1]} shows a face that can be"
            " followed, so nothing was measured; give another clip with --target"
        )
    got.face_px = round(float(np.median(sides)), 1)
    got.peak_host_mib = high_water_mib()
    return got


def _gpu_ms(pipeline: Any, result: FrameResult) -> Mapping[str, float]:
    """Times from events, where the GPU path offers them as ``gpu_stage_ms``."""
    for owner in (result, pipeline):
        told = getattr(owner, "gpu_stage_ms", None)
        if told:
            return dict(told)
    return {}


def _add(series: dict[str, list[float]], values: Mapping[str, float]) -> None:
    for name, value in values.items():
        series.setdefault(name, []).append(float(value))


# --- as in use: stages overlapped ----------------------------------------------------------------
def _ring(clip: Clip, size_wh: tuple[int, int]) -> list[Frame]:
    """Frames made beforehand, so that making them takes no time from what is measured."""
    mib = size_wh[0] * size_wh[1] * 3 / 2**20
    count = max(min(int(_RING_MIB / mib), _RING_FRAMES), 4)
    return list(clip.frames(size_wh, count))


def _there_and_back(ring: list[Frame], number: int) -> Frame:
    """The ring's frame for a place in an endless clip without a jump."""
    period = max(2 * (len(ring) - 1), 1)
    place = number % period
    return ring[min(place, period - place)]


def live(
    swapper: Swapper, clip: Clip, size_wh: tuple[int, int], rate: Fraction, seconds: float
) -> dict[str, Any]:
    """As with a camera: frames come at a rate whether wanted or not, the newest wins.

    Args:
        swapper: The model.
        clip: What is shown.
        size_wh: Of the frames.
        rate: Frames per second that the camera gives.
        seconds: How long; the first second is warm-up and not counted.

    Returns:
        As the schema has it. Age runs from the moment the picture is in memory to the moment the
        finished one is; the camera's and the display's own delay are not in it.
    """
    tokens, ring = source_tokens(swapper), _ring(clip, size_wh)
    count = max(round(float(rate) * (seconds + 1)), 2)
    skipped = min(round(float(rate)), count - 1)
    ages: list[float] = []
    emitted_pts: list[int] = []
    done_s: list[float] = []

    def camera() -> Iterator[Frame]:
        begin = time.perf_counter()
        for number in range(count):
            wait_s = begin + number / float(rate) - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            shown = _there_and_back(ring, number)
            # a driver hands over memory of its own
            yield Frame(shown.frame_bgr.copy(), number, 1 / rate, time.perf_counter())

    def emit(work: Work, pipeline: Pipeline) -> None:
        result = pipeline.compose(work, in_place=True)
        now = time.perf_counter()
        if result.frame.pts >= skipped:
            ages.append((now - result.frame.captured_s) * 1e3)
            emitted_pts.append(result.frame.pts)
            done_s.append(now)

    with _pipeline_of(swapper) as pipeline:
        report = stream.run(
            camera(),
            [("track", pipeline.track), ("generate", lambda w: pipeline.generate(w, tokens))],
            lambda work: emit(work, pipeline),
            newest_wins=True,
        )
    if report.interrupted:
        raise KeyboardInterrupt("stopped; nothing was written")
    offered = count - skipped
    dropped = offered - len(ages)
    elapsed_s = done_s[-1] - done_s[0] if len(done_s) > 1 else 0.0
    return {
        "rate": float(rate),
        "seconds": seconds,
        "offered": offered,
        "emitted": len(ages),
        "dropped": dropped,
        "dropped_percent": round(100 * dropped / offered, 2),
        "fps": round((len(done_s) - 1) / elapsed_s, 2) if elapsed_s else None,
        "age_ms": timing_summary(ages) if ages else None,
        "samples_ms": [round(age, 3) for age in ages],
        "emitted_pts": emitted_pts,
    }


def overlapped(
    swapper: Swapper, clip: Clip, size_wh: tuple[int, int], frames: int
) -> dict[str, Any]:
    """As for a file: stages on threads of their own, nothing dropped, as fast as it goes."""
    tokens, ring = source_tokens(swapper), _ring(clip, size_wh)
    rate = Fraction(30)
    done_s: list[float] = []

    def read() -> Iterator[Frame]:
        for number in range(frames):
            picture = _there_and_back(ring, number).frame_bgr.copy()
            yield Frame(picture, number, 1 / rate, time.perf_counter())

    with _pipeline_of(swapper) as pipeline:

        def emit(work: Work) -> None:
            pipeline.compose(work, in_place=True)
            done_s.append(time.perf_counter())

        report = stream.run(
            read(),
            [("track", pipeline.track), ("generate", lambda w: pipeline.generate(w, tokens))],
            emit,
        )
    if report.interrupted:
        raise KeyboardInterrupt("stopped; nothing was written")
    steady = done_s[len(done_s) // 10 :]
    elapsed_s = steady[-1] - steady[0]
    return {
        "frames": frames,
        "fps": round((len(steady) - 1) / elapsed_s, 2) if elapsed_s > 0 else None,
    }


# --- the same at other sizes, with other models and backends --------------------------------------
def rung(
    swapper: Swapper, clip: Clip, name: str, size_wh: tuple[int, int], frames: int, warm_up: int
) -> dict[str, Any]:
    """One entry of a ladder."""
    got = straight(swapper, clip, size_wh, frames, warm_up)
    summary = got.summary()
    return {"name": name, "size_wh": list(size_wh), "peak_host_mib": got.peak_host_mib, **summary}


def of_model(
    bundle: ModelBundle,
    backend: Any,
    clip: Clip,
    size_wh: tuple[int, int],
    frames: int,
    warm_up: int,
    threads: int,
) -> dict[str, Any]:
    """One model through one backend; its own Swapper, closed again.

    Raises:
        BackendError: If it cannot run.
    """
    with Swapper(bundle, backend, threads=threads) as swapper:
        got = straight(swapper, clip, size_wh, frames, warm_up)
    size = sum(path.stat().st_size for path in (bundle.encoder_path, bundle.generator_path))
    return {
        "name": bundle.name,
        "backend": backend.name,
        "mib": round(size / 2**20, 2),
        "why_not": None,
        **got.summary(),
    }


def not_run(name: str, backend: str, error: str) -> dict[str, Any]:
    """The entry of what could not be run, with the reason."""
    return {"name": name, "backend": backend, "why_not": error}


def try_backend(
    bundle: ModelBundle, name: str, reason: str | None, run: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """Run a backend, or say why not.

    Args:
        bundle: The model.
        name: The backend's.
        reason: Why it cannot run here, as the registry says, or None.
        run: Measures, given the backend.
    """
    from rt_swap.backends import get_backend

    if reason is not None:
        return not_run(bundle.name, name, reason)
    try:
        return run(get_backend(name))
    except BackendError as exc:
        return not_run(bundle.name, name, str(exc))


# --- starting ------------------------------------------------------------------------------------
def starts(arguments: Mapping[str, Any], times: int) -> dict[str, Any]:
    """How long until the first finished frame, from a new process and again within it.

    Args:
        arguments: For :mod:`rt_swap.bench.start`.
        times: New processes, 1 or more; the median of them is given.

    Returns:
        Milliseconds, as the schema has it. The files may be in the system's cache already: only
        the machine's very first start after boot is colder.

    Raises:
        ConfigError: If a start fails, with what it said.
    """
    cold: list[dict[str, float]] = []
    for _ in range(times):
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "rt_swap.bench.start", json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        with process:
            try:
                # the first line comes with the first frame; the second start goes on after it
                assert process.stdout is not None and process.stderr is not None
                first = process.stdout.readline()
                spent_ms = (time.perf_counter() - begin) * 1e3
                rest, said = process.communicate(timeout=_START_TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        if process.returncode or not first:
            last = said.strip().splitlines()[-1:] or ["it said nothing"]
            raise ConfigError(f"the start could not be measured: {last[0]}")
        told = json.loads(first)
        told["total_ms"] = spent_ms - told.pop("prepare_ms")
        told.update(json.loads(rest))
        cold.append(told)

    def median(name: str) -> float:
        return round(float(np.median([one[name] for one in cold])), 1)

    return {
        "processes": times,
        "cold_ms": {
            name: median(f"{name}_ms") for name in ("import", "load", "first_frame", "total")
        },
        "warm_ms": {
            "load": median("warm_load_ms"),
            "first_frame": median("warm_first_frame_ms"),
            "total": round(median("warm_load_ms") + median("warm_first_frame_ms"), 1),
        },
    }


# --- memory --------------------------------------------------------------------------------------
def high_water_mib() -> float | None:
    """Largest resident memory of this process, MiB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)
    return round(int(found.group(1)) / 1024, 1) if found else None


def _reset_high_water() -> None:
    """Set the mark back to what is held now, where the system can (Linux 4.0)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
