"""Trajectories, sequences on disk and the figures over time, on made-up sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rt_swap.aus import AU_NAMES, NUM_AUS, AuId
from rt_swap.contract import TOKEN_DIM
from rt_swap.errors import ConfigError
from training import evaluate_sequences
from training.data import sequences
from training.data.sequences import REST_FRAMES, Sequence, trajectory
from training.descriptors import NAMES
from training.evaluate_sequences import score_sequence, summary, text
from training.scores import Answer

S, FRAMES = 16, 24


def test_trajectories_rest_then_move_smoothly_and_repeat() -> None:
    paths = [trajectory(np.random.default_rng(seed), 100) for seed in range(12)]
    for path in paths:
        assert path.shape == (100, NUM_AUS, 2) and path.min() >= 0 and path.max() <= 1
        assert (path[:REST_FRAMES] == path[0]).all()
        assert (path[REST_FRAMES + 1 :] != path[0]).any()
    again = trajectory(np.random.default_rng(3), 100)
    np.testing.assert_array_equal(again, paths[3])
    # somebody blinks fully within four seconds, and nothing but lids and eyes jumps
    lids = np.array([path[:, AuId.AU45.index].max() for path in paths])
    assert (lids > 0.9).mean() > 0.5
    brows = np.array([np.abs(np.diff(path[:, AuId.AU1.index], axis=0)).max() for path in paths])
    assert 0 < brows.max() < 0.35


def made(noise: float = 0.0) -> Sequence:
    """A grey face with a bright bar that jumps down and up; the target's does not."""
    rng = np.random.default_rng(0)
    truth = np.full((FRAMES, S, S, 3), 100, np.uint8)
    for t in range(REST_FRAMES, FRAMES):
        truth[t, 4 + t % 4] = 200
    target = np.full_like(truth, 100)
    if noise:
        target = np.clip(target + rng.normal(0, noise, target.shape), 0, 255).astype(np.uint8)
    aus = np.zeros((FRAMES, NUM_AUS, 2), np.float32)
    return Sequence(
        source=truth.copy(),
        target=target,
        truth=truth,
        flow=np.zeros((FRAMES, 2, S, S), np.int16),
        keep=np.full((FRAMES, S, S), 255, np.uint8),
        region=np.ones((FRAMES, S, S), np.uint8),
        source_aus=aus,
        target_aus=aus,
    )


class Model:
    """Shows the source itself (which is the truth here), the target, or either by turns."""

    def __init__(self, shows: str) -> None:
        self.shows, self.count = shows, 0

    def encode(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.source = rgb
        return np.zeros((NUM_AUS, TOKEN_DIM), np.float32), np.zeros((NUM_AUS, 2), np.float32)

    def answer(
        self, target: np.ndarray, tokens: np.ndarray, gains: np.ndarray, landmarks_xy: object
    ) -> Answer:
        assert landmarks_xy is None  # a bar is no face
        assert (gains == 1).all()
        self.count += 1
        flickers = self.shows == "flicker" and self.count % 2
        picture = self.source if self.shows == "truth" or flickers else target
        return Answer(picture, np.zeros((2, S, S), np.float32), np.ones((S, S), np.float32))


class Nobody:
    """A tracker that finds no face."""

    def detect(self, frame_bgr: np.ndarray) -> list[object]:
        return []


NOBODY = Nobody()


def bar_height(rgb: np.ndarray) -> np.ndarray:
    return np.full(len(NAMES), float(rgb[..., 0].astype(float).mean(1).argmax()))


def test_perfect_idle_and_flickering_answers_get_what_they_deserve() -> None:
    got = {
        name: score_sequence(Model(name), made(noise=3.0), REST_FRAMES, NOBODY, bar_height)[0]
        for name in ("truth", "target", "flicker")
    }
    assert got["truth"]["change"] == 0 and got["truth"]["image"] == 0
    assert got["truth"]["at_rest"] == 0
    assert got["truth"]["r"]["smile"] == pytest.approx(1)
    assert got["truth"]["tremble"]["smile"] == pytest.approx(1)
    assert got["target"]["tremble_target"]["smile"] == pytest.approx(1)
    assert got["target"]["change"] == pytest.approx(got["target"]["change_unchanged"])
    assert got["target"]["at_rest"] == pytest.approx(1)
    assert got["target"]["image_reduction"] == pytest.approx(0)
    assert got["flicker"]["change"] > 0.5 * got["target"]["change"]
    assert got["truth"]["change"] < got["flicker"]["change"]


def test_summary_says_it_in_words() -> None:
    row, done, idle = score_sequence(
        Model("truth"), made(noise=3.0), REST_FRAMES, NOBODY, bar_height
    )
    said = summary([row], done, idle)
    assert said["change_reduction"] == said["image_reduction"] == 1
    assert said["moving"] == dict.fromkeys(NAMES, 1)
    printed = text({"sequences": [row], "summary": said})
    assert "1 sequences" in printed and "100 % less" in printed and "mouth opening" in printed
    assert "tremble over the target" in printed


def about(**changes: object) -> dict[str, object]:
    return {
        "format": 1, "fps": 25, "rest_frames": REST_FRAMES, "split": "test",
        "aus": list(AU_NAMES), "people": ["a/1", "a/2"], **changes,
    }  # fmt: skip


def test_written_is_read_and_nothing_partial_stays(tmp_path: Path) -> None:
    sequences.write(tmp_path / "sequence_00000", made(), about())
    back, said = sequences.read(tmp_path / "sequence_00000")
    for name, array in vars(made()).items():
        np.testing.assert_array_equal(getattr(back, name), array)
    assert said["people"] == ["a/1", "a/2"]
    assert [p.name for p in tmp_path.iterdir()] == ["sequence_00000"]


def test_damaged_and_other_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as a sequence"):
        sequences.read(tmp_path)
    folder = tmp_path / "s"
    sequences.write(folder, made(), about(format=9))
    with pytest.raises(ConfigError, match="another version"):
        sequences.read(folder)
    (folder / "flow.npy").write_bytes(b"no array")
    with pytest.raises(ConfigError, match="make it again"):
        sequences.read(folder)


def test_cli_refuses_training_people_and_empty_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate_sequences.main(["--sequences", str(tmp_path)]) == 2
    assert "no sequence in it" in capsys.readouterr().err
    sequences.write(tmp_path / "sequence_00000", made(), about(split="train"))
    assert evaluate_sequences.main(["--sequences", str(tmp_path)]) == 2
    assert "sequence_00000: of people whom the model may have seen" in capsys.readouterr().err


def test_cli_of_sequences_checks_its_options(tmp_path: Path) -> None:
    options = ["--portraits", str(tmp_path), "--ict", "x", "--out", str(tmp_path / "o")]
    for wrong in (["--frames", "8"], ["--frames", "31"], ["--sequences", "0"]):
        with pytest.raises(SystemExit):
            sequences.main([*options, *wrong])
    assert sequences.main(options) == 2  # no portraits there
