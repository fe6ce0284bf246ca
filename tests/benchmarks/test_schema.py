"""The result files' schema: a good document passes, and every kind of damage is named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import common, schema
from benchmarks.schema import SchemaError

TIMING = {"count": 9, "mean": 2.0, "p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0, "iqr": 0.5}


def memory_document() -> dict[str, Any]:
    run = {"frames": 5, "frames_out": 5, "peak_mib": 9.5, "seconds": 1.0, "curve_mib": [9.0]}
    return {
        "schema": schema.SCHEMA_VERSION,
        "benchmark": "memory",
        "created": "2025-01-31T12:00:00Z",
        "metadata": {
            "commit": None,
            "dirty": None,
            "cpu": "x",
            "cores_used": 2,
            "cores_present": 4,
            "memory_mib": None,
            "load_before": 0.0,
            "system": "x",
            "python": "3.11",
            "packages": {"numpy": "1", "av": None},
            "model": {"name": "x", "encoder_sha256": "a", "generator_sha256": "b", "steps": 0},
            "backend": "onnxruntime",
        },
        "parameters": {},
        "results": {"runs": [run, dict(run)], "ratio": 1.0},
        "bounds": [common.bound("peaks apart", 0.0, 5.0)],
        "passed": True,
    }


def test_check_good_document_passes_and_survives_the_file(tmp_path: Path) -> None:
    made = memory_document()
    path = tmp_path / "out.json"
    common.write_result(path, made)
    assert schema.loads(path.read_text()) == made
    assert schema.main([str(path)]) == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("where", "value", "match"),
    [
        (("benchmark",), "speed", "benchmark must be one of"),
        (("schema",), 2, "this is version 1"),
        (("created",), "", "created must be a non-empty string"),
        (("passed",), False, "does not say what the bounds say"),
        (("passed",), 1, "passed must be true or false"),
        (("results", "ratio"), float("nan"), "ratio must be a finite number"),
        (("results", "ratio"), 0, "ratio must be above 0"),
        (("results", "runs"), [], "runs must have entries"),
        (("results", "more"), 1, "more is unknown"),
        (("metadata", "cores_used"), 1.5, "cores_used must be a whole number"),
        (("metadata", "cores_used"), True, "cores_used must be a whole number"),
        (("metadata", "packages"), {}, "packages must have entries"),
        (("bounds",), [{"name": "x"}], r"bounds\[0\].value is missing"),
        (("parameters",), [], "parameters must be an object"),
    ],
)
def test_check_damage_is_named(where: tuple[str, ...], value: object, match: str) -> None:
    made = copy.deepcopy(memory_document())
    inner = made
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    with pytest.raises(SchemaError, match=match):
        schema.check(made)


def test_check_lists_everything_at_once() -> None:
    made = memory_document()
    made["created"], made["results"]["ratio"] = "", -1
    with pytest.raises(SchemaError, match=r"created.*ratio"):
        schema.check(made)


def test_timing_percentiles_must_ascend() -> None:
    assert schema.timing("t", TIMING) == []
    assert "ascend" in schema.timing("t", {**TIMING, "p99": 1.5})[0]
    assert "ascend" in schema.timing("t", {**TIMING, "p50": -1.0})[0]
    assert schema.timing("t", {**TIMING, "p50": "1"}) != []


@pytest.mark.parametrize("text", ["{", '{"benchmark": NaN}', "[]", "null"])
def test_loads_refuses_what_is_not_strict_json(text: str) -> None:
    with pytest.raises(SchemaError):
        schema.loads(text)


def test_write_result_refuses_a_bad_document_and_leaves_nothing(tmp_path: Path) -> None:
    made = memory_document()
    made["results"]["ratio"] = None
    with pytest.raises(SchemaError):
        common.write_result(tmp_path / "out.json", made)
    assert list(tmp_path.iterdir()) == []


def test_main_bad_file_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "good.json").write_text(json.dumps(memory_document()))
    names = [str(tmp_path / n) for n in ("bad.json", "good.json", "none.json")]
    assert schema.main(names) == 1
    said = capsys.readouterr()
    assert "good.json: good" in said.out
    assert "bad.json" in said.err
    assert "none.json" in said.err


def test_committed_results_are_good() -> None:
    for path in sorted((common.CHECKOUT / "benchmarks" / "results").glob("*.json")):
        schema.loads(path.read_text(encoding="utf-8"))
