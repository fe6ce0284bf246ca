"""``rt-swap bench``: how fast it is here, in figures that can be compared and quoted."""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from rt_swap.cli.common import BENCH_SLOWER, OK, common_options, settings_of
from rt_swap.errors import ConfigError

if TYPE_CHECKING:
    from rt_swap.bench.run import Plan

_DESCRIPTION = """\
Measures what a user of this machine gets: a real face, filmed by a simulated hand-held camera (no
two frames alike), goes through the whole line, one frame after the other, and then as in use:
live at a camera's rate, with the newest frame winning and drops counted. Also a ladder from 480p to
4K, every model and backend there is, memory, power where the machine tells it, and the time from
nothing to the first frame. The clock starts when a frame is in memory and stops when the finished
one is; the camera, decoding, encoding and the display are not in it.

Run it on a machine that does nothing else; what makes the figures doubtful is said at the end.
"""
_EXAMPLES = """\
examples:
  rt-swap bench --json mine.json --html mine.html
  rt-swap bench --target clip.mp4 --frames 5000
  rt-swap bench --parts live,starts
  rt-swap bench --compare mine.json          exits with 42 where something got slower
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "bench",
        parents=[common_options()],
        help="measure latency, throughput, memory and power on this machine",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--frames", type=int, default=2000, metavar="N", help="frames to time (default: 2000)"
    )
    what.add_argument(
        "--warm-up", type=int, default=60, metavar="N", help="frames before them (default: 60)"
    )
    what.add_argument("--size", default="1280x720", metavar="WxH", help="(default: 1280x720)")
    what.add_argument(
        "--rate", default="30", metavar="FPS", help="of the live run's camera (default: 30)"
    )
    what.add_argument(
        "--seconds", type=float, default=10.0, metavar="N", help="of the live run (default: 10)"
    )
    what.add_argument("--target", metavar="FILE", help="a video or picture of a face of your own")
    what.add_argument(
        "--parts",
        metavar="LIST",
        help="besides the straight run: overlapped, live, starts, ladder, models, backends, or"
        " none (default: all)",
    )
    what.add_argument(
        "--also-model",
        action="append",
        default=[],
        metavar="DIR",
        help="another model to measure beside this one; may be given again",
    )
    what.add_argument(
        "--cores", type=int, metavar="N", help="keep to so many processor cores (default: all)"
    )
    out = parser.add_argument_group("results")
    out.add_argument("--json", metavar="FILE", help="write the result, every frame's time included")
    out.add_argument("--html", metavar="FILE", help="write a report with plots; needs no network")
    out.add_argument(
        "--compare", metavar="FILE", help="an older --json result: say what got slower since"
    )
    out.add_argument(
        "--tolerance",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="least change that --compare counts, for what differs between two runs of the same"
        " program (default: 5)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure; returns the exit code."""
    settings = settings_of(arguments)
    if not 0 <= arguments.tolerance <= 1000:
        raise ConfigError(f"--tolerance: must be from 0 to 1000 percent, got {arguments.tolerance}")
    from rt_swap.bench import table
    from rt_swap.bench.compare import compare
    from rt_swap.bench.run import as_json, run_bench, write_text
    from rt_swap.bench.schema import read_result
    from rt_swap.machine import ThisMachine

    # before minutes of measuring
    old = read_result(Path(arguments.compare)) if arguments.compare else None
    for option in ("json", "html"):
        _check_folder(option, getattr(arguments, option))
    plan = _plan(arguments, settings.threads, settings.backend, settings.model)

    def tell(text: str) -> None:
        if not arguments.quiet:
            print(f"rt-swap: {text}", file=sys.stderr)

    document = run_bench(plan, ThisMachine(), tell)
    if arguments.json:
        write_text(Path(arguments.json), as_json(document), "--json")
    comparison = None
    if old is not None:
        comparison = compare(old, document, tolerance=arguments.tolerance / 100)
    if arguments.html:
        from rt_swap.bench.html import page

        write_text(Path(arguments.html), page(document, comparison), "--html")
    for line in table.lines_of(document):
        print(line)
    if comparison is not None:
        for line in table.lines_of_comparison(comparison):
            print(line)
        if comparison.slower:
            return BENCH_SLOWER
    return OK


def _plan(arguments: argparse.Namespace, threads: int, backend: str, model: str | None) -> Plan:
    import os
    from dataclasses import replace

    from rt_swap.bench import about
    from rt_swap.bench.run import PARTS, Plan

    everything = arguments.parts is None
    parts = (
        PARTS if everything else tuple(p.strip() for p in arguments.parts.split(",") if p.strip())
    )
    if parts == ("none",):
        parts = ()
    plan = Plan(
        frames=arguments.frames,
        warm_up=arguments.warm_up,
        size_wh=_size(arguments.size),
        rate=_rate(arguments.rate),
        seconds=arguments.seconds,
        threads=threads,
        parts=parts,
        target=Path(arguments.target) if arguments.target else None,
        model=Path(model) if model else None,
        backend=backend,
        more_models=tuple(Path(folder) for folder in arguments.also_model),
    )
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    used = about.use_cores(arguments.cores) if arguments.cores is not None else allowed or 1
    return replace(plan, cores_used=used)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"--size: must be like 1280x720, got {text!r}")
    return int(width), int(height)


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as exc:
        raise ConfigError(f"--rate: must be a number like 30 or 30000/1001, got {text!r}") from exc


def _check_folder(option: str, name: str | None) -> None:
    if name and not Path(name).absolute().parent.is_dir():
        raise ConfigError(f"--{option} {name}: there is no folder {Path(name).parent}")
