"""What the face is asked to do at one moment, and how one thing asked for turns into the next.

An *ask* is what the graph takes: tokens s, base b, how far r the base is b rather than the target's
own tokens o (0 is absolute, 1 relative), and a presence p that scales the gains g. The graph adds
``p g (s - r b - (1 - r) o)``. Two asks are mixed at weight w so that these sums are mixed exactly,
whatever their modes:

    A = (1-w) pa     B = w pb     p = A + B
    s = (A sa + B sb) / p     r = (A ra + B rb) / p     b = (A ra ba + B rb bb) / (p r)

So the way from one expression to another never leads through the target's own face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from rt_swap.frames import F32


@dataclass(frozen=True)
class Ask:
    """What the face is asked to do.

    Attributes:
        tokens: (K, D) float32.
        base: (K, D) float32, the resting face that is subtracted; None where relative is 0.
        relative: [0, 1], how far it is, rather than the target's own tokens.
        presence: [0, 1], factor on the gains; 0 leaves the target as they are.
    """

    tokens: F32
    base: F32 | None
    relative: float
    presence: float = 1.0


def nothing(like: Ask) -> Ask:
    """The ask that changes nothing, with another's tokens, so that mixing fades."""
    return replace(like, presence=0.0)


def smoothstep(x: float) -> float:
    """0 at 0, 1 at 1, with no slope at either end; clamped."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


def mix(before: Ask | None, after: Ask | None, progress: float) -> Ask | None:
    """What is asked for on the way from one ask to the next.

    Args:
        before: What was shown when the change began; None for nothing.
        after: What is wanted; None for nothing.
        progress: Share of the transition's time that is over, [0, 1].

    Returns:
        The ask for now; None for nothing.
    """
    if progress >= 1.0 or before is after:
        return after
    if before is None and after is None:
        return None
    if before is None:
        assert after is not None
        before = nothing(after)
    if after is None:
        after = nothing(before)
    if before.presence <= 0:
        before = nothing(after)  # its tokens do not show
    elif after.presence <= 0:
        after = nothing(before)
    w = smoothstep(progress)
    weight_a, weight_b = (1.0 - w) * before.presence, w * after.presence
    presence = weight_a + weight_b
    if presence <= 0:
        return nothing(after)
    tokens = _between(before.tokens, after.tokens, np.float32(weight_b / presence))
    of_a, of_b = weight_a * before.relative, weight_b * after.relative
    relative, base = (of_a + of_b) / presence, None
    if relative > 0:
        share = np.float32(of_b / (of_a + of_b))
        known = [ask.base for ask in (before, after) if ask.base is not None]
        base = known[0] if len(known) == 1 else _between(known[0], known[1], share)
    return Ask(tokens, base, relative, presence)


def approach(value: F32, wanted: F32, dt_s: float, time_constant_s: float) -> F32:
    """A first-order step from a value towards what is wanted; ends there within a thousandth.

    Args:
        value: Where it is, any shape.
        wanted: Where it goes, the same shape.
        dt_s: Seconds since the last step, 0 or more.
        time_constant_s: Seconds in which two thirds of the way are made; 0 jumps.

    Returns:
        A new array, or ``wanted`` itself once it is reached.
    """
    if time_constant_s <= 0:
        return wanted
    share = np.float32(1.0 - math.exp(-max(dt_s, 0.0) / time_constant_s))
    moved = np.asarray(value + share * (wanted - value), np.float32)
    if float(np.abs(moved - wanted).max(initial=0.0)) < 1e-3:
        return wanted
    return moved


def _between(a: F32, b: F32, share: np.float32) -> F32:
    return np.asarray(a + share * (b - a), np.float32)
