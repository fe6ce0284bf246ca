"""One table from several evaluations of the same cases.

    python -m training.evaluate --model BUNDLE_A --val-shards DIR --json a.json
    python -m training.evaluate --model BUNDLE_B --val-shards DIR --json b.json
    python -m training.compare rt=a.json eft=b.json [--json table.json] [--plot sizes.png]

Rows: the target left unchanged, the landmark warp all the way and with its best step, and each
named evaluation. In every column the best of them is starred. AU error is of the output against the
answer's labels; each bundle reads with its own encoder, so it says as much of the reader as of the
picture. Identity is the distance of face descriptors from the target's; that of the true answers
stands in a row of its own, for a method should be neither further off nor nearer, which is what
doing nothing is; so nothing is starred there.

--plot draws what is left of the unchanged target's errors over what a frame costs, in 1e9
multiply-adds (GMAC), which reports of bundles know.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rt_swap.errors import ConfigError, RtSwapError
from training.evaluate import MODEL, TRUTH, UNCHANGED, WARP, WARP_BEST, write_json

_OWN_ROWS: Final = (UNCHANGED, WARP, WARP_BEST, TRUTH)


@dataclass(frozen=True)
class Column:
    """One figure.

    Attributes:
        key: In the table's JSON.
        title: For people.
        better: Which way is: "less", "more", or "" where neither is.
    """

    key: str
    title: str
    better: str = "less"


COLUMNS: Final = (
    Column("image", "image"),
    Column("flow_px", "flow px"),
    Column("ssim", "SSIM", better="more"),
    Column("mouth_interior", "mouth"),
    Column("eyes", "eyes"),
    Column("hole_iou", "hole IoU", better="more"),
    Column("spill", "spill"),
    Column("au_mae", "AU error"),
    Column("identity", "identity", better=""),
)


def read_reports(named: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read NAME=FILE arguments.

    Raises:
        ConfigError: If one is no such pair, cannot be read, is no held-out report, or was measured
            on other cases than the first.
    """
    reports: dict[str, dict[str, Any]] = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise ConfigError(f"compare: takes NAME=FILE, got {text!r}")
        if name in reports or name in _OWN_ROWS:
            raise ConfigError(f"compare: {name!r} names a row already; choose another name")
        try:
            report = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigError(f"compare: {path} cannot be read: {exc}") from exc
        if not isinstance(report, dict) or report.get("kind") != "held_out":
            raise ConfigError(
                f"compare: {path} is no report of `python -m training.evaluate --val-shards`"
            )
        reports[name] = report
        try:
            _row(report, MODEL, "output_mae")
            _cases(report)
        except (KeyError, TypeError, AttributeError) as exc:
            raise ConfigError(
                f"compare: {path} lacks figures ({exc}); evaluate again with this version"
            ) from exc
    first_name, first = next(iter(reports.items()))
    for name, report in reports.items():
        if _cases(report) != _cases(first):
            raise ConfigError(
                f"compare: {name} and {first_name} were not measured on the same cases; evaluate "
                "both on the same shards"
            )
    return reports


def _cases(report: Mapping[str, Any]) -> tuple[object, ...]:
    plain = report["rows"][UNCHANGED]
    known = [None if plain[key] is None else round(plain[key], 9) for key in ("image", "flow_px")]
    return (report["cases"], report["people"], *known)


def table(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The rows, each figure by its Column.key; None where it was not measured."""
    first = next(iter(reports.values()))
    rows = {
        UNCHANGED: _row(first, UNCHANGED, "unchanged_mae"),
        WARP: _row(first, WARP, "warp_mae"),
        WARP_BEST: _row(first, WARP_BEST, None),
    }
    true = first.get("identity", {}).get("rows", {}).get(TRUTH)
    if true is not None:
        rows[TRUTH] = {c.key: None for c in COLUMNS} | {"identity": true["distance"]}
    for name, report in reports.items():
        rows[name] = _row(report, MODEL, "output_mae")
    return rows


def _row(report: Mapping[str, Any], row: str, aus: str | None) -> dict[str, float | None]:
    scores = report["rows"][row]
    identity = report.get("identity", {}).get("rows", {}).get(row)
    return {
        **{c.key: scores.get(c.key) for c in COLUMNS},
        "au_mae": report["aus"]["overall"][aus] if aus else None,
        "identity": None if identity is None else identity["distance"],
    }


def best(rows: Mapping[str, Mapping[str, float | None]]) -> dict[str, set[str]]:
    """Names of the best rows of each column. Doing nothing spills nothing and loses nobody, so the
    unchanged target does not compete.
    """
    found: dict[str, set[str]] = {}
    for column in COLUMNS:
        values = {
            name: value
            for name, row in rows.items()
            if name != UNCHANGED and (value := row[column.key]) is not None
        }
        if values and column.better:
            top = (max if column.better == "more" else min)(values.values())
            found[column.key] = {name for name, value in values.items() if value == top}
    return found


def text(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """For people."""
    stars = best(rows)
    width = max(map(len, rows)) + 2
    lines = [" " * width + "".join(f"{c.title:>10}" for c in COLUMNS)]
    for name, row in rows.items():
        cells = []
        for column in COLUMNS:
            value = row[column.key]
            shown = "-" if value is None or math.isnan(value) else f"{value:.4f}"
            cells.append(f"{shown + ('*' if name in stars.get(column.key, ()) else ' '):>10}")
        lines.append(f"{name:{width}}" + "".join(cells))
    return "\n".join(lines)


def sizes(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What each model costs and leaves: "gmac", and "image" and "flow_px" over the unchanged
    target's; cheapest first.

    Raises:
        ConfigError: If a report does not say what its model costs.
    """
    found = {}
    for name, report in reports.items():
        gmac = report.get("model", {}).get("gmac")
        if gmac is None:
            raise ConfigError(
                f"compare: the report of {name} does not say what a frame costs; evaluate its "
                "bundle again with this version (a checkpoint's report never says)"
            )
        scores, plain = report["rows"][MODEL], report["rows"][UNCHANGED]
        if not all(scores[key] is not None and plain[key] for key in ("image", "flow_px")):
            raise ConfigError(f"compare: the report of {name} has no image or flow error to draw")
        left = {key: scores[key] / plain[key] for key in ("image", "flow_px")}
        found[name] = {"gmac": float(gmac), **left}
    return dict(sorted(found.items(), key=lambda item: item[1]["gmac"]))


def plot(found: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw :func:`sizes` into a picture file.

    Raises:
        ConfigError: If it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    gmac = [row["gmac"] for row in found.values()]
    for key, title, mark in (("image", "image", "o-"), ("flow_px", "motion", "s-")):
        axes.plot(gmac, [row[key] for row in found.values()], mark, label=title)
    for name, row in found.items():
        axes.annotate(
            name,
            (row["gmac"], row["image"]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
        )
    worst = max(max(row["image"], row["flow_px"]) for row in found.values())
    axes.set(xlabel="GMAC a frame", ylabel="error left of the unchanged face's")
    axes.set_ylim(0, max(1.0, 1.05 * worst))
    axes.set_xlim(0, max(gmac) * 1.15)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"--plot {path}: cannot be written ({exc})") from exc


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for wrong options or files."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reports", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here too")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw quality against cost, .png or .svg"
    )
    args = parser.parse_args(argv)
    try:
        reports = read_reports(args.reports)
        rows = table(reports)
        if args.plot:
            plot(sizes(reports), args.plot)
        if args.json:
            write_json(args.json, {"rows": rows})
    except RtSwapError as exc:
        print(f"compare: {exc}", file=sys.stderr)
        return 2
    print(text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
