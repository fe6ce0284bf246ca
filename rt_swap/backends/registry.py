"""Which backends there are. Factories are lazy: naming a backend imports its library, no sooner."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rt_swap.backends.base import Backend
from rt_swap.errors import BackendUnavailable, ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    make: Callable[[], Backend]
    why_not: Callable[[], str | None]


def _onnxruntime_missing() -> str | None:
    # find_spec looks for the package without importing it
    if importlib.util.find_spec("onnxruntime") is None:
        return "the package onnxruntime is not installed; pip install onnxruntime"
    return None


def _make_onnxruntime_cpu() -> Backend:
    from rt_swap.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend("cpu")


def _make_onnxruntime_cuda() -> Backend:
    from rt_swap.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend("cuda")


def _onnxruntime_cuda_missing() -> str | None:
    missing = _onnxruntime_missing()
    if missing is not None:
        return missing
    from rt_swap.backends.onnxruntime import why_provider_missing

    return why_provider_missing("cuda")


def _make_tensorrt() -> Backend:
    from rt_swap.backends.cuda.backend import CudaBackend

    return CudaBackend("tensorrt")


def _make_rtx() -> Backend:
    from rt_swap.backends.cuda.backend import CudaBackend

    return CudaBackend("rtx")


def _tensorrt_missing() -> str | None:
    from rt_swap.backends.cuda.probe import why_not

    return why_not("tensorrt")


def _rtx_missing() -> str | None:
    from rt_swap.backends.cuda.probe import why_not

    return why_not("rtx")


_REGISTRY: Final[dict[str, _Entry]] = {
    # in the order "auto" tries them: fastest first
    "tensorrt": _Entry(_make_tensorrt, _tensorrt_missing),
    "rtx": _Entry(_make_rtx, _rtx_missing),
    "onnxruntime-cuda": _Entry(_make_onnxruntime_cuda, _onnxruntime_cuda_missing),
    "onnxruntime": _Entry(_make_onnxruntime_cpu, _onnxruntime_missing),
}
_announced: set[str] = set()


def register_backend(
    name: str, make: Callable[[], Backend], why_not: Callable[[], str | None]
) -> None:
    """Add a backend at the end of the order that "auto" tries.

    Args:
        name: What users type; must be new and not "auto".
        make: Makes the backend; may import its library.
        why_not: None where it can run here, else the reason and what to do.

    Raises:
        ConfigError: If the name is taken.
    """
    if name == "auto" or name in _REGISTRY:
        raise ConfigError(f"register_backend: the name {name!r} is taken")
    _REGISTRY[name] = _Entry(make, why_not)


def available_backends() -> dict[str, str | None]:
    """Every backend by name, with None where it can run here, else the reason why not."""
    return {name: entry.why_not() for name, entry in _REGISTRY.items()}


def get_backend(name: str = "auto") -> Backend:
    """Make a backend.

    Args:
        name: A registered name, which is never replaced by another one in silence; or "auto": the
            first that can run here, logged once.

    Raises:
        ConfigError: If there is no backend of that name.
        BackendUnavailable: If it cannot run here, with the reason; for "auto", with every reason.
    """
    if name != "auto":
        entry = _REGISTRY.get(name)
        if entry is None:
            raise ConfigError(
                f"there is no backend {name!r}; there are auto, {', '.join(_REGISTRY)}"
            )
        reason = entry.why_not()
        if reason is not None:
            raise BackendUnavailable(f"backend {name} cannot run here: {reason}")
        return entry.make()
    reasons: list[str] = []
    for candidate, entry in _REGISTRY.items():
        reason = entry.why_not()
        if reason is None:
            try:
                backend = entry.make()
            except BackendUnavailable as exc:
                reason = str(exc)
            else:
                if candidate not in _announced:
                    _announced.add(candidate)
                    _log.info("backend auto: using %s", candidate)
                return backend
        reasons.append(f"{candidate}: {reason}")
    raise BackendUnavailable(f"no backend can run here: {'; '.join(reasons)}")
