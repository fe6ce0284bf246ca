"""What a machine says about itself, on machines that are made up, and on this one."""

from __future__ import annotations

import sys

from rt_swap import machine as machines
from rt_swap.machine import Ran, ThisMachine
from tests.support.machines import ORIN_NANO, SMI, FakeMachine, rtx_4060


def test_jetson_is_told_by_its_files() -> None:
    orin = FakeMachine(
        files=dict(ORIN_NANO),
        commands={
            "nvpmodel": Ran(0, "NV Power Mode: MAXN_SUPER\n2\n"),
            "dpkg-query": Ran(0, "6.2+b77"),
        },
        architecture="aarch64",
    )
    assert machines.jetson_model(orin) == ORIN_NANO["/proc/device-tree/model"]
    assert machines.cpu_name(orin) == ORIN_NANO["/proc/device-tree/model"]
    assert machines.l4t_release(orin) == "36.4.3"
    assert machines.power_mode(orin) == "MAXN_SUPER"
    assert machines.jetpack_version(orin) == "6.2+b77"
    assert machines.memory_mib(orin) == 7619
    assert machines.jetson_model(FakeMachine()) is None


def test_raspberry_pi_is_no_jetson() -> None:
    pi = FakeMachine(files={"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0"})
    assert machines.jetson_model(pi) is None


def test_gpus_of_nvidia_smi() -> None:
    (gpu,) = machines.nvidia_gpus(rtx_4060())
    assert (gpu.name, gpu.compute_capability, gpu.memory_mib, gpu.power_limit_w) == (
        "NVIDIA GeForce RTX 4060",
        (8, 9),
        8188.0,
        115.0,
    )
    assert machines.nvidia_driver(rtx_4060()) == "570.86.16"
    assert machines.cuda_of_driver(rtx_4060()) == "12.8"


def test_gpus_what_the_card_does_not_tell_is_none_and_an_error_is_no_gpu() -> None:
    shy = FakeMachine(commands={SMI: Ran(0, "0, Orin (nvgpu), 540.4.0, [N/A], [N/A], [N/A]\n")})
    (gpu,) = machines.nvidia_gpus(shy)
    assert (gpu.memory_mib, gpu.compute_capability, gpu.power_limit_w) == (None, None, None)
    broken = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    assert machines.nvidia_gpus(FakeMachine(commands={SMI: Ran(9, broken)})) == []
    assert machines.nvidia_gpus(FakeMachine()) == []


def test_clock_governor_and_battery() -> None:
    cpu = "/sys/devices/system/cpu/cpu"
    laptop = FakeMachine(
        files={
            f"{cpu}0/cpufreq/scaling_cur_freq": "800000\n",
            f"{cpu}1/cpufreq/scaling_cur_freq": "4700000\n",
            f"{cpu}0/cpufreq/scaling_governor": "powersave\n",
            "/sys/class/power_supply/BAT0/status": "Discharging\n",
        }
    )
    assert machines.cpu_mhz(laptop) == [800.0, 4700.0]
    assert machines.cpu_governor(laptop) == "powersave"
    assert machines.on_battery(laptop) is True
    assert machines.on_battery(FakeMachine()) is None
    assert machines.cpu_mhz(rtx_4060()) == [3400.0]


def test_this_machine_reads_runs_and_knows_packages(tmp_path: object) -> None:
    here = ThisMachine()
    assert here.read("/no/such/file") is None
    assert here.run(["no-such-program-here"]) is None
    done = here.run([sys.executable, "-c", "import sys; print('out'); sys.exit(3)"])
    assert done == Ran(3, "out\n")
    slow = [sys.executable, "-c", "import time; time.sleep(30)"]
    assert here.run(slow, timeout_s=0.2) is None
    assert here.version("numpy") is not None
    assert here.version("no-such-package-here") is None
    assert here.find(f"{tmp_path}") == [str(tmp_path)]
    assert here.may(str(tmp_path), "rw")
    assert machines.cpu_name(here)
