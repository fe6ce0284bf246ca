"""Command line of training: ``python -m training.train --config rt-small --shards DIR --val-shards
DIR --out runs/x``.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rt_swap.errors import ConfigError, RtSwapError
from training.config import CONFIGS, TrainConfig, from_dict, get_config, to_dict, with_overrides


def build_parser() -> argparse.ArgumentParser:
    """The options, grouped."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--shards",
        nargs="+",
        type=Path,
        required=True,
        metavar="DIR",
        help="training shards, or folders that hold shard_*",
    )
    data.add_argument(
        "--val-shards",
        nargs="*",
        type=Path,
        default=[],
        metavar="DIR",
        help="shards of held-out people (default: no validation)",
    )
    data.add_argument(
        "--labelled",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="real pictures with known AUs, folders of python -m training.data.labelled; people "
        "held out by the split rule never train (default: none)",
    )
    data.add_argument(
        "--reading-shards",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="shards for reading_quadruples and for phases that train the encoder alone; "
        "--pictures-only ones will do (default: --shards)",
    )
    data.add_argument(
        "--face-mesh",
        type=Path,
        metavar="FILE",
        help="of python -m training.data.face_mesh, for mesh_features that know no face yet",
    )
    data.add_argument(
        "--denture",
        type=Path,
        metavar="FILE",
        help="of python -m training.data.denture, for mouth_hidden that have no teeth yet",
    )
    data.add_argument("--out", type=Path, required=True, help="run directory")
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--config",
        default="rt-small",
        help=f"{', '.join(CONFIGS)}, or a JSON file as a run writes it (default: %(default)s)",
    )
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="replace one option of the config, such as losses.image=2; repeatable",
    )
    what.add_argument(
        "--init-from",
        type=Path,
        metavar="DIR",
        help="checkpoint whose fitting weights are the start",
    )
    what.add_argument(
        "--init-parts",
        nargs="+",
        default=[],
        choices=("encoder", "generator", "label_tokens"),
        metavar="PART",
        help="take only these from --init-from (default: all that fits): encoder label_tokens "
        "starts another generator on a trained encoder",
    )
    what.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="START",
        help="train only weights whose names start so, such as generator.mouth. (default: all)",
    )
    what.add_argument(
        "--distil-from",
        type=Path,
        metavar="DIR",
        help="checkpoint of a larger network, whose readings the encoder learns, too "
        "(losses.distilled)",
    )
    what.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint in --out"
    )
    how = parser.add_argument_group("how long and on what")
    how.add_argument(
        "--steps", type=int, help="steps of the schedule, >= 1 (default: the config's)"
    )
    how.add_argument(
        "--time-budget-min",
        type=float,
        metavar="MIN",
        help="minutes of the schedule, > 0, in place of steps (default: by steps)",
    )
    how.add_argument(
        "--max-steps", type=int, metavar="N", help="stop at this step, schedule unfinished, >= 1"
    )
    how.add_argument(
        "--seed", type=int, help="seed of weights, order and variation (default: the config's)"
    )
    how.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s"
    )
    how.add_argument(
        "--threads", type=int, default=2, help="CPU threads of torch, >= 1 (default: %(default)s)"
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="check data and options, print the config, train nothing",
    )
    return parser


def resolve(args: argparse.Namespace) -> TrainConfig:
    """The config that the flags ask for.

    Raises:
        ConfigError: If an option is wrong; the message names it.
    """
    for flag in ("steps", "time_budget_min", "max_steps", "threads"):
        value = getattr(args, flag)
        if value is not None and value <= 0:
            raise ConfigError(f"train: --{flag.replace('_', '-')} must be positive, got {value}")
    if args.resume and args.init_from is not None:
        raise ConfigError("train: --resume and --init-from exclude each other; drop one")
    if args.init_parts and args.init_from is None:
        raise ConfigError("train: --init-parts says what to take; give --init-from, too")
    path = Path(args.config)
    if args.config not in CONFIGS and path.suffix == ".json":
        try:
            values: Any = json.loads(path.read_text())
        except (OSError, ValueError) as exc:
            raise ConfigError(f"train: --config {path} cannot be read: {exc}") from exc
        config = from_dict(TrainConfig, values.get("config", values))
    else:
        config = get_config(args.config)
    overrides = {}
    for item in args.set:
        option, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"train: --set takes OPTION=VALUE, got {item!r}")
        overrides[option] = text
    if args.steps is not None:
        overrides["steps"] = str(args.steps)
    if args.seed is not None:
        overrides["seed"] = str(args.seed)
    return with_overrides(config, overrides)


