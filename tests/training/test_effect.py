"""The metric of what AUs do to the picture, against shards whose flow is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rt_swap.aus import AUS, NUM_AUS, AuId
from tests.support.fake_shards import write_fake_shard
from training.data.dataset import FLOW_UNITS_PER_PX, ShardSet
from training.data.effect import effect_factor


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """AU26's left side moves the whole picture by 3 px per unit, AU12's by 1, the rest nothing."""
    shard = write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=90, size_px=64)
    rng = np.random.default_rng(0)
    aus = rng.random((90, 4, NUM_AUS, 2), np.float32)
    flow = np.zeros((90, 4, 2, 64, 64), np.int16)
    for into, partner in ((0, 1), (1, 0), (2, 3), (3, 2)):
        change = aus[:, partner, :, 0] - aus[:, into, :, 0]
        by = 3 * change[:, AuId.AU26.index] + change[:, AuId.AU12.index]
        flow[:, into, 1] = np.rint(by * FLOW_UNITS_PER_PX)[:, None, None]
    np.save(shard / "aus_lr.npy", aus)
    np.save(shard / "flow.npy", flow)
    keep = np.full_like(np.load(shard / "keep.npy"), 255)
    keep[..., :32] = 0  # half of the picture is hidden, and does not count
    np.save(shard / "keep.npy", keep)
    assert json.loads((shard / "shard.json").read_text())["quadruples"] == 90
    return shard


def test_effect_factor_recovers_who_moves_what(shard: Path) -> None:
    factor = effect_factor(ShardSet([shard]))
    assert factor.shape == (2 * NUM_AUS, 2 * NUM_AUS)
    assert (np.triu(factor, 1) == 0).all()
    metric = factor @ factor.T
    floor = {au.id: {"eyes": 0.4, "gaze": 0.3, "brows": 0.15}.get(au.region, 0.1) for au in AUS}
    jaw, smile, brow = (2 * a.index for a in (AuId.AU26, AuId.AU12, AuId.AU1))
    # squared effects 9 and 1 of 10 in all, scaled to a mean of 1 over 54
    assert metric[jaw, jaw] == pytest.approx(54 * 0.9 + floor[AuId.AU26], rel=0.05)
    assert metric[smile, smile] == pytest.approx(54 * 0.1 + floor[AuId.AU12], rel=0.05)
    assert metric[jaw, smile] == pytest.approx(54 * 0.3, rel=0.05)
    assert metric[brow, brow] == pytest.approx(floor[AuId.AU1], abs=0.05)
