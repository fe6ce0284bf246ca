r"""How people smile, from two pictures of each, one at rest and one that smiles.

    python -m training.smiles --portraits ../shared/data/portraits/london --rest neutral_ \
        --smile smiling_ --checkpoint training/checkpoints/rt-small --out runs/smiling

The face model's smile (the shapes of AU12) lifts the corners of the mouth less than people's do and
drops the chin more. What a checkpoint's tokens say of both pictures, drawn by its mesh, leaves the
rest of the way over; what all people have in common of that, per unit of AU12, is added to what
AU12 does to the points of the mesh (training.networks.mesh). Nothing else changes. Pictures that
the data engine renders smile as the face model does, so the benchmark with ground truth counts the
difference as an error; that real people's smiles arrive, ``training.evaluate --real`` says.

Only people who train are looked at.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rt_swap import geometry
from rt_swap.aus import AuId
from rt_swap.contract import CROP_SIZE_PX, NUM_LANDMARKS
from rt_swap.errors import ConfigError, RtSwapError, SourceError
from rt_swap.frames import F64, U8
from training.checkpoint import load_net
from training.data.correspond import MIDDLE_LANDMARKS, mirror_landmarks
from training.data.portraits import Portrait, list_portraits
from training.data.split import split_of
from training.networks import RtNet
from training.networks.export_graphs import EncoderGraph
from training.networks.mesh import ANCHORS, OUTLINE, FaceMesh

logger = logging.getLogger(__name__)

MIN_PEOPLE: Final = 20
"""Fewer are no mean."""
STILL: Final = (33, 263, 133, 362, 6, 197, 195, 168, 8, 127, 356)
"""Corners of the eyes, bridge of the nose, temples: what moves these is the head or the crop."""
RING_SHARE: Final = (0.8, 0.5, 0.25, 0.1)
"""How much of a smile the points outside the face's outline take part in, outwards."""
SIDE_PX: Final = 6.0
"""About the middle line both sides' smiles move a point, over about this far, 256-px crop."""
_FACE_POINTS: Final = 468
"""Those after are the irises, which a smile does not turn."""


@dataclass(frozen=True)
class Pair:
    """One person's two pictures, cut out as at run time.

    Attributes:
        rest_rgb: (256, 256, 3) uint8.
        smile_rgb: The same.
        rest_xy: (478, 2) landmarks, pixels of the crop.
        smile_xy: The same.
    """

    rest_rgb: U8
    smile_rgb: U8
    rest_xy: F64
    smile_xy: F64


def missing(wanted_xy: F64, drawn_xy: F64, amount: F64) -> F64:
    """What is missing of motions, per unit.

    Args:
        wanted_xy: (N, 478, 2) how landmarks move, pixels of a 256-px crop.
        drawn_xy: (N, 478, 2) how they are drawn.
        amount: (N,) units of it.

    Returns:
        (478, 2), least squares through 0; the irises stand still.

    Raises:
        ConfigError: If nobody shows any.
    """
    total = float((amount**2).sum())
    if total < 1e-6:
        raise ConfigError("smiles: nobody smiles in these pictures; are --rest and --smile right?")
    found = np.tensordot(amount, wanted_xy - drawn_xy, 1) / total
    found[_FACE_POINTS:] = 0.0
    return np.asarray(found)


def own_motion(way_xy: F64, mean_xy: F64) -> F64:
    """A motion less what the whole head does, alike on both sides.

    Args:
        way_xy: (478, 2) pixels.
        mean_xy: (478, 2) mean landmarks.
    """
    way = way_xy.copy()
    way[:_FACE_POINTS] -= way[list(STILL)].mean(0)
    return np.asarray((way + way[mirror_landmarks(mean_xy)] * (-1.0, 1.0)) / 2)


@torch.no_grad()
def put_in(mesh: FaceMesh, way_xy: F64) -> None:
    """Add a motion per unit of AU12 to what both its sides do to a mesh's points.

    Args:
        mesh: Knows faces; it is changed.
        way_xy: (478, 2) pixels of a 256-px crop, of a face that looks ahead.
    """
    mean = mesh.get_buffer("mean_xy").double().numpy()
    px_per_unit = float(mesh.get_buffer("px_per_unit"))
    middle = mean[list(MIDDLE_LANDMARKS), 0].mean()
    left = 1.0 / (1.0 + np.exp(-(mean[:, 0] - middle) / SIDE_PX))  # the person's left
    share = np.concatenate([np.ones(NUM_LANDMARKS), np.tile(RING_SHARE, len(OUTLINE))])
    anchors = np.array(ANCHORS)
    units = (way_xy * (1.0, -1.0) / px_per_unit)[anchors] * share[:, None]
    for lr, side in enumerate((left, 1.0 - left)):
        more = torch.from_numpy(units * side[anchors, None])
        mesh.by_unit[2 * AuId.AU12.index + lr, :, :2] += more.to(mesh.by_unit.dtype)


