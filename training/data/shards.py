"""Render training pictures to shards on disk.

    python -m training.data.shards --portraits DIR [DIR ...] --ict DIR --out DIR --shards 8 --split
    train

A shard is a folder of plain ``.npy`` arrays and a ``shard.json``. It holds Q quadruples of
pictures, each of two people
A and B: A with expression a, A with m = a + g (b - a), B with b, B with n = b + g (a - b), where g
is 0 or 1 per AU. So
every picture is the target of a swap whose result was rendered: the published cross-cycle, with a
ground truth.

    rgb.npy    (Q, 4, S, S, 3) uint8      flow.npy   (Q, 4, 2, S, S) int16, 1/64 px, to picture i
    from its partner
    keep.npy   (Q, 4, S, S) uint8         shade.npy  (Q, 4, S, S) uint8, 2 ** ((v - 128) / 64)
    region.npy (Q, 4, S, S) uint8         aus_lr.npy (Q, 4, K, 2) float32
    gains.npy  (Q, K) float32             people.npy (Q, 2) int32 into shard.json "people"
    fields.npy (Q, 4, F, F, K, 2, 2) int8 how each unit of intensity moves what is shown, order (x,
    y), in steps of step_px.npy (Q, 4, K, 2) float32 pixels; -128 where the face's mesh is not
    landmarks.npy (Q, 4, 478, 3) float32 pixels, where the tracker sees the face (see
    training.data.landmarks); NaN where it sees none
    real.npy   (R, S, S, 3) uint8 untouched crops

``--pictures-only`` leaves out flow, keep, shade, region, fields, steps and landmarks: pictures for
the encoder alone, nearly twice as many in the same time, in a fifth of the room.

Each shard depends on the seed, the split, its own number, ``--mixed``, ``--reshaped``,
``--folding`` and ``--pictures-only`` alone, so a run can be continued and repeated.

``--mixed`` makes people who are not in the portraits: a part of those drawn is mixed in shape and
skin with another of the same split that was drawn shortly before. ``shard.json`` names both.
``--reshaped`` gives a part of the people a face of nobody's shape, out of those of people drawn
shortly before, about as far from the mean as theirs. A network that reads expressions would else
know the resting faces of its few people by heart.
``--folding`` gives a part of the people skin that folds, each to its own depth: the face model's
mesh is too coarse for frown lines and crow's feet (training.networks.folds). Such shards are for
reading and for judging; swaps are learned without, for generators draw folds as they are used.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError
from training.data.expressions import draw_expression, draw_gains, mix
from training.data.layout import FIELDS_SIDE, FLOW_UNITS_PER_PX, FORMAT, NOTHING, write_folder
from training.data.portraits import Portrait, PortraitEngine, Rejects, list_portraits
from training.data.render import REGIONS, Person, Picture
from training.data.split import SPLITS, split_of

logger = logging.getLogger(__name__)

QUADRUPLES_PER_PAIR = 2
PICTURES_ONLY_PER_PAIR = 4
"""More of each, for without flow and fields fitting a person is a larger part of the work."""
REAL_PER_SHARD = 64
RECENT_PEOPLE = 8
"""So many people are kept ready to be mixed with the next, or to lend it their shapes."""
FOLD_DEPTHS = (0.4, 1.8)
"""Between these lies how deep a folding person's folds are; 1 is what generators draw."""
RESHAPED_SPREAD = 1.2
"""How far what is lent lies from the mean, against the lenders themselves; with what stays of their
own, new shapes are about a seventh farther from it than fitted ones.
"""


