"""Folds of the skin that an expression makes: frown lines, forehead lines, the nose's root, crow's
feet.

They are finer than the face model's mesh and than maps of shade that are learned at half size, so
they are drawn: as lines between landmarks, along which skin is known to fold when a unit contracts
(Ekman, Friesen and Hager, *FACS Manual*, 2002, lists them by unit). The data engine draws them with
the same code (training.data.render), so a picture and what is made of it agree on where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.contract import NUM_LANDMARKS
from training.config import LOOK_XYXY

Anchor = tuple[tuple[int, float], ...]
"""A place of the face: landmarks, each with its weight; weights sum to 1."""

FOLDS_XYXY: Final = (LOOK_XYXY[0], 16, LOOK_XYXY[2], LOOK_XYXY[3])
"""Where folds are drawn, pixels of a 256-px crop: the look and the forehead above it, no wider."""
_EDGE_PX: Final = 12
"""Folds fade over so many pixels at the edges of that."""
_FIRST: Final = 0.12
"""Skin folds when a unit does more than this; so trembling readings draw nothing."""
_LIT: Final = 0.45
_LIT_PX: Final = 2
"""The lower bank of a fold looks up into the light: so much of its depth, so far below it."""
_TAPER: Final = 0.9
_ALONG: Final = 4
"""Points to either side over which what is unlike skin is averaged."""
_AROUND_PX: Final = ((0.0, 0.0), (3.0, 0.0), (-3.0, 0.0), (0.0, 3.0), (0.0, -3.0))
_LIGHT_OFF: Final = 0.8
_HUE_OFF: Final = 0.2
_ROUGH: Final = (0.16, 0.16)
"""Deviations of the logarithm of brightness and of hue from skin's nearby, and differences of the
logarithm of brightness between places 3 pixels apart side by side and one above the other, at which
something hardly passes for smooth skin: hair, frames of glasses, skin that has its folds already.
"""
_ROUGH_FOREHEAD: Final = (0.035, 0.16)
"""The same on the forehead. Of 24 portraits, bare foreheads have differences of 0.010 to 0.028 side
by side, fair hair that hangs into one 0.044, other hair more.
"""
_SKIN: Final = (8, 9, 55, 285, 101, 330, 118, 347)
"""Landmarks of skin, between the brows and below the eyes."""
_GREY: Final = 0.08
"""Added to what is seen: hues of dark places are less sure."""
_FARTHEST: Final = 30.0

_MIRROR: Final = {
    8: 8, 9: 9, 10: 10, 151: 151, 168: 168, 6: 6,
    55: 285, 107: 336, 193: 417, 122: 351, 63: 293, 105: 334, 66: 296, 68: 298, 104: 333,
    69: 299, 108: 337, 54: 284, 103: 332, 67: 297, 109: 338, 33: 263, 156: 383, 34: 264, 227: 447,
}  # fmt: skip
"""Landmarks of the person's right half, as the lines below name them, and of the left."""


@dataclass(frozen=True)
class Fold:
    """A line along which skin folds.

    Attributes:
        through: Places that it goes through, in order.
        depth: log2 of how much darker its ground is when its units contract in full.
        width_px: Deviation of its profile, pixels of a 256-px crop.
        points: How many Gaussians draw it.
        units: Unit -> weight of the person's right and left in how far it is folded, at the first
            and at the last place (linear between, but see ``inner``).
        inner: Unit -> weight that is added in the middle of the line and fades to its ends.
        upright: Whether it has no lower bank.
        rough: Differences of brightness around at which there is hardly smooth skin.
    """

    through: tuple[Anchor, ...]
    depth: float
    width_px: float
    points: int
    units: dict[AuId, tuple[tuple[float, float], tuple[float, float]]]
    inner: dict[AuId, float]
    upright: bool = False
    rough: tuple[float, float] = _ROUGH


def _between(a: int, b: int, share: float) -> Anchor:
    return ((a, 1.0 - share), (b, share))


def _mean(*weighed: tuple[Anchor, float]) -> Anchor:
    return tuple((i, w * share) for anchor, share in weighed for i, w in anchor)


def _mirrored(anchor: Anchor) -> Anchor:
    return tuple((_MIRROR[i], w) for i, w in anchor)


