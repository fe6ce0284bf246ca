"""What a user of the page can set, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from rt_swap.aus import AU_NAMES, AUS, NUM_AUS, REGIONS
from rt_swap.config import LIVE_ON_LOST, MODES
from rt_swap.errors import ConfigError
from rt_swap.expression import MAX_GAIN, parse_gains
from rt_swap.frames import F32

OWN: Final = "own"
"""The choice of no expression: the person's own shows."""


@dataclass(frozen=True)
class Controls:
    """What the page shows in its sliders and switches.

    Attributes:
        chosen: Id of the expression in the gallery, or OWN.
        overall: Factor on every gain, 0 to 2.
        regions: Gain of each region, 0 to 2.
        aus: Gain of single AUs, 0 to 2, in place of their region's.
        mode: "absolute" or "relative".
        keep_speech: The person's own mouth opening stays.
        keep_blink: The person's own blink stays.
        on_lost: What is shown while no face is there.
        virtual_camera: Whether the picture also goes to the virtual camera.
    """

    chosen: str = OWN
    overall: float = 1.0
    regions: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(REGIONS, 1.0))
    aus: Mapping[str, float] = field(default_factory=dict)
    mode: str = "absolute"
    keep_speech: bool = False
    keep_blink: bool = True
    on_lost: str = "hold"
    virtual_camera: bool = False

    def gains(self) -> F32:
        """(K,) float32, [0, 2]: what the sliders come to, unit by unit."""
        gains = np.array(
            [self.aus.get(au.id.name, self.regions[au.region]) * self.overall for au in AUS],
            np.float32,
        )
        assert gains.shape == (NUM_AUS,)
        return np.minimum(gains, np.float32(MAX_GAIN))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values = dict(self.__dict__)
        values["regions"], values["aus"] = dict(self.regions), dict(self.aus)
        return values

    def changed(self, changes: Mapping[str, Any]) -> Controls:
        """These controls with some of them changed.

        Args:
            changes: By field. ``regions`` holds the regions that change; ``aus`` the units that
                change, None for one that follows its region again. ``reset: True`` puts all gains
                back first.

        Raises:
            ConfigError: Naming everything that is wrong.
        """
        wrong: list[str] = []
        new: dict[str, Any] = {}
        regions, aus = dict(self.regions), dict(self.aus)
        for name, value in changes.items():
            if name == "reset":
                if value is not True:
                    wrong.append("reset: must be true")
                    continue
                regions, aus, new["overall"] = dict.fromkeys(REGIONS, 1.0), {}, 1.0
        for name, value in changes.items():
            if name == "reset":
                continue
            if name == "overall":
                new[name] = _gain(name, value, wrong)
            elif name == "regions":
                for region, gain in _mapping(name, value, wrong).items():
                    if region not in REGIONS:
                        wrong.append(
                            f"regions: there is no {region!r}; there are {', '.join(REGIONS)}"
                        )
                    else:
                        regions[region] = _gain(region, gain, wrong)
            elif name == "aus":
                for au, gain in _mapping(name, value, wrong).items():
                    if au not in AU_NAMES:
                        wrong.append(f"aus: there is no {au!r}; there are {', '.join(AU_NAMES)}")
                    elif gain is None:
                        aus.pop(au, None)
                    else:
                        aus[au] = _gain(au, gain, wrong)
            elif name in _CHOICES:
                if value not in _CHOICES[name]:
                    wrong.append(
                        f"{name}: must be one of {', '.join(_CHOICES[name])}, got {value!r}"
                    )
                new[name] = value
            elif name in _SWITCHES:
                if not isinstance(value, bool):
                    wrong.append(f"{name}: must be true or false, got {value!r}")
                new[name] = value
            elif name == "chosen":
                if not isinstance(value, str):
                    wrong.append(f"chosen: must be an expression's id, got {value!r}")
                new[name] = value
            else:
                wrong.append(f"there is no control {name!r}")
        if wrong:
            raise ConfigError("; ".join(wrong))
        return replace(self, regions=regions, aus=aus, **new)


def controls_from_settings(gains: str, mode: str, on_lost: str = "hold") -> Controls:
    """The first controls: gains and mode as settings give them.

    Args:
        gains: As "brows=0.5,mouth=1"; each unit that differs from 1 gets a slider of its own, or
            its region where all of the region's units agree.
        mode: One of MODES.
        on_lost: One of LIVE_ON_LOST.

    Raises:
        ConfigError: If any is wrong.
    """
    values = parse_gains(gains or None)
    regions = dict.fromkeys(REGIONS, 1.0)
    aus: dict[str, float] = {}
    for region in REGIONS:
        of_region = {
            au.id.name: float(values[k]) for k, au in enumerate(AUS) if au.region == region
        }
        if len(set(of_region.values())) == 1:
            regions[region] = next(iter(of_region.values()))
        else:
            aus |= {name: gain for name, gain in of_region.items() if gain != 1.0}
    return Controls().changed({"regions": regions, "aus": aus, "mode": mode, "on_lost": on_lost})


_CHOICES: Final[dict[str, tuple[str, ...]]] = {"mode": MODES, "on_lost": LIVE_ON_LOST}
_SWITCHES: Final = ("keep_speech", "keep_blink", "virtual_camera")


def _gain(name: str, value: object, wrong: list[str]) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= MAX_GAIN:  # type: ignore[arg-type, operator]
        wrong.append(f"{name}: must be a number from 0 to {MAX_GAIN:g}, got {value!r}")
        return 1.0
    return float(value)  # type: ignore[arg-type]


def _mapping(name: str, value: object, wrong: list[str]) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    wrong.append(f"{name}: must be names with gains, got {value!r}")
    return {}
