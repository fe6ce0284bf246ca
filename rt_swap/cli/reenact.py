"""``rt-swap reenact``: re-express a video file."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from rt_swap.cli.common import (
    OK,
    TARGET_CUT_SHORT,
    TARGET_WITHOUT_FACE,
    common_options,
    marks_line,
    marks_of,
    marks_options,
    progress_bar,
    settings_of,
    swapper_of,
)
from rt_swap.config import MODES, ON_LOST, SOURCE_TIMINGS

if TYPE_CHECKING:
    from rt_swap.swapper import Summary

_DESCRIPTION = """\
Gives the person in TARGET the expression of a source: a picture, a clip, or a preset. Every frame
and its time stamp are kept and the sound is copied unchanged. The output appears under its name
only when it is complete; Ctrl-C completes it at once.

Pictures of odd width or height are written as H.264 4:4:4, which keeps the exact size.
"""
_EXAMPLES = """\
examples:
  rt-swap reenact target.mp4 --source smile.jpg -o out.mp4
  rt-swap reenact target.mp4 --preset surprise --gains mouth=0.5,brows=1 -o out.mp4
  rt-swap reenact target.mp4 --source clip.mp4 --source-timing loop --compare -o side_by_side.mp4
  rt-swap reenact portrait.png --preset smile -o smiling.png
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "reenact",
        parents=[common_options()],
        help="re-express a video file",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("target", metavar="TARGET", help="the video (or picture) to re-express")
    givers = parser.add_mutually_exclusive_group(required=True)
    givers.add_argument(
        "--source",
        metavar="FILE",
        help="who gives the expression: a picture, a clip, or a saved expression (.safetensors)",
    )
    givers.add_argument(
        "--preset",
        metavar="NAME",
        help="a named expression: neutral, smile, laugh, surprise, anger, sadness, disgust, fear,"
        " wink",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="what to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--compare", action="store_true", help="write source | target | output side by side"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON on stdout")

    how = parser.add_argument_group("expression")
    how.add_argument(
        "--gains",
        metavar="LIST",
        help="how much of each part comes from the source, 0 to 2: AUs (AU12=0.3), regions"
        " (brows, eyes, cheeks, nose, mouth, jaw, gaze) or all, as brows=0.5,mouth=1"
        " (default: all=1)",
    )
    how.add_argument(
        "--mode",
        choices=MODES,
        help="absolute: take the source's expression; relative: add its difference from its resting"
        " face (default: absolute)",
    )
    how.add_argument(
        "--neutral",
        metavar="FILE|auto",
        help="the source's resting face for --mode relative; auto: a clip's calmest moment, or the"
        " preset neutral (default: auto)",
    )
    how.add_argument(
        "--source-timing",
        choices=SOURCE_TIMINGS,
        help="how a source clip fills the target: stretch it to the same length, loop it, hold its"
        " last expression, or trim the target to it (default: hold)",
    )
    how.add_argument(
        "--target-face",
        metavar="N",
        help="whose face is re-expressed: largest, or a number from the left, from 0"
        " (default: largest)",
    )
    how.add_argument(
        "--on-lost",
        choices=ON_LOST,
        help="what is shown while no face is there: the frame itself, the last picture, or the"
        " frame blurred (default: passthrough)",
    )

    out = parser.add_argument_group("output")
    out.add_argument(
        "--codec",
        metavar="NAME",
        help="FFmpeg's name of the encoder (default: libx264; libvpx-vp9 in .webm)",
    )
    out.add_argument(
        "--crf", type=int, metavar="N", help="quality: smaller is better and larger (default: 18)"
    )
    out.add_argument(
        "--no-audio", dest="audio", action="store_false", default=None, help="leave the sound out"
    )
    marks_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Re-express the file; returns the exit code."""
    settings = settings_of(arguments)
    marks = marks_of(settings)
    from rt_swap.provenance import consent
    from rt_swap.swapper import ReenactInterrupted

    consent.remind(quiet=arguments.quiet)
    with swapper_of(settings) as swapper:
        source = arguments.source
        if source is None:
            source = swapper.preset(arguments.preset)
        try:
            with progress_bar("reenact", quiet=arguments.quiet) as progress:
                summary = swapper.reenact(
                    arguments.target,
                    source,
                    arguments.output,
                    gains=settings.gains,
                    mode=settings.mode,
                    neutral=settings.neutral,
                    source_timing=settings.source_timing,
                    compare=arguments.compare,
                    codec=settings.codec,
                    crf=settings.crf,
                    audio=settings.audio,
                    overwrite=arguments.overwrite,
                    marks=marks,
                    progress=progress,
                )
        except ReenactInterrupted as interrupted:
            _show(interrupted.summary, arguments)
            raise
    _show(summary, arguments)
    if not summary.face_found:
        return TARGET_WITHOUT_FACE
    if summary.damage:
        return TARGET_CUT_SHORT
    return OK


def _show(summary: Summary, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(summary.as_json(), indent=2, allow_nan=False), flush=True)
    if arguments.quiet:
        return
    values = summary.as_json()
    counted = ", ".join(f"{n} {what}" for what, n in summary.statuses.items() if n) or "none"
    lines = [
        f"{summary.output}: {summary.frames_out} frames ({counted}),"
        f" {summary.width}x{summary.height}, {summary.duration_s:.2f} s,"
        f" {values['fps']} frames/s with {summary.backend}",
    ]
    stages = [
        f"{name} {figures['p50']:.1f}/{figures['p95']:.1f}"
        for name, figures in values["stage_ms"].items()
        if figures["count"]
    ]
    if stages:
        lines.append(f"ms per frame, p50/p95: {', '.join(stages)}")
    moved = sorted(
        summary.aus_after,
        key=lambda name: -abs(summary.aus_after[name] - summary.aus_before[name]),
    )[:6]
    if moved:
        changes = (f"{n} {summary.aus_before[n]:.2f}->{summary.aus_after[n]:.2f}" for n in moved)
        lines.append(f"AU intensities that changed most: {', '.join(changes)}")
    lines.append(marks_line(summary.marks))
    for line in lines:
        print(f"rt-swap: {line}", file=sys.stderr)
