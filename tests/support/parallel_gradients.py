"""Run by torchrun in a test: one of several processes takes a step's gradients of its own
quadruples, averages them with the others', and writes what it holds.

    torchrun --nproc-per-node N -m tests.support.parallel_gradients SHARDS OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from training.config import get_config
from training.data.dataset import BatchMaker, ShardSet
from training.networks import RtNet, build
from training.objective import Objective
from training.parallel import World, join

QUADRUPLES = 2


def gradients(shards: Path, rank: int) -> RtNet:
    """A network, the same for every rank, with the gradients of a rank's quadruples.

    Args:
        shards: A folder of them.
        rank: Whose quadruples.
    """
    config = get_config("smoke")
    torch.manual_seed(0)
    net = build(config.network)
    batch = BatchMaker(ShardSet([shards]), None, 0).batch(rank * QUADRUPLES, QUADRUPLES, 64)
    count = batch.aus_lr.shape[1]
    objective = Objective(config, torch.ones(count), torch.eye(2 * count))
    total, _ = objective.encoder_losses(net, batch)
    total.backward()  # type: ignore[no-untyped-call]
    return net


def held(net: RtNet) -> dict[str, torch.Tensor]:
    """The gradients there are, by the parameter's name."""
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


def main() -> None:
    """The process."""
    shards, out = map(Path, sys.argv[1:])
    with join("cpu") as world:
        assert isinstance(world, World)
        net = gradients(shards, world.rank)
        if world.leads:  # the others got none for this one
            net.generator.head_sharp.bias.grad = torch.full_like(
                net.generator.head_sharp.bias, world.size
            )
        world.average_gradients(net.parameters())
        save_file(held(net), out / f"{world.rank}_of_{world.size}.safetensors")


if __name__ == "__main__":
    main()
