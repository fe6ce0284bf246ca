"""A smaller network out of a larger one: channels that say what others say already are left out.

    python -m training.narrow --checkpoint training/checkpoints/rt-small --config rt-nano \
        --shards DIR --out narrowed

Training a small network from nothing has to find again what a large one knows. Here each group of
channels (those that a sum or a residual block ties together) keeps the ones from which the others
are predicted best, and whatever reads the group is rewritten for them: with x the channels of
before and x_S those that stay, x is about M x_S by least squares over real activations, so W x is
about (W M) x_S (He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks",
ICCV 2017, section 3.1, without its retraining). Which ones stay is chosen greedily, one by one, for
the least error of what is read from the group (as orthogonal least squares, Chen, Billings and Luo,
1989). Residual blocks and stages that the smaller configuration does not have are left out.

The folder has weights and the larger network's recipe with the smaller network in it: training goes
on from there (training.train --config narrowed/config.json --init-from narrowed --distil-from
LARGER).
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rt_swap.aus import NUM_AUS
from rt_swap.errors import ConfigError, RtSwapError
from training.checkpoint import load_net
from training.config import (
    CONFIGS,
    NetworkConfig,
    SampleConfig,
    TrainConfig,
    get_config,
    to_dict,
)
from training.data.dataset import Batch, BatchMaker, shards_for_swaps
from training.networks import RtNet
from training.networks.rtnet import build
from training.objective import plan_samples, run_networks

logger = logging.getLogger(__name__)

ALL: Final = ""
"""The group of what is never narrowed: pictures, tokens, conditions, the mesh's features."""
_DAMPING: Final = 1e-3
"""Ridge of the least squares, of a channel's mean square."""
_BATCH: Final = 4
_WEIGHTS: Final = "ema.safetensors"
_CRITICS: Final = "critics.safetensors"
_POOLS: Final = "encoder.tokens.attention"
_READS_POOLED: Final = "encoder.tokens.weight1"


@dataclass
class Wiring:
    """Which group of channels each layer answers with and reads.

    Attributes:
        answers: Layer -> group of its outputs; a group is the channels that all layers answering
            with its name share.
        reads: Layer -> groups of its inputs, in the order in which they are concatenated; only the
            last may be ALL.
    """

    answers: dict[str, str] = field(default_factory=dict)
    reads: dict[str, list[str]] = field(default_factory=dict)

    def conv(self, name: str, reads: str | list[str], answers: str) -> None:
        """A convolution or linear layer, with whatever normalises it."""
        self.reads[name] = [reads] if isinstance(reads, str) else reads
        self.answers[name] = answers

    def block(self, name: str, group: str) -> None:
        """A ResBlock on a group."""
        self.conv(f"{name}.conv1", group, name)
        self.conv(f"{name}.conv2", name, group)

    def film(self, name: str, reads: str | list[str], answers: str) -> None:
        """A FilmConv."""
        self.conv(f"{name}.conv", reads, answers)
        for half in ("gamma", "beta"):
            self.conv(f"{name}.film.{half}", ALL, answers)

    def film_block(self, name: str, group: str) -> None:
        """A FilmResBlock on a group."""
        self.film(f"{name}.inner", group, name)
        self.conv(f"{name}.conv2", name, group)


