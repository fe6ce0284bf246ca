"""Things in front of a face: where they are, nothing moves, and nothing is fetched from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.fake_shards import write_fake_shard
from training.config import AugmentConfig
from training.data.dataset import BatchMaker, ShardSet
from training.data.occlude import KINDS, Occluder, draw_occluder, occlude

SKIN = np.array([200, 150, 120], np.float32)
TEXTURE = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_px", [64, 256])
def test_it_covers_part_of_the_lower_face_and_reaches_the_pictures_edge(
    kind: str, size_px: int
) -> None:
    for seed in range(8):
        drawn = draw_occluder(np.random.default_rng(seed), size_px, SKIN, TEXTURE, kind)
        assert drawn.rgb.shape == (size_px, size_px, 3)
        assert drawn.alpha.min() >= 0 and drawn.alpha.max() == pytest.approx(1.0, abs=1e-3)
        assert 0.01 < drawn.alpha.mean() < 0.5
        covered = drawn.alpha > 0.5
        assert not covered[: round(0.35 * size_px)].any()  # never the eyes
        edge = np.concatenate([covered[-1], covered[:, 0], covered[:, -1]])
        assert edge.any(), "it hangs in the air"


def test_a_hand_has_the_persons_skin_and_chance_repeats() -> None:
    one, two = (draw_occluder(np.random.default_rng(4), 128, SKIN, TEXTURE, "hand") for _ in "ab")
    np.testing.assert_array_equal(one.rgb, two.rgb)
    mean = one.rgb[one.alpha > 0.9].mean(0)
    assert np.abs(mean / mean.sum() - SKIN / SKIN.sum()).max() < 0.03


def test_over_paints_by_alpha_and_leaves_the_rest_bit_for_bit() -> None:
    alpha = np.zeros((8, 8), np.float32)
    alpha[0, 0], alpha[0, 1] = 1.0, 0.5
    picture = np.full((8, 8, 3), 100, np.uint8)
    out = Occluder(np.full((8, 8, 3), 200, np.float32), alpha).over(picture)
    assert out[0, 0, 0] == 200
    assert out[0, 1, 0] == 150
    assert (out[1:] == 100).all()


def test_behind_it_nothing_can_be_fetched_and_on_it_nothing_moves() -> None:
    size = 32
    alpha = np.zeros((size, size), np.float32)
    alpha[10:20, 10:20] = 1.0
    flow = np.zeros((4, 2, size, size), np.int16)
    flow[:, 0] = 5 * 64  # every pixel is fetched from five to the right
    raw = {
        "rgb": np.full((4, size, size, 3), 50, np.uint8), "flow": flow,
        "keep": np.full((4, size, size), 255, np.uint8),
        "shade": np.full((4, size, size), 140, np.uint8),
        "region": np.ones((4, size, size), np.uint8),
        "fields": np.ones((4, 16, 16, 3, 2, 2), np.int8),
    }  # fmt: skip
    occlude(raw, 1, Occluder(np.full((size, size, 3), 220, np.float32), alpha))
    for i in (2, 3):
        assert (raw["rgb"][i][10:20, 10:20] == 220).all()
        assert not raw["flow"][i][:, 10:20, 10:20].any()
        assert (raw["keep"][i][10:20, 10:20] == 255).all()
        assert (raw["shade"][i][10:20, 10:20] == 128).all()
        assert (raw["region"][i][10:20, 10:20] == 0).all()
        covered = slice(10 * 16 // size, 20 * 16 // size)
        assert not raw["fields"][i][covered, covered].any()
        assert (raw["fields"][i][: covered.start - 1] == 1).all()
        # five pixels left of it show what is behind it in the partner
        assert (raw["keep"][i][12:18, 5:9] == 0).all()
        assert (raw["keep"][i][12:18, 22:] == 255).all()
        assert raw["flow"][i][0, 0, 0] == 5 * 64
    assert (raw["rgb"][:2] == 50).all() and (raw["fields"][:2] == 1).all()
    assert (raw["keep"][:2] == 255).all()


def test_at_a_soft_edge_nothing_that_moves_is_fetched() -> None:
    size = 32
    alpha = np.zeros((size, size), np.float32)
    alpha[10:20, 10:20] = 1.0
    alpha[10:20, 9] = 0.3  # some of it shows here
    flow = np.zeros((4, 2, size, size), np.int16)
    flow[:, 0] = -5 * 64  # fetched from the left, where nothing is held up
    flow[:, :, 15:] = 0
    raw = {
        "rgb": np.full((4, size, size, 3), 50, np.uint8), "flow": flow,
        "keep": np.full((4, size, size), 255, np.uint8),
        "shade": np.full((4, size, size), 128, np.uint8),
        "region": np.ones((4, size, size), np.uint8),
    }  # fmt: skip
    occlude(raw, 0, Occluder(np.full((size, size, 3), 220, np.float32), alpha))
    assert (raw["keep"][0][11:15, 9] == 0).all()
    assert (raw["keep"][0][15:19, 9] == 255).all()  # and what stands still is fetched from itself
    assert (raw["keep"][0][11:15, 3] == 255).all()


def test_batches_hold_things_up_as_often_as_asked_and_shards_stay_as_they_are(
    tmp_path: Path,
) -> None:
    path = write_fake_shard(tmp_path / "s", quadruples=3, size_px=64)
    shards = ShardSet([path])
    before = np.array(shards.shards[0].arrays["rgb"])
    plain = {"flip": 0.0, "rotate_deg": 0.0, "scale": 0.0, "shift_px": 0.0, "bend_px": 0.0,
             "brightness": 0.0, "contrast": 0.0, "gamma": 0.0, "colour": 0.0, "mix_colours": 0.0,
             "degrade": 0.0}  # fmt: skip
    never = BatchMaker(shards, AugmentConfig(**plain), 0).batch(0, 3, 64)
    always = BatchMaker(shards, AugmentConfig(**plain, occlude=1.0), 0).batch(0, 3, 64)
    changed = (never.rgb - always.rgb).abs().amax((1, 2, 3))
    assert bool((changed > 0.05).all())
    # both pictures of a person have it at the same place
    still = (always.flow_xy == 0).all(1) & (always.region[:, 0] == 0)
    assert bool((still.flatten(1).sum(1) > 20).all())
    np.testing.assert_array_equal(before, shards.shards[0].arrays["rgb"])
    # and before pictures that are only read
    only = ShardSet(
        [write_fake_shard(tmp_path / "o", quadruples=3, size_px=64, pictures_only=True)]
    )
    never, always = (
        BatchMaker(only, AugmentConfig(**plain, occlude=chance), 0).batch(
            0, 3, 64, instructions=False
        )
        for chance in (0.0, 1.0)
    )
    assert bool(((never.rgb - always.rgb).abs().amax((1, 2, 3)) > 0.05).all())
