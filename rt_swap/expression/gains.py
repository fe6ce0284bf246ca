"""Gains: how much of the source each AU takes. 0 leaves the target's own, 1 is the source's.

Written as ``brows=0.5,mouth=1,AU12=0.3,all=1``. The narrower name wins whatever the order: an AU
over its region, a region over ``all``; what is not named is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from rt_swap.aus import AU_NAMES, NUM_AUS, REGIONS, region_mask
from rt_swap.errors import ConfigError
from rt_swap.frames import F32

MAX_GAIN: Final = 2.0
"""Beyond 1 an expression is exaggerated; beyond this the generator has seen nothing like it."""

_DERIVED: Final = {
    "AU23": "AU24 (lip pressor) or AU28 (lip suck)",
    "AU25": "AU10, AU16 or AU26 (lips part with them)",
    "AU27": "AU26 (jaw drop)",
}


def parse_gains(text: str | float | Mapping[str, float] | None) -> F32:
    """Read gains.

    Args:
        text: ``name=value`` pairs separated by commas; or a mapping of the same; or one number for
            every AU; or None, which is 1 everywhere. Names: ``all``, a region (brows, eyes, gaze,
            nose, cheeks, mouth, jaw), or an AU such as AU12, in any case. Values: 0 to 2.

    Returns:
        (K,) float32, in token order.

    Raises:
        ConfigError: Listing everything that is wrong.
    """
    if text is None:
        pairs: list[tuple[str, object]] = []
    elif isinstance(text, str):
        pairs = _split(text)
    elif isinstance(text, Mapping):
        pairs = list(text.items())
    else:
        pairs = [("all", text)]
    named: dict[str, float] = {}
    wrong: list[str] = []
    for raw_name, raw_value in pairs:
        name = _canonical(str(raw_name))
        if name is None:
            wrong.append(_unknown(str(raw_name)))
            continue
        try:
            value = float(raw_value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            value = float("nan")
        if not 0.0 <= value <= MAX_GAIN:
            wrong.append(f"{raw_name} must be a number from 0 to {MAX_GAIN:g}, got {raw_value!r}")
        elif name in named:
            wrong.append(f"{name} is given twice")
        else:
            named[name] = value
    if wrong:
        raise ConfigError(f"gains: {'; '.join(wrong)}")
    gains = np.full(NUM_AUS, named.get("all", 1.0), np.float32)
    for region in REGIONS:
        if region in named:
            gains[region_mask(region)] = named[region]
    for k, au in enumerate(AU_NAMES):
        if au in named:
            gains[k] = named[au]
    return gains


def _split(text: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for item in text.split(","):
        if not item.strip():
            continue
        name, equals, value = item.partition("=")
        if not equals:
            try:
                float(item)
            except ValueError:
                raise ConfigError(
                    f"gains: {item.strip()!r} must be name=value, such as brows=0.5 or AU12=0.3"
                ) from None
            name, value = "all", item
        pairs.append((name.strip(), value.strip()))
    return pairs


def _canonical(name: str) -> str | None:
    if name.lower() == "all" or name.lower() in REGIONS:
        return name.lower()
    return name.upper() if name.upper() in AU_NAMES else None


def _unknown(name: str) -> str:
    hint = _DERIVED.get(name.upper())
    if hint is not None:
        return f"{name.upper()} has no gain of its own; use {hint}"
    return f"there is no {name!r}; there are all, {', '.join(REGIONS)}, {', '.join(AU_NAMES)}"
