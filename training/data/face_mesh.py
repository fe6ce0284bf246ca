"""What each unit does to each landmark of a face, for generators that draw motion from landmarks.

    python -m training.data.face_mesh --shards DIR [DIR ...] --ict DIR --out face_mesh.safetensors

Four things are found, from the face model and from pictures whose landmarks and motion are known:
where on the model each of mediapipe's landmarks lies, and so what each unit does to it; how the
head's turn and size follow from the landmarks (a ridge regression of fits of the model); how far
motion reaches around the face, onto neck and ears, where there are no landmarks; and how far apart
points are, which sets how wide each one's say is (training.networks.mesh).
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from rt_swap.aus import NUM_AUS
from rt_swap.contract import CROP_SIZE_PX, NUM_LANDMARKS
from rt_swap.errors import ConfigError, RtSwapError
from training.data import correspond, ict
from training.data.correspond import IRIS_LANDMARKS, mirror_landmarks
from training.data.dataset import PARTNER, ShardSet, shards_for_swaps
from training.data.fit import EYES, Fit, Fitter, units
from training.data.layout import FLOW_UNITS_PER_PX
from training.data.render import NARROW_FACE_END
from training.networks.mesh import ANCHORS, NORMAL_PX, NUM_POINTS, OUTLINE, RING_STEPS

logger = logging.getLogger(__name__)

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

RING_PX: Final = (7.0, 15.0, 25.0, 38.0)
"""How far outside the face's outline its points lie, pixels of a mean face in the crop."""
RIDGE: Final = 30.0
"""Of the pose's regression; landmarks in units of training.networks.mesh.NORMAL_PX."""
WIDTH: Final = 0.6
"""Of a point's Gaussian, in mean distances to its three nearest neighbours; measured: from 0.6 to
0.8 the motion of rendered faces is met best."""
_WIDTHS_PX: Final = (1.5, 12.0)
_FEWEST: Final = 10
_PEOPLE_VERTICES: Final = 5
"""Of every so manieth picture the vertices nearest to its landmarks are looked for."""


@dataclass(frozen=True)
class FaceModelMesh:
    """What training.networks.mesh.FaceMesh is given; V points, see there.

    Attributes:
        mean_xy: (478, 2) mean landmarks, pixels of a 256-px crop.
        offset: (V, 3) of each point from its anchor, the model's units.
        by_unit: (2K, V, 3) what a unit of each intensity does, the model's units.
        pose_weight: (6, 956) and
        pose_bias: (6,): pixels along x and y of the model's three axes, row by row, from landmarks'
            deviations from the mean in NORMAL_PX.
        log_width: (V,) logarithm of each point's width, pixels.
    """

    mean_xy: F32
    offset: F32
    by_unit: F32
    pose_weight: F32
    pose_bias: F32
    log_width: F32

    def tensors(self) -> dict[str, F32]:
        """By the names that FaceMesh.wear takes."""
        return {
            "mean_xy": self.mean_xy,
            "offset": self.offset,
            "by_unit": self.by_unit,
            "pose.weight": self.pose_weight,
            "pose.bias": self.pose_bias,
            "log_width": self.log_width,
        }


