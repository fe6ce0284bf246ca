"""Leakage: what fresh classifiers read off the features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rt_swap.aus import NUM_AUS
from tests.support.fake_shards import write_fake_shard
from training.config import get_config
from training.data.dataset import ShardSet
from training.leakage import (
    FEW,
    Features,
    TokenClassifier,
    area_under_roc,
    extract,
    guess_by_fresh_classifier,
    main,
    measure,
    report_text,
)
from training.loop import loop
from training.networks import build

SMOKE = get_config("smoke")


def test_area_known_values() -> None:
    present = np.array([True] * FEW + [False] * FEW)
    rising = np.arange(2 * FEW)
    assert area_under_roc(-rising, present) == 1.0
    assert area_under_roc(rising, present) == 0.0
    assert area_under_roc(np.zeros(2 * FEW), present) == 0.5
    # one of the 8 x 8 pairs the wrong way round
    scores = np.where(present, 1.0, 0.0)
    scores[0] = 0.25
    scores[-1] = 0.5
    assert area_under_roc(scores, present) == 1 - 1 / FEW**2


def test_area_of_too_few_is_no_figure() -> None:
    present = np.array([True] * (FEW - 1) + [False] * 100)
    assert np.isnan(area_under_roc(np.arange(len(present)), present))
    assert np.isnan(area_under_roc(np.arange(len(present)), ~present))


def planted(count: int, seed: int) -> Features:
    """AUs are written into the tokens plainly, into the stem faintly, into f_f not at all."""
    config = SMOKE.network
    draw = torch.Generator().manual_seed(seed)
    present = (torch.rand(count, NUM_AUS, generator=draw) < 0.5).float()

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=draw)

    stem = noise(config.stem_channels[3], 12, 11)
    channels = min(NUM_AUS, stem.shape[1])
    stem[:, :channels] += 0.4 * present[:, :channels, None, None]
    tokens = noise(NUM_AUS, config.token_dim) + 4 * present[:, :, None]
    return Features(stem, noise(config.au_free_channels, 12, 11), tokens, present)


def test_what_is_planted_is_read_and_what_is_not_is_guessed() -> None:
    net = build(SMOKE.network)
    report = measure(net, planted(600, 0), planted(200, 1), steps=150)
    mean = report["mean"]
    assert mean["tokens"] > 0.95
    assert mean["au_free"] == pytest.approx(0.5, abs=0.05)
    assert mean["au_free"] + 0.05 < mean["stem"] < mean["tokens"]
    assert report["aus_counted"] == NUM_AUS
    assert "AU12" in report_text(report)


def test_guesses_follow_from_the_seed_and_leave_torchs_own_chance_alone() -> None:
    data = planted(80, 0)

    def guess(seed: int) -> torch.Tensor:
        return guess_by_fresh_classifier(
            lambda: TokenClassifier(SMOKE.network),
            data.tokens,
            data.present,
            data.tokens,
            steps=3,
            seed=seed,
        )

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = guess(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(guess(0), first)
    assert not torch.equal(guess(1), first)


def test_extract_gives_a_row_for_every_picture(tmp_path: Path) -> None:
    write_fake_shard(tmp_path / "shard_00000", quadruples=3, size_px=64)
    shards = ShardSet([tmp_path])
    net = build(SMOKE.network).eval()
    found = extract(net, shards, None, 0.2)
    assert found.tokens.shape == (12, NUM_AUS, SMOKE.network.token_dim)
    assert found.au_free.shape == (12, SMOKE.network.au_free_channels, 12, 11)
    labels = np.array(shards.shards[0].arrays["aus_lr"]).reshape(12, NUM_AUS, 2)
    assert np.array_equal(found.present.numpy(), labels.max(2) >= 0.2)
    few = extract(net, shards, 2, 0.2)
    assert torch.equal(few.present, found.present[:8])
    torch.testing.assert_close(few.au_free, found.au_free[:8])


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder with shards of both splits and a checkpoint."""
    write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=3, size_px=64)
    write_fake_shard(
        tmp_path / "val" / "shard_00000", quadruples=6, size_px=64, seed=9, split="val"
    )
    loop(
        config=SMOKE,
        shards=[tmp_path / "train"],
        val_shards=[],
        out=tmp_path / "run",
        max_steps=1,
        device="cpu",
        threads=1,
    )
    return tmp_path


def command(folder: Path, *more: str) -> list[str]:
    (checkpoint,) = (folder / "run" / "checkpoints").iterdir()
    return ["--checkpoint", str(checkpoint), "--shards", str(folder / "train"), *more]


def test_command_writes_the_report(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained / "leakage.json"
    options = ["--val-shards", str(trained / "val"), "--steps", "2", "--json", str(out)]
    assert main(command(trained, *options)) == 0
    report = json.loads(out.read_text())
    assert (report["pictures"], report["trained_on"]) == (24, 12)
    assert set(report["per_au"]["AU12"]) == {"stem", "au_free", "tokens"}
    assert "AU-free" in capsys.readouterr().out


def test_command_refuses_people_it_learnt_from(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(trained, "--val-shards", str(trained / "train"))) == 2
    assert "in both" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--steps", "--limit"])
def test_command_refuses_nothing_to_do(
    trained: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(trained, "--val-shards", str(trained / "val"), option, "0")) == 2
    assert "1 or more" in capsys.readouterr().err
