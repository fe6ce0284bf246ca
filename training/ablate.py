"""What each part buys: every variant trained alike and scored alike, in one table.

    python -m training.ablate --shards DIR --val-shards DIR --test-shards DIR --out DIR --minutes 10

A variant of :data:`VARIANTS` switches one published term off, or is another scheme (eft,
ganimation). All get the same shards, seed, minutes and threads. With ``--init-from`` they start
from one trained encoder and a fresh generator each, so that a short budget says something about
what they differ in. Each is scored on the test people (training.evaluate), and fresh classifiers
say how much of the AUs its AU-free feature and its tokens still tell (training.leakage).

What is finished is not done again, so the command can be stopped and repeated. The budget is
minutes of the machine: run nothing beside it.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rt_swap.errors import ConfigError, RtSwapError
from training import evaluate, leakage
from training.checkpoint import latest_checkpoint, read_config, read_state
from training.train import main as train_main

_log = logging.getLogger(__name__)


def _off(*terms: str) -> dict[str, str]:
    return {f"losses.{term}": "0.0" for term in terms}


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        says: What it leaves out or is.
        config: Named configuration that it starts from.
        changes: Options by dotted name, as ``training.train --set`` takes them.
    """

    says: str
    config: str = "rt-small"
    changes: Mapping[str, str] = field(default_factory=dict)


VARIANTS: Final[dict[str, Variant]] = {
    "rt": Variant("all terms"),
    "rt_without_multi_class_adversary": Variant(
        "f_f may tell the AUs", changes=_off("au_adversary")
    ),
    "rt_without_swap_consistency": Variant("no critic on swaps", changes=_off("swap_consistency")),
    "rt_without_cross_cycle": Variant("no swap back", changes=_off("cross_cycle")),
    "rt_without_self_reconstruction": Variant(
        "no own expression", changes=_off("self_reconstruction")
    ),
    "rt_without_image_adversary": Variant("no critic on pictures", changes=_off("image_adversary")),
    "rt_without_features_again": Variant(
        "swaps' features not compared", changes=_off("feature_related", "feature_free")
    ),
    "rt_without_donor_labels": Variant("swaps' AUs not scored", changes=_off("donor_labels")),
    "rt_without_au_detection": Variant(
        "no labels on tokens' heads", changes=_off("au_bce", "au_dice", "au_l1")
    ),
    "rt_without_ground_truth": Variant(
        "published terms alone",
        changes=_off(
            "image", "image_detail", "flow", "flow_multiscale", "unit_fields", "keep", "shade",
            "fill", "fill_detail", "mouth",
        ),
    ),
    "rt_without_mesh": Variant(
        "no mesh: motion drawn from the picture alone",
        changes={"network.mesh_features": "0", "network.fold_depth": "0"},
    ),
    "eft": Variant("the published scheme: synthesis", config="eft"),
    "ganimation": Variant("masks by an AU vector", config="ganimation"),
}  # fmt: skip
"""By name; "rt" is what the others are compared with."""
COMMON: Final = {
    # the costly published terms come early: a short budget has no time for a long start without
    "losses.cycle_from": "0.5",
    "losses.adversarial_from": "0.5",
    "phases": json.dumps(
        [
            {"size_px": 128, "quadruples": 6, "until": 0.5, "encoder_only": False},
            {"size_px": 256, "quadruples": 3, "until": 1.0, "encoder_only": False},
        ]
    ),
}
"""Options that every variant is trained with."""


@dataclass(frozen=True)
class Budget:
    """What every variant gets.

    Attributes:
        minutes: Of training.
        threads: Of torch.
        seed: Of everything.
        init_from: Checkpoint whose encoder all start with, or None; mouths wear its denture.
        denture: File of training.data.denture, where it has none.
        face_mesh: File of training.data.face_mesh; a fresh generator takes no other's.
    """

    minutes: float
    threads: int
    seed: int
    init_from: Path | None
    denture: Path | None = None
    face_mesh: Path | None = None


def train_arguments(
    variant: Variant, budget: Budget, shards: Path, val_shards: Path, out: Path
) -> list[str]:
    """The command line of ``training.train`` for a variant; goes on with what is there already."""
    words = ["--config", variant.config, "--shards", str(shards), "--val-shards", str(val_shards)]
    words += ["--out", str(out), "--time-budget-min", str(budget.minutes)]
    words += ["--threads", str(budget.threads), "--seed", str(budget.seed)]
    for option, text in (COMMON | dict(variant.changes)).items():
        words += ["--set", f"{option}={text}"]
    if budget.denture is not None and variant.config.startswith("rt"):
        words += ["--denture", str(budget.denture)]
    if (
        budget.face_mesh is not None
        and variant.config.startswith("rt")
        and variant.changes.get("network.mesh_features") != "0"
    ):
        words += ["--face-mesh", str(budget.face_mesh)]
    if latest_checkpoint(out / "checkpoints") is not None:
        words.append("--resume")
    elif budget.init_from is not None:
        words += ["--init-from", str(budget.init_from), "--init-parts", "encoder", "label_tokens"]
    return words


