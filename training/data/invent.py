"""People whom no camera has seen: mixtures of portraits, as portraits of their own.

    python -m training.data.invent --portraits DIR --ict DIR --out DIR --people 12

Each is between two portraits in shape and skin (:meth:`training.data.render.Person.mixed`), with
the first one's hair, clothes and background, at rest. The pictures and a ``manifest.json`` make a
folder of portraits like any other. Made from synthetic portraits they may be shown, where real
sitters may not; from held-out ones, no weights have seen them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rt_swap.errors import ConfigError, RtSwapError
from training.data.portraits import Portrait, PortraitEngine
from training.data.render import Person
from training.data.shards import portraits_of_split
from training.data.split import SPLITS

SIZE_PX = 512


def invent(
    engine: PortraitEngine, portraits: Sequence[Portrait], count: int, seed: int
) -> list[tuple[np.ndarray, Portrait, Portrait]]:
    """Mix pairs of different people, none of whom is used twice.

    Args:
        engine: Fits and draws.
        portraits: Whom to mix.
        count: How many to make.
        seed: Of who is mixed with whom, and how.

    Returns:
        (SIZE_PX, SIZE_PX, 3) uint8 RGB pictures with the two that are in each.

    Raises:
        ConfigError: If there are not enough usable portraits.
    """
    rng = np.random.default_rng(seed)
    made: list[tuple[np.ndarray, Portrait, Portrait]] = []
    waiting: tuple[Person, Portrait] | None = None
    rest = np.zeros(len(engine.model.expression_names), np.float32)
    seen: set[tuple[str, str]] = set()
    for index in rng.permutation(len(portraits)):
        portrait = portraits[index]
        if (portrait.dataset, portrait.person) in seen:
            continue
        found = engine.person(portrait, SIZE_PX)
        if isinstance(found, str):
            continue
        seen.add((portrait.dataset, portrait.person))
        if waiting is None:
            waiting = found[0], portrait
            continue
        person = waiting[0].mixed(found[0], rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.6))
        made.append((person.render_pair(rest, rest)[0].rgb, waiting[1], portrait))
        waiting = None
        if len(made) == count:
            return made
    raise ConfigError(
        f"only {len(made)} of {count} people could be made of {len(portraits)} portraits; "
        "ask for fewer, or give --portraits more folders"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for wrong options or data."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.invent",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--portraits", type=Path, nargs="+", required=True)
    parser.add_argument("--ict", type=Path, required=True, help="ICT-FaceKit's model")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--people", type=int, default=12, help="default: %(default)s")
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="whose portraits (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        if args.people < 1:
            raise ConfigError("--people must be 1 or more")
        if args.out.exists() and any(args.out.iterdir()):
            raise ConfigError(f"--out {args.out}: is not empty; give a new folder")
        portraits = portraits_of_split(args.portraits, args.split)
        made = invent(PortraitEngine(args.ict), portraits, args.people, args.seed)
        args.out.mkdir(parents=True, exist_ok=True)
        pictures = []
        for number, (rgb, one, other) in enumerate(made):
            file = f"invented_{number:03d}.png"
            if not cv2.imwrite(str(args.out / file), np.ascontiguousarray(rgb[..., ::-1])):
                raise ConfigError(f"--out {args.out}: cannot be written")
            parts = [f"{p.dataset}/{p.person}" for p in (one, other)]
            pictures.append({"file": file, "person": file, "mixed_from": parts})
        said = {"name": "invented", "split": args.split, "pictures": pictures}
        (args.out / "manifest.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
    except RtSwapError as exc:
        print(f"invent: {exc}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(made)} people")
    return 0


if __name__ == "__main__":
    sys.exit(main())
