"""``rt-swap inspect``: read the marks of provenance in a file."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rt_swap.cli.common import OK, talk_options
from rt_swap.errors import ConfigError

_DESCRIPTION = """\
Reads the marks that rt-swap leaves: the C2PA manifest (any program's), the badge in a corner, and
the imperceptible mark in the pixels of a face, which survives a call's compression and rescaling.

No mark does not mean that nothing was altered: other programs leave others or none, and whoever
means to can remove them.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "inspect",
        parents=[talk_options()],
        help="read the marks of provenance in a video or picture",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="a video or a picture")
    parser.add_argument(
        "--frames", default=300, metavar="N", help="frames to look at (default: 300)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Read and print the marks; returns the exit code."""
    try:
        frames = int(arguments.frames)
    except ValueError:
        raise ConfigError(f"--frames: must be a whole number, got {arguments.frames!r}") from None
    from rt_swap.provenance.inspection import inspect_file

    found = inspect_file(arguments.file, frames=frames)
    if arguments.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        print("\n".join(lines_of(found)))
    return OK


def lines_of(found: dict[str, Any]) -> list[str]:
    """What was found, for people."""
    signed, seen, pixels = found["manifest"], found["badge"], found["watermark"]
    if signed["state"] in ("none", "unreadable"):
        manifest = "none" if signed["state"] == "none" else "cannot be read"
        if signed.get("note"):
            manifest += f" ({signed['note']})"
    else:
        own = signed["rt_swap"]
        what = f"rt_swap, model {own['model']}" if own else "another program's"
        whom = "trusted" if signed["trusted"] else "unknown to this computer, proves no identity"
        manifest = f"{signed['state']}, {what}; signed by {signed['signed_by']} ({whom})"
        if signed["state"] == "invalid":
            manifest += f"; changed since it was signed: {', '.join(signed['problems'])}"
        if own and own["marks"]["badge"] == "off":
            manifest += "; made with --no-badge"
    corner = seen["corner"] or "none seen"
    if not pixels["pictures"]:
        mark = "no face was seen to look at"
    elif pixels["found"]:
        mark = f"found, model {pixels['model']}..., format {pixels['version']}"
    else:
        mark = "none found"
    if pixels["pictures"]:
        mark += (
            f" (score {pixels['score']:.1f}, {pixels['threshold']:g} is needed,"
            f" {pixels['pictures']} pictures)"
        )
    verdict = (
        "altered with a trained model, its marks say"
        if found["altered"]
        else "no mark says that it was altered (which proves nothing)"
    )
    return [
        f"{found['file']}: {verdict}",
        f"  manifest   {manifest}",
        f"  badge      {corner} (correlation {seen['correlation']:.2f})",
        f"  pixels     {mark}",
    ]
