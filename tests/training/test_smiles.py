"""How people smile, put into a mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rt_swap.aus import AuId
from rt_swap.contract import NUM_LANDMARKS
from rt_swap.errors import ConfigError
from tests.support.symmetric_face import symmetric_face
from training import smiles
from training.checkpoint import load_net
from training.data.correspond import mirror_landmarks
from training.networks.mesh import NUM_POINTS

CHECKPOINT = Path(__file__).resolve().parents[2] / "training" / "checkpoints" / "rt-small"
K12 = 2 * AuId.AU12.index


@pytest.fixture
def net():
    return load_net(CHECKPOINT)[0].eval()


def test_missing_is_per_unit_and_leaves_irises() -> None:
    rng = np.random.default_rng(0)
    drawn, lack = rng.normal(size=(9, NUM_LANDMARKS, 2)), rng.normal(size=(NUM_LANDMARKS, 2))
    amount = rng.uniform(0.1, 1.0, 9)
    noise = rng.normal(size=9)
    noise -= amount * (noise @ amount) / (amount @ amount)  # what no smile explains
    wanted = drawn + amount[:, None, None] * lack + noise[:, None, None]
    found = smiles.missing(wanted, drawn, amount)
    np.testing.assert_allclose(found[:468], lack[:468], atol=1e-9)
    assert (found[468:] == 0).all()
    with pytest.raises(ConfigError, match="nobody smiles"):
        smiles.missing(wanted, drawn, amount * 0)


def test_own_motion_is_alike_on_both_sides_and_leaves_the_head_where_it_is() -> None:
    rng = np.random.default_rng(1)
    mean = symmetric_face(rng)
    mirrored = mirror_landmarks(mean)
    way = rng.normal(size=(NUM_LANDMARKS, 2))
    way[468:] = 0.0
    found = smiles.own_motion(way, mean)
    np.testing.assert_allclose(found[mirrored] * (-1, 1), found)
    moved = way.copy()
    moved[:468] += (3.0, -2.0)  # the crop slipped
    np.testing.assert_allclose(smiles.own_motion(moved, mean), found, atol=1e-9)


def test_put_in_moves_each_side_by_its_own_unit_and_no_other_unit(net) -> None:
    mesh = net.generator.mesh
    before = mesh.by_unit.detach().clone()
    mean = mesh.get_buffer("mean_xy").double().numpy()
    way = np.zeros((NUM_LANDMARKS, 2))
    way[[61, 291, 13, 152]] = (-2.0, -4.0), (2.0, -4.0), (0.0, -3.0), (0.0, -3.0)
    smiles.put_in(mesh, way)
    more = (mesh.by_unit.detach() - before).numpy()
    others = np.delete(np.arange(len(more)), [K12, K12 + 1])
    assert (more[others] == 0).all() and (more[..., 2] == 0).all()
    unit = float(mesh.get_buffer("px_per_unit"))
    both = more[K12] + more[K12 + 1]
    np.testing.assert_allclose(both[291, :2] * unit, (2.0, 4.0), rtol=1e-3)  # up is up
    np.testing.assert_allclose(both[61, :2] * unit, (-2.0, 4.0), rtol=1e-3)
    # the person's left corner is on the picture's right, and is moved by the left side
    assert mean[291, 0] > mean[61, 0]
    assert more[K12, 291, 1] > 50 * abs(more[K12, 61, 1])
    assert more[K12 + 1, 61, 1] > 50 * abs(more[K12 + 1, 291, 1])
    np.testing.assert_allclose(more[K12, 13, 1], more[K12 + 1, 13, 1], rtol=0.3)
    # outside the outline it fades: the chin's four points
    ring = NUM_LANDMARKS + 4 * smiles.OUTLINE.index(152)
    fade = both[ring : ring + 4, 1] / both[152, 1]
    np.testing.assert_allclose(fade, smiles.RING_SHARE, rtol=1e-3)
    assert len(more[0]) == NUM_POINTS


def test_what_is_learned_and_put_in_is_drawn(net, monkeypatch: pytest.MonkeyPatch) -> None:
    """People whose landmarks do just what the mesh draws, and 3 px more at the corners a unit."""
    mesh = net.generator.mesh
    mean = mesh.get_buffer("mean_xy").double().numpy()
    amounts = {40: 0.0, 90: 0.5, 200: 0.9}

    class Says(torch.nn.Module):
        def __init__(self, _: object) -> None:
            super().__init__()

        def forward(self, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            aus = torch.zeros(1, 27, 2)
            aus[:, AuId.AU12.index] = amounts[round(float(rgb[0, 0, 0, 0]) * 255)]
            return net.label_tokens(aus), torch.full((1, 27, 2), 0.77)

    monkeypatch.setattr(smiles, "EncoderGraph", Says)

    def drawn(amount: float) -> np.ndarray:
        change = torch.zeros(1, 27, 2)
        change[:, AuId.AU12.index] = amount
        with torch.no_grad():
            gone = mesh(torch.from_numpy(mean[None]).float(), change.reshape(1, -1))[2]
        return gone[0].double().numpy()

    def pair(value: int) -> smiles.Pair:
        smile = drawn(amounts[value])
        smile[[61, 291], 1] -= 3.0 * amounts[value]
        pictures = [np.full((256, 256, 3), v, np.uint8) for v in (40, value)]
        return smiles.Pair(*pictures, mean.copy(), smile)

    way = smiles.learn(net, [pair(90), pair(200), pair(90)])
    np.testing.assert_allclose(way[[61, 291], 1], -3.0, atol=0.05)
    assert np.abs(np.delete(way, [61, 291], axis=0)).max() < 0.05
    before = drawn(1.0)
    smiles.put_in(mesh, way)
    np.testing.assert_allclose((drawn(1.0) - before)[[61, 291], 1], -3.0, atol=0.3)


def test_too_few_pairs_are_refused_and_nothing_is_written(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "portraits"
    folder.mkdir()
    (folder / "neutral_1.jpg").write_bytes(b"")
    args = ["--portraits", str(folder), "--checkpoint", str(CHECKPOINT)]
    assert smiles.main([*args, "--out", str(tmp_path / "out")]) == 2
    assert "only 0 people" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert smiles.main([*args, "--out", str(folder)]) == 2
    assert "exists" in capsys.readouterr().err
