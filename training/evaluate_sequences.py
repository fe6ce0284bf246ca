"""Score a model over time, on sequences whose every frame has a known answer.

    python -m training.evaluate_sequences --sequences DIR [--model BUNDLE] [--json FILE]

DIR holds folders of :mod:`training.data.sequences`. Each frame goes through the shipped graphs
alone, as frames of a video do: absolute, all gains 1.

    image, flow   as in :mod:`training.evaluate`, over all frames
    change        mean |(o[t] - o[t-1]) - (a[t] - a[t-1])| over the face, o the output and a the
                  answer, in [0, 1]: flicker and lag both count; beside it that of the unchanged
                  target, whose own movement is not what was asked for. The target's camera noise
                  is in both
    at rest       mean |o[t] - o[t-1]| over the face while nobody moves, over the same of the
                  target, which has a camera's noise: 1 is as still as what came in
    r             correlation over time of the answer's and the output's mouth opening, mouth width,
                  smile, brow height and eye opening (training.descriptors), where the answer moves;
                  the median over sequences
    tremble       of these five: the mean second difference of the output over that of the answer,
                  and over that of the target. All are read by mediapipe, whose own noise is in
                  all; the camera's is in the target, so in the output too, but not in the answer
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rt_swap.aus import NUM_AUS
from rt_swap.backends import get_backend
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import F64, U8
from rt_swap.model import load_bundle
from rt_swap.tracking import FaceTracker, LandmarkSteadier
from training.data import sequences
from training.data.landmarks import crop_landmarks
from training.data.layout import FLOW_UNITS_PER_PX
from training.descriptors import NAMES, correlation, jitter
from training.evaluate import CropModel, write_json
from training.evaluate_real import MIN_SPAN, FaceReader, finite_median, mean_reading
from training.scores import Case, Score, reduction, unchanged

_log = logging.getLogger(__name__)

Reader = Callable[[U8], F64]
"""(S, S, 3) uint8 RGB -> the five descriptors, NaN where there is no face."""


def landmark_reader(faces: FaceReader) -> Reader:
    """Descriptors by face-mesh landmarks of an aligned crop and of its mirror image."""
    whole = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    def read(rgb: U8) -> F64:
        return mean_reading(faces.describe(np.ascontiguousarray(rgb[..., ::-1]), whole))

    return read


def score_sequence(
    model: CropModel,
    sequence: sequences.Sequence,
    rest_frames: int,
    tracker: FaceTracker,
    read: Reader,
) -> tuple[dict[str, Any], Score, Score]:
    """Run and score one sequence.

    Args:
        model: What is scored.
        sequence: With its answers.
        rest_frames: How long nobody moves at its start.
        tracker: Finds the target's landmarks, picture by picture (``static``).
        read: Descriptors of a picture.

    Returns:
        Its row, and the scores of the model and of doing nothing.
    """
    ones = np.ones(NUM_AUS, np.float32)
    steadier = LandmarkSteadier()  # as at run time
    done, nothing = Score(), Score()
    before: dict[str, Any] = {}
    change: dict[str, list[float]] = {"model": [], "unchanged": []}
    rest: dict[str, list[float]] = {"output": [], "target": []}
    shown: dict[str, list[F64]] = {"truth": [], "output": [], "target": []}
    for t in range(len(sequence.source)):
        case = Case(
            np.array(sequence.target[t]),
            np.array(sequence.truth[t]),
            sequence.flow[t].astype(np.float32) / np.float32(FLOW_UNITS_PER_PX),
            sequence.keep[t].astype(np.float32) / np.float32(255),
            np.array(sequence.region[t]),
        )
        tokens, _ = model.encode(np.array(sequence.source[t]))
        found = crop_landmarks(tracker, case.target_rgb)
        if found is not None:
            found = steadier.update(found, 0, t / sequences.FPS)
        answer = model.answer(case.target_rgb, tokens, ones, found)
        done.add(case, answer)
        nothing.add(case, unchanged(case))
        now = {"truth": case.truth_rgb, "output": answer.picture_rgb, "target": case.target_rgb}
        face = case.region > 0
        if before:
            moved = {k: (v.astype(np.float32) - before[k]) / 255.0 for k, v in now.items()}
            for name, of in (("model", "output"), ("unchanged", "target")):
                change[name].append(float(np.abs(moved[of] - moved["truth"])[face].mean()))
            if t < rest_frames:
                for name, trembles in rest.items():
                    trembles.append(float(np.abs(moved[name])[face].mean()))
        before = now
        for name, values in shown.items():
            values.append(read(now[name]))
    truth, output, target = (np.array(shown[name]) for name in ("truth", "output", "target"))
    row: dict[str, Any] = {"frames": len(truth), "r": {}, "moves": {}}
    row |= {"tremble": {}, "tremble_target": {}}
    for k, name in enumerate(NAMES):
        r, _, span = correlation(truth[:, k], output[:, k])
        row["r"][name], row["moves"][name] = r, span >= MIN_SPAN[name]
        for figure, of in (("tremble", truth), ("tremble_target", target)):
            own = jitter(of[:, k])
            row[figure][name] = jitter(output[:, k]) / own if own > 0 else float("nan")
    row["image"], row["flow_px"] = done.result()["image"], done.result()["flow_px"]
    row["image_reduction"] = reduction(row["image"], nothing.result()["image"])
    row["flow_reduction"] = reduction(row["flow_px"], nothing.result()["flow_px"])
    row["change"] = float(np.mean(change["model"]))
    row["change_unchanged"] = float(np.mean(change["unchanged"]))
    still = float(np.mean(rest["target"]))
    row["at_rest"] = float(np.mean(rest["output"])) / still if still > 0 else float("nan")
    return row, done, nothing


def summary(rows: list[dict[str, Any]], done: Score, nothing: Score) -> dict[str, Any]:
    """All sequences together: errors over all pixels, the rest as medians over sequences."""
    got, plain = done.result(), nothing.result()
    change = float(np.mean([r["change"] for r in rows]))
    idle = float(np.mean([r["change_unchanged"] for r in rows]))
    return {
        "image": got["image"],
        "image_reduction": reduction(got["image"], plain["image"]),
        "flow_px": got["flow_px"],
        "flow_reduction": reduction(got["flow_px"], plain["flow_px"]),
        "change": change,
        "change_reduction": reduction(change, idle),
        "at_rest": finite_median([r["at_rest"] for r in rows]),
        "r": {n: finite_median([r["r"][n] for r in rows if r["moves"][n]]) for n in NAMES},
        "moving": {n: sum(bool(r["moves"][n]) for r in rows) for n in NAMES},
        **{
            figure: {n: finite_median([r[figure][n] for r in rows]) for n in NAMES}
            for figure in ("tremble", "tremble_target")
        },
    }


def text(report: Mapping[str, Any]) -> str:
    """The report as a table for people."""
    s = report["summary"]
    lines = [
        f"{len(report['sequences'])} sequences of held-out people, "
        f"{sum(r['frames'] for r in report['sequences'])} frames, every answer known",
        "",
        f"image error {s['image']:.4f} ({_less(s['image_reduction'])} than unchanged), "
        f"flow {s['flow_px']:.2f} px ({_less(s['flow_reduction'])})",
        f"change from frame to frame off by {s['change']:.4f} ({_less(s['change_reduction'])}); "
        f"at rest {s['at_rest']:.2f} of what the target trembles",
        "",
        f"{'over time':28}" + "".join(f"{n.replace('_', ' '):>15}" for n in NAMES),
        f"{'r of answer and output':28}" + "".join(f"{s['r'][n]:>15.2f}" for n in NAMES),
        f"{'sequences that move':28}" + "".join(f"{s['moving'][n]:>15}" for n in NAMES),
        f"{'tremble over the answer':28}" + "".join(f"{s['tremble'][n]:>15.2f}" for n in NAMES),
        f"{'tremble over the target':28}"
        + "".join(f"{s['tremble_target'][n]:>15.2f}" for n in NAMES),
    ]
    return "\n".join(lines)


def _less(part: float) -> str:
    return f"{100 * part:.0f} % less"


def main(argv: list[str] | None = None) -> int:
    """Command line; 0, or 2 for wrong options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate_sequences",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", type=Path, help="model bundle (default: the one installed)")
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads a graph, 0 chooses")
    parser.add_argument("--any-split", action="store_true", help="score training people too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here too")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        report = _evaluate(args)
        print(text(report))
        if args.json is not None:
            write_json(args.json, report)
    except RtSwapError as exc:
        print(f"evaluate_sequences: {exc}", file=sys.stderr)
        return 2
    return 0


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    from rt_swap.tracking import MediapipeTracker

    folders = sorted(p.parent for p in args.sequences.glob("*/sequence.json"))
    if not folders:
        raise ConfigError(
            f"{args.sequences}: no sequence in it; make some with training.data.sequences"
        )
    opened = [sequences.read(folder) for folder in folders]
    trained = [f.name for f, (_, about) in zip(folders, opened, strict=True)
               if about["split"] == "train"]  # fmt: skip
    if trained and not args.any_split:
        raise ConfigError(
            f"{', '.join(trained)}: of people whom the model may have seen; --any-split scores "
            "them all the same"
        )
    bundle = load_bundle(args.model)
    rows, done, nothing = [], Score(), Score()
    with (
        CropModel.of_bundle(bundle, get_backend(args.backend), args.threads) as model,
        MediapipeTracker(static=True) as tracker,
    ):
        read = landmark_reader(FaceReader(tracker))
        for folder, (sequence, about) in zip(folders, opened, strict=True):
            row, one, idle = score_sequence(model, sequence, about["rest_frames"], tracker, read)
            done.merge(one)
            nothing.merge(idle)
            rows.append({"name": folder.name, "people": about["people"], **row})
            _log.info("%s: image error %s", folder.name, _less(row["image_reduction"]))
    return {
        "kind": "sequences",
        "model": {"name": bundle.name, "generator_sha256": bundle.generator_sha256},
        "summary": summary(rows, done, nothing),
        "sequences": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
