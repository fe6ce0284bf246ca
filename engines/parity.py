"""How far two ways of running one graph are apart, per output, on inputs worth comparing on."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from rt_swap.aus import NUM_AUS
from rt_swap.contract import (
    CROP_SIZE_PX,
    ENCODER_SPEC,
    GENERATOR_SPEC,
    GRAPHS,
    PARITY_ATOL_FP32,
    GraphSpec,
)
from rt_swap.errors import ConfigError, SourceError
from rt_swap.frames import F32

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


def portrait_crops(path: Path, limit: int = 16) -> list[F32]:
    """Aligned crops of the faces in a folder's pictures.

    Args:
        path: A picture, or a folder that is searched with its subfolders.
        limit: How many crops at most; taken evenly from the sorted files.

    Returns:
        (1, 3, S, S) float32 each, RGB, [0, 1].

    Raises:
        ConfigError: If there are no pictures, or no face in any of them.
    """
    from rt_swap import geometry
    from rt_swap.expression import find_faces
    from rt_swap.io.picture import read_picture
    from rt_swap.ops import crop_rgb
    from rt_swap.tracking import MediapipeTracker

    files = picture_files(path)
    if not files:
        raise ConfigError(f"{path}: no pictures here ({', '.join(PICTURE_SUFFIXES)})")
    step = max(len(files) // (2 * limit), 1)
    crops: list[F32] = []
    with MediapipeTracker(max_faces=1, static=True) as tracker:
        for file in files[::step]:
            try:
                picture_bgr = read_picture(file)
            except SourceError as exc:
                _log.warning("%s; left out", exc)
                continue
            faces = find_faces(picture_bgr, tracker)
            if faces:
                M_crop_from_frame = geometry.crop_from_landmarks(faces[0].landmarks_xy)
                M_frame_from_crop = geometry.invert(M_crop_from_frame)
                crops.append(crop_rgb(picture_bgr, M_frame_from_crop, CROP_SIZE_PX))
            if len(crops) == limit:
                break
    if not crops:
        raise ConfigError(f"{path}: no face was found in any of its {len(files)} pictures")
    return crops


def picture_files(path: Path) -> list[Path]:
    """A picture, or all pictures below a folder, sorted."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)


def encoder_cases(pictures: Iterable[F32]) -> list[Case]:
    """One case a picture."""
    return [{"source_rgb": picture} for picture in pictures]


def generator_cases(pictures: Sequence[F32], tokens: Sequence[F32], seed: int = 0) -> list[Case]:
    """Each picture driven by another one's tokens, in the ways that gains and modes allow.

    Args:
        pictures: (1, 3, S, S) each.
        tokens: (1, K, D) of each picture.
        seed: Of the random gains.

    Returns:
        A case a picture, cycling through: all of the source; random gains; all of it in the
        relative mode; none; one AU only; exaggerated; random and relative.
    """
    rng = np.random.default_rng(seed)
    count = len(pictures)
    cases: list[Case] = []
    for i, picture in enumerate(pictures):
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
                "target_rgb": picture,
                "source_tokens": np.array(tokens[(i + 1) % count], np.float32),
                "base_tokens": np.array(tokens[(i + 2) % count], np.float32),
                "gains": gains.astype(np.float32),
                "relative": np.full((1, 1), relative, np.float32),
            }
        )
    return cases


