"""Power, energy and throttling from NVML, tegrastats and RAPL that are made up."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rt_swap.bench.power import PowerMeter, parse_tegrastats
from tests.support.machines import ORIN_NANO, FakeMachine

# as printed by tegrastats on an Orin Nano (JetPack 6) and on an AGX Orin
NANO_LINE = (
    "01-24-2025 10:12:01 RAM 2457/7620MB (lfb 2x4MB) SWAP 0/3810MB (cached 0MB)"
    " CPU [12%@1510,7%@1510,3%@1510,0%@1510,0%@729,0%@729] EMC_FREQ 3%@2133 GR3D_FREQ 45%@[611]"
    " NVDEC off cpu@49.1C soc2@48.0C gpu@50.7C tj@51.3C VDD_IN 5210mW/5102mW"
    " VDD_CPU_GPU_CV 1440mW/1400mW VDD_SOC 1480mW/1470mW"
)
AGX_LINE = (
    "RAM 6226/62842MB CPU [3%@1190] GR3D_FREQ 0% cpu@45.5C tboard@35C"
    " VDD_GPU_SOC 3200mW/3200mW VDD_CPU_CV 800mW/800mW VIN_SYS_5V0 4200mW/4200mW"
)


def test_tegrastats_whole_module_is_not_counted_twice() -> None:
    assert parse_tegrastats(NANO_LINE) == {"watts": 5.21, "gpu_mhz": 611.0, "c": 51.3}


def test_tegrastats_rails_are_summed_where_there_is_no_total() -> None:
    told = parse_tegrastats(AGX_LINE)
    assert told["watts"] == pytest.approx(8.2)
    assert told["c"] == 45.5
    assert "gpu_mhz" not in told
    assert parse_tegrastats("nothing of the kind") == {}


class FakeNvml:
    """A card at 100 W whose energy counter grows by a joule at each look."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, gpus: int = 1, counter: bool = True) -> None:
        self.gpus, self.counter = gpus, counter
        self.looks = 0
        self.is_shut = False

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None:
        self.is_shut = True

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"gpu {index}"

    def nvmlDeviceGetPowerUsage(self, gpu: str) -> int:
        return 100_000

    def nvmlDeviceGetClockInfo(self, gpu: str, kind: int) -> int:
        return {1: 1800, 2: 8000}[kind]

    def nvmlDeviceGetTemperature(self, gpu: str, kind: int) -> int:
        return 71

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: str) -> int:
        return 0x44  # power cap and too hot

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: str) -> list[Any]:
        other = SimpleNamespace(pid=1, usedGpuMemory=2**33)
        return [other, SimpleNamespace(pid=os.getpid(), usedGpuMemory=300 * 2**20)]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: str) -> int:
        if not self.counter:
            raise RuntimeError("Not Supported")
        self.looks += 1
        return 50_000 + 25_000 * self.looks


def test_nvml_counter_gives_the_energy() -> None:
    nvml = FakeNvml()
    with PowerMeter(FakeMachine(), nvml, period_s=0.01) as meter:
        time.sleep(0.05)
    got = meter.result(frames=100)
    assert got["source"] == "NVML, GPU"
    assert got["joules"] == 25.0
    assert got["joules_per_frame"] == 0.25
    assert got["watts_max"] == 100.0
    assert got["gpu_mhz"] == {"min": 1800.0, "median": 1800.0, "max": 1800.0}
    assert got["gpu_throttled"] == ["power cap", "too hot (hardware)"]
    assert meter.device_peak_mib == 300.0  # this process's, not the other's
    assert nvml.is_shut


def test_nvml_without_a_counter_power_times_time() -> None:
    with PowerMeter(FakeMachine(), FakeNvml(counter=False), period_s=0.01) as meter:
        time.sleep(0.05)
    got = meter.result(frames=1)
    assert got["joules"] == pytest.approx(100 * got["seconds"], rel=0.02)


def test_nothing_told_is_absent_with_the_reason() -> None:
    with PowerMeter(FakeMachine(), FakeNvml(gpus=0)) as meter:
        pass
    got = meter.result(frames=5)
    assert (got["source"], got["joules"], got["watts_mean"]) == (None, None, None)
    assert "no NVIDIA GPU" in got["why_absent"]
    assert "RAPL" in got["why_absent"]
    assert meter.device_peak_mib is None


def test_rapl_counter_that_only_root_may_read_is_said() -> None:
    class Closed(FakeMachine):
        def read(self, path: str) -> str | None:
            return None

    path = "/sys/class/powercap/intel-rapl:0/energy_uj"
    with PowerMeter(Closed(files={path: "1"}), FakeNvml(gpus=0)) as meter:
        pass
    assert "chmod" in meter.result(1)["why_absent"]


def test_rapl_packages_are_summed_and_their_parts_are_not() -> None:
    power = "/sys/class/powercap/intel-rapl:"
    machine = FakeMachine(
        files={
            f"{power}0/energy_uj": "1000000",
            f"{power}1/energy_uj": "5000000",
            f"{power}0:0/energy_uj": "700000",
        }
    )
    with PowerMeter(machine, FakeNvml(gpus=0)) as meter:
        machine.files[f"{power}0/energy_uj"] = "4000000"
        machine.files[f"{power}1/energy_uj"] = "6000000"
        machine.files[f"{power}0:0/energy_uj"] = "9900000"
    got = meter.result(frames=8)
    assert got["source"] == "RAPL, processor package"
    assert got["joules"] == 4.0
    assert got["joules_per_frame"] == 0.5


def test_time_that_others_took_and_the_hypervisor_kept() -> None:
    machine = FakeMachine(files={"/proc/stat": "cpu 100 0 100 1000 0 0 0 10 0 0\ncpu0 ..."})
    with PowerMeter(machine, FakeNvml(gpus=0)) as meter:
        machine.files["/proc/stat"] = "cpu 700 0 100 1390 0 0 0 20 0 0\ncpu0 ..."
    got = meter.result(1)
    assert got["cpu_steal_percent"] == 1.0
    assert got["cpu_others_percent"] == pytest.approx(60.0, abs=2)


def test_processor_that_throttled_is_counted() -> None:
    path = "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    machine = FakeMachine(files={path: "3"})
    with PowerMeter(machine, FakeNvml(gpus=0)) as meter:
        machine.files[path] = "10"
    assert meter.result(1)["cpu_throttle_events"] == 7


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script as a program")
def test_jetson_reads_a_real_process_named_tegrastats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile :; do echo '{NANO_LINE}'; sleep 0.02; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with PowerMeter(FakeMachine(files=dict(ORIN_NANO)), FakeNvml(gpus=0)) as meter:
        time.sleep(0.5)
    got = meter.result(frames=10)
    assert got["source"] == "tegrastats, whole module"
    assert got["watts_mean"] == pytest.approx(5.21)
    assert got["gpu_mhz"]["max"] == 611.0
