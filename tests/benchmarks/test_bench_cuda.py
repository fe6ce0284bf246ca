"""The GPU benchmark: whole on an emulated GPU, its arithmetic, and its one sentence without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_cuda, common
from rt_swap.model import load_bundle
from tests.conftest import has_nvidia_gpu
from tests.support.fake_gpu import FakeGpu, emulator, fatbin_for
from tests.support.tiny_model import tiny_bundle

pytest.importorskip("rt_swap._warp", reason="needs the native module (make ext)")


def test_whole_benchmark_on_an_emulated_gpu(tmp_path: Path, monkeypatch):
    emulator()
    monkeypatch.setattr(bench_cuda, "SIZES", {"720p": (64, 48), "1080p": (96, 64), "4K": (80, 96)})
    monkeypatch.setattr(bench_cuda, "WARM_UP", 2)
    bundle = load_bundle(tiny_bundle(tmp_path / "bundle"))
    results, bounds = bench_cuda.run(
        "none",
        bundle,
        make_driver=lambda ordinal: FakeGpu(),
        kernels_file=fatbin_for(tmp_path / "k.fatbin"),
        frames=1,
        repeats=1,
        copy_mib=1,
        batch=1,
    )
    assert [p["pixels_differing"] for p in results["parity"]] == [0, 0, 0]
    assert [p["crop_values_differing"] for p in results["parity"]] == [0, 0, 0]
    assert {(k["kernel"], k["size"]) for k in results["kernels"]} == {
        (kernel, size)
        for kernel in ("unpack", "crop", "pack_maps", "compose")
        for size in ("1080p", "4K")
    }
    assert [c["size"] for c in results["chain"]] == ["1080p", "4K"]
    names = [b["name"] for b in bounds]
    assert "chain at 1080p, p50, ms" in names
    assert sum("copy bandwidth left unused" in n for n in names) == 2
    about = common.metadata(bundle, "none", 1)
    made = common.document("cuda", about, {}, results, bounds)
    common.write_result(tmp_path / "out.json", made)


def test_kernel_bytes_count_each_pixel_once():
    part, box = (0, 0, 20, 10), (5, 5, 15, 10)
    assert bench_cuda.kernel_bytes("unpack", part, box) == 200 * 7
    assert bench_cuda.kernel_bytes("compose", part, box) == 50 * 7 + 258 * 258 * 32
    assert bench_cuda.kernel_bytes("crop", part, box) == 50 * 4 + 3 * 256 * 256 * 4
    assert bench_cuda.kernel_bytes("pack_maps", part, box) == 8 * 256 * 256 * 4 + 258 * 258 * 32


@pytest.mark.parametrize("backend", ["rtx", "tensorrt", "none"])
def test_without_a_gpu_it_says_so_in_one_sentence(backend, capsys):
    if has_nvidia_gpu():
        pytest.skip("needs a machine without an NVIDIA GPU")
    assert bench_cuda.main(["--backend", backend]) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench_cuda: it cannot run here: ")
    assert "there is no NVIDIA driver" in said
    assert said.count("\n") == 1
