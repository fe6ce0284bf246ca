"""Folds of the skin that an expression makes: between the brows (glabellar or frown lines), across
the forehead and the nose's root, and beside the eyes (crow's feet).

They are finer than the face model's mesh and than maps of shade that are learned at half size, so
they are drawn: as lines between landmarks, along which skin is known to fold when an action unit
contracts (Ekman, Friesen and Hager, *FACS Manual*, 2002, lists them by unit). The data engine draws
them with the same code (training.data.render), so a picture and what is made of it agree on where
they lie.
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
from training.networks.blocks import edge_ramp

Anchor = tuple[tuple[int, float], ...]
"""A place of the face: landmarks, each with its weight; weights sum to 1."""

FOLDS_XYXY: Final = (LOOK_XYXY[0], 16, LOOK_XYXY[2], 136)
"""Where folds are drawn, pixels of a 256-px crop: the look's upper half and what is above."""
_EDGE_PX: Final = 12
"""Folds fade over so many pixels at the edges of that."""
_STILL_PX: Final = 16
"""Over so many pixels inside the look's upper edge skin begins to be moved (training.networks.
generator.EDGE_PX), and folds with it."""
_FIRST: Final = 0.12
"""Skin folds when the weighed sum of its units is more than this: trembling readings draw none."""
_LIT: Final = 0.45
_LIT_PX: Final = 2
"""The lower bank of a fold looks up into the light: so much of its depth, so far below it."""
_TAPER: Final = 0.9
"""Power of the half sine by which lines run out at both ends."""
_ALONG: Final = 3
"""Points to either side over which what is unlike skin is averaged."""
_AROUND_PX: Final = ((0.0, 0.0), (3.0, 0.0), (-3.0, 0.0), (0.0, 3.0), (0.0, -3.0))
"""A point of a line and its neighbours beside, above and below it, where the picture is read."""
_SMOOTHED_PX: Final = 3
"""Side of the square over which the picture is averaged first: a camera's noise is no hair."""
_LIGHT: Final = (0.25, 0.6)
_HUE: Final = (0.1, 0.15)
"""How far the logarithm of brightness, and hue, of smooth skin may lie from that of skin nearby;
and how much farther they lie where something is skin to 1/e."""
_ROUGH: Final = ((0.05, 0.12), (0.05, 0.12))
"""The same of differences of the logarithm of brightness between neighbours, beside each other and
one above the other: frames of glasses, hair, folds that are there already."""
_ROUGH_FOREHEAD: Final = ((0.026, 0.014), (0.06, 0.12))
"""The same on the forehead, where hair hangs in strands. Of 24 validation portraits, not averaged
first, bare foreheads have differences of 0.010 to 0.028 beside each other, a fair fringe 0.044 and
other hair more."""
_SKIN: Final = (8, 9, 55, 285, 101, 330, 118, 347)
"""Landmarks of skin, between the brows and below the eyes."""
_GREY: Final = 0.08
"""Added to what is seen, of 1: hues of dark places are less sure."""
_FARTHEST: Final = 30.0
"""Exponent beyond which a Gaussian is as good as 0; smaller numbers would be denormal and slow."""
_NOTHING: Final = 0.004
"""|log2 shade| below this is exactly 0: half a grey level of a bright skin's."""

_MIRROR: Final = {
    8: 8, 9: 9, 10: 10, 151: 151, 168: 168, 6: 6,
    55: 285, 107: 336, 193: 417, 122: 351, 105: 334, 66: 296, 104: 333, 69: 299, 108: 337,
    33: 263, 156: 383, 34: 264, 227: 447,
}  # fmt: skip
"""Landmarks of the person's right half, as the lines below name them, and of the left."""


@dataclass(frozen=True)
class Fold:
    """A line along which skin folds.

    Attributes:
        through: Places that it goes through, in order.
        depth: log2 of how much darker its trough is when its units contract in full; where there is
            a lit bank, which reaches into it, a tenth to a fifth less.
        width_px: Standard deviation of its profile, pixels of a 256-px crop.
        points: How many Gaussians draw it.
        units: Action unit -> weight of the person's right and left in how far it is folded, at the
            first and at the last place; linear between.
        inner: Action unit -> weight of either side that is added in the middle of the line and
            fades to its ends.
        vertical: Whether it runs up and down, and has no lower bank.
        rough: See _ROUGH.
    """

    through: tuple[Anchor, ...]
    depth: float
    width_px: float
    points: int
    units: dict[AuId, tuple[tuple[float, float], tuple[float, float]]]
    inner: dict[AuId, float]
    vertical: bool = False
    rough: tuple[tuple[float, float], tuple[float, float]] = _ROUGH


