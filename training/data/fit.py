"""Fit ICT-FaceKit to the landmarks of one portrait.

Scaled orthographic camera: ``x = s (R v)_x + t_x``, ``y = -s (R v)_y + t_y`` (pixels, y down).
Pose by a similarity
between landmarks and vertices, then identity and expression by bounded linear least squares with
Gaussian priors, a few
alternations; then a residual warp, so that the projected vertices meet the landmarks exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from rt_swap.aus import AUS, NUM_AUS
from training.data.correspond import IRIS_LANDMARKS, Correspondence
from training.data.ict import RANGES, IctModel

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

# eyeballs: vertex range, first iris vertex
EYES = (("L", RANGES["eye_left"], 22221), ("R", RANGES["eye_right"], 23791))
GAZE_DEG_HORIZONTAL = 30.0
GAZE_DEG_VERTICAL = 25.0
"""How far an eyeball turns at intensity 1; the lid shapes of the model were sculpted for about
this.
"""

IDENTITY_MODES = 60
IDENTITY_BOUND = 3.0
PRIOR_IDENTITY = 0.1
"""Chosen on people of whom there is a picture at rest and one that smiles: with half of it, more of
a smile is taken for a wide mouth.
"""
PRIOR_EXPRESSION = 0.12
# what portraits really show costs little; what mimics an identity (a wide mouth, a short nose, low
# brows, corners of the mouth that hang) costs much
PRIOR_OF_SHAPE = {
    "mouthSmile": 0.03, "jawOpen": 0.04, "mouthUpperUp": 0.07, "mouthLowerDown": 0.07,
    "browDown": 0.2,
    "browInnerUp": 0.14, "browOuterUp": 0.14, "eyeBlink": 0.04, "eyeWide": 0.08,
    "mouthFrown": 0.16, "mouthStretch": 0.16,
    "mouthLeft": 0.3, "mouthRight": 0.3, "mouthPucker": 0.2, "noseSneer": 0.2,
}  # fmt: skip
# shapes that a frontal view cannot tell from identity or from each other; a portrait is taken to
# show none of them
UNFITTED = (
    "jawForward",
    "cheekPuff",
    "mouthClose",
    "PupilDilate",
    "eyeLook",
    "mouthShrug",
    "mouthRoll",
)


_GAZE_STEP = 0.2
"""Intensity by which an eye is turned on and back, to see what a unit of its gaze does."""


@dataclass(frozen=True)
class Fit:
    """A portrait's face.

    Attributes:
        identity: (I,) coefficients.
        expression: (E,) coefficients in [0, 1].
        rotation: (3, 3) model to camera.
        scale: Pixels per model unit.
        offset_xy: (2,) pixels.
        residual_xy: (V, 2) pixels, added to the projection.
        blink_reach: (2,) factor on the blink shapes, [left, right], at which this person's lids
            meet.
        error: Root mean square landmark error before the residual warp, beside what everybody has
            in common of it (Correspondence.offsets), in units of the outer canthal distance.
        yaw_deg: Head turn, positive to the person's left.
    """

    identity: F32
    expression: F32
    rotation: F64
    scale: float
    offset_xy: F64
    residual_xy: F32
    blink_reach: F32
    error: float
    yaw_deg: float


class Fitter:
    """Fits portraits; holds what does not depend on the portrait."""

    def __init__(self, model: IctModel, pairs: Correspondence) -> None:
        self.model = model
        self.pairs = pairs
        self._fitted = np.array(
            [i for i, n in enumerate(model.expression_names) if not n.startswith(UNFITTED)]
        )
        self._prior = np.array(
            [
                PRIOR_OF_SHAPE.get(model.expression_names[i].split("_")[0], PRIOR_EXPRESSION)
                for i in self._fitted
            ]
        )
        self._eye_centre = {side: _sphere_centre(model.vertices[a:b]) for side, (a, b), _ in EYES}
        self._pupil = {
            side: _pupil_vertices(model.vertices, iris, b) for side, (_, b), iris in EYES
        }
        self._spread = self._spread_operator()
        self.lids = {side: self._lid_rims(side) for side, _, _ in EYES}

    # --- the model's surface
    # ------------------------------------------------------------------------------------------
    def identity_shape(self, identity: F32) -> F32:
        """(V, 3) neutral face of one identity."""
        n = len(identity)
        return self.model.vertices + np.tensordot(identity, self.model.identity[:n], 1)

    def shape(self, neutral: F32, expression: F32, blink_reach: F32 | None = None) -> F32:
        """(V, 3) face with an expression; eyeballs turn, lids meet where ``blink_reach`` says.

        Args:
            neutral: (V, 3) from :meth:`identity_shape`.
            expression: (E,) coefficients in [0, 1].
            blink_reach: (2,) factors of :attr:`Fit.blink_reach`, or None for 1.
        """
        coefficients = expression.astype(np.float32).copy()
        index = self.model.shape_index
        if blink_reach is not None:
            for side, reach in zip("LR", blink_reach, strict=True):
                coefficients[index[f"eyeBlink_{side}"]] *= reach
        used = np.flatnonzero(coefficients)
        out = neutral + np.tensordot(coefficients[used], self.model.expression[used], 1)
        for side, (a, b), _ in EYES:
            out[a:b] = self._turned(out[a:b], neutral, expression, side)
        return np.asarray(out, np.float32)

    def _turned(self, eyeball: F32, neutral: F32, expression: F32, side: str) -> F32:
        """(v, 3) vertices of one eyeball, turned to where the expression looks."""
        a, b = next(vertices for name, vertices, _ in EYES if name == side)
        centre = self._eye_centre[side] + (neutral[a:b] - self.model.vertices[a:b]).mean(0)
        turn = self._gaze_rotation(expression, side)
        return np.asarray((eyeball - centre) @ turn.T + centre, np.float32)

    def unit_motion(self, fit: Fit) -> F32:
        """What each unit does to every vertex as the picture shows it: the derivative of
        :meth:`project` of :meth:`shape` by the intensities. Faces are linear in them, so this is
        the whole of a motion, and not only its beginning; eyeballs, which turn, stand still here
        (:meth:`eye_motion`).

        Args:
            fit: Pose, scale and lids.

        Returns:
            (V, 2K, 2) pixels of the portrait per unit of intensity, order (x, y); units in the
            order of aus_lr, flattened.
        """
        out = np.empty((len(self.model.vertices), 2 * NUM_AUS, 2), np.float32)
        to_xy = _to_picture(fit)
        for unit, (names, part) in enumerate(units()):
            shown = [self.model.shape_index[name] for name in names]
            reach = [
                fit.blink_reach["LR".index(name[-1])] if name.startswith("eyeBlink") else 1.0
                for name in names
            ]
            moved = np.tensordot(
                np.float32(part) * np.asarray(reach, np.float32), self.model.expression[shown], 1
            )
            out[:, unit] = moved @ to_xy
        return out

    def eye_motion(self, fit: Fit, neutral: F32, expression: F32, side: str) -> F32:
        """What each unit does to one eyeball: as :meth:`unit_motion`, from where the eye looks,
        as a difference over a fifth of a unit either way.

        Args:
            fit: Pose and scale.
            neutral: (V, 3) from :meth:`identity_shape`.
            expression: (E,) coefficients in [0, 1].
            side: "L" or "R".

        Returns:
            (v, 2K, 2) for the vertices of that eyeball.
        """
        a, b = next(vertices for name, vertices, _ in EYES if name == side)
        out = np.zeros((b - a, 2 * NUM_AUS, 2), np.float32)
        to_xy = _to_picture(fit)
        for unit, (names, part) in enumerate(units()):
            if not any(name.startswith("eyeLook") for name in names):
                continue
            shown = [self.model.shape_index[name] for name in names]
            ends = []
            for step in (_GAZE_STEP, -_GAZE_STEP):
                there = expression.copy()
                there[shown] += step
                ends.append(self._turned(neutral[a:b], neutral, there, side))
            out[:, unit] = (ends[0] - ends[1]) @ to_xy * (part / (2 * _GAZE_STEP))
        return out

    def pupil(self, side: str) -> npt.NDArray[np.int64]:
        """Vertices of the middle of an eye's iris, "L" or "R"."""
        return self._pupil[side]

    def _gaze_rotation(self, expression: F32, side: str) -> F64:
        c = {
            n: float(expression[self.model.shape_index[f"eyeLook{n}_{side}"]])
            for n in ("In", "Out", "Up", "Down")
        }
        sign = 1.0 if side == "L" else -1.0
        yaw = (
            np.radians(GAZE_DEG_HORIZONTAL) * sign * (c["Out"] - c["In"])
        )  # towards +x, the person's left
        pitch = np.radians(GAZE_DEG_VERTICAL) * (c["Down"] - c["Up"])
        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        return np.asarray(about_y @ about_x)

    # --- projecting ------------------------------------------------------------------------------
    def project(self, fit: Fit, vertices: F32, residual: bool = True) -> F32:
        """(V, 3) model -> (V, 3): x, y in pixels of the portrait, z in pixels towards the
        camera.
        """
        turned = vertices @ fit.rotation.T * fit.scale
        out = np.empty_like(turned, np.float32)
        out[:, 0] = turned[:, 0] + fit.offset_xy[0]
        out[:, 1] = -turned[:, 1] + fit.offset_xy[1]
        out[:, 2] = turned[:, 2]
        if residual:
            out[:, :2] += fit.residual_xy
        return out

    # --- fitting ---------------------------------------------------------------------------------
    def fit(
        self, landmarks_xy: F64, depth: F64, alternations: int = 8, *, at_rest: bool = False
    ) -> Fit:
        """Fit one face.

        Args:
            landmarks_xy: (478, 2) pixels.
            depth: (478,) pixels, smaller is nearer.
            alternations: Of pose and shape.
            at_rest: The face is known to show no expression (but for where the eyes look).
        """
        pairs, model = self.pairs, self.model
        seen_xy = landmarks_xy[pairs.landmarks]
        up = np.stack([seen_xy[:, 0], -seen_xy[:, 1], -depth[pairs.landmarks]], 1)
        identity = np.zeros(IDENTITY_MODES)
        expression = np.zeros(len(model.expression_names))
        basis_id = model.identity[:IDENTITY_MODES, pairs.vertices].astype(np.float64)
        basis_ex = model.expression[self._fitted][:, pairs.vertices].astype(np.float64)
        mean = (model.vertices[pairs.vertices] + pairs.offsets).astype(np.float64)
        yaw = 0.0
        for _ in range(alternations):
            points = (
                mean
                + np.tensordot(identity, basis_id, 1)
                + np.tensordot(expression[self._fitted], basis_ex, 1)
            )
            # depth only helps to tell the turn of the head; its own scale is uncertain
            weight = pairs.weights * np.where(
                pairs.is_contour, np.cos(np.radians(min(abs(yaw) * 2, 80))), 1
            )
            rotation, scale = _similarity3(points, up, weight)
            projected = points @ rotation.T * scale
            offset = np.average(up[:, :2] - projected[:, :2], axis=0, weights=weight)
            yaw = float(np.degrees(np.arctan2(rotation[0, 2], rotation[2, 2])))
            # least squares in model units, so that priors mean the same in every picture
            target = (up[:, :2] - offset) / scale - mean @ rotation[:2].T
            rows = np.concatenate([basis_id, basis_ex]) @ rotation[:2].T  # (I + E, N, 2)
            sqrt_w = np.sqrt(weight)[:, None]
            A = (rows * sqrt_w).reshape(len(rows), -1).T
            y = (target * sqrt_w).ravel()
            n_ex = len(self._fitted)
            damp = np.concatenate([np.full(IDENTITY_MODES, PRIOR_IDENTITY), self._prior]) * np.sqrt(
                weight.sum()
            )
            H, g = A.T @ A + np.diag(damp**2), A.T @ y
            lower = np.concatenate([np.full(IDENTITY_MODES, -IDENTITY_BOUND), np.zeros(n_ex)])
            most = np.zeros(n_ex) if at_rest else np.ones(n_ex)
            upper = np.concatenate([np.full(IDENTITY_MODES, IDENTITY_BOUND), most])
            found = np.concatenate([identity, expression[self._fitted]])
            _bounded_least_squares(H, g, lower, upper, found)
            identity, expression[self._fitted] = found[:IDENTITY_MODES], found[IDENTITY_MODES:]

        fit = Fit(
            identity=identity.astype(np.float32),
            expression=expression.astype(np.float32),
            rotation=rotation,
            scale=float(scale),
            offset_xy=np.array([offset[0], -offset[1]]),
            residual_xy=np.zeros((len(model.vertices), 2), np.float32),
            blink_reach=np.ones(2, np.float32),
            error=0.0,
            yaw_deg=yaw,
        )
        neutral = self.identity_shape(fit.identity)
        canthal = float(np.linalg.norm(landmarks_xy[33] - landmarks_xy[263]))
        # eyes: turn them until the irises meet their landmarks
        residual = self._residual(fit, neutral, landmarks_xy)
        fit = replace(fit, residual_xy=residual)
        fit = replace(fit, expression=self._fit_gaze(fit, neutral, landmarks_xy))
        points = self.shape(neutral, fit.expression)[pairs.vertices] + pairs.offsets
        inner = ~pairs.is_contour
        miss = (self.project(fit, points, residual=False)[:, :2] - seen_xy)[inner]
        error = float(np.sqrt((miss**2).sum(1).mean())) / canthal
        fit = replace(fit, residual_xy=self._residual(fit, neutral, landmarks_xy), error=error)
        return replace(fit, blink_reach=self.blink_reach(fit, neutral))

    def _residual(self, fit: Fit, neutral: F32, landmarks_xy: F64) -> F32:
        pairs = self.pairs
        vertices = self.shape(neutral, fit.expression)
        miss = (
            landmarks_xy[pairs.landmarks]
            - self.project(fit, vertices, residual=False)[pairs.vertices, :2]
        )
        trust = np.where(
            pairs.is_contour, 0.5 * np.cos(np.radians(min(abs(fit.yaw_deg) * 2, 90))), 1.0
        )
        out = (self._spread @ (miss * trust[:, None])).astype(np.float32)
        # eyeballs go with their lids, teeth with the jaw they sit in
        for side, (a, b), _ in EYES:
            rims = np.concatenate(self.lids[side])
            out[a:b] = out[rims].mean(0)
        nose = np.isin(pairs.landmarks, (2, 97, 326, 37, 267, 0))
        chin = np.isin(pairs.landmarks, (17, 84, 314, 152))
        upper, lower = miss[nose].mean(0), miss[chin].mean(0)
        g0, t1 = RANGES["gums_tongue"][0], RANGES["teeth"][1]
        jaw = np.linalg.norm(
            self.model.expression[self.model.shape_index["jawOpen"]][g0:t1], axis=1
        )
        share = (jaw / max(float(jaw.max()), 1e-6)).clip(0, 1)[:, None]
        out[g0:t1] = upper * (1 - share) + lower * share
        return out

    def _fit_gaze(self, fit: Fit, neutral: F32, landmarks_xy: F64) -> F32:
        expression = fit.expression.copy()
        index = self.model.shape_index
        angles = []
        for (side, _, _), landmark in zip(EYES, IRIS_LANDMARKS, strict=True):
            pupil = self._pupil[side]
            straight = self.project(fit, self.shape(neutral, expression))[pupil, :2].mean(0)
            miss = (landmarks_xy[landmark] - straight) / fit.scale
            miss = fit.rotation[:2, :2].T @ np.array([miss[0], -miss[1]])
            radius = 1.45  # of the eyeball, model units
            angles.append(np.arcsin(np.clip(miss / radius, -0.6, 0.6)))
        # both eyes look the same way: take the mean, which halves the landmark noise
        yaw, pitch = np.degrees(np.mean(angles, 0))
        left = float(np.clip(yaw / GAZE_DEG_HORIZONTAL, -1, 1))
        up = float(np.clip(pitch / GAZE_DEG_VERTICAL, -1, 1))
        for name, value in (
            ("eyeLookOut_L", left), ("eyeLookIn_R", left), ("eyeLookIn_L", -left), ("eyeLookOut_R",
            -left),
            ("eyeLookUp_L", up), ("eyeLookUp_R", up), ("eyeLookDown_L", -up), ("eyeLookDown_R",
            -up),
        ):  # fmt: skip
            expression[index[name]] = max(value, 0.0)
        return expression

    def blink_reach(self, fit: Fit, neutral: F32) -> F32:
        """(2,) factor on the blink shape, [left, right], at which the rims of this person's lids
        meet (the fit leaves them a gap or overlap).

        Args:
            fit: Of the person; its own ``blink_reach`` is not looked at.
            neutral: (V, 3) from :meth:`identity_shape`.
        """
        out = np.ones(2, np.float32)
        for i, (side, _, _) in enumerate(EYES):
            name = self.model.shape_index[f"eyeBlink_{side}"]
            upper, lower = self.lids[side]

            def gap(
                blink: float, name: int = name, upper: object = upper, lower: object = lower
            ) -> float:
                expression = fit.expression.copy()
                expression[
                    [
                        self.model.shape_index[f"eyeLook{d}_{s}"]
                        for d in ("Up", "Down")
                        for s in "LR"
                    ]
                ] = 0
                expression[
                    [
                        self.model.shape_index[f"{n}_{s}"]
                        for n in ("eyeWide", "eyeSquint")
                        for s in "LR"
                    ]
                ] = 0
                expression[name] = blink
                xy = self.project(fit, self.shape(neutral, expression))[:, :2]
                return float((xy[lower] - xy[upper])[2:-2, 1].mean())

            at0, at1 = gap(0.0), gap(1.0)
            if at0 - at1 > 1e-3:
                out[i] = np.clip(at0 / (at0 - at1), 0.7, 1.6)
        return out

    # --- built once ------------------------------------------------------------------------------
    def _lid_rims(self, side: str) -> tuple[F32, F32]:
        media_upper = (362, 398, 384, 385, 386, 387, 388, 466, 263) if side == "L" else (
            133, 173, 157, 158, 159, 160, 161, 246, 33)  # fmt: skip
        media_lower = (362, 382, 381, 380, 374, 373, 390, 249, 263) if side == "L" else (
            133, 155, 154, 153, 145, 144, 163, 7, 33)  # fmt: skip
        where = {
            int(m): int(v) for m, v in zip(self.pairs.landmarks, self.pairs.vertices, strict=True)
        }
        return np.array([where[m] for m in media_upper]), np.array([where[m] for m in media_lower])

    def _spread_operator(self) -> F64:
        """(V, N) linear map from residuals at the landmarks to every vertex: radial basis
        interpolation, phi(r) = r.

        Distances are taken with the jaw open, so that upper and lower lip are apart; anchors far
        back hold still.
        """
        model, pairs = self.model, self.pairs
        space = model.vertices + 0.6 * model.expression[model.shape_index["jawOpen"]]
        space = space * np.array([1, 1, 0.6], np.float32)
        face_end = RANGES["eye_socket"][1]
        head = np.arange(*RANGES["head"])
        back = head[model.vertices[head, 2] < 2.0][::12]
        anchors = np.concatenate([pairs.vertices, back])
        centres = space[anchors].astype(np.float64)
        kernel = cdist(centres, centres)
        kernel[np.diag_indices(len(pairs.vertices))] -= (
            0.15  # some smoothing, against spikes at single landmarks (phi = r is negative)
        )
        ones = np.ones((len(anchors), 1))
        system = np.block([[kernel, ones], [ones.T, np.zeros((1, 1))]])
        rows = np.concatenate(
            [
                np.arange(face_end),
                np.arange(*RANGES["lacrimal"]),
                np.arange(RANGES["eye_blend"][0], len(space)),
            ]
        )
        evaluate = np.concatenate([cdist(space[rows], centres), np.ones((len(rows), 1))], 1)
        solve = np.linalg.solve(system, np.eye(len(anchors) + 1)[:, : len(pairs.vertices)])
        out = np.zeros((len(space), len(pairs.vertices)))
        out[rows] = evaluate @ solve
        return out


