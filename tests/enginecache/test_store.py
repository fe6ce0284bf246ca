"""Engines on disk: what is wrong is named for what it is and never read as an engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rt_swap import enginecache
from rt_swap.contract import ENCODER_SPEC
from rt_swap.enginecache import Device, State, check_file, entries, prune, read_checked, store
from rt_swap.enginecache.store import engines_dir, sidecar_path
from rt_swap.errors import BackendError, EngineMismatch
from tests.support.engines import FakeBuilder
from tests.support.tiny_model import encoder_model


@pytest.fixture
def onnx_path(tmp_path: Path) -> Path:
    path = tmp_path / "expression_encoder.onnx"
    path.write_bytes(encoder_model().SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines"


def build(onnx_path: Path, folder: Path, sm: int = 89, **options: object) -> Path:
    builder = FakeBuilder(**options)  # type: ignore[arg-type]
    return enginecache.get_or_build(
        onnx_path, ENCODER_SPEC, builder, "fp32", Device(sm), folder=folder
    )


def spoil(path: Path, how: str) -> None:
    blob = path.read_bytes()
    sidecar = json.loads(sidecar_path(path).read_text())
    if how == "truncated":
        path.write_bytes(blob[:-1])
    elif how == "tampered":
        path.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    elif how == "no sidecar":
        sidecar_path(path).unlink()
    elif how == "half a sidecar":
        sidecar_path(path).write_text('{"format": 1, "key"')
    elif how == "foreign name":
        other = path.with_name(path.name.replace("sm89", "sm86"))
        shutil.copy(path, other)
        shutil.copy(sidecar_path(path), sidecar_path(other))
    elif how == "changed key":
        sidecar["key"]["sm"] = 86
        sidecar_path(path).write_text(json.dumps(sidecar))
    elif how == "failed check":
        sidecar["check"] = {"ok": False, "why": "flow_xy is off by 3"}
        sidecar_path(path).write_text(json.dumps(sidecar))
    elif how == "another format":
        sidecar_path(path).write_text(json.dumps({**sidecar, "format": 99}))


@pytest.mark.parametrize(
    ("how", "state", "why"),
    [
        ("nothing", State.GOOD, ""),
        ("truncated", State.TRUNCATED, "bytes, not"),
        ("tampered", State.TAMPERED, "not those that were built"),
        ("no sidecar", State.NO_SIDECAR, "there is no"),
        ("half a sidecar", State.NO_SIDECAR, "cannot be read"),
        ("foreign name", State.FOREIGN, "its sidecar says it is"),
        ("changed key", State.TAMPERED, "does not match its own hash"),
        ("failed check", State.FAILED_CHECK, "off by 3"),
        ("another format", State.FOREIGN, "another format"),
    ],
)
def test_what_is_wrong_is_named_and_not_loaded(
    onnx_path: Path, folder: Path, how: str, state: State, why: str
) -> None:
    path = build(onnx_path, folder)
    good = path.read_bytes()
    spoil(path, how)
    if how == "foreign name":
        path = path.with_name(path.name.replace("sm89", "sm86"))
    entry = check_file(path)
    assert entry.state is state
    assert why in entry.why
    if state is State.GOOD:
        assert read_checked(path)[0] == good
        return
    with pytest.raises(EngineMismatch, match=rf"{state.value}: .*it was not loaded; build it"):
        read_checked(path)


def test_an_engine_for_something_else_is_stale_and_says_in_what(
    onnx_path: Path, folder: Path
) -> None:
    path = build(onnx_path, folder)
    newer = check_file(build(onnx_path, folder, version="2.0")).key
    entry = check_file(path, newer)
    assert entry.state is State.STALE
    assert entry.why == "built for runtime_version 1.0 (here 2.0)"
    with pytest.raises(EngineMismatch, match="no such engine; build it"):
        read_checked(folder / "none.engine")


def test_entries_are_the_last_written_first_and_nothing_else(onnx_path: Path, folder: Path) -> None:
    assert entries(folder) == []
    first = build(onnx_path, folder)
    second = build(onnx_path, folder, sm=86)
    os.utime(first, (1, 1))
    (folder / "notes.txt").write_text("mine")
    assert [e.path for e in entries(folder)] == [second, first]
    assert all(e.state is State.GOOD for e in entries(folder))


def test_prune_keeps_what_the_model_and_the_runtime_need(onnx_path: Path, folder: Path) -> None:
    good = build(onnx_path, folder)
    build(onnx_path, folder, version="0.9")
    spoil(build(onnx_path, folder, sm=75), "truncated")
    onnx_path.write_bytes(encoder_model(seed=1).SerializeToString())
    build(onnx_path, folder)
    key = check_file(good).key
    assert key is not None
    removed = prune(folder, keep_onnx_sha256={key.onnx_sha256}, keep_versions={"fake": "1.0"})
    assert len(removed) == 3
    assert [e.path for e in entries(folder)] == [good]
    assert not [p for p in folder.glob("*.json") if p != sidecar_path(good)]


def test_prune_leaves_what_was_finished_while_it_waited(
    onnx_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at between the engine's last byte and its sidecar, it was nothing yet."""
    path = build(onnx_path, folder)
    sidecar = sidecar_path(path)
    kept = sidecar.read_bytes()
    sidecar.unlink()

    @contextlib.contextmanager
    def waited(*_: object) -> Iterator[None]:
        sidecar.write_bytes(kept)  # the builder has the lock until now
        yield

    monkeypatch.setattr(store, "locked", waited)
    assert prune(folder) == []
    assert check_file(path).state is State.GOOD


def test_prune_by_age_and_of_parts(onnx_path: Path, folder: Path) -> None:
    path = build(onnx_path, folder)
    part = folder / ".x.engine.abc.part"
    part.write_bytes(b"half")
    assert prune(folder, older_than_s=3600) == []
    assert part.exists()
    long_ago = time.time() - 7200
    for file in (path, part):
        os.utime(file, (long_ago, long_ago))
    assert prune(folder, older_than_s=3600) == [path]
    assert not part.exists()
    assert prune(folder / "none") == []


def test_the_folder_is_named_by_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RT_SWAP_HOME", str(tmp_path))
    assert engines_dir() == tmp_path / "engines"
    assert engines_dir(tmp_path / "other") == tmp_path / "other" / "engines"
    monkeypatch.delenv("RT_SWAP_HOME")
    assert engines_dir().parts[-2:] == ("rt_swap", "engines")


def test_rt_swap_home_is_no_unknown_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rt_swap.config import load_settings

    monkeypatch.setenv("RT_SWAP_HOME", str(tmp_path))
    monkeypatch.setenv("RT_SWAP_CONFIG", "")
    load_settings({})


def test_the_folder_is_its_owners_alone(onnx_path: Path, folder: Path) -> None:
    path = build(onnx_path, folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_in_the_folders_place(onnx_path: Path, folder: Path) -> None:
    folder.write_text("in the way")
    with pytest.raises(BackendError, match=r"engines cannot be kept here .*RT_SWAP_HOME"):
        build(onnx_path, folder)
