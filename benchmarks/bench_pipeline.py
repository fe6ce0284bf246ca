"""Capture to emit, frame by frame: how long the shipped pipeline takes at 1280x720 on two cores.

    python -m benchmarks.bench_pipeline [--frames N] [--json FILE] [--model BUNDLE] [--clip FILE]

Part 1, the pipeline. A real face (a clip scaled to 1280x720 and seen by a simulated hand-held
camera, no two frames alike) goes through track, crop, generate and compose in a straight line, one
frame at a time, as a camera would hand them over: the clock starts when the frame is in memory and
stops when the finished picture is. Preparing the input is not timed. Frames before --warm-up are
left out and the very first is reported apart. Left out: the camera's own delay, decoding, encoding,
showing.

Part 2, the same crop and composition by hand. On frames and instructions kept from part 1,
``rt_swap.ops`` against what a straightforward user of OpenCV and NumPy writes (:func:`plain_crop`,
:func:`plain_compose`: warpAffine, remap, NumPy blending, on the region of interest only), turn by
turn, frame by frame; and how far the two pictures differ.

Exit code: 0; 1 where a bound is missed (p50 <= 25 ms, p99 <= 33 ms); 2 for wrong options or where
something cannot be loaded.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from rt_swap import geometry, ops
from rt_swap.backends import Backend, get_backend
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.expression import preset
from rt_swap.frames import F32, F64, U8, Frame, FrameStatus
from rt_swap.model import ModelBundle, load_bundle
from rt_swap.pipeline import Pipeline
from rt_swap.tracking import FaceFollower, MediapipeTracker

SIZE_WH: Final = (1280, 720)
P50_MS: Final = 25.0
P99_MS: Final = 33.0
_KEPT: Final = 24  # frames kept for part 2


@dataclass(frozen=True)
class Kept:
    """One frame's input and instructions, for part 2; arrays are copies."""

    frame_bgr: U8
    M_crop_from_frame: F64
    flow_xy: F32
    keep: F32
    fill_rgb: F32
    shade: F32


# --- the straightforward way ----------------------------------------------------------------------
def plain_crop(frame_bgr: U8, M_crop_from_frame: F64) -> F32:
    """The aligned crop by OpenCV and NumPy.

    Args:
        frame_bgr: (H, W, 3) uint8.
        M_crop_from_frame: (2, 3).

    Returns:
        (1, 3, S, S) float32 RGB, [0, 1].
    """
    import cv2

    crop = cv2.warpAffine(
        frame_bgr,
        geometry.to_cv2(M_crop_from_frame),
        (CROP_SIZE_PX, CROP_SIZE_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    rgb = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB).astype(np.float32) / np.float32(255.0)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])


