"""Re-render a portrait in place with another expression.

The mesh is drawn with OpenGL (``moderngl``, EGL). What the drawing returns per pixel is not a
colour but *where on the
face* that pixel is: its place in the portrait (the texture is the portrait itself), its place in a
partner picture (the
exact flow between the two), its part and its shading ratio. Colours are then fetched from the
portrait. Around the
mesh the displacement runs out smoothly, so hair, clothes and background stay real and no seam can
show.

Mouth interior and newly shown parts of the eyeball come from the model's geometry: teeth, gums,
tongue and socket lit
like the face; iris and sclera from the colours of the portrait's own eye.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from rt_swap import geometry
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import BackendUnavailable
from training.data.fit import EYES, Fit, Fitter
from training.data.ict import RANGES, IctModel
from training.data.layout import FIELDS_SIDE
from training.networks.encoder import look
from training.networks.folds import FOLDS_XYXY, Folds

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

SUPERSAMPLE = 2
LID_SKIN_ABOVE = 0.035
"""Where unseen lid skin takes its colour from: this far above, as a fraction of the crop's side."""
LID_LIGHT = 0.65
"""Unseen lid skin is brightened up to this part of the skin below the same eye: what lay in a dark
fold is stretched out into the light.
"""
LID_LIFT_LIMIT = 2.2
"""Most that dark lid skin is brightened."""
MOUTH_RGB = {
    "mouth_socket": (118, 52, 48),
    "gums_tongue": (190, 104, 100),
    "teeth": (244, 234, 216),
}
"""Colours of the mouth's parts in white light, 0..255."""
TRUSTED_LEVEL = 12.0
UNTRUSTED_LEVEL = 24.0
"""Grey levels by which a fetched pixel may differ from what is shown; see :func:`trusted`."""
NARROW_FACE_END = 6706
"""Vertices of the model before this one are the face without ears and neck."""
LASH_DARKNESS = 0.5
"""Part of the light that the line of the lashes takes from closed lids."""
REGIONS = ("background", "skin", "mouth_interior", "eyeball", "lips", "lids")

_REGION_CODES = 8
"""A drawn pixel's region and triangle come in one number, which float32 holds exactly up to
2 ** 24: the region, below this, and this times the triangle.
"""

_PARTS = list(RANGES)
_DRAWN = (
    "face",
    "head",
    "mouth_socket",
    "eye_socket",
    "gums_tongue",
    "teeth",
    "eye_left",
    "eye_right",
)
_MOUTH = tuple(_PARTS.index(p) for p in ("mouth_socket", "gums_tongue", "teeth"))
_EYE = tuple(_PARTS.index(p) for p in ("eye_left", "eye_right"))
# the eye socket only shows at the corners of the eye, where the portrait's own pixels are right
_SKIN = tuple(_PARTS.index(p) for p in ("face", "head", "eye_socket"))

_VERTEX_SHADER = """
#version 330
uniform vec2 inv_size;      // 2 / side of the crop in pixels
uniform float inv_depth;    // 1 / half depth range in pixels
in vec3 in_position;        // crop pixels, z towards the camera
in vec3 in_first;           // the same point in the portrait as it is
in vec3 in_second;          // the same point in the partner picture
in vec4 in_extra;           // shade to the portrait, to the partner, model light, eyeball angle
in vec3 in_other;           // x, y in the other portrait of a mixture, how far it faces that camera
in vec2 in_label;           // part, region
out vec3 first; out vec3 second; out vec4 extra; out vec3 other; out float depth;
flat out vec2 label;
void main() {
    gl_Position = vec4(in_position.xy * inv_size - 1.0, -in_position.z * inv_depth, 1.0);
    first = in_first; second = in_second; extra = in_extra; other = in_other; label = in_label;
    depth = in_position.z;
}
"""
_FRAGMENT_SHADER = """
#version 330
in vec3 first; in vec3 second; in vec4 extra; in vec3 other; in float depth;
flat in vec2 label;
layout(location = 0) out vec4 out_first;
layout(location = 1) out vec4 out_second;
layout(location = 2) out vec4 out_extra;
layout(location = 3) out vec4 out_label;
void main() {
    out_first = vec4(first, label.x + 1.0);
    out_second = vec4(second, label.y + REGION_CODES * float(gl_PrimitiveID));
    out_extra = extra;
    out_label = vec4(depth, other);
}
"""


@dataclass(frozen=True)
class Surface:
    """What one drawing says about each pixel. All arrays are (R, R), R = rendered side.

    Attributes:
        first: (R, R, 3) the pixel's place in the portrait's crop, crop pixels, and depth there.
        second: (R, R, 3) the same for the partner.
        part: int8 index into RANGES, -1 where the mesh is not.
        region: uint8 index into REGIONS.
        extra: (R, R, 4) shading ratio to the portrait, to the partner, light of the model's own
            parts, eye angle.
        depth: float32 crop pixels towards the camera.
        other: (R, R, 3) place in the other portrait of a mixture (crop pixels of that one) and how
            far the skin faces its camera there (cosine); zeros without a mixture.
        triangle: int32 index into Rasteriser.triangles; of no meaning where the mesh is not.
        step: How many drawn pixels lie between two of these.
    """

    first: F32
    second: F32
    part: npt.NDArray[np.int8]
    region: U8
    extra: F32
    depth: F32
    other: F32
    triangle: npt.NDArray[np.int32]
    step: int = 1

    def every(self, step: int) -> Surface:
        """Every step-th pixel in both directions (positions stay those of the pixels taken)."""
        cut = (slice(None, None, step), slice(None, None, step))
        return Surface(
            *(
                np.ascontiguousarray(a[cut])
                for a in (
                    self.first,
                    self.second,
                    self.part,
                    self.region,
                    self.extra,
                    self.depth,
                    self.other,
                    self.triangle,
                )
            ),
            step=step,
        )


