"""Where and with what something was measured. Names no paths and no people."""

from __future__ import annotations

import os
import platform
from typing import Any, Final

from rt_swap import machine as machines
from rt_swap.errors import ConfigError
from rt_swap.machine import Machine
from rt_swap.model import ModelBundle

PACKAGES: Final = (
    "numpy",
    "opencv-python",
    "opencv-contrib-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
    "mediapipe",
    "av",
    "rt-swap",
)


def model_of(bundle: ModelBundle) -> dict[str, Any]:
    """Which model: name, hashes, training steps."""
    return {
        "name": bundle.name,
        "encoder_sha256": bundle.sha256,
        "generator_sha256": bundle.generator_sha256,
        "steps": bundle.manifest["steps"],
    }


def system_of(machine: Machine) -> dict[str, Any]:
    """Processor, memory, load, system, Python and packages."""
    return {
        "cpu": machines.cpu_name(machine),
        "cores_present": os.cpu_count() or 1,
        "memory_mib": machines.memory_mib(machine),
        "load_before": load(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def accelerator_of(machine: Machine) -> dict[str, Any]:
    """GPUs, driver, Jetson and power mode; None and empty where there are none."""
    return {
        "gpus": [
            {
                "name": gpu.name,
                "driver": gpu.driver,
                "memory_mib": gpu.memory_mib,
                "compute_capability": None
                if gpu.compute_capability is None
                else "{}.{}".format(*gpu.compute_capability),
                "power_limit_w": gpu.power_limit_w,
            }
            for gpu in machines.nvidia_gpus(machine)
        ],
        "jetson": machines.jetson_model(machine),
        "l4t": machines.l4t_release(machine),
        "power_mode": machines.power_mode(machine) if machines.jetson_model(machine) else None,
        "cpu_governor": machines.cpu_governor(machine),
        "on_battery": machines.on_battery(machine),
    }


def load() -> float | None:
    """Mean number of running processes over the last minute, or None where nobody counts."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def use_cores(wanted: int) -> int:
    """Keep this process, and the threads it starts later, on so many cores.

    Returns:
        How many it may use now; fewer than wanted where there are fewer, and all of them where the
        system has no affinity.

    Raises:
        ConfigError: If wanted is under 1.
    """
    if wanted < 1:
        raise ConfigError(f"--cores must be 1 or more, got {wanted}")
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    mine = sorted(os.sched_getaffinity(0))[:wanted]
    os.sched_setaffinity(0, mine)
    return len(mine)