def run_variant(
    name: str, budget: Budget, shards: Path, val_shards: Path, test_shards: Path, out: Path,
    limit: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Train, score, and read what leaks.

    Returns:
        One row of the table, as JSON-ready numbers.

    Raises:
        ConfigError: If a step fails; what it said is on stderr.
    """
    folder = out / name
    done = folder / "row.json"
    if done.is_file():
        row: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if row["budget"] != _said(budget):
            raise ConfigError(
                f"{done} was made with another budget, {row['budget']}; use another --out"
            )
        return row
    variant = VARIANTS[name]
    _step("train", train_main, train_arguments(variant, budget, shards, val_shards, folder))
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if checkpoint is None or read_state(checkpoint).elapsed_s < 60 * budget.minutes * 0.99:
        raise ConfigError(f"{name}: stopped before its time was up; repeat the command to go on")
    few = [] if limit is None else ["--limit", str(limit)]
    scored, read = folder / "evaluation.json", folder / "leakage.json"
    words = ["--checkpoint", str(checkpoint), "--val-shards", str(test_shards), *few]
    _step("evaluate", evaluate.main, [*words, "--json", str(scored)])
    if read_config(checkpoint).network.scheme != "ganimation":  # it has no AU-free feature
        words = ["--checkpoint", str(checkpoint), "--shards", str(shards), "--limit", "300"]
        words += ["--val-shards", str(test_shards), "--json", str(read)]
        _step("leakage", leakage.main, words)
    row = {
        "says": variant.says,
        "budget": _said(budget),
        "steps": read_state(checkpoint).step,
        **row_of(
            json.loads(scored.read_text(encoding="utf-8")),
            json.loads(read.read_text(encoding="utf-8")) if read.is_file() else None,
        ),
    }
    evaluate.write_json(done, row)
    return row


def _said(budget: Budget) -> dict[str, Any]:
    return {
        "minutes": budget.minutes,
        "threads": budget.threads,
        "seed": budget.seed,
        "encoder_given": budget.init_from is not None,
        "face_mesh": None if budget.face_mesh is None else budget.face_mesh.name,
    }


def _step(name: str, main: Callable[[Sequence[str]], int], words: list[str]) -> None:
    if main(words):
        raise ConfigError(f"{name} failed: python -m training.{name} {' '.join(words)}")


def row_of(report: Mapping[str, Any], leaks: Mapping[str, Any] | None) -> dict[str, Any]:
    """A variant's figures.

    Args:
        report: Of training.evaluate.
        leaks: Of training.leakage, where there is one.
    """
    model, plain = report["rows"][evaluate.MODEL], report["rows"][evaluate.UNCHANGED]
    keys = ("image", "flow_px", "ssim", "mouth_interior", "eyes", "hole_iou")
    return {
        **{key: model[key] for key in keys},
        "image_reduction": model["image_reduction"],
        "unchanged_image": plain["image"],
        "au_mae": report["aus"]["overall"]["output_mae"],
        "au_free_auc": None if leaks is None else leaks["mean"]["au_free"],
        "tokens_auc": None if leaks is None else leaks["mean"]["tokens"],
    }


COLUMNS: Final = {
    "image": "image", "image_reduction": "less", "flow_px": "flow px", "ssim": "SSIM",
    "mouth_interior": "mouth", "eyes": "eyes", "au_mae": "AU error", "au_free_auc": "f_f tells",
    "tokens_auc": "tokens", "steps": "steps",
}  # fmt: skip


def text(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table for people; "f_f tells" and "tokens" are areas under ROC, 0.5 is guessing."""
    width = max(map(len, rows)) + 2
    lines = [" " * width + "".join(f"{title:>11}" for title in COLUMNS.values()) + "   what it is"]
    for name, row in rows.items():
        cells = []
        for key in COLUMNS:
            value = row[key]
            if value is None or math.isnan(value):
                cells.append("-")
            else:
                cells.append(str(value) if key == "steps" else f"{value:.4f}")
        lines.append(f"{name:{width}}" + "".join(f"{c:>11}" for c in cells) + f"   {row['says']}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for wrong options or a failed step."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, what in (
        ("--shards", "training people"),
        ("--val-shards", "people for the runs' own logs"),
        ("--test-shards", "people to score on"),
        ("--out", "a folder per variant, and table.json"),
    ):
        parser.add_argument(option, type=Path, required=True, metavar="DIR", help=what)
    parser.add_argument("--minutes", type=float, required=True, help="of training, each")
    parser.add_argument("--init-from", type=Path, metavar="DIR", help="its encoder is the start")
    parser.add_argument(
        "--denture", type=Path, metavar="FILE", help="for mouths, where --init-from has none"
    )
    parser.add_argument(
        "--face-mesh",
        type=Path,
        metavar="FILE",
        help="for motion; needed by configurations with a mesh",
    )
    parser.add_argument(
        "--only", nargs="+", default=list(VARIANTS), choices=tuple(VARIANTS), metavar="NAME",
        help=f"of {', '.join(VARIANTS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="quadruples to score on (all)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if args.minutes <= 0 or args.threads < 1 or (args.limit is not None and args.limit < 1):
            raise ConfigError("--minutes must be positive, --threads and --limit 1 or more")
        budget = Budget(
            args.minutes, args.threads, args.seed, args.init_from, args.denture, args.face_mesh
        )
        rows = {}
        for name in args.only:
            _log.info("%s: %s", name, VARIANTS[name].says)
            rows[name] = run_variant(
                name, budget, args.shards, args.val_shards, args.test_shards, args.out, args.limit
            )
        evaluate.write_json(args.out / "table.json", {"budget": _said(budget), "rows": rows})
    except RtSwapError as exc:
        print(f"ablate: {exc}", file=sys.stderr)
        return 2
    print(text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
