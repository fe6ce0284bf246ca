"""Reads training shards (format 3) and makes batches: mirrored, moved, recoloured, degraded;
deterministic by a cursor.

Convention:
    A batch of Q quadruples is a batch of N = 4 Q pictures; picture i of quadruple q is row 4 q
    + i, i as in the format:
    0: A with a, 1: A with m, 2: B with b, 3: B with n. Partners are 0<->1 and 2<->3. Flow,
    keep, shade and region of a
    row describe that picture as seen *from its partner*.

What a batch holds is a pure function of (shards, options, seed, cursor, size), so a resumed run
sees the same data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rt_swap.aus import AU_NAMES, NUM_AUS, AuId
from rt_swap.contract import CROP_SIZE_PX, NUM_LANDMARKS
from rt_swap.errors import ConfigError, ContractError
from training.config import LOOK_XYXY, AugmentConfig
from training.data.correspond import mirror_landmarks
from training.data.layout import FIELDS_SIDE, FLOW_UNITS_PER_PX, FORMAT, NOTHING
from training.data.nudge import added, draw_change, way_back
from training.data.occlude import draw_occluder, occlude
from training.data.reshape import Shapes, shapes_of
from training.data.reshape import way_back as reshaped_back

REGION_NAMES: Final = ("background", "face", "mouth interior", "eyeball", "lips", "lids")
PARTNER: Final = (1, 0, 3, 2)
"""The same person's other picture, within a quadruple."""
DONOR: Final = (2, 3, 0, 1)
"""The other person's picture that drives this one."""
DONOR_BASE: Final = (3, 2, 1, 0)
"""The other person's picture that shows this one's expression (where gains are 1)."""
LANDMARK_TREMBLE_PX: Final = 0.25
LANDMARK_OFF_PX: Final = 0.4
"""Standard deviations of what is added to landmarks in training, pixels of a 256-px crop."""
_BEND_POINTS: Final = 4
"""Points a side at which a face is bent at random."""

_LAYOUT: Final[dict[str, tuple[str, tuple[int | str, ...]]]] = {
    "rgb": ("uint8", ("Q", 4, "S", "S", 3)),
    "aus_lr": ("float32", ("Q", 4, NUM_AUS, 2)),
    "gains": ("float32", ("Q", NUM_AUS)),
    "people": ("int32", ("Q", 2)),
    "real": ("uint8", ("R", "S", "S", 3)),
}
_SWAPS: Final[dict[str, tuple[str, tuple[int | str, ...]]]] = {
    "flow": ("int16", ("Q", 4, 2, "S", "S")),
    "keep": ("uint8", ("Q", 4, "S", "S")),
    "shade": ("uint8", ("Q", 4, "S", "S")),
    "region": ("uint8", ("Q", 4, "S", "S")),
}
"""Shards of pictures only lack these."""
_FIELDS: Final[dict[str, tuple[str, tuple[int | str, ...]]]] = {
    "fields": ("int8", ("Q", 4, FIELDS_SIDE, FIELDS_SIDE, NUM_AUS, 2, 2)),
    "step_px": ("float32", ("Q", 4, NUM_AUS, 2)),
}
"""Shards of pictures only lack these, too."""
_LANDMARKS: Final[dict[str, tuple[str, tuple[int | str, ...]]]] = {
    "landmarks": ("float32", ("Q", 4, NUM_LANDMARKS, 3)),
}
"""Shards of pictures only lack these, too, until training.data.landmarks adds them."""


@dataclass(frozen=True)
class Shard:
    """One opened shard; arrays are memory-mapped and read-only, shapes as in the format.

    Attributes:
        path: Its directory.
        meta: shard.json.
        arrays: By file stem.
    """

    path: Path
    meta: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]

    @property
    def quadruples(self) -> int:
        """Q."""
        return len(self.arrays["gains"])


