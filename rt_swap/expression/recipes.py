"""What each preset is made of: AU intensities, left and right.

The data engine renders people with these intensities and ``engines/make_presets.py`` averages the
encoder's tokens over them. The choice of units follows the prototypes of Ekman, Friesen and Hager,
*FACS Investigator's Guide* (2002), table of emotion predictions; the strengths are ours, chosen so
that the face reads at a glance without being a caricature.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from rt_swap.aus import AUS, NUM_AUS, AuId
from rt_swap.errors import ConfigError
from rt_swap.frames import F32

Recipe = Mapping[AuId, tuple[float, float]]
"""AU -> (left, right) in [0, 1]; "left" is the person's own. What is not named is 0."""


def _both(**intensities: float) -> dict[AuId, tuple[float, float]]:
    return {AuId[name]: (value, value) for name, value in intensities.items()}


RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        "neutral": {},
        "smile": _both(AU12=0.75, AU6=0.5, AU7=0.1, AU10=0.15, AU26=0.1),
        # the eyes narrow with the cheeks, the lower lip goes down with the jaw
        "laugh": _both(AU12=1.0, AU6=0.85, AU7=0.35, AU10=0.35, AU16=0.25, AU26=0.5),
        "surprise": _both(AU1=0.9, AU2=0.9, AU5=0.75, AU26=0.5),
        "anger": _both(AU4=1.0, AU5=0.3, AU7=0.65, AU9=0.35, AU17=0.35, AU24=0.75),
        "sadness": _both(AU1=0.85, AU4=0.4, AU7=0.15, AU15=0.75, AU17=0.45, AU64=0.25),
        # the nose's wrinkler lifts the upper lip already: more would bare the gums
        "disgust": _both(AU4=0.5, AU6=0.35, AU7=0.5, AU9=0.85, AU10=0.05, AU15=0.5, AU17=0.6),
        "fear": _both(AU1=0.85, AU2=0.5, AU4=0.45, AU5=0.9, AU20=0.5, AU26=0.5),
        "wink": {
            AuId.AU45: (1.0, 0.0),
            AuId.AU6: (0.6, 0.1),
            AuId.AU7: (0.8, 0.0),
            AuId.AU12: (0.5, 0.25),
        },
    }
)
"""The presets' recipes by name, in the order in which they are listed to users."""


def recipe_aus_lr(name: str) -> F32:
    """A preset's intensities as an array.

    Args:
        name: One of RECIPES.

    Returns:
        (K, 2) float32, [left, right], [0, 1], in token order.

    Raises:
        ConfigError: If there is no such preset.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(RECIPES)}")
    aus_lr = np.zeros((NUM_AUS, 2), np.float32)
    for k, au in enumerate(AUS):
        aus_lr[k] = RECIPES[name].get(au.id, (0.0, 0.0))
    return aus_lr
