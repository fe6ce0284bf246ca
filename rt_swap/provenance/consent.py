"""The notice about consent: shown once, on a terminal, and never in anybody's way."""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
from typing import Final, TextIO

from rt_swap.config import config_dir

logger = logging.getLogger(__name__)

FILE_NAME: Final = "consent_notice.json"
NOTICE: Final = """\
rt_swap changes the expression on somebody's face. Use it on yourself, on people who agreed to this
very use, or on pictures nobody could mistake for the real thing. What it writes is marked: a badge
in the picture, a mark in the pixels, a signed manifest in the file (see rt-swap inspect FILE).
In the EU, who publishes a deepfake must say that it is one (AI Act, Article 50).
This is said once. More: docs/responsible-use.md
"""


def remind(out: TextIO | None = None, *, quiet: bool = False) -> bool:
    """Say the notice where a person can read it for the first time.

    Nothing is asked and nothing waits. Into a pipe, in continuous integration (``CI`` is set) and
    with ``--quiet`` nothing is said, and it is not counted as said.

    Args:
        out: Where to say it; None is stderr.
        quiet: Say nothing.

    Returns:
        Whether it was said now.
    """
    out = out if out is not None else sys.stderr
    if quiet or os.environ.get("CI") or not out.isatty():
        return False
    path = config_dir() / FILE_NAME
    if path.exists():
        return False
    out.write(NOTICE)
    out.flush()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"shown": now, "notice": 1}) + "\n", encoding="utf-8")
    except OSError as exc:  # said again next time; no reason to stop
        logger.debug("%s: cannot be written (%s)", path, exc)
    return True
