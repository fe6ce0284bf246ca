"""Engines on disk: ``<name>.engine`` with ``<name>.engine.json`` that says what it is.

The sidecar holds the key and the engine's size and hash. An engine is loaded only where all of it
agrees; what disagrees is named for what it is (:class:`State`). Hashes find damage and mix-ups.
They are no defence against somebody who can write into the folder, which is why it is made readable
by its owner alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rt_swap.enginecache.files import locked, write_atomically
from rt_swap.enginecache.key import SUFFIX, EngineKey
from rt_swap.errors import BackendError, EngineMismatch

_log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE: Final = "RT_SWAP_HOME"
SIDECAR_FORMAT: Final = 1


class State(str, enum.Enum):
    """What an engine file is."""

    GOOD = "good"
    """All of it agrees."""
    FAILED_CHECK = "failed its check"
    """Built, but its answers were too far off when it was tried; never loaded."""
    NO_SIDECAR = "without sidecar"
    """Nothing says what it is: foreign, or from a build that was cut off."""
    TRUNCATED = "truncated"
    """Another size than the sidecar says."""
    TAMPERED = "tampered"
    """Other bytes than the sidecar says: damaged or exchanged."""
    FOREIGN = "foreign"
    """Belongs to another name, graph or machine than its place says."""
    STALE = "stale"
    """Was right for another version, model or GPU."""


@dataclass(frozen=True)
class Entry:
    """One engine of the cache.

    Attributes:
        path: The engine.
        state: What it is.
        why: In what it disagrees; empty where it is good.
        key: What the sidecar says it is; None where there is no readable one.
        sidecar: The whole sidecar; {} where there is none.
        size_bytes: The engine's size.
        modified_s: When it was written, seconds since the epoch.
    """

    path: Path
    state: State
    why: str
    key: EngineKey | None
    sidecar: dict[str, Any]
    size_bytes: int
    modified_s: float


def engines_dir(named: str | Path | None = None) -> Path:
    """``engines`` inside the folder named, or that RT_SWAP_HOME names, or the user's cache."""
    named = named or os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named).expanduser() / "engines"
    import platformdirs

    return Path(platformdirs.user_cache_dir("rt_swap", appauthor=False)) / "engines"


def make_folder(folder: Path) -> None:
    """Make the cache's folder, for its owner alone.

    Raises:
        BackendError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise BackendError(
            f"{folder}: engines cannot be kept here ({exc.strerror or exc}); name another folder "
            f"with {ENVIRONMENT_VARIABLE}=DIR"
        ) from exc


def sidecar_path(engine: Path) -> Path:
    """The sidecar of an engine."""
    return engine.with_name(engine.name + ".json")


def save(folder: Path, key: EngineKey, engine: bytes, extra: dict[str, Any]) -> Path:
    """Write an engine and its sidecar; the sidecar comes last, so what is there is whole.

    Args:
        folder: The cache's.
        key: Of the engine.
        engine: The engine.
        extra: More for the sidecar.

    Raises:
        BackendError: If it cannot be written.
    """
    path = folder / key.file_name
    sidecar = {
        "format": SIDECAR_FORMAT,
        "key": dataclasses.asdict(key),
        "key_sha256": key.sha256,
        "engine_bytes": len(engine),
        "engine_sha256": hashlib.sha256(engine).hexdigest(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **extra,
    }
    try:
        with contextlib.suppress(FileNotFoundError):
            sidecar_path(path).unlink()
        write_atomically(path, engine)
        write_atomically(sidecar_path(path), (json.dumps(sidecar, indent=2) + "\n").encode())
    except OSError as exc:
        raise BackendError(
            f"{path}: the engine cannot be written ({exc.strerror or exc}); make room, or name "
            f"another folder with {ENVIRONMENT_VARIABLE}=DIR"
        ) from exc
    return path


def check_file(path: Path, wanted: EngineKey | None = None) -> Entry:
    """Say what an engine file is, reading all of it.

    Args:
        path: The engine.
        wanted: What is needed; None accepts whatever the sidecar says.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    return _look(path, wanted)[0]


def read_checked(path: Path, wanted: EngineKey | None = None) -> tuple[bytes, dict[str, Any]]:
    """An engine's bytes, exactly those that were checked, and its sidecar.

    Args:
        path: The engine.
        wanted: What is needed; None accepts whatever the sidecar says.

    Raises:
        EngineMismatch: If it is anything but good; the message says what it is and what to do.
    """
    try:
        entry, blob = _look(path, wanted)
    except FileNotFoundError as exc:
        raise EngineMismatch(
            f"{path}: there is no such engine; build it: rt-swap engine build"
        ) from exc
    if entry.state is not State.GOOD:
        raise EngineMismatch(
            f"{path}: {entry.state.value}: {entry.why}; it was not loaded; build it anew: "
            "rt-swap engine build --force"
        )
    return blob, entry.sidecar


