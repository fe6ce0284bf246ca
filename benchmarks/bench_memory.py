"""Whether ``rt-swap reenact`` needs the same memory however long the file is.

    python -m benchmarks.bench_memory [--frames 500 5000] [--json FILE] [--model BUNDLE]

Makes videos of a face of each length, runs the real command on each in a process of its own, and
compares the peaks of resident memory. The peak is the kernel's own high-water mark (VmHWM), asked
for while the process runs; where there is no /proc it is the rusage of the finished child.

Exit code: 0; 1 where the peaks are more than --limit percent apart or a run lost frames; 2 where a
run could not be made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from rt_swap.backends import get_backend
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import U8
from rt_swap.model import load_bundle

FRAMES: Final = (500, 5000)
LIMIT_PERCENT: Final = 5.0
_CURVE_POINTS: Final = 20
_POLL_S: Final = 0.1


@dataclass(frozen=True)
class Measured:
    """A finished child.

    Attributes:
        code: Its exit code.
        peak_mib: Most resident memory it ever had.
        curve_mib: Resident memory over its run, evenly spread, at most 20 values; at least one.
        seconds: How long it ran.
        stdout: What it printed.
        stderr: What it said.
    """

    code: int
    peak_mib: float
    curve_mib: list[float]
    seconds: float
    stdout: str
    stderr: str


def measure(command: Sequence[str], environment: dict[str, str] | None = None) -> Measured:
    """Run a command and watch its memory.

    Its own memory only: a child starts as a copy of this process, so the rusage of a child can
    never be less than what this process had; the kernel's mark in /proc starts anew with the new
    program.

    Args:
        command: Program and arguments.
        environment: Variables to set on top of this process's own.

    Raises:
        ConfigError: If it cannot be started.
    """
    begin = time.perf_counter()
    marks: list[float] = []
    curve: list[float] = []
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            child = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
            )
        except OSError as exc:
            raise ConfigError(f"{command[0]}: cannot be started ({exc.strerror})") from exc
        try:
            while True:
                status = _status(child.pid)
                if status is not None:
                    marks.append(status[0])
                    curve.append(status[1])
                done, code, usage = os.wait4(child.pid, os.WNOHANG)
                if done:
                    break
                time.sleep(_POLL_S)
        except BaseException:
            child.kill()
            child.wait()
            raise
        child.returncode = os.waitstatus_to_exitcode(code)
        out.seek(0)
        err.seek(0)
        said, told = out.read(), err.read()
    # kilobytes on Linux, bytes on macOS
    from_usage = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    peak = max(marks) if marks else from_usage
    keep = np.linspace(0, len(curve) - 1, min(len(curve), _CURVE_POINTS)).round().astype(int)
    return Measured(
        child.returncode,
        round(peak, 1),
        [round(curve[k], 1) for k in keep] or [round(peak, 1)],
        round(time.perf_counter() - begin, 2),
        said,
        told,
    )


def _status(pid: int) -> tuple[float, float] | None:
    """(VmHWM, VmRSS) in MiB, or None where the process has none (it has ended, or there is no
    /proc).
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = {
        line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmHWM", "VmRSS"))
    }
    mark_kib, now_kib = (float(found.get(name, 0)) for name in ("VmHWM", "VmRSS"))
    # under a MiB: just started, or about to be gone
    return (mark_kib / 1024.0, now_kib / 1024.0) if now_kib >= 1024.0 else None


def write_video(path: Path, stills: Sequence[U8], frames: int) -> None:
    """A video of a moving face: H.264 at 30 frames a second.

    Args:
        path: What to write.
        stills: Pictures of the face, all of one size, even sides.
        frames: How many.
    """
    import av

    height, width = stills[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=common.RATE, options={"preset": "ultrafast", "crf": "23"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in common.moving_pictures(stills, frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))


def run(
    lengths: Sequence[int], stills: Sequence[U8], model: Path | None, backend: str
) -> list[dict[str, Any]]:
    """Reenact a video of each length.

    Returns:
        One entry per length, as the schema has it.

    Raises:
        ConfigError: If a run fails, with what it said.
    """
    runs = []
    with tempfile.TemporaryDirectory(prefix="rt_swap_bench_") as folder:
        for frames in lengths:
            target, output = Path(folder, f"in_{frames}.mp4"), Path(folder, f"out_{frames}.mp4")
            write_video(target, stills, frames)
            command = [sys.executable, "-m", "rt_swap", "reenact", str(target), "--preset", "smile"]
            command += ["-o", str(output), "--json", "--quiet", "--backend", backend]
            command += ["--model", str(model)] if model is not None else []
            done = measure(command)
            if done.code != 0:
                raise ConfigError(
                    f"rt-swap reenact on {frames} frames ended with {done.code}: "
                    f"{done.stderr.strip()[-400:]}"
                )
            summary = json.loads(done.stdout)
            runs.append(
                {
                    "frames": frames,
                    "frames_out": summary["frames_out"],
                    "peak_mib": done.peak_mib,
                    "seconds": done.seconds,
                    "curve_mib": done.curve_mib,
                }
            )
            print(
                f"{frames:>7} frames: peak {done.peak_mib:.1f} MiB, {done.seconds:.1f} s, "
                f"{summary['frames_out']} frames out",
                flush=True,
            )
            target.unlink()
            output.unlink()
    return runs


def verdict(
    runs: Sequence[dict[str, Any]], limit_percent: float
) -> tuple[float, list[dict[str, Any]]]:
    """Largest peak over smallest, and the bounds: how far apart in percent, and frames lost."""
    peaks = [r["peak_mib"] for r in runs]
    ratio = max(peaks) / min(peaks)
    lost = sum(abs(r["frames"] - r["frames_out"]) for r in runs)
    apart = round(100.0 * (ratio - 1.0), 2)
    return round(runs[-1]["peak_mib"] / runs[0]["peak_mib"], 4), [
        common.bound("peaks apart, percent", apart, limit_percent),
        common.bound("frames lost", lost, 0),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--frames",
        type=int,
        nargs=2,
        default=FRAMES,
        metavar="N",
        help="two lengths (default: 500 5000)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(640, 360),
        metavar="N",
        help="width and height, even (default: 640 360)",
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT_PERCENT, metavar="PERCENT", help="default: %(default)s"
    )
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="FILE",
        help="face to run on (default: of the shared data, else a portrait)",
    )
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the one installed")
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        if min(args.frames) < 2:
            raise ConfigError("--frames must be 2 or more")
        if min(args.size) < 16 or any(side % 2 for side in args.size):
            raise ConfigError("--size must be even and 16 or more")
        bundle, backend = load_bundle(args.model), get_backend(args.backend)
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        about = common.metadata(bundle, backend.name, cores)
        stills, shown = common.pictures(args.clip, (args.size[0], args.size[1]))
        runs = run(args.frames, stills, args.model, backend.name)
        ratio, bounds = verdict(runs, args.limit)
        parameters = {
            "size_wh": list(args.size),
            "shown": shown,
            "command": "rt-swap reenact IN --preset smile -o OUT",
        }
        made = common.document("memory", about, parameters, {"runs": runs, "ratio": ratio}, bounds)
        if args.json:
            common.write_result(args.json, made)
    except RtSwapError as exc:
        print(f"bench_memory: {exc}", file=sys.stderr)
        return 2
    print(f"ratio {ratio}")
    common.print_bounds(bounds)
    return 0 if made["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
