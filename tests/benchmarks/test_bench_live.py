"""The live benchmark: its arithmetic, and that the whole program runs. Nothing is timed here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_live, schema
from benchmarks.bench_live import growth_mib
from rt_swap.errors import ConfigError
from tests.support.tiny_model import tiny_bundle


@pytest.fixture(autouse=True)
def _affinity() -> Iterator[None]:
    """The program ties itself to some cores; the tests after it get theirs back."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def test_growth_leaves_the_start_out_and_sees_a_leak() -> None:
    settling = [(float(t), 300.0 + min(t, 20) * 5) for t in range(100)]
    assert growth_mib(settling) == 0.0
    leaking = [(float(t), 300.0 + 0.5 * t) for t in range(100)]
    assert growth_mib(leaking) == pytest.approx(30.0, abs=1.0)
    shaking = [(float(t), 300.0 + (t % 7)) for t in range(100)]
    assert abs(growth_mib(shaking)) <= 1.0
    with pytest.raises(ConfigError, match="too short to see memory grow"):
        growth_mib(leaking[:4])


def test_program_runs_and_its_exit_code_follows_the_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RT_SWAP_DATA", raising=False)
    monkeypatch.setattr(bench_live.common, "data_dir", lambda: None)
    monkeypatch.setattr(bench_live, "SIZE_WH", (320, 180))
    monkeypatch.setattr(bench_live, "_CLIP_S", 2.0)
    monkeypatch.setattr(bench_live, "_CHANGE_S", 1.0)
    for name in ("P50_MS", "P99_MS", "GROWTH_MIB"):
        monkeypatch.setattr(bench_live, name, 1e6)
    monkeypatch.setattr(bench_live, "DROPS_PERCENT", 100.0)
    model = tiny_bundle(tmp_path / "bundle")
    options = ["--seconds", "6", "--warm-up", "0.5", "--model", str(model), "--cores", "1"]
    out = tmp_path / "live.json"
    assert bench_live.main([*options, "--json", str(out)]) == 0
    made = schema.loads(out.read_text(encoding="utf-8"))
    results = made["results"]
    assert results["statuses"]["swapped"] > 0
    assert results["expression_changes"] >= 4
    assert 0 < results["emitted"] <= results["received"] + 1
    assert len(made["bounds"]) == 4
    age = results["age_at_emit_ms"]
    assert age["p50"] >= results["stage_ms"]["process"]["p50"] / 2 > 0
    assert "memory grew by" in capsys.readouterr().out


def test_missed_bound_is_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timing = {"count": 9, "mean": 9.0, "p50": 41.0, "p95": 50.0, "p99": 60.0, "max": 61.0}
    results = {
        "seconds": 5.0,
        "received": 9,
        "emitted": 9,
        "statuses": {"swapped": 9},
        "dropped": 0,
        "drops_percent": 0.0,
        "expression_changes": 0,
        "age_at_emit_ms": {**timing, "iqr": 1.0},
        "stage_ms": {"track": {**timing, "iqr": 1.0}},
        "memory_growth_mib": 0.0,
        "memory_curve_mib": [300.0],
        "camera_losses": 0,
    }
    bounds = [bench_live.common.bound("age of frame at emit, p50, ms", 41.0, bench_live.P50_MS)]
    monkeypatch.setattr(bench_live, "write_clip", lambda *_: None)
    monkeypatch.setattr(bench_live, "measure", lambda *_: (results, bounds))
    monkeypatch.setattr(
        bench_live.common, "pictures", lambda *_: ([np.zeros((4, 4, 3), np.uint8)], "nothing")
    )
    model = tiny_bundle(tmp_path / "bundle")
    assert bench_live.main(["--model", str(model), "--cores", "1"]) == 1
    assert "MISSED age of frame at emit, p50" in capsys.readouterr().out


def test_error_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_live.main(["--seconds", "1"]) == 2
    assert "--seconds must be" in capsys.readouterr().err
    assert bench_live.main(["--model", str(tmp_path)]) == 2
