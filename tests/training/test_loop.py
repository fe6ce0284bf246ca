"""The loop: plans, schedule, exact resumption, signals, learning."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rt_swap.aus import NUM_AUS
from rt_swap.contract import CROP_SIZE_PX, NUM_LANDMARKS
from rt_swap.errors import ConfigError
from tests.support.fake_shards import write_fake_shard
from training import loop as loop_module
from training.checkpoint import latest_checkpoint, load_net
from training.config import (
    LOOK_XYXY,
    LossConfig,
    OptimConfig,
    Phase,
    SampleConfig,
    TrainConfig,
    get_config,
)
from training.data.dataset import PARTNER, BatchMaker, ShardSet
from training.data.labelled import LabelledBatch
from training.data.reshape import Shapes
from training.grid import flow_rgb
from training.loop import ema_decay_at, loop, schedule
from training.networks import Critics, build, mix_tokens
from training.networks.mouth import TEETH_XYXY
from training.objective import (
    KINDS,
    Objective,
    plan_samples,
    run_networks,
    truth_of,
    validate,
)

SMOKE = get_config("smoke")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=3, size_px=64)
    write_fake_shard(
        tmp_path / "val" / "shard_00000", quadruples=2, size_px=64, seed=9, split="val"
    )
    return tmp_path


def run(shards: Path, name: str, config: TrainConfig = SMOKE, **options: object) -> Path:
    out = shards / name
    arguments = {
        "shards": [shards / "train"],
        "val_shards": [shards / "val"],
        "threads": 1,
        "device": "cpu",
    }
    loop(config=config, out=out, **{**arguments, **options})  # type: ignore[arg-type]
    return out


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_plan_makes_samples_whose_labels_agree_with_the_truth(shards: Path, kind: str) -> None:
    """Mixing the *labels* as the tokens will be mixed gives the truth's labels: rows, base,
    gains are right.
    """
    batch = BatchMaker(ShardSet([shards / "train"]), None, 0).batch(0, 3, 32)
    config = SampleConfig(**{name: float(name == kind) for name in KINDS})
    plan = plan_samples(batch.gains, config, np.random.default_rng(0))
    labels = batch.aus_lr
    mixed = mix_tokens(labels, labels[plan.source], labels[plan.base], plan.gains, plan.relative)
    torch.testing.assert_close(mixed, labels[plan.truth])
    assert bool((plan.source == torch.arange(12)).all()) is False
    assert bool(plan.still.all()) == (kind == "identity")
    assert bool(plan.crossed.all()) == (kind in ("swap", "relative"))


def test_plan_can_be_told_to_hold_an_identity() -> None:
    gains = torch.ones(3, NUM_AUS)
    for seed in range(5):
        plan = plan_samples(
            gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(seed), with_identity=True
        )
        assert int(plan.still.sum()) == 4


def test_truth_of_a_still_sample_changes_nothing(shards: Path) -> None:
    batch = BatchMaker(ShardSet([shards / "train"]), None, 0).batch(0, 2, 32)
    still = truth_of(
        batch, plan_samples(batch.gains, SampleConfig(0, 0, 0, 1), np.random.default_rng(0))
    )
    assert torch.equal(still.rgb, batch.rgb)
    assert not still.flow_xy.any()
    assert not still.shade_log2.any()
    assert bool((still.keep == 1).all())
    swap = truth_of(
        batch, plan_samples(batch.gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(0))
    )
    assert torch.equal(swap.rgb[0], batch.rgb[1])
    assert swap.flow_xy[0, :, 3, 3].tolist() == [
        1.5,
        -1.0,
    ]  # to picture 1 from picture 0, at half size


def test_taught_quadruples_are_whole_and_fade_out() -> None:
    config = replace(SMOKE.samples, taught_first=0.8, taught_last=0.2, taught_until=0.5)
    assert [config.taught(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.8, 0.5, 0.2, 0.2])
    gains = torch.ones(2000, NUM_AUS)
    taught = plan_samples(gains, config, np.random.default_rng(0), taught=0.8).taught
    assert torch.equal(taught, taught.reshape(-1, 4)[:, :1].expand(-1, 4).reshape(-1))
    assert float(taught.float().mean()) == pytest.approx(0.8, abs=0.03)
    assert not plan_samples(gains, config, np.random.default_rng(0)).taught.any()


def test_fixed_teacher_steers_taught_rows_and_the_encoder_the_others(shards: Path) -> None:
    batch = BatchMaker(ShardSet([shards / "train"]), None, 0).batch(0, 2, 32)
    net = build(SMOKE.network).eval()  # batch statistics would let pictures hear of each other
    plan = plan_samples(batch.gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(0))
    plan = replace(plan, taught=torch.tensor([True] * 4 + [False] * 4))
    forward = run_networks(net, batch, plan, SMOKE)
    known, own, source = net.label_tokens(batch.aus_lr), forward.encoded.tokens, plan.source
    for rows, tokens in ((slice(0, 4), known), (slice(4, 8), own)):
        want = tokens[rows] + plan.gains[rows, :, None] * (tokens[source[rows]] - tokens[rows])
        torch.testing.assert_close(forward.mixed[rows], want)
    assert not any(p.requires_grad for p in net.label_tokens.parameters())


def test_every_term_is_finite_and_reaches_the_networks(shards: Path) -> None:
    maker = BatchMaker(ShardSet([shards / "train"]), SMOKE.augment, 0, fields=True, landmarks=True)
    batch = maker.batch(0, 3, 64)
    always = replace(
        SMOKE,
        network=replace(SMOKE.network, unit_channels=8, mesh_features=4, mouth_hidden=8),
        losses=replace(
            SMOKE.losses,
            cycle_every=1,
            adversarial_every=1,
            equivariance_every=1,
            au_adversary_every=1,
        ),
    )
    torch.manual_seed(0)
    net, critics = build(always.network), Critics(SMOKE.network)
    torch.nn.init.normal_(net.generator.head_smooth.weight, std=0.1)
    rng = np.random.default_rng(1)
    plan = plan_samples(batch.gains, SampleConfig(0.5, 0.5, 0, 0), rng, with_identity=True)
    critics.requires_grad_(False)
    look = torch.rand(2, *batch.look_rgb.shape[1:])
    labelled = LabelledBatch(look, torch.rand(2, NUM_AUS, 2), torch.ones(2, NUM_AUS, 2))
    forward = run_networks(net, batch, plan, always, labelled)
    larger = build(always.network).eval()
    objective = Objective(always, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS), larger=larger)
    total, terms = objective.generator_losses(net, critics, batch, forward, 0, 1.0, rng, labelled)
    options = (
        "_every",
        "_from",
        "_until",
        "_weight",
        "_weights",
        "_threshold",
        "_fraction",
        "lazy_quadruples",
        "_single",
    )
    assert set(terms) == {n for n in LossConfig.__dataclass_fields__ if not n.endswith(options)}
    assert total.item() == pytest.approx(
        sum(getattr(always.losses, name) * value.item() for name, value in terms.items()), rel=1e-4
    )
    for name, value in terms.items():
        learning = [p for p in net.parameters() if p.requires_grad]
        grads = torch.autograd.grad(value, learning, retain_graph=True, allow_unused=True)
        norm = sum(float(g.abs().sum()) for g in grads if g is not None)
        assert 0 < norm < float("inf"), name
    critics.requires_grad_(True)
    critic_total, critic_terms = objective.critic_losses(critics, batch, forward, 0, 1.0)
    assert set(critic_terms) == {
        "critic_au",
        "critic_face",
        "critic_mouth",
        "critic_eyes",
        "critic_swap",
    }
    assert critic_total is not None
    critic_total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in critics.parameters())
    assert all(p.grad is None for p in net.parameters())


def test_what_lies_outside_the_look_weighs_nothing(shards: Path) -> None:
    """The terms look at the look alone; there, every part of the truth counts."""
    batch = BatchMaker(ShardSet([shards / "train"]), None, 0).batch(0, 2, 64)
    config = replace(SMOKE, precision="fp32")
    torch.manual_seed(0)
    net = build(config.network).eval()
    torch.nn.init.normal_(net.generator.head_smooth.weight, std=0.1)
    swaps = plan_samples(batch.gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(0))
    forward = run_networks(net, batch, swaps, config)
    objective = Objective(config, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    x0, y0, x1, y1 = (value // 4 for value in LOOK_XYXY)
    outside = torch.ones(1, 1, 64, 64)
    outside[:, :, y0:y1, x0 - 2 : x1 + 2] = 0  # a multiple of 8

    def terms(where: torch.Tensor) -> dict[str, float]:
        truth = replace(
            forward.truth,
            rgb=torch.where(where > 0, 1 - forward.truth.rgb, forward.truth.rgb),
            flow_xy=forward.truth.flow_xy + 3 * where,
            shade_log2=forward.truth.shade_log2 + where,
        )
        said = objective._ground_truth(batch, replace(forward, truth=truth))
        return {name: float(value.detach()) for name, value in said.items()}

    plain = terms(torch.zeros_like(outside))
    assert terms(outside) == plain
    inside = terms(1 - outside)
    assert all(inside[n] > plain[n] for n in ("image", "image_detail", "flow", "shade"))


def test_unit_fields_are_judged_on_the_picture_to_arrive_at(shards: Path) -> None:
    """A sample whose truth knows its fields is compared with those of the truth, others with
    none.
    """
    maker = BatchMaker(ShardSet([shards / "train"]), SMOKE.augment, 0, fields=True)
    batch = maker.batch(0, 2, 64)
    config = replace(SMOKE, network=replace(SMOKE.network, unit_channels=8))
    torch.manual_seed(0)
    net = build(config.network).eval()
    swaps = plan_samples(batch.gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(0))
    forward = run_networks(net, batch, swaps, config)
    objective = Objective(config, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    assert float(objective._unit_fields(batch, forward)["unit_fields"].detach()) > 0.1
    fields = torch.zeros(8, 2 * NUM_AUS, 3, 48, 44)
    told = torch.zeros(8, dtype=torch.bool)
    for row, field in zip(batch.fields_row.tolist(), batch.fields, strict=True):
        fields[PARTNER[row % 4] + row // 4 * 4, :, :2] = (
            field / SMOKE.network.flow_scale_px
        )  # who has this picture for a truth
        told[PARTNER[row % 4] + row // 4 * 4] = True

    def term(said: torch.Tensor) -> float:
        instructions = replace(forward.said, unit_fields_raw=said)
        terms = objective._unit_fields(batch, replace(forward, said=instructions))
        return float(terms["unit_fields"])

    assert term(fields) == pytest.approx(0, abs=1e-5)
    fields[~told] = 99.0
    assert term(fields) == pytest.approx(0, abs=1e-5)
    fields[told] *= 0.5
    assert term(fields) > 0.05
    assert (
        objective._unit_fields(batch, run_networks(build(SMOKE.network), batch, swaps, SMOKE)) == {}
    )


@pytest.mark.parametrize("size_px", [64, 128, 256])
def test_where_the_mouth_is_is_asked_for_where_it_is(shards: Path, size_px: int) -> None:
    write_fake_shard(shards / "of_size" / "shard_0", quadruples=1, size_px=size_px)
    batch = BatchMaker(ShardSet([shards / "of_size"]), None, 0).batch(0, 1, size_px)
    batch.region[:] = 1
    scale = size_px // 64
    batch.region[:, :, 36 * scale : 40 * scale, 28 * scale : 36 * scale] = 2  # of 64
    config = replace(SMOKE, network=replace(SMOKE.network, mouth_hidden=8))
    net = build(config.network)
    plan = plan_samples(batch.gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(0))
    forward = run_networks(net, batch, plan, config)
    logit = torch.full((len(batch.rgb), 1, 88, 104), -30.0)
    x0, y0, _, _ = TEETH_XYXY
    logit[:, :, 144 - y0 : 160 - y0, 112 - x0 : 144 - x0] = 30.0
    objective = Objective(config, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    for said, right in ((logit, True), (logit.roll(4, 3), False)):
        told = replace(forward, said=replace(forward.said, mouth_logit=said))
        assert (objective._mouth(told)["mouth"].item() < 1e-6) == right


def test_lazy_terms_come_on_their_steps_and_weigh_more(shards: Path) -> None:
    objective = Objective(SMOKE, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    assert [step for step in range(9) if objective.is_due(3, step)] == [2, 5, 8]
    late = replace(SMOKE, losses=replace(SMOKE.losses, adversarial_from=0.5, adversarial_every=2))
    objective = Objective(late, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    assert [objective.adversarial_due(s, p) for s, p in ((1, 0.4), (1, 0.5), (2, 0.9))] == [
        False,
        True,
        False,
    ]
    batch = BatchMaker(ShardSet([shards / "train"]), None, 0).batch(0, 1, 32)
    config = replace(SMOKE, losses=replace(SMOKE.losses, au_adversary_every=4))
    net, critics = build(SMOKE.network), Critics(SMOKE.network)
    plan = plan_samples(batch.gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(0))
    forward = run_networks(net, batch, plan, config)
    objective = Objective(config, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    early = replace(config.losses, cycle_from=1.0, adversarial_from=1.0)
    objective.config = replace(config, losses=early)
    rng = np.random.default_rng(0)
    without, _ = objective.generator_losses(net, critics, batch, forward, 0, 0.0, rng)
    due, terms = objective.generator_losses(net, critics, batch, forward, 3, 0.0, rng)
    extra = 4 * early.au_adversary * terms["au_adversary"].item()
    assert due.item() - without.item() == pytest.approx(extra, rel=1e-3, abs=1e-4)


def test_schedule_warms_up_and_ends_at_its_fraction() -> None:
    optim = OptimConfig(warmup_steps=10, final_lr_fraction=0.1)
    assert schedule(0, 0.0, optim) == pytest.approx(0.1)
    assert schedule(9, 0.0, optim) == pytest.approx(1.0)
    assert schedule(100, 0.5, optim) == pytest.approx(0.55)  # 0.1 + 0.9 / 2
    assert schedule(100, 1.0, optim) == pytest.approx(0.1)


def test_ema_decay_starts_short() -> None:
    assert ema_decay_at(0, 0.999) == pytest.approx(0.1)
    assert ema_decay_at(10**6, 0.999) == 0.999


def test_run_writes_log_grids_and_a_loadable_checkpoint(shards: Path) -> None:
    out = run(shards, "run")
    lines = log_of(out)
    steps = [line for line in lines if "total" in line]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert {line["size_px"] for line in steps} == {32, 64}
    validations = [line["validation"] for line in lines if "validation" in line]
    assert len(validations) == 2
    assert {
        "image_relative",
        "flow_relative",
        "au_mae",
        "mouth_error",
        "eye_error",
        "still_error",
    } <= set(
        validations[0]  # type: ignore[arg-type]
    )
    grid = cv2.imread(str(out / "grids" / "step_00000008.png"))
    assert grid.shape == (2 * 64, 7 * 64, 3)  # one quadruple, two samples; seven columns
    newest = latest_checkpoint(out / "checkpoints")
    assert newest is not None
    load_net(newest)


def test_resumed_run_ends_exactly_like_an_uninterrupted_one(shards: Path) -> None:
    whole = run(shards, "whole")
    run(shards, "parts", max_steps=3)
    parts = run(shards, "parts", resume=True)
    names = ("model", "ema", "critics", "optimiser")
    from safetensors.torch import load_file

    for name in names:
        a, b = (
            load_file(latest_checkpoint(p / "checkpoints") / f"{name}.safetensors")
            for p in (whole, parts)
        )  # type: ignore[operator]
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), f"{name}: {key}"
    kept = ("total", "flow", "cross_cycle")
    totals = [
        [{k: line.get(k) for k in kept} for line in log_of(p) if "total" in line]
        for p in (whole, parts)
    ]
    assert totals[0] == totals[1]


def test_reading_quadruples_teach_the_encoder_and_resume_exactly(shards: Path) -> None:
    config = replace(
        SMOKE, steps=4, reading_quadruples=2, augment=replace(SMOKE.augment, nudge=0.5)
    )
    straight = run(shards, "straight", config)
    run(shards, "halved", config, max_steps=2)
    halved = run(shards, "halved", config, resume=True)
    nets = []
    for out in (straight, halved, run(shards, "without", replace(config, reading_quadruples=0))):
        newest = latest_checkpoint(out / "checkpoints")
        assert newest is not None
        nets.append(load_net(newest)[0].state_dict())
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    stem = [name for name in nets[0] if name.startswith("encoder.stem") and "weight" in name]
    assert stem and not any(torch.equal(nets[0][name], nets[2][name]) for name in stem)
    entries = [entry for entry in log_of(straight) if "total" in entry]
    with_flow = [entry for entry in entries if "flow" in entry]  # the rest reads anyway
    assert with_flow and all(entry["reading"] > 0 for entry in with_flow)
    assert not any("reading" in entry for entry in log_of(shards / "without"))


def test_reading_reaches_no_generator(shards: Path) -> None:
    config = replace(SMOKE, reading_quadruples=1)
    net = build(config.network)
    data = ShardSet([shards / "train"])
    objective = Objective(config, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    batch = BatchMaker(data, config.augment, 0, fields=True).batch(0, 2, 64, instructions=False)
    total, terms = objective.encoder_losses(net, batch)
    total.backward()
    assert all(p.grad is None for p in net.generator.parameters())
    assert all(p.grad is not None for p in net.encoder.stem.parameters())
    assert "token_invariance" in terms
    nudging = replace(config, augment=replace(config.augment, nudge=0.5))
    _, terms = Objective(nudging, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS)).encoder_losses(
        net, batch
    )
    assert "token_invariance" not in terms  # nudged pictures are no swaps of each other


def test_networks_that_draw_folds_learn_no_swaps_in_which_skin_folds(shards: Path) -> None:
    folded = shards / "folded"
    read = write_fake_shard(folded / "train" / "shard_0", quadruples=3, size_px=64, seed=4)
    held_out = [shards / "val"]
    said = json.loads((read / "shard.json").read_text())
    (read / "shard.json").write_text(json.dumps({**said, "folding": 0.8}))
    network = replace(SMOKE.network, mesh_features=4, fold_depth=1.0)
    config = replace(
        SMOKE, network=network, steps=2, reading_quadruples=2, phases=(Phase(64, 1, 1.0),)
    )
    with pytest.raises(ConfigError, match=r"1 of 1 --shards skin folds .*drawn twice"):
        run(folded, "twice", config, val_shards=held_out)
    # networks that draw none may, and so may who only reads
    plain = replace(SMOKE, steps=2, phases=(Phase(64, 1, 1.0),))
    run(folded, "plain", plain, val_shards=held_out)
    alone = (Phase(64, 1, 1.0, encoder_only=True),)
    reads = replace(config, phases=alone, reading_quadruples=0)
    with pytest.raises(ConfigError, match="face-mesh"):  # it got as far as that
        run(folded, "reads", reads, val_shards=held_out)
    joint = replace(config, reading_quadruples=2)
    with pytest.raises(ConfigError, match="face-mesh"):
        run(shards, "joint", joint, reading_shards=[read])
    with pytest.raises(ConfigError, match="mesh_features"):
        replace(SMOKE.network, fold_depth=1.0)


def test_reading_shards_may_hold_pictures_only_and_swaps_never_do(shards: Path) -> None:
    write_fake_shard(
        shards / "read" / "shard_0", quadruples=3, size_px=64, seed=4, pictures_only=True
    )
    config = replace(SMOKE, steps=2, reading_quadruples=2, phases=(Phase(64, 1, 1.0),))
    run(shards, "read_too", config, reading_shards=[shards / "read"])
    run(shards, "own", config)
    read, own = (log_of(shards / name)[0]["reading"] for name in ("read_too", "own"))
    assert read != own
    alone = replace(SMOKE, steps=2, phases=(Phase(64, 1, 1.0, encoder_only=True),))
    run(shards, "read_alone", alone, reading_shards=[shards / "read"])
    run(shards, "own_alone", alone)
    assert log_of(shards / "read_alone")[0]["au_l1"] != log_of(shards / "own_alone")[0]["au_l1"]
    with pytest.raises(ConfigError, match="nothing reads"):
        run(
            shards,
            "unread",
            replace(config, reading_quadruples=0),
            reading_shards=[shards / "read"],
        )
    held_out = [shards / "read"]
    with pytest.raises(ConfigError, match=r"val_shards: .* holds pictures only"):
        run(shards, "unjudged", config, val_shards=held_out)
    with pytest.raises(ConfigError, match="some people are in --val-shards"):
        run(shards, "peeking", config, reading_shards=[shards / "val"])
    nudged = replace(config, augment=replace(config.augment, nudge=0.5))
    with pytest.raises(ConfigError, match=r"shards to read lack"):
        run(shards, "unmoved", nudged, reading_shards=[shards / "read"])
    with pytest.raises(ConfigError, match="holds pictures only"):
        loop(
            config=config, shards=[shards / "read"], val_shards=[], out=shards / "wrong", threads=1
        )


def test_mouth_hidden_ask_for_a_denture_and_then_wear_it(shards: Path) -> None:
    config = replace(SMOKE, steps=1, network=replace(SMOKE.network, mouth_hidden=8))
    with pytest.raises(ConfigError, match=r"training\.data\.denture"):
        run(shards, "without", config)
    (shards / "bad").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match=r"mouth of .*bad cannot be used"):
        run(shards, "bad_one", config, denture=shards / "bad")
    with pytest.raises(ConfigError, match="networks with mouth_hidden"):
        run(shards, "no_mouth", replace(SMOKE, steps=1), denture=shards / "bad")
    empty = build(config.network).generator.mouth
    layers, by_unit = torch.rand_like(empty.layers), torch.rand_like(empty.by_unit)
    save_file({"layers": layers, "by_unit": by_unit}, shards / "denture")
    out = run(shards, "with", config, denture=shards / "denture")
    newest = latest_checkpoint(out / "checkpoints")
    assert newest is not None
    worn = load_net(newest)[0].generator.mouth
    assert torch.equal(worn.layers, layers) and torch.equal(worn.by_unit, by_unit)
    # and who starts from it has it, even from its encoder alone
    after = run(shards, "after", config, init_from=newest, init_parts=("encoder",))
    newest = latest_checkpoint(after / "checkpoints")
    assert newest is not None and torch.equal(load_net(newest)[0].generator.mouth.layers, layers)


def test_only_some_weights_train_where_asked(shards: Path) -> None:
    config = replace(SMOKE, steps=2, phases=(Phase(64, 1, 1.0),))
    first = latest_checkpoint(run(shards, "first", config) / "checkpoints")
    assert first is not None
    out = run(shards, "some", config, init_from=first, only=("generator.head_sharp.",))
    then = latest_checkpoint(out / "checkpoints")
    assert then is not None
    given, after = load_file(first / "ema.safetensors"), load_file(then / "model.safetensors")
    learns = {n for n, _ in build(SMOKE.network).named_parameters()}
    changed = {n for n in learns if not torch.equal(given[n], after[n])}
    assert changed == {n for n in learns if n.startswith("generator.head_sharp.")}
    with pytest.raises(ConfigError, match="no weight's name starts with 'mouth'"):
        run(shards, "none", config, only=("mouth",))


def test_nudging_needs_something_to_nudge_and_fields_to_do_it_by(shards: Path) -> None:
    nudging = replace(SMOKE.augment, nudge=0.5)
    swaps_only = (Phase(64, 1, 1.0),)
    with pytest.raises(ConfigError, match="set reading_quadruples, or a phase"):
        replace(SMOKE, augment=nudging, phases=swaps_only)
    config = replace(SMOKE, augment=nudging, reading_quadruples=1, phases=swaps_only)
    (shards / "train" / "shard_00000" / "fields.npy").unlink()
    with pytest.raises(ConfigError, match=r"augment\.nudge=0"):
        run(shards, "without", config)


def test_reshaping_needs_readers_landmarks_and_people(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lending = replace(SMOKE.augment, reshape=0.7)
    swaps_only = (Phase(64, 1, 1.0),)
    with pytest.raises(ConfigError, match="set reading_quadruples, or a phase"):
        replace(SMOKE, augment=lending, phases=swaps_only)
    config = replace(SMOKE, augment=lending, reading_quadruples=1, phases=swaps_only)
    with pytest.raises(ConfigError, match=r"augment\.reshape: shapes of at least"):
        run(shards, "few", config)
    shapes = Shapes(np.full((1, NUM_LANDMARKS, 2), 3.0, np.float32))
    monkeypatch.setattr("training.data.dataset.shapes_of", lambda *_: shapes)
    seen = []
    for name, run_config in (("lent", config), ("own", replace(config, augment=SMOKE.augment))):
        newest = latest_checkpoint(run(shards, name, run_config, max_steps=2) / "checkpoints")
        assert newest is not None
        seen.append(load_net(newest)[0].state_dict())
    stem = [name for name in seen[0] if name.startswith("encoder.stem") and "weight" in name]
    assert stem and not any(torch.equal(seen[0][name], seen[1][name]) for name in stem)


def test_sigterm_finishes_the_step_and_saves(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop_module._average
    count = 0

    def average(*arguments: object) -> None:
        nonlocal count
        original(*arguments)  # type: ignore[arg-type]
        count += 1
        if count == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop_module, "_average", average)
    before = signal.getsignal(signal.SIGTERM)
    out = run(shards, "stopped")
    assert signal.getsignal(signal.SIGTERM) is before
    newest = latest_checkpoint(out / "checkpoints")
    assert newest is not None
    assert newest.name == "step_00000002"


def test_time_budget_ends_the_run(shards: Path) -> None:
    endless = replace(SMOKE, steps=10**9)
    out = run(shards, "timed", config=endless, time_budget_min=0.02)
    assert log_of(out)[-1].get("validation") is not None or log_of(out)[-1]["progress"] > 0
    assert latest_checkpoint(out / "checkpoints") is not None


def test_init_from_starts_at_step_zero_with_the_weights(shards: Path) -> None:
    first = latest_checkpoint(run(shards, "first") / "checkpoints")
    assert first is not None
    second = run(shards, "second", init_from=first, max_steps=0)
    newest = latest_checkpoint(second / "checkpoints")
    assert newest is not None
    assert newest.name == "step_00000000"
    a, b = load_net(first)[0].state_dict(), load_net(newest, averaged=False)[0].state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_init_parts_take_the_encoder_and_leave_the_generator_fresh(shards: Path) -> None:
    first = latest_checkpoint(run(shards, "first") / "checkpoints")
    assert first is not None
    second = run(
        shards, "second", init_from=first, init_parts=("encoder", "label_tokens"), max_steps=0
    )
    newest = latest_checkpoint(second / "checkpoints")
    assert newest is not None
    a, b = load_net(first)[0], load_net(newest, averaged=False)[0]
    for part in ("encoder", "label_tokens"):
        theirs, ours = getattr(a, part).state_dict(), getattr(b, part).state_dict()
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs), part
    assert not torch.equal(a.generator.head_sharp.weight, b.generator.head_sharp.weight)


def test_people_in_both_splits_are_refused(shards: Path) -> None:
    with pytest.raises(ConfigError, match="in --val-shards and in --shards or"):
        run(shards, "mixed", val_shards=[shards / "train"])


def test_run_without_validation_shards(shards: Path) -> None:
    out = run(shards, "blind", val_shards=[], max_steps=2)
    assert all("validation" not in line for line in log_of(out))


def test_bf16_trains_too(shards: Path) -> None:
    out = run(shards, "bf16", config=replace(SMOKE, precision="bf16"))
    assert all(np.isfinite(line["total"]) for line in log_of(out) if "total" in line)


def test_it_learns_a_known_shift(shards: Path) -> None:
    """All swaps of the fake shards move the picture by (3, -2) or back; flow and image error
    must fall well below 1.
    """
    config = replace(
        SMOKE,
        losses=replace(SMOKE.losses, cycle_from=1.0, adversarial_from=1.0, au_adversary=0.0),
        samples=SampleConfig(1, 0, 0, 0, taught_first=0.5),
        augment=replace(
            SMOKE.augment,
            flip=0.0,
            rotate_deg=0,
            scale=0,
            shift_px=0,
            brightness=0,
            contrast=0,
            gamma=0,
            colour=0,
            mix_colours=0,
            bend_px=0,
            degrade=0,
        ),
        optim=OptimConfig(lr=4e-3, warmup_steps=5, ema_decay=0.9),
        phases=(Phase(64, 1, 1.0),),
        log=replace(SMOKE.log, validate_every=1000, grid_every=1000, log_every=50),
        steps=150,
    )
    out = run(shards, "learns", config=config)
    newest = latest_checkpoint(out / "checkpoints")
    assert newest is not None
    net, _ = load_net(newest)
    batches = [BatchMaker(ShardSet([shards / "train"]), None, 0).batch(0, 3, 64)]
    figures = validate(net, batches, config)
    assert figures["flow_epe_unchanged"] == pytest.approx(
        13**0.5 * 4, abs=0.01
    )  # in pixels of a 256-px crop
    # half of the picture lies outside of what the networks see, and stays as it is
    x0, y0, x1, y1 = LOOK_XYXY
    unseen = 1 - (x1 - x0) * (y1 - y0) / CROP_SIZE_PX**2
    assert figures["flow_relative"] < unseen + 0.5 * (1 - unseen)
    assert figures["image_relative"] < unseen + 0.8 * (1 - unseen)
    assert figures["au_mae"] < figures["au_mae_constant"] * 1.5


def test_flow_colour_is_black_for_none_and_opposite_for_opposite() -> None:
    flow = np.zeros((2, 1, 3), np.float32)
    flow[0, 0] = 0.0, 4.0, -4.0
    colour = flow_rgb(flow, 4.0)
    assert colour[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(colour[0, 1].astype(int) + colour[0, 2], 255, atol=8)
