"""Checkpoints come back as they were, whole or not at all."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from rt_swap.errors import ConfigError, ModelFileError
from training.checkpoint import (
    Progress,
    latest_checkpoint,
    load_net,
    read_config,
    read_state,
    resume_checkpoint,
    save_checkpoint,
    warm_start,
)
from training.config import (
    CONFIGS,
    TrainConfig,
    from_dict,
    get_config,
    to_dict,
    with_overrides,
)
from training.networks import Critics, build
from training.networks.encoder import look

SMOKE = get_config("smoke")


class Kit:
    """A run's parts, with optimisers that have taken a step."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = build(SMOKE.network)
        self.ema = copy.deepcopy(self.net)
        self.critics = Critics(SMOKE.network)
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "net": torch.optim.AdamW(self.net.parameters(), 1e-3, fused=True),
            "critics": torch.optim.Adam(self.critics.parameters(), 1e-4, fused=True),
        }

    def step(self) -> None:
        picture = torch.linspace(0.1, 0.5, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
        encoded = self.net.encoder(look(picture))
        said = self.net.generator(encoded.features, encoded.tokens, encoded.tokens * 0.5, 32)
        (said.fill_rgb.square().mean() + said.flow_raw.sum() + encoded.aus_lr.mean()).backward()
        self.critics.face(torch.ones(1, 3, 32, 32)).sum().backward()
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad()

    def save(self, folder: Path, progress: Progress, keep: int = 2) -> Path:
        return save_checkpoint(
            folder, SMOKE, self.net, self.ema, self.critics, self.optimisers, progress, keep
        )


def test_resume_restores_weights_optimisers_progress_and_chance(tmp_path: Path) -> None:
    first = Kit(0)
    first.step()
    path = first.save(tmp_path, Progress(7, 21, 12.5, {"image_error": 0.25}))
    chance = torch.rand(3)
    second = Kit(1)
    progress = resume_checkpoint(
        path, SMOKE.network, second.net, second.ema, second.critics, second.optimisers
    )
    assert (progress.step, progress.cursor, progress.elapsed_s) == (7, 21, 12.5)
    assert progress.figures == {"image_error": 0.25}
    assert torch.equal(torch.rand(3), chance)
    # one more step of each gives the same weights only if the optimisers' state came along
    for kit in (first, second):
        kit.step()
    for a, b in ((first.net, second.net), (first.critics, second.critics)):
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
            torch.testing.assert_close(x, y, atol=0, rtol=0, msg=name)


def test_load_net_gives_averaged_weights_in_eval_mode(tmp_path: Path) -> None:
    kit = Kit(0)
    kit.step()  # net moves away from its average
    path = kit.save(tmp_path, Progress(1))
    averaged, config = load_net(path)
    assert config == SMOKE
    assert not averaged.training
    weight = "encoder.stem.down128.0.weight"
    assert torch.equal(averaged.state_dict()[weight], kit.ema.state_dict()[weight])
    assert torch.equal(
        load_net(path, averaged=False)[0].state_dict()[weight], kit.net.state_dict()[weight]
    )


def test_only_the_newest_are_kept_and_nothing_partial_stays(tmp_path: Path) -> None:
    kit = Kit(0)
    assert latest_checkpoint(tmp_path) is None
    for step in (1, 2, 10):
        kit.save(tmp_path, Progress(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000002", "step_00000010"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step_00000010"
    assert read_state(newest).step == 10


def test_failed_save_leaves_the_last_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = Kit(0)
    kit.save(tmp_path, Progress(1))

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        kit.save(tmp_path, Progress(2))
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000001"]


def test_no_file_of_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    path = Kit(0).save(tmp_path, Progress(1))
    assert {p.suffix for p in path.iterdir()} == {".json", ".safetensors"}


def test_truncated_weights_are_refused_by_name(tmp_path: Path) -> None:
    path = Kit(0).save(tmp_path, Progress(1))
    file = path / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelFileError, match=r"ema\.safetensors is missing or corrupt"):
        load_net(path)


def test_resume_with_another_network_is_refused(tmp_path: Path) -> None:
    kit = Kit(0)
    path = kit.save(tmp_path, Progress(1))
    with pytest.raises(ConfigError, match="another network configuration"):
        resume_checkpoint(
            path, get_config("rt-nano").network, kit.net, kit.ema, kit.critics, kit.optimisers
        )


def test_warm_start_copies_what_fits(tmp_path: Path) -> None:
    kit = Kit(0)
    path = kit.save(tmp_path, Progress(1))
    other = Kit(1)
    copied, left = warm_start(path, other.net, other.critics)
    assert left == 0
    assert copied == len(other.net.state_dict())
    name = "encoder.stem.down128.0.weight"
    assert torch.equal(other.net.state_dict()[name], kit.ema.state_dict()[name])
    wider = build(with_overrides(SMOKE, {"network.condition_dim": "24"}).network)
    copied, left = warm_start(path, wider, other.critics)
    assert copied > 0
    assert left > 0


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config_goes_through_json_unchanged(name: str) -> None:
    config = get_config(name)
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_read_config_names_unknown_options(tmp_path: Path) -> None:
    path = Kit(0).save(tmp_path, Progress(1))
    values = to_dict(read_config(path))
    values["losses"]["sharpness"] = 1.0
    (path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"config\.losses: unknown option sharpness"):
        read_config(path)


def test_the_committed_checkpoints_can_be_gone_on_from() -> None:
    root = Path(__file__).parents[2] / "training" / "checkpoints"
    folders = sorted(p.parent for p in root.glob("*/config.json"))
    assert folders
    for folder in folders:
        net, config = load_net(folder)
        assert config.name == folder.name
        told = dict(net.generator.named_buffers()).get("tokens_to_aus")
        if told is not None:
            torch.testing.assert_close(told, torch.linalg.pinv(net.label_tokens.weight))
