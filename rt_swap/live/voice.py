"""What the face is asked to do at one moment, and how one thing asked for turns into the next.

An *ask* is what the graph takes: tokens, base, a mode, and a presence that scales the gains. Two
asks a and b of one mode are mixed at weight w so that the graph's own sum is mixed exactly:

    (1-w) pa g (sa - ba) + w pb g (sb - bb)  =  p g (s - b)
    p = (1-w) pa + w pb     s = ((1-w) pa sa + w pb sb) / p     b = ((1-w) pa ba + w pb bb) / p

where absolute has the target's own tokens for ba and bb. Asks of different modes have no common
base; there the first fades out and the second in, through the target's own face in the middle.
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
        base: (K, D) float32, the resting face that "relative" subtracts; None in absolute mode.
        mode: "absolute" or "relative".
        presence: [0, 1], factor on the gains; 0 leaves the target as they are.
    """

    tokens: F32
    base: F32 | None
    mode: str
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
    if before.mode != after.mode and before.presence > 0 and after.presence > 0:
        if progress < 0.5:
            return replace(before, presence=before.presence * (1.0 - smoothstep(2.0 * progress)))
        return replace(after, presence=after.presence * smoothstep(2.0 * progress - 1.0))
    if before.presence <= 0:
        before = nothing(after)  # its mode and tokens do not show
    elif after.presence <= 0:
        after = nothing(before)
    w = smoothstep(progress)
    weight_a, weight_b = (1.0 - w) * before.presence, w * after.presence
    presence = weight_a + weight_b
    if presence <= 0:
        return nothing(after)
    share = np.float32(weight_b / presence)
    base = after.base
    if before.base is not None and after.base is not None:
        base = _between(before.base, after.base, share)
    return Ask(_between(before.tokens, after.tokens, share), base, after.mode, presence)


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
