"""How old a frame is when it leaves ``rt-swap live``: a file paced as a camera, on two cores.

    python -m benchmarks.bench_live [--seconds 600] [--json FILE] [--model BUNDLE] [--clip FILE]

A real face, filmed by a simulated hand-held camera, is encoded to H.264 once, 1280x720 at 30 frames
a second. Then what ``rt-swap live`` is made of runs on it for as long as asked: the file is decoded
in real time on the camera's thread, the newest picture is taken, tracked, re-expressed, composed
and turned into what a virtual camera takes (YUV 4:2:0). The expression changes every ten seconds
while it runs. The age of a frame counts from the moment at which it was due to the moment at which
its YUV picture is ready. Decoding the next pictures, and everything else of this process, shares
the same cores.

Left out: the camera's own exposure and transfer, the copy into the virtual camera's device, and
what the call does afterwards. The first --warm-up seconds are left out of the ages.

Exit code: 0; 1 where a bound is missed (age p50 <= 40 ms, p99 <= 66 ms, drops < 1 %, memory growth
<= 8 MiB); 2 for wrong options or where something cannot be loaded.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import U8, Frame
from rt_swap.io.paced import PacedFile
from rt_swap.io.pixels import i420_from_bgr
from rt_swap.io.video import VideoInfo, VideoWriter
from rt_swap.live.engine import LiveEngine
from rt_swap.live.grabber import Grabber
from rt_swap.live.run import LiveRun, SinkSlot
from rt_swap.swapper import Swapper

SIZE_WH: Final = (1280, 720)
P50_MS: Final = 40.0
P99_MS: Final = 66.0
DROPS_PERCENT: Final = 1.0
GROWTH_MIB: Final = 8.0
_CLIP_S: Final = 20.0
_CHANGE_S: Final = 10.0
_PRESETS: Final = ("smile", "surprise", "anger", "laugh")
_CURVE_POINTS: Final = 60
_LEAST_SWAPPED: Final = 0.95


class YuvSink:
    """Does what a virtual camera's sink does, up to the device."""

    def __init__(self) -> None:
        self.frames = 0
        self.last: U8 | None = None

    def write(self, frame: Frame) -> None:
        """Convert one picture."""
        self.last = i420_from_bgr(frame.frame_bgr)
        self.frames += 1

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Nothing to complete."""

    def abort(self) -> None:
        """Nothing to throw away."""


@dataclass
class Watcher:
    """Looks at a run after each picture: ages, memory, and another expression now and then.

    Args:
        engine: In use.
        warm_up_s: Left out.
    """

    engine: LiveEngine
    warm_up_s: float
    # four bytes a number: lists of floats would be some MiB of the growth that is looked for
    ages_ms: array[float] = field(default_factory=lambda: array("f"))
    stages_ms: dict[str, array[float]] = field(default_factory=dict)
    memory_mib: list[tuple[float, float]] = field(default_factory=list)
    changes: int = 0
    received_before: int = 0
    dropped_before: int = 0
    _began_s: float | None = None
    _frames: int = 0
    _warm: bool = False

    def look(self, live: LiveRun) -> None:
        """After one picture, on the run's thread."""
        state = self.engine.state
        if state.frames == self._frames:
            return  # a stand-in
        self._frames = state.frames
        now = time.perf_counter()
        self._began_s = now if self._began_s is None else self._began_s
        since_s = now - self._began_s
        if not self._warm and since_s >= self.warm_up_s:
            report = live.grabber.report
            self._warm = True
            self.received_before, self.dropped_before = report.received, report.dropped
        if since_s // _CHANGE_S > self.changes:
            self.changes = int(since_s // _CHANGE_S)
            name = _PRESETS[self.changes % len(_PRESETS)]
            self.engine.set_expression(self.engine.swapper.preset(name), name=name)
        if not self._warm:
            return
        self.ages_ms.append(state.age_ms)
        for name, value_ms in state.stage_ms.items():
            self.stages_ms.setdefault(name, array("f")).append(value_ms)
        if not self.memory_mib or since_s - self.memory_mib[-1][0] >= 1.0:
            self.memory_mib.append((since_s, resident_mib()))


def resident_mib() -> float:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth_mib(curve: Sequence[tuple[float, float]]) -> float:
    """By how much memory grew: the median of the last fifth above that of the second fifth.

    The first fifth is left out: allocators and caches fill up then.

    Args:
        curve: (seconds, MiB), at least five.

    Raises:
        ConfigError: If there are fewer.
    """
    if len(curve) < 5:
        raise ConfigError(
            f"--seconds: too short to see memory grow, {len(curve)} samples; at least 5 are needed"
        )
    values = np.array([mib for _, mib in curve])
    fifth = len(values) // 5
    return float(np.median(values[-fifth:]) - np.median(values[fifth : 2 * fifth]))


def write_clip(path: Path, stills: list[U8], seconds: float) -> None:
    """Encode moving pictures of the face.

    Raises:
        SinkError: If it cannot be written.
    """
    rate = Fraction(common.RATE)
    info = VideoInfo(
        path=Path("camera"),
        width=SIZE_WH[0],
        height=SIZE_WH[1],
        rate=rate,
        time_base=1 / rate,
        duration_s=None,
        frame_count=None,
        has_audio=False,
    )
    # B-frames and large groups would make decoding come in bursts, as no camera does
    options = {"preset": "ultrafast", "bf": "0", "g": "30"}
    with VideoWriter(path, info, crf=20, options=options) as writer:
        for pts, picture in enumerate(common.moving_pictures(stills, round(seconds * rate))):
            writer.write(Frame(picture, pts, 1 / rate))


def measure(
    swapper: Swapper, clip: Path, seconds: float, warm_up_s: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run it.

    Returns:
        The results and the bounds.

    Raises:
        ConfigError: If so little was re-expressed that nothing was measured.
    """
    opener = functools.partial(PacedFile, clip)
    slot = SinkSlot("yuv", lambda *_: YuvSink(), comes_back=False)
    slot.open(SIZE_WH, 30.0)
    with LiveEngine(swapper) as engine, Grabber(opener, name="paced file") as grabber:
        engine.set_expression(swapper.preset(_PRESETS[0]), name=_PRESETS[0])
        watcher = Watcher(engine, warm_up_s)
        live = LiveRun([engine], grabber, [slot], on_frame=watcher.look)
        grabber.start()
        begin_s = time.perf_counter()
        summary = live.go(warm_up_s + seconds)
        elapsed_s = time.perf_counter() - begin_s
        report = grabber.report
    statuses = summary.statuses
    emitted = sum(statuses.values())
    if emitted == 0 or statuses["swapped"] < _LEAST_SWAPPED * emitted:
        raise ConfigError(
            f"only {statuses['swapped']} of {emitted} frames were re-expressed; give a --clip that"
            " shows a face all the time"
        )
    received = report.received - watcher.received_before
    dropped = report.dropped - watcher.dropped_before
    drops_percent = 100 * dropped / max(received, 1)
    age = common.timing_summary(watcher.ages_ms)
    grown_mib = growth_mib(watcher.memory_mib)
    every = max(len(watcher.memory_mib) // _CURVE_POINTS, 1)
    results = {
        "seconds": round(elapsed_s, 1),
        "received": received,
        "emitted": len(watcher.ages_ms),
        "statuses": statuses,
        "dropped": dropped,
        "drops_percent": round(drops_percent, 3),
        "expression_changes": watcher.changes,
        "age_at_emit_ms": age,
        "stage_ms": {n: common.timing_summary(v) for n, v in watcher.stages_ms.items()},
        "memory_growth_mib": round(grown_mib, 2),
        "memory_curve_mib": [round(mib, 1) for _, mib in watcher.memory_mib[::every]],
        "camera_losses": summary.losses,
    }
    bounds = [
        common.bound("age of frame at emit, p50, ms", age["p50"], P50_MS),
        common.bound("age of frame at emit, p99, ms", age["p99"], P99_MS),
        common.bound("pictures dropped, percent", round(drops_percent, 3), DROPS_PERCENT),
        common.bound("memory growth, MiB", round(grown_mib, 2), GROWTH_MIB),
    ]
    return results, bounds


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds left out (default: 5)")
    parser.add_argument("--cores", type=int, default=2, help="cores to use (default: 2)")
    parser.add_argument("--clip", type=Path, help="a video of a face")
    parser.add_argument("--model", type=Path, help="model bundle (default: the installed one)")
    parser.add_argument("--backend", default="auto", help="what runs the networks")
    parser.add_argument("--json", type=Path, help="write the result there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    args = _arguments(argv)
    try:
        if not 5 <= args.seconds <= 86_400 or not 0 <= args.warm_up <= 600:
            raise ConfigError("--seconds must be 5 to 86400 and --warm-up 0 to 600")
        cores = common.use_cores(args.cores)
        with (
            tempfile.TemporaryDirectory(prefix="rt_swap_bench_") as folder,
            Swapper.load(args.model, args.backend, cache=None, threads=cores) as swapper,
        ):
            about = common.metadata(swapper.bundle, swapper.backend.name, cores)
            stills, shown = common.pictures(args.clip, SIZE_WH)
            clip = Path(folder) / "camera.mp4"
            write_clip(clip, stills, min(_CLIP_S, args.seconds))
            results, bounds = measure(swapper, clip, args.seconds, args.warm_up)
            parameters = {
                "seconds": args.seconds,
                "warm_up_s": args.warm_up,
                "size_wh": list(SIZE_WH),
                "rate_hz": float(common.RATE),
                "threads": cores,
                "shown": f"{shown}, encoded to H.264, {_CLIP_S:g} s played again and again",
                "not_timed": "exposure, transfer, the copy into the virtual camera, the call",
            }
            made = common.document("live", about, parameters, results, bounds)
        if args.json:
            common.write_result(args.json, made)
    except RtSwapError as exc:
        print(f"bench_live: {exc}", file=sys.stderr)
        return 2
    age = results["age_at_emit_ms"]
    print(
        f"{about['cpu']}, {cores} cores, load before {about['load_before']}; {shown}; model"
        f" {swapper.bundle.name}"
    )
    print(
        f"{results['emitted']} frames; age p50 {age['p50']:.1f}, p95 {age['p95']:.1f}, p99"
        f" {age['p99']:.1f}, max {age['max']:.1f} ms; {results['dropped']} of"
        f" {results['received']} dropped; memory grew by {results['memory_growth_mib']:g} MiB"
    )
    common.print_bounds(bounds)
    return 0 if made["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
