"""What benchmarks share: percentiles, bounds, frames, metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import common, schema
from rt_swap.errors import ConfigError
from rt_swap.model import load_bundle
from tests.support.tiny_model import tiny_bundle


def test_timing_summary_has_exactly_what_the_schema_wants() -> None:
    got = common.timing_summary([float(v) for v in range(100, 0, -1)])
    assert not schema.timing("x", got)
    assert (got["p50"], got["p99"]) == (51.0, 100.0)


def test_bound_is_met_at_the_limit() -> None:
    assert common.bound("x", 25.0, 25.0)["met"] is True
    assert common.bound("x", 25.001, 25.0)["met"] is False


def test_fit_keeps_the_shape_and_replicates_edges() -> None:
    tall = np.zeros((40, 20, 3), np.uint8)
    tall[:, :10] = 200
    got = common.fit(tall, (64, 32))
    assert got.shape == (32, 64, 3)
    # 16 px wide in the middle; the left half is bright, and so is all that lies left of it
    assert (got[:, :30] == 200).all()
    assert (got[:, 34:] == 0).all()


def test_moving_pictures_are_all_different_and_the_same_next_time() -> None:
    rng = np.random.default_rng(0)
    stills = [rng.integers(0, 255, (36, 64, 3)).astype(np.uint8) for _ in range(3)]
    first = list(common.moving_pictures(stills, 25))
    again = list(common.moving_pictures(stills, 25))
    assert len(first) == 25
    assert len({p.tobytes() for p in first}) == 25
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (36, 64, 3)
    assert all(p.flags.c_contiguous for p in first)


def test_pictures_without_shared_data_are_the_public_portrait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image")
    monkeypatch.setenv("RT_SWAP_DATA", str(tmp_path))
    got, shown = common.pictures(None, (320, 180))
    assert shown == "skimage.data.astronaut"
    assert [p.shape for p in got] == [(180, 320, 3)]


def test_metadata_names_no_path_and_is_json(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(tmp_path / "bundle"))
    about = common.metadata(bundle, "onnxruntime", 2)
    text = json.dumps(about, allow_nan=False)
    assert str(tmp_path) not in text
    assert str(common.CHECKOUT) not in text
    assert about["model"]["encoder_sha256"] == bundle.sha256
    assert about["packages"]["numpy"] == np.__version__


def test_write_result_folder_that_is_not_there(tmp_path: Path) -> None:
    from tests.benchmarks.test_schema import memory_document

    with pytest.raises(ConfigError, match="--json"):
        common.write_result(tmp_path / "none" / "out.json", memory_document())
