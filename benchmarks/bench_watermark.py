"""How well the mark in the pixels survives a call, and how often it is seen where it is not.

    python -m benchmarks.bench_watermark [--clips DIR] [--portraits DIR] [--json FILE]

Every clip is re-expressed (preset smile) and marked at 1280x720 and 30 frames/s by the real chain,
scaled to the sizes below and sent through H.264 as calls do (libx264, zerolatency, rate limited,
one key frame in ten seconds), decoded, and searched the way ``rt-swap inspect`` does: with a face
tracker of its own on the pictures that arrive. Each window of --window frames counts as one trial.

Unmarked: the same clips through the same chain without the mark, and every portrait as a picture.

No speed is measured, so it may run beside other work. Exit code: 0; 1 where a bound is missed; 2
where it could not run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from rt_swap import Swapper
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.frames import U8, Frame
from rt_swap.provenance.marks import Marks
from rt_swap.provenance.watermark import DETECTION_SCORE, Detection, Detector, Payload
from rt_swap.tracking import FaceFollower, MediapipeTracker

SIZE_WH: Final = (1280, 720)
CONDITIONS: Final[tuple[tuple[int, int | None], ...]] = (
    (720, None),
    (360, None),
    (720, 2000),
    (720, 1000),
    (540, 800),
    (360, 600),
    (360, 300),
)
"""(height, kbit/s); None: not compressed."""
_PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp")
_CLIPS: Final = (".gif", ".mkv", ".mp4", ".mov", ".webm")
_BOUND_AT: Final = (720, 1000)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, help="folder of clips (default: the shared data's)")
    parser.add_argument("--portraits", type=Path, help="folder of unmarked portraits (the same)")
    parser.add_argument("--frames", type=int, default=180, help="frames per clip (default: 180)")
    parser.add_argument("--window", type=int, default=60, help="frames per trial (default: 60)")
    parser.add_argument("--most-portraits", type=int, default=400, help="(default: 400)")
    parser.add_argument("--model", help="model bundle (default: the installed one)")
    parser.add_argument("--json", type=Path, help="result file to write")
    arguments = parser.parse_args(argv)
    try:
        made = measure(arguments)
        if arguments.json:
            common.write_result(arguments.json, made)
    except RtSwapError as exc:
        print(f"bench_watermark: {exc}", file=sys.stderr)
        return 2
    print(table(made))
    common.print_bounds(made["bounds"])
    return 0 if made["passed"] else 1


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it, as a result document.

    Raises:
        ConfigError: If there is nothing to run on.
    """
    if not 1 <= arguments.window <= arguments.frames:
        raise ConfigError("--window: must be from 1 to --frames")
    clips = _found(arguments.clips, "clips", _CLIPS)
    portraits = _found(arguments.portraits, "portraits", _PICTURES)
    step = max(len(portraits) // max(arguments.most_portraits, 1), 1)
    portraits = portraits[::step][: arguments.most_portraits]
    trials: dict[tuple[int, int | None], list[Detection]] = {c: [] for c in CONDITIONS}
    unmarked: list[float] = []
    squares: list[float] = []
    with Swapper.load(arguments.model, cache=None) as swapper:
        payload = Payload.of_model(swapper.bundle.generator_sha256)
        for clip in clips:
            plain, marked = _altered(swapper, clip, arguments.frames)
            squares += _face_squares(plain, marked)
            for height, kbit_s in CONDITIONS:
                for window in _windows(_sent(marked, height, kbit_s), arguments.window):
                    trials[height, kbit_s].append(_seen(window))
                if (height, kbit_s) in ((720, None), (360, 600)):
                    for window in _windows(_sent(plain, height, kbit_s), arguments.window):
                        unmarked.append(_seen(window).score)
            print(f"{clip.name}: done", file=sys.stderr)
        about = common.metadata(swapper.bundle, swapper.backend.name, 1)
    pictures = [_seen_still(path) for path in portraits]
    pictures = [score for score in pictures if score is not None]
    conditions = {
        _name(condition): _survival(found, payload) for condition, found in trials.items()
    }
    at = conditions[_name(_BOUND_AT)]
    highest = max([*unmarked, *pictures])
    missed = 100.0 * (1 - at["read_right"] / at["trials"])
    results = {
        "threshold": DETECTION_SCORE,
        "conditions": conditions,
        "unmarked": {
            "portraits": len(pictures),
            "clip_windows": len(unmarked),
            "false_alarms": int(sum(s >= DETECTION_SCORE for s in (*unmarked, *pictures))),
            "highest_score": round(highest, 3),
        },
        "face_psnr_db": round(float(10 * np.log10(255**2 / np.mean(squares))), 2),
    }
    parameters = {
        "clips": len(clips),
        "frames_per_clip": arguments.frames,
        "window_frames": arguments.window,
        "rate": 30,
    }
    bounds = [
        common.bound("windows missed at 720p and 1000 kbit/s, percent", missed, 10.0),
        common.bound("highest score without a mark", round(highest, 3), DETECTION_SCORE),
    ]
    return common.document("watermark", about, parameters, results, bounds)


def table(made: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| sent as | windows | read right | lowest, median score |", "|---|---|---|---|"]
    for name, figures in made["results"]["conditions"].items():
        lines.append(
            f"| {name} | {figures['trials']} | {figures['read_right']}"
            f" | {figures['lowest_score']:.1f}, {figures['median_score']:.1f} |"
        )
    unmarked = made["results"]["unmarked"]
    results, unmarked = made["results"], made["results"]["unmarked"]
    lines += [
        "",
        f"Needed: {results['threshold']:g}. Without a mark: {unmarked['portraits']} portraits and"
        f" {unmarked['clip_windows']} windows of clips, {unmarked['false_alarms']} false alarms,"
        f" highest score {unmarked['highest_score']:.1f}. PSNR of the marked face:"
        f" {results['face_psnr_db']:.1f} dB.",
    ]
    return "\n".join(lines)


def _found(folder: Path | None, name: str, suffixes: tuple[str, ...]) -> list[Path]:
    if folder is None:
        data = common.data_dir()
        folder = data / name if data is not None else None
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes) if folder else []
    if not files:
        raise ConfigError(f"--{name}: there are none; name a folder, or set RT_SWAP_DATA")
    return files


def _altered(swapper: Swapper, clip: Path, count: int) -> tuple[list[U8], list[U8]]:
    """The clip with another expression, forwards and backwards, without and with the mark."""
    stills, _ = common.pictures(clip, SIZE_WH)
    period = max(2 * (len(stills) - 1), 1)
    smile = swapper.preset("smile")
    marker = swapper.marker(Marks(badge="off", manifest=False))
    swapper.reset()
    plain, marked = [], []
    for t in range(count):
        k = (t // 2) % period  # the GIFs have 12.5 pictures a second
        still = stills[min(k, period - k)]
        result = swapper.process(Frame(still, t, Fraction(1, 30)), smile)
        plain.append(result.frame.frame_bgr.copy())
        marked.append(marker.apply(result).frame.frame_bgr)
    return plain, marked


def _face_squares(plain: Sequence[U8], marked: Sequence[U8]) -> list[float]:
    """Mean squares of what was added where something was, one per tenth picture."""
    squares = []
    for before, after in zip(plain[::10], marked[::10], strict=True):
        changed = (before != after).any(axis=2)
        if changed.any():
            difference = after[changed].astype(np.float64) - before[changed]
            squares.append(float(np.square(difference).mean()))
    return squares


def _sent(pictures: Sequence[U8], height: int, kbit_s: int | None) -> list[U8]:
    """Scaled and through the encoder."""
    import cv2

    size = (round(SIZE_WH[0] * height / SIZE_WH[1]) // 2 * 2, height)
    out: list[U8] = [
        np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.uint8) for p in pictures
    ]
    return out if kbit_s is None else call(out, kbit_s)


def call(pictures: Sequence[U8], kbit_s: int) -> list[U8]:
    """Through H.264 as a call sends it."""
    import av

    height, width = pictures[0].shape[:2]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = kbit_s * 1000
        stream.options = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "maxrate": f"{kbit_s}k",
            "bufsize": f"{kbit_s}k",
            "g": "300",
        }
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def _windows(pictures: Sequence[U8], count: int) -> Iterator[Sequence[U8]]:
    for start in range(0, len(pictures) - count + 1, count):
        yield pictures[start : start + count]


def _seen(pictures: Sequence[U8]) -> Detection:
    """What a detector sees that has to find the face itself."""
    detector = Detector()
    with contextlib.closing(MediapipeTracker()) as tracker:
        follower = FaceFollower(tracker)
        for t, picture in enumerate(pictures):
            crop = follower.follow(Frame(np.ascontiguousarray(picture), t, Fraction(1, 30)))
            if crop is not None:
                detector.see(picture, crop.M_crop_from_frame)
    return detector.result() if detector.pictures else Detection.nothing()


def _seen_still(path: Path) -> float | None:
    from rt_swap.io.picture import read_picture

    found = _seen([read_picture(path)])
    return found.score if found.pictures else None


def _survival(found: Sequence[Detection], payload: Payload) -> dict[str, Any]:
    seen = [d for d in found if d.pictures]
    scores = [d.score for d in seen] or [0.0]
    return {
        "trials": len(seen),
        "found": sum(d.found for d in seen),
        "read_right": sum(d.found and d.payload == payload for d in seen),
        "lowest_score": round(min(scores), 3),
        "median_score": round(float(np.median(scores)), 3),
    }


def _name(condition: tuple[int, int | None]) -> str:
    height, kbit_s = condition
    return f"{height}p, " + (f"H.264 at {kbit_s} kbit/s" if kbit_s else "not compressed")


if __name__ == "__main__":
    sys.exit(main())
