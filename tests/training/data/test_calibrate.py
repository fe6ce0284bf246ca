"""Where the tracker sees faces at rest, and that fits know it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rt_swap.errors import ConfigError
from rt_swap.frames import TrackedFace
from training.data import calibrate, correspond
from training.data.fit import IDENTITY_MODES
from training.data.split import split_of

SEEN_PX_PER_UNIT = 20.0


@pytest.fixture(scope="module")
def bare(model):
    """A fitter without offsets."""
    from training.data.fit import Fitter

    return Fitter(model, correspond.build(model, None))


def planted(bare) -> np.ndarray:
    """(N, 3) symmetric: corners of the mouth outwards and up, brows inwards, the lower lip down."""
    pairs = bare.pairs
    out = np.zeros((len(pairs.landmarks), 3))
    outwards_up = {105: (-0.4, -0.1), 17: (0.0, -0.25)} | dict.fromkeys(
        (61, 185, 146, 78), (0.4, 0.4)
    )
    for landmark, way in outwards_up.items():
        k = pairs.landmarks.tolist().index(landmark)
        out[k, :2] = np.sign(bare.model.vertices[pairs.vertices[k], 0]) * way[0], way[1]
    return calibrate.symmetric(out, correspond.mirror_pairs(bare.model, pairs.vertices)) * 2


def seen(bare, identity: np.ndarray, offsets: np.ndarray, expression: np.ndarray | None = None):
    """Landmarks (478, 2) and depth (478,) of a face that looks ahead."""
    pairs = bare.pairs
    neutral = bare.identity_shape(identity)
    vertices = neutral if expression is None else bare.shape(neutral, expression)
    points = vertices[pairs.vertices] + offsets
    xy, depth = np.full((478, 2), 256.0), np.zeros(478)
    xy[pairs.landmarks] = points[:, :2] * (SEEN_PX_PER_UNIT, -SEEN_PX_PER_UNIT) + 256.0
    depth[pairs.landmarks] = -points[:, 2] * SEEN_PX_PER_UNIT
    for landmark, corners in ((473, (362, 263)), (468, (33, 133))):
        xy[landmark] = xy[list(corners)].mean(0)
    return xy, depth


def people(bare, offsets: np.ndarray, count: int = 12) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    shapes = rng.normal(0, 0.4, (count, IDENTITY_MODES)).astype(np.float32)
    return [seen(bare, s, offsets) for s in shapes]


def test_mirror_pairs_is_its_own_inverse_and_crosses_the_face(bare):
    pairs = bare.pairs
    mirrored = correspond.mirror_pairs(bare.model, pairs.vertices)
    assert (mirrored[mirrored] == np.arange(len(mirrored))).all()
    marks = pairs.landmarks.tolist()
    assert marks[mirrored[marks.index(61)]] == 291
    assert marks[mirrored[marks.index(13)]] == 13


def test_symmetric_is_the_mean_of_both_sides(bare):
    mirrored = correspond.mirror_pairs(bare.model, bare.pairs.vertices)
    given = np.random.default_rng(0).normal(size=(len(mirrored), 3))
    out = calibrate.symmetric(given, mirrored)
    np.testing.assert_allclose(out[mirrored] * (-1, 1, 1), out)
    k = bare.pairs.landmarks.tolist().index(61)
    np.testing.assert_allclose(out[k], (given[k] + given[mirrored[k]] * (-1, 1, 1)) / 2)


def test_left_over_is_what_was_put_beside_the_fitted_face(bare):
    xy, depth = seen(bare, np.zeros(IDENTITY_MODES, np.float32), planted(bare) * 0)
    turn = np.radians(20.0)
    points = np.stack([xy[:, 0] - 256.0, 256.0 - xy[:, 1], -depth], 1)
    points @= np.array(
        [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]
    )
    xy, depth = points[:, :2] * (1, -1) + 256.0, -points[:, 2]
    fit = bare.fit(xy, depth, at_rest=True)
    assert abs(fit.yaw_deg) == pytest.approx(20.0, abs=1.0)
    exact = calibrate.left_over(bare, fit, xy)
    assert np.abs(exact).max() < 0.1
    moved = xy.copy()
    landmark = int(bare.pairs.landmarks[40])
    moved[landmark] += (3.0, -2.0)
    more = calibrate.left_over(bare, fit, moved) - exact
    turned = more @ fit.rotation.T * fit.scale
    np.testing.assert_allclose(turned[40, :2], (3.0, 2.0), atol=1e-4)
    assert np.abs(np.delete(more, 40, axis=0)).max() < 1e-9


@pytest.fixture(scope="module")
def calibrated(bare):
    """Faces with offsets planted, how much was added each round, a fitter with what was found."""
    faces = people(bare, planted(bare))
    found, added = calibrate.calibrate(bare, faces)
    told = type(bare)(bare.model, replace(bare.pairs, offsets=found.astype(np.float32)))
    return faces, added, told


def test_calibrate_finds_what_everybody_has_in_common(bare, calibrated):
    faces, added, told = calibrated
    assert (bare.pairs.offsets == 0).all()  # put back
    assert added[-1] < 0.2 * added[0]

    # identities and poses may take a part of it, the same in everybody; what is left over may not
    def common(fitter) -> float:
        rest = [calibrate.left_over(fitter, fitter.fit(*f, at_rest=True), f[0]) for f in faces]
        return float(np.sqrt((np.mean(rest, axis=0) ** 2).sum(1).mean()))

    assert common(told) < 0.15 * common(bare)


def test_a_fit_that_knows_the_offsets_takes_none_of_them_for_an_expression(bare, calibrated):
    face = seen(bare, np.zeros(IDENTITY_MODES, np.float32), planted(bare))
    looks = np.array([n.startswith("eyeLook") for n in bare.model.expression_names])
    before, now = (f.fit(*face).expression[~looks].sum() for f in (bare, calibrated[2]))
    assert before > 0.1
    assert now < 0.3 * before


def test_at_rest_fits_no_expression_but_the_eyes(bare):
    smile = np.zeros(len(bare.model.expression_names), np.float32)
    for side in "LR":
        smile[bare.model.shape_index[f"mouthSmile_{side}"]] = 0.8
    face = seen(bare, np.zeros(IDENTITY_MODES, np.float32), planted(bare) * 0, smile)
    index = bare.model.shape_index
    assert bare.fit(*face).expression[index["mouthSmile_L"]] > 0.4
    rest = bare.fit(*face, at_rest=True).expression
    looks = np.array([n.startswith("eyeLook") for n in bare.model.expression_names])
    assert (rest[~looks] == 0).all()


def test_build_reads_the_offsets_of_the_repository(model, bare):
    pairs = correspond.build(model)
    assert (pairs.landmarks == bare.pairs.landmarks).all()
    assert 0.1 < np.sqrt((pairs.offsets**2).sum(1).mean()) < 1.0
    mirrored = correspond.mirror_pairs(model, pairs.vertices)
    np.testing.assert_allclose(pairs.offsets[mirrored] * (-1, 1, 1), pairs.offsets, atol=2e-4)


@pytest.mark.parametrize(
    "left", [[], [0.1, 0.2], None, 0.3, ["a", "b", "c"], [0.1, float("nan"), 0.2]]
)
def test_an_offset_that_is_missing_is_named(tmp_path: Path, left: object):
    path = tmp_path / "offsets.json"
    path.write_text(json.dumps({"offsets": {"61": [0.0, 0.1, 0.0], "291": left}}))
    with pytest.raises(ConfigError, match=r"\[291\].*training\.data\.calibrate"):
        correspond.read_offsets(path, np.array([61, 291], np.int32))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"offsets": 3}'])
def test_a_file_without_offsets_is_named(tmp_path: Path, text: str):
    path = tmp_path / "offsets.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"offsets\.json.*training\.data\.calibrate"):
        correspond.read_offsets(path, np.array([61], np.int32))
    with pytest.raises(ConfigError, match=r"nowhere\.json.*training\.data\.calibrate"):
        correspond.read_offsets(tmp_path / "nowhere.json", np.array([61], np.int32))


def test_only_people_who_train_are_looked_at_once_each_and_from_the_front(
    bare, tmp_path: Path, ict_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    """What a made-up tracker sees is written in a picture's first pixel: the number of a face."""
    import cv2

    faces = people(bare, planted(bare))
    points = np.stack([faces[0][0][:, 0] - 256.0, faces[0][1]], 1)
    turn = np.radians(40.0)
    points @= np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    faces.append((np.stack([points[:, 0] + 256.0, faces[0][0][:, 1]], 1), points[:, 1]))
    shown: list[int] = []

    class Tracker:
        def __init__(self, static: bool) -> None:
            assert static

        def __enter__(self):
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def detect(self, picture: np.ndarray) -> list[TrackedFace]:
            number = int(picture[0, 0, 0])
            shown.append(number)
            return [TrackedFace(*faces[number], 1.0, 0)] if number < len(faces) else []

    monkeypatch.setattr("rt_swap.tracking.MediapipeTracker", Tracker)
    monkeypatch.setattr(calibrate, "MIN_PEOPLE", 3)
    names = [f"p{i}" for i in range(200)]
    trains = [n for n in names if split_of("made", n) == "train"]
    held = [n for n in names if split_of("made", n) != "train"]
    turned, nobody = len(faces) - 1, 99
    pictures = [(trains[i], i) for i in range(4)] + [(held[0], 5), (held[1], 6)]
    pictures += [(trains[0], 7), (trains[4], turned), (trains[5], nobody)]
    folder = tmp_path / "made"
    folder.mkdir()
    entries = []
    for order, (person, number) in enumerate(pictures):
        name = f"neutral_{order:02d}.png"
        cv2.imwrite(str(folder / name), np.full((4, 4, 3), number, np.uint8))
        entries.append({"file": name, "person": person})
    entries += [{"file": "neutral_98.png", "person": trains[6]}]
    (folder / "neutral_98.png").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "smiling_99.png"), np.full((4, 4, 3), 8, np.uint8))
    entries += [{"file": "smiling_99.png", "person": trains[7]}]
    (folder / "manifest.json").write_text(json.dumps({"name": "made", "pictures": entries}))
    out = tmp_path / "new" / "offsets.json"
    args = ["--portraits", str(folder), "--ict", str(ict_dir), "--out", str(out)]
    assert calibrate.main(args) == 0
    assert shown == [0, 1, 2, 3, turned, nobody]
    said = json.loads(out.read_text())
    assert said["people"] == 4 and said["datasets"] == ["made"]
    for what in ("same person: neutral_06", "40 degrees: neutral_07", "found: neutral_08",
                 "a picture: neutral_98"):  # fmt: skip
        assert what in caplog.text
    offsets = correspond.read_offsets(out, bare.pairs.landmarks)
    wanted, _ = calibrate.calibrate(bare, faces[:4])
    np.testing.assert_allclose(offsets, wanted, atol=1e-4)


