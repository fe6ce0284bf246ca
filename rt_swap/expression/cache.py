"""Expressions made once: in memory, and on disk as ``<key>.safetensors``.

The key is a hash of all that decides the tokens: picture or clip, encoder, face chosen, contract.
So a file never goes stale; it can only become useless, when the model changes (see prune()).
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rt_swap.contract import CONTRACT_VERSION
from rt_swap.errors import ExpressionFileError
from rt_swap.expression.files import SUFFIX, load_expression, save_expression
from rt_swap.frames import U8, Expression

_log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE: Final = "RT_SWAP_CACHE"
_ENCODING: Final = (
    1  # raise when the way pictures are encoded changes, so that old files are not hit
)


def cache_dir(named: str | Path | None = None) -> Path:
    """``expressions`` inside the folder named, or that RT_SWAP_CACHE names, or the user's own."""
    named = named or os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named).expanduser() / "expressions"
    import platformdirs

    return Path(platformdirs.user_cache_dir("rt_swap", appauthor=False)) / "expressions"


def hash_of_picture(picture_bgr: U8) -> str:
    """Hex SHA-256 of a picture's shape and pixels."""
    digest = hashlib.sha256(repr((picture_bgr.shape, picture_bgr.dtype.str)).encode())
    digest.update(picture_bgr.tobytes())
    return digest.hexdigest()


def cache_key(content_sha256: str, model_sha256: str, face: str | int = "largest") -> str:
    """The key of an expression.

    Args:
        content_sha256: Hash of the picture (:func:`hash_of_picture`) or of the clip's file.
        model_sha256: Hash of the encoder.
        face: Which face was asked for.

    Returns:
        Hex SHA-256.
    """
    parts = (CONTRACT_VERSION, _ENCODING, content_sha256, model_sha256, str(face))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache.

    Attributes:
        path: The file.
        size_bytes: Its size.
        modified_s: When it was written, seconds since the epoch.
        expression: What it holds; None where it is damaged or of another version.
    """

    path: Path
    size_bytes: int
    modified_s: float
    expression: Expression | None


class ExpressionCache:
    """Memory and, with a folder, disk. One thread at a time; several processes may share a folder.

    A damaged file is reported, removed and made again. Where the disk cannot be written (full, not
    ours) that is reported once and the memory goes on alone.
    """

    def __init__(self, folder: Path | None, *, memory_entries: int = 32) -> None:
        """Make a cache.

        Args:
            folder: Where files go, made on the first write; None: memory only.
            memory_entries: How many expressions stay in memory, the last used ones, at least 1.
        """
        self._folder = folder
        self._memory_entries = max(memory_entries, 1)
        self._memory: OrderedDict[str, Expression] = OrderedDict()
        self._write_failed = False

    @property
    def folder(self) -> Path | None:
        """Where the files are; None for memory only."""
        return self._folder

    def get(self, key: str, name: str | None = None) -> Expression | None:
        """What is stored under a key, or None.

        Args:
            key: See :func:`cache_key`.
            name: What the expression shall be called; None leaves the name it was stored with.
        """
        found = self._memory.get(key)
        if found is None:
            found = self._read(key)
            if found is None:
                return None
        self._remember(key, found)
        if name is not None and name != found.name:
            found = dataclasses.replace(found, name=name)
        return found

    def put(self, key: str, expression: Expression) -> None:
        """Store an expression; a disk that cannot be written is reported, not raised."""
        self._remember(key, expression)
        path = self._path_of(key)
        if path is None:
            return
        try:
            save_expression(expression, path)
        except OSError as exc:
            if not self._write_failed:
                self._write_failed = True
                _log.warning(
                    "expression cache: %s cannot be written (%s); "
                    "expressions are kept in memory only",
                    path.parent,
                    exc.strerror or exc,
                )

    def get_or_make(
        self, key: str, make: Callable[[], Expression], name: str | None = None
    ) -> Expression:
        """What is stored under a key, made and stored first where there is nothing.

        Args:
            key: See :func:`cache_key`.
            make: Makes it; its exceptions pass through and nothing is stored.
            name: As in :meth:`get`.
        """
        found = self.get(key, name)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    def entries(self) -> list[CacheEntry]:
        """The files on disk, last written first."""
        found: list[CacheEntry] = []
        for path in self._files():
            try:
                stat = path.stat()
                expression: Expression | None = load_expression(path)
            except FileNotFoundError:
                continue  # another process removed it
            except ExpressionFileError:
                expression = None
            found.append(CacheEntry(path, stat.st_size, stat.st_mtime, expression))
        return sorted(found, key=lambda e: (-e.modified_s, e.path.name))

    def prune(
        self, *, keep_model_sha256: str | None = None, older_than_s: float | None = None
    ) -> list[Path]:
        """Remove files from disk, and forget what is in memory.

        Args:
            keep_model_sha256: Remove only what another encoder made, or what is damaged.
            older_than_s: Remove only what was written longer ago than this, in seconds.

        Returns:
            What was removed; what cannot be is reported. Without arguments: everything.
        """
        removed: list[Path] = []
        now_s = time.time()
        for entry in self.entries():
            made_by = entry.expression.model_sha256 if entry.expression is not None else None
            if keep_model_sha256 is not None and made_by == keep_model_sha256:
                continue
            if older_than_s is not None and now_s - entry.modified_s <= older_than_s:
                continue
            try:
                entry.path.unlink(missing_ok=True)
            except OSError as exc:
                reason = exc.strerror or exc
                _log.warning("expression cache: %s cannot be removed: %s", entry.path, reason)
                continue
            removed.append(entry.path)
        self._memory.clear()
        return removed

    def _files(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return [p for p in self._folder.glob(f"*{SUFFIX}") if not p.name.startswith(".")]

    def _path_of(self, key: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{key}{SUFFIX}"

    def _read(self, key: str) -> Expression | None:
        path = self._path_of(key)
        if path is None or not path.is_file():
            return None
        try:
            return load_expression(path)
        except ExpressionFileError as exc:
            _log.warning("expression cache: %s; it is made anew", exc)
            try:
                path.unlink(missing_ok=True)
            except OSError as unlink_exc:
                _log.debug("expression cache: %s cannot be removed: %s", path, unlink_exc)
            return None

    def _remember(self, key: str, expression: Expression) -> None:
        self._memory[key] = expression
        self._memory.move_to_end(key)
        while len(self._memory) > self._memory_entries:
            self._memory.popitem(last=False)
