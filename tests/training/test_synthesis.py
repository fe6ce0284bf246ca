"""The two schemes that rt is compared with: what each may see, and what each answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rt_swap.aus import NUM_AUS
from rt_swap.contract import CROP_SIZE_PX, GENERATOR_SPEC
from rt_swap.errors import ConfigError
from tests.support.fake_shards import write_fake_shard
from training.checkpoint import latest_checkpoint, load_net
from training.config import LOOK_XYXY, NetworkConfig, SampleConfig, get_config
from training.data.dataset import BatchMaker, ShardSet
from training.loop import loop
from training.networks import RtNet, build
from training.networks.export_graphs import GeneratorGraph
from training.objective import plan_samples, run_networks

SMOKE = get_config("smoke")
SCHEMES = ("eft", "ganimation")


def net_of(scheme: str) -> RtNet:
    torch.manual_seed(0)
    return build(replace(SMOKE.network, scheme=scheme)).eval().requires_grad_(False)


def answer(net: RtNet, picture: torch.Tensor, own: torch.Tensor, mixed: torch.Tensor):  # type: ignore[no-untyped-def]
    return net.generator(net.encoder(picture).features, own, mixed)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_paints_inside_the_look_and_moves_nothing(scheme: str) -> None:
    net, tokens = net_of(scheme), torch.randn(2, NUM_AUS, 16)
    said = answer(net, torch.rand(2, 3, 192, 176), tokens, tokens)
    assert not said.flow_xy.any()
    assert bool((said.shade == 1).all())
    x0, y0, x1, y1 = LOOK_XYXY
    outside = torch.ones(CROP_SIZE_PX, CROP_SIZE_PX, dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    assert bool((said.keep[:, 0][:, outside] == 1).all())
    middle = said.keep[:, 0, 120:140, 120:140]
    assert float(middle.max()) < (1e-3 if scheme == "eft" else 1.0)
    assert 0 <= float(said.fill_rgb.min()) < float(said.fill_rgb.max()) <= 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_asked_for_tokens_decide_and_the_targets_own_do_not(scheme: str) -> None:
    net, picture = net_of(scheme), torch.rand(1, 3, 192, 176)
    own, other, mixed = (torch.randn(1, NUM_AUS, 16) for _ in range(3))
    said = answer(net, picture, own, mixed).fill_rgb
    assert torch.equal(said, answer(net, picture, other, mixed).fill_rgb)
    assert not torch.allclose(said, answer(net, picture, own, other).fill_rgb, atol=1e-4)


def test_eft_sees_the_target_through_the_au_free_feature_alone() -> None:
    net, tokens = net_of("eft"), torch.randn(1, NUM_AUS, 16)
    features = net.encoder(torch.rand(1, 3, 192, 176)).features
    said = net.generator(features, tokens, tokens)
    blind = replace(
        features,
        picture_rgb=torch.rand_like(features.picture_rgb),
        half=torch.rand_like(features.half),
        eighth=torch.rand_like(features.eighth),
        sixteenth=torch.rand_like(features.sixteenth),
    )
    assert torch.equal(said.fill_rgb, net.generator(blind, tokens, tokens).fill_rgb)
    assert said.au_free.shape[2:] == (48, 44)


def test_ganimation_is_guided_by_intensities_and_by_nothing_else_of_the_tokens() -> None:
    net, picture = net_of("ganimation"), torch.rand(1, 3, 192, 176)
    aus = torch.rand(1, NUM_AUS, 2)
    tokens = net.label_tokens(aus)
    torch.testing.assert_close(net.label_tokens.inverse(tokens), aus, atol=1e-4, rtol=0)
    # what lies off the plane of the teacher's tokens says nothing of an intensity
    away = torch.randn_like(tokens)
    away = away - (net.label_tokens(net.label_tokens.inverse(away)) - net.label_tokens.bias)
    said = answer(net, picture, tokens, tokens)
    torch.testing.assert_close(
        said.fill_rgb, answer(net, picture, tokens, tokens + away).fill_rgb, atol=1e-4, rtol=0
    )
    lighter = answer(net, picture, tokens, net.label_tokens(aus * 0.5))
    assert not torch.allclose(said.fill_rgb, lighter.fill_rgb, atol=1e-4)


def test_a_guide_speaks_the_language_of_the_teacher_it_was_started_with(tmp_path: Path) -> None:
    write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=1, size_px=64)
    options = {"shards": [tmp_path / "train"], "val_shards": [], "threads": 1, "device": "cpu"}
    loop(config=replace(SMOKE, seed=3), out=tmp_path / "rt", max_steps=0, **options)  # type: ignore[arg-type]
    first = latest_checkpoint(tmp_path / "rt" / "checkpoints")
    units = replace(SMOKE, network=replace(SMOKE.network, unit_channels=8), seed=4)
    loop(
        config=units, out=tmp_path / "u", init_from=first, max_steps=0,
        init_parts=("encoder", "label_tokens"), **options,  # type: ignore[arg-type]
    )  # fmt: skip
    newest = latest_checkpoint(tmp_path / "u" / "checkpoints")
    assert newest is not None
    own = load_net(newest)[0]
    torch.testing.assert_close(
        own.generator.tokens_to_aus, torch.linalg.pinv(own.label_tokens.weight)
    )
    assert torch.equal(own.label_tokens.weight, load_net(first)[0].label_tokens.weight)
    config = replace(SMOKE, network=replace(SMOKE.network, scheme="ganimation"), seed=4)
    loop(
        config=config, out=tmp_path / "g", init_from=first, max_steps=0,
        init_parts=("encoder", "label_tokens"), **options,  # type: ignore[arg-type]
    )  # fmt: skip
    newest = latest_checkpoint(tmp_path / "g" / "checkpoints")
    assert first is not None and newest is not None
    teacher = load_net(first)[0].label_tokens
    net = load_net(newest)[0]
    assert torch.equal(net.label_tokens.weight, teacher.weight)
    aus = torch.rand(2, NUM_AUS, 2)
    heard = net.generator.guide_of(teacher(aus))
    torch.testing.assert_close(heard, aus.flatten(1), atol=1e-4, rtol=0)


def test_swaps_of_the_published_scheme_do_not_train_the_stem(tmp_path: Path) -> None:
    write_fake_shard(tmp_path / "s", quadruples=2, size_px=64)
    batch = BatchMaker(ShardSet([tmp_path / "s"]), None, 0).batch(0, 2, 64)
    plan = plan_samples(batch.gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(0))
    for trains in (False, True):
        network = replace(SMOKE.network, scheme="eft", generation_trains_stem=trains)
        config = replace(SMOKE, network=network)
        net = build(network)
        run_networks(net, batch, plan, config).out_rgb.sum().backward()
        stem = [p.grad for p in net.encoder.stem.parameters()]
        tokens = [p.grad for p in net.encoder.tokens.parameters()]
        assert any(g is not None and bool(g.any()) for g in stem) == trains
        assert any(g is not None and bool(g.any()) for g in tokens)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_the_contract_of_the_runtime(scheme: str) -> None:
    outputs = GeneratorGraph(net_of(scheme))(*(torch.rand(s.shape) for s in GENERATOR_SPEC.inputs))
    assert [tuple(o.shape) for o in outputs] == [spec.shape for spec in GENERATOR_SPEC.outputs]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_trains_on_the_same_shards_and_its_checkpoint_loads(scheme: str, tmp_path: Path) -> None:
    write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=3, size_px=64)
    named = get_config(scheme)
    config = replace(
        SMOKE,
        network=replace(SMOKE.network, scheme=scheme),
        losses=replace(
            named.losses, adversarial_from=0.0, cycle_from=0.0, lazy_quadruples=1, cycle_every=2
        ),
    )
    loop(
        config=config, shards=[tmp_path / "train"], val_shards=[], out=tmp_path / "run", threads=1,
        device="cpu",
    )  # fmt: skip
    newest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    net, _ = load_net(newest)
    before = build(config.network)
    changed = [
        not torch.equal(a, b)
        for a, b in zip(net.generator.parameters(), before.generator.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"network\.scheme"):
        NetworkConfig(scheme="stargan")
