"""``rt-swap bench --compare old.json``: what got slower beyond the noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rt_swap.bench.figures import Change, change_of
from rt_swap.errors import ConfigError

_QUANTILES: Final = {"p50": 0.5, "p99": 0.99}
_SAME: Final = ("size_wh", "shown", "threads")
"""Parameters without which two runs measure different things."""
_MACHINE: Final = ("cpu", "cores_used", "gpus", "jetson", "power_mode")


@dataclass(frozen=True)
class Comparison:
    """Two runs held against each other.

    Attributes:
        changes: (series, quantile, change), as ("generate", "p50", ...).
        differs: What else is different between the runs, as text.
        same_machine: False where the machines differ, so that a change says little on the program.
    """

    changes: tuple[tuple[str, str, Change], ...]
    differs: tuple[str, ...]
    same_machine: bool

    @property
    def slower(self) -> list[str]:
        """Names of what got slower, as "generate p50"."""
        return [f"{name} {q}" for name, q, change in self.changes if change.verdict == "slower"]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "same_machine": self.same_machine,
            "differs": list(self.differs),
            "slower": self.slower,
            "changes": [
                {"series": name, "quantile": quantile, **vars(change)}
                for name, quantile, change in self.changes
            ],
        }


def compare(
    old: Mapping[str, Any], new: Mapping[str, Any], *, tolerance: float = 0.05
) -> Comparison:
    """Hold a new result against an old one; see :func:`rt_swap.bench.figures.change_of`.

    Args:
        old: A result that the schema has passed.
        new: The same.
        tolerance: Least relative change that counts, 0 or more.

    Raises:
        ConfigError: If the runs measured different things, so that times cannot be compared.
    """
    before, after = old["parameters"], new["parameters"]
    wrong = [
        f"{name} was {before[name]} and is {after[name]}"
        for name in _SAME
        if before[name] != after[name]
    ]
    if wrong:
        raise ConfigError(
            f"--compare: the runs measured different things: {'; '.join(wrong)}; measure with the"
            " same options"
        )
    changes = [
        (name, quantile, change_of(samples, new["samples_ms"][name], at, tolerance=tolerance))
        for name, samples in old["samples_ms"].items()
        if samples and new["samples_ms"].get(name)
        for quantile, at in _QUANTILES.items()
    ]
    for name, run in (("live age", "live"),):
        if old[run] and new[run] and old[run]["rate"] == new[run]["rate"]:
            ages = old[run]["samples_ms"], new[run]["samples_ms"]
            if all(ages):
                changes += [
                    (name, quantile, change_of(*ages, at, tolerance=tolerance))
                    for quantile, at in _QUANTILES.items()
                ]
    was, now = old["about"], new["about"]
    differs = [f"{k}: {was[k]} -> {now[k]}" for k in _MACHINE if was[k] != now[k]]
    same_machine = not differs
    differs += [
        f"{k}: {was[k]} -> {now[k]}" for k in ("backend", "python", "system") if was[k] != now[k]
    ]
    if was["model"] != now["model"]:
        differs.append(f"model: {_model(was)} -> {_model(now)}")
    differs += [
        f"{package}: {was['packages'].get(package)} -> {version}"
        for package, version in now["packages"].items()
        if was["packages"].get(package) != version
    ]
    gone = [name for name in old["samples_ms"] if name not in new["samples_ms"]]
    differs += [f"stage {name} is gone" for name in gone]
    return Comparison(tuple(changes), tuple(differs), same_machine)


def _model(about: Mapping[str, Any]) -> str:
    return f"{about['model']['name']} ({about['model']['generator_sha256'][:12]})"
