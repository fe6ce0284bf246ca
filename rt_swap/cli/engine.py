"""``rt-swap engine``: build TensorRT engines, look at them, verify and tidy them."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rt_swap.cli.common import OK, common_options, progress_bar, settings_of
from rt_swap.errors import BackendUnavailable, ConfigError

if TYPE_CHECKING:
    from rt_swap.backends.trt import Flavour
    from rt_swap.enginecache import Device, Entry

RUNTIMES: Final = ("auto", "rtx", "tensorrt")
PRECISIONS: Final = ("fp16", "fp32", "both")
_SECONDS_PER_DAY: Final = 86_400.0


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("engine", help="build, list, verify and prune TensorRT engines")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    common = common_options()
    common.add_argument(
        "--home",
        metavar="DIR",
        help="engines are in DIR/engines (default: RT_SWAP_HOME, else the user's cache folder)",
    )
    parents = [common]

    build = actions.add_parser(
        "build",
        parents=parents,
        help="build the model's engines",
        description="Build the model's engines for this machine's GPU, or with TensorRT for RTX "
        "ahead of time, on a machine without one: --runtime rtx --sm 75,86,89,120.",
    )
    build.set_defaults(run=run_build)
    build.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="auto",
        help="TensorRT for RTX or TensorRT (default: auto, rtx where it is installed)",
    )
    build.add_argument(
        "--sm",
        metavar="N,...",
        help="compute capabilities to build for, 89 for 8.9 (default: this machine's GPU)",
    )
    build.add_argument(
        "--precision", choices=PRECISIONS, default="fp16", help="(default: %(default)s)"
    )
    build.add_argument("--force", action="store_true", help="build again what is there already")
    build.add_argument("--json", action="store_true", help="print what there is now as JSON")

    list_ = actions.add_parser("list", parents=parents, help="list the engines")
    list_.set_defaults(run=run_list)
    list_.add_argument("--json", action="store_true", help="print it as JSON")

    verify = actions.add_parser(
        "verify",
        parents=parents,
        help="check every engine against its sidecar, and run it where that can be done",
    )
    verify.set_defaults(run=run_verify)
    verify.add_argument("--json", action="store_true", help="print it as JSON")

    prune = actions.add_parser(
        "prune",
        parents=parents,
        help="remove engines of another model or runtime version, and damaged ones",
    )
    prune.set_defaults(run=run_prune)
    which = prune.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="remove everything")
    which.add_argument(
        "--older-than", type=float, metavar="DAYS", help="remove what is older, of any model"
    )
    prune.add_argument("--json", action="store_true", help="print what was removed as JSON")


def run_build(arguments: argparse.Namespace) -> int:
    """Build engines; returns the exit code."""
    from rt_swap import enginecache
    from rt_swap.contract import GRAPHS
    from rt_swap.enginecache import store
    from rt_swap.model import load_bundle

    settings = settings_of(arguments)
    flavour = _flavour(arguments.runtime)
    devices = _devices(arguments.sm, flavour)
    bundle = load_bundle(settings.model)
    precisions = ("fp16", "fp32") if arguments.precision == "both" else (arguments.precision,)
    # all that is needed must be there before the first build
    work = [
        (spec, device, precision, bundle.graph_path(name, precision))
        for device in devices
        for precision in precisions
        for name, spec in GRAPHS.items()
    ]
    folder = enginecache.engines_dir(arguments.home)
    rows = []
    for i, (spec, device, precision, onnx_path) in enumerate(work, 1):
        what = f"{i}/{len(work)} {spec.name} {precision} sm{device.sm}"
        with progress_bar(what, quiet=arguments.quiet, unit="step") as progress:
            path = enginecache.get_or_build(
                onnx_path,
                spec,
                flavour,
                precision,
                device,
                folder=folder,
                progress=progress,
                force=arguments.force,
            )
        rows.append(_row(store.check_file(path)))
        if not arguments.json:
            print(path)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    return OK


def run_list(arguments: argparse.Namespace) -> int:
    """List the engines; returns the exit code."""
    from rt_swap import enginecache

    settings_of(arguments)
    folder = enginecache.engines_dir(arguments.home)
    found = enginecache.entries(folder)
    if arguments.json:
        print(json.dumps([_row(entry) for entry in found], indent=2))
        return OK
    for entry in found:
        _print(entry)
    print(f"rt-swap: {len(found)} engines in {folder}", file=sys.stderr)
    return OK


def run_verify(arguments: argparse.Namespace) -> int:
    """Verify the engines.

    Returns:
        0 where all are good; nothing to verify, and anything else, is an error.
    """
    from rt_swap import enginecache
    from rt_swap.enginecache import State
    from rt_swap.errors import EngineMismatch
    from rt_swap.model import load_bundle

    settings = settings_of(arguments)
    bundle = load_bundle(settings.model)
    folder = enginecache.engines_dir(arguments.home)
    found = enginecache.entries(folder)
    if not found:
        raise EngineMismatch(
            f"{folder}: there are no engines to verify; build some: rt-swap engine build"
        )
    hashes = _onnx_hashes(bundle)
    rows, wrong = [], 0
    for entry in found:
        row = _row(entry)
        if entry.state is State.GOOD and entry.key is not None:
            stale = _stale(entry, hashes)
            if stale:
                row["state"], row["why"] = State.STALE.value, stale
            else:
                row["run"], failed = _try(entry, bundle, hashes)
                if failed:
                    row["state"], row["why"] = State.FAILED_CHECK.value, row["run"]
        wrong += row["state"] != State.GOOD.value
        rows.append(row)
        if not arguments.json:
            detail = row["why"] or row["run"]
            print(f"{row['state']:16} {Path(row['path']).name}" + (f": {detail}" * bool(detail)))
    if arguments.json:
        print(json.dumps(rows, indent=2))
    if wrong:
        raise EngineMismatch(
            f"{wrong} of {len(found)} engines in {folder} are not good; rt-swap engine prune "
            "removes them, rt-swap engine build makes those of this model anew"
        )
    return OK


def run_prune(arguments: argparse.Namespace) -> int:
    """Tidy the cache; returns the exit code."""
    from rt_swap import enginecache
    from rt_swap.backends.trt import FLAVOURS

    settings = settings_of(arguments)
    folder = enginecache.engines_dir(arguments.home)
    if arguments.older_than is not None:
        if not arguments.older_than >= 0:  # NaN is neither
            raise ConfigError(f"--older-than: must be 0 days or more, got {arguments.older_than}")
        removed = enginecache.prune(folder, older_than_s=arguments.older_than * _SECONDS_PER_DAY)
    elif arguments.all:
        removed = enginecache.prune(folder)
    else:
        from rt_swap.model import load_bundle

        versions = {name: flavour.version for name, flavour in FLAVOURS.items() if flavour.version}
        removed = enginecache.prune(
            folder,
            keep_onnx_sha256=set(_onnx_hashes(load_bundle(settings.model))),
            keep_versions=versions,
        )
    if arguments.json:
        print(json.dumps([str(path) for path in removed], indent=2))
    else:
        for path in removed:
            print(path)
    print(f"rt-swap: {len(removed)} engines removed from {folder}", file=sys.stderr)
    return OK


def _flavour(name: str) -> Flavour:
    from rt_swap.backends.trt import FLAVOURS, flavour

    if name != "auto":
        chosen = flavour(name)
        chosen.require()
        return chosen
    reasons = {}
    for candidate in ("rtx", "tensorrt"):
        reason = FLAVOURS[candidate].why_not()
        if reason is None:
            return FLAVOURS[candidate]
        reasons[candidate] = reason
    raise BackendUnavailable(
        "no TensorRT to build engines with: " + "; ".join(f"{n}: {r}" for n, r in reasons.items())
    )


def _devices(sm: str | None, flavour: Flavour) -> list[Device]:
    """What to build for; the machine's own GPU where its compute capability is among ``sm``."""
    from rt_swap.enginecache import Device

    try:
        from rt_swap.backends.trt_runner import this_device

        here = this_device()
    except BackendUnavailable as exc:
        if sm is None:
            targets = ",".join(map(str, flavour.targets()))
            raise BackendUnavailable(
                f"{exc}; to build ahead of time for another machine, say for which: --runtime rtx "
                f"--sm {targets or '75,86,89,120'}"
            ) from exc
        here = None
    if sm is None:
        assert here is not None
        return [here]
    wanted = []
    for piece in sm.split(","):
        text = piece.strip().removeprefix("sm")
        if not text.isdecimal():
            raise ConfigError(f"--sm: must be numbers such as 75,86,89,120, got {sm!r}")
        if int(text) not in wanted:
            wanted.append(int(text))
    known = flavour.targets()
    foreign = [n for n in wanted if n not in known and (here is None or n != here.sm)]
    if foreign:
        offered = (
            f"it builds for {', '.join(map(str, known))}"
            if known
            else "it builds for this machine's own GPU only; use --runtime rtx"
        )
        raise ConfigError(
            f"--sm: {flavour.name} cannot build for {', '.join(map(str, foreign))} here; {offered}"
        )
    return [here if here is not None and here.sm == n else Device(n) for n in wanted]