def build(shards: ShardSet, fitter: Fitter, pictures: int = 1500, seed: int = 0) -> FaceModelMesh:
    """Find it.

    Args:
        shards: Of training people, with landmarks and flow.
        fitter: Of the face model.
        pictures: How many are fitted, and looked at for the reach around the face.
        seed: Which.

    Raises:
        ConfigError: If shards lack landmarks, or too few faces were found in their pictures.
    """
    if shards.without_landmarks:
        raise ConfigError(
            f"face_mesh: {shards.without_landmarks[0]} does not say where faces are; "
            "add it: python -m training.data.landmarks FOLDER"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(4 * len(shards))[:pictures]
    seen, poses, nearest = [], [], []
    for k in chosen:
        found = np.asarray(shards.quadruple(k // 4)["landmarks"][k % 4], np.float64)
        if np.isnan(found).any():
            continue
        found = found * (CROP_SIZE_PX / shards.size_px)
        xy = found[:, :2]
        fit = fitter.fit(xy, found[:, 2])
        seen.append(xy)
        poses.append(fit.rotation[:2] * fit.scale * np.array([[1.0], [-1.0]]))
        if len(seen) % _PEOPLE_VERTICES == 0:
            nearest.append(_nearest_vertices(fitter, fit, xy))
    if len(seen) < _FEWEST:
        raise ConfigError(
            f"face_mesh: {len(seen)} faces in {len(chosen)} pictures, at least {_FEWEST} are "
            "needed; give more shards"
        )
    landmarks, pose = np.array(seen), np.array(poses).reshape(len(seen), 6)
    mean = landmarks.mean(0)
    weight, bias, met = _ridge((landmarks - mean).reshape(len(seen), -1) / NORMAL_PX, pose)
    logger.info("pose from landmarks: R2 of %s on pictures left out", np.round(met, 3))
    by_unit = _unit_motions(fitter, _vertices(fitter, nearest))
    to_px = float(np.sqrt((bias**2).sum() / 2))
    outwards = _outwards(mean)
    reach = _reach(shards, mean, by_unit, weight, bias, outwards, chosen)

    offset = np.zeros((NUM_POINTS, 3))
    ring = (outwards[:, None] * np.array(RING_PX)[None, :, None]).reshape(-1, 2) / to_px
    offset[NUM_LANDMARKS:, :2] = ring * (1.0, -1.0)
    motions = by_unit[:, list(ANCHORS)]
    motions[:, NUM_LANDMARKS:] *= reach.reshape(-1, 1)
    place = mean[list(ANCHORS)] + offset[:, :2] * (to_px, -to_px)
    apart = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    width = np.clip(np.sort(apart, 1)[:, :3].mean(1) * WIDTH, *_WIDTHS_PX)
    arrays = (mean, offset, motions, weight.T, bias, np.log(width))
    return FaceModelMesh(*(np.ascontiguousarray(a, np.float32) for a in arrays))


def _nearest_vertices(fitter: Fitter, fit: Fit, xy: F64) -> F32:
    """(468, 3) the model's resting vertex that is nearest to each landmark in a picture."""
    shape = fitter.shape(fitter.identity_shape(fit.identity), fit.expression, fit.blink_reach)
    there = fitter.project(fit, shape)[:NARROW_FACE_END, :2]
    apart = ((there[None] - xy[: IRIS_LANDMARKS[1], None]) ** 2).sum(2)
    return np.asarray(fitter.model.vertices[apart.argmin(1)])


def _vertices(fitter: Fitter, nearest: list[F32]) -> npt.NDArray[np.int64]:
    """(468,) the model's vertex of each landmark: its pair where it has one, and for the others the
    one nearest to the median of where pictures show them.
    """
    middle = np.median(np.array(nearest), axis=0)
    face = fitter.model.vertices[:NARROW_FACE_END]
    vertex = ((face[None] - middle[:, None]) ** 2).sum(2).argmin(1)
    for landmark, own in zip(fitter.pairs.landmarks, fitter.pairs.vertices, strict=True):
        if landmark < len(vertex):
            vertex[landmark] = own
    return np.asarray(vertex)


def _unit_motions(fitter: Fitter, vertex: npt.NDArray[np.int64]) -> F64:
    """(2K, 478, 3) what a unit of each intensity does to each landmark, the model's units."""
    model = fitter.model
    out = np.zeros((2 * NUM_AUS, NUM_LANDMARKS, 3))
    for unit, (names, part) in enumerate(units()):
        moved = sum(model.expression[model.shape_index[name]] for name in names)
        out[unit, : len(vertex)] = np.asarray(moved)[vertex] * part
    nobody = Fit(
        identity=np.zeros(1, np.float32),
        expression=np.zeros(len(model.expression_names), np.float32),
        rotation=np.eye(3),
        scale=1.0,
        offset_xy=np.zeros(2),
        residual_xy=np.zeros((len(model.vertices), 2), np.float32),
        blink_reach=np.ones(2, np.float32),
        error=0.0,
        yaw_deg=0.0,
    )
    for (side, (start, _), _), iris in zip(EYES, IRIS_LANDMARKS, strict=True):
        turned = fitter.eye_motion(nobody, model.vertices, nobody.expression, side)
        pupil = turned[fitter.pupil(side) - start].mean(0)  # (2K, 2) pixels, y down
        out[:, iris : iris + 5, :2] = (pupil * (1.0, -1.0))[:, None]
    return out


def _ridge(x: F64, y: F64) -> tuple[F64, F64, F64]:
    """Weights (D, O) and bias (O,) of all rows, and R2 (O,) on a fifth that others were fitted to
    leave out.
    """

    def fitted(rows: slice) -> tuple[F64, F64]:
        bias = y[rows].mean(0)
        gram = x[rows] @ x[rows].T + RIDGE * np.eye(len(x[rows]))
        return x[rows].T @ np.linalg.solve(gram, y[rows] - bias), bias

    split = len(x) * 4 // 5
    weight, bias = fitted(slice(0, split))
    missed = x[split:] @ weight + bias - y[split:]
    spread = y[split:] - y[split:].mean(0)
    met = 1 - (missed**2).sum(0) / np.maximum((spread**2).sum(0), 1e-12)
    weight, bias = fitted(slice(0, len(x)))
    return weight, bias, met


def _outwards(mean: F64) -> F64:
    """(36, 2) unit ways out of the face at its outline, pixels of the crop, y down."""
    outline = mean[list(OUTLINE)]
    away = outline - outline.mean(0)
    return np.asarray(away / np.linalg.norm(away, axis=1, keepdims=True))


def _reach(
    shards: ShardSet,
    mean: F64,
    by_unit: F64,
    weight: F64,
    bias: F64,
    outwards: F64,
    pictures: npt.NDArray[np.int64],
) -> F64:
    """(36, RING_STEPS) what part of the outline's motion is seen at each place around the face, by
    least squares over pictures with a known flow; alike on both sides of the face.
    """
    outline = list(OUTLINE)
    along, squares = np.zeros((2, len(outline), RING_STEPS))
    scale = shards.size_px / CROP_SIZE_PX
    first_px = float(np.sqrt((bias**2).sum() / 2))
    for k in pictures:
        q = shards.quadruple(k // 4)
        into = k % 4
        partner = PARTNER[into]
        xy = np.asarray(q["landmarks"][partner], np.float64)[:, :2] / scale
        if np.isnan(xy).any():
            continue
        pose = (((xy - mean) / NORMAL_PX).reshape(-1) @ weight + bias).reshape(2, 3)
        size = float(np.sqrt((pose**2).sum() / 2)) / first_px
        change = (q["aus_lr"][into] - q["aus_lr"][partner]).reshape(-1)
        motion = np.einsum("u,uvc->vc", change, by_unit[:, outline]) @ pose.T
        flow, keep = q["flow"][into], q["keep"][into]
        for step, px in enumerate(RING_PX):
            at = np.floor((xy[outline] + outwards * px * size + motion / 2) * scale).astype(int)
            inside = (at >= 0).all(1) & (at < shards.size_px).all(1)
            rows = np.flatnonzero(inside)
            rows = rows[keep[at[rows, 1], at[rows, 0]] > 127]
            seen = flow[:, at[rows, 1], at[rows, 0]].T / (-FLOW_UNITS_PER_PX * scale)
            along[rows, step] += (seen * motion[rows]).sum(1)
            squares[rows, step] += (motion[rows] ** 2).sum(1)
    reach = along / np.maximum(squares, 1e-6)
    other = mirror_landmarks(mean)[outline]
    mirrored = [outline.index(int(o)) if int(o) in outline else i for i, o in enumerate(other)]
    return np.asarray((reach + reach[mirrored]) / 2).clip(0.0, 1.1)


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.face_mesh",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument(
        "--shards", type=Path, nargs="+", required=True, help="training shards with landmarks"
    )
    parser.add_argument(
        "--ict",
        type=Path,
        required=True,
        help="ICT-FaceKit: the packed file's folder or FaceXModel",
    )
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument(
        "--pictures", type=int, default=1500, help="how many are fitted (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.pictures < _FEWEST:
        parser.error(f"--pictures must be at least {_FEWEST}")
    try:
        model = ict.load(args.ict)
        fitter = Fitter(model, correspond.build(model))
        made = build(shards_for_swaps(args.shards, "shards"), fitter, args.pictures)
    except RtSwapError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(made.tensors(), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