def _between(a: int, b: int, share: float) -> Anchor:
    return ((a, 1.0 - share), (b, share))


def _mean(*weighed: tuple[Anchor, float]) -> Anchor:
    return tuple((i, w * share) for anchor, share in weighed for i, w in anchor)


def _mirrored(anchor: Anchor) -> Anchor:
    return tuple((_MIRROR[i], w) for i, w in anchor)


def _sided(
    through: tuple[Anchor, ...], depth: float, width_px: float, points: int,
    units: dict[AuId, float], vertical: bool = False,
) -> Iterator[Fold]:  # fmt: skip
    """A line on the person's right, as it is given, and the one on the left, each folded by its own
    side of the units.
    """
    right = {unit: ((w, 0.0), (w, 0.0)) for unit, w in units.items()}
    left = {unit: ((0.0, w), (0.0, w)) for unit, w in units.items()}
    yield Fold(through, depth, width_px, points, right, {}, vertical)
    mirrored = tuple(_mirrored(a) for a in through)
    yield Fold(mirrored, depth, width_px, points, left, {}, vertical)


def _forehead(share: float, depth: float) -> Fold:
    """A line across the forehead, the person's right first: raised by the inner brow in the middle,
    by the outer one at its ends; what draws brows together and down smooths it.

    Args:
        share: Where it lies, 0 along the brows, 1 where mediapipe's next row of landmarks is.
        depth: See Fold.
    """
    rows = zip((105, 66, 107, 9), (104, 69, 108, 151), strict=True)
    right = [_between(brow, above, share) for brow, above in rows]
    return Fold(
        (*right, *(_mirrored(a) for a in reversed(right[:-1]))),
        depth,
        1.5,
        38,
        {
            AuId.AU2: ((0.85, 0.0), (0.0, 0.85)),
            AuId.AU1: ((0.05, 0.0), (0.0, 0.05)),
            AuId.AU4: ((-0.3, 0.0), (0.0, -0.3)),
        },
        # both brows together; AU2 counts less there, for its two ends meet at half each
        {AuId.AU1: 0.32, AuId.AU2: -0.25},
        rough=_ROUGH_FOREHEAD,
    )


_GLABELLA: Final = (
    _mean((_between(9, 107, 0.52), 0.8), (_between(151, 108, 0.5), 0.2)),
    _mean((_between(9, 107, 0.52), 0.5), (_between(8, 55, 0.5), 0.5)),
    _between(8, 55, 0.45),
    _mean((_between(8, 55, 0.4), 0.6), (_between(168, 193, 0.35), 0.4)),
)

FOLDS: Final[tuple[Fold, ...]] = (
    # between the brows, and the shadow around them
    *_sided(_GLABELLA, 0.27, 1.15, 12, {AuId.AU4: 1.0, AuId.AU9: 0.15}, vertical=True),
    *_sided(_GLABELLA, 0.07, 3.0, 5, {AuId.AU4: 1.0, AuId.AU9: 0.15}, vertical=True),
    # across the nose's root
    *_sided(
        (_between(168, 193, 0.9), _between(168, 193, 0.45), ((168, 1.0),)),
        0.36, 1.3, 6, {AuId.AU9: 0.9, AuId.AU4: 0.2},
    ),
    *_sided(
        (
            _mean((((6, 1.0),), 0.25), (_between(193, 122, 0.5), 0.75)),
            _mean((((6, 0.8), (168, 0.2)), 0.6), (_between(193, 122, 0.5), 0.4)),
            ((6, 0.8), (168, 0.2)),
        ),
        0.24, 1.3, 6, {AuId.AU9: 0.9, AuId.AU4: 0.2},
    ),
    _forehead(0.36, 0.32),
    _forehead(0.7, 0.4),
    _forehead(1.02, 0.34),
    # beside the eyes
    *(
        fold
        for towards, depth in ((156, 0.16), (34, 0.26), (227, 0.2))
        for fold in _sided(
            (_between(33, towards, 0.38), _between(33, towards, 0.6), _between(33, towards, 0.85)),
            depth, 1.1, 6, {AuId.AU6: 1.0, AuId.AU7: 0.2},
        )
    ),
)  # fmt: skip
_VERTICAL: Final = sum(fold.points for fold in FOLDS if fold.vertical)
"""Points of vertical lines, which come first."""
assert all(fold.vertical for fold in FOLDS[: sum(fold.vertical for fold in FOLDS)])
_USED: Final = tuple(sorted({i for fold in FOLDS for anchor in fold.through for i, _ in anchor}))
"""Landmarks that lines hang on."""


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
    weights, tangents = (torch.zeros(len(at), count, dtype=at.dtype) for _ in range(2))
    rows = torch.arange(len(at))
    for k in range(4):
        index = (first.long() + k - 1).clamp(0, count - 1)
        weights.index_put_((rows, index), values[:, k] / 2, accumulate=True)
        tangents.index_put_((rows, index), slopes[:, k] / 2, accumulate=True)
    return weights, tangents * ((count - 1) / (len(at) - 1))


