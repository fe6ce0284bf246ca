"""Does the gain of an AU move that AU and nothing else? A K x K matrix says so.

    python -m training.evaluate_gains --val-shards DIR [--model BUNDLE] [--json FILE] [--sheet FILE]

For each AU k, target faces are paired with source pictures of other people in which k is at least
ASKED_CHANGE stronger on one side, by the renderer's labels. The shipped graphs transfer AU k
alone: gain 1 for k, 0 for all others. What that did is read off the flow they answer with. A
rendered face is linear in its units, and its shard says how each unit moves it
(training.unit_motion): the flow is taken apart into those motions. Row k, column j of the matrix is

    mean over cases of (motion of AU j in the flow) / mean over cases of (motion asked of AU k),

each a root mean square over the face, in pixels. The identity matrix would be perfect. Earlier
versions had the bundle's own encoder look at the answer instead; it sees so little of a unit that
moves alone that it said more about itself than about the answer.

Two figures say where a row falls short. ``reads`` is how much of the change asked for the encoder
read off the two pictures: the generator is not told more. ``beside`` is all motion that is not
along the one asked for, over that, both root mean square over the face: 0 is nothing else, 1 as
much as was asked for. It counts every motion, also one that no unit makes, and AU k's own where it
is on the wrong side.

Runs what ships, on held-out people (shards of split val or test).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.backends import get_backend
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import F32, F64, U8
from rt_swap.model import load_bundle
from rt_swap.tracking import FaceTracker, MediapipeTracker
from training.data.landmarks import crop_landmarks
from training.evaluate import CropModel, Quadruple, read_quadruples, write_json
from training.unit_motion import UnitFields, moved_alone, taken_apart

ASKED_CHANGE: Final = 0.3
"""Least difference of intensity, source above target on one side, for a pair to be used."""
CASES: Final = 24
"""Pairs for each AU."""

_CELL_PX: Final = 26
_LABEL_PX: Final = 64


@dataclass(frozen=True)
class Gains:
    """What single gains did.

    Attributes:
        response: (K, K) float64; row k: gain k alone was 1. NaN where no pair was found.
        reads: (K,) float64, change read over change asked for, a slope through 0 over cases and
            sides; NaN where unknown.
        beside: (K,) float64 >= 0, all other motion over the motion asked for; NaN likewise.
        cases: (K,) int, pairs used.
    """

    response: F64
    reads: F64
    beside: F64
    cases: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Face:
    rgb: U8
    person: str
    label: F64  # (K, 2)
    tokens: F32
    read: F64  # (K, 2)
    landmarks_xy: F64 | None
    quad: Quadruple
    picture: int  # of the quadruple's four

    @property
    def fields(self) -> UnitFields:  # 1.8 MB: made when wanted
        return UnitFields.of(self.quad, self.picture)


def measure(
    model: CropModel,
    quadruples: Sequence[Quadruple],
    tracker: FaceTracker,
    rng: np.random.Generator,
    cases: int = CASES,
) -> Gains:
    """Fill the matrix.

    Args:
        model: What is looked at.
        quadruples: Pictures of several people, with the fields of their units.
        tracker: Finds landmarks, picture by picture (``static``).
        rng: Chooses the pairs.
        cases: At most so many for each AU.

    Raises:
        ConfigError: If there is no pair of pictures to try any AU with, or a quadruple is of a
            shard without fields.
    """
    faces: list[_Face] = []
    for quad in quadruples:
        UnitFields.of(quad, 0)  # refuses shards without fields before all the work
        for i in range(4):
            tokens, aus_lr = model.encode(quad.rgb[i])
            faces.append(
                _Face(
                    quad.rgb[i],
                    quad.people[i // 2],
                    quad.aus_lr[i].astype(np.float64),
                    tokens,
                    aus_lr.astype(np.float64),
                    crop_landmarks(tracker, quad.rgb[i]),
                    quad,
                    i,
                )
            )
    response = np.full((NUM_AUS, NUM_AUS), np.nan)
    reads, beside = np.full(NUM_AUS, np.nan), np.full(NUM_AUS, np.nan)
    used = np.zeros(NUM_AUS, np.int64)
    for k in range(NUM_AUS):
        level = np.array([face.label[k] for face in faces])
        more = (level[None, :] - level[:, None]).max(2)
        pairs = [
            (t, s)
            for t, s in np.argwhere(more >= ASKED_CHANGE)
            if faces[t].person != faces[s].person
        ]
        if not pairs:
            continue
        chosen = rng.choice(len(pairs), size=min(cases, len(pairs)), replace=False)
        gains = np.zeros(NUM_AUS, np.float32)
        gains[k] = 1.0
        changes, read, asked, other, motion = [], [], [], [], []
        for target, source in ((faces[t], faces[s]) for t, s in (pairs[c] for c in chosen)):
            asked_lr = source.label[k] - target.label[k]
            answer = model.answer(target.rgb, source.tokens, gains, target.landmarks_xy)
            there = moved_alone(target.fields, k, asked_lr)
            apart = taken_apart(there, answer.flow_xy, answer.keep, k, asked_lr)
            changes.append(apart.motion_px)
            other.append(apart.other_px)
            motion.append(apart.asked_px)
            asked.append(asked_lr)
            read.append(source.read[k] - target.read[k])
        response[k] = np.mean(changes, axis=0) / max(float(np.mean(motion)), 1e-6)
        reads[k] = np.sum(np.multiply(read, asked)) / np.sum(np.square(asked))
        beside[k] = np.sqrt(
            np.mean(np.square(other)) / max(float(np.mean(np.square(motion))), 1e-12)
        )
        used[k] = len(chosen)
    if not used.any():
        raise ConfigError(
            "evaluate_gains: no two pictures of different people in which an AU differs by"
            f" {ASKED_CHANGE}; give more shards"
        )
    return Gains(response, reads, beside, used)


def report_of(gains: Gains) -> dict[str, Any]:
    """JSON-ready, by name of AU."""
    rows = gains.response
    return {
        "response": {
            AU_NAMES[k]: dict(zip(AU_NAMES, rows[k].round(4).tolist(), strict=True))
            for k in range(NUM_AUS)
        },
        "reads": dict(zip(AU_NAMES, gains.reads.round(4).tolist(), strict=True)),
        "beside": dict(zip(AU_NAMES, gains.beside.round(4).tolist(), strict=True)),
        "cases": dict(zip(AU_NAMES, gains.cases.tolist(), strict=True)),
        "own_median": float(np.nanmedian(np.diagonal(rows))),
        "reads_median": float(np.nanmedian(gains.reads)),
        "beside_median": float(np.nanmedian(gains.beside)),
    }


def text(gains: Gains) -> str:
    """The table for people: each AU's own response, and the three others that moved most."""
    lines = [
        "gain of one AU at 1, all others 0: change by motion per change asked for",
        f"{'AU':6}{'cases':>6}{'reads':>7}{'own':>7}{'beside':>8}   moved most besides",
    ]
    for k, name in enumerate(AU_NAMES):
        row = gains.response[k]
        if not gains.cases[k]:
            lines.append(f"{name:6}{0:6d}   no pair of pictures to try it with")
            continue
        order = [j for j in np.argsort(-np.abs(row)) if j != k][:3]
        most = ", ".join(f"{AU_NAMES[j]} {row[j]:+.2f}" for j in order)
        lines.append(
            f"{name:6}{gains.cases[k]:6d}{gains.reads[k]:7.2f}{row[k]:7.2f}"
            f"{gains.beside[k]:8.2f}   {most}"
        )
    medians = [np.nanmedian(v) for v in (gains.reads, np.diagonal(gains.response), gains.beside)]
    lines.append("{:6}{:6}{:7.2f}{:7.2f}{:8.2f}".format("median", "", *medians))
    return "\n".join(lines)


