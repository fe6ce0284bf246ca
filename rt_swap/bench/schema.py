"""What a result of ``rt-swap bench`` must look like: ``result.schema.json`` beside this file.

The runtime has no JSON Schema library, so the few keywords that the file uses are checked here. A
keyword that is not known is an error, so that none is passed over in silence; the tests hold this
against the ``jsonschema`` package.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rt_swap.errors import ConfigError

SCHEMA_PATH: Final = Path(__file__).with_name("result.schema.json")
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_SILENT: Final = frozenset({"$schema", "$id", "$defs", "title"})
_MANY: Final = 8


@functools.cache
def schema() -> dict[str, Any]:
    """The schema, as JSON objects; not to be changed."""
    read: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return read


def problems(document: object, rule: Mapping[str, Any] | None = None) -> list[str]:
    """Everything that is wrong with a document.

    Args:
        document: As json.loads gives it.
        rule: The schema; None takes the result's.

    Raises:
        KeyError: If the schema uses a keyword that is not known here.
    """
    whole = schema() if rule is None else rule
    return list(_check("result", document, whole, whole))


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file and check it.

    Raises:
        ConfigError: If it cannot be read, is no strict JSON, or is not what it must be.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path}: not a result of rt-swap bench: {exc}") from exc
    wrong = problems(document)
    if wrong:
        more = f"; and {len(wrong) - _MANY} more" if len(wrong) > _MANY else ""
        raise ConfigError(
            f"{path}: not a result of this rt-swap bench: {'; '.join(wrong[:_MANY])}{more};"
            " measure again with --json"
        )
    return dict(document)


def _check(
    where: str, value: Any, rule: Mapping[str, Any], whole: Mapping[str, Any]
) -> Iterator[str]:
    if "$ref" in rule:
        name = rule["$ref"].removeprefix("#/$defs/")
        yield from _check(where, value, whole["$defs"][name], whole)
        return
    if not _is_of(value, rule.get("type")):
        yield f"{where} must be {_named(rule['type'])}, got {type(value).__name__}"
        return
    for keyword, wanted in rule.items():
        if keyword in _SILENT or keyword == "type":
            continue
        yield from _KEYWORDS[keyword](where, value, wanted, rule, whole)


def _is_of(value: Any, kinds: str | list[str] | None) -> bool:
    if kinds is None:
        return True
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if isinstance(value, bool) and kind != "boolean":
            continue
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if isinstance(value, _TYPES[kind]):
            return True
        if kind == "integer" and isinstance(value, float) and value.is_integer():
            return True
    return False


def _named(kinds: str | list[str]) -> str:
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def _properties(
    where: str, value: Any, wanted: Any, rule: Mapping[str, Any], whole: Mapping[str, Any]
) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in wanted.items():
            if name in value:
                yield from _check(f"{where}.{name}", value[name], each, whole)


def _additional(
    where: str, value: Any, wanted: Any, rule: Mapping[str, Any], whole: Mapping[str, Any]
) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    for name in value:
        if name in rule.get("properties", {}):
            continue
        if wanted is False:
            yield f"{where}.{name} is unknown"
        else:
            yield from _check(f"{where}.{name}", value[name], wanted, whole)


def _required(
    where: str, value: Any, wanted: Any, rule: Mapping[str, Any], whole: Mapping[str, Any]
) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{where}.{name} is missing" for name in wanted if name not in value)


def _items(
    where: str, value: Any, wanted: Any, rule: Mapping[str, Any], whole: Mapping[str, Any]
) -> Iterator[str]:
    if isinstance(value, list):
        for place, each in enumerate(value):
            yield from _check(f"{where}[{place}]", each, wanted, whole)


def _one_of(
    where: str, value: Any, wanted: Any, rule: Mapping[str, Any], whole: Mapping[str, Any]
) -> Iterator[str]:
    tried = [list(_check(where, value, each, whole)) for each in wanted]
    if sum(not wrong for wrong in tried) != 1:
        yield from max(tried, key=len)


def _plain(test: Any, text: str) -> Any:
    def check(
        where: str, value: Any, wanted: Any, rule: Mapping[str, Any], whole: Mapping[str, Any]
    ) -> Iterator[str]:
        if value is not None and not test(value, wanted):
            yield f"{where} must {text} {wanted!r}, got {value!r}"

    return check


_KEYWORDS: Final[dict[str, Any]] = {
    "properties": _properties,
    "additionalProperties": _additional,
    "required": _required,
    "items": _items,
    "oneOf": _one_of,
    "const": _plain(lambda v, w: v == w, "be"),
    "pattern": _plain(lambda v, w: re.search(w, v) is not None, "match"),
    "minimum": _plain(lambda v, w: v >= w, "be at least"),
    "exclusiveMinimum": _plain(lambda v, w: v > w, "be above"),
    "minLength": _plain(lambda v, w: len(v) >= w, "have a length of at least"),
    "minItems": _plain(lambda v, w: len(v) >= w, "have at least"),
    "maxItems": _plain(lambda v, w: len(v) <= w, "have at most"),
}
