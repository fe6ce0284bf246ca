"""Do a model's checkpoint, its ONNX files and the backends agree?

    python -m engines.verify --bundle BUNDLE --checkpoint DIR        PyTorch against ONNX Runtime
    python -m engines.verify --bundle BUNDLE --backend NAME          ONNX Runtime (CPU) against NAME

Prints max, p99 and mean error and PSNR per output and exits with 1 where one exceeds the contract's
tolerance. Comparing nothing is a failure, not a success.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from engines import bundle as bundles
from engines import parity
from engines.parity import Runner
from rt_swap.backends import Session, get_backend
from rt_swap.contract import GRAPHS
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import F32
from rt_swap.model import ModelBundle, load_bundle

_REFERENCE: Final = "onnxruntime"


def verify(
    bundle: ModelBundle,
    *,
    references: Mapping[str, Runner] | None = None,
    backends: Sequence[str] = (),
    pictures: Sequence[F32] | None = None,
    pictures_are: str = "real crops",
) -> list[dict[str, Any]]:
    """Compare a bundle's graphs, run by each backend, with a reference.

    Args:
        bundle: The model.
        references: Runners by graph name that are right by definition; None: ONNX Runtime on the
            CPU.
        backends: Names of backends to test; none: ONNX Runtime on the CPU where ``references`` is
            given.
        pictures: (1, 3, S, S) crops; None: structured ones.
        pictures_are: What they are, for the report.

    Returns:
        One parity report a backend; see engines.parity.

    Raises:
        ConfigError: If that would compare ONNX Runtime with itself, or nothing with anything.
        BackendUnavailable: If a named backend cannot run here.
    """
    if pictures is None:
        pictures, pictures_are = parity.structured_pictures(), "structured inputs"
    if references is not None:
        tested, reference_name = list(backends) or [_REFERENCE], "pytorch fp32"
    else:
        tested, reference_name = [b for b in backends if b != _REFERENCE], f"{_REFERENCE} cpu fp32"
    if not tested or not pictures:
        raise ConfigError(
            "verify: nothing would be compared; give --checkpoint, or --backend with another "
            f"backend than {_REFERENCE}"
        )
    own: dict[str, Session] = {}
    if references is None:
        own = _load(bundle, _REFERENCE)
    used: Mapping[str, Runner] = own if references is None else references
    try:
        found = []
        for name in tested:
            sessions = _load(bundle, name)
            try:
                found.append(
                    parity.compare_bundle(
                        used,
                        sessions,
                        pictures,
                        reference_name=reference_name,
                        candidate_name=name,
                        inputs=pictures_are,
                    )
                )
            finally:
                _close(sessions)
    finally:
        _close(own)
    return found


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m engines.verify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    option = parser.add_argument
    option("--bundle", type=Path, metavar="DIR", help="the model (default: the installed one)")
    option("--checkpoint", type=Path, metavar="DIR", help="the step_* folder it was exported from")
    option("--backend", action="append", default=[], metavar="NAME", help="to test; repeatable")
    option("--portraits", type=Path, metavar="DIR", help="compare on aligned crops of these")
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
        elif not set(args.backend) - {_REFERENCE}:
            print(
                "verify: nothing was compared; give --checkpoint DIR, or --backend with another "
                f"backend than {_REFERENCE}",
                file=sys.stderr,
            )
            return 1
        pictures = None if args.portraits is None else parity.portrait_crops(args.portraits)
        found = verify(bundle, references=references, backends=args.backend, pictures=pictures)
        if args.json is not None:
            bundles.write_json(args.json, {"model": bundle.name, "reports": found})
    except RtSwapError as exc:
        print(f"verify: {exc}", file=sys.stderr)
        return 2
    print("\n\n".join(parity.table(one) for one in found))
    return 0 if all(one["ok"] for one in found) else 1


def _load(bundle: ModelBundle, backend_name: str) -> dict[str, Session]:
    backend = get_backend(backend_name)
    return {
        name: backend.load(bundle.path / f"{name}.onnx", spec, threads=1)
        for name, spec in GRAPHS.items()
    }


def _close(sessions: Mapping[str, Session]) -> None:
    for session in sessions.values():
        session.close()


if __name__ == "__main__":
    sys.exit(main())
