"""``python -m training.train``: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rt_swap.errors import ConfigError
from tests.support.fake_shards import write_fake_shard
from training.config import get_config, with_overrides
from training.train import build_parser, git_commit, main, resolve


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=2, size_px=64)
    write_fake_shard(
        tmp_path / "val" / "shard_00000", quadruples=1, size_px=64, seed=9, split="val"
    )
    return tmp_path


def arguments(shards: Path, *more: str) -> list[str]:
    return [
        "--config",
        "smoke",
        "--shards",
        str(shards / "train"),
        "--val-shards",
        str(shards / "val"),
        "--out",
        str(shards / "run"),
        "--device",
        "cpu",
        "--threads",
        "1",
        *more,
    ]


def test_dry_run_prints_the_config_and_writes_nothing(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(shards, "--dry-run", "--set", "losses.image=2.5", "--seed", "4")) == 0
    text = capsys.readouterr().out
    printed, _ = json.JSONDecoder().raw_decode(text)
    assert printed["config"]["losses"]["image"] == 2.5
    assert printed["config"]["seed"] == 4
    assert "train: 2 quadruples, 4 real crops, 64 px" in text
    assert not (shards / "run").exists()


def test_run_then_refuse_then_resume(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(shards, "--steps", "4", "--max-steps", "2")) == 0
    saved = json.loads((shards / "run" / "config.json").read_text())
    assert saved["config"]["steps"] == 4
    assert (shards / "run" / "checkpoints" / "step_00000002" / "ema.safetensors").is_file()
    assert main(arguments(shards, "--steps", "4")) == 2
    assert "already holds a run; give --resume" in capsys.readouterr().err
    assert main(arguments(shards, "--steps", "4", "--resume")) == 0
    assert "4 steps" in capsys.readouterr().out


def test_saved_config_can_be_given_again(shards: Path) -> None:
    assert main(arguments(shards, "--max-steps", "1")) == 0
    args = build_parser().parse_args(arguments(shards))
    args.config = str(shards / "run" / "config.json")
    assert resolve(args) == get_config("smoke")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--config", "rt-huge"),
            "no configuration 'rt-huge'; there are rt-nano, rt-small, rt-base, eft, ganimation, "
            "smoke",
        ),
        (("--config", "missing.json"), "--config missing.json cannot be read"),
        (("--set", "losses.image"), "--set takes OPTION=VALUE"),
        (("--set", "losses.sharp=1"), "no option 'losses.sharp'"),
        (("--set", "losses.image=-1"), "losses.image must be 0 or more, got -1"),
        (("--set", "losses.image=much"), "cannot read 'much' for losses.image"),
        (("--set", "precision=fp8"), "precision must be 'bf16' or 'fp32', got 'fp8'"),
        (("--steps", "0"), "--steps must be positive"),
        (("--time-budget-min", "-3"), "--time-budget-min must be positive"),
        (("--resume", "--init-from", "x"), "exclude each other"),
        (("--init-parts", "encoder"), "give --init-from, too"),
        (("--init-from", "nowhere"), "nowhere/ema.safetensors is missing or corrupt"),
        (("--shards", "nowhere"), "nowhere is no shard"),
    ],
)
def test_wrong_options_get_one_sentence_and_code_2(
    shards: Path, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(shards, *more)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_overrides_keep_types() -> None:
    config = with_overrides(
        get_config("smoke"),
        {"optim.lr": "1", "losses.cycle_every": "3", "network.stem_channels": "[8,8,8,8]"},
    )
    assert config.optim.lr == 1.0
    assert isinstance(config.optim.lr, float)
    assert config.losses.cycle_every == 3
    assert config.network.stem_channels == (8, 8, 8, 8)
    with pytest.raises(ConfigError, match=r"losses\.cycle_every takes a int"):
        with_overrides(config, {"losses.cycle_every": "2.5"})


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        (
            "phases",
            '[{"size_px": 100, "quadruples": 1, "until": 1.0}]',
            "phases.size_px must be a divisor of 256",
        ),
        (
            "phases",
            '[{"size_px": 64, "quadruples": 1, "until": 0.5}]',
            "phases.until must be ascending and 1.0",
        ),
        ("samples.swap", "0.9", "samples must be fractions that add up to 1"),
        ("augment.flip", "1.5", "augment.flip must be a probability"),
        ("network.stem_blocks", "[1, 2]", "network.stem_blocks must be three counts"),
        ("losses.region_weights", "[1, 2]", "losses.region_weights must be six numbers"),
        ("optim.ema_decay", "1.0", "optim.ema_decay must be in"),
        ("log.log_every", "0", "log.log_every must be 1 or more"),
    ],
)
def test_checks_name_the_option(option: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_overrides(get_config("smoke"), {option: text})


def test_git_commit_is_a_hash_or_none() -> None:
    commit = git_commit()
    assert commit is None or len(commit.rstrip("+")) == 40
