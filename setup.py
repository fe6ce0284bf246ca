"""Builds ``rt_swap._warp`` and, where nvcc is, ``rt_swap/_warp.fatbin`` from cpp_ext/; everything
else about the package is in pyproject.toml.

RT_SWAP_NATIVE=1 compiles for exactly this machine's processor: a little faster, not for machines
with an older one.
RT_SWAP_CUDA=0 leaves the GPU kernels out, 1 makes a build without nvcc fail; unset, they are built
where nvcc is found (NVCC, CUDA_HOME/bin, PATH, /usr/local/cuda/bin).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
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
    "cpp_ext/warp_gpu.h",
    "cpp_ext/warp_rows.inc",
]
CUDA_SOURCE = "cpp_ext/warp_cuda.cu"
CUDA_HEADERS = ["cpp_ext/warp.h", "cpp_ext/warp_gpu.h"]
FATBIN = "_warp.fatbin"
# Turing; A100; RTX 30; Jetson Orin; RTX 40; H100; B200; Thor; RTX 50. One that the compiler does
# not know is left out (CUDA 12 before 12.8 ends at 90); code for x.0 also runs on later x.y.
CUDA_ARCHS = (75, 80, 86, 87, 89, 90, 100, 110, 120)


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


# --- GPU kernels ----------------------------------------------------------------------------------
def find_nvcc() -> str | None:
    """CUDA's compiler: NVCC, CUDA_HOME, CUDA_PATH, PATH, then its usual folder; None where none."""
    named = os.environ.get("NVCC")
    if named:
        found = shutil.which(named)
        if found is None:
            sys.exit(f"setup.py: NVCC={named!r} is no program; unset it or give nvcc's path")
        return found
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    for folder in [f for f in folders if f] + ["", "/usr/local/cuda"]:
        found = shutil.which("nvcc", path=str(Path(folder, "bin")) if folder else None)
        if found is not None:
            return found
    return None


def known_archs(nvcc: str) -> list[int]:
    """Those of CUDA_ARCHS that this compiler makes code for.

    Raises:
        OSError: If it cannot be run.
        subprocess.CalledProcessError: If it fails.
    """
    listed = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True)
    return [arch for arch in CUDA_ARCHS if f"sm_{arch}" in listed.stdout.split()]


def nvcc_flags() -> list[str]:
    """The flags of nvcc, whatever is compiled for, each with its reason."""
    return [
        "-std=c++17",
        "-O3",
        # as -ffp-contract=off above: the GPU gives the CPU's bits
        "-fmad=false",
        # division and square root rounded as IEEE says, denormals kept; nvcc's defaults, written
        # down because the same promise hangs on them
        "-prec-div=true",
        "-prec-sqrt=true",
        "-ftz=false",
        "-Icpp_ext",
        "-Werror",
        "all-warnings",
    ]


def fatbin_command(nvcc: str, archs: list[int], out: str) -> list[str]:
    """Code for every architecture, and PTX of the oldest, from which the driver makes code for any
    GPU that is not in the list.
    """
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
    targets.append(f"-gencode=arch=compute_{archs[0]},code=compute_{archs[0]}")
    return [nvcc, "-fatbin", *nvcc_flags(), *targets, "--threads", "0", CUDA_SOURCE, "-o", out]


class BuildExt(build_ext):  # type: ignore[misc]
    """build_ext, and the fatbin beside the module."""

    def run(self) -> None:
        """Build everything; the GPU kernels' absence is said, their failure fails the build."""
        super().run()
        wanted = os.environ.get("RT_SWAP_CUDA", "")
        if wanted not in ("", "0", "1"):
            sys.exit(f"setup.py: RT_SWAP_CUDA must be 0 or 1, got {wanted!r}")
        nvcc = None if wanted == "0" else find_nvcc()
        if nvcc is None:
            if wanted == "1":
                sys.exit("setup.py: RT_SWAP_CUDA=1, but nvcc is not found; set NVCC or CUDA_HOME")
            why = "RT_SWAP_CUDA=0" if wanted == "0" else "nvcc is not found"
            print(f"rt_swap: built for the CPU only ({why}); backends tensorrt and rtx need nvcc")
            return
        self._build_fatbin(nvcc)

    def _build_fatbin(self, nvcc: str) -> None:
        module = Path(self.get_ext_fullpath("rt_swap._warp"))
        out = module.with_name(FATBIN)
        sources = [CUDA_SOURCE, *CUDA_HEADERS, "setup.py"]
        if not self.force and out.is_file():
            made = out.stat().st_mtime
            if all(Path(source).stat().st_mtime < made for source in sources):
                return
        archs = known_archs(nvcc)
        if not archs:
            sys.exit(f"setup.py: {nvcc} makes code for none of {CUDA_ARCHS}; update CUDA")
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{FATBIN}.{os.getpid()}")
        try:
            subprocess.run(fatbin_command(nvcc, archs, str(temporary)), check=True)
            temporary.replace(out)
        except subprocess.CalledProcessError as exc:
            sys.exit(f"setup.py: nvcc failed ({exc.returncode}); RT_SWAP_CUDA=0 builds without it")
        finally:
            temporary.unlink(missing_ok=True)
        print(f"rt_swap: GPU kernels built for SM {', '.join(map(str, archs))} and as PTX")

    def get_outputs(self) -> list[str]:
        """The files built, the fatbin among them."""
        outputs: list[str] = super().get_outputs()
        fatbin = Path(self.get_ext_fullpath("rt_swap._warp")).with_name(FATBIN)
        return outputs + ([str(fatbin)] if fatbin.is_file() else [])


def main() -> None:
    """Run setuptools."""
    # setuptools wants paths relative to this file
    os.chdir(Path(__file__).resolve().parent)
    setup(
        cmdclass={"build_ext": BuildExt},
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
        ],
    )


if __name__ == "__main__":
    main()
