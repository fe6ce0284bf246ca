"""Several processes, one network: two Gloo processes on this machine's loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rt_swap.errors import ConfigError
from tests.support.fake_shards import write_fake_shard
from tests.support.parallel_gradients import QUADRUPLES, gradients, held
from training.checkpoint import latest_checkpoint, read_state
from training.config import get_config
from training.loop import loop
from training.parallel import World, join

ROOT = Path(__file__).resolve().parents[2]
SMOKE = get_config("smoke")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=2 * QUADRUPLES, size_px=64)
    write_fake_shard(
        tmp_path / "val" / "shard_00000", quadruples=1, size_px=64, seed=9, split="val"
    )
    return tmp_path


def torchrun(*arguments: str) -> str:
    """Run a module in two processes; what they printed."""
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_two_processes_have_the_gradients_of_one_that_takes_both_halves(shards: Path) -> None:
    torchrun("tests.support.parallel_gradients", str(shards / "train"), str(shards))
    first, second = (load_file(shards / f"{rank}_of_2.safetensors") for rank in (0, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes: the order of sums differs with their number
    try:
        halves = [held(gradients(shards / "train", rank)) for rank in (0, 1)]
    finally:
        torch.set_num_threads(threads)
    lone = "generator.head_sharp.bias"
    assert set(first) == set(second) == {*halves[0], lone}
    largest = max(float(gradient.abs().max()) for gradient in halves[0].values())
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name])
        if name != lone:
            mean = (halves[0][name] + halves[1][name]) / 2
            torch.testing.assert_close(gradient, mean, atol=1e-6 * largest, rtol=1e-3)
    # a gradient in one process only is shared, too
    assert torch.equal(first[lone], torch.ones_like(first[lone]))
    assert not any(torch.equal(halves[0][n], halves[1][n]) for n in halves[0] if "conv" in n)


def arguments(shards: Path, *more: str) -> list[str]:
    return [
        "training.train", "--config", "smoke", "--shards", str(shards / "train"),
        "--val-shards", str(shards / "val"), "--out", str(shards / "run"), "--device", "cpu",
        "--threads", "1", *more,
    ]  # fmt: skip


def test_two_processes_train_stop_and_go_on(shards: Path) -> None:
    said = torchrun(*arguments(shards, "--max-steps", "2"))
    assert said.count("2 steps, ") == 1  # one of them speaks
    state = read_state(latest_checkpoint(shards / "run" / "checkpoints"))  # type: ignore[arg-type]
    quadruples = SMOKE.phases[0].quadruples
    assert (state.step, state.cursor) == (2, 2 * 2 * quadruples)
    assert json.loads((shards / "run" / "config.json").read_text())["processes"] == 2

    torchrun(*arguments(shards, "--max-steps", "3", "--resume"))
    state = read_state(latest_checkpoint(shards / "run" / "checkpoints"))  # type: ignore[arg-type]
    assert (state.step, state.cursor) == (3, 3 * 2 * quadruples)
    steps = [json.loads(line) for line in (shards / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "total" in line] == [1, 2, 3]


def test_alone_it_is_one_process_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join("cpu") as world:
        assert world == World()
    value = torch.tensor([1.0, 2.0])
    world.average([value])
    assert value.tolist() == [1.0, 2.0]
    parameter = torch.nn.Parameter(torch.zeros(2))
    world.average_gradients([parameter])
    assert parameter.grad is None
    assert world.any(True, torch.device("cpu"))
    assert not world.any(False, torch.device("cpu"))
    assert world.leaders(1.5, torch.device("cpu")) == 1.5


def test_half_set_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="start by torchrun"), join("cpu"):
        pass


def test_every_process_of_a_machine_has_a_gpu_of_its_own() -> None:
    assert World(5, 8, 1).device("cuda") == torch.device("cuda", 1)
    assert World(5, 8, 1).device("cpu") == torch.device("cpu")
    assert [World(rank, 2).leads for rank in (0, 1)] == [True, False]


def test_one_process_trains_as_it_did(shards: Path) -> None:
    """A world of one gives the very weights that no world gives."""
    nets = []
    for name, world in (("a", None), ("b", World())):
        out = shards / name
        loop(
            config=SMOKE,
            shards=[shards / "train"],
            val_shards=[],
            out=out,
            max_steps=2,
            device="cpu",
            threads=1,
            world=world,
        )
        nets.append(load_file(latest_checkpoint(out / "checkpoints") / "model.safetensors"))  # type: ignore[operator]
    assert all(torch.equal(nets[0][n], nets[1][n]) for n in nets[0])
