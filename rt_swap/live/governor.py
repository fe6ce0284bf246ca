"""Keeps the age of frames under a limit by giving up what is missed least, and says so.

Three things can be given up: the size of the model (where several are loaded), the resolution that
is processed, and the share of the camera's frames. What a plan would cost is predicted from the
stage times measured under the plan in use:

    work(plan) = network(model) + pixels * scale^2 + rest
    wait(plan) = one camera period where work is longer than it and every frame is wanted, for then
                 a picture waits until the one before is done; 0 where only fresh ones are taken
    age(plan)  = ratio * (work + wait)

``ratio`` is the measured age over the predicted one of the plan in use: it carries whatever else
the machine does. The best plan whose age fits is taken. Going down is quick; going up waits, and
waits longer each time it was wrong.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rt_swap.errors import ConfigError

logger = logging.getLogger(__name__)

SCALES: Final = (1.0, 0.75, 0.5)
SHARES: Final = (1, 2, 3)
_SCALE_LOSS: Final = dict(zip(SCALES, (0.0, 1.0, 2.5), strict=True))
_SHARE_LOSS: Final = dict(zip(SHARES, (0.0, 2.0, 4.5), strict=True))
_MODEL_LOSS: Final = 0.8
"""How much a step is missed, in an order of ours: a softer picture before a slower one."""

_NETWORK: Final = frozenset({"generate"})
_PIXELS: Final = {"compose": 1.0, "emit": 1.0, "scale": 1.0, "track": 0.3}
"""Which share of a stage grows with the number of pixels."""
_NEXT_MODEL_COST: Final = 0.6
"""What a smaller model is taken to cost, relative to the one before, until it was measured."""
_FITS: Final = 0.9
_FITS_UP: Final = 0.8
"""Part of the limit that a plan may use: to stay or go down, and to go up."""
_WINDOW: Final = 30
_SETTLE: Final = 4
"""Frames after a change that say nothing yet."""
_SLOW_S: Final = 2.0
"""Where frames come so slowly that the window does not fill in this time, a few must do."""
_UP_AFTER_S: Final = 4.0
_UP_AFTER_MOST_S: Final = 60.0
_REGRET_S: Final = 6.0
"""Going down so soon after going up means that going up was wrong."""


@dataclass(frozen=True)
class Plan:
    """What is done to a frame.

    Attributes:
        model: Index of the model, 0 being the best.
        scale: Of the processed picture's sides.
        share: Every how manieth frame is processed.
    """

    model: int = 0
    scale: float = 1.0
    share: int = 1

    @property
    def loss(self) -> float:
        """How much is given up."""
        return self.model * _MODEL_LOSS + _SCALE_LOSS[self.scale] + _SHARE_LOSS[self.share]

    def __str__(self) -> str:
        given_up = []
        if self.model:
            given_up.append(f"smaller model ({self.model + 1})")
        if self.scale < 1:
            given_up.append(f"resolution {self.scale:.0%}")
        if self.share > 1:
            given_up.append(f"every {_ordinal(self.share)} frame")
        return ", ".join(given_up) or "everything at its best"


@dataclass(frozen=True)
class GovernorEvent:
    """One change.

    Attributes:
        time_s: When, on the frames' clock.
        before: The plan until then.
        after: The plan from then on.
        age_ms: The age that led to it.
        text: For people.
    """

    time_s: float
    before: Plan
    after: Plan
    age_ms: float
    text: str


class Governor:
    """Decides what is given up. One thread uses it.

    Args:
        max_latency_ms: The limit on the age of nine frames in ten; None never gives anything up.
        models: How many models there are.

    Raises:
        ConfigError: If the limit is not 5 to 10,000 ms.
    """

    def __init__(self, max_latency_ms: float | None, *, models: int = 1) -> None:
        if max_latency_ms is not None and not 5 <= max_latency_ms <= 10_000:
            raise ConfigError(
                f"--max-latency-ms: must be a number from 5 to 10000, got {max_latency_ms}"
            )
        self.max_latency_ms = max_latency_ms
        self.plan = Plan()
        self.events: deque[GovernorEvent] = deque(maxlen=100)
        self.changes = 0
        self._plans = sorted(
            (Plan(*each) for each in itertools.product(range(models), SCALES, SHARES)),
            key=lambda plan: plan.loss,
        )
        self._ages: deque[float] = deque(maxlen=_WINDOW)
        self._costs: deque[tuple[float, float, float]] = deque(maxlen=_WINDOW)
        self._network_ms: dict[int, float] = {}
        self._to_settle = _SETTLE
        self._changed_s: float | None = None
        self._went_up_s: float | None = None
        self._up_after_s = _UP_AFTER_S

    def saw(
        self, time_s: float, age_ms: float, stage_ms: Mapping[str, float], period_ms: float
    ) -> GovernorEvent | None:
        """Take one emitted frame.

        Args:
            time_s: When it was emitted; ascends.
            age_ms: From capture to emission.
            stage_ms: Milliseconds by stage.
            period_ms: Time between two of the camera's pictures.

        Returns:
            What was changed, or None.
        """
        if self.max_latency_ms is None:
            return None
        if self._changed_s is None:
            self._changed_s = time_s
        if self._to_settle:
            self._to_settle -= 1
            return None
        self._ages.append(age_ms)
        self._costs.append(self._split(stage_ms))
        slow = len(self._ages) >= _SETTLE and time_s - self._changed_s > _SLOW_S
        if len(self._ages) < _WINDOW // 2 and not slow:
            return None
        measured_ms = _p90(self._ages)
        if measured_ms > self.max_latency_ms:
            return self._move(time_s, measured_ms, period_ms, up=False)
        if time_s - self._changed_s < self._up_after_s or len(self._ages) < _WINDOW:
            return None
        return self._move(time_s, measured_ms, period_ms, up=True)

    def _split(self, stage_ms: Mapping[str, float]) -> tuple[float, float, float]:
        """Network, pixels at full size, and the rest."""
        network = pixels = rest = 0.0
        for name, value_ms in stage_ms.items():
            if name in _NETWORK:
                network += value_ms
            else:
                share = _PIXELS.get(name, 0.0)
                pixels += share * value_ms
                rest += (1 - share) * value_ms
        return network, pixels / self.plan.scale**2, rest

    def _move(
        self, time_s: float, measured_ms: float, period_ms: float, *, up: bool
    ) -> GovernorEvent | None:
        assert self.max_latency_ms is not None
        network, pixels, rest = (float(v) for v in np.median(np.array(self._costs), axis=0))
        self._network_ms[self.plan.model] = network
        now = self._age_ms(self.plan, pixels, rest, period_ms)
        ratio = min(max(measured_ms / max(now, 0.1), 0.5), 5.0)

        def age_ms(plan: Plan) -> float:
            return ratio * self._age_ms(plan, pixels, rest, period_ms)

        limit_ms = self.max_latency_ms * (_FITS_UP if up else _FITS)
        if up:
            better = [p for p in self._plans if p.loss < self.plan.loss and age_ms(p) <= limit_ms]
            after = better[0] if better else self.plan
        else:
            # the plan in use has shown that it does not fit, whatever the prediction says
            worse = [p for p in self._plans if p.loss > self.plan.loss]
            fitting = [p for p in worse if age_ms(p) <= limit_ms]
            least = min(worse, key=age_ms, default=self.plan)
            after = fitting[0] if fitting else least
            if after is least and age_ms(least) >= measured_ms:
                after = self.plan  # nothing left that would help
        if after == self.plan:
            return None
        return self._change(time_s, after, measured_ms, up=up)

    def _age_ms(self, plan: Plan, pixels: float, rest: float, period_ms: float) -> float:
        work = self._network(plan.model) + pixels * plan.scale**2 + rest
        wait = period_ms if plan.share == 1 and work > period_ms else 0.0
        return work + wait

    def _network(self, model: int) -> float:
        known = self._network_ms
        if model in known:
            return known[model]
        nearest = min(known, key=lambda other: abs(other - model))
        return known[nearest] * float(_NEXT_MODEL_COST ** (model - nearest))

    def _change(self, time_s: float, after: Plan, measured_ms: float, *, up: bool) -> GovernorEvent:
        if up:
            self._went_up_s = time_s
        elif self._went_up_s is not None and time_s - self._went_up_s < _REGRET_S:
            self._up_after_s = min(2 * self._up_after_s, _UP_AFTER_MOST_S)
            self._went_up_s = None
        why = f"age {measured_ms:.0f} ms, limit {self.max_latency_ms:g} ms"
        text = f"{'room again' if up else 'too late'} ({why}): now {after}"
        event = GovernorEvent(time_s, self.plan, after, measured_ms, text)
        self.plan, self._changed_s = after, time_s
        self._ages.clear()
        self._costs.clear()
        self._to_settle = _SETTLE
        self.events.append(event)
        self.changes += 1
        logger.info("latency: %s", text)
        return event


def _p90(values: Sequence[float] | deque[float]) -> float:
    return float(np.percentile(np.fromiter(values, float), 90))


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")
