"""The kernels' benchmark runs and writes a good file. Nothing is timed here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import bench_kernels, bench_networks, schema
from tests.support.tiny_model import tiny_bundle


@pytest.fixture(autouse=True)
def _same_cores() -> Iterator[None]:
    import cv2

    threads = cv2.getNumThreads()
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    cv2.setNumThreads(threads)
    if before is not None:
        os.sched_setaffinity(0, before)


def test_kernels_main_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out.json"
    arguments = ["--model", str(bundle), "--frames", "2", "--repeats", "1", "--sizes", "720p"]
    code = bench_kernels.main([*arguments, "--json", str(out)])
    made = schema.loads(out.read_text())
    assert code == (0 if made["passed"] else 1)
    assert made["results"]["sizes"]["720p"]["samples"] >= 1
    assert "720p" in capsys.readouterr().out


def test_networks_main_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    threads = torch.get_num_threads()
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out.json"
    arguments = ["--model", str(bundle), "--runs", "2", "--warm-up", "1", "--no-compile"]
    try:
        assert bench_networks.main([*arguments, "--json", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    made = schema.loads(out.read_text())
    assert set(made["results"]["ms"]) >= {"rt_swap, onnxruntime", "PyTorch, eager, CPU"}
    assert len(made["bounds"]) == 6
    assert "PyTorch, eager, CPU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "arguments", "match"),
    [
        (bench_kernels, ["--sizes", "8K"], "--sizes must be of"),
        (bench_kernels, ["--frames", "0"], "--frames"),
        (bench_networks, ["--runs", "0"], "--runs"),
        (bench_networks, ["--model", "nowhere"], "no such model folder"),
    ],
)
def test_mistakes(
    module: object, arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main(arguments) == 2  # type: ignore[attr-defined]
    assert match in capsys.readouterr().err
