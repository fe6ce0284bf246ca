"""The small validator agrees with the ``jsonschema`` package, on good and on damaged results."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rt_swap.bench import schema
from rt_swap.bench.run import as_json
from rt_swap.errors import ConfigError

Damage = Callable[[dict[str, Any]], object]

DAMAGES: dict[str, Damage] = {
    "key missing": lambda d: d.pop("live"),
    "key unknown": lambda d: d.update(extra=1),
    "other format": lambda d: d.update(format="rt-swap bench 2"),
    "text for a number": lambda d: d["main"].update(first_frame_ms="fast"),
    "true for a number": lambda d: d["main"].update(first_frame_ms=True),
    "no frames": lambda d: d["main"].update(frames=0),
    "part of a frame": lambda d: d["main"].update(frames=1.5),
    "negative time": lambda d: d["samples_ms"]["track"].append(-1.0),
    "percentile missing": lambda d: d["main"]["capture_to_emit_ms"].pop("p90"),
    "deep in a rung": lambda d: d["ladder"][0]["stage_ms"]["crop"].update(p50=None),
    "size of three": lambda d: d["parameters"]["size_wh"].append(3),
    "size of one": lambda d: d["parameters"]["size_wh"].pop(),
    "empty text": lambda d: d["parameters"].update(shown=""),
    "no hash": lambda d: d["about"]["model"].update(encoder_sha256="abc"),
    "zero rate": lambda d: d["live"].update(rate=0),
    "age neither": lambda d: d["live"].update(age_ms={"p50": 1}),
    "list for an object": lambda d: d.update(memory=[]),
    "date": lambda d: d.update(created="yesterday"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_seen_by_both(name: str, document: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    bad = copy.deepcopy(document)
    DAMAGES[name](bad)
    theirs = list(jsonschema.Draft202012Validator(schema.schema()).iter_errors(bad))
    assert theirs
    assert schema.problems(bad)


def test_unknown_keyword_is_an_error() -> None:
    with pytest.raises(KeyError):
        schema.problems({}, {"type": "object", "minProperties": 1})


def test_every_object_of_the_schema_is_closed() -> None:
    def visit(rule: Any) -> None:
        if isinstance(rule, dict):
            if "properties" in rule and "type" in rule:
                assert rule.get("additionalProperties") is False, rule
                assert set(rule.get("required", ())) <= set(rule["properties"])
            for each in rule.values():
                visit(each)
        elif isinstance(rule, list):
            for each in rule:
                visit(each)

    visit(schema.schema())


def test_read_result_gives_it_back(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(as_json(document))
    assert schema.read_result(path) == document


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not a result"),
        ('{"format": NaN}', "NaN is not JSON"),
        ("[1]", "must be object"),
        ("{}", "and 7 more; measure again"),
    ],
)
def test_read_result_says_what_is_wrong(text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match):
        schema.read_result(path)


def test_read_result_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        schema.read_result(tmp_path / "none.json")


def test_schema_file_is_package_data() -> None:
    assert json.loads(schema.SCHEMA_PATH.read_text())["$id"] == "urn:rt-swap:bench:1"
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"bench/*.json"' in project
