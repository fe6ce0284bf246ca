"""The visible mark: in its corner and nowhere else, readable on anything, found again."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap.errors import ConfigError, ContractError
from rt_swap.provenance import badge
from rt_swap.provenance.marks import CORNERS, Marks
from tests.support.videos import moving_portrait


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("hw", [(120, 160), (720, 1280), (479, 641)])
def test_badge_lies_in_its_corner_and_is_found_there(corner: str, hw: tuple[int, int]) -> None:
    picture = moving_portrait(1, *hw)[0]
    assert badge.find(picture)[0] is None
    out = picture.copy()
    badge.draw(out, corner)
    changed = np.argwhere((out != picture).any(axis=2))
    ys, xs = changed[:, 0], changed[:, 1]
    assert (ys.max() < hw[0] / 2) == corner.startswith("top")
    assert (xs.max() < hw[1] / 2) == corner.endswith("left")
    assert ys.max() - ys.min() <= max(hw[0] / 20, 13)
    assert badge.find(out)[0] == corner


@pytest.mark.parametrize("level", [0, 128, 255])
def test_badge_can_be_read_on_any_background(level: int) -> None:
    out = np.full((360, 640, 3), level, np.uint8)
    badge.draw(out, "bottom-left")
    x0, y0, x1, y1 = badge.badge_for(360, 640).box(360, 640, "bottom-left")
    part = out[y0:y1, x0:x1, 1]
    assert int(part.max()) - int(np.median(part)) > 100  # letters against their plate
    assert badge.find(out)[0] == "bottom-left"


def test_badge_is_found_after_a_call() -> None:
    import cv2

    out = moving_portrait(1, 720, 1280)[0]
    badge.draw(out, "bottom-right")
    small = cv2.resize(out, (640, 360), interpolation=cv2.INTER_AREA)
    kept = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)
    assert badge.find(kept)[0] == "bottom-right"


@pytest.mark.parametrize("hw", [(8, 8), (16, 16), (3, 200), (4320, 7680)])
def test_any_size_takes_a_badge(hw: tuple[int, int]) -> None:
    out = np.full((*hw, 3), 99, np.uint8)
    badge.draw(out, "top-right")
    assert (out != 99).any()


def test_wrong_use_is_told() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(ConfigError, match="--badge: must be one of"):
        badge.draw(picture, "middle")
    with pytest.raises(ConfigError, match="--badge: must be one of"):
        Marks(badge="middle")
    picture.flags.writeable = False
    with pytest.raises(ContractError, match="read-only"):
        badge.draw(picture, "top-left")
