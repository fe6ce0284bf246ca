"""The build script: GPU kernels where nvcc is, a CPU-only build that says so elsewhere."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> Any:
    pytest.importorskip("pybind11", reason="needs pybind11 (make setup)")
    spec = importlib.util.spec_from_file_location("setup_under_test", CHECKOUT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_nvcc(folder: Path, codes: str, status: int = 0) -> Path:
    """A compiler that lists ``codes`` and writes its arguments where its output should go."""
    path = folder / "nvcc"
    path.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = --list-gpu-code ]; then echo "{codes}"; exit 0; fi\n'
        f"[ {status} = 0 ] || exit {status}\n"
        'for last in "$@"; do :; done\n'
        'echo "$@" > "$last"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """build_ext into a folder, without compiling the native module."""
    program = (
        "import runpy, sys\n"
        "from pybind11.setup_helpers import build_ext\n"
        "build_ext.build_extensions = lambda self: None\n"
        f"sys.argv = ['setup.py', 'build_ext', '--force', '--build-lib', {str(folder)!r}, "
        f"'--build-temp', {str(folder / 't')!r}]\n"
        "runpy.run_path('setup.py', run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_script_builds_nothing(script):
    assert script.CUDA_ARCHS == (75, 80, 86, 87, 89, 90, 100, 110, 120)


def test_flags_keep_the_promise_of_the_same_bits(script):
    flags = script.nvcc_flags()
    assert "-fmad=false" in flags
    assert not any("fast" in flag for flag in flags)
    assert script.compile_flags(False).count("-ffp-contract=off") == 1


def test_named_nvcc_comes_first_and_a_wrong_one_is_said(script, tmp_path, monkeypatch):
    nvcc = fake_nvcc(tmp_path, "sm_75")
    monkeypatch.setenv("NVCC", str(nvcc))
    assert script.find_nvcc() == str(nvcc)
    monkeypatch.setenv("NVCC", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match="is no program"):
        script.find_nvcc()
    monkeypatch.delenv("NVCC")
    (tmp_path / "bin").mkdir()
    inner = fake_nvcc(tmp_path / "bin", "sm_75")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert script.find_nvcc() == str(inner)


def test_fatbin_is_built_for_what_nvcc_knows_and_as_ptx_of_the_oldest(tmp_path):
    nvcc = fake_nvcc(tmp_path, "sm_50 sm_75 sm_86 sm_90")
    done = build(tmp_path / "out", NVCC=str(nvcc), RT_SWAP_CUDA="1")
    assert done.returncode == 0, done.stderr
    assert "GPU kernels built for SM 75, 86, 90 and as PTX" in done.stdout
    written = (tmp_path / "out" / "rt_swap" / "_warp.fatbin").read_text()
    for target in (
        "arch=compute_75,code=sm_75",
        "arch=compute_86,code=sm_86",
        "arch=compute_90,code=sm_90",
        "arch=compute_75,code=compute_75",
    ):
        assert target in written
    assert "compute_50" not in written
    assert [p.name for p in (tmp_path / "out" / "rt_swap").iterdir()] == ["_warp.fatbin"]


def test_build_without_gpu_kernels_succeeds_and_says_so(tmp_path):
    done = build(tmp_path / "out", RT_SWAP_CUDA="0")
    assert done.returncode == 0, done.stderr
    assert "built for the CPU only (RT_SWAP_CUDA=0)" in done.stdout
    assert not (tmp_path / "out" / "rt_swap" / "_warp.fatbin").exists()


def test_failing_nvcc_fails_the_build_and_leaves_nothing(tmp_path):
    nvcc = fake_nvcc(tmp_path, "sm_75", status=3)
    done = build(tmp_path / "out", NVCC=str(nvcc))
    assert done.returncode != 0
    assert "nvcc failed (3); RT_SWAP_CUDA=0 builds without it" in done.stderr
    assert list((tmp_path / "out" / "rt_swap").iterdir()) == []


def test_nvcc_too_old_for_all_is_said(tmp_path):
    done = build(tmp_path / "out", NVCC=str(fake_nvcc(tmp_path, "sm_50")))
    assert done.returncode != 0
    assert "makes code for none of" in done.stderr


def test_unknown_setting_is_refused(tmp_path):
    done = build(tmp_path / "out", RT_SWAP_CUDA="yes")
    assert done.returncode != 0
    assert "RT_SWAP_CUDA must be 0 or 1" in done.stderr
