"""People who are lent the differences between others' shapes, by moving pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rt_swap.aus import NUM_AUS
from rt_swap.contract import NUM_LANDMARKS
from rt_swap.errors import ConfigError
from tests.support.fake_shards import write_fake_shard
from tests.support.symmetric_face import symmetric_face
from training.config import AugmentConfig
from training.data.correspond import mirror_landmarks
from training.data.dataset import BatchMaker, ShardSet
from training.data.layout import FIELDS_SIDE
from training.data.nudge import added
from training.data.reshape import FEWEST_PEOPLE, MODES, MOST_PX, Shapes, shapes_of, way_back

STILL = dict.fromkeys(
    ("flip", "rotate_deg", "scale", "shift_px", "bend_px", "degrade", "brightness", "contrast",
     "gamma", "colour", "mix_colours", "occlude"), 0.0,
)  # fmt: skip


def test_shapes_are_what_expressions_and_turns_do_not_explain() -> None:
    rng = np.random.default_rng(0)
    mean = symmetric_face(rng)
    mirrored = mirror_landmarks(mean)
    raw = rng.normal(size=(3, NUM_LANDMARKS, 2))
    other = raw[:, mirrored] * (-1, 1)
    alike, turn = (raw + other)[:2] / 2, (raw - other)[2] / 2
    people = 200
    weights = rng.normal(size=(people, 2)) * (3.0, 1.5)
    turned = rng.normal(size=people) * 4.0
    weights, turned = weights - weights.mean(0), turned - turned.mean()
    by_unit = rng.normal(size=(2 * NUM_AUS, NUM_LANDMARKS, 2)) * 3.0
    who = np.arange(people).repeat(6)
    aus = rng.random((len(who), NUM_AUS, 2)).astype(np.float32)
    points = mean + np.tensordot(weights, alike, 1)[who] + turned[who, None, None] * turn
    points += np.tensordot(aus.reshape(len(who), -1) - 0.5, by_unit, 1)
    points[7] = np.nan  # no face found
    got = shapes_of(points, aus, who).modes
    assert got.shape == (MODES, NUM_LANDMARKS, 2)
    np.testing.assert_allclose(got[:, mirrored] * (-1, 1), got, atol=1e-5)
    size = np.sqrt((got**2).sum((1, 2)))
    planted = weights.std(0) * np.sqrt((alike**2).sum((1, 2)))
    np.testing.assert_allclose(size[:2], planted, rtol=0.1)
    assert size[2] < 0.1 * size[1]
    flat, wanted = got[:2].reshape(2, -1), alike.reshape(2, -1)
    for mode in wanted:  # lies in the span of the two found
        part = np.linalg.lstsq(flat.T, mode, rcond=None)[0] @ flat
        assert part @ mode > 0.98 * (mode @ mode)


def test_too_few_people_have_no_shapes_to_lend() -> None:
    people = FEWEST_PEOPLE - 1
    points = np.zeros((people, NUM_LANDMARKS, 2))
    with pytest.raises(ConfigError, match=rf"at least {FEWEST_PEOPLE} people.*show {people}"):
        shapes_of(points, np.zeros((people, NUM_AUS, 2), np.float32), np.arange(people))


def test_draw_is_as_far_as_asked_for_and_never_too_far() -> None:
    modes = np.zeros((2, NUM_LANDMARKS, 2), np.float32)
    modes[0, :, 0], modes[1, 3, 1] = 1.0, 2.0
    drawn = np.stack([Shapes(modes).draw(np.random.default_rng(i), 0.5) for i in range(2000)])
    assert drawn[:, 0, 0].std() == pytest.approx(0.5, rel=0.1)
    assert drawn[:, 3, 1].std() == pytest.approx(1.0, rel=0.1)
    assert (drawn[:, 0, 1] == 0).all()
    far = np.stack([Shapes(modes).draw(np.random.default_rng(i), 50.0) for i in range(50)])
    longest = np.sqrt((far**2).sum(2)).max(1)
    assert longest.max() == pytest.approx(MOST_PX, rel=1e-5)
    # all of it is made smaller, not the longest ways alone
    np.testing.assert_allclose(far[:, 0, 0], far[:, 9, 0])


@pytest.mark.parametrize("full_px", [256, 512])
def test_what_moves_right_is_fetched_from_the_left(full_px: int) -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(90, 170, (NUM_LANDMARKS, 2)).astype(np.float32)
    way = np.broadcast_to(np.float32([4.0, -2.0]), points.shape)
    back = way_back(points, way, full_px)
    assert back.shape == (FIELDS_SIDE, FIELDS_SIDE, 2) and back.dtype == np.float32
    unit = full_px / 256
    inside = back[26:40, 26:40]
    np.testing.assert_allclose(
        inside, np.broadcast_to([-4 * unit, 2 * unit], inside.shape), rtol=0.1
    )
    assert np.abs(back[:8]).max() < 1e-3 and np.abs(back[:, -8:]).max() < 1e-3


def test_a_landmark_takes_its_pixels_with_it() -> None:
    grid = np.stack(np.meshgrid(np.linspace(60, 200, 22), np.linspace(60, 200, 22)), 2)
    points = grid.reshape(-1, 2)[:NUM_LANDMARKS].astype(np.float32)
    marked = int(np.square(points - (130, 120)).sum(1).argmin())
    bump = np.exp(-np.square(points - points[marked]).sum(1) / (2 * 25.0**2))
    way = (bump[:, None] * (6.0, 3.0)).astype(np.float32)
    at = np.arange(256, dtype=np.float32)
    maps = np.meshgrid(at, at)
    x, y = added((maps[0], maps[1]), way_back(points, way, 256), 256)
    gone = np.rint(points[marked] + way[marked] - 0.5).astype(int)
    # what is shown where the landmark went is what was where it was
    fetched = x[gone[1], gone[0]] + 0.5, y[gone[1], gone[0]] + 0.5
    np.testing.assert_allclose(fetched, points[marked], atol=1.0)


def test_reading_batches_alone_are_reshaped_alike_for_a_person_and_labels_stay(
    tmp_path: Path,
) -> None:
    shard = write_fake_shard(tmp_path / "shard_00000", quadruples=2, size_px=256)
    shards = ShardSet([shard])
    modes = np.zeros((1, NUM_LANDMARKS, 2), np.float32)
    modes[0, :, 0] = 8.0  # all to one side
    shapes = Shapes(modes)
    plain, lent = AugmentConfig(**STILL), AugmentConfig(reshape=1.0, **STILL)

    def batch(augment: AugmentConfig | None, given: Shapes | None, instructions: bool = False):
        maker = BatchMaker(shards, augment, 9, shapes=given)
        return maker.batch(0, 2, 256, instructions=instructions)

    before, after = batch(plain, shapes), batch(lent, shapes)
    assert torch.equal(before.aus_lr, after.aus_lr) and torch.equal(before.gains, after.gains)
    assert (before.look_rgb != after.look_rgb).flatten(1).any(1).all()
    for same in (batch(lent, None), batch(plain, shapes)):
        assert torch.equal(before.look_rgb, same.look_rgb)
    for augment, truth in ((lent, True), (None, False)):  # swaps, validation
        one, other = (batch(augment, given, truth) for given in (None, shapes))
        assert torch.equal(one.rgb, other.rgb)
    # both pictures of a person go the same way, and the two people different ones
    ways = []
    for now, then in zip(after.rgb[:4, :, 100:156], before.rgb[:4, :, 100:156], strict=True):
        off = [
            (now[..., 80:176] - then[..., 80 - d : 176 - d]).abs().mean() for d in range(-12, 13)
        ]
        ways.append(int(np.argmin(off)) - 12)
    assert ways[0] == ways[1] and ways[2] == ways[3] and ways[0] != ways[2]


def test_a_face_that_was_not_found_keeps_its_shape(tmp_path: Path) -> None:
    shard = write_fake_shard(tmp_path / "shard_00000", quadruples=1, size_px=64)
    landmarks = np.load(shard / "landmarks.npy")
    landmarks[:, 0] = np.nan
    np.save(shard / "landmarks.npy", landmarks)
    shapes = Shapes(np.full((1, NUM_LANDMARKS, 2), 5.0, np.float32))
    before, after = (
        BatchMaker(ShardSet([shard]), AugmentConfig(reshape=r, **STILL), 3, shapes=shapes).batch(
            0, 1, 64, instructions=False
        )
        for r in (0.0, 1.0)
    )
    assert torch.equal(before.look_rgb[0], after.look_rgb[0])
    assert not torch.equal(before.look_rgb[1], after.look_rgb[1])


def test_shards_without_landmarks_are_named(tmp_path: Path) -> None:
    write_fake_shard(tmp_path / "shard_00000", pictures_only=True)
    with pytest.raises(ConfigError, match=r"shard_00000.*python -m training\.data\.landmarks"):
        ShardSet([tmp_path]).shapes()


def test_shapes_of_shards_know_people_apart_and_the_crops_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(2):
        write_fake_shard(tmp_path / f"shard_{index:05d}", quadruples=2, size_px=64, seed=index)
    given = {}
    monkeypatch.setattr(
        "training.data.dataset.shapes_of",
        lambda points, aus, people: given.update(points=points, aus=aus, people=people),
    )
    shards = ShardSet([tmp_path])
    shards.shapes()
    assert given["people"].tolist() == [0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2
    raw = shards.shards[1].arrays
    np.testing.assert_allclose(given["points"][8:12], raw["landmarks"][0, ..., :2] * 4, rtol=1e-6)
    np.testing.assert_array_equal(given["aus"][8:12], raw["aus_lr"][0])