def units() -> list[tuple[tuple[str, ...], float]]:
    """Shapes of each of the 2K units in the order of aus_lr, and what part of them is its own: a
    unit in the middle of the face has both of its sides say the same, half each.
    """
    return [
        (shapes, 0.5 if au.is_midline else 1.0)
        for au in AUS
        for shapes in (au.shapes_left, au.shapes_right)
    ]


def _to_picture(fit: Fit) -> F32:
    """(3, 2): a short way of the model's becomes pixels, y down."""
    to_xy = fit.rotation[:2].T.astype(np.float32) * np.float32(fit.scale)
    return np.asarray(to_xy * np.array([1, -1], np.float32))


def _similarity3(points: F64, seen: F64, weight: F32) -> tuple[F64, float]:
    """Rotation from points to seen in three dimensions (Umeyama 1991), scale from the picture
    plane alone.
    """
    w = weight / weight.sum()
    a, b = points - w @ points, seen - w @ seen
    u, _, vt = np.linalg.svd((b * w[:, None]).T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    turned = (a @ rotation.T)[:, :2]
    scale = float((w[:, None] * turned * b[:, :2]).sum() / (w[:, None] * turned**2).sum())
    return rotation, scale


def _bounded_least_squares(
    H: F64, g: F64, lower: F64, upper: F64, x: F64, sweeps: int = 25
) -> None:
    """Minimise x.Hx/2 - g.x within bounds by cyclic coordinate descent, starting from (and
    writing) x.

    H is positive definite here (priors on its diagonal), so the descent converges to the one
    minimum.
    """
    slope = H @ x - g
    diagonal = H.diagonal()
    for _ in range(sweeps):
        largest = 0.0
        for i in range(len(x)):
            new = min(max(x[i] - slope[i] / diagonal[i], lower[i]), upper[i])
            step = new - x[i]
            if step:
                slope += H[i] * step
                x[i] = new
                largest = max(largest, abs(step))
        if largest < 1e-4:
            return


def _sphere_centre(points: F32) -> F64:
    """Centre of the sphere that fits the points best (linear least squares)."""
    p = points.astype(np.float64)
    A = np.concatenate([2 * p, np.ones((len(p), 1))], 1)
    return np.asarray(np.linalg.lstsq(A, (p**2).sum(1), rcond=None)[0][:3])


def _pupil_vertices(vertices: F32, iris: int, end: int) -> npt.NDArray[np.int64]:
    """The middle of the iris: the quarter of its vertices nearest its axis."""
    points = vertices[iris:end, :2]
    distance = np.linalg.norm(points - (points.min(0) + points.max(0)) / 2, axis=1)
    return iris + np.argsort(distance)[: len(points) // 4]