def _lines() -> dict[str, Tensor]:
    """All lines' points; P of them, U landmarks used.

    Returns:
        place: (P, U) weights of the landmarks, tangent: (P, U) the same of the way to the next
        point, units: (2K, P) how far a unit of each intensity folds it, depth: (P,), width: (P,),
        rough: (2, 2, P) _ROUGH's limits and what counts beyond them, along: (P, P) mean over a
        point's neighbours in its line, which a row of values is multiplied with from the left.
    """
    names = ("place", "tangent", "units", "depth", "width", "rough")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    blocks = []
    for fold in FOLDS:
        at = torch.linspace(0.0, 1.0, fold.points, dtype=torch.float64)
        anchors = torch.zeros(len(fold.through), NUM_LANDMARKS, dtype=torch.float64)
        for row, anchor in enumerate(fold.through):
            for index, weight in anchor:
                anchors[row, index] += weight
        weights, tangents = _spline(len(fold.through), at)
        parts["place"].append(weights @ anchors[:, list(_USED)])
        parts["tangent"].append(tangents @ anchors[:, list(_USED)])
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
        limits = torch.tensor(fold.rough, dtype=torch.float64).T
        parts["rough"].append(
            torch.stack([limits[0], 1 / limits[1]])[..., None].expand(2, 2, len(at))
        )
        near = (torch.arange(fold.points)[:, None] - torch.arange(fold.points)).abs() <= _ALONG
        blocks.append(near.double() / near.double().sum(0, keepdim=True))
    stacked = {n: torch.cat(p, -1 if n in ("units", "rough") else 0) for n, p in parts.items()}
    return {**stacked, "along": torch.block_diag(*blocks)}


