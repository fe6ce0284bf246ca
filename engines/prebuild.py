"""Every TensorRT for RTX engine that the profiles ask for, built ahead of time, without a GPU.

    python -m engines.prebuild [--bundle BUNDLE] [--home DIR] [--profile NAME] [--json FILE]

They go where ``rt-swap`` looks for them: DIR/engines, by default RT_SWAP_HOME or the user's cache
folder. Copied to another machine of the same system and the same version of TensorRT for RTX, they
are found there. What is there already is not built again. One that fails does not stop the others;
the exit code says so.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines import bundle as bundles
from engines.device_profiles import Profile, load_profiles, rtx_targets
from rt_swap import enginecache
from rt_swap.backends.trt import RTX
from rt_swap.contract import GRAPHS
from rt_swap.enginecache import Device
from rt_swap.errors import BackendError, ConfigError, EngineBuildError, RtSwapError
from rt_swap.model import ModelBundle, load_bundle


def prebuild(
    bundle: ModelBundle, profiles: dict[str, Profile], folder: Path
) -> list[dict[str, Any]]:
    """Build all that is missing.

    Args:
        bundle: The model.
        profiles: Those of another runtime are left out.
        folder: The engine cache's.

    Returns:
        A row an engine: "graph", "precision", "sm", "file" (None where it failed), "bytes",
        "seconds", "error".

    Raises:
        BackendUnavailable: If TensorRT for RTX is not installed.
        ConfigError: If the profiles ask for nothing.
        ModelFileError: If the model lacks a precision.
    """
    RTX.require()
    targets = rtx_targets(profiles)
    if not targets:
        raise ConfigError(
            f"no profile of {', '.join(profiles)} is for TensorRT for RTX: nothing to build"
        )
    for _, precision in targets:
        for name in GRAPHS:
            bundle.graph_path(name, precision)
    rows = []
    for sm, precision in targets:
        for name, spec in GRAPHS.items():
            started_s = time.monotonic()
            row: dict[str, Any] = {"graph": name, "precision": precision, "sm": sm}
            try:
                path = enginecache.get_or_build(
                    bundle.graph_path(name, precision),
                    spec,
                    RTX,
                    precision,
                    Device(sm),
                    folder=folder,
                )
                row |= {"file": path.name, "bytes": path.stat().st_size, "error": None}
            except (EngineBuildError, BackendError) as exc:
                row |= {"file": None, "bytes": 0, "error": str(exc)}
            row["seconds"] = round(time.monotonic() - started_s, 2)
            rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'graph':20}{'precision':>10}{'sm':>5}{'MB':>8}{'s':>7}  engine"]
    lines += [
        f"{r['graph']:20}{r['precision']:>10}{r['sm']:>5}{r['bytes'] / 1e6:>8.1f}"
        f"{r['seconds']:>7.1f}  {r['file'] or 'FAILED: ' + str(r['error'])}"
        for r in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 all there, 1 one failed, 2 wrong options."""
    parser = argparse.ArgumentParser(prog="python -m engines.prebuild", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    option = parser.add_argument
    option("--bundle", type=Path, metavar="DIR", help="the model (default: the installed one)")
    option("--home", type=Path, metavar="DIR", help="engines go to DIR/engines")
    option("--profile", action="append", metavar="NAME", help="only this one; repeatable")
    option("--json", type=Path, metavar="FILE", help="write the table here too")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        profiles = load_profiles()
        unknown = sorted(set(args.profile or ()) - set(profiles))
        if unknown:
            raise ConfigError(
                f"--profile: there is no {', '.join(unknown)}; there are {', '.join(profiles)}"
            )
        if args.profile:
            profiles = {name: profiles[name] for name in args.profile}
        rows = prebuild(load_bundle(args.bundle), profiles, enginecache.engines_dir(args.home))
        if args.json is not None:
            bundles.write_json(args.json, {"runtime_version": RTX.version, "engines": rows})
    except RtSwapError as exc:
        print(f"prebuild: {exc}", file=sys.stderr)
        return 2
    print(table(rows))
    return 1 if any(row["error"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
