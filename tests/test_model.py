"""Bundles: found, verified, and refused with a sentence that says what to do."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rt_swap import model
from rt_swap.errors import ModelFileError
from rt_swap.model import load_bundle
from tests.support.tiny_model import tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle")


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_load_gives_paths_hashes_and_presets(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.name == "tiny"
    assert bundle.encoder_path == folder / "expression_encoder.onnx"
    assert bundle.generator_path == folder / "target_generator.onnx"
    assert bundle.sha256 == model.sha256_of(folder / "expression_encoder.onnx")
    assert bundle.generator_sha256 == model.sha256_of(folder / "target_generator.onnx")
    assert len(bundle.preset_names) == 9
    assert bundle.preset_path("smile").is_file()


def test_load_takes_text_and_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_bundle("~/bundle").path == folder


def test_environment_names_the_bundle_but_an_argument_wins(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_bundle(tmp_path / "other", seed=5)
    monkeypatch.setenv("RT_SWAP_MODEL", str(other))
    assert load_bundle().path == other
    assert load_bundle(folder).path == folder


def test_environment_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RT_SWAP_MODEL", str(tmp_path / "gone"))
    with pytest.raises(ModelFileError, match=r"no such model folder.*RT_SWAP_MODEL"):
        load_bundle()


def test_installed_bundles_go_by_name_and_a_folder_of_that_name_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(model, "DEFAULT_BUNDLE", tmp_path / "data" / "default")
    nano = tiny_bundle(tmp_path / "data" / "nano")
    monkeypatch.chdir(tmp_path)
    assert list(model.installed_bundles()) == ["nano"]
    assert load_bundle("nano").path == nano
    assert load_bundle(Path("nano")).path == nano
    monkeypatch.setenv("RT_SWAP_MODEL", "nano")
    assert load_bundle().path == nano
    with pytest.raises(ModelFileError, match=r"mano: .*installed ones go by name: nano"):
        load_bundle("mano")
    (tmp_path / "nano").write_text("a file of that name is no model")
    assert load_bundle("nano").path == nano
    (tmp_path / "nano").unlink()
    tiny_bundle(tmp_path / "nano", seed=5)
    assert load_bundle("nano").path == Path("nano")


def test_missing_default_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RT_SWAP_MODEL", raising=False)
    monkeypatch.setattr(model, "DEFAULT_BUNDLE", tmp_path / "default")
    with pytest.raises(ModelFileError, match="--model DIR or RT_SWAP_MODEL=DIR"):
        load_bundle()


def test_another_model_has_another_hash(folder: Path, tmp_path: Path) -> None:
    other = load_bundle(tiny_bundle(tmp_path / "other", seed=5))
    assert load_bundle(folder).sha256 != other.sha256


@pytest.mark.parametrize(
    "name", ["expression_encoder.onnx", "target_generator.onnx", "presets/wink.safetensors"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_file_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    blob = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        blob[len(blob) // 2] ^= 1
        path.write_bytes(blob if damage == "flip" else blob[:-1])
    wanted = "cannot be read" if damage == "remove" else "damaged or changed"
    with pytest.raises(ModelFileError, match=f"{name}: {wanted}.*install the model again"):
        load_bundle(folder)


def test_every_damaged_file_is_listed(folder: Path) -> None:
    (folder / "expression_encoder.onnx").write_bytes(b"")
    (folder / "target_generator.onnx").unlink()
    with pytest.raises(ModelFileError, match=r"expression_encoder.*target_generator"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ("{}", "made for contract version None"),
        ('{"contract_version": 2}', "name is missing.*files is missing.*created is missing"),
        ("\ufffe", "cannot be read"),
    ],
)
def test_broken_manifest(folder: Path, text: str, complaint: str) -> None:
    (folder / "manifest.json").write_text(text, encoding="utf-16" if "\ufffe" in text else "utf-8")
    with pytest.raises(ModelFileError, match=complaint):
        load_bundle(folder)


def test_missing_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(ModelFileError, match=r"has no manifest\.json"):
        load_bundle(folder)


def test_other_contract_version_says_what_to_do(folder: Path) -> None:
    change_manifest(folder, lambda m: m.update(contract_version=99))
    with pytest.raises(ModelFileError, match=r"contract version 99.*export the checkpoint again"):
        load_bundle(folder)


def test_manifest_key_of_wrong_type(folder: Path) -> None:
    change_manifest(folder, lambda m: m.update(steps="many"))
    with pytest.raises(ModelFileError, match="steps must be int, got str"):
        load_bundle(folder)


def test_graph_that_the_manifest_does_not_name(folder: Path) -> None:
    change_manifest(folder, lambda m: m["files"].pop("expression_encoder.onnx"))
    with pytest.raises(ModelFileError, match=r"expression_encoder\.onnx: not in the manifest"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "presets\\..\\x"])
def test_path_outside_the_bundle_is_refused(folder: Path, name: str) -> None:
    change_manifest(folder, lambda m: m["files"].update({name: {"sha256": "0" * 64}}))
    with pytest.raises(ModelFileError, match="outside the model's folder"):
        load_bundle(folder)


def test_entry_without_a_hash_is_refused(folder: Path) -> None:
    change_manifest(folder, lambda m: m["files"].update({"target_generator.onnx": {"bytes": 1}}))
    with pytest.raises(ModelFileError, match="no hash for it"):
        load_bundle(folder)


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelFileError, match=r"a folder with manifest\.json.*not a file"):
        load_bundle(path)
    assert not (tmp_path / "sprung").exists()


def test_missing_preset_lists_what_is_shipped(folder: Path) -> None:
    change_manifest(folder, lambda m: m["files"].pop("presets/fear.safetensors"))
    with pytest.raises(ModelFileError, match=r"ships no preset 'fear'.*anger, disgust"):
        load_bundle(folder).preset_path("fear")