def _sided(
    through: tuple[Anchor, ...], depth: tuple[float, float], width_px: float, points: int,
    units: dict[AuId, float], upright: bool = False,
) -> Iterator[Fold]:  # fmt: skip
    """The line on the person's right, and on the left; nobody's two are equally deep."""
    for side in (0, 1):
        weights = {
            unit: (((w, 0.0), (w, 0.0)) if side == 0 else ((0.0, w), (0.0, w)))
            for unit, w in units.items()
        }
        places = through if side == 0 else tuple(_mirrored(a) for a in through)
        yield Fold(places, depth[side], width_px, points, weights, {}, upright)


def _forehead(lower: tuple[int, ...], upper: tuple[int, ...], share: float, depth: float) -> Fold:
    """A line across the forehead, the person's right first: raised by the inner brow in the middle,
    by the outer at its ends; what draws brows together and down smooths it.
    """
    right = [_between(a, b, share) for a, b in zip(lower, upper, strict=True)]
    middle = right[-1]
    places = (*right, *(_mirrored(a) for a in reversed(right[:-1])))
    assert all(_MIRROR[i] == i for i, _ in middle)
    return Fold(
        places,
        depth,
        1.5,
        48,
        {
            AuId.AU2: ((0.85, 0.0), (0.0, 0.85)),
            AuId.AU1: ((0.05, 0.0), (0.0, 0.05)),
            AuId.AU4: ((-0.3, 0.0), (0.0, -0.3)),
        },
        # both brows together; AU2 counts less there, for its two ends meet at half each
        {AuId.AU1: 0.32, AuId.AU2: -0.25},
        rough=_ROUGH_FOREHEAD,
    )


_BROW: Final = (105, 66, 107, 9)
_FOREHEAD: Final = (104, 69, 108, 151)
_HAIR: Final = (103, 67, 109, 10)
_NEAR_BROW: Final = _mean((_between(9, 107, 0.52), 0.8), (_between(151, 108, 0.5), 0.2))

FOLDS: Final[tuple[Fold, ...]] = (
    # between the brows, upright
    *_sided(
        (
            _NEAR_BROW,
            _mean((_between(9, 107, 0.52), 0.5), (_between(8, 55, 0.5), 0.5)),
            _between(8, 55, 0.45),
            _mean((_between(8, 55, 0.4), 0.6), (_between(168, 193, 0.35), 0.4)),
        ),
        (0.5, 0.42), 1.9, 11, {AuId.AU4: 1.0, AuId.AU9: 0.15}, upright=True,
    ),
    # across the nose's root
    *_sided(
        (_between(168, 193, 0.9), _between(168, 193, 0.45), ((168, 1.0),)),
        (0.36, 0.4), 1.3, 8, {AuId.AU9: 0.9, AuId.AU4: 0.4},
    ),
    *_sided(
        (
            _mean((((6, 1.0),), 0.25), (_between(193, 122, 0.5), 0.75)),
            _mean((((6, 0.8), (168, 0.2)), 0.6), (_between(193, 122, 0.5), 0.4)),
            ((6, 0.8), (168, 0.2)),
        ),
        (0.28, 0.24), 1.3, 8, {AuId.AU9: 0.9, AuId.AU4: 0.2},
    ),
    _forehead(_BROW, _FOREHEAD, 0.55, 0.42),
    _forehead(_FOREHEAD, _HAIR, 0.1, 0.5),
    _forehead(_FOREHEAD, _HAIR, 0.6, 0.38),
    # beside the eyes
    *(
        fold
        for towards, depth in ((156, 0.16), (34, 0.28), (227, 0.2))
        for fold in _sided(
            (_between(33, towards, 0.38), _between(33, towards, 0.6), _between(33, towards, 0.85)),
            (depth, depth * 0.9), 1.1, 8, {AuId.AU6: 1.0, AuId.AU7: 0.2},
        )
    ),
)  # fmt: skip

_UPRIGHT: Final = sum(fold.points for fold in FOLDS if fold.upright)
"""Points of upright lines, which come first."""