def _onnx_hashes(bundle: Any) -> dict[str, str]:
    """sha256 of each ONNX file of a model -> its name."""
    return {
        entry["sha256"]: name
        for name, entry in bundle.manifest["files"].items()
        if name.endswith(".onnx")
    }


def _stale(entry: Entry, hashes: dict[str, str]) -> str:
    """Why a good file is of no use to this model and these runtimes; empty where it is."""
    from rt_swap.backends.trt import FLAVOURS

    key = entry.key
    assert key is not None
    if key.onnx_sha256 not in hashes:
        return "built from another model's ONNX file"
    flavour = FLAVOURS.get(key.runtime)
    if flavour is None:
        return f"built by {key.runtime}, which this rt_swap does not know"
    if flavour.version and flavour.version != key.runtime_version:
        return f"built by {key.runtime} {key.runtime_version} (here {flavour.version})"
    return ""


def _try(entry: Entry, bundle: Any, hashes: dict[str, str]) -> tuple[str, bool]:
    """Run an engine where that can be done: what came of it, and whether it failed."""
    from rt_swap.backends import trt, trt_runner
    from rt_swap.contract import GRAPHS

    key = entry.key
    assert key is not None
    flavour = trt.flavour(key.runtime)
    reason = flavour.why_not()
    if reason is not None:
        return f"not run: {reason}", False
    try:
        here = trt_runner.this_device()
    except BackendUnavailable as exc:
        return f"not run: {exc}", False
    if here.sm != key.sm:
        return f"not run: it is for sm{key.sm}, the GPU here is sm{here.sm}", False
    spec = GRAPHS[key.graph]
    with trt_runner.EngineRunner(entry.path, flavour, spec) as runner:
        report = trt_runner.compare_with_onnxruntime(
            runner, bundle.graph_path(key.graph, "fp32"), spec, key.precision
        )
    return ("its answers agree with fp32", False) if report["ok"] else (report["why"], True)


def _row(entry: Entry) -> dict[str, Any]:
    key, check = entry.key, entry.sidecar.get("check")
    return {
        "path": str(entry.path),
        "state": entry.state.value,
        "why": entry.why,
        "run": "",
        "graph": key.graph if key else None,
        "precision": key.precision if key else None,
        "runtime": key.runtime if key else None,
        "runtime_version": key.runtime_version if key else None,
        "sm": key.sm if key else None,
        "gpu": key.gpu if key else None,
        "onnx_sha256": key.onnx_sha256 if key else None,
        "checked": None if not isinstance(check, dict) else bool(check.get("ok")),
        "bytes": entry.size_bytes,
        "modified": datetime.fromtimestamp(entry.modified_s).isoformat(timespec="seconds"),
    }


def _print(entry: Entry) -> None:
    row = _row(entry)
    checked = {None: "not run", True: "checked", False: "wrong"}[row["checked"]]
    about = (
        f"{row['graph']} {row['precision']} {row['runtime']} {row['runtime_version']} sm{row['sm']}"
        if entry.key
        else entry.why
    )
    print(
        f"{row['modified']}  {row['state']:16} {checked:8} {row['bytes'] / 1e6:>6.1f} MB  {about}"
        f"  {row['path']}"
    )
