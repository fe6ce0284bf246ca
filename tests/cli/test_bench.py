"""``rt-swap bench`` on the command line: files, comparison, exit codes, mistakes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rt_swap.bench import schema
from rt_swap.cli import BENCH_SLOWER, main

ARGUMENTS = ["bench", "--frames", "120", "--warm-up", "2", "--size", "160x120", "--parts", "none"]


@pytest.fixture(autouse=True)
def _same_cores() -> Iterator[None]:
    """The benchmark may tie the process to some cores; give them back."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if before is not None:
        os.sched_setaffinity(0, before)


def run(*more: str) -> int:
    return main([*ARGUMENTS, *more])


def test_bench_writes_both_files_and_talks_on_stderr(
    faces: Callable[..., None], target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out.json", tmp_path / "out.html"
    options = ["--target", str(target), "--json", str(out), "--html", str(report), "--cores", "1"]
    assert run(*options) == 0
    document = schema.read_result(out)
    assert document["parameters"]["shown"].startswith("target.mp4, 8 frames")
    assert document["about"]["cores_used"] == 1
    assert document["parameters"]["threads"] == 1
    assert "<svg" in report.read_text()
    said = capsys.readouterr()
    assert "capture to emit" in said.out
    assert "120 frames of 160x120" in said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.html", "out.json"]


def test_bench_compare_slower_is_its_own_exit_code(
    faces: Callable[..., None], target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.json"
    assert run("--target", str(target), "--json", str(old)) == 0
    document = json.loads(old.read_text())

    def scaled(factor: float) -> None:
        changed: dict[str, Any] = json.loads(json.dumps(document))
        for values in changed["samples_ms"].values():
            values[:] = [v * factor for v in values]
        old.write_text(json.dumps(changed))

    capsys.readouterr()
    scaled(1e-3)
    assert run("--target", str(target), "--compare", str(old), "-q") == BENCH_SLOWER
    said = capsys.readouterr()
    assert "slower beyond the noise: capture to emit p50" in said.out
    assert said.err == ""
    scaled(1e3)
    assert run("--target", str(target), "--compare", str(old)) == 0
    assert "slower beyond the noise: nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--size", "1280"], "--size: must be like 1280x720"),
        (["--rate", "fast"], "--rate: must be a number"),
        (["--parts", "live,dance"], "no 'dance'"),
        (["--frames", "0"], "--frames and --warm-up"),
        (["--tolerance", "-1"], "--tolerance"),
        (["--cores", "0"], "--cores must be"),
        (["--compare", "none.json"], "none.json: cannot be read"),
        (["--json", "no/such/folder/x.json"], "there is no folder"),
        (["--backend", "abacus"], "no backend 'abacus'"),
    ],
)
def test_bench_mistakes_are_told_before_anything_is_measured(
    arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert match in capsys.readouterr().err
