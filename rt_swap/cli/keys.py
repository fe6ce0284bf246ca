"""Single keys from a terminal, without waiting and without Enter."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class TerminalKeys:
    """Keys pressed in the terminal that stdin is; none where it is none. A context manager, which
    gives the terminal back as it was.
    """

    def __init__(self) -> None:
        self._saved: Any = None
        self._descriptor: int | None = None

    def __enter__(self) -> TerminalKeys:
        if sys.platform != "win32" and sys.stdin is not None and sys.stdin.isatty():
            import os
            import termios
            import tty

            self._descriptor = sys.stdin.fileno()
            # a job in the background would be stopped for touching the terminal
            if os.tcgetpgrp(self._descriptor) != os.getpgrp():
                self._descriptor = None
                return self
            self._saved = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def key(self) -> str | None:
        """The key pressed since the last call, or None. Escape sequences count as none."""
        if sys.platform == "win32":
            import msvcrt

            if not sys.stdin.isatty() or not msvcrt.kbhit():
                return None
            return str(msvcrt.getwch())
        if self._descriptor is None:
            return None
        import os
        import select

        if not select.select([self._descriptor], [], [], 0)[0]:
            return None
        raw = os.read(self._descriptor, 32)
        if not raw:  # the terminal went away
            self._descriptor = None
            return None
        if raw == b"\x1b":
            return "escape"
        if raw.startswith(b"\x1b"):  # an arrow or function key
            return None
        return raw.decode("utf-8", "ignore")[:1] or None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._saved is not None and self._descriptor is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)
            self._saved = None
