"""``rt-swap source``: encode, show, list, prune."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rt_swap.aus import AU_NAMES
from rt_swap.cli import main
from rt_swap.expression import load_expression
from tests.support.videos import moving_portrait, numbered, write_video

pytestmark = pytest.mark.usefixtures("faces")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), moving_portrait(1)[0])
    return path


def test_encode_saves_and_caches(
    picture: Path, tmp_path: Path, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "face.safetensors"
    assert main(["source", "encode", str(picture), "-o", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["entries"] == shown["with_face"] == 1
    assert list(shown["aus"]) == list(AU_NAMES)
    saved = load_expression(out)
    assert shown["aus"]["AU12"]["left"] == pytest.approx(
        float(saved.aus_lr[0, AU_NAMES.index("AU12"), 0]), abs=1e-4
    )
    (cached,) = (environment / "expressions").iterdir()
    np.testing.assert_array_equal(load_expression(cached).tokens, saved.tokens)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["face.png", "face.safetensors"]


def test_encode_refuses_to_overwrite_and_other_names(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "face.safetensors"
    out.write_text("mine")
    assert main(["source", "encode", str(picture), "-o", str(out)]) == 32
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["source", "encode", str(picture), "-o", str(tmp_path / "face.npz")]) == 2
    assert "an expression file is named *.safetensors" in capsys.readouterr().err
    assert main(["source", "encode", str(picture), "-o", str(out), "--overwrite"]) == 0
    assert load_expression(out).name == str(picture)


def test_encode_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "clip.mp4", numbered(6, 120, 160))
    assert main(["source", "encode", str(tmp_path / "clip.mp4"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["entries"] == 6
    assert shown["duration_s"] == pytest.approx(6 / 25)


def test_show_file_picture_and_preset(
    picture: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["source", "show", "--preset", "smile"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("smile: 1 entries")
    assert "lip corner puller" in text
    assert main(["source", "show", str(picture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == str(picture)
    saved = model / "presets" / "fear.safetensors"
    assert main(["source", "show", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "fear"
    assert main(["source", "show", str(tmp_path / "no.safetensors")]) == 31
    assert main(["source", "show"]) == 2


def test_list_and_prune(
    picture: Path, tmp_path: Path, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.tiny_model import tiny_bundle

    assert main(["source", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    other = str(tiny_bundle(tmp_path / "other", seed=9))
    for model in ([], ["--model", other]):
        assert main(["source", "encode", str(picture), "-q", *model]) == 0
    (environment / "expressions" / "broken.safetensors").write_bytes(b"no")
    capsys.readouterr()
    assert main(["source", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 3
    assert {row["name"] for row in rows} == {str(picture), None}
    assert main(["source", "list"]) == 0
    assert "damaged" in capsys.readouterr().out

    # what this model made stays
    assert main(["source", "prune", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert main(["source", "prune", "--older-than", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    for wrong in ("-1", "nan"):
        assert main(["source", "prune", "--older-than", wrong]) == 2
    capsys.readouterr()
    assert main(["source", "prune", "--all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert list((environment / "expressions").iterdir()) == []


def test_cache_option_names_the_folder(picture: Path, tmp_path: Path, environment: Path) -> None:
    assert main(["source", "encode", str(picture), "-q", "--cache", str(tmp_path / "mine")]) == 0
    assert len(list((tmp_path / "mine" / "expressions").iterdir())) == 1
    assert not (environment / "expressions").exists()
