"""Which of a source's tokens belong to a moment of the target.

Timings, for a source clip of duration d and a target of duration t:
    stretch   the clip is played faster or slower, so that both end together
    loop      the clip starts again when it ends; its last entry runs into its first
    hold      the clip's last expression stays
    trim      the target ends with the clip (see :func:`is_over`)
A still picture is the same at every moment, and never over.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from rt_swap.config import SOURCE_TIMINGS
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import F32, Expression

TIMINGS: Final = SOURCE_TIMINGS
NEUTRAL_CHOICES: Final = ("calmest", "first")


def at(
    expression: Expression,
    time_s: float,
    timing: str = "hold",
    target_duration_s: float | None = None,
) -> F32:
    """The source's tokens for one moment of the target, interpolated between valid entries.

    Args:
        expression: The source.
        time_s: Seconds from the target's start; negative counts as 0.
        timing: One of TIMINGS.
        target_duration_s: Length of the target in seconds; needed by "stretch" for a clip.

    Returns:
        (K, D) float32; may be a view of the expression's own, so do not write into it.

    Raises:
        ConfigError: If there is no such timing, or "stretch" lacks the target's duration.
        ContractError: If time_s is not finite, or no entry is valid.
    """
    return _blend(expression.tokens, *_neighbours(expression, time_s, timing, target_duration_s))


def aus_at(
    expression: Expression,
    time_s: float,
    timing: str = "hold",
    target_duration_s: float | None = None,
) -> F32:
    """The source's intensities for one moment of the target; as :func:`at`.

    Returns:
        (K, 2) float32, [left, right], [0, 1].
    """
    return _blend(expression.aus_lr, *_neighbours(expression, time_s, timing, target_duration_s))


def moment_of(
    expression: Expression,
    time_s: float,
    timing: str = "hold",
    target_duration_s: float | None = None,
) -> float:
    """Which moment of the source a moment of the target shows; arguments and errors as :func:`at`.

    Returns:
        Seconds from the source's start; beyond its end where its last entry stays.
    """
    _check_timing(timing)
    if not math.isfinite(time_s):
        raise ContractError(f"expression {expression.name!r}: time_s must be finite, got {time_s}")
    moment, duration_s = max(time_s, 0.0), _duration_s(expression)
    if _is_still(expression):
        return moment
    if timing == "stretch":
        if target_duration_s is None or not target_duration_s > 0:
            raise ConfigError(
                "source timing stretch needs the target's duration, which this target does not "
                f"tell (got {target_duration_s}); use loop, hold or trim"
            )
        return moment * duration_s / target_duration_s
    if timing == "loop" and duration_s > 0:
        return math.fmod(moment, duration_s)
    return moment


def is_over(expression: Expression, time_s: float, timing: str) -> bool:
    """Whether the target should have ended: only with "trim", once the clip has ended."""
    _check_timing(timing)
    return timing == "trim" and not _is_still(expression) and time_s >= _duration_s(expression)


def neutral_tokens(expression: Expression, choice: str = "calmest") -> F32:
    """A source's own resting face, for the relative mode.

    Args:
        expression: The source.
        choice: "calmest", the valid entry whose intensities add up to the least; or "first", the
            first valid entry (somebody who starts a clip with a resting face).

    Returns:
        (K, D) float32, a copy.

    Raises:
        ConfigError: If there is no such choice.
        ContractError: If no entry is valid.
    """
    if choice not in NEUTRAL_CHOICES:
        raise ConfigError(f"neutral: no choice {choice!r}; there are {', '.join(NEUTRAL_CHOICES)}")
    valid = np.flatnonzero(expression.valid)
    if not valid.size:
        raise _no_entry(expression)
    if choice == "first":
        return np.array(expression.tokens[valid[0]], np.float32)
    total = expression.aus_lr[valid].sum(axis=(1, 2))
    return np.array(expression.tokens[valid[int(np.argmin(total))]], np.float32)


def _check_timing(timing: str) -> None:
    if timing not in TIMINGS:
        raise ConfigError(f"source timing: no {timing!r}; there are {', '.join(TIMINGS)}")


def _is_still(expression: Expression) -> bool:
    return len(expression.times_s) == 1


def _duration_s(expression: Expression) -> float:
    return max(expression.duration_s, float(expression.times_s[-1]))


def _no_entry(expression: Expression) -> ContractError:
    return ContractError(f"expression {expression.name!r}: no entry is valid")


def _neighbours(
    expression: Expression, time_s: float, timing: str, target_duration_s: float | None
) -> tuple[int, int, float]:
    """The two valid entries around a moment and the weight of the second."""
    moment = moment_of(expression, time_s, timing, target_duration_s)
    times, valid = expression.times_s, expression.valid
    after = int(np.searchsorted(times, moment, side="right"))
    # argmax ends at the first one, so a long clip costs no more than a short one
    before_it, from_it = valid[:after][::-1], valid[after:]
    back, ahead = (int(part.argmax()) if part.size else 0 for part in (before_it, from_it))
    left = after - 1 - back if before_it.size and before_it[back] else None
    right = after + ahead if from_it.size and from_it[ahead] else None
    if left is not None and right is not None:
        weight = float((moment - times[left]) / (times[right] - times[left]))
        return left, right, weight
    if left is None and right is None:
        raise _no_entry(expression)
    if timing == "loop":
        # between the last entry and the first of the next round
        last = len(valid) - 1 - int(valid[::-1].argmax())
        first, duration_s = int(valid.argmax()), _duration_s(expression)
        gap = float(times[first] + duration_s - times[last])
        since = float(moment - times[last] + (duration_s if left is None else 0.0))
        return last, first, since / gap if gap > 0 else 1.0
    edge = left if left is not None else right
    assert edge is not None
    return edge, edge, 0.0


def _blend(values: F32, left: int, right: int, weight: float) -> F32:
    if left == right or weight == 0.0:
        return np.asarray(values[left], np.float32)
    w = np.float32(weight)
    return np.asarray(values[left] * (np.float32(1) - w) + values[right] * w, np.float32)