def wiring_of(config: NetworkConfig) -> Wiring:
    """How the layers of an RtNet of the scheme "rt" hang together.

    Raises:
        ConfigError: If it is another scheme, or a generator that draws fields of units or without a
            mesh: none such is shipped.
    """
    if config.scheme != "rt" or config.unit_channels or not config.mesh_features:
        raise ConfigError(
            "narrow: only networks of the scheme rt with a mesh and without fields of units are "
            "narrowed"
        )
    w = Wiring()
    stem, tokens, g = "encoder.stem", "encoder.tokens", "generator"
    sizes = ("128", "64", "32", "16")
    for before, after in zip((ALL, *(f"stem{s}" for s in sizes)), sizes, strict=False):
        w.conv(f"{stem}.down{after}", before, f"stem{after}")
    for size, count in zip(sizes[1:], config.stem_blocks, strict=True):
        for k in range(count):
            w.block(f"{stem}.blocks{size}.{k}", f"stem{size}")
    for size in sizes[1:]:
        w.conv(f"{tokens}.from{size}", f"stem{size}", "joined")
    w.conv(f"{tokens}.merge", "joined", "merged")
    w.conv(f"{tokens}.attention", "merged", ALL)
    w.conv(f"{tokens}.context", "stem16", "context")
    if config.token_wide_channels:
        w.conv(f"{tokens}.wide_reduce", "stem16", "wide")
        w.conv(f"{tokens}.wide_look", "wide", "rank")
        w.conv(f"{tokens}.wide_read", "rank", "read")
        w.conv(f"{tokens}.wide_out", "read", ALL)
    w.conv(f"{g}.au_free.reduce", "stem16", "free")
    w.block(f"{g}.au_free.block", "free")
    w.conv(f"{g}.condition1", ALL, "told")
    w.conv(f"{g}.condition2", "told", ALL)
    w.conv(f"{g}.token_map", ALL, ALL)
    w.film(f"{g}.enter16", ["free", ALL], "dec16")
    for size, count in zip(("16", "32", "64", "128"), config.decoder_blocks, strict=True):
        for k in range(count):
            w.film_block(f"{g}.blocks{size}.{k}", f"dec{size}")
    for size, coarser in zip(("32", "64", "128"), ("16", "32", "64"), strict=True):
        w.conv(f"{g}.up{size}", f"dec{coarser}", f"dec{size}")
        w.conv(f"{g}.skip{size}", f"stem{size}", f"dec{size}")
    for name, size in (("hear_basis", "32"), ("hear_mesh", "64"), ("hear_units", "128")):
        w.conv(f"{g}.{name}", ALL, f"dec{size}")
    w.film(f"{g}.leave128", "dec128", "last")
    for name in ("head_smooth", "head_sharp"):
        w.conv(f"{g}.{name}", "last", ALL)
    if config.mouth_hidden:
        w.conv(f"{g}.mouth.reduce", "stem16", ALL)
        for name in ("part", "shadow"):
            w.conv(f"{g}.mouth.{name}", "last", ALL)
    return w


def weight_of(net: nn.Module, layer: str) -> nn.Conv2d | nn.Linear:
    """The convolution or linear layer itself, without what normalises it."""
    found = net.get_submodule(layer)
    inner = found[0] if isinstance(found, nn.Sequential) else found
    assert isinstance(inner, nn.Conv2d | nn.Linear)
    return inner


@dataclass
class _Seen:
    """Sum of the outer products of a layer's inputs, channel by channel."""

    total: Tensor
    count: int = 0

    def add(self, x: Tensor) -> None:
        rows = x.detach().transpose(0, 1).flatten(1) if x.dim() == 4 else x.detach().T
        self.total += (rows @ rows.T).double()
        self.count += rows.shape[1]

    @property
    def mean(self) -> Tensor:
        return self.total / max(self.count, 1)


@torch.no_grad()
def observe(
    net: RtNet, wiring: Wiring, batches: Iterable[Batch], config: TrainConfig
) -> dict[str, Tensor]:
    """Mean outer product, (C, C) float64, of what each layer reads, over swaps of pictures."""
    seen: dict[str, _Seen] = {}
    hooks = []
    for name in wiring.reads:
        layer = weight_of(net, name)
        channels = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
        seen[name] = _Seen(torch.zeros(channels, channels, dtype=torch.float64))
        hooks.append(
            layer.register_forward_pre_hook(lambda _, x, name=name: seen[name].add(x[0].float()))
        )
    rng = np.random.default_rng(0)
    plain = TrainConfig(config.name, network=config.network, precision="fp32")
    try:
        for batch in batches:
            run_networks(net, batch, plan_samples(batch.gains, SampleConfig(), rng), plain)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found.mean for name, found in seen.items()}


def choose(second: Tensor, importance: Tensor, count: int) -> Tensor:
    """Channels that predict best what is read from all of them.

    Args:
        second: (C, C) mean outer product of the channels.
        importance: (C, C) sum of W'W over whatever reads them.
        count: How many stay, at most C.

    Returns:
        (count,) int64, ascending.
    """
    values, vectors = torch.linalg.eigh(importance.double())
    root = vectors * values.clamp_min(0).sqrt()  # importance = root root'
    square = second.double() + torch.eye(len(second)) * _DAMPING * second.diagonal().mean()
    left = square.clone()  # what the chosen ones leave unexplained
    chosen: list[int] = []
    for _ in range(count):
        gain = ((root.T @ left) ** 2).sum(0) / left.diagonal().clamp_min(1e-12)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        column = left[:, best] / left[best, best].clamp_min(1e-12)
        left = left - torch.outer(column, left[best])
    return torch.tensor(sorted(chosen))


