"""The native crop and composition against OpenCV and NumPy, from 720p to 4K.

    python -m benchmarks.bench_kernels [--json FILE] [--model BUNDLE] [--clip FILE]

The same frames and instructions go through ``rt_swap.ops`` and through what a straightforward user
of OpenCV writes (warpAffine, remap and NumPy blending, on the region of interest only; see
``bench_pipeline.plain_crop`` and ``plain_compose``), turn by turn, and the pictures are compared.
It is the second part of bench_pipeline at every size of the ladder.

Exit code: 0; 1 where the two pictures differ by more than 4 grey levels anywhere (OpenCV's weights
have 5 bits) or the native way is the slower one; 2 for wrong options or where something is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import bench_pipeline, common
from rt_swap.backends import get_backend
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.model import load_bundle

SIZES: Final[dict[str, tuple[int, int]]] = {
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "4K": (3840, 2160),
}
_MOST_LEVELS: Final = 4.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--frames", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--sizes", default=",".join(SIZES), help="default: %(default)s")
    parser.add_argument("--clip", type=Path, metavar="FILE", help="face to run on")
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the one installed")
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--cores", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    args = parser.parse_args(argv)
    try:
        if args.frames < 1 or args.repeats < 1:
            raise ConfigError("--frames and --repeats must be 1 or more")
        names = [name for name in args.sizes.split(",") if name]
        if not names or not set(names) <= set(SIZES):
            raise ConfigError(f"--sizes must be of {', '.join(SIZES)}, got {args.sizes!r}")
        cores = common.use_cores(args.cores)
        import cv2

        cv2.setNumThreads(cores)
        bundle, backend = load_bundle(args.model), get_backend(args.backend)
        about = common.metadata(bundle, backend.name, cores)
        sizes: dict[str, Any] = {}
        shown = ""
        for name in names:
            stills, shown = common.pictures(args.clip, SIZES[name])
            _, kept = bench_pipeline.run_pipeline(bundle, backend, stills, args.frames, 1, cores)
            sizes[name] = bench_pipeline.compare(kept, args.repeats, cores)
        bounds = []
        for name, got in sizes.items():
            difference = got["largest_difference"]
            bounds.append(common.bound(f"{name}, grey levels apart", difference, _MOST_LEVELS))
            slower = round(1 / got["times_faster"], 3)
            bounds.append(common.bound(f"{name}, time against OpenCV and NumPy", slower, 1.0))
        parameters = {
            "frames": args.frames,
            "repeats": args.repeats,
            "threads": cores,
            "shown": shown,
        }
        made = common.document("kernels", about, parameters, {"sizes": sizes}, bounds)
        if args.json:
            common.write_result(args.json, made)
    except RtSwapError as exc:
        print(f"bench_kernels: {exc}", file=sys.stderr)
        return 2
    print(f"{about['cpu']}, {cores} cores, load before {about['load_before']}; {shown}")
    print(
        f"{'ms, p50':10}{'crop':>10}{'compose':>10}{'OpenCV crop':>14}{'compose':>10}{'times':>8}"
    )
    for name, got in sizes.items():
        figures = [
            got[key]["p50"]
            for key in (
                "rt_swap_crop_ms",
                "rt_swap_compose_ms",
                "opencv_numpy_crop_ms",
                "opencv_numpy_compose_ms",
            )
        ]
        print("{:10}{:>10.2f}{:>10.2f}{:>14.2f}{:>10.2f}".format(name, *figures), end="")
        print(f"{got['times_faster']:>8.2f}")
    common.print_bounds(bounds)
    return 0 if made["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
