"""What half precision costs, part by part, measured: the figures behind engines.mixed.FP32_NAMES.

    python -m engines.precision --bundle BUNDLE [--portraits DIR] [--json FILE]

Three tables. Range: the largest magnitude that each part's values reach, against half precision's
65504. Alone: the error of the generator's answers with only this part in half precision. Spared:
the error that is left with everything in half precision that may be, except this part. A part that
is bad alone, or whose sparing helps, belongs into FP32_NAMES. Every half value is rounded
(engines.mixed.rounded_in_float32), which a mixed file run on a CPU would not show.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engines import bundle as bundles
from engines import mixed, parity
from engines.onnx_runner import OnnxRunner
from engines.parity import Case, Face
from engines.rewrite import load_stored
from rt_swap.contract import GENERATOR_SPEC
from rt_swap.errors import RtSwapError
from rt_swap.model import ModelBundle, load_bundle

_SHOWN = ("flow_xy", "keep", "fill_rgb", "shade", "tokens", "aus_lr")


def parts_of(model: onnx.ModelProto) -> dict[str, set[str]]:
    """Convolutions and matrix products, grouped by the module whose weights they read.

    Returns:
        Part -> names of nodes. A part is the first three pieces of a weight's dotted name, or the
        node's own name where it reads no weight of a module.
    """
    weights = {t.name for t in model.graph.initializer}
    parts: dict[str, set[str]] = {}
    for node in model.graph.node:
        if node.op_type in mixed.HEAVY:
            read = [name for name in node.input if name in weights and "." in name]
            part = ".".join(read[0].split(".")[:3]) if read else node.name
            parts.setdefault(part, set()).add(node.name)
    return parts


def measure(
    bundle: ModelBundle, faces: Sequence[Face], *, each_part: bool = True
) -> dict[str, Any]:
    """All three tables for a bundle's target generator (it holds the encoder too).

    Args:
        bundle: The model, its float32 file.
        faces: Real ones.
        each_part: False leaves the tables of the parts empty, which is most of the work.
    """
    encoder = OnnxRunner(onnx.load(str(bundle.encoder_path)))
    model = onnx.load(str(bundle.generator_path))
    load_stored(model)
    reference = OnnxRunner(model)
    pictures = [face.crop_rgb for face in faces]
    tokens = [encoder.run(c)["tokens"] for c in parity.encoder_cases(pictures)]
    cases = parity.generator_cases(faces, tokens)
    parts = parts_of(model)
    # only what ONNX itself cannot have in half stays float32
    loose = mixed.Rules({}, {}, tail=False)
    everything = mixed.half_nodes(model, loose)
    heavy = set().union(*parts.values())
    base = _errors(model, reference, everything, cases, faces)
    rows = {}
    for part, nodes in sorted(parts.items()) if each_part else ():
        only = mixed.half_nodes(model, loose, nodes)
        alone = _errors(model, reference, only, cases, faces)
        spared = _errors(
            model, reference, mixed.half_nodes(model, loose, heavy - nodes), cases, faces
        )
        rows[part] = {"alone": alone, "spared": spared}
    by_rule = _errors(model, reference, mixed.half_nodes(model), cases, faces)
    without = {
        "operators": mixed.Rules({}, mixed.FP32_NAMES),
        "names": mixed.Rules(mixed.FP32_OPERATORS, {}),
        "tail": mixed.Rules(mixed.FP32_OPERATORS, mixed.FP32_NAMES, tail=False),
    }
    rules = {
        f"without the rule: {name}": _errors(
            model, reference, mixed.half_nodes(model, rule), cases, faces
        )
        for name, rule in without.items()
    }
    return {
        "model": bundle.name,
        "cases": len(cases),
        "range": _ranges(model, parts, cases),
        "everything": base,
        "parts": rows,
        "by_rule": by_rule,
        "rules": rules,
    }


def _errors(
    model: onnx.ModelProto,
    reference: OnnxRunner,
    half: set[str],
    cases: Sequence[Case],
    faces: Sequence[Face],
) -> dict[str, float]:
    candidate = OnnxRunner(mixed.rounded_in_float32(mixed.cast_nodes(model, half)))
    composer = parity.Composer(faces)
    found = parity.compare(GENERATOR_SPEC, reference, candidate, cases, "fp16", composer.see)
    errors = {name: float(found[name]["max"] or np.nan) for name in _SHOWN}
    composed = composer.summary()
    assert composed is not None
    errors["levels_p99"] = float(composed["p99"])
    errors["levels_mean"] = float(composed["mean"])
    return errors


def _ranges(
    model: onnx.ModelProto, parts: Mapping[str, set[str]], cases: Sequence[Case]
) -> dict[str, float]:
    """Largest magnitude of what each part's nodes answer."""
    answers = {
        output: part
        for part, names in parts.items()
        for node in model.graph.node
        if node.name in names
        for output in node.output
    }
    wanted = {v.name for v in model.graph.output}
    runner = OnnxRunner(model, [name for name in answers if name not in wanted])
    largest = dict.fromkeys(sorted(parts), 0.0)
    for case in cases:
        for name, array in runner.run(case).items():
            if name in answers:
                part = answers[name]
                largest[part] = max(largest[part], float(np.abs(array).max()))
    return largest


def table(report: Mapping[str, Any]) -> str:
    """The report as text."""
    columns = (*_SHOWN, "levels_mean")
    head = f"{'part':34}{'range':>8}  " + "".join(f"{c:>10}" for c in columns)
    lines = [f"{report['model']}, {report['cases']} cases, largest error; only this part in half:"]
    lines.append(head)

    def line(name: str, span: str, errors: Mapping[str, float]) -> str:
        return f"{name[:34]:34}{span:>8}  " + "".join(f"{errors[c]:>10.1e}" for c in columns)

    for part, row in report["parts"].items():
        lines.append(line(part, f"{report['range'][part]:.1f}", row["alone"]))
    lines += ["", "everything in half but this part:"]
    for part, row in report["parts"].items():
        lines.append(line(part, "", row["spared"]))
    lines += ["", line("everything", "", report["everything"])]
    lines.append(line("by the rules of engines.mixed", "", report["by_rule"]))
    lines += [line(name, "", errors) for name, errors in report["rules"].items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 done, 2 wrong options."""
    parser = argparse.ArgumentParser(prog="python -m engines.precision", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    option = parser.add_argument
    option("--bundle", type=Path, metavar="DIR", help="the model (default: the installed one)")
    option("--portraits", type=Path, metavar="DIR", help="measure on the faces in these, too")
    option("--rules-only", action="store_true", help="leave out the parts, which take minutes")
    option("--json", type=Path, metavar="FILE", help="write the figures here too")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        faces = parity.astronaut_faces()
        if args.portraits is not None:
            faces += parity.real_faces(args.portraits)
        report = measure(load_bundle(args.bundle), faces, each_part=not args.rules_only)
        if args.json is not None:
            bundles.write_json(args.json, report)
    except RtSwapError as exc:
        print(f"precision: {exc}", file=sys.stderr)
        return 2
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
