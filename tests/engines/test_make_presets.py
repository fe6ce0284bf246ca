"""Presets from pictures: averaged over people, bound to their encoder, all or nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines import make_presets
from engines.make_presets import encode_crops
from rt_swap.backends import get_backend
from rt_swap.contract import ENCODER_SPEC
from rt_swap.errors import ConfigError, SourceError
from rt_swap.expression import PRESETS, preset
from rt_swap.expression.recipes import recipe_aus_lr
from rt_swap.io.picture import read_picture
from rt_swap.model import load_bundle
from tests.support.tiny_model import tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three noise crops per preset."""
    rng = np.random.default_rng(0)
    for name in PRESETS:
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(3):
            crop = rng.integers(0, 200, (4, 4, 3), dtype=np.uint8).repeat(64, 0).repeat(64, 1)
            assert cv2.imwrite(str(tmp_path / "pictures" / name / f"{i}.png"), crop)
    return tmp_path / "pictures"


def test_presets_are_the_mean_over_people(bundle: Path, pictures: Path) -> None:
    before = load_bundle(bundle)
    old = preset("smile", before).tokens
    reports = make_presets.make_presets(bundle, pictures)
    assert [r.name for r in reports] == list(PRESETS)
    assert all(r.pictures == 3 and 0 < r.spread < 2 for r in reports)

    after = load_bundle(bundle)
    assert after.preset_names == tuple(sorted(PRESETS))
    assert after.sha256 == before.sha256
    made = preset("smile", after)
    assert not np.array_equal(made.tokens, old)
    crops = [read_picture(p) for p in sorted((pictures / "smile").glob("*.png"))]
    with get_backend("onnxruntime").load(after.encoder_path, ENCODER_SPEC, 1) as session:
        tokens, aus_lr = encode_crops(crops, session)
        one, _ = encode_crops(crops[:1], session)
    assert tokens.shape == (3, 27, 16)
    np.testing.assert_allclose(made.tokens[0], tokens.mean(0), atol=1e-4)
    np.testing.assert_allclose(made.aus_lr[0], aus_lr.mean(0), atol=1e-4)
    np.testing.assert_array_equal(one[0], tokens[0])


def test_crops_reach_the_encoder_as_rgb(bundle: Path) -> None:
    crop = np.zeros((256, 256, 3), np.uint8)
    crop[:, :, 2] = 255  # red, in BGR
    seen = {}

    class Session:
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            seen.update(inputs)
            return {t.name: np.zeros(t.shape, np.float32) for t in ENCODER_SPEC.outputs}

    encode_crops([crop], Session())  # type: ignore[arg-type]
    rgb = seen["source_rgb"]
    assert rgb.shape == (1, 3, 256, 256)
    assert [float(rgb[0, c].mean()) for c in range(3)] == [1, 0, 0]


def test_report_says_what_the_encoder_does_not_see(
    bundle: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (wink,) = [r for r in make_presets.make_presets(bundle, pictures) if r.name == "wink"]
    assert wink.strongest.startswith("AU45 left: 1.00 asked, ")
    read = float(wink.strongest.split()[-2])
    assert wink.weak == (read < 0.5)
    assert "wink: only 3 pictures" in caplog.text


def test_command_prints_a_row_a_preset(
    bundle: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--bundle", str(bundle), "--pictures", str(pictures)]
    assert make_presets.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["preset", *PRESETS]


def test_every_folder_that_is_wrong_is_listed(bundle: Path, pictures: Path) -> None:
    (pictures / "fear").rename(pictures / "grin")
    for path in (pictures / "anger").iterdir():
        path.unlink()
    expected = r"grin: no such preset; anger: no pictures; fear: no folder"
    with pytest.raises(ConfigError, match=expected):
        make_presets.make_presets(bundle, pictures)
    with pytest.raises(ConfigError, match="no such folder"):
        make_presets.make_presets(bundle, pictures / "no")


def test_allow_missing_makes_the_others_and_keeps_what_is_there(
    bundle: Path, pictures: Path
) -> None:
    old = preset("fear", load_bundle(bundle)).tokens
    for path in (pictures / "fear").iterdir():
        path.unlink()
    (pictures / "fear").rmdir()
    reports = make_presets.make_presets(bundle, pictures, allow_missing=True)
    assert len(reports) == 8
    np.testing.assert_array_equal(preset("fear", load_bundle(bundle)).tokens, old)


@pytest.mark.parametrize("damage", ["size", "not a picture"])
def test_a_bad_picture_changes_nothing(bundle: Path, pictures: Path, damage: str) -> None:
    before = load_bundle(bundle).manifest
    bad = pictures / "wink" / "9.png"
    if damage == "size":
        assert cv2.imwrite(str(bad), np.zeros((256, 250, 3), np.uint8))
        with pytest.raises(ConfigError, match=r"9\.png: must be an aligned crop .* got 250x256"):
            make_presets.make_presets(bundle, pictures)
    else:
        bad.write_bytes(b"nothing")
        with pytest.raises(SourceError, match=r"9\.png: not a picture"):
            make_presets.make_presets(bundle, pictures)
        assert make_presets.main(["--bundle", str(bundle), "--pictures", str(pictures)]) == 2
    assert load_bundle(bundle).manifest == before


# --- from the teacher ---
def test_taught_presets_are_the_generators_own_tokens(
    exported: Path, checkpoint: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="needs torch (pip install rt-swap[train])")
    from training.checkpoint import load_net

    bundle = tmp_path / "bundle"
    shutil.copytree(exported, bundle)
    args = ["--bundle", str(bundle), "--checkpoint", str(checkpoint)]
    assert make_presets.main(args) == 0
    wink = preset("wink", load_bundle(bundle))
    asked = recipe_aus_lr("wink")
    np.testing.assert_array_equal(wink.aus_lr[0], asked)
    net, _ = load_net(checkpoint)
    with torch.no_grad():
        taught = net.label_tokens(torch.from_numpy(asked)[None]).numpy()
        rest = net.label_tokens(torch.zeros(1, *asked.shape)).numpy()
    np.testing.assert_array_equal(wink.tokens, taught)
    moved = np.abs(wink.tokens[0] - rest[0]).max(1) > 1e-3
    np.testing.assert_array_equal(moved, asked.max(1) > 0)  # token k belongs to AU k alone


def test_taught_presets_refuse_another_checkpoint(
    exported: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, other = tmp_path / "bundle", tmp_path / "other"
    shutil.copytree(exported, bundle)
    shutil.copytree(checkpoint, other)
    state = json.loads((other / "state.json").read_text())
    (other / "state.json").write_text(json.dumps(state | {"step": 99}))
    assert make_presets.main(["--bundle", str(bundle), "--checkpoint", str(other)]) == 2
    assert "step 99" in capsys.readouterr().err
