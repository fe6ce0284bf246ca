"""Old against new: slower is found, noise is not, and unlike runs are refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from rt_swap.bench import table
from rt_swap.bench.compare import compare
from rt_swap.bench.html import page
from rt_swap.errors import ConfigError


@pytest.fixture
def long_run(document: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The document with a thousand frames."""
    long = copy.deepcopy(document)
    for values in long["samples_ms"].values():
        values[:] = (10 + rng.gamma(2.0, 0.2, 1000)).tolist()
    return long


def test_compare_with_itself_is_the_same(long_run: dict[str, Any]) -> None:
    got = compare(long_run, copy.deepcopy(long_run))
    assert got.slower == []
    assert got.differs == ()
    assert got.same_machine
    assert {c.verdict for name, _, c in got.changes if name != "live age"} == {"same"}


def test_compare_finds_the_stage_that_got_slower(long_run: dict[str, Any]) -> None:
    new = copy.deepcopy(long_run)
    new["samples_ms"]["generate"] = [1.2 * v for v in new["samples_ms"]["generate"]]
    new["about"]["packages"]["onnxruntime"] = "9.9"
    got = compare(long_run, new)
    assert got.slower == ["generate p50", "generate p99"]
    assert any(text.startswith("onnxruntime: ") for text in got.differs)
    assert got.same_machine
    lines = "\n".join(table.lines_of_comparison(got))
    assert "slower beyond the noise: generate p50, generate p99" in lines
    assert '<span class="slower">slower</span>' in page(new, got)
    assert got.as_json()["slower"] == got.slower


def test_compare_on_another_machine_says_so(long_run: dict[str, Any]) -> None:
    new = copy.deepcopy(long_run)
    new["about"]["cpu"] = "Another Processor"
    got = compare(long_run, new)
    assert not got.same_machine
    assert "machines differ" in "\n".join(table.lines_of_comparison(got))
    assert "machines differ" in page(new, got)


@pytest.mark.parametrize(
    ("name", "value"), [("size_wh", [640, 480]), ("shown", "another clip"), ("threads", 2)]
)
def test_compare_refuses_unlike_runs(long_run: dict[str, Any], name: str, value: object) -> None:
    new = copy.deepcopy(long_run)
    new["parameters"][name] = value
    with pytest.raises(ConfigError, match=f"measured different things: {name} was"):
        compare(long_run, new)


def test_compare_stage_that_is_gone_is_told(long_run: dict[str, Any]) -> None:
    new = copy.deepcopy(long_run)
    del new["samples_ms"]["crop"]
    assert "stage crop is gone" in compare(long_run, new).differs