class Rasteriser:
    """Draws the mesh's attributes. One OpenGL context; use from one thread."""

    def __init__(self, model: IctModel, fitter: Fitter) -> None:
        try:
            import moderngl
        except ImportError as exc:
            raise BackendUnavailable(
                "the data engine draws with moderngl; install the 'train' extra: "
                "pip install 'rt-swap[train]'"
            ) from exc
        try:
            self._gl: Any = moderngl.create_standalone_context(backend="egl")
        except Exception as exc:  # moderngl raises a bare Exception where EGL is missing
            raise BackendUnavailable(
                f"no OpenGL by EGL here ({exc}); on Debian: apt-get install "
                "libegl1 libgl1-mesa-dri libgles2 libopengl0 libgl1"
            ) from exc
        self._program = self._gl.program(
            vertex_shader=_VERTEX_SHADER,
            fragment_shader=_FRAGMENT_SHADER.replace("REGION_CODES", f"{_REGION_CODES:.1f}"),
        )
        part = model.part_of_vertex
        wanted = np.isin(part, [_PARTS.index(p) for p in _DRAWN])
        # the inner shell of each eyeball (the iris disc) hides behind the outer one; colour comes
        # from the angle
        for _, (_, end), iris in EYES:
            wanted[iris:end] = False
        triangles = model.triangles[wanted[model.triangles].all(1)]
        self.triangles = triangles
        """(T, 3) vertices of what is drawn."""
        self._label = np.stack([part, _region_of_vertex(model, fitter)], 1).astype(np.float32)
        count = len(model.vertices)
        self._buffer = self._gl.buffer(reserve=count * 18 * 4)
        self._array = self._gl.vertex_array(
            self._program,
            [
                (
                    self._buffer,
                    "3f 3f 3f 4f 3f 2f",
                    "in_position",
                    "in_first",
                    "in_second",
                    "in_extra",
                    "in_other",
                    "in_label",
                )
            ],
            self._gl.buffer(triangles.astype(np.int32).tobytes()),
        )
        self._targets: dict[int, Any] = {}
        self._gl.enable(moderngl.DEPTH_TEST)

    def draw(
        self,
        size_px: int,
        render_px: int,
        position: F32,
        first: F32,
        second: F32,
        extra: F32,
        other: F32 | None = None,
        *,
        depth: bool = True,
    ) -> Surface:
        """Draw one state of the mesh.

        Args:
            size_px: Side of the crop, the unit of all positions.
            render_px: Side of the drawing.
            position: (V, 3) crop pixels.
            first: (V, 3) places in the portrait.
            second: (V, 3) places in the partner.
            extra: (V, 4), see :class:`Surface`.
            other: (V, 3), the same; None for zeros.
            depth: Whether the depth of what is drawn is wanted; zeros where it is not and there is
                no ``other`` (they are read together, which takes as long as drawing).
        """
        read = 4 if depth or other is not None else 3
        if other is None:
            other = np.zeros((len(position), 3), np.float32)
        if render_px not in self._targets:
            size = (render_px, render_px)
            self._targets[render_px] = self._gl.framebuffer(
                [self._gl.texture(size, 4, dtype="f4") for _ in range(4)],
                self._gl.depth_renderbuffer(size),
            )
        target = self._targets[render_px]
        target.use()
        target.clear(0.0, 0.0, 0.0, 0.0)
        self._program["inv_size"].value = (2.0 / size_px, 2.0 / size_px)
        self._program["inv_depth"].value = 1.0 / (4.0 * size_px)
        data = np.concatenate([position, first, second, extra, other, self._label], 1).astype(
            np.float32
        )
        self._buffer.write(data.tobytes())
        self._array.render()
        out = [
            np.frombuffer(target.read(components=4, attachment=i, dtype="f4"), np.float32).reshape(
                render_px, render_px, 4
            )
            for i in range(read)
        ]
        out += [np.zeros_like(out[0])] * (4 - read)
        code = out[1][..., 3].astype(np.int32)
        return Surface(
            first=out[0][..., :3],
            second=out[1][..., :3],
            part=(out[0][..., 3] - 0.5).astype(np.int8) - (out[0][..., 3] < 0.5).astype(np.int8),
            region=(code % _REGION_CODES).astype(np.uint8),
            extra=out[2],
            depth=out[3][..., 0],
            other=out[3][..., 1:],
            triangle=code // _REGION_CODES,
        )


@dataclass(frozen=True)
class Picture:
    """One re-rendered picture and its truth against a partner picture of the same person.

    Attributes:
        rgb: (S, S, 3) uint8.
        flow_xy: (2, S, S) float32 crop pixels: where in the partner each pixel is.
        keep: (S, S) float32, 1 where the partner shows it.
        shade: (S, S) float32, brightness of this picture over the partner's at the same place.
        region: (S, S) uint8 index into REGIONS.
        unit_fields: (FIELDS_SIDE, FIELDS_SIDE, 2K, 2) float32, how each unit of intensity moves
            the point of the face shown there, crop pixels, order (x, y); NaN where the mesh is not.
            On the mesh, ``flow_xy`` is the sum of these, weighed by the partner's intensities less
            this picture's.
    """

    rgb: U8
    flow_xy: F32
    keep: F32
    shade: F32
    region: U8
    unit_fields: F32


@functools.cache
def _folds_module() -> Folds:
    return Folds()


def _folded(folds: F32, surface: Surface) -> F32:
    """(R, R) brightness with folds over that without, 1 off the skin.

    Args:
        folds: (S, S) log2, at places of the portrait's crop.
        surface: What is drawn.
    """
    place = surface.first[..., :2] - 0.5
    there = cv2.remap(
        folds,
        np.ascontiguousarray(place[..., 0]),
        np.ascontiguousarray(place[..., 1]),
        cv2.INTER_LINEAR,
        borderValue=0,
    )
    return np.exp2(np.where(np.isin(surface.part, _SKIN), there, 0.0)).astype(np.float32)


def _weighed(arrays: F32, share: F32) -> F32:
    """Mean of (N, ...) arrays plus their deviations from it, each times its (N,) share."""
    mean = arrays.mean(0)
    return np.asarray(mean + np.tensordot(share, arrays - mean, 1), np.float32)


