"""Checkpoint -> model bundle.

    python -m engines.export --checkpoint runs/small/checkpoints/step_00010000 --out bundle
    python -m engines.export --fp16-of bundle

Both graphs are exported in fp32 with static shapes, held to the rules that make one file run on
ONNX Runtime and TensorRT alike, and compared with PyTorch output by output, on aligned crops of
real portraits where --portraits is given. Their weights are stored in half precision where that
stays within the contract, which halves the files; they compute in float32. Then each is written in
strongly typed mixed precision too (``*.fp16.onnx``, see engines.mixed), compared with fp32 and
composed on real crops. Only then does the bundle appear under its name. The figures go to
``parity.json`` beside the graphs.
--fp16-of makes the fp16 files of a bundle anew from its fp32 ones; it needs no checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from engines import bundle as bundles
from engines import mixed, onnx_rules, parity
from engines.onnx_runner import OnnxRunner
from engines.parity import Face
from engines.rewrite import load_stored, store_half
from engines.torch_graphs import TorchGraph, check_spec_names, export_onnx
from rt_swap.backends import get_backend
from rt_swap.contract import GRAPHS
from rt_swap.errors import ConfigError, EngineBuildError, RtSwapError
from rt_swap.frames import F32
from rt_swap.model import ENCODER_FILE, PRESETS_FOLDER, load_bundle, onnx_file, sha256_of

_log = logging.getLogger(__name__)

PARITY_FILE = "parity.json"
MAX_GMAC = 4.0
"""What the generator of the default model may cost a frame."""
MAX_BUNDLE_MB = 40.0


def export_bundle(
    graphs: Mapping[str, TorchGraph],
    out: Path,
    *,
    name: str,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    steps: int,
    validation: Mapping[str, Any],
    licence: str = "Apache-2.0",
    pictures: Sequence[F32] | Sequence[Face] | None = None,
    pictures_are: str = "real crops",
) -> dict[str, Any]:
    """Export, check, compare and write a bundle.

    Args:
        graphs: The contract's graphs as PyTorch modules, by name.
        out: The bundle's folder. An existing bundle is replaced as a whole; its presets stay only
            where the encoder comes out the same, other files (a model card) stay.
        name: What the model is called.
        config: For the manifest: the networks' configuration.
        data: For the manifest: what it was trained on.
        steps: For the manifest.
        validation: For the manifest.
        licence: For the manifest, an SPDX identifier.
        pictures: Faces or (1, 3, S, S) crops to compare on; None: structured ones, and the
            built-in portrait for half precision.
        pictures_are: What they are, for the report.

    Returns:
        The parity report.

    Raises:
        EngineBuildError: If a graph cannot be exported, breaks a rule, or differs from PyTorch;
            nothing is written then.
        ConfigError: If ``out`` holds something that is no bundle.
    """
    check_spec_names(graphs)
    if pictures is None:
        pictures, pictures_are = parity.structured_pictures(), "structured inputs"
    faces = None if pictures_are == "structured inputs" else pictures
    with bundles.staged(out) as stage:
        old_encoder = sha256_of(stage / ENCODER_FILE) if (stage / ENCODER_FILE).is_file() else None
        macs = {}
        for graph_name, graph in graphs.items():
            model = export_onnx(graph)
            macs[graph_name] = onnx_rules.count_macs(model)
            (stage / f"{graph_name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        found = compare_with_torch(graphs, stage, pictures, pictures_are)
        if not found["ok"]:
            raise EngineBuildError(
                "ONNX Runtime's answers differ from PyTorch's by more than the contract allows:\n"
                + parity.table(found)
            )
        # rounding is judged where half precision is: on faces, which the weights are for
        found = _store_weights_in_half(graphs, stage, faces or parity.astronaut_faces()) or found
        found["gmac"] = {graph_name: round(count / 1e9, 4) for graph_name, count in macs.items()}
        found["fp16"] = write_fp16(stage, faces)
        bundles.write_json(stage / PARITY_FILE, found)
        _drop_stale_presets(stage, old_encoder)
        bundles.write_manifest(
            stage,
            name=name,
            config=dict(config),
            data=dict(data),
            steps=steps,
            validation=dict(validation),
            licence=licence,
        )
        _mind_the_budgets(stage, found["gmac"])
    return found


def _store_weights_in_half(
    graphs: Mapping[str, TorchGraph],
    stage: Path,
    pictures: Sequence[F32] | Sequence[Face],
) -> dict[str, Any] | None:
    """Halve the float32 files, where the answers stay within the contract all the same.

    Returns:
        The parity report of the halved files; None where they would be too far off, and the plain
        ones were kept.
    """
    plain = {name: (stage / f"{name}.onnx").read_bytes() for name in graphs}
    for name in graphs:
        model = onnx.load_from_string(plain[name])
        store_half(model)
        (stage / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    found = compare_with_torch(graphs, stage, pictures, "real crops")
    if found["ok"]:
        return found
    _log.warning(
        "weights are stored in single precision: rounded to half, the answers would differ from"
        " PyTorch's by more than the contract allows:\n%s",
        parity.table(found),
    )
    for name, blob in plain.items():
        (stage / f"{name}.onnx").write_bytes(blob)
    return None


def add_fp16(bundle: Path, pictures: Sequence[Face] | None = None) -> dict[str, Any]:
    """Make the half-precision files of a bundle from its float32 ones.

    Args:
        bundle: A valid bundle; its fp16 files are replaced, its manifest and parity.json extended.
        pictures: Faces to compare on; None: the built-in portrait.

    Returns:
        The parity report of half precision; see :func:`write_fp16`.

    Raises:
        ModelFileError: If it is no valid bundle.
        EngineBuildError: As :func:`write_fp16`; nothing changes then.
    """
    load_bundle(bundle)
    with bundles.staged(bundle) as stage:
        found = write_fp16(stage, pictures)
        path = stage / PARITY_FILE
        old = bundles.read_json_object(path) if path.is_file() else {}
        bundles.write_json(path, {**old, "fp16": found})
        bundles.write_manifest(stage)
    return found


def write_fp16(
    folder: Path, pictures: Sequence[F32] | Sequence[Face] | None = None
) -> dict[str, Any]:
    """Write mixed-precision files beside the float32 ones and compare them.

    Args:
        folder: Holds both float32 graphs.
        pictures: Faces or crops to compare on; None: the built-in portrait.

    Returns:
        The parity report against float32, every half value rounded; see engines.parity.

    Raises:
        EngineBuildError: If a graph cannot be half precision, breaks a rule, or its answers or the
            composed picture differ from float32's by more than the contract allows.
    """
    if pictures is None:
        pictures = parity.astronaut_faces()
    references, candidates = {}, {}
    for name, spec in GRAPHS.items():
        model = onnx.load(str(folder / onnx_file(name, "fp32")))
        load_stored(model)
        half = mixed.to_mixed(model)
        onnx_rules.check_rules(half, spec, half=True)
        blob = half.SerializeToString(deterministic=True)
        (folder / onnx_file(name, "fp16")).write_bytes(blob)
        references[name] = OnnxRunner(model)
        candidates[name] = OnnxRunner(mixed.rounded_in_float32(half))
    found = parity.compare_bundle(
        references,
        candidates,
        pictures,
        reference_name="onnxruntime cpu fp32",
        candidate_name="fp16, every half value rounded",
        inputs="real crops",
        precision="fp16",
    )
    if not found["ok"]:
        raise EngineBuildError(
            "half precision differs from float32 by more than the contract allows; "
            "python -m engines.precision shows which part does it\n" + parity.table(found)
        )
    return found


def compare_with_torch(
    graphs: Mapping[str, TorchGraph],
    folder: Path,
    pictures: Sequence[F32] | Sequence[Face],
    pictures_are: str,
) -> dict[str, Any]:
    """ONNX files in a folder against the modules they were exported from; see engines.parity."""
    import onnxruntime
    import torch

    backend = get_backend("onnxruntime")
    sessions = {
        name: backend.load(folder / f"{name}.onnx", spec, threads=1)
        for name, spec in GRAPHS.items()
    }
    try:
        return parity.compare_bundle(
            graphs,
            sessions,
            pictures,
            reference_name=f"pytorch {torch.__version__} fp32",
            candidate_name=f"onnxruntime {onnxruntime.__version__} cpu fp32",
            inputs=pictures_are,
        )
    finally:
        for session in sessions.values():
            session.close()


def data_of_run(run: Path) -> dict[str, Any]:
    """What a run was trained on: counts by data set, from its config.json and the shards it names.

    Args:
        run: The run's folder.

    Returns:
        {"shards", "quadruples", "quadruples_only_read", "people", "datasets": {name: people}},
        without any path; {} where the run does not say or its shards are gone. Those that the
        encoder alone read count among shards and people.
    """
    path = run / "config.json"
    if not path.is_file():
        return {}
    said = bundles.read_json_object(path)
    folders = []
    for option in ("shards", "reading_shards"):
        given = said.get(option, [])
        folders += [Path(text) for text in given] if isinstance(given, list) else []
    shards = [
        s
        for f in folders
        for s in ([f] if (f / "shard.json").is_file() else sorted(f.glob("shard_*")))
    ]
    people: set[tuple[str, str]] = set()
    quadruples = only_read = 0
    for shard in shards:
        if not (shard / "shard.json").is_file():
            continue
        about = bundles.read_json_object(shard / "shard.json")
        count = int(about.get("quadruples", 0))
        if about.get("pictures_only"):
            only_read += count
        else:
            quadruples += count
        people |= {
            (str(p.get("dataset", "?")), str(p.get("person", p.get("file", "?"))))
            for p in about.get("people", [])
        }
    if not people:
        return {}
    return {
        "shards": len(shards),
        "quadruples": quadruples,
        "quadruples_only_read": only_read,
        "people": len(people),
        "datasets": dict(sorted(Counter(dataset for dataset, _ in people).items())),
    }


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m engines.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, metavar="DIR", help="a step_* folder; needs --out")
    what.add_argument(
        "--fp16-of", type=Path, metavar="BUNDLE", help="make this bundle's fp16 files anew"
    )
    parser.add_argument("--out", type=Path, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--name", help="what the model is called (default: its configuration's name)"
    )
    parser.add_argument(
        "--licence", default="Apache-2.0", help="of the weights (default %(default)s)"
    )
    parser.add_argument("--portraits", type=Path, metavar="DIR", help="pictures to compare on")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="JSON",
        help="what it was trained on (default: read from the run)",
    )
    parser.add_argument(
        "--evaluation", type=Path, metavar="JSON", help="a report of training.evaluate"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 done, 1 a graph fails its checks, 2 wrong options."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        if args.fp16_of is not None:
            if args.out is not None:
                raise ConfigError("--out: --fp16-of changes the bundle in its place")
            faces = None if args.portraits is None else parity.real_faces(args.portraits)
            print(parity.table(add_fp16(args.fp16_of, faces)))
            return 0
        if args.out is None:
            raise ConfigError("--checkpoint: needs --out, the folder to write")
        found = _export(args)
    except EngineBuildError as exc:
        print(f"export: {exc}", file=sys.stderr)
        return 1
    except RtSwapError as exc:
        print(f"export: {exc}", file=sys.stderr)
        return 2
    print(parity.table(found))
    print(parity.table(found["fp16"]))
    cost = ", ".join(f"{name} {gmac:.3f} GMAC" for name, gmac in found["gmac"].items())
    print(f"{args.out}: {cost}")
    return 0


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from engines.torch_graphs import graphs_of_checkpoint
    from training.checkpoint import read_config, read_state
    from training.config import to_dict

    checkpoint: Path = args.checkpoint
    if not checkpoint.is_dir():
        raise ConfigError(f"--checkpoint {checkpoint}: there is no such folder")
    graphs = graphs_of_checkpoint(checkpoint)
    config, state = read_config(checkpoint), read_state(checkpoint)
    validation: dict[str, Any] = {"training": state.figures} if state.figures else {}
    if args.evaluation is not None:
        validation["evaluation"] = bundles.read_json_object(args.evaluation)
    run = checkpoint.resolve().parent.parent
    data = bundles.read_json_object(args.data) if args.data is not None else data_of_run(run)
    if not data:
        _log.warning("the manifest will not say what the model was trained on; give --data JSON")
    pictures = None if args.portraits is None else parity.real_faces(args.portraits)
    return export_bundle(
        graphs,
        args.out,
        name=args.name or config.name,
        config=to_dict(config),
        data=data,
        steps=state.step,
        validation=validation,
        licence=args.licence,
        pictures=pictures,
    )


def _drop_stale_presets(stage: Path, old_encoder: str | None) -> None:
    """Presets are tokens of one encoder; another one would misread them."""
    presets = stage / PRESETS_FOLDER
    if presets.is_dir() and sha256_of(stage / ENCODER_FILE) != old_encoder:
        shutil.rmtree(presets)
        _log.warning("the encoder changed: make the presets again (python -m engines.make_presets)")


def _mind_the_budgets(stage: Path, gmac: Mapping[str, float]) -> None:
    for name, cost in gmac.items():
        if cost > MAX_GMAC:
            _log.warning(
                "%s costs %.2f GMAC a frame; the default stays under %g", name, cost, MAX_GMAC
            )
    size_mb = sum(p.stat().st_size for p in stage.rglob("*") if p.is_file()) / 1e6
    if size_mb > MAX_BUNDLE_MB:
        _log.warning("the bundle has %.1f MB; the default stays under %g", size_mb, MAX_BUNDLE_MB)


if __name__ == "__main__":
    sys.exit(main())
