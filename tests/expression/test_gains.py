"""Gains: what is written, what is meant, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap.aus import AU_NAMES, NUM_AUS, AuId, region_mask
from rt_swap.errors import ConfigError
from rt_swap.expression import parse_gains


def test_nothing_is_one_everywhere() -> None:
    for nothing in (None, "", " , ", {}):
        gains = parse_gains(nothing)
        assert gains.dtype == np.float32
        np.testing.assert_array_equal(gains, np.ones(NUM_AUS))


@pytest.mark.parametrize(
    "text",
    [
        "brows=0.5,mouth=1,AU12=0.3,all=0.2",
        "AU12=0.3,all=0.2,mouth=1,brows=0.5",
        " au12 = 0.3 ,ALL=0.2, Mouth=1 , brows=.5,",
    ],
)
def test_narrower_name_wins_whatever_the_order(text: str) -> None:
    expected = np.full(NUM_AUS, 0.2)
    expected[region_mask("brows")] = 0.5
    expected[region_mask("mouth")] = 1.0
    expected[AuId.AU12.index] = 0.3
    np.testing.assert_allclose(parse_gains(text), expected, rtol=1e-6)


def test_brows_only() -> None:
    gains = parse_gains("all=0,brows=1")
    assert set(np.flatnonzero(gains)) == {AuId.AU1.index, AuId.AU2.index, AuId.AU4.index}


def test_what_is_not_named_is_one() -> None:
    gains = parse_gains("jaw=0")
    np.testing.assert_array_equal(gains == 0, region_mask("jaw"))
    assert set(gains[~region_mask("jaw")]) == {1.0}


@pytest.mark.parametrize("number", [0.5, "0.5", {"all": 0.5}])
def test_one_number_is_for_every_au(number: float | str | dict[str, float]) -> None:
    np.testing.assert_array_equal(parse_gains(number), np.full(NUM_AUS, 0.5))


def test_every_au_can_be_named() -> None:
    for k, name in enumerate(AU_NAMES):
        gains = parse_gains({"all": 0, name: 1.5})
        assert np.flatnonzero(gains).tolist() == [k]
        assert gains[k] == 1.5


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("brow=1", "there is no 'brow'; there are all, brows"),
        ("mouth=-0.1", r"mouth must be a number from 0 to 2, got '-0\.1'"),
        ("mouth=2.5", "from 0 to 2"),
        ("mouth=nan", "from 0 to 2"),
        ("mouth=wide", "from 0 to 2, got 'wide'"),
        ("mouth=", "from 0 to 2, got ''"),
        ("mouth", "must be name=value"),
        ("AU12=1,au12=0", "AU12 is given twice"),
        ("AU25=1", "AU25 has no gain of its own; use AU10"),
        ("AU3=1", "there is no 'AU3'"),
    ],
)
def test_wrong_gains_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_gains(text)


def test_every_fault_is_listed() -> None:
    with pytest.raises(ConfigError, match=r"mouth must.*no 'lips'"):
        parse_gains("mouth=9,lips=1")
    with pytest.raises(ConfigError, match="from 0 to 2"):
        parse_gains(float("inf"))