def write_shard(
    engine: PortraitEngine, portraits: list[Portrait], out: Path, index: int, *, split: str,
        quadruples: int,
    seed: int, size_px: int = CROP_SIZE_PX, mixed: float = 0.0, reshaped: float = 0.0,
    folding: float = 0.0, pictures_only: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Render one shard.

    Args:
        engine: Fits and draws.
        portraits: Those of the split.
        out: Folder that will hold ``shard_00000``.
        index: The shard's number.
        split: "train", "val" or "test", for the record and the seed.
        quadruples: Q.
        seed: Of the run.
        size_px: Side of the crops.
        mixed: Part of the people that is mixed with another, in [0, 1].
        reshaped: Part of the people whose face gets a shape of nobody's, in [0, 1].
        folding: Part of the people whose skin folds, in [0, 1].
        pictures_only: Leave out all that a swap needs and a reading does not.

    Returns:
        What shard.json says.
    """
    folder = out / f"shard_{index:05d}"
    rng = np.random.default_rng([seed, index, SPLITS.index(split)])
    rejects = Rejects()
    S, Q = size_px, quadruples
    arrays: dict[str, npt.NDArray[Any]] = {
        "rgb": np.zeros((Q, 4, S, S, 3), np.uint8),
        "aus_lr": np.zeros((Q, 4, NUM_AUS, 2), np.float32),
        "gains": np.zeros((Q, NUM_AUS), np.float32),
        "people": np.zeros((Q, 2), np.int32),
    }
    if not pictures_only:
        arrays |= {
            "flow": np.zeros((Q, 4, 2, S, S), np.int16),
            "keep": np.zeros((Q, 4, S, S), np.uint8),
            "shade": np.zeros((Q, 4, S, S), np.uint8),
            "region": np.zeros((Q, 4, S, S), np.uint8),
            "fields": np.zeros((Q, 4, FIELDS_SIDE, FIELDS_SIDE, NUM_AUS, 2, 2), np.int8),
            "step_px": np.zeros((Q, 4, NUM_AUS, 2), np.float32),
        }
    people: list[Portrait] = []
    mixed_with: list[Portrait | None] = []
    is_reshaped: list[bool] = []
    fold_depths: list[float] = []
    recent: list[tuple[Person, Portrait]] = []
    real: list[npt.NDArray[np.uint8]] = []
    order = iter(
        rng.permutation(
            np.tile(np.arange(len(portraits)), 1 + 4 * Q // max(len(portraits), 1))
        ).tolist()
    )

    def next_person(others: list[Portrait]) -> tuple[Person, list[Portrait]]:
        """Somebody who is none of the others and mixed with none; and who is in them."""
        for i in order:
            portrait = portraits[i]
            taken = {(p.dataset, p.person) for p in others}
            if (portrait.dataset, portrait.person) in taken:
                continue
            made = engine.person(portrait, S, rng)
            if isinstance(made, str):
                rejects.add(portrait, made)
                continue
            people.append(portrait)
            if len(real) < REAL_PER_SHARD:
                real.append(made[1])
            person, second = made[0], None
            taken.add((portrait.dataset, portrait.person))
            ready = [r for r in recent if (r[1].dataset, r[1].person) not in taken]
            if mixed > 0 and ready and rng.random() < mixed:
                partner, second = ready[rng.integers(len(ready))]
                # not all of either: a skin of two has the features of both, a little softer
                person = person.mixed(partner, rng.uniform(0.2, 0.8), rng.uniform(0.0, 0.6))
            # of one other alone there is only the line between the two
            is_reshaped.append(reshaped > 0 and len(ready) > 1 and rng.random() < reshaped)
            if is_reshaped[-1]:
                own = rng.uniform(0.0, 1.0)
                spread = RESHAPED_SPREAD * (1 - own**2) ** 0.5 / len(ready) ** 0.5
                weights = rng.normal(0.0, spread, len(ready)).astype(np.float32)
                person = person.reshaped([r[0] for r in ready], own, weights)
            folds = folding > 0 and rng.random() < folding
            fold_depths.append(float(rng.uniform(*FOLD_DEPTHS)) if folds else 0.0)
            person = person.folding(fold_depths[-1])
            if mixed > 0 or reshaped > 0:
                recent.append((made[0], portrait))
                del recent[:-RECENT_PEOPLE]
            mixed_with.append(second)
            return person, [portrait] if second is None else [portrait, second]
        raise ConfigError(
            f"only {len(people)} of {len(portraits)} portraits of split {split!r} could be used: "
            f"{ {k: len(v) for k, v in rejects.by_reason.items()} }"
        )

    q = 0
    while q < Q:
        person_a, in_a = next_person([])
        person_b, _ = next_person(in_a)
        together = PICTURES_ONLY_PER_PAIR if pictures_only else QUADRUPLES_PER_PAIR
        for _ in range(min(together, Q - q)):
            a, b = (_expression(rng, engine, p) for p in (person_a, person_b))
            gains = draw_gains(rng, a, b)
            aus = (a, mix(a, b, gains), b, mix(b, a, gains))
            coefficients = [engine.model.coefficients_from_aus(x) for x in aus]
            arrays["aus_lr"][q] = aus
            if pictures_only:
                for i, person in enumerate((person_a, person_a, person_b, person_b)):
                    arrays["rgb"][q, i] = person.render(coefficients[i])
            else:
                pictures = (
                    *person_a.render_pair(*coefficients[:2]),
                    *person_b.render_pair(*coefficients[2:]),
                )
                for i, picture in enumerate(pictures):
                    _store(arrays, q, i, picture)
            arrays["gains"][q] = gains
            arrays["people"][q] = len(people) - 2, len(people) - 1
            q += 1
    if not pictures_only:
        arrays["landmarks"] = engine.landmarks(arrays["rgb"])

    said = {
        "format": FORMAT,
        "size_px": S,
        "quadruples": Q,
        "seed": seed,
        "index": index,
        "split": split,
        "mixed": mixed,
        "reshaped": reshaped,
        "folding": folding,
        "pictures_only": pictures_only,
        "aus": list(AU_NAMES),
        "regions": list(REGIONS),
        "people": [
            {
                "file": p.path.name,
                "dataset": p.dataset,
                "person": p.person,
                **({} if second is None else {"mixed_with": f"{second.dataset}/{second.person}"}),
                **({"reshaped": True} if new_shape else {}),
                **({"fold_depth": round(depth, 3)} if depth else {}),
            }
            for p, second, new_shape, depth in zip(
                people, mixed_with, is_reshaped, fold_depths, strict=True
            )
        ],
        "rejected": rejects.by_reason,
    }
    write_folder(folder, {**arrays, "real": np.stack(real)}, said, "shard.json")
    return said


def _expression(
    rng: np.random.Generator, engine: PortraitEngine, person: Person
) -> npt.NDArray[np.float32]:
    """Mostly a drawn expression; now and then the portrait's own, which is a real picture."""
    if rng.random() < 0.12:
        return engine.model.aus_from_coefficients(person.expression)
    return draw_expression(rng)


def _store(arrays: dict[str, npt.NDArray[Any]], q: int, i: int, picture: Picture) -> None:
    limit = np.iinfo(np.int16).max
    arrays["rgb"][q, i] = picture.rgb
    arrays["flow"][q, i] = np.rint(picture.flow_xy * FLOW_UNITS_PER_PX).clip(-limit, limit)
    arrays["keep"][q, i] = np.rint(picture.keep * 255)
    arrays["shade"][q, i] = np.rint(np.log2(picture.shade.clip(0.26, 3.9)) * 64 + 128)
    arrays["region"][q, i] = picture.region
    arrays["fields"][q, i], arrays["step_px"][q, i] = in_steps(picture.unit_fields)


def in_steps(
    fields: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Fields of units in eight bits.

    Args:
        fields: (F, F, 2K, 2) pixels; NaN where there is nothing to say.

    Returns:
        (F, F, K, 2, 2) steps, NOTHING where there is nothing to say, and (K, 2) pixels per step:
        a 127th of the largest of each unit.
    """
    seen = ~np.isnan(fields[..., 0, 0])
    values = np.where(seen[..., None, None], fields, 0.0)
    step_px = np.abs(values).max((0, 1, 3)) / 127.0
    steps = np.rint(values / np.maximum(step_px, 1e-9)[:, None]).astype(np.int8)
    steps[~seen] = NOTHING
    return (
        steps.reshape(*fields.shape[:2], NUM_AUS, 2, 2),
        step_px.reshape(NUM_AUS, 2).astype(np.float32),
    )


def portraits_of_split(folders: list[Path], split: str) -> list[Portrait]:
    """Portraits whose people belong to "train", "val" or "test" (whole people, by hash)."""
    return [p for p in list_portraits(folders) if split_of(p.dataset, p.person) == split]


def _worker(
    task: tuple[list[Portrait], Path, Path, list[int], str, int, int, float, float, float, bool],
) -> None:
    (
        portraits, ict_path, out, indices, split, quadruples, seed, mixed, reshaped, folding,
        pictures_only,
    ) = task  # fmt: skip
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    engine = PortraitEngine(ict_path)
    for index in indices:
        if (out / f"shard_{index:05d}" / "shard.json").is_file():
            logger.info("shard %d is there already", index)
            continue
        start = time.perf_counter()
        said = write_shard(
            engine, portraits, out, index, split=split, quadruples=quadruples, seed=seed,
            mixed=mixed, reshaped=reshaped, folding=folding, pictures_only=pictures_only,
        )  # fmt: skip
        took = time.perf_counter() - start
        rejected = {k: len(v) for k, v in said["rejected"].items()}
        logger.info(
            "shard %d: %d pictures of %d people in %.0f s (%.1f pictures/s); rejected %s",
            index, 4 * quadruples, len(said["people"]), took, 4 * quadruples / took, rejected,
        )  # fmt: skip


def _check_existing(out: Path, indices: list[int], args: argparse.Namespace) -> None:
    """Shards that are there already are taken as they are: they must be what was asked for."""
    for index in indices:
        path = out / f"shard_{index:05d}" / "shard.json"
        if not path.is_file():
            continue
        said = json.loads(path.read_text(encoding="utf-8"))
        if said.get("format") != FORMAT:
            raise ConfigError(
                f"{path.parent} is there already, in format {said.get('format')!r}, which training "
                f"does not take any more (it takes {FORMAT}); use another --out, or delete it"
            )
        for name, default in (
            ("seed", 0), ("split", ""), ("quadruples", 0), ("mixed", 0.0), ("reshaped", 0.0),
            ("folding", 0.0), ("pictures_only", False),
        ):  # fmt: skip
            if said.get(name, default) != getattr(args, name):
                raise ConfigError(
                    f"{path.parent} is there already, with {name} {said.get(name, default)!r} and "
                    f"not {getattr(args, name)!r}; use another --out or --first, or delete it"
                )


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.shards",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument(
        "--portraits", type=Path, nargs="+", required=True, help="folders of portraits"
    )
    parser.add_argument(
        "--ict",
        type=Path,
        required=True,
        help="ICT-FaceKit: the packed file's or FaceXModel folder",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--shards", type=int, default=8, help="how many (default: %(default)s)")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first (default: %(default)s)"
    )
    parser.add_argument(
        "--quadruples", type=int, default=250, help="per shard (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--mixed",
        type=float,
        default=0.0,
        metavar="PART",
        help="part of the people that is mixed with another, 0 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--reshaped",
        type=float,
        default=0.0,
        metavar="PART",
        help="part of the people whose face gets a shape of nobody's, 0 to 1 (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--folding",
        type=float,
        default=0.0,
        metavar="PART",
        help="part of the people whose skin folds, 0 to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--pictures-only",
        action="store_true",
        help="pictures and intensities alone, for training the encoder (--reading-shards)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.shards < 1 or args.quadruples < 1 or args.workers < 1:
        parser.error("--shards, --quadruples and --workers must be at least 1")
    if not all(0 <= part <= 1 for part in (args.mixed, args.reshaped, args.folding)):
        parser.error("--mixed, --reshaped and --folding must be between 0 and 1")
    try:
        portraits = portraits_of_split(args.portraits, args.split)
    except ConfigError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    indices = list(range(args.first, args.first + args.shards))
    try:
        _check_existing(args.out, indices, args)
    except ConfigError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    workers = min(args.workers, len(indices))
    tasks = [
        (
            portraits,
            args.ict,
            args.out,
            indices[w::workers],
            args.split,
            args.quadruples,
            args.seed,
            args.mixed,
            args.reshaped,
            args.folding,
            args.pictures_only,
        )
        for w in range(workers)
    ]
    # llvmpipe starts a thread a core in each process; one each is faster when there are several
    os.environ.setdefault("LP_NUM_THREADS", "1" if workers > 1 else "2")
    # large arrays come and go with every picture: keep their memory instead of giving it back each
    # time
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 31))
    context = multiprocessing.get_context("spawn")
    if workers == 1:
        _worker(tasks[0])
    else:
        with context.Pool(workers) as pool:
            pool.map(_worker, tasks, chunksize=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