def open_shard(path: Path) -> Shard:
    """Open and check a shard.

    Raises:
        ConfigError: If files are missing or unreadable, or the format is another.
        ContractError: If shapes, types or the order of AUs are not this version's; all
            mismatches are listed.
    """
    try:
        meta = json.loads((path / "shard.json").read_text())
        swaps = () if meta.get("pictures_only") else _SWAPS
        known = [n for more in (_FIELDS, _LANDMARKS) for n in more if (path / f"{n}.npy").exists()]
        arrays = {
            stem: np.load(path / f"{stem}.npy", mmap_mode="r", allow_pickle=False)
            for stem in (*_LAYOUT, *swaps, *known)
        }
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"open_shard: {path} cannot be read as a training shard: {exc}; "
            "make it again with the data engine"
        ) from exc
    if meta.get("format") != FORMAT:
        raise ConfigError(
            f"open_shard: {path} has format {meta.get('format')!r}, this reader takes {FORMAT}; "
            "make it again with the data engine"
        )
    if tuple(meta.get("aus", ())) != AU_NAMES:
        raise ContractError(
            f"open_shard: the AUs of {path} are not rt_swap.aus' in its order; "
            "make the shard again",
            expected=", ".join(AU_NAMES),
            actual=", ".join(map(str, meta.get("aus", ()))),
        )
    size_of = {"Q": meta.get("quadruples"), "S": meta.get("size_px")}
    faults = []
    for stem, (dtype, dims) in {**_LAYOUT, **_SWAPS, **_FIELDS, **_LANDMARKS}.items():
        if stem not in arrays:
            continue
        want = tuple(size_of.get(d, "R") if isinstance(d, str) else d for d in dims)
        have = arrays[stem]
        fits = len(have.shape) == len(want) and all(
            w == "R" or w == h for w, h in zip(want, have.shape, strict=True)
        )
        if not fits or have.dtype != np.dtype(dtype):
            faults.append(f"{stem}: expected {dtype} {want}, got {have.dtype} {have.shape}")
    if faults:
        raise ContractError(f"open_shard: {path}: {'; '.join(faults)}; make the shard again")
    return Shard(path, meta, arrays)


def find_shards(paths: Sequence[Path]) -> list[Path]:
    """Directories that are shards: each path itself, or its children named ``shard_*``, sorted.

    Raises:
        ConfigError: If a path holds none.
    """
    found: list[Path] = []
    for path in paths:
        if (path / "shard.json").is_file():
            found.append(path)
            continue
        children = sorted(p.parent for p in path.glob("shard_*/shard.json"))
        if not children:
            raise ConfigError(
                f"find_shards: {path} is no shard and holds no shard_*/shard.json; check the path"
            )
        found.extend(children)
    return found


class ShardSet:
    """Several shards as one list of quadruples.

    Args:
        paths: Shards, or folders of shards.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.shards = [open_shard(path) for path in find_shards(paths)]
        sizes = {shard.meta["size_px"] for shard in self.shards}
        if len(sizes) != 1:
            raise ConfigError(
                f"ShardSet: shards have different sizes {sorted(sizes)}; use one size at a time"
            )
        self.size_px: int = sizes.pop()
        self.without_fields = [s.path for s in self.shards if "fields" not in s.arrays]
        """Those that do not say what each unit does."""
        self.without_landmarks = [s.path for s in self.shards if "landmarks" not in s.arrays]
        """Those that do not say where faces are."""
        self.pictures_only = [s.path for s in self.shards if "flow" not in s.arrays]
        """Those that serve an encoder alone."""
        self.folding = [s.path for s in self.shards if s.meta.get("folding")]
        """Those in which skin folds."""
        self._starts = np.cumsum([0, *(shard.quadruples for shard in self.shards)])
        if not len(self):
            raise ConfigError(f"ShardSet: no quadruples in {', '.join(map(str, paths))}")
        self._real_starts = np.cumsum([0, *(len(shard.arrays["real"]) for shard in self.shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def real_count(self) -> int:
        """Untouched real crops in all shards."""
        return int(self._real_starts[-1])

    def quadruple(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """Arrays of one quadruple, by file stem, without the leading Q; views of the files."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard, row = self.shards[number], index - int(self._starts[number])
        return {stem: array[row] for stem, array in shard.arrays.items() if stem != "real"}

    def real(self, index: int) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 RGB, a real crop."""
        number = int(np.searchsorted(self._real_starts, index, side="right")) - 1
        picture: npt.NDArray[np.uint8] = self.shards[number].arrays["real"][
            index - int(self._real_starts[number])
        ]
        return picture

    def mean_landmarks(self, pictures: int = 2000) -> npt.NDArray[np.float64]:
        """(478, 2) pixels: the mean over about so many pictures with landmarks, evenly spread.

        Raises:
            ConfigError: If no picture of those has any.
        """
        known = np.concatenate(
            [s.arrays["landmarks"][..., :2].reshape(-1, NUM_LANDMARKS, 2) for s in self.shards]
        )
        some = known[:: max(len(known) // pictures, 1)].astype(np.float64)
        some = some[~np.isnan(some).any((1, 2))]
        if not len(some):
            raise ConfigError(
                f"mean_landmarks: no face was found in {self.shards[0].path} and the others; "
                "what are these pictures of?"
            )
        mean: npt.NDArray[np.float64] = some.mean(axis=0)
        return mean

    def shapes(self) -> Shapes:
        """How the shapes of the people in the shards differ.

        Raises:
            ConfigError: If a shard does not say where faces are, or they show too few people.
        """
        if self.without_landmarks:
            raise ConfigError(
                f"augment.reshape: {len(self.without_landmarks)} of {len(self.shards)} shards to "
                f"read do not say where faces are ({self.without_landmarks[0]} ...); add it: "
                f"python -m training.data.landmarks {self.without_landmarks[0].parent}"
            )
        points, aus, people, known = [], [], [], 0
        for shard in self.shards:
            who = np.asarray(shard.arrays["people"], np.int64) + known
            known += len(shard.meta["people"])
            people.append(np.repeat(who, 2, axis=1).ravel())  # A, A, B, B
            aus.append(np.asarray(shard.arrays["aus_lr"]).reshape(-1, NUM_AUS, 2))
            seen = np.asarray(shard.arrays["landmarks"][..., :2], np.float64)
            points.append(seen.reshape(-1, NUM_LANDMARKS, 2) * (CROP_SIZE_PX / self.size_px))
        return shapes_of(np.concatenate(points), np.concatenate(aus), np.concatenate(people))

    def positive_rates(self, threshold: float) -> npt.NDArray[np.float64]:
        """(K,) how often each AU's larger side reaches the threshold, at least 0.02."""
        aus = np.concatenate(
            [np.asarray(s.arrays["aus_lr"]).max(-1).reshape(-1, NUM_AUS) for s in self.shards]
        )
        return np.maximum((aus >= threshold).mean(0), 0.02)

    def people(self) -> set[tuple[str, str]]:
        """(dataset, file) of everybody named in the shards."""
        return {(p["dataset"], p["file"]) for shard in self.shards for p in shard.meta["people"]}


