"""The command that renders shards: what it takes to be there already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.data import shards
from training.data.layout import FORMAT

ASKED = {"seed": 3, "split": "val", "quadruples": 5, "mixed": 0.0, "reshaped": 0.0,
         "folding": 0.0, "pictures_only": False}  # fmt: skip


def run(folder: Path, **changes: object) -> int:
    """Ask for a shard where one with some other properties is."""
    there = folder / "out" / "shard_00000"
    there.mkdir(parents=True)
    (there / "shard.json").write_text(json.dumps({"format": FORMAT, **ASKED, **changes}))
    portraits = folder / "portraits"
    portraits.mkdir()
    (portraits / "one.jpg").write_bytes(b"")
    return shards.main(
        ["--portraits", str(portraits), "--ict", str(folder), "--out", str(folder / "out"),
         "--split", "val", "--shards", "1", "--quadruples", "5", "--seed", "3", "--workers", "1"]
    )  # fmt: skip


def test_a_shard_that_training_would_refuse_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, format=FORMAT - 1) == 2
    assert f"in format {FORMAT - 1}" in capsys.readouterr().err


def test_a_shard_that_is_what_was_asked_for_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PortraitEngine", lambda _: None)
    assert run(tmp_path) == 0
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["shard.json"]