@torch.no_grad()
def learn(net: RtNet, pairs: Sequence[Pair]) -> F64:
    """What a network's drawing of smiles lacks, per unit of AU12.

    Args:
        net: With a mesh, in eval mode.
        pairs: Of people.

    Returns:
        (478, 2) pixels of a 256-px crop.
    """
    graph = EncoderGraph(net).eval()

    def says(rgb: U8) -> torch.Tensor:
        picture = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])
        # what tokens say, not the read-out: tokens are what is drawn
        return net.label_tokens.inverse(graph(torch.from_numpy(picture).float() / 255.0)[0])

    mesh = net.generator.mesh
    wanted, drawn, amount = [], [], []
    for pair in pairs:
        change = says(pair.smile_rgb) - says(pair.rest_rgb)
        points = torch.from_numpy(pair.rest_xy[None]).float()
        gone = mesh(points, change.reshape(1, -1))[2][0].double().numpy()
        wanted.append(pair.smile_xy - pair.rest_xy)
        drawn.append(gone - pair.rest_xy)
        amount.append(float(change[0, AuId.AU12.index].mean()))
    found = missing(np.array(wanted), np.array(drawn), np.array(amount))
    return own_motion(found, mesh.get_buffer("mean_xy").double().numpy())


def pairs_of(folders: list[Path], rest: str, smile: str) -> list[Pair]:
    """Pairs of people who train.

    Args:
        folders: Of portraits.
        rest: What the name of a picture at rest begins with.
        smile: What it has in that place where the same person smiles.

    Raises:
        ConfigError: If there are fewer than MIN_PEOPLE.
    """
    from rt_swap.expression import find_faces
    from rt_swap.io.picture import read_picture
    from rt_swap.ops import crop_rgb
    from rt_swap.tracking import MediapipeTracker

    portraits = [p for p in list_portraits(folders) if split_of(p.dataset, p.person) == "train"]
    named = {(p.dataset, p.path.name): p for p in portraits}
    found: list[Pair] = []
    with MediapipeTracker(static=True) as tracker:

        def cut(portrait: Portrait) -> tuple[U8, F64] | None:
            try:
                picture = read_picture(portrait.path)
            except SourceError as exc:
                logger.warning("left out: %s", exc)
                return None
            faces = find_faces(picture, tracker)
            if not faces:
                logger.warning("left out, no face found: %s", portrait.path.name)
                return None
            M = geometry.crop_from_landmarks(faces[0].landmarks_xy)
            rgb = crop_rgb(picture, geometry.invert(M), CROP_SIZE_PX)[0].transpose(1, 2, 0)
            crop = np.rint(rgb * 255.0).astype(np.uint8)
            return crop, geometry.apply(M, faces[0].landmarks_xy)

        for portrait in portraits:
            name = portrait.path.name
            other = named.get((portrait.dataset, smile + name[len(rest) :]))
            if not name.startswith(rest) or other is None:
                continue
            at_rest, smiling = cut(portrait), cut(other)
            if at_rest is not None and smiling is not None:
                found.append(Pair(at_rest[0], smiling[0], at_rest[1], smiling[1]))
    if len(found) < MIN_PEOPLE:
        raise ConfigError(
            f"smiles: only {len(found)} people who train have a picture {rest}... and one "
            f"{smile}... with a face, {MIN_PEOPLE} are needed; give other --portraits, --rest or "
            "--smile"
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.smiles", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--portraits", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--rest", default="neutral_", help="default: %(default)s")
    parser.add_argument("--smile", default="smiling_", help="default: %(default)s")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new checkpoint")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if args.out.exists():
            raise ConfigError(f"smiles: {args.out} exists; remove it or give another --out")
        net, _ = load_net(args.checkpoint)
        net.eval()
        if net.generator.mesh is None or net.generator.mesh.is_empty:
            raise ConfigError(f"smiles: {args.checkpoint} draws nothing by a mesh")
        pairs = pairs_of(args.portraits, args.rest, args.smile)
        way = learn(net, pairs)
        put_in(net.generator.mesh, way)
    except RtSwapError as exc:
        print(f"smiles: {exc}", file=sys.stderr)
        return 2
    shutil.copytree(args.checkpoint, args.out)
    weights = load_file(args.out / "ema.safetensors")
    name = "generator.mesh.by_unit"
    weights[name] = net.generator.mesh.by_unit.detach().to(weights[name].dtype).contiguous()
    save_file(weights, args.out / "ema.safetensors")
    corner = np.abs(way[[61, 291]]).mean(0)
    print(
        f"{len(pairs)} people; per unit of AU12 corners of the mouth go {corner[0]:.1f} px further "
        f"out and {corner[1]:.1f} px further up -> {args.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
