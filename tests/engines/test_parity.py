"""Parity: errors are measured right, and nothing that was not compared ever counts as agreeing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from engines import parity
from rt_swap.contract import ENCODER_SPEC, GENERATOR_SPEC, GRAPHS, GraphSpec
from rt_swap.errors import ConfigError
from rt_swap.frames import F32
from tests.support.data import shared_data_dir


class Answer:
    """Answers every output with a function of its name and of the first input."""

    def __init__(self, spec: GraphSpec, change: Mapping[str, float] | None = None) -> None:
        self.spec = spec
        self.change = change or {}
        self.buffers = {t.name: np.zeros(t.shape, np.float32) for t in spec.outputs}

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        level = next(iter(inputs.values())).mean()
        for name, array in self.buffers.items():
            array.fill(level)
            array.ravel()[0] += np.float32(self.change.get(name, 0.0))
        return self.buffers


def compare(change: Mapping[str, float]) -> dict[str, dict[str, object]]:
    cases = parity.encoder_cases(parity.structured_pictures())
    return parity.compare(ENCODER_SPEC, Answer(ENCODER_SPEC), Answer(ENCODER_SPEC, change), cases)


def test_equal_answers_agree() -> None:
    for output in compare({}).values():
        assert output["ok"]
        assert (output["max"], output["mean"], output["psnr_db"]) == (0, 0, None)


def test_one_number_that_is_off_is_found() -> None:
    found = compare({"aus_lr": 0.5})
    assert found["tokens"]["ok"]
    assert not found["aus_lr"]["ok"]
    assert found["aus_lr"]["max"] == pytest.approx(0.5)
    assert found["aus_lr"]["mean"] == pytest.approx(0.5 / 54, rel=1e-4)
    # one of 54 numbers: mean square 0.25 / 54 against a peak of 1 (the white picture)
    assert found["aus_lr"]["psnr_db"] == pytest.approx(10 * np.log10(54 / 0.25), abs=1e-3)


@pytest.mark.parametrize(("error", "ok"), [(1.9e-3, True), (2.1e-3, False)])
def test_tolerance_is_the_contract_s(error: float, ok: bool) -> None:
    assert compare({"tokens": error})["tokens"]["ok"] is ok


def test_what_is_not_finite_is_never_right() -> None:
    for value in (np.nan, np.inf):
        found = compare({"tokens": value})["tokens"]
        assert not found["ok"]
        assert found["max"] is None
        json.dumps(found, allow_nan=False)


def full_report(
    candidate_change: Mapping[str, float], pictures: list[F32] | None = None
) -> dict[str, object]:
    return parity.compare_bundle(
        {n: Answer(s) for n, s in GRAPHS.items()},
        {n: Answer(s, candidate_change) for n, s in GRAPHS.items()},
        parity.structured_pictures() if pictures is None else pictures,
        reference_name="a",
        candidate_name="b",
        inputs="structured inputs",
    )


def test_report_covers_every_output_of_the_contract() -> None:
    report = full_report({})
    assert report["ok"]
    assert {g: set(o) for g, o in report["graphs"].items()} == {  # type: ignore[attr-defined]
        g: {t.name for t in spec.outputs} for g, spec in GRAPHS.items()
    }
    assert report["cases"] == {ENCODER_SPEC.name: 8, GENERATOR_SPEC.name: 8}
    text = parity.table(report)
    assert "target_generator.flow_xy" in text
    assert "TOO FAR" not in text


def test_report_with_one_bad_output_is_bad() -> None:
    report = full_report({"shade": 0.1})
    assert not report["ok"]
    assert sum("TOO FAR" in line for line in parity.table(report).splitlines()) == 1


def test_comparing_nothing_is_a_failure() -> None:
    report = full_report({}, pictures=[])
    assert not report["ok"]
    assert "NOT COMPARED: expression_encoder.tokens" in parity.table(report)
    assert not parity.report("a", "b", {}, {}, "x")["ok"]
    part = parity.compare(
        ENCODER_SPEC, Answer(ENCODER_SPEC), Answer(ENCODER_SPEC),
        parity.encoder_cases(parity.structured_pictures()),
    )  # fmt: skip
    del part["aus_lr"]
    report = parity.report("a", "b", {ENCODER_SPEC.name: part}, {}, "x")
    assert not report["ok"]
    assert "expression_encoder.aus_lr" in report["not_compared"]
    assert "expression_encoder.tokens" not in report["not_compared"]
    assert "target_generator.flow_xy" in report["not_compared"]


def test_structured_pictures_reach_the_extremes_and_repeat_by_seed() -> None:
    pictures = parity.structured_pictures(3)
    assert all(p.shape == (1, 3, 256, 256) and p.dtype == np.float32 for p in pictures)
    assert all(p.min() >= 0 and p.max() <= 1 for p in pictures)
    assert any(p.max() == 0 for p in pictures)
    assert any(p.min() == 1 for p in pictures)
    for again, picture in zip(parity.structured_pictures(3), pictures, strict=True):
        np.testing.assert_array_equal(again, picture)
    assert not np.array_equal(parity.structured_pictures(4)[-1], pictures[-1])


def test_generator_cases_use_every_way_of_mixing() -> None:
    pictures = parity.structured_pictures()
    tokens = [np.full((1, 27, 16), i, np.float32) for i in range(len(pictures))]
    cases = parity.generator_cases(parity.faces_of_pictures(pictures), tokens)
    for case in cases:
        assert {t.name: case[t.name].shape for t in GENERATOR_SPEC.inputs} == {
            t.name: t.shape for t in GENERATOR_SPEC.inputs
        }
        assert all(array.dtype == np.float32 for array in case.values())
    gains = np.concatenate([c["gains"] for c in cases])
    assert (gains == 0).all(1).any()
    assert (gains == 1).all(1).any()
    assert (gains.sum(1) == 1).any()
    assert gains.max() == 2
    assert {float(c["relative"][0, 0]) for c in cases} == {0.0, 1.0}
    assert cases[0]["source_tokens"].max() == 1  # somebody else's


def test_portrait_crops_are_aligned_faces() -> None:
    folder = shared_data_dir("portraits", "lisa")
    crops = parity.portrait_crops(folder, limit=2)
    assert 1 <= len(crops) <= 2
    assert all(c.shape == (1, 3, 256, 256) and c.dtype == np.float32 for c in crops)
    assert all(c.std() > 0.05 for c in crops)


def test_portraits_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pictures here"):
        parity.portrait_crops(tmp_path)
