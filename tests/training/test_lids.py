"""The colour of eyelids that close."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.contract import NUM_LANDMARKS
from training.config import LOOK_XYXY, get_config
from training.networks import build
from training.networks.encoder import look
from training.networks.lids import CORNERS, SKIN, LidTone

HW = (LOOK_XYXY[3] - LOOK_XYXY[1], LOOK_XYXY[2] - LOOK_XYXY[0])
EYES_XY = ((158.0, 92.0), (98.0, 92.0))  # the person's left eye is on the right
PALE, RED = (0.8, 0.7, 0.6), (0.7, 0.4, 0.3)


def landmarks() -> torch.Tensor:
    points = torch.full((1, NUM_LANDMARKS, 2), 10.0)
    for (x, y), skin, corners in zip(EYES_XY, SKIN, CORNERS, strict=True):
        for k, point in enumerate(skin):
            points[0, point] = torch.tensor([x - 8 + 8 * (k % 3), y - 14 if k < 3 else y + 14])
        points[0, corners[0]] = torch.tensor([x - 17, y])
        points[0, corners[1]] = torch.tensor([x + 17, y])
    return points


def blink(left: float, right: float) -> torch.Tensor:
    change = torch.zeros(1, NUM_AUS, 2)
    change[0, AuId.AU45.index] = torch.tensor([left, right])
    return change.flatten(1)


def plain(rgb: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rgb)[None, :, None, None].expand(1, 3, *HW).contiguous()


def at(picture: torch.Tensor, xy: tuple[float, float]) -> torch.Tensor:
    return picture[0, :, int(xy[1]) - LOOK_XYXY[1], int(xy[0]) - LOOK_XYXY[0]]


def hue(rgb: torch.Tensor) -> torch.Tensor:
    return rgb / rgb.mean()


def test_a_lid_that_closes_takes_the_hue_of_the_skin_and_stays_as_bright() -> None:
    toned = LidTone()(plain(RED), plain(PALE), landmarks(), blink(1.0, 0.0))
    left, right = (at(toned, xy) for xy in EYES_XY)
    wanted = 0.3 * hue(torch.tensor(RED)) + 0.7 * hue(torch.tensor(PALE))
    torch.testing.assert_close(hue(left), wanted, atol=3e-3, rtol=0)
    torch.testing.assert_close(left.mean(), torch.tensor(RED).mean())
    torch.testing.assert_close(right, torch.tensor(RED), atol=1e-3, rtol=0)  # stays open
    cheek = at(toned, (158.0, 150.0))
    torch.testing.assert_close(cheek, torch.tensor(RED), atol=5e-3, rtol=0)


def test_each_eye_has_the_skin_around_it() -> None:
    picture = plain(PALE)
    picture[..., : HW[1] // 2] = torch.tensor((0.3, 0.3, 0.6))[:, None, None]  # odd light
    toned = LidTone()(plain(RED), picture, landmarks(), blink(1.0, 1.0))
    left, right = (at(toned, xy) for xy in EYES_XY)
    assert left[0] > left[2] and right[2] > 0.9 * right[0]


@pytest.mark.parametrize("change", [blink(0.0, 0.0), blink(-1.0, -0.5)])
def test_eyes_that_open_or_stay_are_left_alone(change: torch.Tensor) -> None:
    torch.testing.assert_close(
        LidTone()(plain(RED), plain(PALE), landmarks(), change), plain(RED), atol=1e-6, rtol=0
    )


def test_half_a_blink_is_toned_by_half_and_no_hue_is_made_of_darkness() -> None:
    half = at(LidTone()(plain(RED), plain(PALE), landmarks(), blink(0.5, 0.0)), EYES_XY[0])
    whole = at(LidTone()(plain(RED), plain(PALE), landmarks(), blink(3.0, 0.0)), EYES_XY[0])
    red = torch.tensor(RED)
    torch.testing.assert_close(half - red, (whole - red) / 2, atol=1e-3, rtol=0)
    dark = LidTone()(plain(RED), plain((0.0, 0.0, 0.0)), landmarks(), blink(1.0, 1.0))
    lid = at(dark, EYES_XY[0])
    torch.testing.assert_close(lid.mean(), torch.tensor(RED).mean())  # as bright as ever
    torch.testing.assert_close(hue(lid), 0.3 * hue(torch.tensor(RED)) + 0.7, atol=1e-3, rtol=0)


def test_the_generator_tones_lids_by_the_change_it_is_asked_for() -> None:
    smoke = get_config("smoke").network
    torch.manual_seed(0)
    net = build(replace(smoke, mesh_features=4)).eval()
    picture = torch.rand(1, 3, 256, 256)
    toned, plainly = [], []
    with torch.no_grad():
        encoded = net.encoder(look(picture))
        wanted = encoded.tokens.clone()
        wanted[:, AuId.AU45.index] += net.label_tokens.weight[AuId.AU45.index, 0]  # left, by 1
        for kept in (toned, plainly):
            said = net.generator(encoded.features, encoded.tokens, wanted, landmarks_xy=landmarks())
            kept.append(said.fill_rgb[0])
            net.generator.lids = None
    apart = (toned[0] - plainly[0]).abs().sum(0)
    assert float(apart[92, 158]) > 1e-3
    assert float(apart[92, 98]) < 0.05 * float(apart[92, 158])
