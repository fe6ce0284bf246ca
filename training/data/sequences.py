"""Sequences: one person drives another for a few seconds, with the true answer of every frame.

    python -m training.data.sequences --portraits DIR --ict DIR --out DIR --split test

Expressions come and go as faces do it: from one to the next along minimum-jerk paths, mouths
through the shapes of speech, with blinks and quick eyes. A sequence starts at rest, where nothing
should tremble. Camera noise is on what a network is shown, never on the answer.

A sequence is a folder of ``.npy`` arrays and a ``sequence.json``:

    source.npy  (T, S, S, 3) uint8     target.npy  (T, S, S, 3) uint8
    truth.npy   (T, S, S, 3) uint8: the target with the source's expression, without noise
    flow.npy    (T, 2, S, S) int16, 1/64 px, to the truth from the target
    keep.npy    (T, S, S) uint8        region.npy  (T, S, S) uint8, of the truth
    source_aus.npy, target_aus.npy  (T, K, 2) float32

Each depends on the seed, the split and its own number alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rt_swap.aus import AU_NAMES, NUM_AUS, AuId
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError
from training.data.expressions import draw_expression, draw_viseme, reconcile
from training.data.layout import FLOW_UNITS_PER_PX, write_folder
from training.data.portraits import Portrait, PortraitEngine
from training.data.render import Person
from training.data.shards import portraits_of_split
from training.data.split import SPLITS

logger = logging.getLogger(__name__)

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

FPS: Final = 25
REST_FRAMES: Final = 10
"""At the start nobody moves for so long."""
NOISE_LEVELS: Final = 1.5
"""Standard deviation of a camera's noise, grey levels."""
FORMAT: Final = 1
_GAZE: Final = (AuId.AU61, AuId.AU62, AuId.AU63, AuId.AU64)
_BLINK_S: Final = ((0.0, 0.0), (0.08, 1.0), (0.13, 1.0), (0.32, 0.0))
"""Lids over time: shut in 80 ms, open again in 190."""


def trajectory(rng: np.random.Generator, frames: int, fps: float = FPS) -> F32:
    """Intensities over time.

    Args:
        rng: Source of chance.
        frames: T.
        fps: Frames a second.

    Returns:
        (T, K, 2) in [0, 1]; the first REST_FRAMES are the same.
    """
    start = REST_FRAMES / fps
    times = np.arange(frames) / fps
    face = _through(rng, times, start, (0.6, 1.6), (0.25, 0.6), lambda: _still_eyes(rng))
    if rng.random() < 0.5:  # somebody who talks
        mouth = _through(rng, times, start, (0.12, 0.3), (0.08, 0.14), lambda: draw_viseme(rng))
        face = np.maximum(0.6 * face, mouth)
    eyes = _through(rng, times, start, (0.4, 2.0), (0.06, 0.1), lambda: _gaze(rng))
    out = np.maximum(face, eyes)
    at = start + rng.uniform(0.1, 1.5)
    while at < times[-1]:
        knots, shut = np.array(_BLINK_S).T
        lids = np.interp(times - at, knots, shut).astype(np.float32)
        blink = out[:, AuId.AU45.index]
        out[:, AuId.AU45.index] = np.maximum(blink, lids[:, None])
        at += rng.uniform(1.5, 4.0)
    return np.stack([reconcile(aus) for aus in out])


def _through(
    rng: np.random.Generator,
    times: npt.NDArray[np.float64],
    start: float,
    hold_s: tuple[float, float],
    move_s: tuple[float, float],
    draw: Any,
) -> F32:
    """(T, K, 2) from one drawn state to the next: held, then moved along a minimum-jerk path
    (Flash and Hogan, Journal of Neuroscience 5(7), 1985).
    """
    now = draw()
    out = np.repeat(now[None], len(times), axis=0)
    at = start
    while at < times[-1]:
        after, took = draw(), rng.uniform(*move_s)
        x = np.clip((times - at) / took, 0, 1)
        done = (x**3 * (10 - 15 * x + 6 * x * x)).astype(np.float32)[:, None, None]
        out = out + done * (after - now)
        now, at = after, at + took + rng.uniform(*hold_s)
    return np.asarray(out.clip(0, 1), np.float32)


def _still_eyes(rng: np.random.Generator) -> F32:
    aus = draw_expression(rng)
    aus[[au.index for au in (*_GAZE, AuId.AU45)]] = 0
    return aus


def _gaze(rng: np.random.Generator) -> F32:
    aus = np.zeros((NUM_AUS, 2), np.float32)
    if rng.random() < 0.6:
        aus[_GAZE[rng.integers(2)].index] = rng.beta(1.2, 2.0)
        aus[_GAZE[2 + rng.integers(2)].index] = rng.beta(1.0, 3.0)
    return aus


@dataclass(frozen=True)
class Sequence:
    """A sequence in memory; arrays as in the module's docstring."""

    source: U8
    target: U8
    truth: U8
    flow: npt.NDArray[np.int16]
    keep: U8
    region: U8
    source_aus: F32
    target_aus: F32


