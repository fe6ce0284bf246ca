"""What benchmarks share: frames to run on, percentiles, metadata, result files."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import schema
from rt_swap import geometry
from rt_swap.errors import ConfigError
from rt_swap.frames import F64, U8
from rt_swap.model import ModelBundle

CHECKOUT: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = (
    "numpy",
    "opencv-python",
    "opencv-contrib-python",
    "onnxruntime",
    "mediapipe",
    "av",
    "rt-swap",
)
_CLIP: Final = "head-pose-face-detection-male.gif"
RATE: Final = Fraction(30)


# --- frames ---------------------------------------------------------------------------------------
def data_dir() -> Path | None:
    """The shared data: RT_SWAP_DATA, else ../shared/data beside the checkout, else None."""
    named = os.environ.get("RT_SWAP_DATA")
    folder = Path(named).expanduser() if named else CHECKOUT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def pictures(clip: Path | None, size_wh: tuple[int, int]) -> tuple[list[U8], str]:
    """Pictures of a real face, all of one size.

    Args:
        clip: A video; None: a clip of the shared data, and where that is missing the public-domain
            portrait ``skimage.data.astronaut``.
        size_wh: What to scale and pad them to.

    Returns:
        At least one (H, W, 3) uint8 BGR picture, and what they are, in words without paths.

    Raises:
        ConfigError: If the clip has no frames, or there is nothing to show.
        SourceError: If the clip cannot be read.
    """
    if clip is None:
        folder = data_dir()
        found = folder / "clips" / _CLIP if folder is not None else None
        clip = found if found is not None and found.is_file() else None
    if clip is not None:
        from rt_swap.io.video import VideoReader

        with VideoReader(clip) as video:
            frames = [fit(frame.frame_bgr, size_wh) for frame in video]
        if not frames:
            raise ConfigError(f"{clip}: has no frames; give another clip")
        return frames, f"{clip.name}, {len(frames)} frames, forwards and backwards"
    try:
        from skimage.data import astronaut
    except ImportError as exc:
        raise ConfigError(
            "there is nothing to run on: give --clip FILE, set RT_SWAP_DATA, or "
            "pip install scikit-image (its portrait is used)"
        ) from exc
    return [fit(np.ascontiguousarray(astronaut()[..., ::-1]), size_wh)], "skimage.data.astronaut"


def fit(picture_bgr: U8, size_wh: tuple[int, int]) -> U8:
    """Scale a picture to lie inside a size, edges replicated around it.

    Args:
        picture_bgr: (H, W, 3) uint8.
        size_wh: (width, height).

    Returns:
        (height, width, 3) uint8, a new array.
    """
    import cv2

    height, width = picture_bgr.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    inner_wh = max(round(width * scale), 1), max(round(height * scale), 1)
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    scaled = cv2.resize(picture_bgr, inner_wh, interpolation=how)
    left, top = (size_wh[0] - inner_wh[0]) // 2, (size_wh[1] - inner_wh[1]) // 2
    right, bottom = size_wh[0] - inner_wh[0] - left, size_wh[1] - inner_wh[1] - top
    padded = cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(padded, np.uint8)


def hand_held(time_s: float, size_wh: tuple[int, int]) -> F64:
    """How a hand-held camera moves the picture: slow drift, breathing, and a tremor.

    Sums of sines of unrelated frequencies, so that no moment comes twice. Shift up to 2.5 % of the
    width, turn up to 2.5 degrees, zoom up to 3 %.

    Args:
        time_s: Seconds from the start.
        size_wh: (width, height) of the picture.

    Returns:
        ``M_shown_from_still``, (2, 3), in corner coordinates (rt_swap.geometry).
    """
    width, height = size_wh

    def sway(slow_hz: float, phase: float) -> float:
        waves = ((slow_hz, 0.70), (2.7 * slow_hz, 0.22), (7.3 + slow_hz, 0.08))
        return float(sum(a * np.sin(2 * np.pi * hz * time_s + phase * (1 + hz)) for hz, a in waves))

    angle = np.radians(2.5) * sway(0.13, 0.4)
    scale = 1.03 + 0.03 * sway(0.11, 1.7)
    shift = 0.025 * width * np.array([sway(0.17, 0.0), sway(0.23, 2.1)])
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([width / 2, height / 2])
    return np.concatenate([linear, (middle + shift - linear @ middle)[:, None]], axis=1)


def moving_pictures(stills: Sequence[U8], count: int) -> Iterator[U8]:
    """Pictures forwards and backwards, 12.5 a second, seen by a hand-held camera at RATE; no two
    alike.

    Args:
        stills: (H, W, 3) uint8 BGR, all of one size.
        count: How many to give.

    Yields:
        New (H, W, 3) uint8 BGR arrays.
    """
    import cv2

    height, width = stills[0].shape[:2]
    period = max(2 * (len(stills) - 1), 1)
    for t in range(count):
        time_s = t / float(RATE)
        k = int(12.5 * time_s) % period
        M = hand_held(time_s, (width, height))
        still = stills[min(k, period - k) if len(stills) > 1 else 0]
        moved = cv2.warpAffine(
            still,
            geometry.to_cv2(M),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        yield np.ascontiguousarray(moved, np.uint8)


# --- figures --------------------------------------------------------------------------------------
def timing_summary(samples_ms: Sequence[float]) -> dict[str, float | int]:
    """Percentiles of durations.

    Args:
        samples_ms: At least one, milliseconds.

    Returns:
        count, mean, p50, p95, p99, max and iqr (75th minus 25th percentile), rounded to
        microseconds. Percentiles are observed values (nearest rank above), never interpolated below
        a sample that was worse.

    Raises:
        ConfigError: If there is none.
    """
    if not len(samples_ms):
        raise ConfigError("timing_summary: nothing was timed")
    samples = np.asarray(samples_ms, np.float64)

    def at(percent: float) -> float:
        return round(float(np.percentile(samples, percent, method="higher")), 3)

    return {
        "count": len(samples),
        "mean": round(float(samples.mean()), 3),
        "p50": at(50),
        "p95": at(95),
        "p99": at(99),
        "max": at(100),
        "iqr": round(at(75) - at(25), 3),
    }


def bound(name: str, value: float, limit: float) -> dict[str, Any]:
    """A bound for the result file: met where the value is at most the limit."""
    return {"name": name, "value": value, "limit": limit, "met": bool(value <= limit)}


def use_cores(wanted: int) -> int:
    """Keep this process, and the threads it starts later, on so many cores.

    Returns:
        How many it may use now; fewer than wanted where there are fewer, and all of them where the
        system has no affinity.

    Raises:
        ConfigError: If wanted is under 1.
    """
    if wanted < 1:
        raise ConfigError(f"--cores must be 1 or more, got {wanted}")
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    mine = sorted(os.sched_getaffinity(0))[:wanted]
    os.sched_setaffinity(0, mine)
    return len(mine)


# --- metadata and files ---------------------------------------------------------------------------
def metadata(bundle: ModelBundle, backend: str, cores_used: int) -> dict[str, Any]:
    """Where and with what a benchmark ran. Names no paths and no people."""
    load: float | None
    try:
        load = round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        load = None
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
        "cpu": _cpu_name(),
        "cores_used": cores_used,
        "cores_present": os.cpu_count() or 1,
        "memory_mib": _memory_mib(),
        "load_before": load,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "model": {
            "name": bundle.name,
            "encoder_sha256": bundle.sha256,
            "generator_sha256": bundle.generator_sha256,
            "steps": bundle.manifest["steps"],
        },
        "backend": backend,
    }


def document(
    benchmark: str,
    about: Mapping[str, Any],
    parameters: Mapping[str, Any],
    results: Mapping[str, Any],
    bounds: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A whole result document, checked against the schema.

    Raises:
        benchmarks.schema.SchemaError: If it is not what it must be.
    """
    made = {
        "schema": schema.SCHEMA_VERSION,
        "benchmark": benchmark,
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "metadata": dict(about),
        "parameters": dict(parameters),
        "results": dict(results),
        "bounds": [dict(b) for b in bounds],
        "passed": all(b["met"] for b in bounds),
    }
    schema.check(made)
    return made


def write_result(path: Path, made: Mapping[str, Any]) -> None:
    """Write a document as strict JSON, whole or not at all, and read it back through the schema.

    Raises:
        ConfigError: If it cannot be written.
    """
    text = json.dumps(made, indent=1, allow_nan=False) + "\n"
    schema.loads(text)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"--json {path}: cannot be written ({exc.strerror or exc})") from exc


def print_bounds(bounds: Sequence[Mapping[str, Any]]) -> None:
    """One line a bound."""
    for b in bounds:
        print(
            f"{'met   ' if b['met'] else 'MISSED'} {b['name']}: "
            f"{b['value']:g} (limit {b['limit']:g})"
        )


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _memory_mib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20, 0)
    except (AttributeError, ValueError, OSError):
        return None