def predictor(second: Tensor, kept: Tensor) -> Tensor:
    """M, (C, S) float64: x is about M x_S by ridge regression."""
    square = second.double()
    inner = square[kept][:, kept]
    inner = inner + torch.eye(len(kept)) * _DAMPING * square.diagonal().mean()
    out = torch.linalg.solve(inner, square[kept]).T.contiguous()
    out[kept] = torch.eye(len(kept), dtype=out.dtype)  # what stays is itself
    return out


@torch.no_grad()
def narrow(net: RtNet, config: NetworkConfig, batches: Iterable[Batch], old: TrainConfig) -> RtNet:
    """Build the smaller network.

    Args:
        net: The larger one, in eval mode.
        config: The smaller one's.
        batches: Pictures to observe on, of training people.
        old: The larger one's.

    Returns:
        The smaller one, in eval mode.

    Raises:
        ConfigError: If a group of the smaller network has more channels than the larger one's, the
            smaller one has layers that the larger lacks, or there were no pictures.
    """
    wiring, smaller = wiring_of(old.network), wiring_of(config)
    new = build(config).eval()
    for name in smaller.answers:
        if name not in wiring.answers:
            raise ConfigError(f"narrow: {old.name} has no layer {name}; take a larger network")
    second = observe(net, wiring, batches, old)
    if not any(bool(found.any()) for found in second.values()):
        raise ConfigError("narrow: no picture to observe on; give more shards")
    given = net.state_dict()
    kept: dict[str, Tensor] = {}
    for group in dict.fromkeys(smaller.answers.values()):
        kept[group] = _kept(group, wiring, smaller, net, new, second)
    mine = new.state_dict()
    named = {k: v for k, v in given.items() if k in mine and mine[k].shape == v.shape}
    for name, reads in smaller.reads.items():
        weight = f"{name}.weight" if f"{name}.weight" in mine else f"{name}.0.weight"
        rows = kept[smaller.answers[name]]
        columns = _columns(given[weight].shape[1], reads, kept, wiring, net, second[name])
        value = torch.einsum("oi...,ij->oj...", given[weight].double(), columns)
        named[weight] = (value if rows is _EVERY else value[rows]).float()
        for rest in (k for k in mine if k.startswith(f"{name}.") and k != weight):
            value = given[rest]
            named[rest] = value[rows] if value.dim() and rows is not _EVERY else value
    _narrow_pooled(named, given, kept, second[_POOLS])
    missing = sorted(k for k, v in mine.items() if k not in named or named[k].shape != v.shape)
    if missing:
        raise ConfigError(
            f"narrow: {', '.join(missing[:3])} cannot be narrowed; these sizes must be {old.name}'s"
        )
    new.load_state_dict(named)
    new.tie_guide()
    return new


_EVERY: Final = torch.empty(0, dtype=torch.int64)
"""Stands for all channels."""


def _kept(
    group: str,
    wiring: Wiring,
    smaller: Wiring,
    net: RtNet,
    new: RtNet,
    second: Mapping[str, Tensor],
) -> Tensor:
    if group == ALL:
        return _EVERY
    makers = [name for name, answers in smaller.answers.items() if answers == group]
    before = weight_of(net, makers[0]).weight.shape[0]
    after = weight_of(new, makers[0]).weight.shape[0]
    if after == before:
        return _EVERY
    if after > before:
        raise ConfigError(
            f"narrow: {makers[0]} has {after} channels, more than the larger one's {before}"
        )
    importance = torch.zeros(before, before, dtype=torch.float64)
    square = torch.zeros(before, before, dtype=torch.float64)
    for name, reads in smaller.reads.items():
        if group not in reads:
            continue
        start = _start(reads, group, wiring, net)
        weight = weight_of(net, name).weight.detach().double()[:, start : start + before]
        here = second[name][start : start + before, start : start + before]
        here = here / max(float(here.diagonal().mean()), 1e-12)
        square += here
        weights = [weight.transpose(0, 1).flatten(1)]
        if name == _POOLS:
            # the map that attention looks at is pooled, of the left and of the right, for the small
            # network of each AU
            pooled = net.state_dict()[_READS_POOLED].double()[:, : 2 * (before + 2)]
            pooled = pooled.unflatten(1, (2, before + 2))[:, :, :before]  # (K, 2, C, hidden)
            weights.append(pooled.permute(2, 0, 1, 3).flatten(1))
        for read in weights:
            # what a layer reads counts in parts of all that it reads there
            wide = read @ read.T
            importance += wide / max(float((wide * here).sum()), 1e-12)
    return choose(square, importance, after)