def _look(path: Path, wanted: EngineKey | None) -> tuple[Entry, bytes]:
    blob = path.read_bytes()
    modified_s = path.stat().st_mtime

    def entry(
        state: State, why: str = "", key: EngineKey | None = None, sidecar: Any = None
    ) -> tuple[Entry, bytes]:
        return Entry(path, state, why, key, sidecar or {}, len(blob), modified_s), blob

    try:
        sidecar = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return entry(State.NO_SIDECAR, f"there is no {sidecar_path(path).name} beside it")
    except (OSError, ValueError) as exc:
        return entry(State.NO_SIDECAR, f"{sidecar_path(path).name} cannot be read ({exc})")
    if not isinstance(sidecar, dict) or sidecar.get("format") != SIDECAR_FORMAT:
        return entry(State.FOREIGN, "the sidecar is of another format")
    key = EngineKey.from_json(sidecar.get("key"))
    if key is None or sidecar.get("key_sha256") != key.sha256:
        return entry(State.TAMPERED, "the sidecar's key does not match its own hash", None, sidecar)
    if path.name != key.file_name:
        return entry(State.FOREIGN, f"its sidecar says it is {key.file_name}", key, sidecar)
    size = sidecar.get("engine_bytes")
    if size != len(blob):
        return entry(State.TRUNCATED, f"{len(blob)} bytes, not {size}", key, sidecar)
    if sidecar.get("engine_sha256") != hashlib.sha256(blob).hexdigest():
        return entry(State.TAMPERED, "its bytes are not those that were built", key, sidecar)
    if wanted is not None and (different := key.differences(wanted)):
        return entry(State.STALE, "built for " + ", ".join(different), key, sidecar)
    check = sidecar.get("check")
    if isinstance(check, dict) and check.get("ok") is False:
        return entry(State.FAILED_CHECK, str(check.get("why", "")), key, sidecar)
    return entry(State.GOOD, "", key, sidecar)


def entries(folder: Path) -> list[Entry]:
    """Every engine in a folder, last written first."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []:
        try:
            found.append(check_file(path))
        except FileNotFoundError:
            continue  # another process removed it
        except OSError as exc:
            _log.warning("engine cache: %s cannot be read: %s", path, exc.strerror or exc)
    return sorted(found, key=lambda e: (-e.modified_s, e.path.name))


def remove(path: Path) -> bool:
    """Remove an engine and its sidecar; what cannot be removed is reported, and False."""
    try:
        sidecar_path(path).unlink(missing_ok=True)
        path.with_name(path.name + ".kernels").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as exc:
        _log.warning("engine cache: %s cannot be removed: %s", path, exc.strerror or exc)
        return False
    return True


def prune(
    folder: Path,
    *,
    keep_onnx_sha256: set[str] | None = None,
    keep_versions: dict[str, str] | None = None,
    older_than_s: float | None = None,
) -> list[Path]:
    """Remove engines.

    Args:
        folder: The cache's.
        keep_onnx_sha256: Keep good engines of these ONNX files.
        keep_versions: Runtime -> version: of those, only the ones built by this version.
        older_than_s: Remove only what was written longer ago than this, in seconds.

    Returns:
        The engines removed. Without arguments: all of them. Parts of builds that were cut off go
        too, whatever the arguments.
    """
    removed = []
    now_s = time.time()
    stamps = {path: _stamp(path) for path in folder.glob("*.engine")} if folder.is_dir() else {}
    for entry in entries(folder):
        if entry.path not in stamps:
            continue  # it came meanwhile
        key = entry.key
        wanted = (
            keep_onnx_sha256 is not None
            and entry.state in (State.GOOD, State.FAILED_CHECK)
            and key is not None
            and key.onnx_sha256 in keep_onnx_sha256
            and (keep_versions or {}).get(key.runtime, key.runtime_version) == key.runtime_version
        )
        young = older_than_s is not None and now_s - entry.modified_s <= older_than_s
        if wanted or young:
            continue
        lock = lock_path(folder, entry.path.name)
        with locked(lock, f"builds {entry.path.name}"):
            # it may have been half written when it was looked at, and finished since
            if _stamp(entry.path) == stamps[entry.path] and remove(entry.path):
                removed.append(entry.path)
    for part in folder.glob(".*.part") if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # whoever writes it has just finished
            if now_s - part.stat().st_mtime > 3600:  # nobody writes one for an hour
                part.unlink(missing_ok=True)
    return removed


def _stamp(path: Path) -> tuple[float | None, ...]:
    """When an engine and its sidecar were written; None for what is not there."""
    times: list[float | None] = []
    for part in (path, sidecar_path(path)):
        try:
            times.append(part.stat().st_mtime_ns)
        except OSError:
            times.append(None)
    return tuple(times)


def lock_path(folder: Path, file_name: str) -> Path:
    """The lock's file of an engine."""
    return folder / f".{file_name}.lock"
