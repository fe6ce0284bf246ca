"""The governor, on a simulated machine."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import pytest

from rt_swap.errors import ConfigError
from rt_swap.live.governor import Governor, GovernorEvent, Plan


@dataclass
class Machine:
    """Costs of a full-size frame, milliseconds, and a camera that gives 30 a second."""

    networks: tuple[float, ...] = (9.0,)
    pixels: float = 4.0
    rest: float = 4.0
    load: float = 1.0
    period_ms: float = 1000 / 30
    time_s: float = 0.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def frame(self, plan: Plan) -> tuple[float, dict[str, float]]:
        """Age and stages of one frame; time goes on."""
        load = self.load * float(self.rng.uniform(0.95, 1.1))
        stages = {
            "generate": self.networks[plan.model] * load,
            "compose": self.pixels * plan.scale**2 * load,
            "crop": self.rest * load,
        }
        work = sum(stages.values())
        wait = 0.0
        if plan.share == 1 and work > self.period_ms:
            wait = float(self.rng.uniform(0, self.period_ms))
        self.time_s += max(work, self.period_ms * plan.share) / 1e3
        return work + wait + 1.0, stages

    def run(self, governor: Governor, seconds: float) -> tuple[list[float], list[GovernorEvent]]:
        ages, events = [], []
        end_s = self.time_s + seconds
        while self.time_s < end_s:
            age_ms, stages = self.frame(governor.plan)
            ages.append(age_ms)
            event = governor.saw(self.time_s, age_ms, stages, self.period_ms)
            if event is not None:
                events.append(event)
        return ages, events


def test_nothing_is_given_up_while_all_fits() -> None:
    governor = Governor(50.0)
    _, events = Machine().run(governor, 60)
    assert not events
    assert governor.plan == Plan()


def test_without_a_limit_nothing_is_ever_given_up() -> None:
    governor = Governor(None)
    _, events = Machine(load=50.0).run(governor, 60)
    assert not events


def test_resolution_is_given_up_where_pixels_cost(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rt_swap")
    governor, machine = Governor(30.0), Machine(networks=(6.0,), pixels=24.0, rest=4.0)
    machine.run(governor, 5)
    ages, events = machine.run(governor, 10)
    assert governor.plan == Plan(scale=0.75)
    assert np.percentile(ages, 90) <= 30.0
    assert not events
    assert "too late" in caplog.text
    assert "resolution 75%" in caplog.text
    assert "limit 30 ms" in governor.events[0].text


def test_frames_are_left_out_where_waiting_is_what_takes_long() -> None:
    # 40 ms of network: each picture waits for the one before; less pixels would not help
    governor, machine = Governor(55.0), Machine(networks=(38.0,), pixels=0.5, rest=2.0)
    machine.run(governor, 5)
    ages, _ = machine.run(governor, 10)
    assert governor.plan == Plan(share=2)
    assert np.percentile(ages, 90) <= 55.0


def test_smaller_model_is_used_where_there_is_one() -> None:
    governor = Governor(30.0, models=2)
    machine = Machine(networks=(28.0, 14.0), pixels=1.0, rest=3.0)
    machine.run(governor, 5)
    ages, _ = machine.run(governor, 10)
    assert governor.plan == Plan(model=1)
    assert np.percentile(ages, 90) <= 30.0


def test_all_comes_back_when_the_load_goes() -> None:
    governor, machine = Governor(33.0), Machine(load=1.0, pixels=8.0)
    machine.run(governor, 5)
    assert governor.plan == Plan()
    machine.load = 1.8
    machine.run(governor, 5)
    assert governor.plan.loss > 0
    machine.load = 1.0
    machine.run(governor, 30)
    assert governor.plan == Plan()
    assert "room again" in governor.events[-1].text
    assert "everything at its best" in governor.events[-1].text


def test_going_up_in_vain_is_tried_less_and_less_often() -> None:
    class Deceiving(Machine):
        """Looks roomy while little is asked of it and is slow when more is."""

        def frame(self, plan: Plan) -> tuple[float, dict[str, float]]:
            self.load = 2.4 if plan.loss == 0 else 1.0
            return super().frame(plan)

    governor, machine = Governor(30.0), Deceiving(pixels=8.0)
    machine.run(governor, 300)
    ups = [e.time_s for e in governor.events if e.after.loss < e.before.loss]
    assert 2 <= len(ups) <= 12  # without patience it were one every 4 s
    gaps = np.diff(ups)
    assert gaps[-1] > 2 * gaps[0]


def test_hopeless_machine_ends_at_the_least_and_stays_there() -> None:
    governor, machine = Governor(10.0), Machine(load=6.0)
    machine.run(governor, 60)
    events = len(governor.events)
    assert governor.plan.loss > 5
    machine.run(governor, 60)
    assert len(governor.events) == events


def test_very_slow_frames_need_no_full_window() -> None:
    governor, machine = Governor(100.0), Machine(load=50.0)
    machine.run(governor, 15)
    assert governor.plan.loss > 0


@pytest.mark.parametrize("limit", [0.0, -1.0, 1e9, float("nan")])
def test_error_limit(limit: float) -> None:
    with pytest.raises(ConfigError, match="--max-latency-ms: must be a number from 5 to 10000"):
        Governor(limit)
