"""Motion drawn from landmarks, and where landmarks come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.contract import NUM_LANDMARKS, some_landmarks
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import TrackedFace
from tests.support.fake_shards import write_fake_shard
from tests.training.test_loop import run, shards  # noqa: F401
from training.checkpoint import latest_checkpoint, load_net
from training.config import AugmentConfig, get_config
from training.data import dataset, landmarks
from training.data.correspond import MIDDLE_LANDMARKS, mirror_landmarks
from training.data.dataset import BatchMaker, Geometry, ShardSet
from training.networks import build
from training.networks.mesh import ANCHORS, NOSE_BASE, NUM_POINTS, FaceMesh
from training.objective import moved_points

SMOKE = get_config("smoke")
MESHED = replace(SMOKE, network=replace(SMOKE.network, mesh_features=4))
PX_PER_UNIT = 10.0
X, Y = 0, 4
"""Of a pose's six numbers those that are a face's that looks ahead."""


def known() -> dict[str, torch.Tensor]:
    """A face that looks ahead whatever its landmarks, of points four pixels wide."""
    bias = torch.zeros(6)
    bias[X], bias[Y] = PX_PER_UNIT, -PX_PER_UNIT
    return {
        "mean_xy": torch.from_numpy(some_landmarks()[0]),
        "offset": torch.zeros(NUM_POINTS, 3),
        "by_unit": torch.zeros(2 * NUM_AUS, NUM_POINTS, 3),
        "pose.weight": torch.zeros(6, 2 * NUM_LANDMARKS),
        "pose.bias": bias,
        "log_width": torch.full((NUM_POINTS,), float(np.log(4.0))),
    }


def mesh_of(**given: torch.Tensor) -> FaceMesh:
    torch.manual_seed(0)
    mesh = FaceMesh(MESHED.network)
    mesh.wear(**{**known(), **given})
    return mesh.eval()


def change_of(au: AuId, left: float, right: float = 0.0) -> torch.Tensor:
    change = torch.zeros(1, 2 * NUM_AUS)
    change[0, 2 * au.index], change[0, 2 * au.index + 1] = left, right
    return change


def at(maps: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Of a quarter-size map of the look what it says at a pixel of the crop."""
    return maps[0, :, int((y - 44) // 4), int((x - 40) // 4)]


@torch.no_grad()
def test_a_point_is_looked_up_where_it_has_gone() -> None:
    by_unit = known()["by_unit"]
    # to the person's left, which is right in the picture, and up
    by_unit[2 * AuId.AU26.index, :, 0], by_unit[2 * AuId.AU26.index, :, 1] = 1.0, 2.0
    mesh = mesh_of(by_unit=by_unit)
    points = torch.full((1, NUM_LANDMARKS, 2), -500.0)  # far away but for one
    points[0, 7] = torch.tensor([122.0, 142.0])
    moved, features, gone_xy = mesh(points, change_of(AuId.AU26, 0.8))
    assert moved.shape == (1, 3, 48, 44) and features.shape == (1, 5, 48, 44)
    assert gone_xy.shape == points.shape
    torch.testing.assert_close(gone_xy[0, 7], torch.tensor([130.0, 126.0]))
    torch.testing.assert_close(gone_xy[0, 6], points[0, 6] + torch.tensor([8.0, -16.0]))
    # what is shown at (130, 126) came from 8 px to the left and 16 px below
    torch.testing.assert_close(
        at(moved, 130, 126)[:2], torch.tensor([-8.0, 16.0]), rtol=0.02, atol=0
    )
    torch.testing.assert_close(
        at(features, 130, 126)[1:], mesh.features[:, 7], rtol=0.02, atol=0.02
    )
    assert at(features, 130, 126)[0] > 0.45
    # and where nothing is near, nothing moves
    assert at(moved, 60, 60).abs().max() < 1e-3 and at(features, 60, 60)[0] < 1e-3


@torch.no_grad()
def test_no_change_moves_nothing_and_shade_is_the_points() -> None:
    by_unit = torch.randn(2 * NUM_AUS, NUM_POINTS, 3)
    mesh = mesh_of(by_unit=by_unit)
    points = torch.from_numpy(some_landmarks())
    assert torch.equal(mesh(points, torch.zeros(1, 2 * NUM_AUS))[0], torch.zeros(1, 3, 48, 44))
    mesh = mesh_of()
    mesh.shade_by_unit[2 * AuId.AU4.index] = -0.5
    moved, _, _ = mesh(points, change_of(AuId.AU4, 1.0))
    middle = moved[0, 2, 18:30, 16:28]
    torch.testing.assert_close(middle, torch.full_like(middle, -0.5), atol=0.03, rtol=0)


@torch.no_grad()
def test_between_points_motion_is_their_mean_and_head_turns_are_heard() -> None:
    by_unit = known()["by_unit"]
    unit = 2 * AuId.AU12.index
    anchors = torch.tensor(ANCHORS)
    by_unit[unit, anchors == 7, 0] = 0.6
    by_unit[unit, anchors == 8, 0] = 0.2
    mesh = mesh_of(by_unit=by_unit)
    points = torch.full((1, NUM_LANDMARKS, 2), -500.0)
    points[0, 7], points[0, 8] = torch.tensor([100.0, 142.0]), torch.tensor([104.0, 150.0])
    moved, _, _ = mesh(points, change_of(AuId.AU12, 1.0))
    # both are now at x = 106, eight pixels apart; half way each has the same say
    assert at(moved, 106, 146)[0].item() == pytest.approx(-4.0, abs=0.05)
    # a head that turned: what moved along x moves along x and y, and more the more it turned
    weight = torch.zeros(6, 2 * NUM_LANDMARKS)
    weight[3, 2 * 7] = 1.0  # y of the model's x, by how far landmark 7 is to the right
    turned = mesh_of(**{"by_unit": by_unit, "pose.weight": weight})
    away = float((points[0, 7] - turned.get_buffer("mean_xy")[7])[0])
    got = at(turned(points, change_of(AuId.AU12, 1.0))[0], 106, 142 + 0.06 * away)
    assert got[1].item() / got[0].item() == pytest.approx(away / 100, rel=0.05)


@torch.no_grad()
def test_head_place_is_where_the_skull_is() -> None:
    mesh = mesh_of()
    mean = mesh.get_buffer("mean_xy")[None]
    still = torch.tensor([[1.0, 0, 0, 0, 1, 0]])
    torch.testing.assert_close(mesh.head_place(mean), still, atol=1e-4, rtol=0)
    moved = mesh.head_place(mean + torch.tensor([3.0, -2.0]))
    torch.testing.assert_close(
        moved, still + torch.tensor([[0, 0, 3.0, 0, 0, -2]]), atol=1e-4, rtol=0
    )
    # a mean head that looks down a little is the mean still
    mesh.pose.bias[5] = 1.5
    torch.testing.assert_close(mesh.head_place(mean), still, atol=1e-4, rtol=0)
    # half as large about a point: the nose goes there, and so does the rest
    mesh.pose.bias.mul_(0.5)
    small = mesh.head_place(mean * 0.5 + 64.0)
    torch.testing.assert_close(small, still * 0.5, atol=1e-4, rtol=0)
    assert set(NOSE_BASE) < set(range(468))


def test_landmarks_are_asked_for_and_wear_is_particular() -> None:
    net = build(MESHED.network).eval()
    tokens = torch.zeros(1, NUM_AUS, 16)
    features = net.encoder(torch.rand(1, 3, 192, 176)).features
    with pytest.raises(ContractError, match="landmarks_xy"):
        net.generator(features, tokens, tokens)
    assert net.generator.mesh.is_empty
    with pytest.raises(ValueError, match="by_unit has shape"):
        net.generator.mesh.wear(**{**known(), "by_unit": torch.zeros(1)})
    for wrong in ({}, {**known(), "nose": torch.zeros(5, dtype=torch.int64)}):
        with pytest.raises(ValueError, match=r"expected .*by_unit.*pose\.weight"):
            net.generator.mesh.wear(**wrong)
    assert not net.generator.mesh.mean_xy.any()  # not even in part


def test_training_asks_for_a_mesh_and_for_landmarks(shards: Path, tmp_path: Path) -> None:  # noqa: F811
    config = replace(MESHED, steps=1)
    with pytest.raises(ConfigError, match=r"training\.data\.face_mesh"):
        run(shards, "meshless", config)
    with pytest.raises(ConfigError, match="networks with mesh_features"):
        run(shards, "no_mesh", replace(SMOKE, steps=1), face_mesh=tmp_path / "any")
    given = {**known(), "by_unit": torch.randn(2 * NUM_AUS, NUM_POINTS, 3)}
    save_file(given, tmp_path / "mesh")
    out = run(shards, "meshed", config, face_mesh=tmp_path / "mesh")
    newest = latest_checkpoint(out / "checkpoints")
    assert newest is not None
    mesh = load_net(newest)[0].generator.mesh
    assert torch.equal(mesh.mean_xy, given["mean_xy"])
    assert float(mesh.px_per_unit) == pytest.approx(PX_PER_UNIT)
    blind = write_fake_shard(tmp_path / "blind", seed=4)
    (blind / "landmarks.npy").unlink()
    with pytest.raises(ConfigError, match=r"training\.data\.landmarks"):
        BatchMaker(ShardSet([blind]), None, 0, landmarks=True)


@pytest.mark.parametrize("bend", [False, True])
def test_points_go_the_other_way_than_maps(bend: bool) -> None:
    rng = np.random.default_rng(0)
    linear = np.array([[1.04, -0.08], [0.07, 0.97]]) @ np.diag([-1.0, 1.0])
    bent = rng.standard_normal((4, 4, 2)).astype(np.float32) * 2 if bend else None
    geometry = Geometry(256, linear, np.array([3.0, -5.0]), bent)
    x, y = geometry.maps(256)
    rows, columns = rng.integers(60, 200, (2, 50))
    source = np.stack([x[rows, columns], y[rows, columns]], 1) + 0.5
    there = geometry.points(source.astype(np.float64))
    want = np.stack([columns, rows], 1) + 0.5
    assert np.abs(there - want).max() < (0.02 if bend else 1e-3)


def test_batches_show_landmarks_where_the_pictures_show_the_face(tmp_path: Path) -> None:
    path = write_fake_shard(tmp_path / "s", size_px=64, seed=2)
    shards = ShardSet([path])  # noqa: F811
    plain = BatchMaker(shards, None, 0, landmarks=True).batch(0, 2, 64)
    raw = np.load(path / "landmarks.npy")[:2].reshape(8, NUM_LANDMARKS, 3)[..., :2]
    np.testing.assert_allclose(plain.landmarks_xy.numpy(), raw * 4, atol=1e-4)  # of a 256-px crop
    assert len(BatchMaker(shards, None, 0).batch(0, 2, 64).landmarks_xy) == 0
    # whoever the tracker did not find is taken to be where faces are
    missing = np.load(path / "landmarks.npy")
    missing[0, 1] = np.nan
    np.save(path / "landmarks.npy", missing)
    shards = ShardSet([path])
    filled = BatchMaker(shards, None, 0, landmarks=True).batch(0, 1, 64).landmarks_xy
    assert torch.isfinite(filled).all()
    np.testing.assert_allclose(filled[1].numpy(), shards.mean_landmarks() * 4, atol=1e-3)


def test_mirrored_faces_exchange_their_landmarks() -> None:
    rng = np.random.default_rng(1)
    half = rng.uniform(20, 110, (NUM_LANDMARKS // 2, 2))
    face = np.empty((NUM_LANDMARKS, 2))
    face[::2], face[1::2] = half, half * (-1, 1) + (256, 0)
    want = np.arange(NUM_LANDMARKS) ^ 1
    for middle in MIDDLE_LANDMARKS:  # these, and what stood on their other side, are in the middle
        face[[middle, middle ^ 1], 0] = 128
        face[middle ^ 1, 1] += 150
        want[[middle, middle ^ 1]] = middle, middle ^ 1
    np.testing.assert_array_equal(mirror_landmarks(face), want)


class Finds:
    """A tracker that finds one face in bright pictures."""

    def detect(self, frame_bgr: np.ndarray) -> list[TrackedFace]:
        if frame_bgr.max() < 100:
            return []
        points = np.tile(np.array([[40.0, 50.0]]), (NUM_LANDMARKS, 1))
        return [TrackedFace(points, np.full(NUM_LANDMARKS, 2.0), 1.0, 0)]


def test_landmarks_are_added_to_shards(tmp_path: Path) -> None:
    path = write_fake_shard(tmp_path / "s", size_px=64, seed=2)
    (path / "landmarks.npy").unlink()
    rgb = np.load(path / "rgb.npy")
    rgb[1, 2] = 0
    np.save(path / "rgb.npy", rgb)
    assert ShardSet([path]).without_landmarks == [path]
    assert landmarks.add_landmarks(path, Finds()) == 1
    shards = ShardSet([path])  # noqa: F811
    assert not shards.without_landmarks
    found = shards.quadruple(0)["landmarks"]
    np.testing.assert_allclose(found[0, 0], [40 - 16, 50 - 16, 2])
    assert np.isnan(shards.quadruple(1)["landmarks"][2]).all()
    assert not list(path.glob(".landmarks*"))
    assert landmarks.main([str(tmp_path / "nothing")]) == 2


def test_augmented_landmarks_are_where_the_picture_shows_the_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANDMARK_TREMBLE_PX", "LANDMARK_OFF_PX"):
        monkeypatch.setattr(dataset, name, 0.0)
    path = write_fake_shard(tmp_path / "s", size_px=64, seed=3)
    middle = np.random.default_rng(0).uniform(16, 48, (3, 4, NUM_LANDMARKS, 3)).astype(np.float32)
    middle[:, :, :, 0] = np.where(np.arange(NUM_LANDMARKS) % 2, middle[..., 0], 64 - middle[..., 0])
    np.save(path / "landmarks.npy", middle)
    shards = ShardSet([path])  # noqa: F811
    plain = {
        "rotate_deg": 8, "scale": 0.1, "shift_px": 9, "brightness": 0, "contrast": 0, "gamma": 0,
        "colour": 0, "mix_colours": 0, "bend_px": 0, "degrade": 0,
    }  # fmt: skip
    for flip in (0.0, 1.0):
        maker = BatchMaker(shards, AugmentConfig(**plain, flip=flip), 0, landmarks=True)
        drawn: list[Geometry] = []
        draw = maker.draw_geometry

        def remember(*a: object, made: list[Geometry] = drawn, how: object = draw) -> Geometry:
            made.append(how(*a))  # type: ignore[operator]
            return made[-1]

        monkeypatch.setattr(maker, "draw_geometry", remember)
        batch = maker.batch(0, 1, 64)
        raw = shards.quadruple(maker.index_at(0))["landmarks"][..., :2]
        order = mirror_landmarks(shards.mean_landmarks()) if flip else np.arange(NUM_LANDMARKS)
        for i in range(4):
            x, y = drawn[i // 2].maps(64)
            seen = batch.landmarks_xy[i].numpy() / 4
            at = np.clip(seen - 0.5, 0, 63).astype(np.float32)
            # the picture shows there what the shard's picture has at the landmark of that name
            there = [cv2.remap(m, at[:, None], None, cv2.INTER_LINEAR)[:, 0] + 0.5 for m in (x, y)]
            inside = (seen > 2).all(1) & (seen < 62).all(1)
            assert inside.sum() > 200
            want = raw[i][order]
            assert np.abs(np.stack(there, 1) - want)[inside].max() < 0.05  # OpenCV counts in 32nds


def test_landmarks_tremble_in_training_and_nothing_else_is_drawn_otherwise(tmp_path: Path) -> None:
    shards = ShardSet([write_fake_shard(tmp_path / "s", size_px=64, seed=3)])  # noqa: F811
    still = AugmentConfig(
        flip=0, rotate_deg=0, scale=0, shift_px=0, brightness=0, contrast=0, gamma=0, colour=0,
        mix_colours=0, bend_px=0, degrade=0,
    )  # fmt: skip
    trembling = BatchMaker(shards, still, 0, landmarks=True)
    seen = trembling.batch(0, 1, 64).landmarks_xy
    mean = BatchMaker(shards, None, 0, landmarks=True).batch(trembling.index_at(0), 1, 64)
    assert 0.1 < (seen - mean.landmarks_xy).numpy().std() < 1.0
    augment = AugmentConfig(occlude=0.5)
    bare, more = (BatchMaker(shards, augment, 0, landmarks=x).batch(0, 2, 64) for x in (0, 1))
    for name in ("rgb", "look_rgb", "flow_xy", "real_rgb", "gains"):
        assert torch.equal(getattr(bare, name), getattr(more, name)), name


def test_moved_points_are_where_the_moved_picture_shows_them() -> None:
    torch.manual_seed(0)
    angle = torch.tensor([0.1, -0.2])
    cos, sin = torch.cos(angle) * 1.1, torch.sin(angle) * 1.1
    linear = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    shift = torch.tensor([[0.05, -0.02], [-0.03, 0.04]])
    points = torch.tensor([[[100.5, 90.5], [140.5, 170.5]]]).expand(2, 2, 2)
    picture = torch.zeros(2, 2, 256, 256)  # one spot a channel
    for k, (x, y) in enumerate(points[0].long().tolist()):
        picture[:, k, y - 1 : y + 2, x - 1 : x + 2] = 1.0
    grid = F.affine_grid(
        torch.cat([linear, shift[:, :, None]], 2), [2, 1, 256, 256], align_corners=False
    )
    moved = F.grid_sample(picture, grid, align_corners=False)
    where = moved_points(points, linear, shift)
    at = torch.arange(256) + 0.5
    mass = moved.sum((2, 3))
    x, y = (moved.sum(2) * at).sum(2) / mass, (moved.sum(3) * at).sum(2) / mass
    torch.testing.assert_close(where, torch.stack([x, y], 2), atol=0.05, rtol=0)
