"""The sheet of presets: who is chosen, and that a real face gets every preset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from training import preset_sheet
from training.data.portraits import Portrait, list_portraits
from training.data.split import split_of
from training.preset_sheet import CELL_PX, PRESETS, choose


def held_out_names(dataset: str, count: int, start: str = "") -> list[str]:
    names = (f"{start}{i:04d}.png" for i in range(10_000))
    return [next(n for n in names if split_of(dataset, n) == "val") for _ in range(count)]


def folder_of(tmp_path: Path, dataset: str, names: list[str], yaw: float = 0.0) -> Path:
    folder = tmp_path / "portraits" / dataset
    folder.mkdir(parents=True)
    pictures = [{"file": n, "person": n, "yaw_deg": yaw} for n in names]
    (folder / "manifest.json").write_text(json.dumps({"name": dataset, "pictures": pictures}))
    return folder


def test_only_the_held_out_are_chosen_and_the_order_follows_the_seed(tmp_path: Path) -> None:
    folder_of(tmp_path, "made", [f"{i:04d}.png" for i in range(300)])
    everybody = list_portraits([tmp_path / "portraits"])
    for split in ("val", "test"):
        a, b, c = (
            list(choose(everybody, split, None, np.random.default_rng(seed))) for seed in (0, 0, 1)
        )
        assert a == b != c
        assert set(a) == {p for p in everybody if split_of(p.dataset, p.person) == split}


def test_themes_go_by_name_by_turn_and_by_light(tmp_path: Path) -> None:
    glasses = held_out_names("sfhq_t2i", 1, "Glasses_Style_")
    plain = held_out_names("sfhq_t2i", 1, "Hair_")
    folder = folder_of(tmp_path, "sfhq_t2i", [*glasses, *plain])
    for name, level in ((glasses[0], 30), (plain[0], 200)):
        cv2.imwrite(str(folder / name), np.full((64, 64, 3), level, np.uint8))
    turned = held_out_names("made", 1)
    folder_of(tmp_path, "made", turned, yaw=-25.0)
    (tmp_path / "portraits" / "made" / turned[0]).write_bytes((folder / plain[0]).read_bytes())
    everybody = list_portraits([tmp_path / "portraits"])

    def names(theme: str) -> list[str]:
        return [p.path.name for p in choose(everybody, "val", theme, np.random.default_rng(0))]

    assert names("glasses") == glasses
    assert names("turned") == turned
    assert names("dim") == glasses
    assert names("beards") == []


def test_every_preset_changes_a_real_face_and_the_sheet_has_its_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from skimage import data

    name = held_out_names("made", 1)[0]
    folder = folder_of(tmp_path, "made", [name])
    cv2.imwrite(str(folder / name), data.astronaut()[:400, 20:420, ::-1])
    out = tmp_path / "sheet.png"
    assert preset_sheet.main(["--portraits", str(folder), "--out", str(out), "--people", "3"]) == 0
    sheet = cv2.imread(str(out))
    assert sheet.shape == (22 + CELL_PX, CELL_PX * (len(PRESETS) + 1), 3)
    first = sheet[22:, :CELL_PX].astype(int)
    moved = {
        preset: float(np.abs(sheet[22:, CELL_PX * i : CELL_PX * (i + 1)] - first).mean())
        for i, preset in enumerate(PRESETS, 1)
    }
    assert all(value > 0.1 for value in moved.values()), moved
    assert moved["laugh"] > moved["wink"]
    assert "1 people, 9 presets" in capsys.readouterr().out


def test_pictures_without_a_face_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = held_out_names("made", 2)
    folder = folder_of(tmp_path, "made", names)
    cv2.imwrite(str(folder / names[0]), np.full((200, 200, 3), 90, np.uint8))
    (folder / names[1]).write_bytes(b"no picture")
    assert preset_sheet.main(["--portraits", str(folder), "--out", str(tmp_path / "s.png")]) == 2
    said = capsys.readouterr().err
    assert "no held-out portrait with a face" in said
    assert f"made/{names[0]} (no face found)" in said
    assert f"made/{names[1]} (" in said
    shutil.rmtree(folder)


def test_an_unknown_portrait_is_no_theme() -> None:
    portrait = Portrait(Path("glasses.png"), "congress", "x")
    assert not preset_sheet.THEMES["glasses"](portrait, 0.0, 255.0)
