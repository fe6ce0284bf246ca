"""The resting face: what is taken for one, what is refused, and where it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.contract import TOKEN_DIM
from rt_swap.errors import ConfigError, ExpressionError, ExpressionFileError
from rt_swap.live.calibration import (
    Calibration,
    Moment,
    Neutral,
    NeutralSearch,
    NeutralStore,
    activity,
    file_name,
)


def moment(
    time_s: float, smile: float = 0.0, blink: float = 0.0, noise: float = 0.0, bias: float = 0.1
) -> Moment:
    """A face whose tokens say how much it smiles, and -9 where it blinks."""
    rng = np.random.default_rng(round(time_s * 1000))
    aus_lr = np.full((NUM_AUS, 2), bias, np.float32)
    aus_lr[AuId.AU12.index] += smile
    aus_lr[AuId.AU45.index] = blink
    tokens = np.full((NUM_AUS, TOKEN_DIM), smile - 9 * (blink > 0.5), np.float32)
    tokens += rng.normal(scale=noise, size=tokens.shape).astype(np.float32)
    return Moment(time_s, tokens, aus_lr)


def test_activity_knows_no_blink_and_no_gaze() -> None:
    aus_lr = np.zeros((NUM_AUS, 2), np.float32)
    for au in (AuId.AU45, AuId.AU61, AuId.AU64):
        aus_lr[au.index] = 1.0
    assert activity(aus_lr) == 0.0
    aus_lr[AuId.AU12.index] = (0.2, 0.7)
    assert activity(aus_lr) == pytest.approx(0.7)


def test_calibration_is_not_moved_by_blinks_and_bad_frames() -> None:
    calibration = Calibration(10.0, 2.0)
    for number in range(60):
        time_s = 10 + number / 30
        blinks = number in range(20, 26)
        calibration.add(moment(time_s, blink=0.9 if blinks else 0.0, noise=0.05))
    calibration.add(Moment(12.0, np.full((NUM_AUS, TOKEN_DIM), 50, np.float32), moment(0).aus_lr))
    assert calibration.left_s(11.5) == pytest.approx(0.5)
    assert calibration.left_s(13.0) == 0.0
    neutral = calibration.finish()
    assert neutral.origin == "calibrated"
    assert np.abs(neutral.tokens).max() < 0.05


def test_calibration_takes_eyes_that_always_read_as_closed() -> None:
    calibration = Calibration(0.0, 2.0)
    for number in range(60):
        calibration.add(moment(number / 30, blink=0.8))
    np.testing.assert_allclose(calibration.finish().tokens, -9)


def test_error_calibration_without_rest() -> None:
    calibration = Calibration(0.0, 2.0)
    for number in range(60):
        calibration.add(moment(number / 30, smile=0.8 * (number % 4 > 1)))
    with pytest.raises(ExpressionError, match="the face moved; keep it relaxed"):
        calibration.finish()


def test_error_calibration_with_too_few_frames() -> None:
    calibration = Calibration(0.0, 2.0)
    for number in range(9):
        calibration.add(moment(number / 30))
    with pytest.raises(ExpressionError, match="seen in 9 frames only"):
        calibration.finish()


def test_search_finds_the_rest_between_smiles_and_gets_better() -> None:
    search = NeutralSearch(seconds=8.0)
    found: list[tuple[float, Neutral]] = []
    for number in range(400):
        time_s = number / 30
        # at first they laugh; later there are calm moments between words
        smile = 0.9 if time_s < 3 else 0.7 * float(np.sin(time_s * 4) > -0.6)
        answer = search.add(moment(time_s, smile=smile, blink=0.9 * (number % 90 < 5)))
        if answer is not None:
            found.append((time_s, answer))
    assert search.done
    first_s, first = found[0]
    last_s, last = found[-1]
    assert 1.5 <= first_s < 1.6
    assert first.origin == "found"
    np.testing.assert_allclose(first.tokens, 0.9, atol=0.01)
    assert 8.0 <= last_s < 8.6
    np.testing.assert_allclose(last.tokens, 0.0, atol=0.01)


def test_search_begins_again_when_time_runs_back() -> None:
    search = NeutralSearch()
    for number in range(40):
        search.add(moment(100 + number / 30, smile=0.5))
    found = [search.add(moment(number / 30)) for number in range(60)]
    answers = [f for f in found if f is not None]
    assert found[:40] == [None] * 40
    np.testing.assert_allclose(answers[0].tokens, 0.0)


def test_store_keeps_one_file_per_person_and_camera(tmp_path: Path) -> None:
    store = NeutralStore(tmp_path)
    one = Neutral(*_arrays(0.5))
    two = Neutral(*_arrays(0.25))
    assert store.load("Ada", "/dev/video0", "m" * 64) is None
    store.save(one, "Ada", "/dev/video0", "m" * 64)
    store.save(two, "Ada", "/dev/video1", "m" * 64)
    loaded = store.load("Ada", "/dev/video0", "m" * 64)
    assert loaded is not None
    assert loaded.origin == "stored"
    np.testing.assert_array_equal(loaded.tokens, one.tokens)
    store.save(two, "Ada", "/dev/video0", "m" * 64)
    again = store.load("Ada", "/dev/video0", "m" * 64)
    assert again is not None
    np.testing.assert_array_equal(again.tokens, two.tokens)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def _arrays(value: float) -> tuple[np.ndarray, np.ndarray, str]:
    made = moment(0.0, smile=value)
    return made.tokens, made.aus_lr, "calibrated"


def test_error_store_refuses_another_model_and_an_unwritable_folder(tmp_path: Path) -> None:
    store = NeutralStore(tmp_path / "a")
    store.save(Neutral(*_arrays(0.5)), "Ada", "0", "m" * 64)
    with pytest.raises(ExpressionFileError, match="made by model mmmm"):
        store.load("Ada", "0", "n" * 64)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be kept"):
        NeutralStore(tmp_path / "file").save(Neutral(*_arrays(0.5)), "Ada", "0", "m" * 64)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "..", "/", "a/b", "Zoë", "con:1"])
def test_file_names_stay_inside_and_apart(name: str, tmp_path: Path) -> None:
    path = NeutralStore(tmp_path).path(name, name)
    assert path.resolve().is_relative_to(tmp_path.resolve())
    assert len(path.relative_to(tmp_path).parts) == 2
    assert file_name("a/b") != file_name("a_b") != file_name("a:b")
