"""What the sliders come to."""

from __future__ import annotations

import pytest

from rt_swap.aus import AUS, AuId, region_mask
from rt_swap.errors import ConfigError
from rt_swap.studio.controls import Controls, controls_from_settings


def test_gains_are_one_at_first() -> None:
    assert Controls().gains().tolist() == [1.0] * len(AUS)


def test_a_unit_wins_over_its_region_and_all_is_a_factor() -> None:
    controls = Controls().changed({"overall": 0.5, "regions": {"mouth": 0.8}, "aus": {"AU12": 1.6}})
    gains = controls.gains()
    assert gains[AuId.AU12.index] == pytest.approx(0.8)
    assert gains[AuId.AU10.index] == pytest.approx(0.4)
    assert gains[region_mask("brows")] == pytest.approx(0.5)


def test_gains_stay_in_range() -> None:
    gains = Controls().changed({"overall": 2.0, "regions": {"jaw": 2.0}}).gains()
    assert gains.max() == 2.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 2.1, "1", None, True, []])
def test_wrong_gains_are_refused(value: object) -> None:
    for changes in ({"overall": value}, {"regions": {"jaw": value}}):
        with pytest.raises(ConfigError, match="must be a number from 0 to 2"):
            Controls().changed(changes)


def test_reset_comes_first_whatever_the_order() -> None:
    controls = Controls().changed({"aus": {"AU1": 0.2}, "overall": 0.3})
    assert controls.changed({"regions": {"jaw": 0.4}, "reset": True}).regions["jaw"] == 0.4
    assert controls.changed({"reset": True}).gains().tolist() == [1.0] * len(AUS)


def test_settings_become_sliders() -> None:
    controls = controls_from_settings("brows=0.5,AU12=0.3", "relative", "slate")
    assert controls.regions["brows"] == 0.5
    assert controls.regions["mouth"] == 1.0
    assert dict(controls.aus) == {"AU12": pytest.approx(0.3)}
    assert (controls.mode, controls.on_lost) == ("relative", "slate")
    with pytest.raises(ConfigError, match="ears"):
        controls_from_settings("ears=1", "absolute")
