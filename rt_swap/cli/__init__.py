"""The command line: ``rt-swap VERB ...``. One file a verb; nothing heavy is imported before a verb
runs.

Data goes to stdout, talk to stderr. Every kind of failure has an exit code of its own and is told
in one sentence.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final, NoReturn

from rt_swap import errors
from rt_swap.cli import (
    bench,
    demo,
    devices,
    doctor,
    engine,
    inspect,
    live,
    reenact,
    source,
    studio,
)
from rt_swap.cli.common import (
    BENCH_SLOWER,
    DOCTOR_PROBLEM,
    OK,
    TARGET_CUT_SHORT,
    TARGET_WITHOUT_FACE,
    start_logging,
)

EXIT_CODES: Final[dict[type[BaseException], int]] = {
    errors.ConfigError: 2,
    errors.RtSwapError: 3,
    errors.ContractError: 4,
    errors.BackendError: 10,
    errors.BackendUnavailable: 11,
    errors.EngineBuildError: 12,
    errors.EngineMismatch: 13,
    errors.ModelFileError: 14,
    errors.InferenceError: 15,
    errors.ExpressionError: 20,
    errors.NoFaceError: 21,
    errors.ExpressionFileError: 22,
    errors.StreamError: 30,
    errors.SourceError: 31,
    errors.SinkError: 32,
    MemoryError: 71,
    KeyboardInterrupt: 130,
    BrokenPipeError: 141,
}
"""Exit code by exception; a class that is not listed has its nearest ancestor's."""

_BUG: Final = 70
_TERMINATED: Final = 143

_MEANINGS: Final = (
    (OK, "done"),
    (EXIT_CODES[errors.ConfigError], "a wrong option, settings file or environment variable"),
    (EXIT_CODES[errors.ContractError], "data of a wrong shape or type inside"),
    (EXIT_CODES[errors.BackendUnavailable], "the backend asked for cannot run here"),
    (EXIT_CODES[errors.EngineBuildError], "an engine could not be built"),
    (EXIT_CODES[errors.EngineMismatch], "an engine belongs to something else"),
    (EXIT_CODES[errors.ModelFileError], "a model file is missing or damaged"),
    (EXIT_CODES[errors.InferenceError], "a network failed while running"),
    (EXIT_CODES[errors.NoFaceError], "the source shows no face"),
    (EXIT_CODES[errors.ExpressionFileError], "an expression file is damaged or of another model"),
    (EXIT_CODES[errors.SourceError], "an input cannot be read"),
    (EXIT_CODES[errors.SinkError], "the output cannot be written; nothing is left under its name"),
    (TARGET_WITHOUT_FACE, "the output is complete, but no frame of the target showed a face"),
    (TARGET_CUT_SHORT, "the output is complete, but the target was damaged or cut short"),
    (BENCH_SLOWER, "bench: something got slower than in the run it was compared with"),
    (DOCTOR_PROBLEM, "doctor: something that rt-swap needs does not work"),
    (_BUG, "a bug; RT_SWAP_DEBUG=1 shows where"),
    (EXIT_CODES[MemoryError], "not enough memory"),
    (EXIT_CODES[KeyboardInterrupt], "stopped by Ctrl-C; the output is complete up to there"),
    (EXIT_CODES[BrokenPipeError], "whoever read the output went away"),
    (_TERMINATED, "stopped by SIGTERM; as Ctrl-C"),
)
_SETTINGS: Final = """\
settings: a TOML file (--config) < environment variables < options;
the variable of --on-lost is RT_SWAP_ON_LOST, its key in the file is on_lost, and so on
"""
_EPILOG: Final = "\n".join(
    ["exit codes:", *(f"{code:>5}  {meaning}" for code, meaning in _MEANINGS), "", _SETTINGS]
)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came; handled as Ctrl-C is."""


def exit_code_of(error: BaseException) -> int:
    """The exit code of an exception; 70 for what nobody foresaw."""
    for kind in type(error).__mro__:
        if kind in EXIT_CODES:
            return EXIT_CODES[kind]
    return _BUG


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    from rt_swap import __version__

    parser = argparse.ArgumentParser(
        prog="rt-swap",
        description="Gives the person in a video (the target) somebody else's facial expression\n"
        "(the source's) and leaves everything else about them alone.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rt-swap {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in (
        reenact, live, studio, source, inspect, engine, bench, doctor, devices, demo,
    ):  # fmt: skip
        module.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    terminated = False

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        nonlocal terminated
        terminated = True
        raise _Terminated

    try:
        arguments = build_parser().parse_args(argv)
    except (
        SystemExit
    ) as leaving:  # argparse has spoken; its code for a mistake is 2, which is ours too
        return int(leaving.code or 0)
    start_logging(quiet=arguments.quiet, verbose=arguments.verbose)
    previous = _on_end(terminate)
    try:
        return int(arguments.run(arguments))
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if os.environ.get("RT_SWAP_DEBUG"):
            import traceback

            traceback.print_exc()
        code = exit_code_of(error)
        _tell(error, code)
        return _TERMINATED if terminated and code == EXIT_CODES[KeyboardInterrupt] else code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _on_end(terminate: Callable[[int, FrameType | None], NoReturn]) -> dict[int, Any]:
    """Have a function called when the process is asked to end, or its terminal is closed.

    Returns:
        The handlers before, by signal; none where this is not the main thread.
    """
    previous: dict[int, Any] = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue  # Windows has no SIGHUP; nohup does not want it heard
        try:
            previous[number] = signal.signal(number, terminate)
        except ValueError:  # not on the main thread, as inside another program
            break
    return previous


def _tell(error: BaseException, code: int) -> None:
    if isinstance(error, BrokenPipeError):
        # whoever read our stdout has left; keep the interpreter from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        text = text or "stopped; nothing was written"
    elif isinstance(error, MemoryError):
        text = "not enough memory; close other programs, or use a smaller picture or video"
    elif code == _BUG:
        text = (
            f"this is a bug: {type(error).__name__}: {text}; please report it with what"
            " RT_SWAP_DEBUG=1 rt-swap ... prints"
        )
    print(f"rt-swap: {text}", file=sys.stderr)
