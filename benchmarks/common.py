"""What benchmarks share: frames to run on, percentiles, metadata, result files."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import schema
from rt_swap.bench import figures
from rt_swap.bench.about import model_of, system_of, use_cores
from rt_swap.bench.clip import PORTRAIT, RATE, fit, moving_pictures, portrait_bgr, read_stills
from rt_swap.errors import ConfigError
from rt_swap.frames import U8
from rt_swap.machine import ThisMachine
from rt_swap.model import ModelBundle

__all__ = [
    "RATE",
    "bound",
    "data_dir",
    "document",
    "fit",
    "metadata",
    "moving_pictures",
    "pictures",
    "print_bounds",
    "timing_summary",
    "use_cores",
    "write_result",
]

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
_SYSTEM: Final = ("cores_present", "memory_mib", "load_before", "system", "python")


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
    if clip is None:
        return [fit(portrait_bgr(), size_wh)], PORTRAIT
    frames = [fit(still, size_wh) for still in read_stills(clip)]
    return frames, f"{clip.name}, {len(frames)} frames, forwards and backwards"


# --- figures --------------------------------------------------------------------------------------
def timing_summary(samples_ms: Sequence[float]) -> dict[str, float | int]:
    """Percentiles as ``benchmarks.schema.timing`` has them; see rt_swap.bench.figures."""
    return figures.timing_summary(samples_ms, (50, 95, 99))


def bound(name: str, value: float, limit: float) -> dict[str, Any]:
    """A bound for the result file: met where the value is at most the limit."""
    return {"name": name, "value": value, "limit": limit, "met": bool(value <= limit)}


# --- metadata and files ---------------------------------------------------------------------------
def metadata(bundle: ModelBundle, backend: str, cores_used: int) -> dict[str, Any]:
    """Where and with what a benchmark ran. Names no paths and no people."""
    system = system_of(ThisMachine())
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
        "cpu": system["cpu"],
        "cores_used": cores_used,
        **{name: system[name] for name in _SYSTEM},
        "packages": {name: ThisMachine().version(name) for name in _PACKAGES},
        "model": model_of(bundle),
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
