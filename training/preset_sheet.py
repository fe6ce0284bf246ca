"""A sheet of real faces with the named presets on them: one row a person, to be looked at.

    python -m training.preset_sheet --portraits DIR --out sheet.png
    python -m training.preset_sheet --portraits DIR --out glasses.png --theme glasses

Each held-out portrait goes through the shipped pipeline once per preset, as a user's picture would.
``--theme`` takes portraits from the edge of what was trained: those that were made for it (the
synthetic set's file names say so), or, for "turned" (by the manifest) and "dim", that measure so.
The sheet shows real people: look at it, do not publish it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from rt_swap import Swapper, geometry
from rt_swap.errors import ConfigError, RtSwapError, SourceError
from rt_swap.frames import U8, FrameStatus
from rt_swap.io.picture import read_picture
from rt_swap.tracking import FaceTracker, MediapipeTracker
from training.data.portraits import Portrait, list_portraits
from training.data.split import split_of

PRESETS: Final = (
    "neutral", "smile", "laugh", "surprise", "anger", "sadness", "disgust", "fear", "wink",
)  # fmt: skip
CELL_PX: Final = 176
MARGIN: Final = -0.1
"""Air around the aligned crop, of its side; what is less than none is cut off."""
TURNED_DEG: Final = 20.0
DIM_LEVEL: Final = 70.0
"""Mean grey level of the face crop's middle under which a picture counts as dim."""


def _named(*words: str) -> Callable[[Portrait, float, float], bool]:
    def fits(portrait: Portrait, yaw_deg: float, level: float) -> bool:
        name = portrait.path.name.lower()
        return portrait.dataset == "sfhq_t2i" and any(word in name for word in words)

    return fits


THEMES: Final[dict[str, Callable[[Portrait, float, float], bool]]] = {
    "glasses": _named("glasses"),
    "beards": _named("facial_hair"),
    "hats": _named("hats"),
    "makeup": _named("makeup"),
    "light": _named("lighting"),
    "age": _named("_age_top", "age_male", "age_female"),
    "marks": _named("bad_things", "physical_char"),
    "turned": lambda portrait, yaw_deg, level: abs(yaw_deg) >= TURNED_DEG,
    "dim": lambda portrait, yaw_deg, level: level < DIM_LEVEL,
}
"""What ``--theme`` takes: (portrait, yaw in degrees, mean grey level of the face) -> bool."""


@dataclass(frozen=True)
class Row:
    """One person: the picture as it is and with each preset, cells (CELL_PX, CELL_PX, 3) BGR.

    Attributes:
        name: Data set and file.
        cells: Untouched, then PRESETS in their order.
        changed: Mean |output - picture| over the cell, 0..255, one for each preset.
    """

    name: str
    cells: tuple[U8, ...]
    changed: tuple[float, ...]


def yaws(folder: Path) -> dict[str, float]:
    """Head turns that a folder's manifest knows, degrees, by file name; {} without a manifest."""
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    said = json.loads(path.read_text(encoding="utf-8"))
    return {str(p["file"]): float(p.get("yaw_deg", 0.0)) for p in said["pictures"]}


