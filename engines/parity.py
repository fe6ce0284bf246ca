"""How far two ways of running one graph are apart, per output, on inputs worth comparing on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from rt_swap.aus import NUM_AUS
from rt_swap.contract import (
    COMPOSED_MIN_PSNR_DB,
    COMPOSED_P99_LEVELS,
    CROP_SIZE_PX,
    ENCODER_SPEC,
    GENERATOR_SPEC,
    GRAPHS,
    PARITY,
    GraphSpec,
    Tolerance,
    some_landmarks,
)
from rt_swap.errors import ConfigError, SourceError
from rt_swap.frames import F32, F64, U8

_log = logging.getLogger(__name__)

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
Case = dict[str, F32]


class Runner(Protocol):
    """Anything that runs one graph: a backend's session, or the PyTorch module."""

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Every output by name; the arrays may be reused by the next run."""
        ...


def structured_pictures(seed: int = 0) -> list[F32]:
    """Pictures that exercise a network where no portrait is at hand, extremes included.

    Args:
        seed: Of the random ones.

    Returns:
        (1, 3, S, S) float32 each, RGB, [0, 1]: black, white, mid grey, colour ramps, a checkerboard
        of single pixels, noise, and smooth random blobs of two different kinds.
    """
    rng = np.random.default_rng(seed)
    size = CROP_SIZE_PX
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    ramps = np.stack([x, y, 1 - x])
    checker = np.broadcast_to((np.indices((size, size)).sum(0) % 2), (3, size, size))
    pictures = [np.full((3, size, size), level) for level in (0.0, 1.0, 0.5)]
    pictures += [ramps, checker, rng.uniform(size=(3, size, size))]
    for count in (6, 40):
        blobs = np.zeros((3, size, size))
        for _ in range(count):
            cx, cy, radius = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.02, 0.3)
            spot = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
            blobs += rng.normal(size=(3, 1, 1)) * spot
        pictures.append(1 / (1 + np.exp(-2 * blobs)))
    return [np.ascontiguousarray(p[None], np.float32) for p in pictures]


@dataclass(frozen=True)
class Face:
    """A real picture and where the face's aligned crop lies in it.

    Attributes:
        frame_bgr: (H, W, 3) uint8, BGR.
        M_crop_from_frame: (2, 3).
        crop_rgb: (1, 3, S, S) float32, RGB, [0, 1], cut out with it.
        landmarks_xy: (1, 478, 2) float32, its landmarks, pixels of the crop.
    """

    frame_bgr: U8
    M_crop_from_frame: F64
    crop_rgb: F32
    landmarks_xy: F32


def face_in(frame_bgr: U8, M_crop_from_frame: F64, landmarks_xy: F64) -> Face:
    """The face cut out; landmarks are the frame's, (478, 2) pixels."""
    from rt_swap import geometry
    from rt_swap.ops import crop_rgb

    M_frame_from_crop = geometry.invert(M_crop_from_frame)
    return Face(
        frame_bgr,
        M_crop_from_frame,
        crop_rgb(frame_bgr, M_frame_from_crop, CROP_SIZE_PX),
        geometry.apply(M_crop_from_frame, landmarks_xy)[None].astype(np.float32),
    )


