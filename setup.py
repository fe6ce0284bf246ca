"""Builds ``rt_swap._warp`` from cpp_ext/; everything else about the package is in pyproject.toml.

RT_SWAP_NATIVE=1 compiles for exactly this machine's processor: a little faster, not for machines
with an older one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

SOURCES = [
    "cpp_ext/bindings.cpp",
    "cpp_ext/thread_pool.cpp",
    "cpp_ext/warp_cpu.cpp",
    "cpp_ext/warp_cpu_avx2.cpp",
]
HEADERS = [
    "cpp_ext/thread_pool.h",
    "cpp_ext/warp.h",
    "cpp_ext/warp_cpu.h",
    "cpp_ext/warp_rows.inc",
]


def compile_flags(native: bool) -> list[str]:
    """Compiler flags, each with its reason.

    Args:
        native: Compile for this machine's processor only.
    """
    if sys.platform == "win32":
        # /fp:precise neither reorders nor contracts; see -ffp-contract below
        return ["/O2", "/fp:precise", "/EHsc"] + (["/DRT_SWAP_NATIVE"] if native else [])
    flags = [
        # vectorises the row loops; Python's own flags may say -O2
        "-O3",
        # No fused multiply-adds. Whether the compiler fuses depends on the instruction set, so the
        # AVX2 and the baseline copy of a loop, ARM and the GPU would round differently, and "flow 0
        # gives the input bit for bit" would hang on the compiler's mood. warp.h refuses -ffast-math
        # for the same reason.
        "-ffp-contract=off",
        # Lets comparisons become vector selects; nothing here looks at the processor's
        # floating-point exception flags. Unlike -ffast-math it changes no result, NaN and infinity
        # included.
        "-fno-trapping-math",
        # only the module's init function needs to be visible
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        # the vector types of warp.h never cross a call boundary (all is inlined), so their calling
        # convention is moot
        "-Wno-psabi",
        "-pthread",
    ]
    if native:
        # without it the module is for any x86-64 and picks its AVX2 copy at run time
        # (warp_cpu_avx2.cpp needs no flag); the define drops that copy
        flags += ["-march=native", "-DRT_SWAP_NATIVE"]
    return flags


def is_native() -> bool:
    """Whether RT_SWAP_NATIVE asks for -march=native."""
    value = os.environ.get("RT_SWAP_NATIVE", "0")
    if value not in ("0", "1"):
        sys.exit(f"setup.py: RT_SWAP_NATIVE must be 0 or 1, got {value!r}")
    return value == "1"


# setuptools wants paths relative to this file
os.chdir(Path(__file__).resolve().parent)

setup(
    ext_modules=[
        Pybind11Extension(
            "rt_swap._warp",
            SOURCES,
            depends=HEADERS,
            include_dirs=["cpp_ext"],
            cxx_std=17,
            extra_compile_args=compile_flags(is_native()),
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
        )
    ]
)
