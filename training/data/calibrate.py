r"""Where the tracker sees the landmarks of people at rest, against the face model's own points.

    python -m training.data.calibrate --ict ../shared/data/ict_facekit --at-rest neutral_ f.jpg \
        m.jpg --portraits ../shared/data/portraits/london ../shared/data/portraits/canada

A fit with no expression at all leaves something over in every face. What faces have in common of it
is no expression of theirs but a difference between what the tracker and the model call, say, the
end of a brow. Its mean, symmetric, turned into the model's own space, is written to
``landmark_offsets.json`` and added to the model's points in every fit (training.data.correspond).
Identities are fitted with the offsets of the round before, so a few rounds are made.

Only people who train are looked at. Of them nothing is kept but the mean.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import F64
from training.data import correspond, ict
from training.data.fit import Fit, Fitter
from training.data.portraits import list_portraits
from training.data.split import split_of

logger = logging.getLogger(__name__)

ROUNDS = 4
MIN_PEOPLE = 20
"""Fewer are no mean."""
MOST_YAW_DEG = 20.0
_DIGITS = 4


def left_over(fitter: Fitter, fit: Fit, landmarks_xy: F64) -> F64:
    """What a fit leaves over at its pairs, as the model's own space has it.

    Args:
        fitter: Made the fit.
        fit: Of a face at rest.
        landmarks_xy: (478, 2) pixels, what was fitted.

    Returns:
        (N, 3) model units, from the point of the fitted face, offsets included, to the landmark;
        what lies along the line of sight is not seen and 0.
    """
    pairs = fitter.pairs
    points = fitter.identity_shape(fit.identity)[pairs.vertices] + pairs.offsets
    said = fitter.project(fit, points, residual=False)[:, :2]
    miss = (landmarks_xy[pairs.landmarks] - said) / fit.scale
    seen = np.stack([miss[:, 0], -miss[:, 1], np.zeros(len(miss))], 1)
    return np.asarray(seen @ fit.rotation)


def symmetric(offsets: F64, mirrored: npt.NDArray[np.int64]) -> F64:
    """The mean of offsets and their mirror image.

    Args:
        offsets: (N, 3) model units.
        mirrored: (N,) the pair on the other side (correspond.mirror_pairs).
    """
    other = offsets[mirrored] * (-1.0, 1.0, 1.0)
    return np.asarray((offsets + other) / 2)


def calibrate(
    fitter: Fitter, faces: Sequence[tuple[F64, F64]], rounds: int = ROUNDS
) -> tuple[F64, list[float]]:
    """Find the offsets that faces at rest have in common.

    Args:
        fitter: Its pairs' offsets are where this starts from; they are put back.
        faces: Landmarks (478, 2) and depths (478,) of each, pixels.
        rounds: Of fitting and taking the mean.

    Returns:
        (N, 3) offsets, model units, and how much was added to them in each round, root mean square.
    """
    before = fitter.pairs
    mirrored = correspond.mirror_pairs(fitter.model, before.vertices)
    added = []
    try:
        for _ in range(rounds):
            rest = [
                left_over(fitter, fitter.fit(xy, depth, at_rest=True), xy) for xy, depth in faces
            ]
            more = symmetric(np.mean(rest, axis=0), mirrored)
            added.append(float(np.sqrt((more**2).sum(1).mean())))
            offsets = (fitter.pairs.offsets + more).astype(np.float32)
            fitter.pairs = replace(fitter.pairs, offsets=offsets)
        return fitter.pairs.offsets.astype(np.float64), added
    finally:
        fitter.pairs = before


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.calibrate", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--portraits", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--ict", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--at-rest", nargs="+", default=["neutral"], metavar="TEXT",
        help="portraits whose file name has one of these in it are faces at rest",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=correspond.OFFSETS_PATH, metavar="FILE")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        said = _run(args.portraits, args.ict, args.at_rest)
    except RtSwapError as exc:
        print(f"calibrate: {exc}", file=sys.stderr)
        return 2
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(f"{said['people']} people at rest; added per round {said['added']} -> {args.out}")
    return 0


def _run(folders: list[Path], ict_path: Path, at_rest: list[str]) -> dict[str, object]:
    from rt_swap.tracking import MediapipeTracker

    model = ict.load(ict_path)
    fitter = Fitter(model, correspond.build(model, None))
    faces = []
    seen: set[tuple[str, str]] = set()
    with MediapipeTracker(static=True) as tracker:
        for portrait in list_portraits(folders):
            named = any(text in portrait.path.name for text in at_rest)
            if not named or split_of(portrait.dataset, portrait.person) != "train":
                continue
            if (portrait.dataset, portrait.person) in seen:
                logger.warning("left out, there is one of the same person: %s", portrait.path.name)
                continue
            picture = cv2.imread(str(portrait.path), cv2.IMREAD_COLOR)
            if picture is None:
                logger.warning("left out, cannot be read as a picture: %s", portrait.path.name)
                continue
            found = tracker.detect(picture)
            if not found:
                logger.warning("left out, no face found: %s", portrait.path.name)
                continue
            face = found[0].landmarks_xy, found[0].depth
            # what lies along the line of sight is not seen: of turned heads, that is width
            yaw_deg = fitter.fit(*face, at_rest=True).yaw_deg
            if abs(yaw_deg) > MOST_YAW_DEG:
                logger.warning("left out, turned by %.0f degrees: %s", yaw_deg, portrait.path.name)
                continue
            faces.append(face)
            seen.add((portrait.dataset, portrait.person))
    if len(faces) < MIN_PEOPLE:
        raise ConfigError(
            f"only {len(faces)} people who train have a portrait with {' or '.join(at_rest)} in "
            f"its name that shows a face from the front, {MIN_PEOPLE} are needed; give other "
            "--portraits or --at-rest"
        )
    offsets, added = calibrate(fitter, faces)
    return {
        "what": "from the face model's vertex to where the tracker sees the landmark, model units",
        "people": len(faces),
        "datasets": sorted({dataset for dataset, _ in seen}),
        "added": [round(x, _DIGITS) for x in added],
        "offsets": {
            str(landmark): [round(float(x), _DIGITS) for x in offset]
            for landmark, offset in zip(fitter.pairs.landmarks, offsets, strict=True)
        },
    }


if __name__ == "__main__":
    sys.exit(main())
