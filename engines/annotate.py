"""Put figures that were measured after the export into a bundle's manifest.

    python -m engines.annotate --bundle BUNDLE --evaluation report.json
    python -m engines.annotate --bundle BUNDLE --table "Held-out people, with ground truth=eval.txt"

``--table`` puts what a command printed into the model card: in place of the first fenced block
under a heading. The graphs and presets are verified before and hashed again after; nothing else
changes.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines import bundle as bundles
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.model import load_bundle


def annotate(
    bundle: Path,
    *,
    validation: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    model_card: Path | None = None,
    tables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Change what a manifest says about a model.

    Args:
        bundle: The bundle's folder.
        validation: Reports by name, added to what is there.
        data: What it was trained on, in place of what is there.
        model_card: A Markdown file, copied to MODEL_CARD.md.
        tables: Text by heading of the model card; see :func:`with_table`.

    Returns:
        The new manifest.

    Raises:
        ModelFileError: If the bundle is not valid as it is.
        ConfigError: If the model card cannot be read or has no such heading.
    """
    old = load_bundle(bundle).manifest
    changes: dict[str, Any] = {"validation": old["validation"] | (validation or {})}
    if data is not None:
        changes["data"] = data
    with bundles.staged(bundle) as stage:
        if model_card is not None:
            try:
                shutil.copyfile(model_card, stage / "MODEL_CARD.md")
            except OSError as exc:
                raise ConfigError(f"{model_card}: cannot be copied ({exc.strerror})") from exc
        card = stage / "MODEL_CARD.md"
        for heading, table in (tables or {}).items():
            if not card.is_file():
                raise ConfigError(f"{bundle}: has no model card to put tables into")
            card.write_text(
                with_table(card.read_text(encoding="utf-8"), heading, table), encoding="utf-8"
            )
        return bundles.write_manifest(stage, **changes)


def with_table(card: str, heading: str, table: str) -> str:
    """A model card with another table.

    Args:
        card: Markdown.
        heading: Of the section, without the number signs.
        table: What stands in the section's first fenced block from now on.

    Raises:
        ConfigError: If there is no such section or it has no fenced block.
    """
    lines = card.split("\n")
    starts = [i for i, line in enumerate(lines) if line.lstrip("#").strip() == heading]
    starts = [i for i in starts if lines[i].startswith("#")]
    if len(starts) != 1:
        known = ", ".join(line.lstrip("#").strip() for line in lines if line.startswith("#"))
        raise ConfigError(f"--table: the model card has no one heading {heading!r}; it has {known}")
    fences: list[int] = []
    for i in range(starts[0] + 1, len(lines)):
        if lines[i].startswith("#") and len(fences) % 2 == 0:
            break
        if lines[i].startswith("```"):
            fences.append(i)
    if len(fences) < 2:
        raise ConfigError(f"--table: the section {heading!r} has no fenced block to replace")
    body = [line.rstrip() for line in table.strip("\n").split("\n")]
    return "\n".join([*lines[: fences[0] + 1], *body, *lines[fences[1] :]])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 done, 2 wrong options."""
    parser = argparse.ArgumentParser(prog="python -m engines.annotate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    option = parser.add_argument
    option("--bundle", type=Path, required=True, metavar="DIR")
    option("--evaluation", type=Path, metavar="JSON", help="held-out figures, training.evaluate")
    option("--real", type=Path, metavar="JSON", help="training.evaluate --real")
    option("--gains", type=Path, metavar="JSON", help="training.evaluate_gains")
    option("--data", type=Path, metavar="JSON", help="what it was trained on")
    option("--model-card", type=Path, metavar="MD")
    option(
        "--table",
        action="append",
        default=[],
        metavar="HEADING=FILE",
        help="text for the fenced block under a heading of the model card; repeatable",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        reports = {"evaluation": args.evaluation, "real": args.real, "gains": args.gains}
        validation = {k: bundles.read_json_object(p) for k, p in reports.items() if p is not None}
        data = None if args.data is None else bundles.read_json_object(args.data)
        tables = dict(_read_table(item) for item in args.table)
        annotate(
            args.bundle,
            validation=validation,
            data=data,
            model_card=args.model_card,
            tables=tables,
        )
    except RtSwapError as exc:
        print(f"annotate: {exc}", file=sys.stderr)
        return 2
    return 0


def _read_table(item: str) -> tuple[str, str]:
    heading, _, path = item.rpartition("=")
    if not heading:
        raise ConfigError(f"--table takes HEADING=FILE, got {item!r}")
    try:
        return heading, Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--table {path}: cannot be read ({exc})") from exc


if __name__ == "__main__":
    sys.exit(main())
