"""Model bundles: a folder with the two graphs, presets and a manifest that names every file's hash.

    expression_encoder.onnx
    target_generator.onnx
    expression_encoder.fp16.onnx    both again in mixed half precision, for GPUs; may be absent
    target_generator.fp16.onnx
    presets/<name>.safetensors
    manifest.json        {"contract_version", "name", "files": {"<path>": {"sha256", "bytes"}, ...},
                          "config", "data", "steps", "validation", "licence", "created"}

Every file that the manifest names is hashed when the bundle is loaded. Nothing is ever unpickled:
a bundle holds ONNX, safetensors and JSON only.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from rt_swap.contract import CONTRACT_VERSION, ENCODER_NAME, GENERATOR_NAME
from rt_swap.errors import ModelFileError

MANIFEST_NAME: Final = "manifest.json"
ENCODER_FILE: Final = f"{ENCODER_NAME}.onnx"
GENERATOR_FILE: Final = f"{GENERATOR_NAME}.onnx"
PRECISIONS: Final = ("fp32", "fp16")
PRESETS_FOLDER: Final = "presets"
ENVIRONMENT_VARIABLE: Final = "RT_SWAP_MODEL"
DEFAULT_BUNDLE: Final = Path(__file__).parent / "data" / "default"
"""The bundle that is installed with the package and taken where none is named; smaller and larger
ones lie beside it."""

_REQUIRED_KEYS: Final = (
    ("contract_version", int),
    ("name", str),
    ("files", dict),
    ("config", dict),
    ("data", dict),
    ("steps", int),
    ("validation", dict),
    ("licence", str),
    ("created", str),
)


@dataclass(frozen=True)
class ModelBundle:
    """A verified bundle.

    Attributes:
        path: Its folder.
        manifest: The manifest, as JSON objects.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """What the model is called."""
        return str(self.manifest["name"])

    @property
    def sha256(self) -> str:
        """Hash of the expression encoder: what made an expression's tokens."""
        return str(self.manifest["files"][ENCODER_FILE]["sha256"])

    @property
    def generator_sha256(self) -> str:
        """Hash of the target generator."""
        return str(self.manifest["files"][GENERATOR_FILE]["sha256"])

    @property
    def encoder_path(self) -> Path:
        """The expression encoder's ONNX file."""
        return self.path / ENCODER_FILE

    @property
    def generator_path(self) -> Path:
        """The target generator's ONNX file."""
        return self.path / GENERATOR_FILE

    def graph_path(self, name: str, precision: str = "fp32") -> Path:
        """A graph's ONNX file.

        Args:
            name: ENCODER_NAME or GENERATOR_NAME.
            precision: "fp32", or "fp16": mixed half precision, for GPUs.

        Raises:
            ModelFileError: If this model has no such file.
        """
        file = onnx_file(name, precision)
        if file not in self.manifest["files"]:
            raise ModelFileError(
                f"{self.path}: this model has no {file}; make it: "
                f"python -m engines.export --fp16-of {self.path}"
            )
        return self.path / file

    @property
    def preset_names(self) -> tuple[str, ...]:
        """Presets that the bundle ships, sorted."""
        listed = (PurePosixPath(name) for name in self.manifest["files"])
        return tuple(sorted(p.stem for p in listed if p.parent == PurePosixPath(PRESETS_FOLDER)))

    def preset_path(self, name: str) -> Path:
        """The file of a preset.

        Raises:
            ModelFileError: If the bundle does not ship it.
        """
        if name not in self.preset_names:
            shipped = ", ".join(self.preset_names) or "none"
            raise ModelFileError(
                f"{self.path}: this model ships no preset {name!r} (it ships: {shipped}); "
                "use another model, or a picture as the source"
            )
        return self.path / PRESETS_FOLDER / f"{name}.safetensors"


def onnx_file(name: str, precision: str) -> str:
    """A graph's file name: "<name>.onnx", in half precision "<name>.fp16.onnx"."""
    return f"{name}.onnx" if precision == "fp32" else f"{name}.{precision}.onnx"


