"""``inspect_file`` and ``rt-swap inspect`` on what ``rt-swap reenact`` wrote, with the real face
tracker and the installed model: the whole way.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rt_swap.cli import main
from rt_swap.errors import ConfigError, SourceError
from rt_swap.model import load_bundle
from rt_swap.provenance.inspection import inspect_file

pytest.importorskip("c2pa", reason="needs c2pa-python: pip install 'rt-swap[provenance]'")
astronaut = pytest.importorskip("skimage.data", reason="needs scikit-image").astronaut


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(tmp_path / "config"))
    monkeypatch.setenv("RT_SWAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RT_SWAP_THREADS", "1")


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    path = tmp_path / "portrait.png"
    cv2.imwrite(str(path), cv2.resize(astronaut()[..., ::-1], (768, 768)))
    return path


def reenacted(portrait: Path, *options: str) -> Path:
    out = portrait.with_name("out.png")
    arguments = ["reenact", str(portrait), "--preset", "smile", "-o", str(out), "-q", *options]
    assert main([*arguments, "--overwrite"]) == 0
    return out


def test_all_three_marks_are_there_by_default_and_read_back(
    portrait: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inspect_file(portrait)
    assert not before["altered"]
    out = reenacted(portrait)
    assert main(["inspect", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    bundle = load_bundle()
    assert found["altered"]
    assert found["badge"]["corner"] == "bottom-right"
    assert found["watermark"]["found"]
    assert found["watermark"]["model"] == bundle.generator_sha256[:3]
    assert found["manifest"]["state"] == "valid"
    assert found["manifest"]["rt_swap"]["model"] == bundle.name
    hashes = found["manifest"]["rt_swap"]["model_sha256"]
    assert hashes["target_generator"] == bundle.generator_sha256
    assert main(["inspect", str(out)]) == 0
    text = capsys.readouterr().out
    assert "altered with a trained model, its marks say" in text
    assert "proves no identity" in text
    assert f"found, model {bundle.generator_sha256[:3]}" in text


def test_each_mark_can_be_switched_off_and_that_is_recorded(
    portrait: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = reenacted(portrait, "--no-badge", "--no-watermark", "--json")
    summary = json.loads(capsys.readouterr().out)
    assert summary["marks"]["badge"] == "off"
    assert summary["marks"]["manifest"]["state"] == "written"
    found = inspect_file(out)
    assert found["badge"]["corner"] is None
    assert not found["watermark"]["found"]
    assert found["manifest"]["rt_swap"]["marks"]["badge"] == "off"
    assert main(["inspect", str(out)]) == 0
    assert "made with --no-badge" in capsys.readouterr().out
    bare = reenacted(portrait, "--no-badge", "--no-watermark", "--no-manifest")
    assert not inspect_file(bare)["altered"]


def test_marks_change_nothing_but_corner_and_face(portrait: Path) -> None:
    plain = cv2.imread(str(reenacted(portrait, "--no-badge", "--no-watermark")))
    marked = cv2.imread(str(reenacted(portrait, "--badge", "top-left")))
    changed = (plain != marked).any(axis=2)
    assert changed[:60, :350].any()
    changed[:60, :350] = False
    ys, xs = np.nonzero(changed)
    # the aligned crop of this portrait: 237 pixels around (336, 193)
    assert ys.min() > 60
    assert ys.max() < 330
    assert 200 < xs.min() < xs.max() < 470


def test_what_cannot_be_read_is_told(tmp_path: Path, portrait: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file"):
        inspect_file(tmp_path / "no.mp4")
    (tmp_path / "text.mp4").write_text("words " * 50)
    with pytest.raises(SourceError, match="is not a video that can be read"):
        inspect_file(tmp_path / "text.mp4")
    with pytest.raises(ConfigError, match="--frames: must be 1 or more"):
        inspect_file(portrait, frames=0)
    assert main(["inspect", str(portrait), "--frames", "many"]) == 2
