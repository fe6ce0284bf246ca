"""What this machine is: processor, memory, NVIDIA GPUs, Jetson, power mode.

Everything is read through a :class:`Machine` (files, commands, packages), so that a test can be any
machine. Nothing here raises because something is missing: what cannot be known is None.
"""

from __future__ import annotations

import glob
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_NVIDIA_SMI_FIELDS: Final = (
    "index",
    "name",
    "driver_version",
    "memory.total",
    "compute_cap",
    "power.limit",
)


@dataclass(frozen=True)
class Ran:
    """How a command ended.

    Attributes:
        code: Its exit code.
        text: What it wrote on stdout, then on stderr.
    """

    code: int
    text: str


class Machine(Protocol):
    """The few questions everything else is made of."""

    def read(self, path: str) -> str | None:
        """Text of a file, zero bytes dropped; None where it cannot be read."""
        ...

    def find(self, pattern: str) -> list[str]:
        """Paths that match a glob pattern, sorted."""
        ...

    def may(self, path: str, what: str) -> bool:
        """Whether this user may do all of ``what`` ("r", "w", "rw") with a path."""
        ...

    def run(self, command: Sequence[str], timeout_s: float = 10.0) -> Ran | None:
        """Run a command; None where there is no such program, or it takes too long."""
        ...

    def version(self, package: str) -> str | None:
        """Version of an installed Python package, or None."""
        ...

    @property
    def environ(self) -> Mapping[str, str]:
        """Environment variables."""
        ...

    @property
    def architecture(self) -> str:
        """As "x86_64" or "aarch64"."""
        ...


class ThisMachine:
    """The machine this runs on."""

    def read(self, path: str) -> str | None:
        """See :class:`Machine`."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").replace("\0", "")
        except OSError:
            return None

    def find(self, pattern: str) -> list[str]:
        """See :class:`Machine`."""
        return sorted(glob.glob(pattern, recursive=True))

    def may(self, path: str, what: str) -> bool:
        """See :class:`Machine`."""
        mode = (os.R_OK if "r" in what else 0) | (os.W_OK if "w" in what else 0)
        return os.access(path, mode)

    def run(self, command: Sequence[str], timeout_s: float = 10.0) -> Ran | None:
        """See :class:`Machine`."""
        if shutil.which(command[0]) is None:
            return None
        try:
            done = subprocess.run(
                list(command),
                capture_output=True,
                timeout=timeout_s,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return Ran(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))

    def version(self, package: str) -> str | None:
        """See :class:`Machine`."""
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def environ(self) -> Mapping[str, str]:
        """See :class:`Machine`."""
        return os.environ

    @property
    def architecture(self) -> str:
        """See :class:`Machine`."""
        return platform.machine()


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as ``nvidia-smi`` describes it.

    Attributes:
        index: Its number.
        name: As "NVIDIA GeForce RTX 4060".
        driver: Version of the driver.
        memory_mib: Its memory; None where it shares the host's.
        compute_capability: (major, minor), or None with an old driver.
        power_limit_w: Watts, or None.
    """

    index: int
    name: str
    driver: str
    memory_mib: float | None
    compute_capability: tuple[int, int] | None
    power_limit_w: float | None


def cpu_name(machine: Machine) -> str:
    """Name of the processor."""
    info = machine.read("/proc/cpuinfo") or ""
    for line in info.splitlines():
        if line.lower().startswith(("model name", "hardware")) and ":" in line:
            return line.split(":", 1)[1].strip()
    # ARM's cpuinfo names parts by number; a board has a name
    return jetson_model(machine) or platform.processor() or machine.architecture or "unknown"


def memory_mib(machine: Machine) -> float | None:
    """Memory of the machine, MiB."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", machine.read("/proc/meminfo") or "", re.M)
    return round(int(found.group(1)) / 1024) if found else None


def cpu_mhz(machine: Machine) -> list[float]:
    """Clock of each core that tells it, MHz."""
    rates = (
        machine.read(path) or ""
        for path in machine.find("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    )
    found = [int(text) / 1e3 for text in rates if text.strip().isdigit()]
    if not found:
        info = machine.read("/proc/cpuinfo") or ""
        found = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", info, re.M)]
    return found


def cpu_governor(machine: Machine) -> str | None:
    """The first core's frequency governor, as "performance" or "powersave"."""
    text = machine.read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return (text or "").strip() or None


def on_battery(machine: Machine) -> bool | None:
    """Whether the machine runs on its battery; None where it has none."""
    states = [
        (machine.read(path) or "").strip()
        for path in machine.find("/sys/class/power_supply/BAT*/status")
    ]
    return "Discharging" in states if states else None


def jetson_model(machine: Machine) -> str | None:
    """Name of the Jetson board, or None on anything else."""
    name = (machine.read("/proc/device-tree/model") or "").strip()
    is_jetson = machine.read("/etc/nv_tegra_release") is not None or "jetson" in name.lower()
    return (name or "NVIDIA Jetson") if is_jetson else None


def l4t_release(machine: Machine) -> str | None:
    """Jetson Linux's release, as "36.4.3"."""
    text = machine.read("/etc/nv_tegra_release") or ""
    found = re.search(r"R(\d+)\s*\(release\), REVISION:\s*([\d.]+)", text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def jetpack_version(machine: Machine) -> str | None:
    """Version of the installed ``nvidia-jetpack`` package."""
    done = machine.run(["dpkg-query", "-W", "-f=${Version}", "nvidia-jetpack"])
    return done.text.strip() if done and done.code == 0 and done.text.strip() else None


def power_mode(machine: Machine) -> str | None:
    """Jetson's power mode as ``nvpmodel -q`` names it."""
    done = machine.run(["nvpmodel", "-q"])
    found = re.search(r"NV Power Mode:\s*(\S+)", done.text) if done else None
    return found.group(1) if found else None


def fastest_power_mode(machine: Machine) -> int | None:
    """The number of Jetson's mode without limits, which differs between boards."""
    text = machine.read("/etc/nvpmodel.conf") or ""
    modes = re.findall(r"^\s*<\s*POWER_MODEL ID=(\d+) NAME=MAXN\w*", text, re.M)
    return int(modes[-1]) if modes else None


def nvidia_driver(machine: Machine) -> str | None:
    """Version of the loaded NVIDIA kernel driver."""
    text = machine.read("/proc/driver/nvidia/version") or ""
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+[\d.]*)", text)
    return found.group(1) if found else None


def cuda_of_driver(machine: Machine) -> str | None:
    """Newest CUDA version that the driver speaks, as "12.8"."""
    done = machine.run(["nvidia-smi"])
    found = re.search(r"CUDA Version:\s*([\d.]+)", done.text) if done else None
    return found.group(1) if found else None


def nvidia_gpus(machine: Machine) -> list[Gpu]:
    """The NVIDIA GPUs that ``nvidia-smi`` lists."""
    query = ["nvidia-smi", f"--query-gpu={','.join(_NVIDIA_SMI_FIELDS)}"]
    done = machine.run([*query, "--format=csv,noheader,nounits"])
    if done is None or done.code != 0:
        return []
    gpus = []
    for line in done.text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(_NVIDIA_SMI_FIELDS) or not cells[0].isdigit():
            continue
        index, name, driver, memory, capability, limit = cells
        major_minor = re.fullmatch(r"(\d+)\.(\d+)", capability)
        gpus.append(
            Gpu(
                int(index),
                name,
                driver,
                _number(memory),
                (int(major_minor[1]), int(major_minor[2])) if major_minor else None,
                _number(limit),
            )
        )
    return gpus


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]", "[Not Supported]"
        return None