def load_bundle(path: Path | str | None = None) -> ModelBundle:
    """Find a bundle and verify it.

    Args:
        path: Its folder, or the name of an installed one, such as "nano" (a folder of that name in
            the working directory comes first). None: what the environment variable RT_SWAP_MODEL
            names, else the default one.

    Raises:
        ModelFileError: If the bundle is missing, made for another contract, or any file that its
            manifest names is missing or differs from the hash there.
    """
    folder, chosen_by = _locate(path)
    manifest = _read_manifest(folder, chosen_by)
    _verify_files(folder, manifest)
    return ModelBundle(folder, manifest)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def installed_bundles() -> dict[str, Path]:
    """Folders of the bundles that came with the package, by the name to ask for them with."""
    found = sorted(DEFAULT_BUNDLE.parent.glob(f"*/{MANIFEST_NAME}"))
    return {manifest.parent.name: manifest.parent for manifest in found}


def find_bundle(path: Path | str | None = None) -> Path:
    """The folder that :func:`load_bundle` would load, whether it is there or not."""
    return _locate(path)[0]


def _locate(path: Path | str | None) -> tuple[Path, str]:
    if path is not None:
        return _folder(path), "as given"
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return _folder(named), f"named by {ENVIRONMENT_VARIABLE}"
    return DEFAULT_BUNDLE, "the one installed with rt_swap"


def _folder(named: Path | str) -> Path:
    folder = Path(named).expanduser()
    return folder if folder.is_dir() else installed_bundles().get(str(named), folder)


def _read_manifest(folder: Path, chosen_by: str) -> dict[str, Any]:
    if folder == DEFAULT_BUNDLE and not (folder / MANIFEST_NAME).is_file():
        raise ModelFileError(
            f"{folder}: the default model is not in this installation; install rt_swap again, or "
            f"name a model's folder (--model DIR or {ENVIRONMENT_VARIABLE}=DIR)"
        )
    if folder.is_file():
        raise ModelFileError(
            f"{folder}: a model ({chosen_by}) is a folder with {MANIFEST_NAME}, {ENCODER_FILE} and "
            f"{GENERATOR_FILE}, not a file; checkpoints become one by: "
            "python -m engines.export --checkpoint DIR --out BUNDLE"
        )
    if not folder.is_dir():
        names = ", ".join(installed_bundles()) or "none"
        raise ModelFileError(
            f"{folder}: there is no such model folder ({chosen_by}); installed ones go by name: "
            f"{names}"
        )
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ModelFileError(
            f"{folder}: has no {MANIFEST_NAME}, so it is not a model ({chosen_by})"
        ) from exc
    except (OSError, ValueError) as exc:
        raise ModelFileError(
            f"{folder / MANIFEST_NAME}: cannot be read ({exc}); install the model again"
        ) from exc
    if not isinstance(manifest, dict):
        raise ModelFileError(
            f"{folder / MANIFEST_NAME}: not a JSON object; install the model again"
        )
    version = manifest.get("contract_version")
    if version != CONTRACT_VERSION:
        raise ModelFileError(
            f"{folder}: made for contract version {version}, this rt_swap speaks version "
            f"{CONTRACT_VERSION}; use a model of this release, or export the checkpoint again"
        )
    wrong = [
        f"{key} must be {kind.__name__}, got {type(manifest[key]).__name__}"
        if key in manifest
        else f"{key} is missing"
        for key, kind in _REQUIRED_KEYS
        if not isinstance(manifest.get(key), kind)
    ]
    if wrong:
        raise ModelFileError(
            f"{folder / MANIFEST_NAME}: {'; '.join(wrong)}; install the model again"
        )
    return manifest


def _verify_files(folder: Path, manifest: dict[str, Any]) -> None:
    files: dict[str, Any] = manifest["files"]
    wrong = [f"{n}: not in the manifest" for n in (ENCODER_FILE, GENERATOR_FILE) if n not in files]
    for name, entry in files.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name:
            wrong.append(f"{name!r}: a path outside the model's folder")
            continue
        wanted = entry.get("sha256") if isinstance(entry, dict) else None
        if not isinstance(wanted, str):
            wrong.append(f"{name}: the manifest has no hash for it")
            continue
        try:
            actual = sha256_of(folder / pure)
        except OSError as exc:
            wrong.append(f"{name}: cannot be read ({exc.strerror or exc})")
            continue
        if actual != wanted:
            wrong.append(
                f"{name}: damaged or changed (sha256 {actual[:12]}, the manifest says "
                f"{wanted[:12]})"
            )
    if wrong:
        raise ModelFileError(f"{folder}: {'; '.join(wrong)}; install the model again")
