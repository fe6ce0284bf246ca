"""Draws expressions and gains from a distribution that people really show.

A mixture: prototypes of emotions (co-occurring AUs, after the EMFACS tables in Ekman, Friesen and
Hager 2002), mouth
shapes of speech, sparse random units, and rest; on top blinks, gaze and asymmetry. The shares are
ours: enough of each
for a network to learn it, not how often people do it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rt_swap.aus import AUS, NUM_AUS, REGIONS, AuId, region_mask

F32 = npt.NDArray[np.float32]

# AU -> range of intensity
_PROTOTYPES: tuple[dict[AuId, tuple[float, float]], ...] = (
    # smile
    {AuId.AU12: (0.4, 1.0), AuId.AU6: (0.2, 0.8), AuId.AU10: (0.0, 0.3), AuId.AU26: (0.0, 0.2)},
    {AuId.AU12: (0.6, 1.0), AuId.AU6: (0.4, 0.9), AuId.AU26: (0.2, 0.6), AuId.AU10: (0.1, 0.5),
     AuId.AU16: (0.1, 0.6), AuId.AU7: (0.0, 0.5)},  # laugh
    # surprise
    {AuId.AU1: (0.4, 1.0), AuId.AU2: (0.4, 1.0), AuId.AU5: (0.3, 1.0), AuId.AU26: (0.2, 0.9)},
    {AuId.AU4: (0.5, 1.0), AuId.AU5: (0.0, 0.5), AuId.AU7: (0.2, 0.8), AuId.AU24: (0.1, 0.8),
     AuId.AU9: (0.0, 0.4)},  # anger
    # sadness
    {AuId.AU1: (0.4, 1.0), AuId.AU4: (0.1, 0.6), AuId.AU15: (0.3, 0.9), AuId.AU17: (0.1, 0.7)},
    # disgust
    {AuId.AU9: (0.4, 1.0), AuId.AU10: (0.2, 0.8), AuId.AU17: (0.0, 0.6), AuId.AU4: (0.0, 0.5)},
    {AuId.AU1: (0.4, 1.0), AuId.AU2: (0.2, 0.8), AuId.AU4: (0.2, 0.7), AuId.AU5: (0.4, 1.0),
    AuId.AU20: (0.3, 0.9),
     AuId.AU26: (0.1, 0.5)},  # fear
    {AuId.AU14: (0.3, 1.0), AuId.AU12: (0.0, 0.4)},  # contempt
    {AuId.AU33: (0.4, 1.0), AuId.AU24: (0.0, 0.6)},  # blown cheeks
)  # fmt: skip

# mouth shapes of speech: open vowels, spread vowels, round vowels, closed lips, lip to teeth
_VISEMES: tuple[dict[AuId, tuple[float, float]], ...] = (
    {AuId.AU26: (0.2, 0.9), AuId.AU16: (0.0, 0.4), AuId.AU10: (0.0, 0.3)},
    {AuId.AU20: (0.2, 0.7), AuId.AU26: (0.05, 0.3), AuId.AU16: (0.1, 0.6), AuId.AU10: (0.0, 0.3)},
    {AuId.AU18: (0.3, 1.0), AuId.AU26: (0.0, 0.3)},
    {AuId.AU22: (0.3, 1.0), AuId.AU26: (0.0, 0.5)},
    {AuId.AU24: (0.2, 0.9), AuId.AU28: (0.0, 0.5)},
    {AuId.AU28: (0.3, 1.0)},
    {AuId.AU10: (0.1, 0.5), AuId.AU16: (0.1, 0.6), AuId.AU26: (0.0, 0.15)},
)


def draw_expression(rng: np.random.Generator) -> F32:
    """One expression.

    Returns:
        (K, 2) intensities, [left, right], in [0, 1].
    """
    aus = np.zeros((NUM_AUS, 2), np.float32)
    kind = rng.choice(5, p=(0.08, 0.34, 0.30, 0.22, 0.06))
    if kind in (1, 4):
        _add(aus, rng, _PROTOTYPES[rng.integers(len(_PROTOTYPES))])
    if kind in (2, 4):
        _add(aus, rng, _VISEMES[rng.integers(len(_VISEMES))])
    if kind == 3 or rng.random() < 0.3:
        for au in AUS:
            if (
                au.region != "gaze"
                and au.id != AuId.AU45
                and rng.random() < (0.2 if kind == 3 else 0.06)
            ):
                aus[au.id.index] = np.maximum(aus[au.id.index], rng.beta(1.3, 1.6))
    if rng.random() < 0.5:  # nobody is quite symmetric
        paired = [k for k in np.flatnonzero(aus.max(1) > 0) if not AUS[k].is_midline]
        weaker = rng.integers(2)  # mostly one side of the face is the weaker one
        for k in paired:
            if rng.random() < 0.5:
                aus[k, weaker if rng.random() < 0.8 else 1 - weaker] *= rng.uniform(0, 1)
    jaw = AuId.AU30.index
    if aus[jaw].max() > 0:  # the jaw goes one way
        aus[jaw, rng.integers(2)] = 0
    # eyes
    lids = rng.random()
    if lids < 0.12:
        aus[AuId.AU45.index] = rng.uniform(0.7, 1.0)
    elif lids < 0.27:
        aus[AuId.AU45.index] = rng.uniform(0.05, 0.8)
    elif lids < 0.33:
        aus[AuId.AU45.index, rng.integers(2)] = rng.uniform(0.6, 1.0)
    if rng.random() < 0.45:
        aus[(AuId.AU61 if rng.random() < 0.5 else AuId.AU62).index] = rng.beta(1.2, 2.0)
        aus[(AuId.AU63 if rng.random() < 0.4 else AuId.AU64).index] = rng.beta(1.0, 2.5)
    return reconcile(aus)


def draw_viseme(rng: np.random.Generator) -> F32:
    """One mouth shape of speech and nothing else; (K, 2) as in :func:`draw_expression`."""
    aus = np.zeros((NUM_AUS, 2), np.float32)
    _add(aus, rng, _VISEMES[rng.integers(len(_VISEMES))])
    return reconcile(aus)


def _add(aus: F32, rng: np.random.Generator, units: dict[AuId, tuple[float, float]]) -> None:
    strength = rng.uniform(0.45, 1.0)
    for au, (low, high) in units.items():
        aus[au.index] = np.maximum(aus[au.index], strength * rng.uniform(low, high))


def reconcile(aus: F32) -> F32:
    """Weaken units that cannot be had together: closed lids are not wide, an open jaw has no
    pressed lips.
    """
    out = aus.clip(0, 1).astype(np.float32)
    blink, jaw = out[AuId.AU45.index], out[AuId.AU26.index].max()
    out[AuId.AU5.index] *= 1 - blink
    out[AuId.AU7.index] *= 1 - 0.7 * blink
    for au in (AuId.AU24, AuId.AU28, AuId.AU33):
        out[au.index] *= 1 - min(1.5 * jaw, 1)
    for au in (AuId.AU18, AuId.AU22):
        out[au.index] *= 1 - 0.6 * out[AuId.AU12.index].max()
    up = np.maximum(out[AuId.AU1.index], out[AuId.AU2.index])
    out[AuId.AU4.index] *= 1 - 0.4 * up
    # mouth units add up in the model: keep the sum within what lips can do
    for k in np.flatnonzero(region_mask("mouth")):
        out[k] *= 1 - 0.25 * jaw
    return out


def draw_gains(rng: np.random.Generator, own: F32, other: F32) -> F32:
    """Gains of 0 or 1: two times in five all of them, else some regions, some units, or one to
    three units alone, which is what a slider for one unit asks for.

    Args:
        rng: Source of chance.
        own: (K, 2) one expression.
        other: (K, 2) the other; units by which the two differ are more often those alone.

    Returns:
        (K,) float32.
    """
    if rng.random() < 0.4:
        return np.ones(NUM_AUS, np.float32)
    kind = rng.random()
    if kind < 1 / 3:
        few = np.zeros(NUM_AUS, np.float32)
        chance = np.abs(other - own).max(1) + 0.02
        picked = rng.choice(
            NUM_AUS, size=rng.integers(1, 4), replace=False, p=chance / chance.sum()
        )
        few[picked] = 1.0
        return few
    if kind < 2 / 3:
        chosen = rng.choice(len(REGIONS), size=rng.integers(1, 5), replace=False)
        return np.any([region_mask(REGIONS[i]) for i in chosen], axis=0).astype(np.float32)
    return (rng.random(NUM_AUS) < rng.uniform(0.2, 0.8)).astype(np.float32)


def mix(own: F32, other: F32, gains: F32) -> F32:
    """``own + gains * (other - own)`` per AU. (K, 2), (K, 2), (K,) -> (K, 2)."""
    return np.asarray(own + gains[:, None] * (other - own), np.float32)