def choose(
    portraits: Sequence[Portrait], split: str, theme: str | None, rng: np.random.Generator
) -> Iterator[Portrait]:
    """Portraits of a split ("any" for all) in random order, those of a theme where one is given.

    Raises:
        ConfigError: If there is no such theme.
    """
    if theme is not None and theme not in THEMES:
        raise ConfigError(f"--theme {theme}: there are {', '.join(THEMES)}")
    held_out = [p for p in portraits if split in ("any", split_of(p.dataset, p.person))]
    known: dict[Path, dict[str, float]] = {}
    for index in rng.permutation(len(held_out)):
        portrait = held_out[index]
        if theme is not None:
            folder = portrait.path.parent
            if folder not in known:
                known[folder] = yaws(folder)
            level = 255.0
            if theme == "dim":
                grey = cv2.cvtColor(read_picture(portrait.path), cv2.COLOR_BGR2GRAY)
                h, w = grey.shape
                level = float(grey[h * 3 // 10 : h * 7 // 10, w * 3 // 10 : w * 7 // 10].mean())
            yaw = known[folder].get(portrait.path.name, 0.0)
            if not THEMES[theme](portrait, yaw, level):
                continue
        yield portrait


def make_row(swapper: Swapper, tracker: FaceTracker, portrait: Portrait) -> Row | str:
    """Put every preset on one portrait; what stood in the way where that cannot be done."""
    try:
        picture = read_picture(portrait.path)
    except SourceError as exc:
        return str(exc)
    faces = tracker.detect(picture)
    if not faces:
        return "no face found"
    M_crop = geometry.crop_from_landmarks(faces[0].landmarks_xy)
    inner = CELL_PX * (1 - 2 * MARGIN)
    M_cell = geometry.compose(
        np.array([[inner / 256, 0, MARGIN * CELL_PX], [0, inner / 256, MARGIN * CELL_PX]]), M_crop
    )

    def cell(frame: U8) -> U8:
        scale = geometry.scale_of(M_cell)
        if scale < 0.8:  # fewer pixels: average first
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), 0.4 / scale), np.uint8)
        small = cv2.warpAffine(
            frame,
            geometry.to_cv2(M_cell),
            (CELL_PX, CELL_PX),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(small, np.uint8)

    cells, changed = [cell(picture)], []
    for name in PRESETS:
        swapper.reset()
        result = swapper.process(picture, swapper.preset(name))
        if result.status != FrameStatus.SWAPPED:
            return f"{name}: {result.status.value}"
        cells.append(cell(result.frame.frame_bgr))
        changed.append(float(np.abs(cells[-1].astype(np.int16) - cells[0]).mean()))
    return Row(f"{portrait.dataset}/{portrait.path.name}", tuple(cells), tuple(changed))


def draw(rows: Sequence[Row]) -> U8:
    """(H, W, 3) uint8 BGR: a line of names, then the rows."""
    head = np.full((22, CELL_PX * (len(PRESETS) + 1), 3), 255, np.uint8)
    for i, name in enumerate(("as it is", *PRESETS)):
        cv2.putText(
            head, name, (CELL_PX * i + 6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1,
            cv2.LINE_AA,
        )  # fmt: skip
    return np.ascontiguousarray(np.vstack([head, *(np.hstack(row.cells) for row in rows)]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.preset_sheet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    parser.add_argument(
        "--portraits", type=Path, nargs="+", required=True, help="folders of portraits"
    )
    parser.add_argument("--model", type=Path, help="model bundle (default: the one installed)")
    parser.add_argument("--people", type=int, default=40, help="rows (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="who (default: %(default)s)")
    parser.add_argument(
        "--split",
        choices=("val", "test", "any"),
        default="val",
        help="which held-out people: val to look at while a model is made, test to report on; any "
        "for invented people (default: %(default)s)",
    )
    parser.add_argument("--theme", choices=tuple(THEMES), help="only such portraits")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for wrong options or data."""
    args = _parser().parse_args(argv)
    try:
        if args.people < 1:
            raise ConfigError("--people must be 1 or more")
        portraits = list_portraits(args.portraits)
        rows: list[Row] = []
        left_out: list[str] = []
        with (
            Swapper.load(args.model, cache=None) as swapper,
            MediapipeTracker(static=True) as tracker,
        ):
            rng = np.random.default_rng(args.seed)
            for portrait in choose(portraits, args.split, args.theme, rng):
                row = make_row(swapper, tracker, portrait)
                if isinstance(row, str):
                    left_out.append(f"{portrait.dataset}/{portrait.path.name} ({row})")
                    continue
                rows.append(row)
                if len(rows) == args.people:
                    break
        if not rows:
            raise ConfigError(
                "no held-out portrait with a face fits; give --portraits more folders"
                + (f". Left out: {', '.join(left_out)}" if left_out else "")
            )
        if not cv2.imwrite(str(args.out), draw(rows)):
            raise ConfigError(f"--out {args.out}: cannot be written")
    except RtSwapError as exc:
        print(f"preset_sheet: {exc}", file=sys.stderr)
        return 2
    for row in rows:
        print(
            f"{row.name:60}"
            + " ".join(f"{n} {c:.1f}" for n, c in zip(PRESETS, row.changed, strict=True))
        )
    print(
        f"{args.out}: {len(rows)} people, {len(PRESETS)} presets; left out: "
        f"{', '.join(left_out) or 'nobody'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
