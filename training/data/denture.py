"""What lies behind lips, as two flat layers that a generator can move about.

    python -m training.data.denture --portraits DIR [DIR ...] --ict DIR --out denture.safetensors

The renderer paints mouths from the model's teeth, gums and tongue. A network that has to paint them
anew for each picture paints their mean: a soft grey band. Drawn once, as pictures in the aligned
crop, they only have to be put where they belong: the upper teeth hang from the skull and the lower
ones from the jaw, whose way is linear in the intensities. Place and motion are means over the fits
of real portraits.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError, RtSwapError
from training.data.dataset import mirror_order
from training.data.ict import RANGES, IctModel
from training.data.portraits import PortraitEngine
from training.data.render import MOUTH_RGB, Person
from training.data.shards import portraits_of_split
from training.networks.mouth import DENTURE_SCALE, DENTURE_XYXY

F32 = npt.NDArray[np.float32]

_FINER: Final = 4
"""Drawn so many times as fine as kept."""
_PEOPLE: Final = 64
"""Whose mean it is."""
_TOOTH_PX: Final = {1.0: 11.0, -1.0: 13.0}
"""Of a lower and an upper tooth so much shows at most, pixels of the crop; the rest is its root."""


@dataclass(frozen=True)
class Denture:
    """The layers.

    Attributes:
        layers: (2, 4, h, w) upper and lower: RGB times alpha, and alpha, in [0, 1], lit from ahead;
            they show DENTURE_XYXY at DENTURE_SCALE.
        by_unit: (2, 2K, 2, 3) how a unit of each intensity moves a layer's point (x, y, 1), pixels
            of the crop from its middle.
    """

    layers: F32
    by_unit: F32


def draw_denture(model: IctModel, people: list[Person]) -> Denture:
    """Draw the layers of people's mean.

    Args:
        model: The face model of all.
        people: At least one, not mixed, at 256 px.

    Returns:
        Layers that are their own mirror images, for half of all training is mirrored; the upper one
        goes with the skull, so no unit moves it.
    """
    rest = np.zeros(len(model.expression_names), np.float32)
    position = np.mean([p.place_of(rest) for p in people], axis=0)
    motion = np.mean([p.motion_of_units() for p in people], axis=0)  # (V, 2K, 2)
    start, end = RANGES["gums_tongue"][0], RANGES["teeth"][1]
    jaw = np.abs(motion[start:end, 2 * AuId.AU26.index, 1])
    lower = jaw > 0.5 * jaw.max()
    light = np.mean([p.mouth_light(rest) for p in people], axis=0)
    inside = np.zeros(len(position), bool)
    inside[start:end] = True
    layers, by_unit = [], []
    upper = ~lower
    for mine in (upper, lower):
        chosen = inside.copy()
        chosen[start:end] = mine
        triangles = model.triangles[chosen[model.triangles].all(1)]
        triangles = _in_front(position, triangles, 1.0 if mine is lower else -1.0)
        middle = position[chosen, :2] - np.float32(CROP_SIZE_PX / 2)
        centred = position.copy()
        centred[:, 0] -= middle[:, 0].mean()
        layer = _drawn(centred, triangles, light)
        half = layer.shape[2] // 2
        layer[:, :, half:] = layer[:, :, :half][:, :, ::-1]
        layers.append(layer)
        if mine is upper:
            by_unit.append(np.zeros((2 * NUM_AUS, 2, 3), np.float32))
            continue
        middle[:, 0] -= middle[:, 0].mean()
        xy1 = np.concatenate([middle, np.ones((len(middle), 1), np.float32)], 1)
        front = position[chosen, 2] >= np.quantile(position[chosen, 2], 0.5)  # what is seen
        solved = np.linalg.lstsq(
            xy1[front], motion[chosen][front].reshape(front.sum(), -1), rcond=None
        )[0]
        one = solved.T.reshape(NUM_AUS, 2, 2, 3)
        other = one[mirror_order()][:, ::-1] * np.array([[1, -1, -1], [-1, 1, 1]], np.float32)
        by_unit.append(((one + other) / 2).reshape(2 * NUM_AUS, 2, 3))
    return Denture(
        np.ascontiguousarray(np.stack(layers), np.float32),
        np.ascontiguousarray(np.stack(by_unit), np.float32),
    )


def _in_front(position: F32, triangles: npt.NDArray[np.int32], up: float) -> npt.NDArray[np.int32]:
    """Those of a jaw that are seen between lips: no roots, and nothing of the upper jaw's inside
    below its incisors, where it would hide the lower teeth.

    Args:
        position: (V, 3) crop pixels.
        triangles: (T, 3) of one jaw.
        up: Which way its teeth grow: 1 up, -1 down.
    """
    teeth = triangles[:, 0] >= RANGES["teeth"][0]
    height = -up * position[triangles, 1]  # along the teeth
    middle = np.abs(position[triangles, 0].mean(1) - position[triangles, 0].mean()) < 8
    edge = height[teeth & middle].max()
    root = teeth & (height.min(1) < edge - _TOOTH_PX[up])
    inside = (height.max(1) > edge + 0.5) & (up < 0)
    return triangles[~root & ~inside]


def _drawn(position: F32, triangles: npt.NDArray[np.int32], light: F32) -> F32:
    """(4, h, w): triangles painted from back to front."""
    x0, y0, x1, y1 = DENTURE_XYXY
    scale = DENTURE_SCALE * _FINER
    size = (round((x1 - x0) * scale), round((y1 - y0) * scale))
    corners = (position[triangles, :2] - np.array([x0, y0], np.float32)) * scale
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    faces = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0  # counter-clockwise, and y goes down
    order = np.argsort(position[triangles, 2].mean(1))
    teeth = triangles[:, 0] >= RANGES["teeth"][0]
    picture = np.zeros((size[1], size[0], 4), np.float32)
    for t in order:
        if not faces[t]:
            continue
        base = np.array(MOUTH_RGB["teeth" if teeth[t] else "gums_tongue"], np.float32) / 255.0
        colour = (*(base * light[triangles[t]].mean()).tolist(), 1.0)
        points = np.rint(corners[t] * 16 - 8).astype(np.int32)
        cv2.fillConvexPoly(picture, points, colour, cv2.LINE_8, 4)
    small = cv2.resize(
        picture, (size[0] // _FINER, size[1] // _FINER), interpolation=cv2.INTER_AREA
    )
    return np.ascontiguousarray(small.transpose(2, 0, 1))


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.denture",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument(
        "--portraits", type=Path, nargs="+", required=True, help="folders of portraits"
    )
    parser.add_argument(
        "--ict",
        type=Path,
        required=True,
        help="ICT-FaceKit: the packed file's folder or FaceXModel",
    )
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--picture", type=Path, help="a picture of the layers to look at (PNG)")
    args = parser.parse_args(argv)
    try:
        portraits = portraits_of_split(args.portraits, "train")
        engine = PortraitEngine(args.ict)
        people: list[Person] = []
        for i in np.random.default_rng(0).permutation(len(portraits)):
            made = engine.person(portraits[i], CROP_SIZE_PX)
            if not isinstance(made, str):
                people.append(made[0])
            if len(people) == _PEOPLE:
                break
        if not people:
            raise ConfigError("none of the portraits could be used; try others")
    except RtSwapError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    denture = draw_denture(engine.model, people)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({"layers": denture.layers, "by_unit": denture.by_unit}, args.out)
    if args.picture:
        shown = [layer[:3] + (1 - layer[3]) * 0.3 for layer in denture.layers]
        picture = (np.concatenate(shown, 2).transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8)
        if not cv2.imwrite(str(args.picture), picture[..., ::-1]):
            print(f"error: cannot write {args.picture}; does its folder exist?", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
