"""Looks at the GPU kernels' machine code: registers, spills, shared memory and the width of their
loads and stores, per kernel and architecture. Needs nvcc, and no GPU.

    python -m benchmarks.cuda_sass                  every architecture that nvcc knows and we build
    python -m benchmarks.cuda_sass --arch 75 120    these only

Fails where a kernel spills registers or keeps a stack. Memory instructions are listed where the
CUDA toolkit's nvdisasm or cuobjdump is found.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
_ENTRY: Final = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_SPILL: Final = re.compile(
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)
_USED: Final = re.compile(r"Used (\d+) registers")
_SHARED: Final = re.compile(r"(\d+) bytes smem")
_MEMORY: Final = re.compile(r"\b((?:LDG|STG|LD|ST|LDL|STL)\.[A-Z0-9.]*)")


class LookError(Exception):
    """The code cannot be looked at; the message says why and what to do."""


@dataclass
class KernelCode:
    """What the assembler says of one kernel.

    Attributes:
        name: Of the kernel.
        arch: 75 for SM 7.5.
        registers: A thread's.
        stack_bytes: A thread's stack.
        spill_bytes: Spilled, stores and loads together.
        shared_bytes: A block's.
        memory: Memory instructions with their count; empty where no disassembler is there.
    """

    name: str
    arch: int
    registers: int = 0
    stack_bytes: int = 0
    spill_bytes: int = 0
    shared_bytes: int = 0
    memory: Counter[str] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is kept outside registers that should be in them."""
        return self.stack_bytes == 0 and self.spill_bytes == 0


@functools.cache
def build_script() -> Any:
    """setup.py as a module: its flags are the ones that count."""
    spec = importlib.util.spec_from_file_location("rt_swap_setup", CHECKOUT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_assembler(text: str) -> list[KernelCode]:
    """Read what ``ptxas -v`` writes.

    Args:
        text: Its output.
    """
    found: list[KernelCode] = []
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            found.append(KernelCode(entry[1], int(entry[2])))
        elif found and (spill := _SPILL.search(line)):
            found[-1].stack_bytes = int(spill[1])
            found[-1].spill_bytes = int(spill[2]) + int(spill[3])
        elif found and (used := _USED.search(line)):
            found[-1].registers = int(used[1])
            shared = _SHARED.search(line)
            found[-1].shared_bytes = int(shared[1]) if shared else 0
    return found


def parse_disassembly(text: str) -> dict[str, Counter[str]]:
    """Memory instructions by kernel, of what nvdisasm or cuobjdump writes.

    Args:
        text: Its output.
    """
    counts: dict[str, Counter[str]] = {}
    current: Counter[str] | None = None
    for line in text.splitlines():
        section = re.search(r"(?:^\s*\.text\.|Function : )(\w+)", line)
        if section:
            current = counts.setdefault(section[1], Counter())
        elif current is not None and (found := _MEMORY.search(line)):
            current[found[1]] += 1
    return {name: found for name, found in counts.items() if found}


def look_at(arch: int, nvcc: str) -> list[KernelCode]:
    """Compile for one architecture and look.

    Args:
        arch: 75 for SM 7.5.
        nvcc: The compiler.

    Raises:
        LookError: If it does not compile.
    """
    setup = build_script()
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [nvcc, "-cubin", f"-arch=sm_{arch}", "-Xptxas=-v", *setup.nvcc_flags()]
        done = subprocess.run(
            [*command, setup.CUDA_SOURCE, "-o", str(cubin)],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LookError(
                f"nvcc does not compile {setup.CUDA_SOURCE} for sm_{arch}:\n{done.stderr}"
            )
        kernels = parse_assembler(done.stderr + done.stdout)
        if not kernels:
            raise LookError(f"sm_{arch}: the assembler named no kernel; is this nvcc too new?")
        disassembled = _disassemble(cubin)
    for kernel in kernels:
        kernel.memory = disassembled.get(kernel.name, Counter())
    return sorted(kernels, key=lambda k: k.name)


def _disassemble(cubin: Path) -> dict[str, Counter[str]]:
    for tool, option in (("nvdisasm", "-c"), ("cuobjdump", "-sass")):
        program = shutil.which(tool)
        if program is None:
            continue
        done = subprocess.run(
            [program, option, str(cubin)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return parse_disassembly(done.stdout)
    return {}


def look(archs: Sequence[int] | None = None, jobs: int = 2) -> list[KernelCode]:
    """Every kernel on every architecture.

    Args:
        archs: Which; None: all that setup.py builds for and nvcc knows.
        jobs: Compilers at once.

    Raises:
        LookError: If there is no nvcc, or it does not know an architecture.
    """
    setup = build_script()
    nvcc = setup.find_nvcc()
    if nvcc is None:
        raise LookError("nvcc is not found; install the CUDA toolkit, or set NVCC or CUDA_HOME")
    known = setup.known_archs(nvcc)
    unknown = sorted(set(archs or ()) - set(known))
    if unknown:
        raise LookError(f"this nvcc and setup.py know SM {known}, not {unknown}")
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda arch: look_at(arch, nvcc), archs or known)
        return [kernel for kernels in results for kernel in kernels]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda_sass",
        description="Registers, spills and memory instructions of the GPU kernels.",
    )
    parser.add_argument("--arch", type=int, nargs="+", metavar="SM", help="such as 75 89 120")
    options = parser.parse_args(arguments)
    try:
        kernels = look(options.arch)
    except LookError as exc:
        print(f"cuda_sass: {exc}", file=sys.stderr)
        return 2
    print(f"{'kernel':32} {'SM':>4} {'regs':>5} {'stack':>6} {'spill':>6} {'shared':>7}  memory")
    for k in kernels:
        memory = " ".join(f"{name}x{count}" for name, count in sorted(k.memory.items()))
        print(
            f"{k.name:32} {k.arch:>4} {k.registers:>5} {k.stack_bytes:>6} {k.spill_bytes:>6} "
            f"{k.shared_bytes:>7}  {memory}"
        )
    if not any(k.memory for k in kernels):
        print("(no nvdisasm or cuobjdump: memory instructions were not looked at)", file=sys.stderr)
    spilling = [f"{k.name} on SM {k.arch}" for k in kernels if not k.is_clean]
    if spilling:
        print(f"cuda_sass: registers are spilled: {', '.join(spilling)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
