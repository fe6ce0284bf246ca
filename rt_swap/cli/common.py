"""What the verbs share: options, logging, progress, opening a Swapper. Imports nothing heavy."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rt_swap.config import BADGES, Settings, load_settings

if TYPE_CHECKING:
    from rt_swap.provenance.marks import Marks
    from rt_swap.swapper import Progress, Swapper

OK: Final = 0
TARGET_WITHOUT_FACE: Final = 40
TARGET_CUT_SHORT: Final = 41
BENCH_SLOWER: Final = 42
DOCTOR_PROBLEM: Final = 43

_bars: list[Any] = []


def common_options() -> argparse.ArgumentParser:
    """Options every verb takes; a parent for its parser. Defaults are None: see rt_swap.config."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("model and settings")
    group.add_argument(
        "--model",
        metavar="DIR|NAME",
        help="model bundle, or the name of an installed one, such as nano (default: RT_SWAP_MODEL, "
        "else the default one)",
    )
    group.add_argument("--backend", metavar="NAME", help="what runs the networks (default: auto)")
    group.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads per network run (default: 0, chooses)"
    )
    group.add_argument(
        "--face",
        metavar="N",
        help="whose face gives the expression: largest, or a number from the left, from 0"
        " (default: largest)",
    )
    group.add_argument("--cache", metavar="DIR", help="folder of encoded sources")
    group.add_argument("--config", metavar="FILE", help="settings in TOML")
    _talk_options(group)
    return parser


def talk_options() -> argparse.ArgumentParser:
    """How much is said: all that a verb without a model takes; a parent for its parser."""
    parser = argparse.ArgumentParser(add_help=False)
    _talk_options(parser)
    return parser


def _talk_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="say errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")


def marks_options(parser: argparse.ArgumentParser) -> None:
    """Add the options about marks of provenance.

    Args:
        parser: Of a verb that shows or writes altered pictures.
    """
    group = parser.add_argument_group("marks (all are on; docs/responsible-use.md says why)")
    group.add_argument(
        "--badge",
        choices=[place for place in BADGES if place != "off"],
        help="corner of the visible mark (default: bottom-right)",
    )
    group.add_argument(
        "--no-badge",
        dest="badge",
        action="store_const",
        const="off",
        help="leave the visible mark out; the summary and the manifest record that",
    )
    group.add_argument(
        "--no-watermark",
        dest="watermark",
        action="store_false",
        default=None,
        help="do not mark the face's pixels imperceptibly",
    )
    group.add_argument(
        "--no-manifest",
        dest="manifest",
        action="store_false",
        default=None,
        help="put no C2PA manifest into the file",
    )
    group.add_argument(
        "--certificate",
        metavar="PEM",
        help="chain that signs the manifest (default: a self-made one, which proves no identity)",
    )
    group.add_argument("--certificate-key", metavar="PEM", help="its private key")


def marks_of(settings: Settings) -> Marks:
    """The marks that the settings ask for.

    Raises:
        ConfigError: If of certificate and key only one is given.
    """
    from rt_swap.provenance.marks import Marks

    return Marks(
        badge=settings.badge,
        watermark=settings.watermark,
        manifest=settings.manifest,
        certificate=settings.certificate,
        certificate_key=settings.certificate_key,
    )


def marks_line(marks: dict[str, Any]) -> str:
    """What a summary's marks are, in one line."""
    pixels = marks["watermark"]
    shown = {
        "badge": marks["badge"],
        "pixels": f"model {pixels['payload']} in {pixels['frames']} frames"
        if pixels["asked_for"]
        else "off",
        "manifest": ", ".join(
            filter(None, (marks["manifest"]["state"], marks["manifest"]["note"]))
        ),
    }
    return "marks: " + "; ".join(f"{name} {what}" for name, what in shown.items())


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Settings file < environment < the arguments given.

    Raises:
        ConfigError: If any of it is wrong.
    """
    known = set(Settings.__dataclass_fields__)
    flags = {name: value for name, value in vars(arguments).items() if name in known}
    return load_settings(flags, config_file=arguments.config)


@contextmanager
def swapper_of(settings: Settings) -> Iterator[Swapper]:
    """A loaded Swapper."""
    from rt_swap.swapper import Swapper

    with Swapper.load(
        settings.model,
        settings.backend,
        face=settings.face,
        target_face=settings.target_face,
        threads=settings.threads,
        on_lost=settings.on_lost,
        cache=settings.cache or "default",
    ) as swapper:
        yield swapper


class _Talk(logging.Handler):
    """Log records on stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        text = f"rt-swap: {prefix}{record.getMessage()}"
        try:
            if _bars:
                _bars[-1].write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr)
        except (OSError, ValueError):
            self.handleError(record)


def start_logging(*, quiet: bool, verbose: bool) -> None:
    """Show rt_swap's own log on stderr: information unless quiet, details where verbose."""
    logger = logging.getLogger("rt_swap")
    for handler in list(logger.handlers):
        if isinstance(handler, _Talk):
            logger.removeHandler(handler)
    logger.addHandler(_Talk())
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


@contextmanager
def progress_bar(what: str, *, quiet: bool, unit: str = "frame") -> Iterator[Progress | None]:
    """A bar with the time left, on a terminal only.

    Yields:
        A function of (done, total or None), or None where there is no bar.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bar = tqdm(desc=what, unit=unit, dynamic_ncols=True, file=sys.stderr)
    _bars.append(bar)

    def update(done: int, total: int | None) -> None:
        if total is not None and bar.total != total:
            bar.total = total
        bar.update(done - bar.n)

    try:
        yield update
    finally:
        _bars.remove(bar)
        bar.close()
