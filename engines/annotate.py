"""Put figures that were measured after the export into a bundle's manifest.

    python -m engines.annotate --bundle BUNDLE --evaluation report.json

The graphs and presets are verified before and hashed again after; nothing else changes.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
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
) -> dict[str, Any]:
    """Change what a manifest says about a model.

    Args:
        bundle: The bundle's folder.
        validation: Reports by name, added to what is there.
        data: What it was trained on, in place of what is there.
        model_card: A Markdown file, copied to MODEL_CARD.md.

    Returns:
        The new manifest.

    Raises:
        ModelFileError: If the bundle is not valid as it is.
        ConfigError: If the model card cannot be read.
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
        return bundles.write_manifest(stage, **changes)


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
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        reports = {"evaluation": args.evaluation, "real": args.real, "gains": args.gains}
        validation = {k: bundles.read_json_object(p) for k, p in reports.items() if p is not None}
        data = None if args.data is None else bundles.read_json_object(args.data)
        annotate(args.bundle, validation=validation, data=data, model_card=args.model_card)
    except RtSwapError as exc:
        print(f"annotate: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
