"""``rt-swap studio``: the page in a browser, served to this machine only."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING

from rt_swap.cli.common import OK, common_options, marks_of, marks_options, settings_of

if TYPE_CHECKING:
    from rt_swap.config import Settings
    from rt_swap.swapper import Swapper

_DESCRIPTION = """\
Serves a page to this machine's browser: the camera's picture goes in, the re-expressed one comes
back beside it, with a gallery of expressions, sliders for every part of the face, and whole videos
by drag and drop. Nothing leaves this machine. The address it prints holds a key; who has it can
use the page, from this machine only. Ctrl-C ends it and removes everything that was uploaded.
"""
_EXAMPLES = """\
examples:
  rt-swap studio                   prints the address and opens the browser
  rt-swap studio --no-browser      only prints it
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "studio",
        parents=[common_options()],
        help="the page in a browser: your camera, live, and whole videos",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--port", type=int, metavar="N", help="of 127.0.0.1 (default: 8471, or any where taken)"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address, do not open a browser"
    )
    marks_options(parser)
    parser.add_argument(
        "--max-upload-mib",
        type=int,
        default=4096,
        metavar="N",
        help="the largest video that is taken (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    settings = settings_of(arguments)
    marks = marks_of(settings)
    from rt_swap.provenance import consent
    from rt_swap.studio.server import check_installed, listen, serve

    check_installed()
    consent.remind(quiet=arguments.quiet)
    sock = listen(arguments.port)
    try:
        from rt_swap.expression import parse_gains
        from rt_swap.studio.controls import controls_from_settings
        from rt_swap.studio.core import Studio

        parse_gains(settings.gains or None)  # says what is wrong before anything is loaded
        with Studio(
            lambda: _load(settings),
            controls=controls_from_settings(settings.gains, settings.mode, settings.live_on_lost),
            max_video_mib=arguments.max_upload_mib,
            marks=marks,
        ) as studio:
            if not arguments.quiet:
                print("rt-swap: loading the model", file=sys.stderr)
            studio.start()

            def ready(address: str) -> None:
                print(address, flush=True)
                if not arguments.quiet:
                    print(
                        "rt-swap: the page is served to this machine; Ctrl-C ends it",
                        file=sys.stderr,
                    )
                if not arguments.no_browser:
                    _open(address)

            with contextlib.suppress(KeyboardInterrupt):  # the usual end
                serve(studio, sock, ready=ready)
    finally:
        sock.close()
    return OK


def _load(settings: Settings) -> Swapper:
    """A model of its own for each thread; what is uploaded leaves no trace in the user's cache."""
    from rt_swap.swapper import Swapper

    return Swapper.load(
        settings.model,
        settings.backend,
        face=settings.face,
        target_face=settings.target_face,
        threads=settings.threads,
        on_lost=settings.on_lost,
        cache=None,
    )


def _open(address: str) -> None:
    import threading
    import webbrowser

    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return  # a text browser would take the terminal
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
