"""``rt-swap devices``: cameras, virtual cameras, GPUs and audio sources."""

from __future__ import annotations

import argparse
import json

from rt_swap.cli.common import OK


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "devices",
        help="list cameras with their formats, virtual cameras, GPUs and audio sources",
        description="Lists cameras (with formats, sizes and frames per second), virtual cameras,"
        " GPUs and audio sources. Opens nothing for recording.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print the list as JSON, in full")
    parser.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-v", "--verbose", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """List; returns the exit code."""
    from rt_swap.doctor.devices import all_devices
    from rt_swap.machine import ThisMachine

    devices = all_devices(ThisMachine())
    if arguments.json:
        print(json.dumps(devices.as_json(), indent=2))
    else:
        for line in devices.lines():
            print(line)
    return OK
