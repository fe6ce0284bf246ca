"""The shard reader and what it makes of a quadruple."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.errors import ConfigError, ContractError
from tests.support.fake_shards import write_fake_shard
from training.compose import compose
from training.config import LOOK_XYXY, AugmentConfig
from training.data.dataset import (
    DONOR,
    DONOR_BASE,
    PARTNER,
    BatchMaker,
    Geometry,
    ShardSet,
    fields_of,
    find_shards,
    mirror_aus,
    open_shard,
)
from training.data.split import is_held_out, split_of
from training.networks.encoder import look

PLAIN_COLOURS: dict[str, float] = dict.fromkeys(
    ("brightness", "contrast", "gamma", "colour", "mix_colours"), 0.0
)
STILL = AugmentConfig(
    flip=0.0,
    rotate_deg=0.0,
    scale=0.0,
    shift_px=0.0,
    bend_px=0.0,
    degrade=0.0,
    **PLAIN_COLOURS,
)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=3, size_px=64)


def edit_meta(shard: Path, **changes: object) -> None:
    path = shard / "shard.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_opens_a_folder_of_shards_or_one_shard(shard: Path) -> None:
    write_fake_shard(shard.parent / "shard_00001", quadruples=2, size_px=64, seed=1)
    assert find_shards([shard.parent]) == [shard, shard.parent / "shard_00001"]
    both = ShardSet([shard.parent])
    assert (len(both), both.real_count, both.size_px) == (5, 8, 64)
    assert len(ShardSet([shard])) == 3
    second = open_shard(shard.parent / "shard_00001")
    np.testing.assert_array_equal(both.quadruple(4)["rgb"], second.arrays["rgb"][1])
    np.testing.assert_array_equal(both.real(5), second.arrays["real"][1])


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no shard and holds no shard_\*"):
        ShardSet([tmp_path])


def test_missing_file_is_named(shard: Path) -> None:
    (shard / "keep.npy").unlink()
    with pytest.raises(ConfigError, match=r"keep\.npy"):
        open_shard(shard)


def test_pickled_array_is_refused(shard: Path) -> None:
    np.save(shard / "keep.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match="cannot be read as a training shard"):
        open_shard(shard)


def test_other_format_is_refused(shard: Path) -> None:
    edit_meta(shard, format=1)
    with pytest.raises(ConfigError, match="has format 1, this reader takes 3"):
        open_shard(shard)


def test_other_order_of_aus_is_refused(shard: Path) -> None:
    edit_meta(shard, aus=json.loads((shard / "shard.json").read_text())["aus"][::-1])
    with pytest.raises(ContractError, match=r"AUs of .* are not"):
        open_shard(shard)


def test_all_wrong_arrays_are_listed(shard: Path) -> None:
    np.save(shard / "flow.npy", np.zeros((3, 4, 2, 64, 64), np.float32))
    np.save(shard / "keep.npy", np.zeros((3, 4, 32, 64), np.uint8))
    with pytest.raises(
        ContractError, match=r"flow: expected int16 .* got float32 .*; keep: expected uint8"
    ):
        open_shard(shard)


def test_shards_of_different_sizes_are_refused(shard: Path) -> None:
    write_fake_shard(shard.parent / "shard_00001", size_px=32)
    with pytest.raises(ConfigError, match=r"different sizes \[32, 64\]"):
        ShardSet([shard.parent])


def test_unaugmented_batch_is_the_shard(shard: Path) -> None:
    data = ShardSet([shard])
    batch = BatchMaker(data, None, 0).batch(0, 3, 64)
    raw = open_shard(shard).arrays
    rgb = torch.from_numpy(np.array(raw["rgb"])).reshape(12, 64, 64, 3).permute(0, 3, 1, 2) / 255.0
    torch.testing.assert_close(batch.rgb, rgb)
    torch.testing.assert_close(batch.look_rgb, look(batch.rgb), atol=1.01 / 255, rtol=0)
    assert batch.flow_xy[1, :, 5, 5].tolist() == [3.0, -2.0]
    assert batch.flow_xy[2, :, 5, 5].tolist() == [-3.0, 2.0]
    assert batch.shade_log2.unique().tolist() == [0.5]  # 2 ** ((160 - 128) / 64)
    np.testing.assert_array_equal(
        batch.region[:, 0].numpy(), np.array(raw["region"]).reshape(12, 64, 64)
    )
    np.testing.assert_array_equal(
        batch.aus_lr.numpy(), np.array(raw["aus_lr"]).reshape(12, NUM_AUS, 2)
    )


def test_half_size_averages_2x2_and_halves_flow(shard: Path) -> None:
    batch = BatchMaker(ShardSet([shard]), None, 0).batch(0, 1, 32)
    raw = np.array(open_shard(shard).arrays["rgb"][0], np.float32)
    mean = raw.reshape(4, 32, 2, 32, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(batch.rgb.numpy(), mean, atol=0.51 / 255)
    assert batch.flow_xy[1, :, 5, 5].tolist() == [1.5, -1.0]


def test_size_that_does_not_divide_is_refused(shard: Path) -> None:
    with pytest.raises(ConfigError, match="48 px does not divide"):
        BatchMaker(ShardSet([shard]), None, 0).batch(0, 1, 48)


@pytest.mark.parametrize(
    "augment",
    [
        STILL,
        AugmentConfig(flip=1.0, degrade=0.0, **PLAIN_COLOURS),
        AugmentConfig(flip=0.0, degrade=0.0, **PLAIN_COLOURS),
        AugmentConfig(flip=0.0, degrade=0.0, bend_px=6.0, **PLAIN_COLOURS),
    ],
    ids=["still", "mirrored", "moved", "bent"],
)
@pytest.mark.parametrize("size_px", [64, 32])
def test_convention_flow_leads_from_partner_to_picture_after_any_augmentation(
    tmp_path: Path, augment: AugmentConfig, size_px: int
) -> None:
    """Warping the partner by the flow gives the picture: units, mirror and rotation of flow
    agree with the pixels.
    """
    path = write_fake_shard(tmp_path / "s", quadruples=2, size_px=64, seed=3)
    # smooth pictures, so that resampling twice costs little
    xs, ys = np.meshgrid(np.arange(64), np.arange(64))
    rgb = np.array(np.load(path / "rgb.npy"))
    for moved in (0, 1):
        x, y = xs + 3 * moved, ys - 2 * moved
        wave = np.stack([np.sin(x / 7), np.cos(y / 6), np.sin((x + 2 * y) / 11)], -1)
        rgb[:, moved::2] = (127 + 100 * wave).astype(np.uint8)
    np.save(path / "rgb.npy", rgb)
    batch = BatchMaker(ShardSet([path]), augment, 5).batch(0, 2, size_px)
    partner = torch.arange(8).reshape(2, 4)[:, list(PARTNER)].reshape(-1)
    out = compose(batch.rgb[partner], batch.flow_xy, torch.ones_like(batch.keep), batch.rgb)
    inner = slice(size_px // 4, -(size_px // 4))
    error = (out - batch.rgb)[:, :, inner, inner].abs()
    unmoved = (batch.rgb[partner] - batch.rgb)[:, :, inner, inner].abs()
    assert float(error.mean()) < 0.01 < 0.05 < float(unmoved.mean())


@pytest.mark.parametrize(
    "augment",
    [
        STILL,
        AugmentConfig(flip=1.0, degrade=0.0, bend_px=0.0),
        AugmentConfig(flip=0.5, degrade=0.0, bend_px=6.0),
    ],
    ids=["still", "mirrored", "bent"],
)
@pytest.mark.parametrize("size_px", [64, 32])
def test_convention_fields_of_units_add_up_to_the_flow(
    shard: Path, augment: AugmentConfig, size_px: int
) -> None:
    """Weighed by the partner's intensities less the picture's own; whatever the augmentation."""
    batch = BatchMaker(ShardSet([shard]), augment, 5, fields=True).batch(0, 3, size_px)
    rows = batch.fields_row
    assert batch.fields.shape == (6, 2 * NUM_AUS, 2, 48, 44) and batch.fields_seen.any()
    assert (rows // 2).tolist() == [0, 1, 2, 3, 4, 5]  # one picture of each person
    partner = rows // 4 * 4 + torch.tensor(PARTNER)[rows % 4]
    change = (batch.aus_lr[partner] - batch.aus_lr[rows]).flatten(1)
    added = (batch.fields * change[:, :, None, None, None]).sum(1)
    x0, y0, x1, y1 = (v // 4 for v in LOOK_XYXY)
    flow = torch.nn.functional.interpolate(batch.flow_xy[rows], size=(64, 64), mode="bilinear")
    flow = flow[:, :, y0:y1, x0:x1] * (256 / size_px)
    seen = batch.fields_seen.expand_as(flow).clone()
    seen[:, :, -2:] = False  # beside the fake's edge flow falls to 0
    torch.testing.assert_close(added[seen], flow[seen], atol=0.4, rtol=0.02)
    assert float(flow[seen].abs().mean()) > 4  # 3 and 2 px of 64 are 12 and 8 of 256
    # where the mesh is not, nothing is said
    assert not batch.fields_seen.all()
    assert not batch.fields[
        ~batch.fields_seen.expand(-1, 2, -1, -1)[:, None].expand_as(batch.fields)
    ].any()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (3.0, -5.0)])
def test_fields_are_read_where_the_picture_comes_from(
    mirrored: bool, shift_px: tuple[float, float]
) -> None:
    """Fields that tell their own place in the shard's picture, differently in x and y."""
    middle = (np.arange(64) + 0.5) * 4  # of each cell, pixels
    steps = np.zeros((4, 64, 64, NUM_AUS, 2, 2), np.int8)
    steps[0, ..., 0, 0, 0] = middle[None, :] - 128  # a unit's left side moves by half of x
    steps[0, ..., 0, 1, 0] = (middle[:, None] - 128) / 2  # its right side by a quarter of y
    raw = {"fields": steps, "step_px": np.full((4, NUM_AUS, 2), 0.5, np.float32)}
    turn = np.diag([-1.0 if mirrored else 1.0, 1.0])
    geometry = Geometry(256, turn, np.array(shift_px), None)
    fields, seen = fields_of(raw, 0, geometry, mirrored)
    x0, y0, x1, y1 = (v // 4 for v in LOOK_XYXY)
    x = (middle[x0:x1] - 128) * turn[0, 0] + shift_px[0]
    y = middle[y0:y1] - 128 + shift_px[1]
    left, right = (1, 0) if mirrored else (0, 1)
    want = np.broadcast_to(x / 2 * turn[0, 0], fields.shape[2:])
    np.testing.assert_allclose(fields[left, 0], want, atol=0.4)  # a cell is 2
    np.testing.assert_allclose(
        fields[right, 0], np.broadcast_to((y / 4 * turn[0, 0])[:, None], want.shape), atol=0.4
    )
    assert seen.all() and not fields[2:].any() and not fields[:, 1].any()


def test_fields_come_only_when_wanted_and_change_nothing_else(shard: Path) -> None:
    shards, occluding = ShardSet([shard]), AugmentConfig(occlude=1.0)
    plain = BatchMaker(shards, occluding, 5).batch(0, 2, 64)
    wanted = BatchMaker(shards, occluding, 5, fields=True).batch(0, 2, 64)
    assert len(plain.fields) == len(plain.fields_row) == 0 and len(wanted.fields) == 4
    for name in ("rgb", "look_rgb", "flow_xy", "keep", "region", "aus_lr"):
        assert torch.equal(getattr(plain, name), getattr(wanted, name)), name


def test_shards_without_fields_of_units_still_make_batches(shard: Path) -> None:
    for stem in ("fields", "step_px"):
        (shard / f"{stem}.npy").unlink()
    shards = ShardSet([shard])
    assert shards.without_fields == [shard]
    batch = BatchMaker(shards, STILL, 5, fields=True).batch(0, 1, 64)
    assert len(batch.fields) == len(batch.fields_row) == 0 and len(batch.rgb) == 4


def test_mirror_swaps_sides_and_gaze() -> None:
    aus = np.zeros((NUM_AUS, 2), np.float32)
    aus[AuId.AU12.index] = 0.9, 0.1
    aus[AuId.AU30.index] = 0.0, 0.7
    aus[AuId.AU61.index] = 0.4, 0.3
    got = mirror_aus(aus)
    assert got[AuId.AU12.index].tolist() == pytest.approx([0.1, 0.9])
    assert got[AuId.AU30.index].tolist() == pytest.approx([0.7, 0.0])
    assert got[AuId.AU62.index].tolist() == pytest.approx([0.3, 0.4])
    assert got[AuId.AU61.index].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(mirror_aus(got), aus)
    gains = np.zeros(NUM_AUS, np.float32)
    gains[AuId.AU61.index] = 1
    assert mirror_aus(gains).nonzero()[0].tolist() == [AuId.AU62.index]


def test_mirrored_batch_mirrors_labels_and_gains_together(shard: Path) -> None:
    """The quadruple's own rule, m = a + g (b - a), still holds in the mirror."""
    mirrored = AugmentConfig(**{**vars(STILL), "flip": 1.0})
    batch = BatchMaker(ShardSet([shard]), mirrored, 0).batch(0, 3, 64)
    a, m, b, _ = batch.aus_lr.reshape(3, 4, NUM_AUS, 2).unbind(1)
    torch.testing.assert_close(m, a + batch.gains[:, :, None] * (b - a))
    raw = BatchMaker(ShardSet([shard]), STILL, 0).batch(0, 3, 64)
    torch.testing.assert_close(batch.rgb, raw.rgb.flip(3))
    torch.testing.assert_close(batch.flow_xy[:, 0], -raw.flow_xy[:, 0].flip(2))
    assert torch.equal(batch.region, raw.region.flip(3))


def test_target_and_truth_share_their_colours_and_the_source_has_its_own(shard: Path) -> None:
    data = ShardSet([shard])
    colours = AugmentConfig(**{**vars(STILL), "brightness": 0.3, "colour": 0.3})
    plain, varied = (
        BatchMaker(data, augment, 1).batch(0, 1, 64).rgb for augment in (STILL, colours)
    )
    table: dict[float, float] = {}
    for i in (0, 1):
        for before, after in zip(
            plain[i, 0].flatten().tolist(), varied[i, 0].flatten().tolist(), strict=True
        ):
            assert table.setdefault(before, after) == after
    other = [
        after
        for before, after in zip(
            plain[2, 0].flatten().tolist(), varied[2, 0].flatten().tolist(), strict=True
        )
        if before in table and table[before] != after
    ]
    assert other


def test_only_what_the_encoder_sees_is_degraded(shard: Path) -> None:
    data = ShardSet([shard])
    degraded = AugmentConfig(**{**vars(STILL), "degrade": 1.0})
    clean, seen = (BatchMaker(data, x, 0).batch(0, 3, 64) for x in (STILL, degraded))
    assert torch.equal(clean.rgb, seen.rgb)
    assert bool((seen.look_rgb != clean.look_rgb).flatten(1).any(1).all())


def test_close_look_is_the_face_at_full_size_and_degraded_alike(tmp_path: Path) -> None:
    path = write_fake_shard(tmp_path / "s", quadruples=1, size_px=256, seed=1)
    plain = BatchMaker(ShardSet([path]), None, 0).batch(0, 1, 128)
    raw = torch.from_numpy(np.array(np.load(path / "rgb.npy")[0])).permute(0, 3, 1, 2) / 255.0
    x0, y0, x1, y1 = LOOK_XYXY
    assert torch.equal(plain.look_rgb, raw[:, :, y0:y1, x0:x1])
    torch.testing.assert_close(look(raw), plain.look_rgb)
    degraded = AugmentConfig(**{**vars(STILL), "degrade": 1.0})
    seen = BatchMaker(ShardSet([path]), degraded, 0).batch(0, 1, 128)
    assert bool((seen.look_rgb != plain.look_rgb).flatten(1).any(1).all())
    assert torch.equal(seen.rgb, plain.rgb)


def test_batch_without_instructions_shows_the_same_pictures(shard: Path) -> None:
    maker = BatchMaker(ShardSet([shard]), AugmentConfig(), 3)
    whole, bare = (maker.batch(2, 2, 64, instructions=flag) for flag in (True, False))
    for name in ("rgb", "look_rgb", "aus_lr", "gains"):
        assert torch.equal(getattr(whole, name), getattr(bare, name)), name
    assert bare.flow_xy.shape == (8, 2, 0, 0)
    assert bare.real_rgb.shape[0] == 0


def test_batch_without_real_crops_is_otherwise_the_same(shard: Path) -> None:
    maker = BatchMaker(ShardSet([shard]), AugmentConfig(), 3)
    whole, bare = (maker.batch(2, 2, 64, real=flag) for flag in (True, False))
    assert len(whole.real_rgb) == 4
    assert len(bare.real_rgb) == 0
    for name in set(vars(whole)) - {"real_rgb"}:
        assert torch.equal(getattr(whole, name), getattr(bare, name)), name


def test_bend_changes_what_a_face_looks_like_and_both_pictures_alike(tmp_path: Path) -> None:
    path = write_fake_shard(tmp_path / "s", quadruples=1, size_px=64, seed=1)
    same = np.array(np.load(path / "rgb.npy"))
    same[:, 1], same[:, 3] = same[:, 0], same[:, 2]
    np.save(path / "rgb.npy", same)
    bent = AugmentConfig(**{**vars(STILL), "bend_px": 8.0})
    rgb = BatchMaker(ShardSet([path]), bent, 0).batch(0, 1, 64).rgb
    assert torch.equal(rgb[0], rgb[1])
    assert torch.equal(rgb[2], rgb[3])
    assert (rgb[0] - BatchMaker(ShardSet([path]), STILL, 0).batch(0, 1, 64).rgb[0]).abs().max() > 0


def test_batches_depend_on_seed_and_cursor_alone(shard: Path) -> None:
    data, augment = ShardSet([shard]), AugmentConfig()
    a, b = BatchMaker(data, augment, 7), BatchMaker(data, augment, 7)
    b.batch(9, 1, 64)
    assert torch.equal(a.batch(4, 2, 64).look_rgb, b.batch(4, 2, 64).look_rgb)
    assert not torch.equal(a.batch(4, 2, 64).rgb, BatchMaker(data, augment, 8).batch(4, 2, 64).rgb)
    order = [a.index_at(cursor) for cursor in range(12)]
    assert all(sorted(order[i : i + 3]) == [0, 1, 2] for i in range(0, 12, 3))


def test_donor_and_base_tables_fit_the_quadruples_rule(shard: Path) -> None:
    """Swapping in the donor's AUs gives the partner's; the donor's base shows the picture's
    own, where gains are 1.
    """
    batch = BatchMaker(ShardSet([shard]), None, 0).batch(0, 3, 64)
    aus, g = batch.aus_lr.reshape(3, 4, NUM_AUS, 2), batch.gains[:, None, :, None]
    torch.testing.assert_close(aus + g * (aus[:, list(DONOR)] - aus), aus[:, list(PARTNER)])
    relative = aus + g * (aus[:, list(DONOR)] - aus[:, list(DONOR_BASE)])
    torch.testing.assert_close(relative, aus[:, list(PARTNER)])


def test_positive_rates_count_the_larger_side(shard: Path) -> None:
    aus = np.zeros((3, 4, NUM_AUS, 2), np.float32)
    aus[:, :2, 0, 1] = 0.5
    np.save(shard / "aus_lr.npy", aus)
    rates = ShardSet([shard]).positive_rates(0.2)
    assert rates[0] == pytest.approx(0.5)
    assert rates[1] == pytest.approx(0.02)


def test_golden_split_holds_out_one_in_ten() -> None:
    # python -c "import hashlib; print([p for p in range(60) if
    # int(hashlib.sha256(f'london/{p:03d}'.encode())
    #            .hexdigest(), 16) % 10 == 0])"
    held = [p for p in range(60) if is_held_out("london", f"{p:03d}")]
    assert held == [0, 16, 25, 27, 56]
    share = sum(is_held_out("d", str(i)) for i in range(4000)) / 4000
    assert 0.08 < share < 0.12


def test_golden_split_halves_the_held_out() -> None:
    # the same hash: (hash // 10) % 2 of those held out above
    held = {p: split_of("london", f"{p:03d}") for p in (0, 16, 25, 27, 56)}
    assert held == {0: "val", 16: "val", 25: "test", 27: "test", 56: "test"}
    splits = [split_of("d", str(i)) for i in range(4000)]
    assert 0.35 < splits.count("test") / (4000 - splits.count("train")) < 0.65
