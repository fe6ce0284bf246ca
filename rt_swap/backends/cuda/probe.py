"""What a GPU backend needs and whether it is here, found out without starting anything big."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, Literal

from rt_swap.backends.cuda import fatbin
from rt_swap.backends.cuda.libcuda import LibCuda, open_library
from rt_swap.errors import InferenceError

Flavour = Literal["tensorrt", "rtx"]
PACKAGES: Final[dict[Flavour, tuple[str, str]]] = {
    "tensorrt": ("tensorrt", "pip install 'rt-swap[tensorrt]'"),
    "rtx": ("tensorrt_rtx", "pip install 'rt-swap[rtx]'"),
}
"""By flavour: the package, and what installs it with PyCUDA."""
MIN_SM: Final[dict[Flavour, tuple[int, int]]] = {"tensorrt": (7, 5), "rtx": (7, 5)}


def is_installed(package: str) -> bool:
    """Whether a package is installed; it is not imported."""
    return importlib.util.find_spec(package) is not None


def wrong_version(flavour: Flavour) -> str | None:
    """None where the installed TensorRT is one that the adapter works with, else why not."""
    name = "rt_swap.backends.trt"
    if not is_installed(name):
        return None
    reason: str | None = importlib.import_module(name).flavour(flavour).why_not()
    return reason


def known_targets(flavour: Flavour) -> Collection[int]:
    """Compute capabilities that a flavour builds for, as in 89; empty where it is every one, or
    where that cannot be known.
    """
    name = "rt_swap.backends.trt"
    if not is_installed(name) or not is_installed(PACKAGES[flavour][0]):
        return ()
    found: Collection[int] = importlib.import_module(name).flavour(flavour).targets()
    return found


def why_not(
    flavour: Flavour,
    *,
    ordinal: int = 0,
    has_package: Callable[[str], bool] = is_installed,
    version: Callable[[Flavour], str | None] = wrong_version,
    library: Callable[[], Any | None] = open_library,
    kernels: Path = fatbin.FATBIN,
    targets: Callable[[Flavour], Collection[int]] = known_targets,
) -> str | None:
    """None where the flavour can run here, else every reason at once with what to do.

    Args:
        flavour: Which TensorRT.
        ordinal: Which GPU.
        has_package: Whether a package is installed; it is not imported.
        version: What is wrong with the installed version, or None.
        library: Opens the CUDA driver's library.
        kernels: The fatbin.
        targets: Compute capabilities the flavour builds for, as in 89; empty for every one.
    """
    reasons: list[str] = []
    package, cure = PACKAGES[flavour]
    missing = [name for name in (package, "pycuda") if not has_package(name)]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        reasons.append(f"package{plural} {' and '.join(missing)} not installed; {cure}")
    if package not in missing:
        unfit = version(flavour)
        if unfit is not None:
            reasons.append(unfit)
    no_kernels = fatbin.why_missing(kernels)
    if no_kernels is not None:
        reasons.append(no_kernels)
    opened = library()
    if opened is None:
        reasons.append(
            "there is no NVIDIA driver (libcuda was not found); it needs an NVIDIA GPU and its "
            "driver: https://www.nvidia.com/drivers, or --backend onnxruntime"
        )
    else:
        reasons += _wrong_with_device(
            LibCuda(opened), flavour, ordinal, no_kernels, kernels, targets
        )
    return "; ".join(reasons) or None


def _wrong_with_device(
    cuda: LibCuda,
    flavour: Flavour,
    ordinal: int,
    no_kernels: str | None,
    kernels: Path,
    targets: Callable[[Flavour], Collection[int]],
) -> list[str]:
    try:
        cuda.initialise()
        count = cuda.device_count()
        if not 0 <= ordinal < count:
            return [f"there is no GPU number {ordinal} ({count} found); see `nvidia-smi`"]
        name, sm = cuda.device(ordinal)
    except InferenceError as exc:
        return [str(exc)]
    if sm < MIN_SM[flavour]:
        least = ".".join(map(str, MIN_SM[flavour]))
        return [
            f"{name} has compute capability {sm[0]}.{sm[1]}, {PACKAGES[flavour][0]} needs {least} "
            "(RTX 20 or newer); use --backend onnxruntime-cuda or onnxruntime"
        ]
    known = targets(flavour)
    if known and 10 * sm[0] + sm[1] not in known:
        return [
            f"{name} has compute capability {sm[0]}.{sm[1]}, which {PACKAGES[flavour][0]} does not "
            "build for; use --backend tensorrt, onnxruntime-cuda or onnxruntime"
        ]
    if no_kernels is None:
        reason = fatbin.why_not_for(sm, kernels)
        if reason is not None:
            return [reason]
    return []
