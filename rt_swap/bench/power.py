"""Power, energy, clocks and throttling while something runs.

NVIDIA cards through NVML (the package ``nvidia-ml-py``), Jetson through ``tegrastats``, x86
processors through RAPL where the system lets this user read it. What a machine does not tell is
absent from the result, with the reason; nothing is estimated.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import numpy as np

from rt_swap import machine as machines
from rt_swap.machine import Machine

_PERIOD_S: Final = 0.1
_THROTTLE_REASONS: Final = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "too hot (software)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
"""Bits of nvmlDeviceGetCurrentClocksThrottleReasons that cost speed (NVML API reference)."""


@dataclass
class _Readings:
    """What was read so far."""

    watts: list[float] = field(default_factory=list)
    gpu_mhz: list[float] = field(default_factory=list)
    memory_mhz: list[float] = field(default_factory=list)
    gpu_celsius: list[float] = field(default_factory=list)
    cpu_mhz: list[float] = field(default_factory=list)
    device_mib: list[float] = field(default_factory=list)
    throttled: set[str] = field(default_factory=set)


class PowerMeter:
    """Reads the machine ten times a second, on a thread of its own, while in its ``with`` block.

    Args:
        machine: Where files and commands are read.
        nvml: The ``pynvml`` module; None looks for it.
        period_s: Seconds between readings.
    """

    def __init__(
        self, machine: Machine, nvml: Any | None = None, *, period_s: float = _PERIOD_S
    ) -> None:
        self._machine, self._period_s = machine, period_s
        self._readings = _Readings()
        self._stop = threading.Event()
        self._nvml, self._gpu, self._why_no_nvml = _nvml_device(nvml)
        self._tegrastats: _Tegrastats | None = None
        self._begin_s = self._seconds = 0.0
        self._joules: float | None = None
        self._source: str | None = None
        self._steal_percent: float | None = None
        self._others_percent: float | None = None

    def __enter__(self) -> PowerMeter:
        self._begin_s = time.perf_counter()
        self._cpu_times = _cpu_times(self._machine)
        self._own_s = time.process_time()
        self._rapl = _rapl_joules(self._machine)
        self._nvml_joules = self._total_energy()
        self._throttle_events = _throttle_events(self._machine)
        if self._gpu is None and machines.jetson_model(self._machine) is not None:
            self._tegrastats = _Tegrastats.start(self._take_tegrastats)
        self._thread = threading.Thread(target=self._loop, name="rt_swap power", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(5.0)
        if self._tegrastats is not None:
            self._tegrastats.stop()
        self._seconds = time.perf_counter() - self._begin_s
        after = _cpu_times(self._machine)
        own_s = time.process_time() - self._own_s
        self._steal_percent, self._others_percent = _shares(self._cpu_times, after, own_s)
        self._find_energy()
        if self._gpu is not None:
            with contextlib.suppress(Exception):  # the library's own error types
                self._nvml.nvmlShutdown()

    def result(self, frames: int) -> dict[str, Any]:
        """What was read.

        Args:
            frames: Frames emitted meanwhile.

        Returns:
            As the schema of the report has it; None where the machine does not tell.
        """
        got = self._readings
        joules = self._joules
        return {
            "seconds": round(self._seconds, 3),
            "source": self._source,
            "why_absent": None if self._source else self._why_absent(),
            "watts_mean": _round(joules / self._seconds) if joules and self._seconds else None,
            "watts_max": _round(max(got.watts)) if got.watts else None,
            "joules": _round(joules) if joules is not None else None,
            "joules_per_frame": round(joules / frames, 4) if joules and frames else None,
            "gpu_mhz": _spread(got.gpu_mhz),
            "gpu_memory_mhz": _spread(got.memory_mhz),
            "gpu_celsius_max": max(got.gpu_celsius, default=None),
            "gpu_throttled": sorted(got.throttled),
            "cpu_mhz": _spread(got.cpu_mhz),
            "cpu_throttle_events": self._throttled_since(),
            "cpu_steal_percent": self._steal_percent,
            "cpu_others_percent": self._others_percent,
        }

    @property
    def device_peak_mib(self) -> float | None:
        """Most device memory this process was seen to hold, MiB, or None where nobody tells."""
        return max(self._readings.device_mib, default=None)

    # --- reading ---
    def _loop(self) -> None:
        while not self._stop.is_set():
            mhz = machines.cpu_mhz(self._machine)
            if mhz:
                self._readings.cpu_mhz.append(float(np.mean(mhz)))
            if self._gpu is not None:
                self._read_nvml()
            self._stop.wait(self._period_s)

    def _read_nvml(self) -> None:
        n, gpu, got = self._nvml, self._gpu, self._readings

        def read(into: list[float], function: Callable[[], float]) -> None:
            with contextlib.suppress(Exception):  # a card that does not tell raises its own type
                into.append(float(function()))

        read(got.watts, lambda: n.nvmlDeviceGetPowerUsage(gpu) / 1e3)
        read(got.gpu_mhz, lambda: n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_SM))
        read(got.memory_mhz, lambda: n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_MEM))
        read(got.gpu_celsius, lambda: n.nvmlDeviceGetTemperature(gpu, n.NVML_TEMPERATURE_GPU))
        with contextlib.suppress(Exception):
            bits = n.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
            got.throttled |= {name for bit, name in _THROTTLE_REASONS.items() if bits & bit}
        with contextlib.suppress(Exception):
            mine = [
                p.usedGpuMemory / 2**20
                for p in n.nvmlDeviceGetComputeRunningProcesses(gpu)
                if p.pid == os.getpid() and p.usedGpuMemory
            ]
            got.device_mib.extend(mine)

    def _take_tegrastats(self, line: str) -> None:
        told = parse_tegrastats(line)
        got = self._readings
        for into, name in ((got.watts, "watts"), (got.gpu_mhz, "gpu_mhz"), (got.gpu_celsius, "c")):
            value = told.get(name)
            if value is not None:
                into.append(value)

    def _total_energy(self) -> float | None:
        if self._gpu is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu)) / 1e3
        except Exception:  # not on every card; its own error type
            return None

    def _find_energy(self) -> None:
        """Energy from a counter where there is one, else mean power times time."""
        watts = self._readings.watts
        if self._gpu is not None:
            after = self._total_energy()
            if after is not None and self._nvml_joules is not None:
                self._source, self._joules = "NVML, GPU", after - self._nvml_joules
            elif watts:
                self._source, self._joules = "NVML, GPU", float(np.mean(watts)) * self._seconds
        elif watts:
            self._source = "tegrastats, whole module"
            self._joules = float(np.mean(watts)) * self._seconds
        else:
            after = _rapl_joules(self._machine)
            if after is not None and self._rapl is not None and after >= self._rapl:
                self._source, self._joules = "RAPL, processor package", after - self._rapl

    def _why_absent(self) -> str:
        if machines.jetson_model(self._machine) is not None:
            return "tegrastats told nothing; it comes with Jetson Linux"
        reasons = [self._why_no_nvml or "NVML told no power"]
        if self._machine.find("/sys/class/powercap/*-rapl:[0-9]/energy_uj"):
            reasons.append(
                "the processor's energy counter (RAPL) is for root: sudo chmod a+r"
                " /sys/class/powercap/*-rapl:*/energy_uj"
            )
        else:
            reasons.append("the processor offers no energy counter (RAPL)")
        return "; ".join(reasons)

    def _throttled_since(self) -> int | None:
        now = _throttle_events(self._machine)
        if now is None or self._throttle_events is None:
            return None
        return now - self._throttle_events


class _Tegrastats:
    """``tegrastats``, which prints a line per interval until it is ended."""

    def __init__(self, process: subprocess.Popen[str], take: Callable[[str], None]) -> None:
        self._process = process
        self._thread = threading.Thread(target=self._read, args=(take,), daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, take: Callable[[str], None]) -> _Tegrastats | None:
        if shutil.which("tegrastats") is None:
            return None
        try:
            process = subprocess.Popen(
                ["tegrastats", "--interval", "100"], stdout=subprocess.PIPE, text=True
            )
        except OSError:
            return None
        return cls(process, take)

    def _read(self, take: Callable[[str], None]) -> None:
        for line in self._process.stdout or ():
            take(line)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join(5.0)
        if self._process.stdout is not None:
            self._process.stdout.close()


def parse_tegrastats(line: str) -> dict[str, float]:
    """Power, GPU clock and temperature out of a line of ``tegrastats``.

    Args:
        line: As ``... GR3D_FREQ 45%@[611] ... tj@51.3C ... VDD_IN 5210mW/5102mW ...``.

    Returns:
        "watts" (VDD_IN, the whole module's, where the board has it; else the sum of its rails),
        "gpu_mhz" and "c" (the hottest sensor), each only where the line tells it.
    """
    told: dict[str, float] = {}
    rails = {
        name: float(mw) / 1e3
        for name, mw in re.findall(r"\b((?:VDD|VIN|POM|CV|SOC)\w*) (\d+)mW/\d+mW", line)
    }
    # Xavier's and Nano's total is POM_5V_IN, Orin NX's and Nano's VDD_IN; AGX Orin has rails only
    total = rails.get("VDD_IN", rails.get("POM_5V_IN"))
    if total is not None:
        told["watts"] = total
    elif rails:
        told["watts"] = sum(rails.values())
    clock = re.search(r"GR3D_FREQ \d+%@\[?(\d+)", line)
    if clock:
        told["gpu_mhz"] = float(clock.group(1))
    degrees = [float(c) for c in re.findall(r"@(-?\d+(?:\.\d+)?)C", line)]
    if degrees:
        told["c"] = max(degrees)
    return told


def _nvml_device(nvml: Any) -> tuple[Any, Any, str | None]:
    """(module, first GPU, why there is none)."""
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return None, None, "NVML cannot be asked: pip install nvidia-ml-py"
        nvml = pynvml
    try:
        nvml.nvmlInit()
        if not nvml.nvmlDeviceGetCount():
            return nvml, None, "NVML finds no NVIDIA GPU"
        return nvml, nvml.nvmlDeviceGetHandleByIndex(0), None
    except Exception as exc:  # the library's own error types
        return nvml, None, f"NVML finds no NVIDIA GPU ({exc})"


def _rapl_joules(machine: Machine) -> float | None:
    """Sum of the processor packages' energy counters, joules."""
    total, seen = 0.0, False
    for path in machine.find("/sys/class/powercap/*-rapl:[0-9]/energy_uj"):
        text = (machine.read(path) or "").strip()
        if text.isdigit():
            total, seen = total + int(text) / 1e6, True
    return total if seen else None


def _throttle_events(machine: Machine) -> int | None:
    counts = [
        (machine.read(path) or "").strip()
        for path in machine.find(
            "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
        )
    ]
    known = [int(text) for text in counts if text.isdigit()]
    return sum(known) if known else None


def _cpu_times(machine: Machine) -> list[int] | None:
    """Jiffies of the first line of /proc/stat: user nice system idle iowait irq softirq steal."""
    first = (machine.read("/proc/stat") or "").partition("\n")[0].split()
    return [int(v) for v in first[1:9]] if len(first) >= 9 and first[0] == "cpu" else None


def _shares(
    before: Sequence[int] | None, after: Sequence[int] | None, own_s: float
) -> tuple[float | None, float | None]:
    """Parts of the processor's time, percent of all cores: what the hypervisor gave to other
    machines, and what other programs of this one took.

    Args:
        before: Of :func:`_cpu_times`.
        after: The same, later.
        own_s: Processor time of this process meanwhile, seconds.
    """
    if before is None or after is None:
        return None, None
    spent = [b - a for a, b in zip(before, after, strict=True)]
    whole = sum(spent)
    if whole <= 0:
        return 0.0, 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = spent
    own = own_s * os.sysconf("SC_CLK_TCK")
    others = max(user + nice + system + irq + softirq - own, 0.0)
    return round(100 * steal / whole, 2), round(100 * others / whole, 2)


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "min": round(min(values), 1),
        "median": round(float(np.median(values)), 1),
        "max": round(max(values), 1),
    }


def _round(value: float) -> float:
    return round(value, 3)
