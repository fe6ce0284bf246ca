"""How much of an expression can still be read off the feature that should be free of it.

    python -m training.leakage --checkpoint DIR --shards DIR --val-shards DIR [--json FILE]

A *fresh* classifier, one that took no part in training, learns to say which AUs are present from
one of three things the networks make of a picture of the training people; it is scored on held-out
people:

    stem       what E_f is given: the stem's smallest map, (C, 12, 11)
    AU-free    f_f, what E_f makes of it for G; the multi-class adversary D_au (METHOD) is there to
               keep AUs out of it
    tokens     f_r, what E_r makes: here the AUs are meant to be

The classifiers of the two maps are D_au's own architecture with new weights, that of the tokens
has the same hidden layer. The figure is the area under the ROC curve per AU (Fawcett, "An
introduction to ROC analysis", 2006, section 7): 0.5 is guessing, 1 is reading without fault.
Correlated AUs count alike, so what is read may be a neighbour.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.errors import ConfigError, RtSwapError
from training.checkpoint import load_net
from training.config import NetworkConfig
from training.data.dataset import BatchMaker, ShardSet
from training.evaluate import strict, write_json
from training.networks import RtNet
from training.networks.critics import AuClassifier

_log = logging.getLogger(__name__)

FEW: Final = 8
"""An AU that fewer pictures of the held-out people show, or lack, has no figure."""
_BATCH: Final = 64
_LR: Final = 1e-3


@dataclasses.dataclass(frozen=True)
class Features:
    """What the networks make of N pictures.

    Attributes:
        stem: (N, C, h, w) float32.
        au_free: (N, C', h, w) float32.
        tokens: (N, K, D) float32.
        present: (N, K) float32, 0 or 1.
    """

    stem: Tensor
    au_free: Tensor
    tokens: Tensor
    present: Tensor


@torch.no_grad()
def extract(net: RtNet, shards: ShardSet, limit: int | None, threshold: float) -> Features:
    """Run the encoders over shards.

    Args:
        net: In evaluation mode.
        shards: Pictures with labels.
        limit: At most so many quadruples, the first ones; None for all.
        threshold: Intensity from which an AU counts as present.
    """
    maker = BatchMaker(shards, None, 0)
    count = len(shards) if limit is None else min(limit, len(shards))
    parts: dict[str, list[Tensor]] = {f.name: [] for f in dataclasses.fields(Features)}
    for start in range(0, count, 8):
        batch = maker.batch(start, min(8, count - start), shards.size_px, instructions=False)
        encoded = net.encoder(batch.look_rgb)
        stem = encoded.features.sixteenth
        parts["stem"].append(stem.float().contiguous())
        parts["au_free"].append(net.generator.au_free_of(encoded.features).float().contiguous())
        parts["tokens"].append(encoded.tokens.float())
        parts["present"].append((batch.aus_lr.amax(dim=2) >= threshold).float())
    return Features(**{name: torch.cat(part) for name, part in parts.items()})


class TokenClassifier(nn.Module):
    """The tokens' counterpart of AuClassifier: (N, K, D) -> (N, K) in [0, 1]."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.linear1 = nn.Linear(NUM_AUS * config.token_dim, 128)
        self.linear2 = nn.Linear(128, NUM_AUS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Guess which AUs are present."""
        return torch.sigmoid(self.linear2(F.leaky_relu(self.linear1(tokens.flatten(1)), 0.1)))


def guess_by_fresh_classifier(
    make: Callable[[], nn.Module],
    seen: Tensor,
    present: Tensor,
    unseen: Tensor,
    steps: int,
    seed: int = 0,
) -> Tensor:
    """Train a classifier and let it guess.

    Args:
        make: Makes one with new weights, (N, ...) -> (N, K) in [0, 1].
        seen: (N, ...) what it learns from; normalised per channel (dimension 1) first.
        present: (N, K) 0 or 1.
        unseen: (M, ...) what it guesses on.
        steps: Training steps of 64.
        seed: Of weights and order.

    Returns:
        (M, K) float32 in [0, 1].
    """
    over = [d for d in range(seen.ndim) if d != 1]
    mean, spread = seen.mean(over, keepdim=True), seen.std(over, keepdim=True).clamp_min(1e-6)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = make()
    optimiser = torch.optim.AdamW(classifier.parameters(), _LR, weight_decay=1e-2)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _LR * (1.0 - step / steps)
        rows = torch.randint(len(seen), (_BATCH,), generator=generator)
        guess = classifier((seen[rows] - mean) / spread)
        loss = F.binary_cross_entropy(guess.clamp(1e-6, 1 - 1e-6), present[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        return torch.cat([classifier((part - mean) / spread) for part in unseen.split(256)])


def area_under_roc(score: np.ndarray[Any, Any], present: np.ndarray[Any, Any]) -> float:
    """Probability that a picture with the AU scores above one without; ties count half (the
    Mann-Whitney statistic).

    Args:
        score: (N,) any numbers.
        present: (N,) bool.

    Returns:
        In [0, 1]; NaN where either kind has fewer than FEW pictures.
    """
    count = int(present.sum())
    others = len(present) - count
    if min(count, others) < FEW:
        return float("nan")
    ranks = rankdata(score)[present].sum()
    return float((ranks - count * (count + 1) / 2) / (count * others))


def measure(
    net: RtNet, seen: Features, unseen: Features, steps: int, seed: int = 0
) -> dict[str, Any]:
    """The report: ``{"mean": {feature: area}, "per_au": {AU: {feature: area}}, ...}``, NaN where
    there is no figure.

    Args:
        net: Gives the sizes.
        seen: Of training people.
        unseen: Of held-out people.
        steps: Training steps of each classifier.
        seed: Of the classifiers.
    """
    config = net.config
    kinds: dict[str, Callable[[], nn.Module]] = {
        "stem": lambda: AuClassifier(
            dataclasses.replace(config, au_free_channels=config.stem_channels[3])
        ),
        "au_free": lambda: AuClassifier(config),
        "tokens": lambda: TokenClassifier(config),
    }
    truth = unseen.present.numpy() > 0.5
    areas: dict[str, list[float]] = {}
    for name, make in kinds.items():
        guess = guess_by_fresh_classifier(
            make, getattr(seen, name), seen.present, getattr(unseen, name), steps, seed
        ).numpy()
        areas[name] = [area_under_roc(guess[:, k], truth[:, k]) for k in range(NUM_AUS)]
    counted = [k for k in range(NUM_AUS) if not np.isnan(areas["tokens"][k])]
    return {
        "kind": "leakage",
        "pictures": len(unseen.present),
        "trained_on": len(seen.present),
        "steps": steps,
        "aus_counted": len(counted),
        "mean": {
            name: float(np.mean([area[k] for k in counted])) if counted else float("nan")
            for name, area in areas.items()
        },
        "per_au": {
            AU_NAMES[k]: {name: area[k] for name, area in areas.items()} for k in range(NUM_AUS)
        },
    }


def report_text(report: dict[str, Any]) -> str:
    """The report as a table for people."""
    lines = [
        f"area under the ROC curve of fresh classifiers (0.5: guessing), {report['pictures']} "
        f"pictures of held-out people, learnt from {report['trained_on']} of training people",
        f"{'':8}{'stem':>9}{'AU-free':>9}{'tokens':>9}",
    ]
    for name, row in (("mean", report["mean"]), *report["per_au"].items()):
        cells = (row[key] for key in ("stem", "au_free", "tokens"))
        lines.append(
            f"{name:8}" + "".join(f"{'-' if np.isnan(x) else f'{x:.3f}':>9}" for x in cells)
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for wrong options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.leakage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--shards", type=Path, required=True, metavar="DIR", help="training people")
    parser.add_argument(
        "--val-shards", type=Path, required=True, metavar="DIR", help="held-out people"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N quadruples of each")
    parser.add_argument("--steps", type=int, default=800, help="of training (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here too")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        report = _run(args)
        print(report_text(report))
        if args.json is not None:
            write_json(args.json, strict(report))
    except RtSwapError as exc:
        print(f"leakage: {exc}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> dict[str, Any]:
    if args.steps < 1 or (args.limit is not None and args.limit < 1):
        raise ConfigError("--steps and --limit must be 1 or more")
    net, config = load_net(args.checkpoint)
    learnt, held_out = ShardSet([args.shards]), ShardSet([args.val_shards])
    both = learnt.people() & held_out.people()
    if both:
        raise ConfigError(
            f"{len(both)} people are in both --shards and --val-shards; what is read off people "
            "already known says nothing"
        )
    threshold = config.losses.presence_threshold
    seen = extract(net, learnt, args.limit, threshold)
    unseen = extract(net, held_out, args.limit, threshold)
    _log.info("%d pictures to learn from, %d to guess on", len(seen.present), len(unseen.present))
    return measure(net, seen, unseen, args.steps)


if __name__ == "__main__":
    sys.exit(main())
