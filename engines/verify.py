"""Do a model's checkpoint, its ONNX files, the backends and the engines agree?

    python -m engines.verify                                         the installed model's files
    python -m engines.verify --bundle BUNDLE --checkpoint DIR        PyTorch against all of them
    python -m engines.verify --bundle BUNDLE --backend NAME          against a backend, too
    python -m engines.verify --engine rtx                            against a TensorRT engine, too

The reference is PyTorch fp32 where a checkpoint is given, else ONNX Runtime fp32. Compared are ONNX
Runtime fp32, the fp16 files on ONNX Runtime, the same with every half value rounded (ONNX Runtime's
CPU keeps wide answers, which flatters; see engines.mixed), and what was named. Inputs are aligned
crops of real faces. Prints max, p99 and mean error and PSNR per output and of the composed picture
and exits with 1 where one exceeds the contract's tolerance. Comparing nothing is a failure, not a
success.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from engines import bundle as bundles
from engines import mixed, parity
from engines.onnx_runner import OnnxRunner
from engines.parity import Face, Runner
from rt_swap.backends import Session, get_backend
from rt_swap.backends.trt import FLAVOURS
from rt_swap.contract import GRAPHS
from rt_swap.errors import ConfigError, EngineBuildError, RtSwapError
from rt_swap.frames import F32
from rt_swap.model import ModelBundle, load_bundle, onnx_file

_log = logging.getLogger(__name__)

_REFERENCE: Final = "onnxruntime"


@dataclass(frozen=True)
class Candidate:
    """Something to be compared.

    Attributes:
        name: For the report.
        precision: "fp32" or "fp16": which tolerances hold.
        load: Makes a runner per graph name; the stack closes them.
    """

    name: str
    precision: str
    load: Callable[[ExitStack], Mapping[str, Runner]]


def candidates_of(
    bundle: ModelBundle, backends: Sequence[str], engines: Sequence[str], *, itself: bool
) -> list[Candidate]:
    """What there is to compare of a bundle.

    Args:
        bundle: The model.
        backends: Names of backends.
        engines: Flavours of TensorRT, "tensorrt" or "rtx".
        itself: Whether ONNX Runtime fp32 is compared too (it is not where it is the reference).
    """
    found = []
    if itself:
        found.append(Candidate(f"{_REFERENCE} fp32", "fp32", _backend(bundle, _REFERENCE, "fp32")))
    if all(onnx_file(name, "fp16") in bundle.manifest["files"] for name in GRAPHS):
        found.append(Candidate(f"{_REFERENCE} fp16", "fp16", _backend(bundle, _REFERENCE, "fp16")))
        found.append(Candidate("fp16, every half value rounded", "fp16", _rounded(bundle)))
    for name in backends:
        if name != _REFERENCE:
            # TensorRT's backends take the half-precision file that lies beside the float32 one
            precision = "fp16" if name in FLAVOURS else "fp32"
            found.append(Candidate(name, precision, _backend(bundle, name, "fp32")))
    for flavour in engines:
        found += [
            Candidate(
                f"{flavour} engine {precision}", precision, _engine(bundle, flavour, precision)
            )
            for precision in ("fp16", "fp32")
        ]
    return found


def verify(
    bundle: ModelBundle,
    *,
    references: Mapping[str, Runner] | None = None,
    backends: Sequence[str] = (),
    engines: Sequence[str] = (),
    pictures: Sequence[Face] | Sequence[F32] | None = None,
    pictures_are: str = "real crops",
) -> list[dict[str, Any]]:
    """Compare a bundle's graphs, run in every way there is, with a reference.

    Args:
        bundle: The model.
        references: Runners by graph name that are right by definition; None: ONNX Runtime fp32 on
            the CPU.
        backends: Names of backends to test, besides ONNX Runtime.
        engines: Flavours of TensorRT whose engines to test; built where missing.
        pictures: Faces or (1, 3, S, S) crops; None: the built-in portrait.
        pictures_are: What they are, for the report.

    Returns:
        One parity report a candidate; see engines.parity.

    Raises:
        ConfigError: If that would compare ONNX Runtime with itself, or nothing with anything.
        BackendUnavailable: If a named backend or engine cannot run here.
        EngineBuildError: If a half-precision engine cannot be built, or fails its check.
    """
    tested = candidates_of(bundle, backends, engines, itself=references is not None)
    if not tested or (pictures is not None and not pictures):
        raise ConfigError(
            f"verify: nothing would be compared: {bundle.path} has no fp16 files (make them: "
            f"python -m engines.export --fp16-of {bundle.path}); give --checkpoint, or --backend "
            f"with another backend than {_REFERENCE}"
        )
    if pictures is None:
        pictures = parity.astronaut_faces()
    reference_name = "pytorch fp32" if references is not None else f"{_REFERENCE} cpu fp32"
    found = []
    with ExitStack() as held:
        used = references or _backend(bundle, _REFERENCE, "fp32")(held)
        for candidate in tested:
            with ExitStack() as own:
                try:
                    runners = candidate.load(own)
                except EngineBuildError as exc:
                    if candidate.precision == "fp16":
                        raise
                    # some GPUs (compute capability 7.5) have no float32 engines
                    _log.warning("%s is not compared: %s", candidate.name, exc)
                    continue
                found.append(
                    parity.compare_bundle(
                        used,
                        runners,
                        pictures,
                        reference_name=reference_name,
                        candidate_name=candidate.name,
                        inputs=pictures_are,
                        precision=candidate.precision,
                    )
                )
    return found


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m engines.verify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    option = parser.add_argument
    option("--bundle", type=Path, metavar="DIR", help="the model (default: the installed one)")
    option("--checkpoint", type=Path, metavar="DIR", help="the step_* folder it was exported from")
    option("--backend", action="append", default=[], metavar="NAME", help="to test; repeatable")
    option(
        "--engine",
        action="append",
        default=[],
        choices=tuple(FLAVOURS),
        help="test engines of this flavour on this machine's GPU; repeatable",
    )
    option(
        "--portraits",
        type=Path,
        metavar="DIR",
        help="compare on faces in these, besides the built-in one",
    )
    option("--json", type=Path, metavar="FILE", help="write the reports here too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 agree, 1 differ or nothing compared, 2 wrong options."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    references: Mapping[str, Runner] | None = None
    try:
        bundle = load_bundle(args.bundle)
        if args.checkpoint is not None:
            from engines.torch_graphs import graphs_of_checkpoint

            references = graphs_of_checkpoint(args.checkpoint)
        if not candidates_of(bundle, args.backend, args.engine, itself=references is not None):
            print(
                "verify: nothing was compared; give --checkpoint DIR, or --backend with another "
                f"backend than {_REFERENCE}, or make the model's fp16 files",
                file=sys.stderr,
            )
            return 1
        pictures = parity.astronaut_faces()
        if args.portraits is not None:
            pictures += parity.real_faces(args.portraits)
        found = verify(
            bundle,
            references=references,
            backends=args.backend,
            engines=args.engine,
            pictures=pictures,
        )
        if args.json is not None:
            bundles.write_json(args.json, {"model": bundle.name, "reports": found})
    except EngineBuildError as exc:
        print(f"verify: {exc}", file=sys.stderr)
        return 1
    except RtSwapError as exc:
        print(f"verify: {exc}", file=sys.stderr)
        return 2
    print("\n\n".join(parity.table(one) for one in found))
    return 0 if all(one["ok"] for one in found) else 1


def _backend(
    bundle: ModelBundle, backend_name: str, precision: str
) -> Callable[[ExitStack], Mapping[str, Session]]:
    def load(held: ExitStack) -> Mapping[str, Session]:
        backend = get_backend(backend_name)
        return {
            name: held.enter_context(
                backend.load(bundle.graph_path(name, precision), spec, threads=1)
            )
            for name, spec in GRAPHS.items()
        }

    return load


def _rounded(bundle: ModelBundle) -> Callable[[ExitStack], Mapping[str, Runner]]:
    def load(_: ExitStack) -> Mapping[str, Runner]:
        return {
            name: OnnxRunner(
                mixed.rounded_in_float32(onnx.load(str(bundle.graph_path(name, "fp16"))))
            )
            for name in GRAPHS
        }

    return load


def _engine(
    bundle: ModelBundle, flavour_name: str, precision: str
) -> Callable[[ExitStack], Mapping[str, Runner]]:
    def load(held: ExitStack) -> Mapping[str, Runner]:
        from rt_swap import enginecache
        from rt_swap.backends import trt
        from rt_swap.backends.trt_runner import EngineRunner, this_device

        flavour = trt.flavour(flavour_name)
        flavour.require()
        device = this_device()
        runners: dict[str, Runner] = {}
        for name, spec in GRAPHS.items():
            onnx_path = bundle.graph_path(name, precision)
            path = enginecache.get_or_build(onnx_path, spec, flavour, precision, device)
            got = enginecache.read_checked(path)[1]["key"]["precision"]
            if got != precision:
                raise EngineBuildError(
                    f"{name}: the {precision} engine failed its check; {got} was built instead"
                )
            runners[name] = held.enter_context(EngineRunner(path, flavour, spec))
        return runners

    return load


if __name__ == "__main__":
    sys.exit(main())