def trusted(picture: Picture, partner_rgb: U8) -> F32:
    """How far the partner's pixels can be trusted where this picture's lids, eyes and mouth are.

    There a point that the partner shows may still look different: lid skin that lay in a fold,
    teeth in another light. What is fetched, with its shade, is compared with what is shown.

    Args:
        picture: With its keep by geometry.
        partner_rgb: (S, S, 3) uint8.

    Returns:
        (S, S) float32, keep, less where the two differ: unchanged up to TRUSTED_LEVEL grey levels,
        0 from UNTRUSTED_LEVEL on.
    """
    place = _grid(picture.keep.shape[0]) + picture.flow_xy.transpose(1, 2, 0) - 0.5
    fetched = cv2.remap(
        partner_rgb,
        place[..., 0].astype(np.float32),
        place[..., 1].astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    off = np.abs(fetched * picture.shade[..., None] - picture.rgb).mean(2)
    off = cv2.GaussianBlur(off, (0, 0), 1.0)
    trust = np.clip((UNTRUSTED_LEVEL - off) / (UNTRUSTED_LEVEL - TRUSTED_LEVEL), 0.0, 1.0)
    inner = [REGIONS.index(name) for name in ("mouth_interior", "eyeball", "lids")]
    return np.where(
        np.isin(picture.region, inner), np.minimum(picture.keep, trust), picture.keep
    ).astype(np.float32)


def _kind(part: npt.NDArray[np.int8]) -> U8:
    """0 nothing, 1 skin, 2 inside of the mouth, 3 eyeball."""
    kind = np.isin(part, _SKIN).astype(np.uint8)
    kind[np.isin(part, _MOUTH)] = 2
    kind[np.isin(part, _EYE)] = 3
    return kind


class Person:
    """One fitted portrait, ready to be drawn with any expression."""

    def __init__(
        self, fitter: Fitter, rasteriser: Rasteriser, portrait_bgr: U8, fit: Fit, landmarks_xy: F64,
        M_crop_from_portrait: F64, size_px: int,
    ) -> None:  # fmt: skip
        self._fitter, self._rasteriser, self._fit = fitter, rasteriser, fit
        self._drawn = fit  # the identity that pictures show; a mixture's is another
        self._other: Person | None = None
        self._other_share = 0.0
        self._unit_motion: F32 | None = None  # made with the first picture; eyeballs each time
        self._portrait = cv2.cvtColor(portrait_bgr, cv2.COLOR_BGR2RGB)
        self._M_crop = M_crop_from_portrait
        self._M_portrait = geometry.invert(M_crop_from_portrait)
        self._size = size_px
        self._neutral = fitter.identity_shape(fit.identity)
        self._zoom = geometry.scale_of(M_crop_from_portrait)
        # where the portrait has fewer pixels than the crop, cubic; where it has more, average first
        self._blurred = self._portrait
        if self._zoom * SUPERSAMPLE < 0.8:
            sigma = 0.4 / (self._zoom * SUPERSAMPLE)
            self._blurred = cv2.GaussianBlur(self._portrait, (0, 0), sigma)
        self._first = self._position(fit.expression)
        vertices = self._shape(fit.expression)
        self._first_normals = fitter.model.normals(vertices) @ fit.rotation.T.astype(np.float32)
        zeros = np.zeros((len(self._first), 4), np.float32)
        self._landmarks_crop = geometry.apply(M_crop_from_portrait, landmarks_xy)
        self._fold_depth = 0.0
        self._theta = self._eye_angle(landmarks_xy)
        zeros[:, 3] = self._theta
        self._state = rasteriser.draw(
            size_px, size_px, self._first, self._first, self._first, zeros
        )
        self._crop = self._fetch(_grid(size_px))
        self.untouched: U8 = np.clip(np.rint(self._crop), 0, 255).astype(np.uint8)
        """(S, S, 3) RGB: the portrait's aligned crop as it is."""
        self.expression = fit.expression
        """(E,) coefficients of the portrait as it is."""
        self._light = self._estimate_light()
        self._exposure, self._cast = self._estimate_exposure()
        self._eye_profile = self._estimate_eye_profile()
        self._mouth_open_px = self._inner_lip_gap(self._first)

    # --- somebody new
    # -----------------------------------------------------------------------------------------
    def mixed(self, other: Person, shape: float, albedo: float) -> Person:
        """Somebody new: between this person and another in shape and in skin.

        Light, hair, eyes, teeth and whatever lies outside the face stay this person's. Shapes are
        mixed as identity coefficients (with what the fit left over), skin in the model's own
        surface coordinates: the other portrait is fetched at the same point of the face, brought to
        this one's mean colour and at most its contrast, and the two are averaged in the logarithm.

        Args:
            other: Drawn by the same rasteriser.
            shape: 0 is this person's shape, 1 the other's.
            albedo: The same for skin.

        Returns:
            A person of its own; this one stays as it is.
        """
        new = copy.copy(self)
        mine, theirs = self._drawn, other._drawn
        scale = mine.scale / theirs.scale
        new._draw_as(
            (mine.identity + shape * (theirs.identity - mine.identity)).astype(np.float32),
            (mine.residual_xy + shape * (scale * theirs.residual_xy - mine.residual_xy)).astype(
                np.float32
            ),
        )
        new._other, new._other_share = other, albedo
        new._skins = self._log_skin(), other._log_skin()
        return new

    def reshaped(self, others: Sequence[Person], own: float, weights: F32) -> Person:
        """Somebody new: this person's skin, light and hair on a face of another shape.

        Shapes are identity coefficients with what the fit left over, as deviations from the mean of
        all who are given, this person among them: ``mean + own * mine + sum(weights * theirs)``.
        With weights drawn at random such sums vary as people do, without being any of them.

        Args:
            others: Drawn by the same rasteriser, at least one; each as shown, whatever was mixed
                or reshaped before.
            own: What stays of this person's own deviation; 1 and weights of 0 change nothing.
            weights: (len(others),) of the others' deviations.

        Returns:
            A person of its own; this one stays as it is.
        """
        mine = self._drawn
        identities = np.stack([mine.identity, *(o._drawn.identity for o in others)])
        residuals = np.stack(
            [
                mine.residual_xy,
                *(o._drawn.residual_xy * (mine.scale / o._drawn.scale) for o in others),
            ]
        )
        share = np.array([own, *weights], np.float32)
        new = copy.copy(self)
        new._draw_as(*(_weighed(a, share) for a in (identities, residuals)))
        return new

    def folding(self, depth: float) -> Person:
        """The same person, whose skin folds between the brows, across the forehead and the nose's
        root and beside the eyes (training.networks.folds) as expressions ask for. Where skin is
        smooth, the portrait says, also where another's skin is mixed into it.

        Args:
            depth: 0 is skin that does not fold, 1 what generators draw.

        Returns:
            A person of its own; this one stays as it is.

        Raises:
            ValueError: If the depth is below 0.
        """
        if depth < 0:
            raise ValueError(f"folding: depth must be 0 or more, got {depth}")
        new = copy.copy(self)
        new._fold_depth = depth
        return new

    def _draw_as(self, identity: F32, residual_xy: F32) -> None:
        """From now on, show this shape."""
        drawn = replace(self._fit, identity=identity, residual_xy=residual_xy)
        self._neutral = self._fitter.identity_shape(drawn.identity)
        self._drawn = replace(drawn, blink_reach=self._fitter.blink_reach(drawn, self._neutral))
        self._unit_motion = None

    def _log_skin(self) -> tuple[F32, float]:
        """Mean (3,) and spread of the logarithm of the face's colours in the portrait as it is."""
        skin = self._state.part == _PARTS.index("face")
        logs = np.log(self._crop[skin].clip(4, 255))
        return logs.mean(0).astype(np.float32), float(logs.mean(1).std())

    def _other_places(self) -> F32 | None:
        if self._other is None:
            return None
        facing = self._other._first_normals[:, 2:].copy()
        facing[NARROW_FACE_END:] = 0  # the neck's skin ends in a collar
        return np.concatenate([self._other._first[:, :2], facing], 1)

    def _mixed_skin(self, colour: F32, surface: Surface) -> F32:
        """Colours of the face with the other portrait's skin in them."""
        if self._other is None or self._other_share == 0:
            return colour
        faces_camera = np.clip((surface.other[..., 2] - 0.25) / 0.35, 0, 1)
        face = ((surface.part == _PARTS.index("face")) & (faces_camera > 0)).astype(np.uint8)
        # out towards the edge of the face, where hair begins, the portrait's own skin stays. Eyes
        # and mouth are no edge: skin beside them would change with the expression
        outline, _ = cv2.findContours(face, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        whole = cv2.drawContours(np.zeros_like(face), outline, -1, 1, cv2.FILLED)
        inner = cv2.distanceTransform(whole, cv2.DIST_L2, 5) / (SUPERSAMPLE * 0.05 * self._size)
        share = self._other_share * np.clip(inner, 0, 1) * faces_camera * face
        share = cv2.GaussianBlur(share.astype(np.float32), (0, 0), 1.0 * SUPERSAMPLE)[..., None]
        (mean, spread), (their_mean, their_spread) = self._skins
        theirs = np.log(self._other._fetch(surface.other[..., :2]).clip(2, 255)) - their_mean
        theirs = theirs * min(1.0, spread / max(their_spread, 1e-3)) + mean
        mixed = np.exp((1 - share) * np.log(colour.clip(2, 255)) + share * theirs)
        return np.where(share > 0, mixed, colour).astype(np.float32)

    # --- one pair of pictures
    # -----------------------------------------------------------------------------------------
    def render_pair(self, expression_a: F32, expression_b: F32) -> tuple[Picture, Picture]:
        """Draw the person twice; each picture is the other's partner.

        Args:
            expression_a: (E,) coefficients in [0, 1].
            expression_b: (E,) coefficients in [0, 1].
        """
        rotation = self._fit.rotation.T.astype(np.float32)
        shapes = [self._shape(e) for e in (expression_a, expression_b)]
        positions = [self._position_of(v) for v in shapes]
        normals = [self._fitter.model.normals(v) @ rotation for v in shapes]
        surfaces, fields = [], []
        for i in (0, 1):
            extra = np.stack(
                [
                    self._ratio(normals[i], self._first_normals),
                    self._ratio(normals[i], normals[1 - i]),
                    self._model_light(shapes[i], normals[i]),
                    self._theta,
                ],
                1,
            ).astype(np.float32)
            surface = self._rasteriser.draw(
                self._size,
                self._size * SUPERSAMPLE,
                positions[i],
                self._first,
                positions[1 - i],
                extra,
                self._other_places(),
            )
            surfaces.append(surface)
            fields.append(self._displacement(surface))
        folds = [self._folds(e) for e in (expression_a, expression_b)]
        coarse = [s.every(SUPERSAMPLE) for s in surfaces]
        coarse_fields = [np.ascontiguousarray(f[::SUPERSAMPLE, ::SUPERSAMPLE]) for f in fields]
        out = []
        for i in (0, 1):
            rgb = self._shrunk(self._colour(surfaces[i], fields[i], positions[i], folds[i]))
            here = coarse[i]
            flow, keep = self._flow(here, coarse[1 - i], coarse_fields[i], coarse_fields[1 - i])
            shade = np.where(np.isin(here.part, _SKIN) & (keep > 0.5), here.extra[..., 1], 1.0)
            shade = cv2.GaussianBlur(shade.astype(np.float32), (0, 0), 0.8)
            mine, partners = folds[i], folds[1 - i]
            if mine is not None and partners is not None:
                fine = _folded(mine - partners, surfaces[i])
                fine = cv2.resize(fine, (self._size, self._size), interpolation=cv2.INTER_AREA)
                shade = shade * np.where(keep > 0.5, fine, 1.0).astype(np.float32)
            out.append(
                Picture(
                    rgb=rgb,
                    flow_xy=flow,
                    keep=keep,
                    shade=shade,
                    region=np.where(here.part >= 0, here.region, 0).astype(np.uint8),
                    unit_fields=self._unit_fields(
                        surfaces[i], positions[i], (expression_a, expression_b)[i]
                    ),
                )
            )
        a, b = out
        out = [replace(a, keep=trusted(a, b.rgb)), replace(b, keep=trusted(b, a.rgb))]
        return out[0], out[1]

    def render(self, expression: F32) -> U8:
        """Draw the person once, for what only reads: the picture that :meth:`render_pair` draws,
        in half the time, and nothing else.

        Args:
            expression: (E,) coefficients in [0, 1].

        Returns:
            (S, S, 3) RGB.
        """
        vertices = self._shape(expression)
        position = self._position_of(vertices)
        normals = self._fitter.model.normals(vertices) @ self._fit.rotation.T.astype(np.float32)
        extra = np.stack(
            [
                self._ratio(normals, self._first_normals),
                np.ones_like(self._theta),  # of a partner, whom nobody asks for
                self._model_light(vertices, normals),
                self._theta,
            ],
            1,
        ).astype(np.float32)
        surface = self._rasteriser.draw(
            self._size,
            self._size * SUPERSAMPLE,
            position,
            self._first,
            self._first,
            extra,
            self._other_places(),
            depth=False,
        )
        field = self._displacement(surface)
        return self._shrunk(self._colour(surface, field, position, self._folds(expression)))

    def _shrunk(self, colour: F32) -> U8:
        small = cv2.resize(colour, (self._size, self._size), interpolation=cv2.INTER_AREA)
        return np.clip(np.rint(small), 0, 255).astype(np.uint8)

    # --- geometry --------------------------------------------------------------------------------
    def place_of(self, expression: F32) -> F32:
        """(E,) coefficients -> (V, 3) where the mesh is: crop pixels, z towards the camera."""
        return self._position(expression)

    def motion_of_units(self) -> F32:
        """(V, 2K, 2) how a unit of each intensity moves the mesh, crop pixels; not the eyes."""
        to_crop = self._M_crop[:, :2].T.astype(np.float32)
        return np.asarray(self._fitter.unit_motion(self._drawn) @ to_crop, np.float32)

    def mouth_light(self, expression: F32) -> F32:
        """(E,) coefficients -> (V,) brightness in [0, 1] of the mouth's parts, lit from ahead."""
        vertices = self._shape(expression)
        rotation = self._fit.rotation.T.astype(np.float32)
        return self._model_light(vertices, self._fitter.model.normals(vertices) @ rotation)

    def _unit_fields(self, surface: Surface, position: F32, expression: F32) -> F32:
        """See :attr:`Picture.unit_fields`."""
        to_crop = self._M_crop[:, :2].T.astype(np.float32)
        if self._unit_motion is None:
            self._unit_motion = self.motion_of_units()
        motion = self._unit_motion
        for side, (a, b), _ in EYES:
            turned = self._fitter.eye_motion(self._drawn, self._neutral, expression, side)
            motion[a:b] = turned @ to_crop
        step = surface.part.shape[0] // FIELDS_SIDE
        # of the drawn pixels around a cell's middle the one up and left, as flow takes them
        at = slice(step // 2 - 1, None, step)
        cells = surface.part[at, at] >= 0
        place = _grid(self._size, surface.part.shape[0])[at, at][cells]
        corners = self._rasteriser.triangles[surface.triangle[at, at][cells]]
        weights = _barycentric(place, position[corners, :2])
        fields = np.full((FIELDS_SIDE, FIELDS_SIDE, *motion.shape[1:]), np.nan, np.float32)
        fields[cells] = sum(motion[corners[:, i]] * weights[:, i, None, None] for i in range(3))
        return fields

    def _shape(self, expression: F32) -> F32:
        return self._fitter.shape(self._neutral, expression, self._drawn.blink_reach)

    def _position_of(self, vertices: F32) -> F32:
        out = self._fitter.project(self._drawn, vertices)
        out[:, :2] = geometry.apply(self._M_crop, out[:, :2].astype(np.float64))
        out[:, 2] *= self._zoom
        return out

    def _position(self, expression: F32) -> F32:
        return self._position_of(self._shape(expression))

    def _fetch(self, crop_xy: F32) -> F32:
        """The portrait's colours at places of the crop. (H, W, 2) -> (H, W, 3) float32, 0..255."""
        M = self._M_portrait.astype(np.float32)
        M[:, 2] -= 0.5
        at = cv2.transform(crop_xy, M)
        return cv2.remap(
            self._blurred,
            at[..., 0],
            at[..., 1],
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        ).astype(np.float32)

    def _displacement(self, surface: Surface) -> F32:
        """(R, R, 2) portrait place minus own place, crop pixels; runs out smoothly around the
        mesh.
        """
        render_px = surface.part.shape[0]
        grid = _grid(self._size, render_px)
        skin = np.isin(surface.part, _SKIN)
        inside = (surface.first[..., :2] - grid) * skin[..., None]
        outside = _run_out(inside, skin, self._size)
        return np.where(
            (surface.part >= 0)[..., None], surface.first[..., :2] - grid, outside
        ).astype(np.float32)

    def _visible_in(
        self, place: F32, part: npt.NDArray[np.int8], state: Surface
    ) -> npt.NDArray[np.bool_]:
        """Whether a point (x, y, depth) of a part is what ``state`` shows there.

        Depth alone does not tell: a closed lid lies closer to the eyeball than the tolerance that
        slopes need, so something of the point's own kind must show, too.
        """
        offset = 0.5 - _shift(state.step)
        x, y = place[..., 0] - offset, place[..., 1] - offset
        depth = np.where(state.part >= 0, state.depth, -1e4).astype(np.float32)
        # the nearest of the four pixels around it, so that slopes do not hide themselves
        hull = np.minimum.reduce(
            [depth, np.roll(depth, -1, 0), np.roll(depth, -1, 1), np.roll(depth, (-1, -1), (0, 1))]
        )
        left, top = np.floor(x), np.floor(y)
        front = cv2.remap(hull, left, top, cv2.INTER_NEAREST, borderValue=-1e4)
        here, there = _kind(part), _kind(state.part)
        same = np.zeros(part.shape, bool)
        for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
            same |= here == cv2.remap(there, left + right, top + below, cv2.INTER_NEAREST)
        tolerance = 0.22 * self._fit.scale * self._zoom
        inside = (x >= -0.5) & (y >= -0.5) & (x <= self._size - 0.5) & (y <= self._size - 0.5)
        return inside & same & (place[..., 2] > front - tolerance)

    def _flow(
        self, here: Surface, there: Surface, field_here: F32, field_there: F32
    ) -> tuple[F32, F32]:
        # the pixels taken from a finer drawing have their centres a little up and left
        grid = _grid(self._size) - _shift(here.step)
        on_mesh = here.part >= 0
        # around the mesh: the portrait pixel shown here, looked up in the partner by fixed-point
        # iteration
        portrait = grid + field_here
        place = portrait.copy()
        for _ in range(5):
            at = place - 0.5 + _shift(here.step)
            moved = cv2.remap(
                field_there,
                at[..., 0],
                at[..., 1],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            place = portrait - moved
        miss = np.linalg.norm(place + moved - portrait, axis=-1)
        flow = np.where(on_mesh[..., None], here.second[..., :2], place) - grid
        keep = np.where(
            on_mesh, self._visible_in(here.second, here.part, there), miss < 0.75
        ).astype(np.float32)
        # interiors drawn from the model look the same in both pictures only while they stay visible
        keep = cv2.GaussianBlur(cv2.medianBlur(keep, 3), (0, 0), 0.6)
        return np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32), keep

    def _inner_lip_gap(self, position: F32) -> float:
        """Opening of the mouth at the middle, crop pixels."""
        where = self._fitter.pairs
        index = {int(m): int(v) for m, v in zip(where.landmarks, where.vertices, strict=True)}
        return float(max(position[index[14], 1] - position[index[13], 1], 0.0))

    # --- colour ----------------------------------------------------------------------------------
    def _folds(self, expression: F32) -> F32 | None:
        """(S, S) log2 shade of the folds that an expression adds to the portrait's, at places of
        the portrait's crop; None for skin that does not fold.
        """
        if self._fold_depth == 0:
            return None
        x0, y0, x1, y1 = FOLDS_XYXY
        aus = [self._fitter.model.aus_from_coefficients(e) for e in (expression, self.expression)]
        to_contract = CROP_SIZE_PX / self._size
        xy = torch.from_numpy(self._landmarks_crop * to_contract).float()[None]
        crop = torch.from_numpy(self.untouched).permute(2, 0, 1)[None].float() / 255.0
        wanted, own = (torch.from_numpy(a.reshape(1, -1)).float() for a in aus)
        drawn = _folds_module()(look(crop), xy, xy, own, wanted)
        whole = np.zeros((CROP_SIZE_PX, CROP_SIZE_PX), np.float32)
        whole[y0:y1, x0:x1] = drawn[0, 0].numpy() * self._fold_depth
        if self._size != CROP_SIZE_PX:
            fewer = self._size < CROP_SIZE_PX
            how = cv2.INTER_AREA if fewer else cv2.INTER_LINEAR
            whole = np.asarray(cv2.resize(whole, (self._size, self._size), interpolation=how))
        return whole

    def _colour(self, surface: Surface, field: F32, position: F32, folds: F32 | None) -> F32:
        opening_px = self._inner_lip_gap(position)
        place = _grid(self._size, surface.part.shape[0]) + field
        colour = self._fetch(place)
        lid = self._stretched_lid(surface, place)
        if lid.any():
            above = self._fetch(place - np.array([0, LID_SKIN_ABOVE * self._size], np.float32))
            colour = colour * (1 - lid[..., None]) + above * lid[..., None]
            colour = self._lift_lids(colour, lid, surface, position)
        colour = self._mixed_skin(colour, surface)
        skin = np.isin(surface.part, _SKIN)
        ratio = np.where(skin, surface.extra[..., 0], 1.0).astype(np.float32)
        colour *= cv2.GaussianBlur(ratio, (0, 0), 1.0 * SUPERSAMPLE)[..., None]
        if folds is not None:
            colour *= _folded(folds, surface)[..., None]

        mouth, eye = np.isin(surface.part, _MOUTH), np.isin(surface.part, _EYE)
        shown = self._visible_in(surface.first, surface.part, self._state).astype(np.float32)
        # the portrait's own interior is worth keeping only where it really showed one
        unit = self._fit.scale * self._zoom
        own_mouth = np.clip((self._mouth_open_px / unit - 0.25) / 0.35, 0, 1)
        # what lies behind the teeth fits the model's only while the mouth is about as open as it
        # was
        same = np.exp(-(((opening_px - self._mouth_open_px) / (0.2 * unit)) ** 2))
        behind = np.where(surface.part == _PARTS.index("teeth"), own_mouth, own_mouth * same)
        own = np.where(mouth, shown * behind, np.where(eye, shown, 1.0)).astype(np.float32)
        own = np.minimum(own, cv2.GaussianBlur(own, (0, 0), 1.2 * SUPERSAMPLE))
        for part, paint in ((mouth, self._paint_mouth), (eye, self._paint_eye)):
            rows, cols = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
            if not len(rows):
                continue
            box = (
                slice(max(rows[0] - 4, 0), rows[-1] + 5),
                slice(max(cols[0] - 4, 0), cols[-1] + 5),
            )
            painted = paint(surface.part[box], surface.extra[box], part[box], opening_px)
            if part is eye:
                white = part[box] & (surface.extra[box][..., 3] > _SCLERA)
                seen = white & (shown[box] > 0)
                painted = _continue_white(painted, colour[box], white, seen)
            share = (own[box] + (1 - part[box]))[..., None].clip(0, 1)
            colour[box] = share * colour[box] + (1 - share) * painted
        colour *= 1 - self._lash_line(position, surface.part.shape[0])[..., None]
        return np.asarray(colour.clip(0, 255), np.float32)

    def _lash_line(self, position: F32, render_px: int) -> F32:
        """(R, R) 0..1: the dark line in which closed lids meet, over whatever of the eyeball still
        shows between them; nothing while an eye is open, where the portrait's own lashes are.
        """
        out = np.zeros((render_px, render_px), np.float32)
        to_px = render_px / self._size
        for side, _, _ in EYES:
            upper, lower = (position[rim, :2] * to_px - 0.5 for rim in self._fitter.lids[side])
            width = float(np.linalg.norm(upper[0] - upper[-1]))
            gap = float((lower - upper)[2:-2, 1].mean()) / max(width, 1.0)
            closed = float(np.clip((0.10 - gap) / 0.07, 0, 1))
            if closed == 0:
                continue
            line = np.zeros((render_px, render_px), np.uint8)
            points = np.rint((upper + lower) * 0.5 * 16).astype(np.int32)
            thick = max(1, round(0.02 * width + max(gap, 0) * width * 0.5))
            cv2.polylines(line, [points.reshape(-1, 1, 2)], False, 255, thick, cv2.LINE_AA, 4)
            soft = cv2.GaussianBlur(line, (0, 0), 0.5 * SUPERSAMPLE).astype(np.float32) / 255
            out = np.maximum(out, LASH_DARKNESS * closed * soft)
        return out

    def _lift_lids(self, colour: F32, lid: F32, surface: Surface, position: F32) -> F32:
        """Unseen lid skin, brightened towards LID_LIGHT of the skin below its eye, at most
        LID_LIFT_LIMIT times, and up to half way to that skin's hue; its texture stays.

        Args:
            colour: (R, R, 3) 0..255.
            lid: (R, R) 0..1, where lid skin was not to be seen.
            surface: What is drawn.
            position: (V, 3) the drawn mesh.
        """
        face = surface.part == _PARTS.index("face")
        to_px = colour.shape[0] / self._size
        out = colour.copy()
        for side, _, _ in EYES:
            upper, lower = (position[rim, :2] * to_px - 0.5 for rim in self._fitter.lids[side])
            both = np.concatenate([upper, lower])
            width = max(float(np.linalg.norm(upper[0] - upper[-1])), 1.0)
            (left, _), (right, bottom) = both.min(0), both.max(0)
            below = (
                slice(max(int(bottom + 0.3 * width), 0), max(int(bottom + 0.7 * width), 0)),
                slice(max(int(left), 0), max(int(right), 0)),
            )
            skin = colour[below][face[below]]
            if len(skin) < 20:
                continue
            wanted = np.quantile(skin, 0.4, axis=0).clip(4, 255)
            y0, y1 = max(int(bottom - 1.2 * width), 0), max(int(bottom + 0.2 * width), 0)
            x0, x1 = max(int(left - 0.2 * width), 0), max(int(right + 0.2 * width), 0)
            here = (slice(y0, y1), slice(x0, x1))
            if colour[here].size == 0:
                continue
            smooth = cv2.GaussianBlur(colour[here], (0, 0), 0.06 * width).clip(4, 255)
            light = smooth.mean(2, keepdims=True)
            lift = np.clip(LID_LIGHT * wanted.mean() / light, 1.0, LID_LIFT_LIMIT)
            # as far as it is lifted it takes on the skin's hue
            hue = (wanted / wanted.mean()) / (smooth / light)
            share = np.clip(lift - 1.0, 0, 1) * 0.5
            gain = lift * (1 + share * (hue - 1))
            out[here] = colour[here] * (1 + lid[here][..., None] * (gain - 1))
        return out

    def _stretched_lid(self, surface: Surface, place: F32) -> F32:
        """(R, R) 0..1: upper lid that the portrait hides in its fold, so that its few pixels
        would be drawn out long.
        """
        step = (
            (np.roll(place[..., 1], -1, 0) - np.roll(place[..., 1], 1, 0))
            / 2
            * surface.part.shape[0]
            / self._size
        )
        lids = surface.region == REGIONS.index("lids")
        amount = np.clip((0.6 - np.abs(step)) / 0.3, 0, 1) * lids
        # the last bit before the rim keeps its own pixels: that is the line of the lashes
        rim = cv2.dilate(np.isin(surface.part, _EYE).astype(np.uint8), np.ones((3, 3)))
        return cv2.GaussianBlur(amount.astype(np.float32) * (1 - rim), (0, 0), 1.0 * SUPERSAMPLE)

    def _paint_mouth(
        self,
        part: npt.NDArray[np.int8],
        extra: F32,
        mouth: npt.NDArray[np.bool_],
        opening_px: float,
    ) -> F32:
        base = np.zeros((*mouth.shape, 3), np.float32)
        base[:] = MOUTH_RGB["mouth_socket"]
        for name, colour in MOUTH_RGB.items():
            base[part == _PARTS.index(name)] = colour
        # the lips throw a soft shadow inwards
        edge = cv2.distanceTransform(mouth.astype(np.uint8), cv2.DIST_L2, 3) / SUPERSAMPLE
        shadow = 0.6 + 0.4 * np.clip(edge / max(0.25 * opening_px, 2.0), 0, 1)
        light = np.where(mouth, extra[..., 2], 0.4) * shadow * self._exposure
        return cv2.GaussianBlur(
            (base * light[..., None] * self._cast).astype(np.float32), (0, 0), 0.4 * SUPERSAMPLE
        )

    def _paint_eye(
        self, part: npt.NDArray[np.int8], extra: F32, eye: npt.NDArray[np.bool_], opening_px: float
    ) -> F32:
        bins = np.clip(extra[..., 3] * _PROFILE_BINS / _PROFILE_MAX - 0.5, 0, _PROFILE_BINS - 1.001)
        low = bins.astype(np.int32)
        share = (bins - low)[..., None]
        painted = self._eye_profile[low] * (1 - share) + self._eye_profile[low + 1] * share
        edge = cv2.distanceTransform(eye.astype(np.uint8), cv2.DIST_L2, 3) / SUPERSAMPLE
        return np.asarray(painted * (0.7 + 0.3 * np.clip(edge / 3.0, 0, 1))[..., None], np.float32)

    def _estimate_light(self) -> F64:
        """(9,) second-order spherical harmonics of the light on the face, from the portrait
        (albedo taken as even).
        """
        face = np.arange(*RANGES["face"])[::3]
        normals, xy = self._first_normals[face], self._first[face, :2]
        at = np.rint(xy - 0.5).astype(int)
        inside = ((at >= 0) & (at < self._size)).all(1) & (normals[:, 2] > 0.2)
        at, normals = at[inside], normals[inside]
        flat = np.array([1.0] + [0.0] * 8)
        if len(at) < 200:
            return flat
        smooth = cv2.GaussianBlur(self._crop.mean(-1), (0, 0), 4.0)
        value = smooth[at[:, 1], at[:, 0]].astype(np.float64)
        value /= max(float(np.median(value)), 1.0)
        basis = _harmonics(normals)
        keep = np.ones(len(value), bool)
        found = flat
        for _ in range(3):  # brows, beards and highlights are left out
            A = basis[keep]
            found = np.linalg.solve(
                A.T @ A + 0.02 * len(A) * np.diag([0.0] + [1.0] * 8), A.T @ value[keep]
            )
            miss = np.abs(basis @ found - value)
            keep = miss < max(0.1, float(np.quantile(miss, 0.8)))
        return np.asarray(found)

    def _ratio(self, normals: F32, before: F32) -> F32:
        light = (_harmonics(normals) @ self._light).clip(0.25, 4)
        old = (_harmonics(before) @ self._light).clip(0.25, 4)
        # a little light from above and ahead is in nearly every picture; it makes folds show in
        # flat light too
        lamp = np.array([0.0, 0.5, 0.85])
        extra, extra_old = (normals @ lamp).clip(0, None), (before @ lamp).clip(0, None)
        ratio = (light + 0.35 * extra) / (old + 0.35 * extra_old)
        # strong side light makes single-lamp ratios overshoot; soften towards the ends
        return np.exp(np.tanh(np.log(ratio) / 0.28) * 0.28).astype(np.float32)

    def _estimate_exposure(self) -> tuple[float, F32]:
        """How brightly something white would show (0..1), and the light's colour relative to
        grey.
        """
        skin = np.isin(self._state.part, _SKIN[:1])
        if not skin.any():
            return 0.7, np.ones(3, np.float32)
        bright = float(np.quantile(self._crop[skin].mean(-1), 0.95)) / 255
        eye = cv2.erode(np.isin(self._state.part, _EYE).astype(np.uint8), np.ones((3, 3))) > 0
        white = eye & (self._state.extra[..., 3] > 1.15)
        exposure = 0.35 + 0.6 * bright
        cast = np.ones(3, np.float32)
        if white.sum() >= 12:
            colour = np.quantile(self._crop[white], 0.7, axis=0)
            exposure = 0.5 * exposure + 0.5 * float(np.clip(colour.mean() / 190, 0.3, 1.1))
            cast = (colour / max(float(colour.mean()), 1.0)).clip(0.75, 1.25).astype(np.float32)
        return float(np.clip(exposure, 0.25, 1.0)), (0.5 + 0.5 * cast).astype(np.float32)

    def _model_light(self, vertices: F32, normals: F32) -> F32:
        """(V,) brightness of the mouth's own parts: lit from ahead, darker the deeper they lie
        behind the lips.
        """
        model = self._fitter.model
        lips = model.landmarks68[[51, 57, 62, 66]]
        behind = (vertices[lips, 2].mean() - vertices[:, 2]).clip(0, None)
        deep = 0.16 + 0.84 * np.exp(-((behind / 3.6) ** 2))
        facing = 0.55 + 0.45 * normals[:, 2].clip(0, 1)
        return np.asarray((deep * facing).clip(0, 1), np.float32)

    def _eye_angle(self, landmarks_xy: F64) -> F32:
        """(V,) angle from the pupil, in units of the iris's own radius (so 1 is the limbus); 0
        off the eyes.
        """
        out = np.zeros(len(self._fitter.model.vertices), np.float32)
        rings = ((474, 475, 476, 477), (469, 470, 471, 472))
        for (side, (a, b), _), ring, centre_id in zip(EYES, rings, (473, 468), strict=True):
            points = self._fitter.model.vertices[a:b] - self._fitter._eye_centre[side]
            angle = np.arccos((points[:, 2] / np.linalg.norm(points, axis=1)).clip(-1, 1))
            radius_px = float(
                np.linalg.norm(landmarks_xy[list(ring)] - landmarks_xy[centre_id], axis=1).mean()
            )
            limbus = np.arcsin(np.clip(radius_px / (self._fit.scale * 1.5), 0.3, 0.62))
            out[a:b] = angle / limbus
        return out

    def _estimate_eye_profile(self) -> F32:
        """(bins, 3) colour of the eye by angle from the pupil, from the portrait's own eyes where
        they show.
        """
        white = np.array([200, 192, 186], np.float32) * self._exposure * self._cast
        centres = (np.arange(_PROFILE_BINS) + 0.5) * _PROFILE_MAX / _PROFILE_BINS
        brown = np.array([70, 48, 36], np.float32) * max(self._exposure, 0.4)
        default = np.where(
            (centres < 0.38)[:, None], brown * 0.3, np.where((centres < 1)[:, None], brown, white)
        )
        eye = np.isin(self._state.part, _EYE)
        clear = cv2.erode(eye.astype(np.uint8), np.ones((3, 3))) > 0
        theta = self._state.extra[..., 3]
        profile = default.astype(np.float32).copy()
        for i, centre in enumerate(centres):
            ring = clear & (np.abs(theta - centre) < 0.8 * _PROFILE_MAX / _PROFILE_BINS)
            if ring.sum() >= 6:
                profile[i] = np.median(self._crop[ring], axis=0)
            elif i and centre > 1.2:
                profile[i] = profile[i - 1]
        return cv2.GaussianBlur(profile, (1, 3), 0.7)


_PROFILE_BINS, _PROFILE_MAX = 24, 2.4
_SCLERA = 1.1
"""Where the white of the eye begins, in radii of the iris."""


def _continue_white(
    painted: F32, colour: F32, white: npt.NDArray[np.bool_], seen: npt.NDArray[np.bool_]
) -> F32:
    """Paint newly uncovered white of the eye like the white that shows beside it, by normalised
    convolution (Knutsson and Westin, CVPR 1993); where none is near, as bright as it is on the
    whole. The profile alone has the corners as dark as the portrait's lashes left them.

    Args:
        painted: (H, W, 3) by the eye's profile.
        colour: (H, W, 3) fetched.
        white: Where the white of the eye is.
        seen: Where of it the portrait shows it.
    """
    if seen.sum() < 12:
        return painted
    mean = colour[seen].mean(0)
    # never darker than three quarters of the white that shows
    brighter = float(mean.mean()) / max(float(painted[seen].mean()), 1.0)
    lifted = np.maximum(painted * brighter, 0.75 * mean)
    sigma = 1.5 * SUPERSAMPLE
    near = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), sigma)[..., None]
    spread = cv2.GaussianBlur(colour * seen[..., None], (0, 0), sigma) / np.maximum(near, 1e-3)
    share = np.clip(near / 0.25, 0, 1)
    return np.where(white[..., None], share * spread + (1 - share) * lifted, painted).astype(
        np.float32
    )


def _grid(size_px: int, render_px: int | None = None) -> F32:
    """(R, R, 2) pixel centres of a drawing, in crop pixels, order (x, y)."""
    count = render_px or size_px
    axis = (np.arange(count, dtype=np.float32) + 0.5) * (size_px / count)
    return np.stack(np.meshgrid(axis, axis), -1)


def _barycentric(place: F32, corners: F32) -> F32:
    """(N, 3) weights of the corners (N, 3, 2) of triangles at places (N, 2) within."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = place - corners[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    area = np.where(np.abs(area) < 1e-6, 1e-6, area)
    v = (p[:, 0] * b[:, 1] - p[:, 1] * b[:, 0]) / area
    w = (a[:, 0] * p[:, 1] - a[:, 1] * p[:, 0]) / area
    return np.stack([1 - v - w, v, w], 1).clip(0, 1).astype(np.float32)


def _shift(step: int) -> float:
    """How far left of a pixel's centre the first of its ``step`` finer pixels lies, in pixels."""
    return 0.5 - 0.5 / step


def _run_out(field: F32, mask: npt.NDArray[np.bool_], size_px: int) -> F32:
    """Continue a field beyond its mask: normalised blurs of growing width, fading with distance."""
    small = 128
    shrink = (small, small)
    weight = cv2.resize(mask.astype(np.float32), shrink, interpolation=cv2.INTER_AREA)
    value = cv2.resize(field, shrink, interpolation=cv2.INTER_AREA)
    out = np.zeros_like(value)
    have = np.zeros_like(weight)
    for sigma in (1.0, 2.0, 4.0, 8.0, 16.0):
        w = cv2.GaussianBlur(weight, (0, 0), sigma)
        v = cv2.GaussianBlur(value, (0, 0), sigma)
        fresh = np.clip(w / 0.1, 0, 1) * (1 - have)
        out += v / np.maximum(w, 1e-4)[..., None] * fresh[..., None]
        have += fresh
    away = cv2.distanceTransform((weight < 0.5).astype(np.uint8), cv2.DIST_L2, 5) / small
    fade = np.exp(-((away / 0.11) ** 2))
    out *= (fade * have)[..., None]
    return cv2.resize(out, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_LINEAR)


def _harmonics(normals: F32) -> F64:
    """(N, 9) real spherical harmonics to order 2, unnormalised (Ramamoorthi and Hanrahan,
    SIGGRAPH 2001).
    """
    x, y, z = normals.astype(np.float64).T
    return np.stack(
        [np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], 1
    )


def _region_of_vertex(model: IctModel, fitter: Fitter) -> npt.NDArray[np.int8]:
    """(V,) index into REGIONS by the model's parts; lips inside the outer lip line, lids near the
    lid rims.
    """
    region = np.zeros(len(model.vertices), np.int8)
    region[slice(*RANGES["face"])] = REGIONS.index("skin")
    for part in ("mouth_socket", "gums_tongue", "teeth"):
        region[slice(*RANGES[part])] = REGIONS.index("mouth_interior")
    region[slice(*RANGES["eye_socket"])] = REGIONS.index("lids")
    for part in ("eye_left", "eye_right"):
        region[slice(*RANGES[part])] = REGIONS.index("eyeball")
    face = np.arange(*RANGES["face"])
    xy = model.vertices[face, :2]
    order = [
        61,
        185,
        40,
        39,
        37,
        0,
        267,
        269,
        270,
        409,
        291,
        375,
        321,
        405,
        314,
        17,
        84,
        181,
        91,
        146,
    ]
    index = {
        int(m): int(v) for m, v in zip(fitter.pairs.landmarks, fitter.pairs.vertices, strict=True)
    }
    line = np.array([model.vertices[index[m], :2] for m in order], np.float32)
    inside = np.array([cv2.pointPolygonTest(line, (float(x), float(y)), False) >= 0 for x, y in xy])
    region[face[inside & (model.vertices[face, 2] > 7)]] = REGIONS.index("lips")
    for side, _, _ in EYES:
        rims = model.vertices[np.concatenate(fitter.lids[side])]
        near = np.linalg.norm(model.vertices[face][:, None] - rims[None], axis=2).min(1) < 0.75
        region[face[near]] = REGIONS.index("lids")
    return region
