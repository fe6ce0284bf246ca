"""Find an engine or build it: one process builds, the others wait, nobody loads a wrong one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rt_swap.contract import GraphSpec
from rt_swap.enginecache import store
from rt_swap.enginecache.files import locked, write_atomically
from rt_swap.enginecache.key import Device, EngineKey, make_key
from rt_swap.enginecache.store import State
from rt_swap.errors import BackendError, ConfigError, EngineBuildError, ModelFileError
from rt_swap.model import PRECISIONS, onnx_file, sha256_of

_log = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Steps done, and how many there are, as far as known."""


@dataclass(frozen=True)
class Built:
    """What a builder made.

    Attributes:
        engine: The engine.
        io: Tensor -> {"shape", "dtype", "is_input"} as the builder's network has them.
        timing: What makes the next build faster; None where the runtime has no such thing.
        about: More for the sidecar.
    """

    engine: bytes
    io: Mapping[str, Mapping[str, Any]]
    timing: bytes | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


class Builder(Protocol):
    """What makes engines: a flavour of TensorRT (``rt_swap.backends.trt.flavour("rtx")``)."""

    @property
    def name(self) -> str:
        """For file names: "tensorrt", "rtx"."""
        ...

    @property
    def version(self) -> str:
        """The library's version."""
        ...

    @property
    def portable(self) -> bool:
        """Whether an engine runs on every GPU of its compute capability."""
        ...

    @property
    def flags(self) -> str:
        """How it builds, for the key."""
        ...

    def require(self) -> None:
        """Raise BackendUnavailable where it cannot build here."""
        ...

    def build(
        self,
        onnx_path: Path,
        spec: GraphSpec,
        device: Device,
        *,
        timing: bytes | None = None,
        progress: Progress | None = None,
    ) -> Built:
        """Build.

        Raises:
            EngineBuildError: With the builder's own words.
            ModelFileError: If the file is not the graph.
        """
        ...

    def check(
        self, engine: bytes, onnx_path: Path, spec: GraphSpec, precision: str, device: Device
    ) -> Mapping[str, Any] | None:
        """Run an engine and compare it with ONNX Runtime on ``onnx_path`` (float32).

        Returns:
            {"ok", "why", ...}; None where it cannot run here.
        """
        ...


