"""Several processes train one network: data parallelism under ``torchrun``.

    torchrun --nproc-per-node 8 -m training.train ...                     # one machine
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint HOST:PORT ...  # several

Every process makes its own quadruples of a step and the gradients are averaged (Li et al.,
"PyTorch Distributed", VLDB 2020, section 2.3), so the batch grows with the processes while weights,
optimisers and the moving average stay the same in all of them. The networks are not wrapped: their
parts are called one by one, several times a step, which a wrapper's bookkeeping does not allow.
Batch statistics are each process's own in a step, and their running averages are averaged.

Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from rt_swap.errors import ConfigError


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes:
        rank: This one's number, 0 to size - 1.
        size: How many there are.
        local_rank: Its number on its machine, which is the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that logs, validates and saves."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device for "auto", "cpu" or "cuda"; each process of a machine has its own GPU."""
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(name, self.local_rank) if name == "cuda" else torch.device(name)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each floating-point tensor, in place, by its mean over all processes."""
        if self.size == 1:
            return
        for kind in dict.fromkeys((t.dtype, t.device) for t in tensors if t.is_floating_point()):
            alike = [t for t in tensors if (t.dtype, t.device) == kind]
            flat = torch.cat([t.detach().reshape(-1) for t in alike])
            distributed.all_reduce(flat)
            flat /= self.size
            for tensor, mean in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
                tensor.copy_(mean.view(tensor.shape))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average gradients; a parameter that got none in some process counts as 0 there, and one
        that got none in any keeps none.
        """
        if self.size == 1:
            return
        learning = [p for p in parameters if p.requires_grad]
        has = torch.tensor(
            [p.grad is not None for p in learning], dtype=torch.int32, device=learning[0].device
        )
        distributed.all_reduce(has, distributed.ReduceOp.MAX)
        gradients = []
        for parameter, some in zip(learning, has.tolist(), strict=True):
            if some and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        with torch.no_grad():
            self.average(gradients)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is so in any process."""
        if self.size == 1:
            return flag
        told = torch.tensor([flag], dtype=torch.int32, device=device)
        distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return bool(told.item())

    def leaders(self, value: float, device: torch.device) -> float:
        """The value that the leading process has."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(told, 0)
        return float(told.item())


@contextmanager
def join(device: str) -> Iterator[World]:
    """Meet the other processes that torchrun started, if it did.

    Args:
        device: "auto", "cpu" or "cuda": NCCL connects GPUs, Gloo the rest.

    Raises:
        ConfigError: If torchrun's variables make no sense, or there are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    try:
        world = World(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError) as exc:
        raise ConfigError(
            f"train: WORLD_SIZE is set but {exc} is not as torchrun sets it; start by torchrun"
        ) from exc
    place = world.device(device)
    if place.type == "cuda":
        if world.local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"train: process {world.local_rank} of this machine has no GPU, there are "
                f"{torch.cuda.device_count()}; give --nproc-per-node that many"
            )
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield world
    finally:
        distributed.destroy_process_group()