def compare(
    spec: GraphSpec, reference: Runner, candidate: Runner, cases: Sequence[Case]
) -> dict[str, dict[str, Any]]:
    """Run both on every case and sum up the differences.

    Args:
        spec: The graph.
        reference: What is right by definition.
        candidate: What is tested.
        cases: Inputs by name.

    Returns:
        Per output: "max", "mean" and "p99" absolute error, "psnr_db" (peak: the largest magnitude
        of the reference; None where nothing differs), "range" [min, max] of the reference,
        "tolerance", "ok". An output that is not finite anywhere is not ok; its errors are None.
    """
    errors: dict[str, list[F32]] = {t.name: [] for t in spec.outputs}
    lows = dict.fromkeys(errors, math.inf)
    highs = dict.fromkeys(errors, -math.inf)
    for case in cases:
        wanted = {name: array.copy() for name, array in reference.run(case).items()}
        got = candidate.run(case)
        for name in errors:
            difference = np.abs(wanted[name].astype(np.float64) - got[name].astype(np.float64))
            errors[name].append(difference.astype(np.float32).ravel())
            lows[name] = min(lows[name], float(wanted[name].min()))
            highs[name] = max(highs[name], float(wanted[name].max()))
    return {
        name: _summary(np.concatenate(found), lows[name], highs[name], PARITY_ATOL_FP32[name])
        for name, found in errors.items()
        if found
    }


def report(
    reference_name: str,
    candidate_name: str,
    graphs: Mapping[str, Mapping[str, Mapping[str, Any]]],
    cases: Mapping[str, int],
    inputs: str,
) -> dict[str, Any]:
    """One parity report, ready for JSON.

    Args:
        reference_name: What was compared with, and its version.
        candidate_name: What was compared, and its version.
        graphs: :func:`compare`'s answer per graph.
        cases: How many cases each graph was run on.
        inputs: What the pictures were.

    Returns:
        The report. "ok" is False where an output is not, and where an output of the contract was
        not compared at all.
    """
    missing = [
        f"{graph}.{output.name}"
        for graph in GRAPHS
        for output in GRAPHS[graph].outputs
        if output.name not in graphs.get(graph, {})
    ]
    good = all(output["ok"] for outputs in graphs.values() for output in outputs.values())
    return {
        "reference": reference_name,
        "candidate": candidate_name,
        "inputs": inputs,
        "cases": dict(cases),
        "graphs": {graph: dict(outputs) for graph, outputs in graphs.items()},
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
    if parity["not_compared"]:
        lines.append(f"NOT COMPARED: {', '.join(parity['not_compared'])}")
    return "\n".join(lines)


def compare_bundle(
    references: Mapping[str, Runner],
    candidates: Mapping[str, Runner],
    pictures: Sequence[F32],
    *,
    reference_name: str,
    candidate_name: str,
    inputs: str,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare both graphs of a model.

    Args:
        references: Per graph name, what is right by definition.
        candidates: Per graph name, what is tested.
        pictures: (1, 3, S, S) each; none is a report that is not ok.
        reference_name: For the report.
        candidate_name: For the report.
        inputs: What the pictures are, for the report.
        seed: Of the random gains.

    Returns:
        See :func:`report`.
    """
    encoder = references[ENCODER_SPEC.name]
    tokens = [np.array(encoder.run(case)["tokens"]) for case in encoder_cases(pictures)]
    cases = {
        ENCODER_SPEC.name: encoder_cases(pictures),
        GENERATOR_SPEC.name: generator_cases(pictures, tokens, seed),
    }
    graphs = {
        name: compare(GRAPHS[name], references[name], candidates[name], cases[name])
        for name in cases
    }
    counts = {name: len(found) for name, found in cases.items()}
    return report(reference_name, candidate_name, graphs, counts, inputs)


def _summary(errors: F32, low: float, high: float, tolerance: float) -> dict[str, Any]:
    if not (np.isfinite(errors).all() and math.isfinite(low) and math.isfinite(high)):
        return {
            "max": None, "mean": None, "p99": None, "psnr_db": None, "range": None,
            "tolerance": tolerance, "ok": False,
        }  # fmt: skip
    mean_square = float(np.square(errors, dtype=np.float64).mean())
    peak = max(abs(low), abs(high), 1e-12)
    largest = float(errors.max())
    return {
        "max": largest,
        "mean": float(errors.mean(dtype=np.float64)),
        "p99": float(np.percentile(errors, 99)),
        "psnr_db": 10 * math.log10(peak**2 / mean_square) if mean_square > 0 else None,
        "range": [low, high],
        "tolerance": tolerance,
        "ok": largest <= tolerance,
    }
