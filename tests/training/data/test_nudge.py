"""Pictures with a little more or less of some units, made by moving pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rt_swap.aus import AUS, NUM_AUS, AuId
from tests.support.fake_shards import write_fake_shard
from training.config import AugmentConfig
from training.data import dataset
from training.data.dataset import BatchMaker, ShardSet
from training.data.layout import FIELDS_SIDE, NOTHING
from training.data.nudge import MOST_PX, NUDGED, added, draw_change, way_back

K12 = AuId.AU12.index


def even_fields(right_px: float, down_px: float) -> tuple[np.ndarray, np.ndarray]:
    """AU12's left side moves everything alike; the mesh ends below row 48."""
    steps = np.zeros((FIELDS_SIDE, FIELDS_SIDE, NUM_AUS, 2, 2), np.int8)
    steps[:, :, K12, 0] = 100 * np.sign([right_px, down_px])
    steps[:, :, K12, 0, 1] = round(100 * down_px / right_px)
    steps[48:] = NOTHING
    step_px = np.zeros((NUM_AUS, 2), np.float32)
    step_px[K12, 0] = right_px / 100
    return steps, step_px


@pytest.mark.parametrize("full_px", [256, 512])
def test_what_moves_right_is_fetched_from_the_left(full_px: int) -> None:
    change = np.zeros((NUM_AUS, 2), np.float32)
    change[K12] = 0.5, 0.9
    back, made = way_back(*even_fields(4.0, 2.0), change, full_px)
    np.testing.assert_array_equal(made, change)
    np.testing.assert_allclose(back[:47], np.broadcast_to([-2.0, -1.0], (47, 64, 2)), atol=1e-4)
    assert np.abs(back[56:]).max() < 0.05  # nothing moves far from the mesh
    assert (np.diff(np.abs(back[47:57, 30, 0])) <= 1e-6).all()  # and it fades on the way
    at = np.full((5, 5), 20.0, np.float32)
    x, y = added((at, at + 1), back, full_px)
    np.testing.assert_allclose(x, 18.0, atol=1e-4)
    np.testing.assert_allclose(y, 20.0, atol=1e-4)


def test_what_would_move_too_far_moves_less_and_says_so() -> None:
    change = np.zeros((NUM_AUS, 2), np.float32)
    change[K12] = 0.5, 0.2
    back, made = way_back(*even_fields(30.0, 1.0), change, 256)
    assert np.linalg.norm(back, axis=2).max() == pytest.approx(MOST_PX, rel=1e-3)
    np.testing.assert_allclose(made, change * (MOST_PX / 15.0), rtol=2e-3)


def test_changes_are_few_and_of_units_that_open_nothing() -> None:
    rng = np.random.default_rng(0)
    aus = rng.uniform(0, 1, (NUM_AUS, 2)).astype(np.float32)
    changes = np.stack([draw_change(aus, rng) for _ in range(400)])
    after = aus + changes
    assert after.min() >= 0 and after.max() <= 1
    moved = (changes != 0).any(2)
    assert 1 <= moved.sum(1).max() <= 5
    assert set(np.flatnonzero(moved.any(0))) == set(NUDGED)
    assert not {AUS[k].region for k in NUDGED} & {"gaze"}
    uneven = np.abs(changes[..., 0] - changes[..., 1])
    assert (uneven > 0.2).any()  # one side alone, too
    midline = [au.is_midline for au in AUS]
    equal = np.abs(aus[midline, 0] - aus[midline, 1]).max()
    assert equal > 0.1  # so that only the change is even, not what comes of it


def test_what_has_no_sides_is_changed_alike_and_a_jaw_goes_one_way() -> None:
    rng = np.random.default_rng(1)
    rest = np.zeros((NUM_AUS, 2), np.float32)
    changes = np.stack([draw_change(rest, rng) for _ in range(600)])
    midline = [au.is_midline for au in AUS]
    np.testing.assert_array_equal(changes[:, midline, 0], changes[:, midline, 1])
    assert changes[:, midline].any()
    jaw = changes[:, AuId.AU30.index] != 0
    assert jaw.any(0).all() and not jaw.all(1).any()
    gone = rest.copy()
    gone[AuId.AU30.index] = 0.3, 0.0
    changes = np.stack([draw_change(gone, rng) for _ in range(300)])[:, AuId.AU30.index]
    assert changes[:, 0].any() and not changes[:, 1].any()


def test_reading_batches_alone_are_nudged_and_their_labels_follow(tmp_path: Path) -> None:
    shards = ShardSet([write_fake_shard(tmp_path / "shard_00000", size_px=64)])
    plain, nudging = AugmentConfig(), AugmentConfig(nudge=1.0)
    for fields, instructions in ((True, True), (False, False)):
        one, other = (
            BatchMaker(shards, augment, 3, fields=fields).batch(0, 2, 64, instructions=instructions)
            for augment in (plain, nudging)
        )
        assert torch.equal(one.look_rgb, other.look_rgb) and torch.equal(one.aus_lr, other.aus_lr)
    one, other = (
        BatchMaker(shards, augment, 3, fields=True).batch(0, 2, 64, instructions=False)
        for augment in (plain, nudging)
    )
    change = (other.aus_lr - one.aus_lr).numpy()
    changed = np.abs(change).max(2) > 0
    assert changed.any(1).all() and set(np.flatnonzero(changed.any(0))) <= set(NUDGED)
    assert (one.look_rgb != other.look_rgb).flatten(1).any(1).all()
    assert np.isfinite(other.look_rgb.numpy()).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_labels_change_on_the_side_that_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip: float
) -> None:
    """AU12's left side moves everything right; in the mirror its right side moves it left."""
    shard = write_fake_shard(tmp_path / "shard_00000", size_px=256)
    steps, step_px = even_fields(8.0, 0.0)
    steps[:] = steps[0, 0]
    np.save(shard / "fields.npy", np.broadcast_to(steps, (3, 4, *steps.shape)))
    np.save(shard / "step_px.npy", np.broadcast_to(step_px, (3, 4, *step_px.shape)))
    aus = np.load(shard / "aus_lr.npy")
    aus[:, :, K12] = 0.0
    np.save(shard / "aus_lr.npy", aus)
    change = np.zeros((NUM_AUS, 2), np.float32)
    change[K12, 0] = 0.5
    monkeypatch.setattr(dataset, "draw_change", lambda *_: change)
    still = dict.fromkeys(
        ("rotate_deg", "scale", "shift_px", "bend_px", "degrade", "brightness", "contrast",
         "gamma", "colour", "mix_colours"), 0.0,
    )  # fmt: skip
    one, other = (
        BatchMaker(
            ShardSet([shard]), AugmentConfig(flip=flip, nudge=p, **still), 3, fields=True
        ).batch(0, 1, 256, instructions=False)
        for p in (0.0, 1.0)
    )
    side = int(flip)
    want = np.zeros((4, NUM_AUS, 2), np.float32)
    want[:, K12, side] = 0.5
    np.testing.assert_allclose((other.aus_lr - one.aus_lr).numpy(), want, atol=1e-6)
    way = -4 if flip else 4
    torch.testing.assert_close(
        other.rgb[..., 8:-8], one.rgb.roll(way, 3)[..., 8:-8], atol=0.02, rtol=0
    )