def draw(gains: Gains) -> U8:
    """The matrix as a picture, (H, W, 3) uint8 BGR: rows are the gain that was raised, columns what
    moved; blue up, red down, grey where nothing was tried.
    """
    import cv2

    side = _LABEL_PX + NUM_AUS * _CELL_PX
    sheet = np.full((side, side, 3), 255, np.uint8)
    strength = np.clip(np.nan_to_num(gains.response), -1, 1)[..., None]
    up, down, white = np.array([140, 60, 10.0]), np.array([30, 30, 190.0]), np.full(3, 255.0)
    colour = np.where(strength >= 0, up, down) * np.abs(strength) + white * (1 - np.abs(strength))
    colour[np.isnan(gains.response)] = 200
    cells = np.kron(colour.round().astype(np.uint8), np.ones((_CELL_PX, _CELL_PX, 1), np.uint8))
    sheet[_LABEL_PX:, _LABEL_PX:] = cells
    font, ink = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    for k, name in enumerate(AU_NAMES):
        at = _LABEL_PX + k * _CELL_PX + _CELL_PX // 2 + 5
        cv2.putText(sheet, name, (6, at), font, 0.42, ink, 1, cv2.LINE_AA)
        upright = np.full((_CELL_PX, _LABEL_PX, 3), 255, np.uint8)
        cv2.putText(upright, name, (4, 18), font, 0.42, ink, 1, cv2.LINE_AA)
        x = _LABEL_PX + k * _CELL_PX
        sheet[:_LABEL_PX, x : x + _CELL_PX] = np.rot90(upright)
    return sheet


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0 done, 2 wrong options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate_gains",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--val-shards", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", type=Path, help="model bundle (default: the one installed)")
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=0, help="0 lets the runtime choose")
    parser.add_argument(
        "--limit", type=int, default=60, metavar="N", help="quadruples (default: %(default)s)"
    )
    parser.add_argument(
        "--cases", type=int, default=CASES, metavar="N", help="for each AU (default: %(default)s)"
    )
    parser.add_argument("--any-split", action="store_true", help="shards of training people too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the matrix here too")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw the matrix")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if args.limit < 1 or args.cases < 1:
            raise ConfigError("--limit and --cases must be 1 or more")
        bundle = load_bundle(args.model)
        quadruples = list(read_quadruples(args.val_shards, args.limit, args.any_split))
        with (
            CropModel.of_bundle(bundle, get_backend(args.backend), args.threads) as model,
            MediapipeTracker(static=True) as tracker,
        ):
            gains = measure(model, quadruples, tracker, np.random.default_rng(0), args.cases)
        print(text(gains))
        if args.json:
            about = {"name": bundle.name, "generator_sha256": bundle.generator_sha256}
            write_json(args.json, {"model": about, **report_of(gains)})
        if args.sheet:
            import cv2

            if not cv2.imwrite(str(args.sheet), draw(gains)):
                raise ConfigError(f"--sheet {args.sheet}: cannot be written")
    except RtSwapError as exc:
        print(f"evaluate_gains: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
