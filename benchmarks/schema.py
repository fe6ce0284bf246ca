"""What a benchmark's JSON must look like, checked before it is written and whenever one is read.

Strict JSON (RFC 8259): no NaN, no infinity. Every document has::

    {"schema": 1, "benchmark": NAME, "created": "2025-01-31T12:00:00Z", "metadata": {...},
    "parameters": {...},
     "results": {...}, "bounds": [{"name", "value", "limit", "met"}, ...], "passed": bool}

``passed`` is true exactly when every bound is met. ``results`` depends on the benchmark, see
RESULTS.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

SCHEMA_VERSION: Final = 1

Check = Callable[[str, Any], list[str]]
"""(where, value) -> what is wrong with it."""


class SchemaError(ValueError):
    """A benchmark document is not what it must be; the message lists everything."""


def text(where: str, value: Any) -> list[str]:
    """A string that says something."""
    return [] if isinstance(value, str) and value else [f"{where} must be a non-empty string"]


def flag(where: str, value: Any) -> list[str]:
    """True or false."""
    return [] if isinstance(value, bool) else [f"{where} must be true or false"]


def number(where: str, value: Any) -> list[str]:
    """A finite number, not a bool."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return [] if good else [f"{where} must be a finite number, got {value!r}"]


def positive(where: str, value: Any) -> list[str]:
    """A finite number above 0."""
    return number(where, value) or ([] if value > 0 else [f"{where} must be above 0, got {value}"])


def count(where: str, value: Any) -> list[str]:
    """A whole number of at least 1."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return [] if good else [f"{where} must be a whole number of 1 or more, got {value!r}"]


def anything(where: str, value: Any) -> list[str]:
    """Any JSON value."""
    return []


def optional(check: Check) -> Check:
    """The same, or null."""
    return lambda where, value: [] if value is None else check(where, value)


def each(check: Check) -> Check:
    """An object of any names, or a list, of at least one entry, each checked."""

    def check_each(where: str, value: Any) -> list[str]:
        if isinstance(value, Mapping) and value:
            return [w for k, v in value.items() for w in check(f"{where}.{k}", v)]
        if isinstance(value, list) and value:
            return [w for k, v in enumerate(value) for w in check(f"{where}[{k}]", v)]
        return [f"{where} must have entries"]

    return check_each


def record(**fields: Check) -> Check:
    """An object with exactly these names."""

    def check_record(where: str, value: Any) -> list[str]:
        if not isinstance(value, Mapping):
            return [f"{where} must be an object, got {type(value).__name__}"]
        wrong = [f"{where}.{name} is missing" for name in fields if name not in value]
        wrong += [f"{where}.{name} is unknown" for name in value if name not in fields]
        for name, check in fields.items():
            if name in value:
                wrong += check(f"{where}.{name}", value[name])
        return wrong

    return check_record


_TIMING_FIELDS: Final = record(
    count=count,
    mean=number,
    p50=number,
    p95=number,
    p99=number,
    max=number,
    iqr=number,
)


def timing(where: str, value: Any) -> list[str]:
    """Percentiles in milliseconds as benchmarks.common.timing_summary gives them, in order."""
    wrong = _TIMING_FIELDS(where, value)
    if not wrong:
        ordered = [0.0, value["p50"], value["p95"], value["p99"], value["max"]]
        if any(a > b for a, b in pairwise(ordered)):
            wrong.append(f"{where}: p50, p95, p99 and max must ascend")
    return wrong


_METADATA: Final = record(
    commit=optional(text),
    dirty=optional(flag),
    cpu=text,
    cores_used=count,
    cores_present=count,
    memory_mib=optional(positive),
    load_before=optional(number),
    system=text,
    python=text,
    packages=each(optional(text)),
    model=record(name=text, encoder_sha256=text, generator_sha256=text, steps=number),
    backend=text,
)

_BOUNDS: Final = each(record(name=text, value=number, limit=number, met=flag))

RESULTS: Final[dict[str, Check]] = {
    "pipeline": record(
        frames=count,
        swapped=count,
        first_frame_ms=positive,
        capture_to_emit_ms=timing,
        stage_ms=each(timing),
        fps_back_to_back=positive,
        face_px=positive,
        crop_and_compose=record(
            samples=count,
            rt_swap_ms=timing,
            rt_swap_crop_ms=timing,
            rt_swap_compose_ms=timing,
            opencv_numpy_ms=timing,
            opencv_numpy_crop_ms=timing,
            opencv_numpy_compose_ms=timing,
            times_faster=positive,
            mean_difference=number,
            largest_difference=number,
        ),
    ),
    "memory": record(
        runs=each(
            record(
                frames=count,
                frames_out=count,
                peak_mib=positive,
                seconds=positive,
                curve_mib=each(positive),
            )
        ),
        ratio=positive,
    ),
    "live": record(
        seconds=positive,
        received=count,
        emitted=count,
        statuses=each(number),
        dropped=number,
        drops_percent=number,
        expression_changes=number,
        age_at_emit_ms=timing,
        stage_ms=each(timing),
        memory_growth_mib=number,
        memory_curve_mib=each(number),
        camera_losses=number,
    ),
}
"""Benchmarks and what their results hold."""


def check(document: Any) -> None:
    """Check a document.

    Args:
        document: As json.loads gives it.

    Raises:
        SchemaError: Listing everything that is wrong.
    """
    name = document.get("benchmark") if isinstance(document, Mapping) else None
    if name not in RESULTS:
        raise SchemaError(f"benchmark must be one of {', '.join(RESULTS)}, got {name!r}")
    wrong = record(
        schema=count,
        benchmark=text,
        created=text,
        metadata=_METADATA,
        parameters=record_of_anything,
        results=RESULTS[name],
        bounds=_BOUNDS,
        passed=flag,
    )("document", document)
    if not wrong and document["schema"] != SCHEMA_VERSION:
        wrong.append(f"schema is {document['schema']}, this is version {SCHEMA_VERSION}")
    if not wrong and document["passed"] != all(b["met"] for b in document["bounds"]):
        wrong.append("passed does not say what the bounds say")
    if wrong:
        raise SchemaError("; ".join(wrong))


def record_of_anything(where: str, value: Any) -> list[str]:
    """An object of any names."""
    return [] if isinstance(value, Mapping) else [f"{where} must be an object"]


def loads(source: str) -> Any:
    """Parse strict JSON and check it.

    Raises:
        SchemaError: If it is no JSON, has NaN or infinities, or is not what it must be.
    """

    def refuse(constant: str) -> None:
        raise SchemaError(f"{constant} is not JSON")

    try:
        document = json.loads(source, parse_constant=refuse)
    except json.JSONDecodeError as exc:
        raise SchemaError(f"not JSON: {exc}") from exc
    check(document)
    return document


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m benchmarks.schema FILE...``: check result files."""
    import sys

    failed = 0
    for name in argv if argv is not None else sys.argv[1:]:
        try:
            loads(Path(name).read_text(encoding="utf-8"))
        except (SchemaError, OSError) as exc:
            failed += 1
            print(f"{name}: {exc}", file=sys.stderr)
        else:
            print(f"{name}: good")
    return 1 if failed else 0


if __name__ == "__main__":
    import sys

    sys.exit(main())
