"""Files that several processes share: written whole or not at all, one writer at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

_log = logging.getLogger(__name__)
_POLL_S: Final = 0.05


def write_atomically(path: Path, blob: bytes) -> None:
    """Write a file so that nobody ever sees a part of it, not even after a power cut.

    Raises:
        OSError: If it cannot be written; nothing is left then.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that other processes respect; it ends with the process, however that ends.

    Args:
        path: The lock's file, made where missing and left in place: removing it would let a third
            process in beside a second that still waits for it.
        what: What is waited for, for the log.
    """
    with path.open("a+b") as file:
        if not _try_lock(file):
            _log.info("waiting for another process that %s", what)
            while not _try_lock(file):
                time.sleep(_POLL_S)
        try:
            yield
        finally:
            _unlock(file)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