def real_faces(path: Path, limit: int = 16) -> list[Face]:
    """Faces in a folder's pictures.

    Args:
        path: A picture, or a folder that is searched with its subfolders.
        limit: How many at most; taken evenly from the sorted files.

    Raises:
        ConfigError: If there are no pictures, or no face in any of them.
    """
    from rt_swap import geometry
    from rt_swap.expression import find_faces
    from rt_swap.io.picture import read_picture
    from rt_swap.tracking import MediapipeTracker

    files = picture_files(path)
    if not files:
        raise ConfigError(f"{path}: no pictures here ({', '.join(PICTURE_SUFFIXES)})")
    step = max(len(files) // (2 * limit), 1)
    faces: list[Face] = []
    with MediapipeTracker(max_faces=1, static=True) as tracker:
        for file in files[::step]:
            try:
                picture_bgr = read_picture(file)
            except SourceError as exc:
                _log.warning("%s; left out", exc)
                continue
            found = find_faces(picture_bgr, tracker)
            if found:
                M_crop_from_frame = geometry.crop_from_landmarks(found[0].landmarks_xy)
                faces.append(face_in(picture_bgr, M_crop_from_frame, found[0].landmarks_xy))
            if len(faces) == limit:
                break
    if not faces:
        raise ConfigError(f"{path}: no face was found in any of its {len(files)} pictures")
    return faces


def portrait_crops(path: Path, limit: int = 16) -> list[F32]:
    """The crops of :func:`real_faces`: (1, 3, S, S) float32 each, RGB, [0, 1]."""
    return [face.crop_rgb for face in real_faces(path, limit)]


def astronaut_faces() -> list[Face]:
    """NASA's portrait of Eileen Collins (scikit-image, public domain), cut out in several ways.

    Returns:
        Eight faces: as tracked, then tilted, moved, larger, smaller, mirrored, dark, and in a
        picture twice as large, so that the network meets crops as unlike as a video's are.

    Raises:
        ConfigError: If scikit-image is not installed.
    """
    from rt_swap import geometry
    from rt_swap.expression import find_faces
    from rt_swap.tracking import MediapipeTracker

    try:
        from skimage import data
    except ImportError as exc:
        raise ConfigError(
            "the built-in portrait comes with scikit-image; pip install scikit-image, or give "
            "--portraits DIR"
        ) from exc
    astronaut: U8 = data.astronaut()  # type: ignore[no-untyped-call]
    picture: U8 = np.ascontiguousarray(astronaut[:, :, ::-1])
    with MediapipeTracker(max_faces=1, static=True) as tracker:
        found = find_faces(picture, tracker)
    if not found:
        raise ConfigError("no face was found in the built-in portrait; mediapipe is damaged")
    xy = found[0].landmarks_xy
    M: F64 = geometry.crop_from_landmarks(xy)

    def changed(turn_deg: float = 0.0, scale: float = 1.0, x: float = 0.0, y: float = 0.0) -> F64:
        """The crop turned and scaled about its middle, then moved, in crop pixels."""
        c, s = scale * math.cos(math.radians(turn_deg)), scale * math.sin(math.radians(turn_deg))
        middle = np.full(2, CROP_SIZE_PX / 2)
        linear = np.array([[c, -s], [s, c]])
        moved = np.concatenate([linear, (middle - linear @ middle + (x, y))[:, None]], axis=1)
        return geometry.compose(moved, M)

    width = picture.shape[1]
    mirror = np.array([[-1.0, 0.0, CROP_SIZE_PX], [0.0, 1.0, 0.0]])
    unmirror = np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])
    # left landmarks stay left: a mirrored face with its points exchanged, which no tracker makes,
    # but no worse for comparing two runtimes
    mirrored_xy = geometry.apply(unmirror, xy)
    mirrored: U8 = np.ascontiguousarray(picture[:, ::-1])
    large: U8 = picture.repeat(2, 0).repeat(2, 1)
    halve = np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
    dark: U8 = (picture // 4).astype(np.uint8)
    return [
        face_in(picture, M, xy),
        face_in(picture, changed(turn_deg=12), xy),
        face_in(picture, changed(x=9, y=-7), xy),
        face_in(picture, changed(scale=1.15, turn_deg=-5), xy),
        face_in(picture, changed(scale=0.85, x=-4), xy),
        face_in(mirrored, geometry.compose(mirror, geometry.compose(M, unmirror)), mirrored_xy),
        face_in(dark, M, xy),
        face_in(large, geometry.compose(M, halve), 2 * xy),
    ]


def faces_of_pictures(pictures: Sequence[F32]) -> list[Face]:
    """Crops seen as whole frames, for inputs that come from no picture."""
    M_identity = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return [
        Face(
            np.ascontiguousarray(np.rint(p[0, ::-1] * 255).astype(np.uint8).transpose(1, 2, 0)),
            M_identity,
            p,
            some_landmarks(),
        )
        for p in pictures
    ]


def picture_files(path: Path) -> list[Path]:
    """A picture, or all pictures below a folder, sorted."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)


def encoder_cases(pictures: Iterable[F32]) -> list[Case]:
    """One case a picture."""
    return [{"source_rgb": picture} for picture in pictures]


def generator_cases(faces: Sequence[Face], tokens: Sequence[F32], seed: int = 0) -> list[Case]:
    """Each picture driven by another one's tokens, in the ways that gains and modes allow.

    Args:
        faces: The pictures.
        tokens: (1, K, D) of each picture.
        seed: Of the random gains.

    Returns:
        A case a picture, cycling through: all of the source; random gains; all of it in the
        relative mode; none; one AU only; exaggerated; random and relative.
    """
    rng = np.random.default_rng(seed)
    count = len(faces)
    cases: list[Case] = []
    for i, face in enumerate(faces):
        one_au = np.zeros((1, NUM_AUS))
        one_au[0, i % NUM_AUS] = 1
        ways = [
            (np.ones((1, NUM_AUS)), 0.0),
            (rng.uniform(0, 1, (1, NUM_AUS)), 0.0),
            (np.ones((1, NUM_AUS)), 1.0),
            (np.zeros((1, NUM_AUS)), 0.0),
            (one_au, 0.0),
            (np.full((1, NUM_AUS), 2.0), 0.0),
            (rng.uniform(0, 2, (1, NUM_AUS)), 1.0),
        ]
        gains, relative = ways[i % len(ways)]
        cases.append(
            {
                "target_rgb": face.crop_rgb,
                "landmarks_xy": face.landmarks_xy,
                "source_tokens": np.array(tokens[(i + 1) % count], np.float32),
                "base_tokens": np.array(tokens[(i + 2) % count], np.float32),
                "gains": gains.astype(np.float32),
                "relative": np.full((1, 1), relative, np.float32),
            }
        )
    return cases


def compare(
    spec: GraphSpec,
    reference: Runner,
    candidate: Runner,
    cases: Sequence[Case],
    precision: str = "fp32",
    see: Callable[[int, Mapping[str, F32], Mapping[str, F32]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run both on every case and sum up the differences.

    Args:
        spec: The graph.
        reference: What is right by definition.
        candidate: What is tested.
        cases: Inputs by name.
        precision: Of the candidate, "fp32" or "fp16": which of the contract's tolerances hold.
        see: Called with each case's number and both answers.

    Returns:
        Per output: "max", "mean" and "p99" absolute error, "psnr_db" (peak: the largest magnitude
        of the reference; None where nothing differs), "range" [min, max] of the reference,
        "tolerance" (of the maximum), "tolerance_p99", "ok". An output that is not finite anywhere
        is not ok; its errors are None.
    """
    errors: dict[str, list[F32]] = {t.name: [] for t in spec.outputs}
    lows = dict.fromkeys(errors, math.inf)
    highs = dict.fromkeys(errors, -math.inf)
    for i, case in enumerate(cases):
        wanted = {name: array.copy() for name, array in reference.run(case).items()}
        got = candidate.run(case)
        for name in errors:
            difference = np.abs(wanted[name].astype(np.float64) - got[name].astype(np.float64))
            errors[name].append(difference.astype(np.float32).ravel())
            lows[name] = min(lows[name], float(wanted[name].min()))
            highs[name] = max(highs[name], float(wanted[name].max()))
        if see is not None:
            see(i, wanted, got)
    return {
        name: _summary(np.concatenate(found), lows[name], highs[name], PARITY[precision][name])
        for name, found in errors.items()
        if found
    }


class Composer:
    """Composes both answers on the frame they are for and keeps the differences in grey levels."""

    def __init__(self, faces: Sequence[Face]) -> None:
        self._faces = faces
        self._errors: list[F32] = []

    def see(self, i: int, wanted: Mapping[str, F32], got: Mapping[str, F32]) -> None:
        """Both answers of the generator for face ``i``."""
        pictures = [self._composed(self._faces[i], answer) for answer in (wanted, got)]
        difference = np.abs(pictures[0].astype(np.float32) - pictures[1].astype(np.float32))
        self._errors.append(difference.ravel())

    def summary(self) -> dict[str, Any] | None:
        """The differences summed up.

        Returns:
            "max", "mean", "p99" in grey levels over the crops' pixels, "psnr_db" (peak 255; None
            where nothing differs), the tolerances, "ok". None where nothing was seen.
        """
        if not self._errors:
            return None
        errors = np.concatenate(self._errors)
        mean_square = float(np.square(errors, dtype=np.float64).mean())
        psnr_db = 10 * math.log10(255**2 / mean_square) if mean_square > 0 else None
        p99 = float(np.percentile(errors, 99))
        return {
            "max": float(errors.max()),
            "mean": float(errors.mean(dtype=np.float64)),
            "p99": p99,
            "psnr_db": psnr_db,
            "tolerance_p99": COMPOSED_P99_LEVELS,
            "min_psnr_db": COMPOSED_MIN_PSNR_DB,
            "ok": p99 <= COMPOSED_P99_LEVELS
            and (psnr_db is None or psnr_db >= COMPOSED_MIN_PSNR_DB),
        }

    @staticmethod
    def _composed(face: Face, answer: Mapping[str, F32]) -> U8:
        """The part of the composed frame that the crop covers."""
        from rt_swap import geometry, ops

        frame = face.frame_bgr
        out = ops.compose_bgr(
            frame,
            face.M_crop_from_frame,
            answer["flow_xy"],
            answer["keep"],
            answer["fill_rgb"],
            answer["shade"],
            ops.feather(CROP_SIZE_PX),
        )
        M_frame_from_crop = geometry.invert(face.M_crop_from_frame)
        height, width = frame.shape[:2]
        x0, y0, x1, y1 = geometry.roi_of_crop(M_frame_from_crop, CROP_SIZE_PX, (height, width))
        return out[y0:y1, x0:x1]


def report(
    reference_name: str,
    candidate_name: str,
    graphs: Mapping[str, Mapping[str, Mapping[str, Any]]],
    cases: Mapping[str, int],
    inputs: str,
    composed: Mapping[str, Any] | None = None,
    precision: str = "fp32",
) -> dict[str, Any]:
    """One parity report, ready for JSON.

    Args:
        reference_name: What was compared with, and its version.
        candidate_name: What was compared, and its version.
        graphs: :func:`compare`'s answer per graph.
        cases: How many cases each graph was run on.
        inputs: What the pictures were.
        composed: :meth:`Composer.summary`'s answer.
        precision: Of the candidate.

    Returns:
        The report. "ok" is False where an output or the composed picture is not, and where an
        output of the contract or the composed picture was not compared at all.
    """
    missing = [
        f"{graph}.{output.name}"
        for graph in GRAPHS
        for output in GRAPHS[graph].outputs
        if output.name not in graphs.get(graph, {})
    ]
    if composed is None:
        missing.append("the composed picture")
    good = all(output["ok"] for outputs in graphs.values() for output in outputs.values())
    good = good and composed is not None and bool(composed["ok"])
    return {
        "reference": reference_name,
        "candidate": candidate_name,
        "precision": precision,
        "inputs": inputs,
        "cases": dict(cases),
        "graphs": {graph: dict(outputs) for graph, outputs in graphs.items()},
        "composed": None if composed is None else dict(composed),
        "not_compared": missing,
        "ok": bool(good and graphs and not missing),
    }


def table(parity: Mapping[str, Any]) -> str:
    """A parity report as text, one line an output."""
    lines = [
        f"{parity['candidate']} against {parity['reference']}, {parity['inputs']}, "
        f"cases: {', '.join(f'{g} {n}' for g, n in parity['cases'].items()) or 'none'}",
        f"{'output':32}{'max':>11}{'p99':>11}{'mean':>11}{'PSNR dB':>9}{'allowed':>9}",
    ]
    for graph, outputs in parity["graphs"].items():
        for name, o in outputs.items():
            numbers = "".join(
                f"{'-' if o[key] is None else format(o[key], '.2e'):>11}"
                for key in ("max", "p99", "mean")
            )
            psnr = "-" if o["psnr_db"] is None else f"{o['psnr_db']:.1f}"
            verdict = "" if o["ok"] else "  TOO FAR"
            lines.append(f"{graph + '.' + name:32}{numbers}{psnr:>9}{o['tolerance']:>9g}{verdict}")
    if composed := parity["composed"]:
        numbers = "".join(f"{composed[key]:>11.2g}" for key in ("max", "p99", "mean"))
        psnr = "-" if composed["psnr_db"] is None else f"{composed['psnr_db']:.1f}"
        verdict = "" if composed["ok"] else "  TOO FAR"
        allowed = composed["tolerance_p99"]
        lines.append(
            f"{'composed picture, grey levels':32}{numbers}{psnr:>9}{allowed:>9g}{verdict}"
            f"  (p99; PSNR at least {composed['min_psnr_db']:g} dB)"
        )
    if parity["not_compared"]:
        lines.append(f"NOT COMPARED: {', '.join(parity['not_compared'])}")
    return "\n".join(lines)


def compare_bundle(
    references: Mapping[str, Runner],
    candidates: Mapping[str, Runner],
    pictures: Sequence[F32] | Sequence[Face],
    *,
    reference_name: str,
    candidate_name: str,
    inputs: str,
    precision: str = "fp32",
    seed: int = 0,
) -> dict[str, Any]:
    """Compare both graphs of a model.

    Args:
        references: Per graph name, what is right by definition.
        candidates: Per graph name, what is tested.
        pictures: Faces in their frames, on which the answers are composed; or crops,
            (1, 3, S, S) each, which then are the frames. None at all is a report that is not ok.
        reference_name: For the report.
        candidate_name: For the report.
        inputs: What the pictures are, for the report.
        precision: Of the candidates: which of the contract's tolerances hold.
        seed: Of the random gains.

    Returns:
        See :func:`report`.
    """
    faces = [p if isinstance(p, Face) else faces_of_pictures([p])[0] for p in pictures]
    pictures = [face.crop_rgb for face in faces]
    encoder = references[ENCODER_SPEC.name]
    tokens = [np.array(encoder.run(case)["tokens"]) for case in encoder_cases(pictures)]
    cases = {
        ENCODER_SPEC.name: encoder_cases(pictures),
        GENERATOR_SPEC.name: generator_cases(faces, tokens, seed),
    }
    composer = Composer(faces)
    graphs = {
        name: compare(
            GRAPHS[name],
            references[name],
            candidates[name],
            cases[name],
            precision,
            composer.see if name == GENERATOR_SPEC.name else None,
        )
        for name in cases
    }
    counts = {name: len(found) for name, found in cases.items()}
    return report(
        reference_name, candidate_name, graphs, counts, inputs, composer.summary(), precision
    )


def _summary(errors: F32, low: float, high: float, tolerance: Tolerance) -> dict[str, Any]:
    allowed = {"tolerance": tolerance.max, "tolerance_p99": tolerance.p99}
    if not (np.isfinite(errors).all() and math.isfinite(low) and math.isfinite(high)):
        return {
            "max": None, "mean": None, "p99": None, "psnr_db": None, "range": None,
            **allowed, "ok": False,
        }  # fmt: skip
    mean_square = float(np.square(errors, dtype=np.float64).mean())
    peak = max(abs(low), abs(high), 1e-12)
    largest, p99 = float(errors.max()), float(np.percentile(errors, 99))
    return {
        "max": largest,
        "mean": float(errors.mean(dtype=np.float64)),
        "p99": p99,
        "psnr_db": 10 * math.log10(peak**2 / mean_square) if mean_square > 0 else None,
        "range": [low, high],
        **allowed,
        "ok": largest <= tolerance.max and p99 <= tolerance.p99,
    }
