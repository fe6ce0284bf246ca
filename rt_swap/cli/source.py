"""``rt-swap source``: encode expressions once, look at them, tidy the cache."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rt_swap.cli.common import OK, common_options, progress_bar, settings_of, swapper_of
from rt_swap.errors import ConfigError

if TYPE_CHECKING:
    from rt_swap.config import Settings
    from rt_swap.expression import ExpressionCache
    from rt_swap.frames import Expression

_SECONDS_PER_DAY = 86_400.0


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("source", help="encode, list, show and prune sources")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    parents = [common_options()]

    encode = actions.add_parser(
        "encode", parents=parents, help="encode a picture or clip and save its expression"
    )
    encode.set_defaults(run=run_encode)
    encode.add_argument("file", metavar="FILE", help="a picture or a clip")
    encode.add_argument(
        "-o", "--output", metavar="FILE", help="also save it here (.safetensors), besides the cache"
    )
    encode.add_argument("--overwrite", action="store_true", help="replace an existing output")
    encode.add_argument("--json", action="store_true", help="print what it is as JSON")

    show = actions.add_parser(
        "show", parents=parents, help="print the AU intensities of a source or preset"
    )
    show.set_defaults(run=run_show)
    what = show.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "file", metavar="FILE", nargs="?", help="a picture, a clip, or a saved expression"
    )
    what.add_argument("--preset", metavar="NAME", help="a named expression of the model")
    show.add_argument("--json", action="store_true", help="print it as JSON")

    list_ = actions.add_parser("list", parents=parents, help="list the cache of encoded sources")
    list_.set_defaults(run=run_list)
    list_.add_argument("--json", action="store_true", help="print it as JSON")

    prune = actions.add_parser(
        "prune",
        parents=parents,
        help="remove from the cache what another model made, or what is damaged",
    )
    prune.set_defaults(run=run_prune)
    which = prune.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="remove everything")
    which.add_argument(
        "--older-than", type=float, metavar="DAYS", help="remove what is older, of any model"
    )
    prune.add_argument("--json", action="store_true", help="print what was removed as JSON")


def run_encode(arguments: argparse.Namespace) -> int:
    """Encode a file; returns the exit code."""
    settings = settings_of(arguments)
    output = Path(arguments.output) if arguments.output else None
    if output is not None:
        from rt_swap.expression.files import SUFFIX

        if output.suffix != SUFFIX:
            raise ConfigError(f"--output {output}: an expression file is named *{SUFFIX}")
    with swapper_of(settings) as swapper:
        if output is None:
            expression = _encode(swapper, arguments)
        else:
            from rt_swap.expression import save_expression
            from rt_swap.io.output import PartFile, sink_error

            part = PartFile(output, overwrite=arguments.overwrite, inputs=[Path(arguments.file)])
            try:
                expression = _encode(swapper, arguments)
                try:
                    save_expression(expression, part.part)
                except OSError as exc:
                    raise sink_error(output, exc, "writing") from exc
                part.commit()
            finally:
                part.discard()
    _print(expression, arguments.json)
    return OK


def run_show(arguments: argparse.Namespace) -> int:
    """Print a source's intensities; returns the exit code."""
    settings = settings_of(arguments)
    if arguments.file and Path(arguments.file).suffix.lower() == ".safetensors":
        from rt_swap.errors import SourceError
        from rt_swap.expression import load_expression

        path = Path(arguments.file)
        if not path.is_file():
            raise SourceError(f"{path}: there is no such file; check the spelling")
        expression = load_expression(path)  # of whichever model
    else:
        with swapper_of(settings) as swapper:
            if arguments.preset:
                expression = swapper.preset(arguments.preset)
            else:
                expression = _encode(swapper, arguments)
    _print(expression, arguments.json)
    return OK


def run_list(arguments: argparse.Namespace) -> int:
    """List the cache; returns the exit code."""
    cache = _cache(settings_of(arguments))
    rows = []
    for entry in cache.entries():
        found = entry.expression
        rows.append(
            {
                "path": str(entry.path),
                "name": found.name if found else None,
                "entries": len(found.times_s) if found else 0,
                "duration_s": found.duration_s if found else 0.0,
                "model_sha256": found.model_sha256 if found else None,
                "bytes": entry.size_bytes,
                "modified": datetime.fromtimestamp(entry.modified_s).isoformat(timespec="seconds"),
            }
        )
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return OK
    for row in rows:
        model = str(row["model_sha256"] or "damaged")[:12]
        print(
            f"{row['modified']}  {row['entries']:>6} x  {model:12}  {row['name'] or '?'}"
            f"  {row['path']}"
        )
    print(f"rt-swap: {len(rows)} encoded sources in {cache.folder}", file=sys.stderr)
    return OK


def run_prune(arguments: argparse.Namespace) -> int:
    """Tidy the cache; returns the exit code."""
    settings = settings_of(arguments)
    cache = _cache(settings)
    if arguments.older_than is not None:
        if not arguments.older_than >= 0:  # NaN is neither
            raise ConfigError(f"--older-than: must be 0 days or more, got {arguments.older_than}")
        removed = cache.prune(older_than_s=arguments.older_than * _SECONDS_PER_DAY)
    elif arguments.all:
        removed = cache.prune()
    else:
        from rt_swap.model import load_bundle

        bundle = load_bundle(settings.model)
        removed = cache.prune(keep_model_sha256=bundle.sha256)
    if arguments.json:
        print(json.dumps([str(path) for path in removed], indent=2))
    else:
        for path in removed:
            print(path)
    print(f"rt-swap: {len(removed)} files removed from {cache.folder}", file=sys.stderr)
    return OK


def _encode(swapper: Any, arguments: argparse.Namespace) -> Expression:
    with progress_bar("encode", quiet=arguments.quiet) as progress:
        count = 0

        def step(time_s: float) -> None:
            nonlocal count
            count += 1
            if progress is not None:
                progress(count, None)

        expression: Expression = swapper.encode_source(arguments.file, progress=step)
    return expression


def _cache(settings: Settings) -> ExpressionCache:
    from rt_swap.expression import ExpressionCache, cache_dir

    return ExpressionCache(cache_dir(settings.cache))


def _print(expression: Expression, as_json: bool) -> None:
    from rt_swap.aus import AUS

    seen = expression.aus_lr[expression.valid]
    mean, peak = seen.mean(axis=0), seen.max(axis=0)
    if as_json:
        values = {
            "name": expression.name,
            "model_sha256": expression.model_sha256,
            "entries": len(expression.times_s),
            "with_face": int(expression.valid.sum()),
            "duration_s": expression.duration_s,
            "aus": {
                au.id.name: {
                    "name": au.name,
                    "left": round(float(mean[k, 0]), 4),
                    "right": round(float(mean[k, 1]), 4),
                    "peak": round(float(peak[k].max()), 4),
                }
                for k, au in enumerate(AUS)
            },
        }
        print(json.dumps(values, indent=2))
        return
    print(f"{expression.name}: {len(expression.times_s)} entries, {expression.duration_s:.2f} s")
    print(f"{'AU':<6}{'':<24}{'left':>6}{'right':>7}{'peak':>7}")
    for k, au in enumerate(AUS):
        print(
            f"{au.id.name:<6}{au.name:<24}{mean[k, 0]:>6.2f}{mean[k, 1]:>7.2f}{peak[k].max():>7.2f}"
        )
