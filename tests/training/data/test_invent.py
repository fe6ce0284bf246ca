"""People whom no camera has seen."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rt_swap.errors import ConfigError
from training.data import invent as module
from training.data.portraits import Portrait, list_portraits


@pytest.fixture(scope="module")
def folder(astronaut_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    picture = cv2.imread(str(astronaut_file))
    cv2.imwrite(str(out / "a.png"), picture)
    cv2.imwrite(str(out / "b.png"), cv2.resize(picture, None, fx=1.0, fy=1.2))
    (out / "c.png").write_bytes(b"no picture")
    return out


def test_one_of_two_is_neither(engine, folder: Path) -> None:
    made = module.invent(engine, list_portraits([folder]), 1, seed=0)
    picture, one, other = made[0]
    assert picture.shape == (module.SIZE_PX, module.SIZE_PX, 3)
    assert {one.path.name, other.path.name} == {"a.png", "b.png"}
    for portrait in (one, other):
        person = engine.person(portrait, module.SIZE_PX)[0]
        rest = np.zeros(len(engine.model.expression_names), np.float32)
        plain = person.render_pair(rest, rest)[0].rgb
        assert np.abs(plain[150:400, 150:360].astype(int) - picture[150:400, 150:360]).mean() > 2


def test_too_few_say_how_many(engine, folder: Path) -> None:
    with pytest.raises(ConfigError, match="only 1 of 2 people"):
        module.invent(engine, list_portraits([folder]), 2, seed=0)


def test_command_writes_a_folder_of_portraits(
    ict_dir: Path, folder: Path, tmp_path: Path, engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "portraits_of_split", lambda folders, split: list_portraits(folders)
    )
    monkeypatch.setattr(module, "PortraitEngine", lambda path: engine)
    out = tmp_path / "new"
    arguments = ["--portraits", str(folder), "--ict", str(ict_dir), "--out", str(out)]
    assert module.main([*arguments, "--people", "1"]) == 0
    assert [p.dataset for p in list_portraits([out])] == ["invented"]
    said = json.loads((out / "manifest.json").read_text())
    assert len(said["pictures"][0]["mixed_from"]) == 2
    assert isinstance(list_portraits([out])[0], Portrait)


def test_a_folder_with_something_in_it_is_left_alone(
    ict_dir: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--portraits", str(folder), "--ict", str(ict_dir), "--out", str(folder)]
    assert module.main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err
