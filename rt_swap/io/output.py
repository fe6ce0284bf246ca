"""Output files that appear under their final name only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rt_swap.errors import SinkError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sink_error(path: Path, error: BaseException, during: str) -> SinkError:
    """A SinkError that says in words what the system said.

    Args:
        path: The file being written.
        error: What was raised.
        during: What was being done, as "writing the pictures".
    """
    code = getattr(error, "errno", None)
    if code in _FULL:
        reason = (
            "the disk is full (or a size limit is reached); free some space, or write elsewhere"
        )
    elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = "writing there is not permitted; choose another folder"
    else:
        reason = f"{getattr(error, 'strerror', None) or error}"
    return SinkError(f"{path}: {during} failed: {reason}. Nothing was left under that name.")


class PartFile:
    """A temporary file beside the final one, renamed at success.

    Args:
        path: The final name.
        overwrite: Whether an existing file may be replaced (at success, not before).
        inputs: Files that are being read; the output may not be one of them.
        seal: Called with the complete temporary file before it gets its name; may replace it.

    Attributes:
        path: The final name.
        part: Where to write until then; it exists, empty, and has the same extension.

    Raises:
        SinkError: If the path is a folder or no regular file, exists without ``overwrite``, is one
            of the inputs, has no extension, or its folder is missing or cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool = False,
        inputs: Iterable[Path] = (),
        seal: Callable[[Path], None] | None = None,
    ) -> None:
        self.path, self._overwrite, self._seal = path, overwrite, seal
        self._check(inputs)
        try:
            handle, name = tempfile.mkstemp(
                prefix=f".{path.stem}.", suffix=f".part{path.suffix}", dir=path.parent
            )
        except OSError as exc:
            raise SinkError(
                f"{path}: no file can be made in {path.parent}/ ({exc.strerror});"
                " choose a folder that you may write to"
            ) from exc
        os.close(handle)
        self.part = Path(name)
        self._open = True

    def _check(self, inputs: Iterable[Path]) -> None:
        path = self.path
        if not path.suffix or path.name.startswith("."):
            raise SinkError(
                f"{path}: give a name and an extension that says what to write, as out.mp4"
            )
        try:
            mode = path.stat().st_mode if path.exists() else None
        except OSError as exc:
            raise SinkError(f"{path}: cannot be looked at ({exc.strerror})") from exc
        if mode is not None:
            if stat.S_ISDIR(mode):
                raise SinkError(f"{path}: is a folder; give a file name, as {path / 'out.mp4'}")
            if not stat.S_ISREG(mode):
                raise SinkError(
                    f"{path}: is not a regular file and would be replaced; give another name"
                )
            for other in inputs:
                if other.exists() and path.samefile(other):
                    raise SinkError(
                        f"{path}: is also an input, which would be destroyed; give another name"
                    )
            if not self._overwrite:
                raise SinkError(f"{path}: exists already; pass --overwrite to replace it")
        if not path.parent.is_dir():
            raise SinkError(f"{path}: there is no folder {path.parent}/; make it first")

    def commit(self) -> None:
        """Give the file its final name.

        Raises:
            SinkError: If a file of that name appeared meanwhile, or the rename fails.
        """
        try:
            if self._seal is not None:
                self._seal(self.part)
            if not self._overwrite and self.path.exists():
                raise SinkError(
                    f"{self.path}: a file of that name appeared meanwhile;"
                    " pass --overwrite to replace it"
                )
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(self.part, 0o666 & ~umask)  # mkstemp made it readable to the owner alone
            os.replace(self.part, self.path)
        except SinkError:
            self.discard()
            raise
        except OSError as exc:
            self.discard()
            raise sink_error(self.path, exc, "giving the file its name") from exc
        except BaseException:
            self.discard()
            raise
        self._open = False

    def discard(self) -> None:
        """Remove the temporary file; never raises; harmless after commit."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):  # the error that led here is the one to report
                self.part.unlink(missing_ok=True)