def _spline(count: int, at: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of a line's places at positions along it, and of the way from one point to the next
    (Catmull and Rom, 1974; ends doubled).

    Args:
        count: Places.
        at: (P,) in [0, 1].

    Returns:
        (P, count) each.
    """
    t = at * (count - 1)
    first = t.floor().clamp(max=count - 2)
    u = t - first
    values = torch.stack(
        [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2], 1
    )
    slopes = torch.stack(
        [-1 + 4 * u - 3 * u**2, -10 * u + 9 * u**2, 1 + 8 * u - 9 * u**2, 3 * u**2 - 2 * u], 1
    )
    weights, ways = (torch.zeros(len(at), count, dtype=at.dtype) for _ in range(2))
    rows = torch.arange(len(at))
    for k in range(4):
        index = (first.long() + k - 1).clamp(0, count - 1)
        weights.index_put_((rows, index), values[:, k] / 2, accumulate=True)
        ways.index_put_((rows, index), slopes[:, k] / 2, accumulate=True)
    return weights, ways * ((count - 1) / (len(at) - 1))


def _lines() -> dict[str, Tensor]:
    """All lines' points; P of them.

    Returns:
        place: (P, 478) weights of landmarks, way: (P, 478) the same of the way to the next point,
        units: (2K, P) how far a unit of each intensity folds it, depth: (P,), width: (P,), smooth:
        (P, 2) what differences of brightness count, along: (P, P) mean over a point's neighbours in
        its line.
    """
    names = ("place", "way", "units", "depth", "width", "smooth")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    blocks = []
    for fold in FOLDS:
        at = torch.linspace(0.0, 1.0, fold.points, dtype=torch.float64)
        anchors = torch.zeros(len(fold.through), NUM_LANDMARKS, dtype=torch.float64)
        for row, anchor in enumerate(fold.through):
            for index, weight in anchor:
                anchors[row, index] += weight
        weights, ways = _spline(len(fold.through), at)
        parts["place"].append(weights @ anchors)
        parts["way"].append(ways @ anchors)
        units = torch.zeros(2 * NUM_AUS, fold.points, dtype=torch.float64)
        middle = 1.0 - (2.0 * at - 1.0).abs()
        for unit, (first, last) in fold.units.items():
            for side in (0, 1):
                # intensities are [left, right]
                units[2 * unit.index + 1 - side] = first[side] * (1 - at) + last[side] * at
        for unit, weight in fold.inner.items():
            units[2 * unit.index : 2 * unit.index + 2] += weight * middle
        parts["units"].append(units)
        ends = torch.sin(torch.pi * at.clamp(0.04, 0.96)) ** _TAPER
        parts["depth"].append(fold.depth * ends)
        parts["width"].append(torch.full_like(at, fold.width_px))
        parts["smooth"].append((1.0 / torch.tensor(fold.rough)).double().repeat(fold.points, 1))
        near = (torch.arange(fold.points)[:, None] - torch.arange(fold.points)).abs() <= _ALONG
        blocks.append(near.double() / near.double().sum(1, keepdim=True))
    stacked = {name: torch.cat(p, 1 if name == "units" else 0) for name, p in parts.items()}
    return {**stacked, "along": torch.block_diag(*blocks)}


def _ramp(centres: Tensor) -> Tensor:
    """Of evenly spaced places: 1 inside, falling smoothly to 0 at both ends."""
    count = len(centres)
    at = torch.arange(count, dtype=torch.float32) + 0.5
    ramp = (torch.minimum(at, count - at) / _EDGE_PX).clamp(max=1.0)
    return ramp * ramp * (3 - 2 * ramp)


class Folds(nn.Module):
    """Draws the folds that a change of expression makes; nothing in it is learned.

    Only what is added: folds that a face has as it is stay where they are.
    """

    def __init__(self) -> None:
        super().__init__()
        x0, y0, x1, y1 = FOLDS_XYXY
        columns = torch.arange(x0, x1, dtype=torch.float32) + 0.5
        rows = torch.arange(y0, y1, dtype=torch.float32) + 0.5
        x0, y0, x1, y1 = LOOK_XYXY
        for name, value in (
            *_lines().items(),
            ("around", torch.tensor(_AROUND_PX)),
            ("skin", torch.tensor(_SKIN)),
            ("columns", columns),
            ("rows", rows),
            ("fade_across", _ramp(columns)),
            ("fade_down", _ramp(rows)),
            ("first_xy", torch.tensor([x0, y0], dtype=torch.float32)),
            ("per_px", 2.0 / torch.tensor([x1 - x0, y1 - y0], dtype=torch.float32)),
        ):
            value = value.float() if value.is_floating_point() else value
            self.register_buffer(name, value, persistent=False)

    def forward(
        self, picture_rgb: Tensor, landmarks_xy: Tensor, moved_xy: Tensor, change_lr: Tensor
    ) -> Tensor:
        """Draw them.

        Args:
            picture_rgb: (N, 3, 192, 176) the look of the face as it is, in [0, 1].
            landmarks_xy: (N, 478, 2) its landmarks, pixels of a 256-px crop.
            moved_xy: (N, 478, 2) where those are in the picture to be shown.
            change_lr: (N, 2K) of the intensities.

        Returns:
            (N, 1, 220, 176) log2 shade in FOLDS_XYXY, 0 where skin does not fold.
        """
        with torch.autocast(picture_rgb.device.type, enabled=False):  # places: too fine for half
            landmarks_xy, moved_xy = landmarks_xy.float(), moved_xy.float()
            place = self.get_buffer("place")
            # what a unit that relaxes had folded, or kept from folding, is as it was
            more = change_lr.float().clamp(0.0, 1.0)
            amount = torch.matmul(more, self.get_buffer("units"))
            amount = ((amount - _FIRST) * (1 / (1 - _FIRST))).clamp(0.0, 1.0)  # (N, P)
            skin = self._skin(picture_rgb.float(), landmarks_xy, torch.matmul(place, landmarks_xy))
            width = self.get_buffer("width")
            way = torch.matmul(self.get_buffer("way"), moved_xy)
            # Gaussians in a row: as high as a line that is so deep
            spacing = (way.square().sum(2) + 1e-6).sqrt() / (width * (2 * torch.pi) ** 0.5)
            height = amount * skin * spacing * self.get_buffer("depth")
            x, y = torch.matmul(place, moved_xy).split(1, dim=2)
            across = (self.get_buffer("columns") - x) / width[:, None]  # (N, P, 176)
            down = (self.get_buffer("rows") - y) / width[:, None]
            across = torch.exp((across * across * -0.5).clamp(min=-_FARTHEST))
            across = across * self.get_buffer("fade_across")
            down = torch.exp((down * down * -0.5).clamp(min=-_FARTHEST)) * height[:, :, None]
            down = (down * self.get_buffer("fade_down")).transpose(1, 2)
            upright = torch.matmul(down[:, :, :_UPRIGHT], across[:, :_UPRIGHT])
            lying = torch.matmul(down[:, :, _UPRIGHT:], across[:, _UPRIGHT:])
            lit = F.pad(lying[:, :-_LIT_PX], (0, 0, _LIT_PX, 0))
            drawn: Tensor = (lit * _LIT - lying - upright)[:, None].detach()
            return drawn

    def _skin(self, picture_rgb: Tensor, landmarks_xy: Tensor, points_xy: Tensor) -> Tensor:
        """(N, P) how far each point lies on smooth skin, in [0, 1]."""
        count = len(picture_rgb)
        known = torch.index_select(landmarks_xy, 1, self.get_buffer("skin"))
        around = points_xy[:, None] + self.get_buffer("around")[:, None]  # (N, 5, P, 2)
        at = torch.cat([around.flatten(1, 2), known], dim=1)
        grid = (at - self.get_buffer("first_xy")) * self.get_buffer("per_px") - 1.0
        seen = F.grid_sample(
            picture_rgb, grid[:, None], padding_mode="border", align_corners=False
        ).reshape(count, 3, -1)
        light = torch.log(seen.mean(1) + _GREY)  # (N, 5 P + known)
        hue = (seen + _GREY) / (seen.mean(1, keepdim=True) + _GREY)
        last = len(_SKIN)
        points = light[:, :-last].reshape(count, len(_AROUND_PX), -1)
        apart = (points[:, 1:] - points[:, :1]).abs().reshape(count, 2, 2, -1).mean(2)
        rough = apart * self.get_buffer("smooth").T
        light_off = points[:, 0] - light[:, -last:].mean(1, keepdim=True)
        middle = hue[:, :, : points.shape[2]]
        hue_off = (middle - hue[:, :, -last:].mean(2, keepdim=True)).square().sum(1)
        unlike = (
            (light_off * (1 / _LIGHT_OFF)).square()
            + hue_off * (1 / _HUE_OFF**2)
            + rough.square().sum(1)
        )
        # what a line goes through is hair as a whole or not
        unlike = torch.matmul(unlike.clamp(max=_FARTHEST), self.get_buffer("along"))
        return torch.exp(-unlike)
