"""A smaller network out of a larger one, and what a larger one teaches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rt_swap.aus import NUM_AUS
from rt_swap.errors import ConfigError
from tests.training.test_loop import log_of, run, shards  # noqa: F401
from training.checkpoint import latest_checkpoint, read_config, read_state, warm_start
from training.config import CONFIGS, SampleConfig, TrainConfig, get_config, to_dict
from training.data.dataset import Batch, BatchMaker, ShardSet
from training.narrow import ALL, choose, main, narrow, predictor, weight_of, wiring_of
from training.networks import Critics, RtNet, build
from training.objective import Objective, plan_samples, run_networks

SMOKE = get_config("smoke")
LARGE = replace(
    SMOKE, network=replace(SMOKE.network, mesh_features=4, mouth_hidden=8, stem_blocks=(1, 1, 1))
)
HALF = replace(
    LARGE.network,
    stem_channels=(4, 4, 8, 8),
    token_features=8,
    au_free_channels=4,
    decoder_channels=(8, 8, 4, 4),
)
SWAPS = SampleConfig(1, 0, 0, 0)


@pytest.fixture
def batches(shards: Path, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:  # noqa: F811
    points = np.random.default_rng(0).uniform(16, 48, (12, 478, 3)).astype(np.float32)
    np.save(shards / "train" / "shard_00000" / "landmarks.npy", points.reshape(3, 4, 478, 3))
    return [BatchMaker(ShardSet([shards / "train"]), None, 0, landmarks=True).batch(0, 3, 64)]


def lively(config: TrainConfig) -> RtNet:
    """A network whose heads and normalisations say something from the start."""
    torch.manual_seed(3)
    net = build(config.network).eval()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.startswith(("label_tokens", "generator.tokens_to_aus")):
                continue
            if "running_var" in name:
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point() and not value.any():
                value.normal_(0.0, 0.05)
    return net


def answer(net: RtNet, batch: Batch, config: TrainConfig) -> tuple[torch.Tensor, torch.Tensor]:
    plan = plan_samples(batch.gains, SWAPS, np.random.default_rng(0))
    with torch.no_grad():
        forward = run_networks(net, batch, plan, config)
    return forward.encoded.tokens, forward.out_rgb


def test_channels_that_others_predict_are_the_ones_that_go() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 2000, dtype=torch.float64)
    x[2] = 2 * x[0] - x[1]  # says nothing new
    x[3] *= 1e-3  # hardly says anything
    second = x @ x.T / x.shape[1]
    kept = choose(second, torch.eye(4, dtype=torch.float64), 2)
    assert 3 not in kept.tolist()
    expected = x[:3]
    torch.testing.assert_close((predictor(second, kept) @ x[kept])[:3], expected, atol=0.1, rtol=0)
    # what nobody reads need not be predicted
    nobody = torch.zeros(4, 4, dtype=torch.float64)
    nobody[3, 3] = 1.0
    assert choose(second, nobody, 1).tolist() == [3]


def test_every_layer_with_channels_of_its_own_is_wired() -> None:
    """Whatever layer is added to the networks has to be told about here, too."""
    for name in ("rt-nano", "rt-small", "rt-base"):
        net = build(get_config(name).network)
        wiring = wiring_of(get_config(name).network)
        layers = {
            module_name.removesuffix(".0")
            for module_name, module in net.named_modules()
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
        }
        whole = {"generator.mesh.pose"} | {  # these read and answer with all there is
            f"generator.mouth.{part}" for part in ("look", "hear", "read", "say")
        }
        assert layers - whole == set(wiring.reads) == set(wiring.answers)
        for layer, group in wiring.answers.items():
            width = weight_of(net, layer).weight.shape[0]
            widths = {
                weight_of(net, other).weight.shape[0]
                for other, answers in wiring.answers.items()
                if answers == group
            }
            assert group == ALL or widths == {width}, layer


def test_narrowing_to_the_same_size_changes_nothing(batches: list[Batch]) -> None:
    net = lively(LARGE)
    same = narrow(net, LARGE.network, batches, LARGE)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], value, msg=name)


def test_doubled_channels_are_halved_without_a_loss(batches: list[Batch]) -> None:
    """The second half of each group's channels says what the first one says."""
    net = lively(LARGE)
    with torch.no_grad():
        for layer, group in wiring_of(LARGE.network).answers.items():
            if group in (ALL, "told", "context", "wide", "rank", "read"):  # these stay whole
                continue
            rows = weight_of(net, layer).weight.shape[0]
            for name, value in net.state_dict().items():
                if name.startswith(f"{layer}.") and value.dim() and len(value) == rows:
                    value[rows // 2 :] = value[: rows // 2]
    small = narrow(net, HALF, batches, LARGE)
    before, after = (sum(p.numel() for p in n.encoder.stem.parameters()) for n in (net, small))
    assert after < 0.3 * before
    config = replace(LARGE, network=HALF)
    for found, wanted in zip(
        answer(small, batches[0], config), answer(net, batches[0], LARGE), strict=True
    ):
        assert float((found - wanted).std()) < 1e-2 * float(wanted.std())  # the ridge's


def test_what_stays_makes_up_for_what_goes(batches: list[Batch]) -> None:
    """Nearer to the larger network than its first channels alone would be."""
    net = lively(LARGE)
    config = replace(LARGE, network=HALF)
    small = narrow(net, HALF, batches, LARGE)
    cut = build(HALF).eval()
    given = net.state_dict()
    cut.load_state_dict(
        {
            name: given[name][tuple(slice(n) for n in value.shape)]
            for name, value in cut.state_dict().items()
        }
    )
    wanted, _ = answer(net, batches[0], LARGE)
    missed, cut_missed = (
        float((answer(n, batches[0], config)[0] - wanted).square().mean()) for n in (small, cut)
    )
    assert missed < 0.5 * cut_missed


def test_channels_that_only_the_pooling_reads_are_kept(batches: list[Batch]) -> None:
    """Attention looks away from half of the merged map, the AUs' networks look nowhere else."""
    net = lively(LARGE)
    width = LARGE.network.token_features
    half = width // 2
    with torch.no_grad():
        net.encoder.tokens.attention.weight[:, half:] = 0.0
        for side in range(2):
            start = side * (width + 2)
            net.encoder.tokens.weight1[:, start : start + half] *= 1e-3
            net.encoder.tokens.weight1[:, start + half : start + width] *= 30.0
    # with as many channels to go as attention looks at
    small = narrow(net, replace(LARGE.network, token_features=half), batches, LARGE)
    config = replace(LARGE, network=replace(LARGE.network, token_features=half))
    found, wanted = (answer(n, batches[0], c)[0] for n, c in ((small, config), (net, LARGE)))
    # 0.07; chosen for attention alone 0.19
    assert float((found - wanted).std()) < 0.1 * float(wanted.std())


def test_blocks_that_the_smaller_one_lacks_are_left_out(batches: list[Batch]) -> None:
    shallow = replace(LARGE.network, stem_blocks=(0, 1, 0))
    small = narrow(lively(LARGE), shallow, batches, LARGE)
    assert not any("blocks64" in name for name in small.encoder.state_dict())
    assert torch.isfinite(answer(small, batches[0], replace(LARGE, network=shallow))[1]).all()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (replace(LARGE.network, au_free_channels=16), "16 channels, more than the larger one's 8"),
        (replace(LARGE.network, stem_blocks=(1, 2, 1)), r"smoke has no layer encoder\.stem"),
        (replace(LARGE.network, token_hidden=4), r"encoder\.tokens\.bias1.* must be smoke's"),
        (replace(LARGE.network, token_global=4), "token_global must be"),
        (CONFIGS["eft"].network, "only networks of the scheme rt"),
    ],
)
def test_what_cannot_be_narrowed_is_said(
    batches: list[Batch], network: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        narrow(lively(LARGE), network, batches, LARGE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no picture to observe on"):
        narrow(lively(LARGE), HALF, [], LARGE)


# --- learning from a larger one ---------------------------------------------------------------
def test_distilled_is_the_distance_to_what_the_larger_one_reads(batches: list[Batch]) -> None:
    batch = batches[0]
    larger, net = lively(LARGE), lively(LARGE)
    plain = Objective(LARGE, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    assert "distilled" not in plain.encoder_losses(net, batch)[1]
    objective = Objective(LARGE, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS), larger=larger)
    assert objective.encoder_losses(net, batch)[1]["distilled"].item() == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        # every intensity that this network reads is 1 higher
        net.encoder.tokens.bias2 += net.label_tokens.weight.sum(1)[:, None]
    total, terms = objective.encoder_losses(net, batch)
    assert terms["distilled"].item() == pytest.approx(1.0, abs=1e-3)
    without, _ = plain.encoder_losses(net, batch)
    gained = LARGE.losses.distilled * terms["distilled"].item()
    assert (total - without).item() == pytest.approx(gained, rel=1e-3)
    total.backward()
    assert all(p.grad is None for p in larger.parameters())
    off = replace(LARGE, losses=replace(LARGE.losses, distilled=0.0))
    silent = Objective(off, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS), larger=larger)
    assert "distilled" not in silent.encoder_losses(net, batch)[1]


def test_training_hears_a_larger_network_in_both_phases(shards: Path) -> None:  # noqa: F811
    larger = latest_checkpoint(run(shards, "larger") / "checkpoints")
    lines = [line for line in log_of(run(shards, "smaller", distil_from=larger)) if "total" in line]
    assert all("distilled" in line for line in lines)
    whole = ["flow" in line for line in lines]
    assert any(whole) and not all(whole)
    silent = replace(SMOKE, losses=replace(SMOKE.losses, distilled=0.0))
    with pytest.raises(ConfigError, match=r"losses\.distilled is 0"):
        run(shards, "silent", silent, distil_from=larger)


# --- the command --------------------------------------------------------------------------------
def test_command_makes_what_training_starts_from(
    shards: Path,  # noqa: F811
    batches: list[Batch],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # a checkpoint of the larger one
    folder = shards / "large"
    folder.mkdir()
    save_file(lively(LARGE).state_dict(), folder / "ema.safetensors")
    save_file(Critics(LARGE.network).state_dict(), folder / "critics.safetensors")
    (folder / "config.json").write_text(json.dumps(to_dict(LARGE)))
    monkeypatch.setitem(CONFIGS, "rt-nano", replace(LARGE, name="rt-nano", network=HALF))
    words = ["--checkpoint", str(folder), "--shards", str(shards / "train"), "--out"]
    assert main([*words, str(shards / "small")]) == 0
    assert read_state(shards / "small").step == 0
    made = read_config(shards / "small")
    assert made.name == "rt-nano" and made.network == HALF and made.losses == LARGE.losses
    net = build(HALF)
    copied, left = warm_start(shards / "small", net, Critics(HALF))
    assert left == 0 and copied == len(net.state_dict())
    assert main([*words, str(shards / "small")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, str(shards / "other"), "--quadruples", "0"]) == 2
    assert "--quadruples must be 1 or more" in capsys.readouterr().err
    assert main([*words, str(shards / "large" / "ema.safetensors" / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    (folder / "critics.safetensors").unlink()
    assert main([*words, str(shards / "other")]) == 2
    assert "has no critics.safetensors" in capsys.readouterr().err
    assert not list(shards.glob("*other*"))