def git_commit() -> str | None:
    """The checkout's commit, with "+" where files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *words], cwd=here, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return (
        None
        if commit is None
        else commit + ("+" if git("status", "--porcelain", "--", ".") else "")
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (0 done or stopped by a signal after saving, 2
    wrong options or data).
    """
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        config = resolve(args)
        newest_exists = any((args.out / "checkpoints").glob("step_*"))
        if newest_exists and not (args.resume or args.dry_run):
            raise ConfigError(
                f"train: {args.out} already holds a run; give --resume or another --out"
            )
        resolved = {
            "config": to_dict(config),
            "commit": git_commit(),
            "shards": [str(p) for p in args.shards],
            "val_shards": [str(p) for p in args.val_shards],
            "labelled": [str(p) for p in args.labelled],
            "reading_shards": [str(p) for p in args.reading_shards],
            "denture": None if args.denture is None else str(args.denture),
            "face_mesh": None if args.face_mesh is None else str(args.face_mesh),
            "init_from": None if args.init_from is None else str(args.init_from),
            "init_parts": list(args.init_parts),
            "only": list(args.only),
            "distil_from": None if args.distil_from is None else str(args.distil_from),
            "time_budget_min": args.time_budget_min,
            "device": args.device,
            "threads": args.threads,
        }
        if args.dry_run:
            print(json.dumps(resolved, indent=2))
            from training.data.dataset import ShardSet, shards_for_swaps

            for name, paths in (
                ("train", args.shards),
                ("validation", args.val_shards),
                ("reading", args.reading_shards),
            ):
                if paths:
                    found = ShardSet(paths) if name == "reading" else shards_for_swaps(paths, name)
                    print(
                        f"{name}: {len(found)} quadruples, {found.real_count} real crops, "
                        f"{found.size_px} px"
                    )
            if args.distil_from is not None:
                from training.checkpoint import load_net

                print(f"learns from: {load_net(args.distil_from)[1].name}")
            if args.labelled:
                from training.data.labelled import LabelledPictures

                known = LabelledPictures(args.labelled)
                print(f"labelled: {len(known)} pictures of {len(known.people)} people")
            return 0
        from training.loop import loop
        from training.parallel import join

        with join(args.device) as world:
            resolved["processes"] = world.size
            if world.leads:
                print(json.dumps(resolved, indent=2))
                args.out.mkdir(parents=True, exist_ok=True)
                (args.out / "config.json").write_text(json.dumps(resolved, indent=2) + "\n")
            done = loop(
                config=config,
                shards=args.shards,
                val_shards=args.val_shards,
                out=args.out,
                labelled=args.labelled,
                reading_shards=args.reading_shards,
                denture=args.denture,
                face_mesh=args.face_mesh,
                resume=args.resume,
                init_from=args.init_from,
                init_parts=args.init_parts,
                only=args.only,
                distil_from=args.distil_from,
                time_budget_min=args.time_budget_min,
                max_steps=args.max_steps,
                device=args.device,
                threads=args.threads,
                progress_bar=sys.stderr.isatty(),
                world=world,
            )
    except RtSwapError as exc:
        print(f"train: {exc}", file=sys.stderr)
        return 2
    if world.leads:
        print(f"{args.out}: {done.step} steps, {done.elapsed_s / 60:.1f} min")
    return 0


if __name__ == "__main__":
    sys.exit(main())
