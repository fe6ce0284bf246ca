"""Every architecture compiles, nothing spills, and the reader of the assembler's words reads."""

from __future__ import annotations

import shutil

import pytest

from benchmarks import cuda_sass

# ptxas -v of CUDA 13.0, with a spill made by -maxrregcount
ASSEMBLER = """
ptxas info    : 8 bytes gmem, 16 bytes cmem[4]
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 56 registers, used 1 barriers, 1536 bytes smem, 432 bytes cmem[0]
ptxas info    : Compiling entry function 'two' for 'sm_120'
ptxas info    : Function properties for two
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 432 bytes cmem[0]
"""
DISASSEMBLY = """
.text.one:
        /*0010*/                   LDG.E.128 R4, [R2.64] ;
        /*0020*/                   LDG.E.128 R8, [R2.64+0x10] ;
        /*0030*/                   STG.E.128 [R12.64], R4 ;
        /*0040*/                   FADD R1, R2, R3 ;
.text.two:
        /*0010*/              @!P0 LDG.E.U8 R4, [R2.64] ;
        /*0020*/                   STL [R1], R4 ;
"""


def test_assembler_s_words_are_read():
    one, two = cuda_sass.parse_assembler(ASSEMBLER)
    assert (one.name, one.arch, one.registers, one.shared_bytes) == ("one", 80, 56, 1536)
    assert one.is_clean
    assert (two.arch, two.registers, two.stack_bytes, two.spill_bytes) == (120, 24, 16, 32)
    assert not two.is_clean


def test_disassembly_is_counted_by_kernel():
    counts = cuda_sass.parse_disassembly(DISASSEMBLY)
    assert counts["one"] == {"LDG.E.128": 2, "STG.E.128": 1}
    assert counts["two"] == {"LDG.E.U8": 1}


def test_spills_fail_the_command(monkeypatch, capsys):
    monkeypatch.setattr(cuda_sass, "look", lambda archs: cuda_sass.parse_assembler(ASSEMBLER))
    assert cuda_sass.main([]) == 1
    assert "registers are spilled: two on SM 120" in capsys.readouterr().err


def test_without_nvcc_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(cuda_sass.build_script(), "find_nvcc", lambda: None)
    assert cuda_sass.main([]) == 2
    assert "nvcc is not found; install the CUDA toolkit" in capsys.readouterr().err


def _archs() -> list[int]:
    nvcc = cuda_sass.build_script().find_nvcc()
    return cuda_sass.build_script().known_archs(nvcc) if nvcc else []


@pytest.fixture(scope="module")
def kernels() -> list[cuda_sass.KernelCode]:
    if not _archs():
        pytest.skip("needs nvcc")
    return cuda_sass.look()


def test_every_architecture_compiles_and_none_spills(kernels):
    assert {k.arch for k in kernels} == set(_archs())
    names = {k.name for k in kernels}
    assert len(names) == 12
    assert len(kernels) == len(names) * len(_archs())
    assert [f"{k.name} {k.arch}" for k in kernels if not k.is_clean] == []
    # at 80, six blocks of 128 threads still find room in a multiprocessor's 64 K registers
    assert max(k.registers for k in kernels) <= 80


def test_pixels_travel_sixteen_bytes_at_a_time(kernels):
    if shutil.which("nvdisasm") is None and shutil.which("cuobjdump") is None:
        pytest.skip("needs nvdisasm or cuobjdump")
    for k in kernels:
        # Blackwell has instructions of 32 bytes, too
        wide = [i for i in k.memory if "128" in i or "256" in i]
        wide_in = any(i.startswith("LD") for i in wide)
        wide_out = any(i.startswith("ST") for i in wide)
        if "unpack" in k.name or "copy" in k.name or "compose" in k.name:
            assert wide_in, k
            assert wide_out, k
        if "pack_maps" in k.name:
            assert wide_out, k
        assert not any(i.startswith(("LDL", "STL")) for i in k.memory), k
