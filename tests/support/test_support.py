"""The helpers that other tests lean on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import data
from tests.support.tolerance import assert_compose_close


def test_shared_data_dir_follows_the_environment(monkeypatch, tmp_path):
    (tmp_path / "clips").mkdir()
    monkeypatch.setenv(data.ENV_NAME, str(tmp_path))
    assert data.shared_data_dir() == tmp_path
    assert data.shared_data_dir("clips") == tmp_path / "clips"
    with pytest.raises(pytest.skip.Exception, match="needs portraits/lisa in the shared data"):
        data.shared_data_dir("portraits", "lisa")


def test_shared_data_dir_that_is_named_but_missing_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv(data.ENV_NAME, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        data.shared_data_dir()


def test_shared_data_dir_skips_where_there_is_none(monkeypatch, tmp_path):
    monkeypatch.delenv(data.ENV_NAME, raising=False)
    monkeypatch.setattr(data, "CHECKOUT", tmp_path / "checkout")
    with pytest.raises(pytest.skip.Exception, match="needs the shared data: set RT_SWAP_DATA"):
        data.shared_data_dir()


def test_compose_tolerance_lets_one_level_through_but_not_two_nor_many():
    frame = np.full((40, 50, 3), 100, np.uint8)
    near = frame.copy()
    near[3, 4, 1] += 1
    assert_compose_close(near, frame)
    far = frame.copy()
    far[3, 4, 1] += 2
    with pytest.raises(AssertionError, match="off by 2 levels"):
        assert_compose_close(far, frame)
    with pytest.raises(AssertionError, match="one level off"):
        assert_compose_close(frame + np.uint8(1), frame)


def test_random_numbers_are_seeded(rng):
    # np.random.default_rng(20211).integers(0, 1000, 3)
    assert (
        rng.integers(0, 1000, 3).tolist()
        == np.random.default_rng(20211).integers(0, 1000, 3).tolist()
    )
