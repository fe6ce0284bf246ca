"""ICT-FaceKit, the morphable face model: vertices, identity modes, expression shapes, parts.

Two layouts are read: the packed ``ict_facekit_light.npz`` and ICT's own folder of OBJ files
(``FaceXModel``, one OBJ a
shape). Model: Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020,
arXiv 2004.03458, MIT
licence. Axes: x to the person's left, y up, z towards the camera; about centimetres.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from rt_swap.aus import AUS, NUM_AUS
from rt_swap.errors import ConfigError

logger = logging.getLogger(__name__)

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

# vertex ranges of the model's parts, half-open, from its documentation
RANGES: dict[str, tuple[int, int]] = {
    "face": (0, 9409),
    "head": (9409, 11248),
    "mouth_socket": (11248, 13294),
    "eye_socket": (13294, 14062),
    "gums_tongue": (14062, 17039),
    "teeth": (17039, 21451),
    "eye_left": (21451, 23021),
    "eye_right": (23021, 24591),
    "lacrimal": (24591, 24999),
    "eye_blend": (24999, 25047),
    "eye_occlusion": (25047, 25351),
    "lashes": (25351, 26719),
}


@dataclass(frozen=True)
class IctModel:
    """The model's arrays.

    Attributes:
        vertices: (V, 3) float32, the generic neutral face.
        identity: (I, V, 3) float32 offsets; coefficients are about standard normal.
        expression: (E, V, 3) float32 offsets; coefficients in [0, 1].
        expression_names: E names.
        triangles: (F, 3) int32.
        uv: (U, 2) float32 texture coordinates, or None.
        uv_triangles: (F, 3) int32 into uv, or None.
        landmarks68: (68,) int32 vertex of each Multi-PIE landmark.
    """

    vertices: F32
    identity: F32
    expression: F32
    expression_names: tuple[str, ...]
    triangles: I32
    uv: F32 | None
    uv_triangles: I32 | None
    landmarks68: I32

    @cached_property
    def shape_index(self) -> dict[str, int]:
        """Expression name -> position."""
        return {name: i for i, name in enumerate(self.expression_names)}

    @cached_property
    def part_of_vertex(self) -> npt.NDArray[np.int8]:
        """(V,) index into ``list(RANGES)``."""
        part = np.zeros(len(self.vertices), np.int8)
        for i, (start, end) in enumerate(RANGES.values()):
            part[start:end] = i
        return part

    @cached_property
    def normal_operator(self) -> sparse.csr_matrix:
        """(V, F) incidence: sums the triangles' normals at each vertex."""
        count = len(self.triangles)
        rows = self.triangles.ravel()
        cols = np.repeat(np.arange(count), 3)
        return sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (rows, cols)), (len(self.vertices), count)
        )

    def normals(self, vertices: F32) -> F32:
        """Unit vertex normals, area-weighted. (V, 3) -> (V, 3)."""
        corner = vertices[self.triangles]
        face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        total = np.asarray(self.normal_operator @ face, np.float32)
        length = np.linalg.norm(total, axis=1, keepdims=True)
        return total / np.maximum(length, 1e-9)

    def coefficients_from_aus(self, aus_lr: F32) -> F32:
        """Expression coefficients that show given intensities.

        Args:
            aus_lr: (K, 2) intensities, [left, right], in [0, 1].

        Returns:
            (E,) in [0, 1]; shapes that belong to no AU are 0.
        """
        out = np.zeros(len(self.expression_names), np.float32)
        for k, au in enumerate(AUS):
            for side, shapes in enumerate((au.shapes_left, au.shapes_right)):
                for shape in shapes:
                    out[self.shape_index[shape]] = aus_lr[k, side]
        return out

    def aus_from_coefficients(self, coefficients: F32) -> F32:
        """(..., E) coefficients -> (..., K, 2) intensities: the largest of each side's shapes."""
        out = np.zeros((*coefficients.shape[:-1], NUM_AUS, 2), np.float32)
        for k, au in enumerate(AUS):
            for side, shapes in enumerate((au.shapes_left, au.shapes_right)):
                index = [self.shape_index[s] for s in shapes]
                out[..., k, side] = coefficients[..., index].max(-1)
        return out.clip(0, 1)

    @cached_property
    def au_of_shape(self) -> I32:
        """(E,) token index of each shape, -1 where no AU drives it."""
        out = np.full(len(self.expression_names), -1, np.int32)
        for k, au in enumerate(AUS):
            for shape in au.shapes_left + au.shapes_right:
                out[self.shape_index[shape]] = k
        return out