class Folds(nn.Module):
    """Draws the folds that a change of expression makes; nothing in it is learned.

    Only what is added: folds that a face has as it is stay where they are.

    Args:
        depth: Of all of them, 1 as the lines above have it.
    """

    def __init__(self, depth: float = 1.0) -> None:
        super().__init__()
        x0, y0, x1, y1 = FOLDS_XYXY
        columns = torch.arange(x0, x1, dtype=torch.float32) + 0.5
        rows = torch.arange(y0, y1, dtype=torch.float32) + 0.5
        lines = _lines()
        lines["depth"] = lines["depth"] * depth
        x0, y0, x1, y1 = LOOK_XYXY
        for name, value in (
            *lines.items(),
            ("around", torch.tensor(_AROUND_PX)),
            ("used", torch.tensor(_USED)),
            ("skin", torch.tensor(_SKIN)),
            ("columns", columns),
            ("rows", rows),
            ("fade_across", edge_ramp(len(columns), _EDGE_PX)),
            ("fade_down", edge_ramp(len(rows), _EDGE_PX)),
            ("first_xy", torch.tensor([x0, y0], dtype=torch.float32)),
            ("per_px", 2.0 / torch.tensor([x1 - x0, y1 - y0], dtype=torch.float32)),
        ):
            value = value.float() if value.is_floating_point() else value
            self.register_buffer(name, value, persistent=False)

    def forward(
        self,
        picture_rgb: Tensor,
        landmarks_xy: Tensor,
        moved_xy: Tensor,
        own_lr: Tensor,
        wanted_lr: Tensor,
    ) -> Tensor:
        """Draw them.

        Args:
            picture_rgb: (N, 3, 192, 176) the look of the face as it is, in [0, 1].
            landmarks_xy: (N, 478, 2) its landmarks, pixels of a 256-px crop.
            moved_xy: (N, 478, 2) where those are in the picture to be shown.
            own_lr: (N, 2K) its intensities.
            wanted_lr: (N, 2K) those to be shown.

        Returns:
            (N, 1, 120, 176) log2 shade in FOLDS_XYXY, 0 where skin does not fold. No gradient
            passes.
        """
        with torch.no_grad(), torch.autocast(picture_rgb.device.type, enabled=False):
            used = self.get_buffer("used")
            still = torch.index_select(landmarks_xy.float(), 1, used)
            gone = torch.index_select(moved_xy.float(), 1, used)
            # above the look skin is not moved, nor are its folds
            moves = ((still[:, :, 1:] - LOOK_XYXY[1]) * (1 / _STILL_PX)).clamp(0.0, 1.0)
            gone = still + moves * (gone - still)
            amount = (self._folded(wanted_lr.float()) - self._folded(own_lr.float())).clamp(min=0.0)
            skin = self._skin(picture_rgb.float(), landmarks_xy.float(), self._on("place", still))
            width = self.get_buffer("width")
            # spacing / (width sqrt(2 pi)): so high, Gaussians in a row add up to a line of height 1
            spacing = (self._on("tangent", gone).square().sum(2) + 1e-6).sqrt()
            height = amount * skin * self.get_buffer("depth")
            height = height * spacing / (width * (2 * torch.pi) ** 0.5)
            x, y = self._on("place", gone).split(1, dim=2)
            across = (self.get_buffer("columns") - x) / width[:, None]  # (N, P, 176)
            down = (self.get_buffer("rows") - y) / width[:, None]
            across = torch.exp((across * across * -0.5).clamp(min=-_FARTHEST))
            across = across * self.get_buffer("fade_across")
            down = torch.exp((down * down * -0.5).clamp(min=-_FARTHEST)) * height[:, :, None]
            down = (down * self.get_buffer("fade_down")).transpose(1, 2)
            vertical = torch.matmul(down[:, :, :_VERTICAL], across[:, :_VERTICAL])
            lying = torch.matmul(down[:, :, _VERTICAL:], across[:, _VERTICAL:])
            lit = F.pad(lying[:, :-_LIT_PX], (0, 0, _LIT_PX, 0))
            drawn = (lit * _LIT - lying - vertical)[:, None]
            return drawn - drawn.clamp(-_NOTHING, _NOTHING)

    def _on(self, name: str, used_xy: Tensor) -> Tensor:
        """(N, P, 2) sums of the landmarks used; no product of matrices, which is half precision in
        a mixed graph.
        """
        weights = self.get_buffer(name)[..., None]
        return (used_xy[:, None] * weights).sum(2)

    def _folded(self, aus_lr: Tensor) -> Tensor:
        """(N, 2K) intensities -> (N, P) how far skin is folded, in [0, 1]."""
        amount = torch.matmul(aus_lr.clamp(0.0, 1.0), self.get_buffer("units"))
        return ((amount - _FIRST) * (1 / (1 - _FIRST))).clamp(0.0, 1.0)

    def _skin(self, picture_rgb: Tensor, landmarks_xy: Tensor, points_xy: Tensor) -> Tensor:
        """(N, P) how far each point lies on smooth skin, in [0, 1]."""
        count = len(picture_rgb)
        known = torch.index_select(landmarks_xy, 1, self.get_buffer("skin"))
        around = points_xy[:, None] + self.get_buffer("around")[:, None]  # (N, 5, P, 2)
        at = torch.cat([around.flatten(1, 2), known], dim=1)
        grid = (at - self.get_buffer("first_xy")) * self.get_buffer("per_px") - 1.0
        smooth = F.avg_pool2d(
            picture_rgb, _SMOOTHED_PX, stride=1, padding=_SMOOTHED_PX // 2, count_include_pad=False
        )
        seen = F.grid_sample(smooth, grid[:, None], padding_mode="border", align_corners=False)
        seen = seen.reshape(count, 3, -1)
        mean = seen.mean(1, keepdim=True)
        light = torch.log(mean[:, 0] + _GREY)  # (N, 5 P + known)
        hue = (seen + _GREY) / (mean + _GREY)
        last = len(_SKIN)
        points = light[:, :-last].reshape(count, len(_AROUND_PX), -1)
        light_off = (points[:, 0] - light[:, -last:].mean(1, keepdim=True)).abs()
        middle = hue[:, :, : points.shape[2]]
        hue_off = (middle - hue[:, :, -last:].mean(2, keepdim=True)).square().sum(1).sqrt()
        rough = (points[:, 1:] - points[:, :1]).abs().reshape(count, 2, 2, -1).mean(2)
        limit, per = self.get_buffer("rough")
        unlike = (
            ((light_off - _LIGHT[0]) * (1 / _LIGHT[1])).clamp(min=0.0).square()
            + ((hue_off - _HUE[0]) * (1 / _HUE[1])).clamp(min=0.0).square()
            + ((rough - limit) * per).clamp(min=0.0).square().sum(1)
        )
        # what a line goes through is hair as a whole or not
        unlike = torch.matmul(unlike.clamp(max=_FARTHEST), self.get_buffer("along"))
        return torch.exp(-unlike)