def plain_compose(kept: Kept, weight: F32) -> U8:
    """The composition of DESIGN 2 by OpenCV and NumPy, on the region of interest.

    Args:
        kept: Frame and instructions.
        weight: (S, S) float32 feather.

    Returns:
        (H, W, 3) uint8 BGR, a new picture.
    """
    import cv2

    frame, M = kept.frame_bgr, kept.M_crop_from_frame
    M_frame_from_crop = geometry.invert(M)
    x0, y0, x1, y1 = geometry.roi_of_crop(M_frame_from_crop, CROP_SIZE_PX, frame.shape[:2])
    out = frame.copy()
    if x1 <= x0 or y1 <= y0:
        return out
    M_roi_from_crop = geometry.compose(
        np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]]), M_frame_from_crop
    )
    to_roi = geometry.to_cv2(M_roi_from_crop)
    roi_wh = (x1 - x0, y1 - y0)

    def enlarge(maps: F32, border: int = cv2.BORDER_REPLICATE) -> F32:
        return np.asarray(
            cv2.warpAffine(maps, to_roi, roi_wh, flags=cv2.INTER_LINEAR, borderMode=border),
            np.float32,
        )

    flow = enlarge(kept.flow_xy[0].transpose(1, 2, 0)) @ M_frame_from_crop[:, :2].T.astype(
        np.float32
    )
    keep = enlarge(kept.keep[0, 0])[..., None]
    shade = enlarge(kept.shade[0, 0])[..., None]
    fill_bgr = enlarge(kept.fill_rgb[0, ::-1].transpose(1, 2, 0)) * 255.0
    w = enlarge(weight, cv2.BORDER_CONSTANT)[..., None]

    at_x, at_y = np.meshgrid(
        np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)
    )
    fetched = cv2.remap(
        frame,
        at_x + flow[..., 0],
        at_y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    shaded = np.clip(shade * fetched, 0.0, 255.0)
    new = keep * shaded + (1.0 - keep) * fill_bgr
    blended = (1.0 - w) * frame[y0:y1, x0:x1] + w * new
    out[y0:y1, x0:x1] = np.clip(np.rint(blended), 0, 255).astype(np.uint8)
    return out


# --- measuring ------------------------------------------------------------------------------------
def run_pipeline(
    bundle: ModelBundle,
    backend: Backend,
    stills: Sequence[U8],
    frames: int,
    warm_up: int,
    threads: int,
) -> tuple[dict[str, Any], list[Kept]]:
    """Part 1.

    Args:
        bundle: The model; its first preset that is not neutral is the source.
        backend: Runs it.
        stills: Pictures of a face.
        frames: How many to time.
        warm_up: How many to run before.
        threads: CPU threads a graph and a native pass.

    Returns:
        The part of the results that belongs to it, and some frames with their instructions.

    Raises:
        ConfigError: If no frame shows a face, so that nothing would have been measured.
    """
    name = next((n for n in ("smile", *bundle.preset_names) if n in bundle.preset_names), None)
    if name is None:
        raise ConfigError(f"model {bundle.name}: ships no preset to use as the source")
    tokens = preset(name, bundle).tokens[0]
    total_ms: list[float] = []
    stage_ms: dict[str, list[float]] = {}
    kept: list[Kept] = []
    sides: list[float] = []
    swapped, first_ms = 0, 0.0
    with (
        MediapipeTracker() as tracker,
        Pipeline(bundle, backend, FaceFollower(tracker), threads=threads) as pipeline,
    ):
        for t, picture in enumerate(common.moving_pictures(stills, warm_up + frames)):
            begin = time.perf_counter()
            frame = Frame(picture, t, 1 / Fraction(common.RATE), begin)
            work = pipeline.track(frame)
            pipeline.generate(work, tokens)
            buffers = work.buffers
            result = pipeline.compose(work)
            spent_ms = (time.perf_counter() - begin) * 1e3
            if t == 0:
                first_ms = spent_ms
            if t < warm_up:
                continue
            total_ms.append(spent_ms)
            for stage, value in result.stage_ms.items():
                stage_ms.setdefault(stage, []).append(value)
            if result.status is not FrameStatus.SWAPPED or result.crop is None or buffers is None:
                continue
            swapped += 1
            sides.append(
                CROP_SIZE_PX * geometry.scale_of(geometry.invert(result.crop.M_crop_from_frame))
            )
            if (t - warm_up) % max(frames // _KEPT, 1) == 0 and len(kept) < _KEPT:
                maps = {k: v.copy() for k, v in buffers.maps.items()}
                kept.append(Kept(picture, result.crop.M_crop_from_frame, **maps))
    if not kept:
        raise ConfigError(
            "no frame shows a face that can be followed, so nothing was measured; give --clip FILE"
        )
    results = {
        "frames": len(total_ms),
        "swapped": swapped,
        "first_frame_ms": round(first_ms, 3),
        "capture_to_emit_ms": common.timing_summary(total_ms),
        "stage_ms": {stage: common.timing_summary(values) for stage, values in stage_ms.items()},
        "fps_back_to_back": round(1e3 * len(total_ms) / sum(total_ms), 2),
        "face_px": round(float(np.median(sides)), 1),
    }
    return results, kept


def compare(kept: Sequence[Kept], repeats: int, threads: int) -> dict[str, Any]:
    """Part 2: the native crop and composition against the plain ones, turn by turn on the same
    frames.

    Args:
        kept: At least one frame.
        repeats: How often to go through them; one more round before is not timed.
        threads: For the native passes.
    """
    weight = ops.feather(CROP_SIZE_PX)
    ours: dict[str, list[float]] = {"crop": [], "compose": []}
    plain: dict[str, list[float]] = {"crop": [], "compose": []}
    crop_out = np.empty((1, 3, CROP_SIZE_PX, CROP_SIZE_PX), np.float32)
    mean, largest = [], 0.0

    def run_ours(k: Kept) -> U8:
        M_frame_from_crop = geometry.invert(k.M_crop_from_frame)
        ops.crop_rgb(k.frame_bgr, M_frame_from_crop, CROP_SIZE_PX, crop_out, threads)
        split.append(time.perf_counter())
        maps = (k.flow_xy, k.keep, k.fill_rgb, k.shade, weight)
        return ops.compose_bgr(k.frame_bgr, k.M_crop_from_frame, *maps, None, None, threads)

    def run_plain(k: Kept) -> U8:
        plain_crop(k.frame_bgr, k.M_crop_from_frame)
        split.append(time.perf_counter())
        return plain_compose(k, weight)

    for turn in range(repeats + 1):
        for k in kept:
            pictures = []
            both = ((run_ours, ours), (run_plain, plain))
            # who goes first finds the frame out of the cache, so they take turns in that too
            for run, spent in both if turn % 2 else both[::-1]:
                split = [time.perf_counter()]
                pictures.append(run(k))
                split.append(time.perf_counter())
                if turn:  # the first round is cold, and there to compare the pictures
                    spent["crop"].append((split[1] - split[0]) * 1e3)
                    spent["compose"].append((split[2] - split[1]) * 1e3)
            if not turn:
                off = np.abs(pictures[0].astype(np.int16) - pictures[1])
                mean.append(float(off.mean()))
                largest = max(largest, float(off.max()))
    ours_ms = [a + b for a, b in zip(ours["crop"], ours["compose"], strict=True)]
    plain_ms = [a + b for a, b in zip(plain["crop"], plain["compose"], strict=True)]
    return {
        "samples": len(ours_ms),
        "rt_swap_ms": common.timing_summary(ours_ms),
        "rt_swap_crop_ms": common.timing_summary(ours["crop"]),
        "rt_swap_compose_ms": common.timing_summary(ours["compose"]),
        "opencv_numpy_ms": common.timing_summary(plain_ms),
        "opencv_numpy_crop_ms": common.timing_summary(plain["crop"]),
        "opencv_numpy_compose_ms": common.timing_summary(plain["compose"]),
        "times_faster": round(float(np.median(plain_ms) / np.median(ours_ms)), 2),
        "mean_difference": round(float(np.mean(mean)), 4),
        "largest_difference": largest,
    }


def _print(results: dict[str, Any]) -> None:
    print(f"{'ms per frame':28}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}{'iqr':>9}{'n':>7}")

    def line(name: str, t: dict[str, float]) -> None:
        figures = "".join(f"{t[p]:>9.2f}" for p in ("p50", "p95", "p99", "max", "iqr"))
        print(f"{name:28}{figures}{t['count']:>7}")

    line("capture to emit", results["capture_to_emit_ms"])
    for stage, t in results["stage_ms"].items():
        line(f"  {stage}", t)
    c = results["crop_and_compose"]
    print(
        f"first frame {results['first_frame_ms']:.0f} ms; "
        f"{results['fps_back_to_back']} frames/s back to back; "
        f"crop of {results['face_px']:.0f} px; "
        f"{results['swapped']} of {results['frames']} frames re-expressed"
    )
    print("crop and compose alone, the same frames, turn by turn:")
    line("  rt_swap", c["rt_swap_ms"])
    line("    crop", c["rt_swap_crop_ms"])
    line("    compose", c["rt_swap_compose_ms"])
    line("  OpenCV and NumPy", c["opencv_numpy_ms"])
    line("    crop", c["opencv_numpy_crop_ms"])
    line("    compose", c["opencv_numpy_compose_ms"])
    print(
        f"  {c['times_faster']} times as fast; pictures differ by {c['mean_difference']} grey "
        f"levels on average, {c['largest_difference']:.0f} at most"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--frames", type=int, default=600, help="frames to time (default: %(default)s)"
    )
    parser.add_argument(
        "--warm-up", type=int, default=60, help="frames before (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=int, default=10, help="rounds of part 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="FILE",
        help="face to run on (default: of the shared data, else a portrait)",
    )
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the one installed")
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument(
        "--cores", type=int, default=2, help="CPU cores to use (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        for option, least in (("frames", 1), ("warm_up", 1), ("repeats", 1)):
            if getattr(args, option) < least:
                raise ConfigError(f"--{option.replace('_', '-')} must be {least} or more")
        cores = common.use_cores(args.cores)
        import cv2

        cv2.setNumThreads(cores)
        bundle, backend = load_bundle(args.model), get_backend(args.backend)
        about = common.metadata(bundle, backend.name, cores)
        stills, shown = common.pictures(args.clip, SIZE_WH)
        results, kept = run_pipeline(bundle, backend, stills, args.frames, args.warm_up, cores)
        results["crop_and_compose"] = compare(kept, args.repeats, cores)
        timing = results["capture_to_emit_ms"]
        bounds = [
            common.bound("capture to emit, p50, ms", timing["p50"], P50_MS),
            common.bound("capture to emit, p99, ms", timing["p99"], P99_MS),
        ]
        parameters = {
            "frames": args.frames,
            "warm_up": args.warm_up,
            "repeats": args.repeats,
            "size_wh": list(SIZE_WH),
            "threads": cores,
            "shown": shown,
            "not_timed": "camera, decoding, encoding, display",
        }
        made = common.document("pipeline", about, parameters, results, bounds)
        if args.json:
            common.write_result(args.json, made)
    except RtSwapError as exc:
        print(f"bench_pipeline: {exc}", file=sys.stderr)
        return 2
    print(
        f"{about['cpu']}, {cores} cores, load before {about['load_before']}; {shown}; "
        f"model {bundle.name}"
    )
    _print(results)
    common.print_bounds(bounds)
    return 0 if made["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