def render(
    rng: np.random.Generator,
    engine: PortraitEngine,
    driver: Person,
    driven: Person,
    frames: int,
    size_px: int = CROP_SIZE_PX,
) -> Sequence:
    """Draw a sequence.

    Args:
        rng: Source of chance.
        engine: Whose persons these are.
        driver: The source.
        driven: The target.
        frames: T, an even number.
        size_px: Side of the persons' crops.
    """
    driving, own = trajectory(rng, frames), trajectory(rng, frames)
    to_shape = engine.model.coefficients_from_aus
    S = size_px
    out = Sequence(
        source=np.empty((frames, S, S, 3), np.uint8),
        target=np.empty((frames, S, S, 3), np.uint8),
        truth=np.empty((frames, S, S, 3), np.uint8),
        flow=np.empty((frames, 2, S, S), np.int16),
        keep=np.empty((frames, S, S), np.uint8),
        region=np.empty((frames, S, S), np.uint8),
        source_aus=driving,
        target_aus=own,
    )
    for t in range(0, frames, 2):
        pair = driver.render_pair(to_shape(driving[t]), to_shape(driving[t + 1]))
        out.source[t], out.source[t + 1] = (_seen(rng, picture.rgb) for picture in pair)
    limit = np.iinfo(np.int16).max
    for t in range(frames):
        target, truth = driven.render_pair(to_shape(own[t]), to_shape(driving[t]))
        out.target[t], out.truth[t] = _seen(rng, target.rgb), truth.rgb
        out.flow[t] = np.rint(truth.flow_xy * FLOW_UNITS_PER_PX).clip(-limit, limit)
        out.keep[t] = np.rint(truth.keep * 255)
        out.region[t] = truth.region
    return out


def _seen(rng: np.random.Generator, rgb: U8) -> U8:
    noise = rng.normal(0, NOISE_LEVELS, rgb.shape).astype(np.float32)
    return np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)


def write(folder: Path, sequence: Sequence, about: dict[str, Any]) -> None:
    """Write a sequence's folder, whole or not at all."""
    write_folder(folder, vars(sequence), about, "sequence.json")


def read(folder: Path) -> tuple[Sequence, dict[str, Any]]:
    """Open a sequence; its arrays are memory-mapped.

    Raises:
        ConfigError: If files are missing, unreadable or of another format or list of AUs.
    """
    try:
        about = json.loads((folder / "sequence.json").read_text(encoding="utf-8"))
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in Sequence.__dataclass_fields__
        }
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{folder} cannot be read as a sequence: {exc}; make it again with "
            "training.data.sequences"
        ) from exc
    if about.get("format") != FORMAT or tuple(about.get("aus", ())) != AU_NAMES:
        raise ConfigError(
            f"{folder}: a sequence of another version; make it again with training.data.sequences"
        )
    return Sequence(**arrays), about


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.sequences",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--portraits", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--ict", type=Path, required=True, help="ICT-FaceKit's model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sequences")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--sequences", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=60, help="of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.sequences < 1 or args.frames <= REST_FRAMES or args.frames % 2:
        parser.error(f"--sequences from 1, --frames an even number above {REST_FRAMES}")
    try:
        portraits = portraits_of_split(args.portraits, args.split)
        engine = PortraitEngine(args.ict)
        args.out.mkdir(parents=True, exist_ok=True)
        for index in range(args.sequences):
            folder = args.out / f"sequence_{index:05d}"
            if (folder / "sequence.json").is_file():
                logger.info("%s is there already", folder.name)
                continue
            rng = np.random.default_rng([args.seed, index, SPLITS.index(args.split)])
            pair = _two(rng, engine, portraits, args.split)
            (driver, a), (driven, b) = pair
            sequence = render(rng, engine, driver, driven, args.frames)
            about = {
                "format": FORMAT,
                "fps": FPS,
                "rest_frames": REST_FRAMES,
                "seed": args.seed,
                "index": index,
                "split": args.split,
                "aus": list(AU_NAMES),
                "people": [f"{p.dataset}/{p.path.name}" for p in (a, b)],
            }
            write(folder, sequence, about)
            logger.info("%s: %s drives %s", folder.name, *about["people"])
    except ConfigError as exc:
        print(f"sequences: {exc}", file=sys.stderr)
        return 2
    return 0


def _two(
    rng: np.random.Generator, engine: PortraitEngine, portraits: list[Portrait], split: str
) -> list[tuple[Person, Portrait]]:
    """Two people who can be drawn."""
    found: list[tuple[Person, Portrait]] = []
    for i in rng.permutation(len(portraits)):
        portrait = portraits[i]
        if found and (portrait.dataset, portrait.person) == (
            found[0][1].dataset,
            found[0][1].person,
        ):
            continue
        made = engine.person(portrait, CROP_SIZE_PX, rng)
        if isinstance(made, str):
            logger.info("left out %s: %s", portrait.path.name, made)
            continue
        found.append((made[0], portrait))
        if len(found) == 2:
            return found
    raise ConfigError(f"fewer than two portraits of split {split!r} can be drawn")


if __name__ == "__main__":
    sys.exit(main())
