"""Machines made of dictionaries: files, commands and packages that a test says are there."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rt_swap.machine import Ran


@dataclass
class FakeMachine:
    """A machine with exactly what it is given.

    Attributes:
        files: Text by path.
        commands: How a command line ended, by the whole line, or by its first word.
        packages: Versions by name.
        closed: Paths that this user may not use.
        environ: Environment variables.
        architecture: As platform.machine().
        ran: Command lines that were run, in order.
    """

    files: dict[str, str] = field(default_factory=dict)
    commands: dict[str, Ran] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    environ: Mapping[str, str] = field(default_factory=dict)
    architecture: str = "x86_64"
    ran: list[str] = field(default_factory=list)

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def find(self, pattern: str) -> list[str]:
        pattern = pattern.replace("/**/", "/*/") if "/**/" in pattern else pattern
        folders = {f"{p[:i]}" for p in self.files for i, c in enumerate(p) if c == "/" and i}
        return sorted(p for p in {*self.files, *folders} if fnmatch.fnmatchcase(p, pattern))

    def may(self, path: str, what: str) -> bool:
        return path not in self.closed

    def run(self, command: Sequence[str], timeout_s: float = 10.0) -> Ran | None:
        line = " ".join(command)
        self.ran.append(line)
        return self.commands.get(line, self.commands.get(command[0]))

    def version(self, package: str) -> str | None:
        return self.packages.get(package)


ORIN_NANO = {
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "/proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\n",
    "/proc/meminfo": "MemTotal:        7802312 kB\nMemFree: 1 kB\n",
}

SMI = (
    "nvidia-smi --query-gpu=index,name,driver_version,memory.total,compute_cap,power.limit"
    " --format=csv,noheader,nounits"
)


def rtx_4060() -> FakeMachine:
    """A desktop with an RTX 4060."""
    return FakeMachine(
        files={
            "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for"
            " x86_64  570.86.16  Release Build\n",
            "/proc/cpuinfo": "model name\t: Some Processor\ncpu MHz\t\t: 3400.0\n",
            "/proc/meminfo": "MemTotal:       32768000 kB\n",
            "/dev/nvidia0": "",
        },
        commands={
            SMI: Ran(0, "0, NVIDIA GeForce RTX 4060, 570.86.16, 8188, 8.9, 115.00\n"),
            "nvidia-smi": Ran(0, "| NVIDIA-SMI 570.86.16   CUDA Version: 12.8 |"),
        },
    )