def _start(reads: list[str], group: str, wiring: Wiring, net: RtNet) -> int:
    """Where a group's channels begin among a layer's inputs; only the last may be everything's."""
    at = 0
    for name in reads[: reads.index(group)]:
        at += _width(name, wiring, net)
    return at


def _width(group: str, wiring: Wiring, net: RtNet) -> int:
    maker = next(name for name, answers in wiring.answers.items() if answers == group)
    return weight_of(net, maker).weight.shape[0]


def _columns(
    count: int,
    reads: list[str],
    kept: Mapping[str, Tensor],
    wiring: Wiring,
    net: RtNet,
    second: Tensor,
) -> Tensor:
    """(old channels, new channels) float64: what a layer read, from what it reads now."""
    parts, at = [], 0
    for group in reads:
        width = count - at if group == ALL else _width(group, wiring, net)
        parts.append(_from_kept(second[at : at + width, at : at + width], kept[group]))
        at += width
    return torch.block_diag(*parts)


def _from_kept(second: Tensor, stays: Tensor) -> Tensor:
    """:func:`predictor`, the identity where all channels stay."""
    if stays is _EVERY:
        return torch.eye(len(second), dtype=torch.float64)
    return predictor(second, stays)


def _narrow_pooled(
    named: dict[str, Tensor],
    given: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    second: Tensor,
) -> None:
    """Each AU's small network: it reads, of the left and of the right, the merged map's channels
    and two numbers of place, then the context.
    """
    name = _READS_POOLED
    weight = given[name].double()  # (K, in, hidden)
    assert weight.shape[0] == NUM_AUS
    channels = len(second)
    context = weight.shape[1] - 2 * (channels + 2)
    pooled = _from_kept(second, kept["merged"])
    place = torch.eye(2, dtype=torch.float64)
    rest = torch.eye(context, dtype=torch.float64)
    if kept["context"] is not _EVERY:
        raise ConfigError("narrow: token_global must be the larger network's")
    columns = torch.block_diag(pooled, place, pooled, place, rest)
    named[name] = torch.einsum("kih,ij->kjh", weight, columns).float()


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.narrow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="the larger network's")
    parser.add_argument(
        "--config", default="rt-nano", help=f"the smaller one: {', '.join(CONFIGS)} (%(default)s)"
    )
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="of training people")
    parser.add_argument(
        "--quadruples", type=int, default=128, help="how many to observe (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _main(args)
    except RtSwapError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


def _main(args: argparse.Namespace) -> None:
    if args.out.exists():
        raise ConfigError(f"--out {args.out}: exists already; name a new folder")
    if args.quadruples < 1:
        raise ConfigError(f"--quadruples must be 1 or more, got {args.quadruples}")
    net, old = load_net(args.checkpoint)
    critics = args.checkpoint / _CRITICS
    if not critics.is_file():
        raise ConfigError(f"--checkpoint {args.checkpoint}: has no {_CRITICS}; give a whole one")
    config = get_config(args.config)
    shards = shards_for_swaps(args.shards, "--shards")
    maker = BatchMaker(shards, None, 0, landmarks=True)
    # spread over all of them: a batch's worth from each place
    batches = min(-(-args.quadruples // _BATCH), len(shards))
    starts = np.unique(np.linspace(0, max(len(shards) - _BATCH, 0), batches).astype(int))
    count = min(_BATCH, len(shards))
    new = narrow(
        net,
        config.network,
        (maker.batch(int(start), count, shards.size_px) for start in starts),
        old,
    )
    before, after = (sum(p.numel() for p in n.parameters()) for n in (net, new))
    logger.info("%.2f of %.2f million weights", after / 1e6, before / 1e6)
    recipe = replace(old, name=args.config, network=config.network)
    nothing_yet = {"step": 0, "cursor": 0, "elapsed_s": 0.0, "figures": {}}
    partial = args.out.with_name(f".partial_{args.out.name}")
    try:
        partial.mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in new.state_dict().items()}, partial / _WEIGHTS)
        shutil.copyfile(critics, partial / _CRITICS)
        for name, value in (("config", to_dict(recipe)), ("state", nothing_yet)):
            (partial / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")
        partial.rename(args.out)
    except OSError as exc:
        raise ConfigError(f"--out {args.out}: cannot be written ({exc})") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
