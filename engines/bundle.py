"""Writing model bundles: changed in a copy beside, verified, then exchanged as a whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rt_swap.contract import CONTRACT_VERSION, GRAPHS
from rt_swap.errors import ConfigError
from rt_swap.model import (
    MANIFEST_NAME,
    PRECISIONS,
    PRESETS_FOLDER,
    load_bundle,
    onnx_file,
    sha256_of,
)


@contextlib.contextmanager
def staged(bundle: Path) -> Iterator[Path]:
    """Change a bundle so that it is either the old or the new one, whole.

    The body works in a copy beside it. Where it ends without an exception the copy must be a valid
    bundle; it then takes the old one's place.

    Args:
        bundle: The bundle's folder; an existing bundle, an empty folder, or nothing yet.

    Yields:
        The copy's folder.

    Raises:
        ConfigError: If the folder exists and holds something else.
        ModelFileError: If the body left no valid bundle.
    """
    bundle = Path(os.path.abspath(bundle))
    if bundle.exists() and not bundle.is_dir():
        raise ConfigError(f"{bundle}: a file is in the way; name a folder for the model bundle")
    if bundle.is_dir() and any(bundle.iterdir()) and not (bundle / MANIFEST_NAME).is_file():
        raise ConfigError(
            f"{bundle}: holds files but no {MANIFEST_NAME}, so it is no model bundle; name another "
            "folder"
        )
    bundle.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.", suffix=".part", dir=bundle.parent))
    try:
        stage.chmod(0o755)
        if bundle.is_dir():
            shutil.copytree(bundle, stage, dirs_exist_ok=True)
        yield stage
        load_bundle(stage)
        _exchange(stage, bundle)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_manifest(bundle: Path, **changes: Any) -> dict[str, Any]:
    """Write manifest.json with the hashes of the graphs and presets that are there.

    Args:
        bundle: The bundle's folder.
        changes: Keys to set; the others stay as they were, or get an empty value.

    Returns:
        The manifest written.
    """
    path = bundle / MANIFEST_NAME
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    manifest: dict[str, Any] = {
        "contract_version": CONTRACT_VERSION,
        "name": "unnamed",
        "files": {},
        "config": {},
        "data": {},
        "steps": 0,
        "validation": {},
        "licence": "Apache-2.0",
        "created": "",
    }
    manifest |= old | changes
    manifest["contract_version"] = CONTRACT_VERSION
    manifest["files"] = _hashes(bundle)
    manifest["created"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = json.dumps(manifest, indent=2, sort_keys=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return manifest


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ConfigError: If it cannot be read or is none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: cannot be read as JSON ({exc})") from exc
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no JSON object")
    return values


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write strict JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _hashes(bundle: Path) -> dict[str, dict[str, Any]]:
    paths = [bundle / onnx_file(name, precision) for precision in PRECISIONS for name in GRAPHS]
    paths += sorted((bundle / PRESETS_FOLDER).glob("*.safetensors"))
    return {
        path.relative_to(bundle).as_posix(): {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for path in paths
        if path.is_file()
    }


def _exchange(stage: Path, bundle: Path) -> None:
    if not bundle.exists():
        os.rename(stage, bundle)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.", suffix=".old", dir=bundle.parent))
    os.rename(bundle, old)  # onto an empty folder, which rename replaces
    try:
        os.rename(stage, bundle)
    except BaseException:
        os.rename(old, bundle)
        raise
    shutil.rmtree(old, ignore_errors=True)