def test_too_few_people_at_rest_are_refused(tmp_path: Path, ict_dir: Path, astronaut_file, capsys):
    code = calibrate.main(
        ["--portraits", str(astronaut_file.parent), "--ict", str(ict_dir), "--out",
         str(tmp_path / "out.json")]
    )  # fmt: skip
    assert code == 2
    assert "only 0 people" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_of_real_smiles_most_is_fitted(ict_dir: Path, model, fitter):
    """Of the width 0.70, of 75 people; without offsets, with the priors of before, it was 0.58."""
    cv2 = pytest.importorskip("cv2")
    from rt_swap.tracking import MediapipeTracker

    folder = ict_dir.parent / "portraits" / "london"
    if not folder.is_dir():
        pytest.skip("needs the portraits of the shared data")
    corners = [fitter.pairs.landmarks.tolist().index(m) for m in (61, 291)]
    real, fitted = [], []
    with MediapipeTracker(static=True) as tracker:
        for neutral in sorted(folder.glob("neutral_*.jpg"))[::5]:
            smiling = folder / neutral.name.replace("neutral", "smiling")
            if not smiling.is_file():
                continue
            wide, grown = [], []
            for path in (neutral, smiling):
                face = tracker.detect(cv2.imread(str(path)))[0]
                fit = fitter.fit(face.landmarks_xy, face.depth)
                rest = fitter.identity_shape(fit.identity)
                shown = fitter.shape(rest, fit.expression)
                lips = fitter.pairs.vertices[corners]
                wide.append(np.linalg.norm(np.subtract(*face.landmarks_xy[[61, 291]])) / fit.scale)
                grown.append(_width(shown[lips]) - _width(rest[lips]))
            real.append(wide[1] - wide[0])
            fitted.append(grown[1] - grown[0])
    assert len(real) >= 10
    slope = np.dot(real, fitted) / np.dot(real, real)
    assert 0.64 < slope < 1.1
    assert np.corrcoef(real, fitted)[0, 1] > 0.95


def _width(corners: np.ndarray) -> float:
    return float(abs(corners[0, 0] - corners[1, 0]))
