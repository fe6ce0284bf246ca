"""Contact sheet of what the data engine makes of some portraits: look at it before training on it.

    python -m training.data.preview --portraits DIR --ict DIR --out sheet.png [--people 8] [--seed
    0]
    python -m training.data.preview --portraits DIR --ict DIR --preset-pictures DIR   (one folder a
    preset, for engines.make_presets)

Columns: the portrait, every preset's recipe, then for the last one the flow from neutral (colour:
    direction, strength:
length), keep, and the neutral picture warped by both, which must look like the preset but for what
cannot be fetched.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import RtSwapError
from rt_swap.expression.recipes import RECIPES, recipe_aus_lr
from training.data.portraits import PortraitEngine, Rejects, list_portraits
from training.data.render import Person, Picture

logger = logging.getLogger(__name__)

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

SHOWN_FLOW = "laugh"


def flow_colours(flow_xy: F32, full_px: float = 16.0) -> U8:
    """(2, S, S) pixels -> (S, S, 3) RGB: hue is direction, strength is length (white at rest)."""
    angle = np.arctan2(flow_xy[1], flow_xy[0])
    length = np.clip(np.hypot(flow_xy[0], flow_xy[1]) / full_px, 0, 1)
    hsv = np.stack([(angle / (2 * np.pi) % 1) * 179, length * 255, np.full_like(length, 255)], -1)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))


def warped(partner: U8, truth: Picture) -> U8:
    """The partner's picture carried over by flow, shade and keep; grey where nothing can be
    fetched.
    """
    size = partner.shape[0]
    axis = np.arange(size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    moved = cv2.remap(
        partner.astype(np.float32), x + truth.flow_xy[0], y + truth.flow_xy[1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE
    )  # fmt: skip
    keep = truth.keep[..., None]
    return np.asarray(
        np.clip(moved * truth.shade[..., None] * keep + 128 * (1 - keep), 0, 255), np.uint8
    )


def row(engine: PortraitEngine, person: Person, untouched: U8) -> U8:
    """One portrait's row of the sheet, RGB."""
    neutral = engine.model.coefficients_from_aus(recipe_aus_lr("neutral"))
    tiles = [untouched]
    truth = None
    for name in RECIPES:
        picture, base = person.render_pair(
            engine.model.coefficients_from_aus(recipe_aus_lr(name)), neutral
        )
        tiles.append(picture.rgb)
        if name == SHOWN_FLOW:
            keep = np.repeat((picture.keep * 255).astype(np.uint8)[..., None], 3, 2)
            truth = [flow_colours(picture.flow_xy), keep, warped(base.rgb, picture)]
    return np.hstack(tiles + (truth or []))


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.preview", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--portraits", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--ict",
        type=Path,
        required=True,
        help="ICT-FaceKit: the packed file's or FaceXModel folder",
    )
    parser.add_argument("--out", type=Path, help="the contact sheet, PNG or JPEG")
    parser.add_argument(
        "--preset-pictures", type=Path, help="folder for <preset>/<person>.png instead of a sheet"
    )
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folding",
        type=float,
        default=0.0,
        metavar="DEPTH",
        help="how deep everybody's skin folds, 1 as generators draw it (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if (args.out is None) == (args.preset_pictures is None):
        parser.error("give either --out or --preset-pictures")
    if args.folding < 0:
        parser.error("--folding must be 0 or more")
    try:
        portraits = list_portraits(args.portraits)
        engine = PortraitEngine(args.ict)
    except RtSwapError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    order = np.random.default_rng(args.seed).permutation(len(portraits))
    rejects, rows, done = Rejects(), [], 0
    for i in order:
        if done == args.people:
            break
        made = engine.person(portraits[i], CROP_SIZE_PX)
        if isinstance(made, str):
            rejects.add(portraits[i], made)
            logger.info("%s/%s: %s", portraits[i].dataset, portraits[i].path.name, made)
            continue
        person = made[0].folding(args.folding)
        if args.preset_pictures is None:
            rows.append(row(engine, person, made[1]))
        else:
            _write_presets(
                engine,
                person,
                args.preset_pictures,
                f"{portraits[i].dataset}_{portraits[i].path.stem}",
            )
        done += 1
    if not done:
        print(
            f"error: none of {len(portraits)} portraits could be fitted: {rejects.by_reason}",
            file=sys.stderr,
        )
        return 1
    logger.info("%d portraits fitted, %d rejected", done, rejects.count())
    if args.out is not None:
        sheet = np.ascontiguousarray(np.vstack(rows)[..., ::-1])
        if not cv2.imwrite(str(args.out), sheet):
            print(f"error: cannot write {args.out}", file=sys.stderr)
            return 1
    return 0


def _write_presets(engine: PortraitEngine, person: Person, folder: Path, stem: str) -> None:
    neutral = engine.model.coefficients_from_aus(recipe_aus_lr("neutral"))
    for name in RECIPES:
        picture, _ = person.render_pair(
            engine.model.coefficients_from_aus(recipe_aus_lr(name)), neutral
        )
        (folder / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name / f"{stem}.png"), picture.rgb[..., ::-1])


if __name__ == "__main__":
    sys.exit(main())
