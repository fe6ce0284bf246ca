"""Whom a case shows: tones by their published bounds, turns by geometry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from training.groups import TONES, groups_of, tone_and_light, turn_deg, typology_angle_deg


def test_golden_typology_angles() -> None:
    assert typology_angle_deg(50.0, 20.0) == 0
    assert typology_angle_deg(70.0, 20.0) == pytest.approx(45.0)
    assert typology_angle_deg(30.0, 20.0) == pytest.approx(-45.0)
    assert typology_angle_deg(50.0 + 20.0 * np.tan(np.radians(55)), 20.0) == pytest.approx(55.0)
    assert [bound for bound, _ in TONES] == sorted((b for b, _ in TONES), reverse=True)


@pytest.mark.parametrize(
    ("lightness", "tone", "light"),
    [(85, "very light", "lit"), (70, "light", "lit"), (62, "intermediate", "lit"),
     (56, "tan", "lit"), (48, "brown", "lit"), (30, "dark", "dim")],
)  # fmt: skip
def test_tone_and_light_of_a_flat_skin(lightness: float, tone: str, light: str) -> None:
    lab = np.full((40, 40, 3), (lightness, 14.0, 18.0), np.float32)
    rgb = np.rint(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).astype(np.uint8)
    skin = np.zeros((40, 40), bool)
    skin[:, 20:] = True
    rgb[:, :20] = (0, 0, 255)  # what is no skin does not count
    assert tone_and_light(rgb, skin) == (tone, light)


def test_hardly_any_skin_says_nothing() -> None:
    assert tone_and_light(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), bool)) is None
    grey = np.full((40, 40, 3), 128, np.uint8)
    assert groups_of("set", grey, np.zeros((40, 40), bool), None) == {"portraits": "set"}


@pytest.mark.parametrize("tilt_deg", [0.0, 25.0])
def test_turn_is_told_whatever_the_tilt(tilt_deg: float) -> None:
    xy = np.zeros((478, 2))
    xy[33], xy[263], xy[1] = (-50, 0), (50, 0), (50 * np.tan(np.radians(20)), 40)
    c, s = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    turned = xy @ np.array([[c, s], [-s, c]]) + 300
    assert turn_deg(turned) == pytest.approx(20.0)
    assert groups_of("a", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), turned) == {
        "portraits": "a",
        "head": "turned",
    }
    xy[1] = (0, 40)
    assert turn_deg(xy) == pytest.approx(0.0)
