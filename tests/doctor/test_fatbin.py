"""Fatbins: made by hand, and by nvcc where it is."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from rt_swap.doctor.fatbin import MAGIC, Fatbin, read_fatbin


def entry(kind: int, sm: int, payload: bytes = b"code....") -> bytes:
    header = struct.pack("<HHIQIIHHI", kind, 0x101, 64, len(payload), 0, 0, 0, 0, sm)
    return header.ljust(64, b"\0") + payload


def fatbin(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", MAGIC, 1, 16, len(body)) + body


def test_entries_are_told_apart() -> None:
    got = read_fatbin(fatbin(entry(2, 87), entry(2, 75), entry(1, 120), entry(2, 89)))
    assert got == Fatbin(machine_code=(75, 87, 89), ptx=(120,))


def test_containers_one_after_another() -> None:
    assert read_fatbin(fatbin(entry(2, 75)) + fatbin(entry(2, 86))).machine_code == (75, 86)


@pytest.mark.parametrize(
    ("capability", "how"),
    [
        ((7, 5), "machine code"),
        ((8, 6), "machine code"),
        ((8, 9), "machine code"),  # of 8.6: the same major number
        ((8, 0), "PTX"),  # 8.6's code is too new
        ((12, 0), "PTX"),
        ((7, 0), None),
    ],
)
def test_runs_on(capability: tuple[int, int], how: str | None) -> None:
    assert Fatbin(machine_code=(75, 86), ptx=(75,)).runs_on(capability) == how


@pytest.mark.parametrize(
    ("blob", "match"),
    [
        (b"", "no code"),
        (b"\x7fELF" + b"\0" * 60, "does not begin"),
        (b"\x50\xed", "within a header"),
        (fatbin(entry(2, 75))[:-4], "cut short"),
        (fatbin(entry(2, 75)[:20]), "header is cut short"),
        (fatbin(entry(9, 75)), "no code"),
    ],
)
def test_damage_is_named(blob: bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read_fatbin(blob)


def test_fatbin_of_nvcc(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs CUDA's nvcc")
    source = tmp_path / "k.cu"
    source.write_text('extern "C" __global__ void k(float* p) { p[threadIdx.x] += 1; }\n')
    wanted = ["arch=compute_80,code=sm_80", "arch=compute_90,code=[sm_90,compute_90]"]
    codes = [f"-gencode={code}" for code in wanted]
    out = tmp_path / "k.fatbin"
    done = subprocess.run(
        [nvcc, "-fatbin", *codes, "-o", str(out), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this nvcc cannot compile here: {done.stderr.strip()[:200]}")
    assert read_fatbin(out.read_bytes()) == Fatbin(machine_code=(80, 90), ptx=(90,))