def get_or_build(
    onnx_path: Path,
    spec: GraphSpec,
    flavour: Builder,
    precision: str,
    device: Device,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Path:
    """The engine of a graph, built where there is no good one.

    Args:
        onnx_path: The ONNX file of that precision.
        spec: The graph.
        flavour: What builds.
        precision: "fp32" or "fp16".
        device: What it is for.
        folder: The cache's; None: see :func:`rt_swap.enginecache.store.engines_dir`.
        progress: Told how far a build is.
        force: Build even where there is a good one.

    Returns:
        A good engine, which read_checked() takes. Where a half-precision engine's answers are too
        far off when it is tried on ``device``, a float32 one, and a warning says so.

    Raises:
        BackendUnavailable: If the flavour cannot build here.
        EngineBuildError: If it fails, or a float32 engine's answers are wrong.
        ModelFileError: If the ONNX file is missing or not the graph.
        BackendError: If the folder cannot be written.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    try:
        onnx_sha256 = sha256_of(onnx_path)
    except OSError as exc:
        raise ModelFileError(
            f"{onnx_path}: cannot be read ({exc.strerror or exc}); install the model again"
        ) from exc
    flavour.require()
    folder = folder or store.engines_dir()
    store.make_folder(folder)
    key = make_key(
        onnx_sha256,
        spec,
        precision,
        device,
        runtime=flavour.name,
        runtime_version=flavour.version,
        portable=flavour.portable,
        flags=flavour.flags,
    )
    path = folder / key.file_name
    if not force and _is_ready(path, key, device):
        return path  # without a lock, so that a folder that cannot be written will do
    try:
        lock = store.lock_path(folder, path.name)
        with locked(lock, f"builds {path.name}"):
            state = _state_of(path, key)
            if state is None:
                _tell_of_relatives(folder, key)
            if force or state not in (State.GOOD, State.FAILED_CHECK):
                state = _build(folder, key, onnx_path, spec, flavour, device, progress)
            elif state is State.GOOD and _is_unchecked(path, key, device):
                state = _check(path, key, onnx_path, spec, flavour, device)
    except OSError as exc:
        raise BackendError(
            f"{folder}: cannot be written ({exc.strerror or exc}); name another folder with "
            f"{store.ENVIRONMENT_VARIABLE}=DIR"
        ) from exc
    if state is State.GOOD:
        return path
    fallback = onnx_path.with_name(onnx_file(spec.name, "fp32"))
    if precision == "fp32" or not fallback.is_file():
        raise EngineBuildError(
            f"{path.name}: the engine's answers are wrong ({store.check_file(path).why}); update "
            f"the driver and {flavour.name}, then: rt-swap engine build --force"
        )
    _log.warning(
        "%s: half precision is too far off on this GPU (%s); using fp32, which is slower",
        spec.name,
        store.check_file(path).why,
    )
    return get_or_build(
        fallback, spec, flavour, "fp32", device, folder=folder, progress=progress, force=force
    )


def _is_ready(path: Path, key: EngineKey, device: Device) -> bool:
    """Whether a good engine is there that needs nothing done to it."""
    try:
        good = store.check_file(path, key).state is State.GOOD
    except OSError:
        return False
    return good and not _is_unchecked(path, key, device)


def _is_unchecked(path: Path, key: EngineKey, device: Device) -> bool:
    """Whether a good engine, made ahead of time for another machine, was never run on this GPU."""
    return device.is_here and store.read_checked(path, key)[1].get("check") is None


def _check(
    path: Path, key: EngineKey, onnx_path: Path, spec: GraphSpec, flavour: Builder, device: Device
) -> State:
    """Try an engine that was made elsewhere; what came of it is kept beside it."""
    engine, sidecar = store.read_checked(path, key)
    reference = onnx_path.with_name(onnx_file(spec.name, "fp32"))
    known = reference if reference.is_file() else onnx_path
    check = flavour.check(engine, known, spec, key.precision, device)
    if check is None:
        return State.GOOD
    extra = {k: v for k, v in sidecar.items() if k in ("io", "build_s", "about")}
    store.save(path.parent, key, engine, {**extra, "check": dict(check)})
    return store.check_file(path, key).state


def _state_of(path: Path, key: EngineKey) -> State | None:
    """What is there under the key's own name; None: nothing. What is wrong is named and removed."""
    try:
        found = store.check_file(path, key)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise BackendError(
            f"{path}: cannot be read ({exc.strerror or exc}); remove it, or name another folder "
            f"with {store.ENVIRONMENT_VARIABLE}=DIR"
        ) from exc
    if found.state not in (State.GOOD, State.FAILED_CHECK):
        _log.warning(
            "engine cache: %s is %s (%s); it is built anew", path.name, found.state.value, found.why
        )
        store.remove(path)
    return found.state


def _tell_of_relatives(folder: Path, key: EngineKey) -> None:
    """Say why an engine that looks right to a human is not used."""
    for relative in sorted(folder.glob(f"{key.family}*.engine")):
        if relative.name == key.file_name:
            continue
        try:
            found = store.check_file(relative, key)
        except OSError:
            continue
        _log.info("engine cache: %s is %s: %s", relative.name, found.state.value, found.why)


def _build(
    folder: Path,
    key: EngineKey,
    onnx_path: Path,
    spec: GraphSpec,
    flavour: Builder,
    device: Device,
    progress: Progress | None,
) -> State:
    _log.info(
        "building the %s %s engine of %s for %s, once", key.precision, key.runtime, spec.name,
        f"sm{key.sm}" if key.gpu == "any" else key.gpu,
    )  # fmt: skip
    timing_path = folder / _timing_name(key)
    started_s = time.monotonic()
    built = flavour.build(onnx_path, spec, device, timing=_read(timing_path), progress=progress)
    seconds = time.monotonic() - started_s
    reference = onnx_path.with_name(onnx_file(spec.name, "fp32"))
    check: Mapping[str, Any] | None = None
    if device.is_here and (reference.is_file() or key.precision == "fp32"):
        known = reference if reference.is_file() else onnx_path
        check = flavour.check(built.engine, known, spec, key.precision, device)
    if check is None:
        _log.info("%s: not run after the build, it is for another machine", key.file_name)
    extra = {
        "io": {name: dict(about) for name, about in built.io.items()},
        "build_s": round(seconds, 3),
        "check": None if check is None else dict(check),
        "about": dict(built.about),
    }
    path = store.save(folder, key, built.engine, extra)
    if built.timing is not None:
        _keep_timing(folder, timing_path, built.timing)
    return store.check_file(path, key).state


def _timing_name(key: EngineKey) -> str:
    gpu = "".join(c if c.isalnum() else "-" for c in key.gpu)
    return f"timing.{key.runtime}.{key.runtime_version}.sm{key.sm}.{gpu}.cache"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _keep_timing(folder: Path, path: Path, blob: bytes) -> None:
    try:
        with locked(store.lock_path(folder, path.name), "keeps timings"):
            write_atomically(path, blob)
    except OSError as exc:
        _log.warning("%s: timings cannot be kept: %s", path.name, exc.strerror or exc)