def shards_for_swaps(paths: Sequence[Path], option: str) -> ShardSet:
    """Shards that a swap can be learned from or judged by.

    Args:
        paths: Shards, or folders of shards.
        option: Which option named them, for the message.

    Raises:
        ConfigError: If some hold pictures only, or as ShardSet.
        ContractError: As ShardSet.
    """
    shards = ShardSet(paths)
    if shards.pictures_only:
        raise ConfigError(
            f"{option}: {shards.pictures_only[0]} holds pictures only, without the answers of "
            "swaps; such shards are for --reading-shards, others are made without --pictures-only"
        )
    return shards


def mirror_order() -> npt.NDArray[np.int64]:
    """(K,) which unit of a face its mirror image shows as unit k: looking left and right change
    places, all others stay.
    """
    order = np.arange(NUM_AUS)
    left, right = AuId.AU61.index, AuId.AU62.index
    order[[left, right]] = right, left
    return order


def mirror_aus(aus: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Intensities or gains of the mirrored face.

    Args:
        aus: (..., K, 2) [left, right], or (..., K) gains.

    Returns:
        The same shape: sides exchanged, and looking left exchanged with looking right.
    """
    order = mirror_order()
    if aus.shape[-1] == 2 and aus.ndim >= 2 and aus.shape[-2] == NUM_AUS:
        return np.ascontiguousarray(aus[..., order, ::-1])
    return np.ascontiguousarray(aus[..., order])


@dataclass(frozen=True)
class Batch:
    """N = 4 Q pictures, see the module's convention.

    Attributes:
        rgb: (N, 3, S, S) float32 in [0, 1].
        look_rgb: (N, 3, 192, 176), what the networks see of them (training.networks.encoder.look),
            at the shards' full size, degraded for some.
        flow_xy: (N, 2, S, S) float32 pixels of this size.
        keep: (N, 1, S, S) float32 in [0, 1].
        shade_log2: (N, 1, S, S) float32.
        region: (N, 1, S, S) uint8.
        aus_lr: (N, K, 2) float32.
        gains: (Q, K) float32.
        real_rgb: (R, 3, S, S) float32 untouched real crops.
        fields: (M, 2K, 2, 48, 44) float32 what a unit of each intensity does to what some of the
            pictures show, pixels of a 256-px crop, at a quarter of the look's size; M may be 0.
        fields_seen: (M, 1, 48, 44) bool, where they are known.
        fields_row: (M,) int64, whose they are.
        landmarks_xy: (N, 478, 2) float32 of the faces shown, pixels of a 256-px crop; N is 0 where
            nobody asked for them.
    """

    rgb: Tensor
    look_rgb: Tensor
    flow_xy: Tensor
    keep: Tensor
    shade_log2: Tensor
    region: Tensor
    aus_lr: Tensor
    gains: Tensor
    real_rgb: Tensor
    fields: Tensor
    fields_seen: Tensor
    fields_row: Tensor
    landmarks_xy: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; pictures that enter networks in channels-last order."""
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        for name in ("rgb", "look_rgb", "real_rgb"):
            moved[name] = moved[name].contiguous(memory_format=torch.channels_last)
        return Batch(**moved)


class BatchMaker:
    """Makes batches from shards.

    Args:
        shards: Where from.
        augment: How much to vary, or None for none (validation).
        seed: Of order and variation.
        fields: Whether the fields of the units are wanted; all else is the same without. They come
            with augmentation only, and where all shards have them.
        landmarks: Whether it is wanted where faces are.
        shapes: What people of pictures that are only read are lent, as much as ``augment.reshape``
            says; None for nothing. All shards must say where faces are.

    Raises:
        ConfigError: If landmarks are wanted and a shard has none.
    """

    def __init__(
        self,
        shards: ShardSet,
        augment: AugmentConfig | None,
        seed: int,
        *,
        fields: bool = False,
        landmarks: bool = False,
        shapes: Shapes | None = None,
    ) -> None:
        self.shards, self.augment, self.seed = shards, augment, seed
        self._shapes = shapes if augment is not None and augment.reshape > 0 else None
        self._fields = fields and augment is not None and not shards.without_fields
        self._mean_landmarks: npt.NDArray[np.float64] | None = None
        if landmarks:
            if shards.without_landmarks:
                raise ConfigError(
                    f"batch: {len(shards.without_landmarks)} of {len(shards.shards)} shards do not "
                    f"say where faces are ({shards.without_landmarks[0]} ...); add it: "
                    f"python -m training.data.landmarks {shards.without_landmarks[0].parent}"
                )
            self._mean_landmarks = shards.mean_landmarks()
            self._mirrored = mirror_landmarks(self._mean_landmarks)

    def index_at(self, cursor: int) -> int:
        """Which quadruple comes at a position of the endless, per-epoch shuffled order."""
        epoch, position = divmod(cursor, len(self.shards))
        if self.augment is None:
            return position
        return int(self._order(epoch)[position])

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        cached = getattr(self, "_cached_order", None)
        if cached is None or cached[0] != epoch:
            cached = (
                epoch,
                np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.shards)),
            )
            self._cached_order = cached
        order: npt.NDArray[np.int64] = cached[1]
        return order

    def batch(
        self,
        cursor: int,
        quadruples: int,
        size_px: int,
        *,
        instructions: bool = True,
        real: bool = True,
    ) -> Batch:
        """The batch that starts at a cursor.

        Args:
            cursor: Quadruples used before it.
            quadruples: Q.
            size_px: Side of the pictures; the shards' side must be a multiple.
            instructions: Whether flow, keep, shade and region are wanted; without, they are empty
                and the batch is made faster.
            real: Whether real crops are wanted; without, there are none, and all else is the same.

        Raises:
            ConfigError: If the size does not divide the shards', or instructions are wanted of
                shards that hold pictures only.
        """
        if instructions and self.shards.pictures_only:
            raise ConfigError(
                f"batch: {self.shards.pictures_only[0]} holds pictures only; leave instructions out"
            )
        if self.shards.size_px % size_px:
            raise ConfigError(
                f"batch: {size_px} px does not divide the shards' {self.shards.size_px} px"
            )
        rng = np.random.default_rng((self.seed, 2, cursor))
        which = np.random.default_rng((self.seed, 5, cursor))  # pictures stay as they are without
        trembling = np.random.default_rng((self.seed, 6, cursor))
        lending = np.random.default_rng((self.seed, 7, cursor))
        rows, fields, landmarks = [], [], []
        for q in range(quadruples):
            raw = self.shards.quadruple(self.index_at(cursor + q))
            flip = bool(self.augment is not None and rng.random() < self.augment.flip)
            if self.augment is not None and self.augment.occlude > 0:
                raw = self._occluded(raw, rng, self.augment.occlude)
            row, geometries = self._quadruple(raw, size_px, rng, instructions, flip, which, lending)
            rows.append(row)
            if instructions and self._mean_landmarks is not None:
                landmarks.append(self._landmarks(raw, geometries, flip, trembling))
            if instructions and self._fields:
                # of one picture of each person: all would take as long as all the rest
                for person, geometry in enumerate(geometries):
                    i = 2 * person + int(which.integers(2))
                    fields.append((*fields_of(raw, i, geometry, flip), 4 * q + i))
        stacked = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
        return Batch(
            rgb=to_tensor(stacked["rgb"]),
            look_rgb=to_tensor(stacked["look"]),
            flow_xy=torch.from_numpy(stacked["flow"]),
            keep=torch.from_numpy(stacked["keep"])[:, None].float() / 255.0,
            shade_log2=torch.from_numpy(stacked["shade_log2"])[:, None],
            region=torch.from_numpy(stacked["region"])[:, None],
            aus_lr=torch.from_numpy(stacked["aus_lr"]),
            gains=torch.from_numpy(stacked["gains"]),
            real_rgb=self._real(2 * quadruples if instructions and real else 0, size_px, rng),
            fields=_stacked([f for f, _, _ in fields], (2 * NUM_AUS, 2, *_CELLS_HW)),
            fields_seen=_stacked([s for _, s, _ in fields], (1, *_CELLS_HW)) > 0,
            fields_row=torch.tensor([r for _, _, r in fields], dtype=torch.int64),
            landmarks_xy=_stacked([x for row in landmarks for x in row], (NUM_LANDMARKS, 2)),
        )

    def _real(self, count: int, size_px: int, rng: np.random.Generator) -> Tensor:
        if not self.shards.real_count or not count:
            return torch.zeros(0, 3, size_px, size_px)
        pictures = []
        for index in rng.integers(0, self.shards.real_count, count):
            flip = bool(rng.random() < 0.5 and self.augment)
            geometry = self.draw_geometry(flip, rng)
            picture = warp_picture(
                np.asarray(self.shards.real(int(index))), *geometry.maps(size_px)
            )
            pictures.append(picture)
        return to_tensor(np.stack(pictures))

    def draw_geometry(self, flip: bool, rng: np.random.Generator) -> Geometry:
        """Where one person's pictures come from; all of a person's in a batch share it.

        Args:
            flip: Mirrored.
            rng: Source of chance.
        """
        full = self.shards.size_px
        linear, shift, bend = np.eye(2), np.zeros(2), None
        if self.augment is not None:
            a = self.augment
            angle = math.radians(float(rng.uniform(-a.rotate_deg, a.rotate_deg)))
            scale = 1.0 + float(rng.uniform(-a.scale, a.scale))
            cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
            linear = np.array([[cos, -sin], [sin, cos]])
            shift = rng.uniform(-a.shift_px, a.shift_px, 2) * (full / 256.0)
            if a.bend_px > 0:
                linear = linear @ np.diag(1.0 + rng.uniform(-0.02, 0.02, 2) * a.bend_px)
                points = rng.standard_normal((_BEND_POINTS, _BEND_POINTS, 2), np.float32)
                bend = points * np.float32(a.bend_px * full / 256.0)
        if flip:
            linear = linear @ np.diag([-1.0, 1.0])
        return Geometry(full, linear, shift, bend)

    def _occluded(
        self, raw: dict[str, npt.NDArray[Any]], rng: np.random.Generator, chance: float
    ) -> dict[str, npt.NDArray[Any]]:
        """The quadruple with something in front of some of its people."""
        for person in range(2):
            if rng.random() >= chance:
                continue
            if not raw["rgb"].flags.writeable:
                names = [n for n in ("rgb", *_SWAPS) if n in raw] + ["fields"] * self._fields
                raw = {k: v for k, v in raw.items() if k != "fields" or self._fields}
                raw |= {k: np.array(raw[k]) for k in names}
            first = raw["rgb"][2 * person]
            if "region" in raw:
                skin = first[raw["region"][2 * person] == REGION_NAMES.index("face")]
            else:  # of pictures only: the middle of the crop is face
                side = len(first)
                middle = slice(side * 3 // 8, side * 5 // 8)
                skin = first[middle, middle].reshape(-1, 3)
            if not len(skin):
                continue
            texture = first
            if self.shards.real_count:
                texture = self.shards.real(int(rng.integers(self.shards.real_count)))
            tone = np.median(skin, axis=0).astype(np.float32)
            occlude(raw, person, draw_occluder(rng, self.shards.size_px, tone, texture))
        return raw

    def _quadruple(
        self,
        raw: dict[str, npt.NDArray[Any]],
        size_px: int,
        rng: np.random.Generator,
        instructions: bool,
        flip: bool,
        which: np.random.Generator,
        lending: np.random.Generator,
    ) -> tuple[dict[str, npt.NDArray[Any]], list[Geometry]]:
        """The quadruple's arrays, and each person's geometry."""
        nudge = self.augment is not None and not instructions and self._fields
        aus_lr, gains = np.array(raw["aus_lr"]), np.array(raw["gains"])
        a, full = self.augment, self.shards.size_px
        x0, y0, x1, y1 = (round(v * full / CROP_SIZE_PX) for v in LOOK_XYXY)
        rgb = np.empty((4, size_px, size_px, 3), np.uint8)
        look = np.empty((4, LOOK_XYXY[3] - LOOK_XYXY[1], LOOK_XYXY[2] - LOOK_XYXY[0], 3), np.uint8)
        side = size_px if instructions else 0
        flow = np.empty((4, 2, side, side), np.float32)
        keep, region = (np.empty((4, side, side), np.uint8) for _ in range(2))
        shade_log2 = np.empty((4, side, side), np.float32)
        geometries = []
        for person in range(2):
            geometry = self.draw_geometry(flip, rng)
            geometries.append(geometry)
            maps = geometry.maps(full)
            at_full = FixedMaps(*maps)
            table, gamma, mixer = (None, 1.0, None) if a is None else colours_of(a, rng)
            lent = None
            if self._shapes is not None and a is not None and not instructions:
                lent = self._shapes.draw(lending, a.reshape)
            for i in (2 * person, 2 * person + 1):
                place, at_place = at_full, maps
                if lent is not None:
                    at_place = self._reshaped(raw["landmarks"][i], lent, maps)
                    place = FixedMaps(*at_place)
                if nudge and a is not None and which.random() < a.nudge:
                    back, change = way_back(
                        raw["fields"][i], raw["step_px"][i], draw_change(aus_lr[i], which), full
                    )
                    aus_lr[i] += change
                    place = FixedMaps(*added(at_place, back, full))
                picture = place.warp(raw["rgb"][i])
                if table is not None:
                    picture = cv2.LUT(cv2.transform(picture, mixer), table)
                rgb[i] = _resized(picture, (size_px, size_px))
                if a is not None and rng.random() < a.degrade:
                    picture = degraded(picture, rng)
                look[i] = _resized(picture[y0:y1, x0:x1], look.shape[1:3])
            if not instructions:
                continue
            at = at_full
            if size_px != full:
                maps = geometry.maps(size_px)
                at = FixedMaps(*maps)
            back = [entry / np.float32(FLOW_UNITS_PER_PX) for entry in geometry.back(*maps)]
            for i in (2 * person, 2 * person + 1):
                fx, fy = (
                    at.warp(raw["flow"][i, axis], border=0).astype(np.float32) for axis in range(2)
                )
                flow[i, 0] = back[0] * fx + back[1] * fy
                flow[i, 1] = back[2] * fx + back[3] * fy
                keep[i] = at.warp(raw["keep"][i], border=255)
                region[i] = at.warp(raw["region"][i], border=0, nearest=True)
                shade = at.warp(raw["shade"][i], border=128).astype(np.float32)
                shade_log2[i] = (shade - 128.0) * (gamma / 64.0)
        if flip:
            aus_lr, gains = mirror_aus(aus_lr), mirror_aus(gains)
        row = {
            "rgb": rgb,
            "look": look,
            "flow": flow,
            "keep": keep,
            "region": region,
            "shade_log2": shade_log2,
            "aus_lr": aus_lr,
            "gains": gains[None],
        }
        return row, geometries

    def _reshaped(
        self,
        landmarks: npt.NDArray[np.float32],
        way_xy: npt.NDArray[np.float32],
        maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Maps that fetch from a picture whose landmarks, (478, 3), have gone a way; as they are
        where no face was found.
        """
        seen = np.asarray(landmarks[:, :2], np.float32)
        if np.isnan(seen).any():
            return maps
        full = self.shards.size_px
        return added(maps, reshaped_back(seen * (CROP_SIZE_PX / full), way_xy, full), full)

    def _landmarks(
        self,
        raw: dict[str, npt.NDArray[Any]],
        geometries: list[Geometry],
        flip: bool,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.float32]:
        """(4, 478, 2) pixels of a 256-px crop, as a batch shows the quadruple. A face that the
        tracker did not find is taken to be where faces are.
        """
        assert self._mean_landmarks is not None
        out = np.empty((4, NUM_LANDMARKS, 2), np.float32)
        for i in range(4):
            seen = np.asarray(raw["landmarks"][i][:, :2], np.float64)
            if np.isnan(seen).any():
                seen = self._mean_landmarks
            there = geometries[i // 2].points(seen) * (CROP_SIZE_PX / self.shards.size_px)
            out[i] = there[self._mirrored] if flip else there
        if self.augment is not None:
            # a face mesh trembles a little, and lies a little off as a whole
            noise = rng.standard_normal((4, NUM_LANDMARKS, 2)) * LANDMARK_TREMBLE_PX
            out += noise + rng.standard_normal((4, 1, 2)) * LANDMARK_OFF_PX
        return out


@dataclass(frozen=True)
class Geometry:
    """Where each pixel of a batch's picture comes from: moved, turned, scaled, bent.

    Attributes:
        full_px: Side of the shard's picture.
        linear: (2, 2), shard's pixels from pixels of a moved picture of the same size, about the
            centre.
        shift: (2,) the same.
        bend: (n, n, 2) float32 pixels on a coarse grid over the picture, added before ``linear``;
            None for none.
    """

    full_px: int
    linear: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    bend: npt.NDArray[np.float32] | None

    def maps(self, size_px: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """X and y, (size, size) float32 each, in the shard's picture; OpenCV's counting, from
        pixel centres.
        """
        at = (np.arange(size_px) + 0.5) * (self.full_px / size_px) - self.full_px / 2
        x, y = np.broadcast_to(at, (size_px, size_px)), np.broadcast_to(at[:, None], (size_px,) * 2)
        if self.bend is not None:
            bend = cv2.resize(self.bend, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
            x, y = x + bend[..., 0], y + bend[..., 1]
        (a, b), (c, d) = self.linear
        centre = self.full_px / 2 + self.shift - 0.5
        return (
            (a * x + b * y + centre[0]).astype(np.float32),
            (c * x + d * y + centre[1]).astype(np.float32),
        )

    def points(self, xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Where points of the shard's picture are in the moved one: the other way than the maps.

        Args:
            xy: (..., 2) pixels of the shard's picture, counted from its corner.

        Returns:
            The same shape, pixels of a moved picture of the same size.
        """
        half = self.full_px / 2
        straight = (xy - half - self.shift) @ np.linalg.inv(self.linear).T
        if self.bend is None:
            return np.asarray(straight + half)
        whole = (self.full_px, self.full_px)
        bend = cv2.resize(self.bend, whole, interpolation=cv2.INTER_CUBIC)
        at = straight
        for _ in range(3):  # a bend is a pixel or two and smooth: each round is a tenth as far off
            place = (at + half - 0.5).astype(np.float32).reshape(-1, 1, 2)
            there = cv2.remap(bend, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            at = straight - there.reshape(xy.shape)
        return np.asarray(at + half)

    def back(
        self, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.floating[Any]] | float, ...]:
        """The four entries, row by row, of the matrix that turns a short way in the shard's picture
        into one in the batch's: the inverse of the maps' Jacobian (one number each where nothing
        bends).

        A way is short where the bend does not change along it: for the longest flows, some 20 px,
        that is wrong by a few tenths of a pixel.
        """
        a: Any
        if self.bend is None:
            (a, b), (c, d) = self.linear * (self.full_px / x.shape[0])
        else:
            (b, a), (d, c) = np.gradient(x), np.gradient(y)
        determinant = a * d - b * c
        return d / determinant, -b / determinant, -c / determinant, a / determinant


LOOK_CELLS: Final = tuple(
    slice(
        LOOK_XYXY[i] * FIELDS_SIDE // CROP_SIZE_PX, LOOK_XYXY[i + 2] * FIELDS_SIDE // CROP_SIZE_PX
    )
    for i in (1, 0)
)
"""Rows and columns of a field's cells that lie in the look."""
_CELLS_HW: Final = tuple(cells.stop - cells.start for cells in LOOK_CELLS)


def fields_of(
    raw: dict[str, npt.NDArray[Any]], picture: int, geometry: Geometry, flip: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What a unit of each intensity does to a picture of a quadruple, as a batch shows it.

    Args:
        raw: The quadruple.
        picture: Which of its four.
        geometry: Where the batch's picture comes from.
        flip: Whether it is mirrored: units then change sides, as in :func:`mirror_aus`.

    Returns:
        (2K, 2, 48, 44) pixels of a 256-px crop, in the look, and (1, 48, 44), 1 where the mesh is.
    """
    to_cells = FIELDS_SIDE / geometry.full_px
    maps = geometry.maps(FIELDS_SIDE)
    # the middle of a cell lies half a cell from its corner, as a pixel's does
    x, y = (((place[LOOK_CELLS] + 0.5) * to_cells - 0.5).astype(np.float32) for place in maps)
    steps = raw["fields"][picture].reshape(FIELDS_SIDE, FIELDS_SIDE, -1)
    there = steps[..., 0] != NOTHING
    unsigned = steps.view(np.uint8) ^ np.uint8(128)  # OpenCV takes no signed bytes: 128 more
    unsigned[~there] = 128
    value = cv2.remap(unsigned, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    whole = cv2.remap(there.astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=0)
    seen = whole > 0.99
    fields = value.reshape(*_CELLS_HW, 2 * NUM_AUS, 2).astype(np.float32) - np.float32(128)
    fields *= raw["step_px"][picture].reshape(-1, 1)
    # ways of the shard's picture become ways of the batch's: in cells, then pixels
    a, b, c, d = (
        np.broadcast_to(v, (FIELDS_SIDE, FIELDS_SIDE))[LOOK_CELLS][..., None]
        * np.float32(CROP_SIZE_PX / FIELDS_SIDE)
        for v in geometry.back(*maps)
    )
    fx, fy = fields[..., 0], fields[..., 1]
    moved = np.stack([a * fx + b * fy, c * fx + d * fy]).astype(np.float32)  # (2, H, W, 2K)
    if flip:
        moved = moved.reshape(2, *_CELLS_HW, NUM_AUS, 2)[..., mirror_order(), ::-1]
        moved = moved.reshape(2, *_CELLS_HW, -1)
    moved = np.where(seen[..., None], moved, np.float32(0.0))
    return np.ascontiguousarray(moved.transpose(3, 0, 1, 2)), seen[None].astype(np.float32)


def _stacked(arrays: list[npt.NDArray[np.float32]], shape: tuple[int, ...]) -> Tensor:
    if not arrays:
        return torch.zeros(0, *shape)
    return torch.from_numpy(np.stack(arrays))


class FixedMaps:
    """Places of Geometry.maps in OpenCV's fixed point, made once for all arrays that are read
    there: remap makes its own from floats each time, which costs as much as the reading.
    """

    def __init__(self, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> None:
        """(H, W) each, pixels."""
        self._linear = cv2.convertMaps(x, y, cv2.CV_16SC2)
        self._xy = x, y
        self._nearest: npt.NDArray[np.int16] | None = None

    def warp(
        self, array: npt.NDArray[Any], border: int | None = None, nearest: bool = False
    ) -> npt.NDArray[Any]:
        """Resample (H, W[, 3]); bilinear at half size averages 2x2 pixels. border None
        replicates.
        """
        mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
        value = 0 if border is None else border
        array = np.ascontiguousarray(array)
        if not nearest:
            return cv2.remap(
                array, *self._linear, cv2.INTER_LINEAR, borderMode=mode, borderValue=value
            )
        if self._nearest is None:
            # OpenCV rounds ties inconsistently at half size; step off them
            x, y = (place + np.float32(1e-3) for place in self._xy)
            self._nearest = cv2.convertMaps(x, y, cv2.CV_16SC2, nninterpolation=True)[0]
        return cv2.remap(
            array, self._nearest, None, cv2.INTER_NEAREST, borderMode=mode, borderValue=value
        )


def warp_picture(
    array: npt.NDArray[Any], x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]
) -> npt.NDArray[Any]:
    """Resample (H, W[, 3]) at the places of Geometry.maps, once; edges are replicated."""
    return FixedMaps(x, y).warp(array)


def _resized(picture: npt.NDArray[np.uint8], size_hw: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) -> (*size_hw, 3), averaging where it gets smaller."""
    height, width = size_hw
    if picture.shape[:2] == (height, width):
        return picture
    how = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def colours_of(
    a: AugmentConfig, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], float, npt.NDArray[np.float32]]:
    """A person's light and camera.

    Returns:
        A (1, 256, 3) uint8 look-up table, its gamma (for shade's logarithm), and a (3, 3) float32
        matrix that mixes the channels before it.
    """
    gamma = float(np.exp2(rng.uniform(-a.gamma, a.gamma)))
    contrast = 1.0 + float(rng.uniform(-a.contrast, a.contrast))
    brightness = float(rng.uniform(-a.brightness, a.brightness))
    tint = 1.0 + rng.uniform(-a.colour, a.colour, 3)
    x = (np.arange(256) / 255.0)[:, None] ** gamma
    x = ((x - 0.5) * contrast + 0.5 + brightness * 0.5) * (1.0 + brightness * 0.5) * tint
    mixer = np.eye(3) + rng.standard_normal((3, 3)) * a.mix_colours
    mixer /= mixer.sum(1, keepdims=True)
    table = np.clip(np.rint(x * 255.0), 0, 255).astype(np.uint8)[None]
    return table, gamma, mixer.astype(np.float32)


def degraded(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Blur, camera noise, JPEG or low resolution, one of them. (S, S, 3) uint8 -> the same."""
    side = picture.shape[0]
    kind = int(rng.integers(4))
    if kind == 0:
        sigma = float(rng.uniform(0.4, 1.6)) * side / 256.0 + 0.2
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)
    if kind == 1:
        noise = rng.standard_normal((side, side, 1), np.float32) * np.float32(
            rng.uniform(2.0, 10.0)
        )
        return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)
    if kind == 2:
        ok, coded = cv2.imencode(
            ".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))]
        )
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8) if ok else picture
    small = max(int(side * float(rng.uniform(0.4, 0.8))), 8)
    low = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(low, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def to_tensor(pictures: npt.NDArray[np.uint8]) -> Tensor:
    """(N, S, S, 3) uint8 -> (N, 3, S, S) float32 in [0, 1], channels-last in memory."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255.0)