def load(path: Path) -> IctModel:
    """Read the model.

    Args:
        path: The packed ``.npz``, a folder that holds it, or ICT's ``FaceXModel`` folder.

    Raises:
        ConfigError: If there is no model there.
    """
    packed = path / "ict_facekit_light.npz" if path.is_dir() else path
    if packed.is_file():
        return _load_packed(packed)
    if (path / "generic_neutral_mesh.obj").is_file():
        return _load_obj_folder(path)
    raise ConfigError(
        f"no ICT-FaceKit model at {path}: expected ict_facekit_light.npz or "
        "generic_neutral_mesh.obj; get the light model from the ICT-FaceKit repository "
        "(github.com/ICT-VGL/ICT-FaceKit, MIT) and pass its folder as --ict"
    )


def _load_packed(path: Path) -> IctModel:
    with np.load(path, allow_pickle=False) as z:
        return IctModel(
            vertices=z["vertices"].astype(np.float32),
            identity=z["identity"].astype(np.float32),
            expression=z["expression"].astype(np.float32),
            expression_names=tuple(str(n) for n in z["expression_names"]),
            triangles=z["triangles"].astype(np.int32),
            uv=z["uv"].astype(np.float32),
            uv_triangles=z["uv_triangles"].astype(np.int32),
            landmarks68=z["landmarks68"].astype(np.int32),
        )


def _load_obj_folder(folder: Path) -> IctModel:
    """ICT's download: generic_neutral_mesh.obj, identityNNN.obj, <shape>.obj,
    vertex_indices.json.
    """
    import json

    vertices, uv, triangles, uv_triangles = read_obj(folder / "generic_neutral_mesh.obj")
    identities = sorted(folder.glob("identity[0-9][0-9][0-9].obj"))
    if not identities:
        raise ConfigError(f"{folder}: no identityNNN.obj files; the download is incomplete")
    known = {s for au in AUS for s in au.shapes_left + au.shapes_right}
    shapes = sorted(
        p for p in folder.glob("*.obj") if p not in identities and p.stem != "generic_neutral_mesh"
    )
    missing = sorted(known - {p.stem for p in shapes})
    if missing:
        logger.warning(
            "%s: %d of %d expression shapes are missing and stay still: %s",
            folder, len(missing), len(known), ", ".join(missing),
        )  # fmt: skip
    names = [p.stem for p in shapes] + missing
    expression = np.zeros((len(names), *vertices.shape), np.float32)
    for i, p in enumerate(shapes):
        expression[i] = _offsets(p, vertices)
    indices = json.loads((folder / "vertex_indices.json").read_text(encoding="utf-8"))
    return IctModel(
        vertices=vertices,
        identity=np.stack([_offsets(p, vertices) for p in identities]),
        expression=expression,
        expression_names=tuple(names),
        triangles=triangles,
        uv=uv,
        uv_triangles=uv_triangles,
        landmarks68=np.array(indices["idx_to_landmark_verts"], np.int32),
    )


def _offsets(path: Path, neutral: F32) -> F32:
    vertices = read_obj(path)[0]
    if vertices.shape != neutral.shape:
        raise ConfigError(
            f"{path}: {len(vertices)} vertices, the neutral mesh has {len(neutral)}; "
            "the files are of two models"
        )
    return vertices - neutral


def read_obj(path: Path) -> tuple[F32, F32, I32, I32]:
    """Read a Wavefront OBJ: vertices (V, 3), uv (U, 2), triangles (F, 3), uv triangles (F, 3);
    polygons are fanned.
    """
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    uv_triangles: list[tuple[int, int, int]] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                vertices.append([float(w) for w in words[1:4]])
            elif words[0] == "vt":
                uv.append([float(w) for w in words[1:3]])
            elif words[0] == "f":
                corner = [w.split("/") for w in words[1:]]
                v = [int(c[0]) - 1 for c in corner]
                t = [int(c[1]) - 1 if len(c) > 1 and c[1] else 0 for c in corner]
                for i in range(1, len(v) - 1):
                    triangles.append((v[0], v[i], v[i + 1]))
                    uv_triangles.append((t[0], t[i], t[i + 1]))
    if not vertices or not triangles:
        raise ConfigError(f"{path}: no mesh in this OBJ file")
    return (
        np.array(vertices, np.float32),
        np.array(uv, np.float32).reshape(-1, 2),
        np.array(triangles, np.int32),
        np.array(uv_triangles, np.int32),
    )
