"""E_f, the AU-free encoder, and G, the generator of instructions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import NUM_AUS
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ContractError
from training.config import LOOK_XYXY, NetworkConfig
from training.networks.blocks import (
    SLOPE,
    FilmConv,
    FilmResBlock,
    ResBlock,
    act,
    conv,
    edge_ramp,
    norm_conv,
    up2,
)
from training.networks.encoder import StemFeatures
from training.networks.folds import FOLDS_XYXY, Folds
from training.networks.lids import LidTone
from training.networks.mesh import FaceMesh
from training.networks.mouth import TEETH_XYXY, MouthLayers

LN_2 = math.log(2.0)
LOOK_HW = (LOOK_XYXY[3] - LOOK_XYXY[1], LOOK_XYXY[2] - LOOK_XYXY[0])
BASIS_HW = (LOOK_HW[0] // 8, LOOK_HW[1] // 8)
"""Size of the maps of the linear part of flow and shade."""
OUTSIDE_LOGIT = 8.0
"""Of keep, where the networks see nothing."""
EDGE_PX = 16
"""Over so many pixels inside the look's edges the instructions fade to "leave it alone"."""
BESIDE_PX = 4
"""How far from what is known to be the mouth's inside a hole still is, pixels."""


@dataclass(frozen=True)
class Instructions:
    """What to do with the target's crop; S is the crop's side. Outside of the look nothing changes,
    but for folds of the forehead right above it (training.networks.folds).

    The ``*_raw`` values are what the head says, for losses; the plain ones are what is carried
    out, with small values
    snapped to "leave it alone". Gradients pass through the snapping as if it were not there
    (straight-through
    estimator, Bengio et al., arXiv 1308.3432).

    Attributes:
        flow_raw: (N, 2, S, S) crop pixels, order (x, y).
        flow_xy: The same, exactly 0 where small.
        keep_logit: (N, 1, S, S).
        keep: (N, 1, S, S) in [0, 1], reaching both ends.
        fill_rgb: (N, 3, S, S) in [0, 1].
        shade_log2_raw: (N, 1, S, S).
        shade: (N, 1, S, S) > 0, exactly 1 where the logarithm is small; folds are in it, and in the
            logarithm, in use and not in training.
        au_free: (N, C, 12, 11), E_f's feature; larger where another scheme makes it.
        unit_fields_raw: (N, 2K, 3, 48, 44) what one unit of each intensity would do to what is to
            be shown, at a quarter of the look's size: motion, order (x, y), in flow_scale_px, and
            log2 shade; None where the network draws none.
        mouth_logit: (N, 1, 88, 104) of the inside of the mouth being shown, within TEETH_XYXY at a
            crop of 256; None where the network has no layers for it.
    """

    flow_raw: Tensor
    flow_xy: Tensor
    keep_logit: Tensor
    keep: Tensor
    fill_rgb: Tensor
    shade_log2_raw: Tensor
    shade: Tensor
    au_free: Tensor
    unit_fields_raw: Tensor | None = None
    mouth_logit: Tensor | None = None


def straight_through(value: Tensor, raw: Tensor) -> Tensor:
    """``value`` going forward, the gradient of ``raw`` going back (only while gradients are
    recorded).
    """
    if not torch.is_grad_enabled() or not raw.requires_grad or torch.jit.is_tracing():
        return value
    return raw + (value - raw).detach()


def firm_shrink(x: Tensor, dead: float) -> Tensor:
    """0 where |x| <= dead, x where |x| >= 2 dead, continuous between (firm shrinkage, Gao and
    Bruce, 1997).

    Unlike soft shrinkage it takes nothing off large values.
    """
    if dead == 0:
        return x
    return x * torch.clamp(torch.abs(x) * (1.0 / dead) - 1.0, 0.0, 1.0)


def resize(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(N, C, h, w) -> (N, C, *size_hw), bilinear; an unchanged size passes through."""
    if tuple(maps.shape[2:]) == size_hw:
        return maps
    return F.interpolate(maps, size=size_hw, mode="bilinear", align_corners=False)


def place(
    maps: Tensor, outside: float, size_px: int, at_xyxy: tuple[int, int, int, int] = LOOK_XYXY
) -> Tensor:
    """Put the look's maps, or those of another part, back into the crop.

    Args:
        maps: (N, C, H, W), of the look (N, C, 192, 176).
        outside: What stands around it.
        size_px: Side of the crop; a smaller one than the contract's gets averages.
        at_xyxy: Where in the crop they are.

    Returns:
        (N, C, size, size).
    """
    x0, y0, x1, y1 = at_xyxy
    whole = F.pad(maps, (x0, CROP_SIZE_PX - x1, y0, CROP_SIZE_PX - y1), value=outside)
    return whole if size_px == CROP_SIZE_PX else F.avg_pool2d(whole, CROP_SIZE_PX // size_px)


def look_fade() -> Tensor:
    """(1, 1, 192, 176): 1 inside, falling smoothly to 0 at the look's edges."""
    down, across = (edge_ramp(count, EDGE_PX) for count in LOOK_HW)
    return (down[:, None] * across[None, :])[None, None]


def with_mouth(
    fill_rgb: Tensor, inside_rgb: Tensor, mouth_logit: Tensor, keep_logit: Tensor
) -> Tensor:
    """Lay the inside of the mouth over the fill, where it is.

    Where it is is learned from where it is, not from what would be nearest to the truth: a mean of
    pictures always is, and sharp teeth a pixel off never are. What cannot be fetched right beside
    it counts as inside, too: else a mouth that opens by more than was thought keeps a rim of soft
    paint. (Lip that was rolled in is such a hole as well: one pixel in sixteen of those in rendered
    answers. It is shown as inside.)

    Args:
        fill_rgb: (N, 3, 192, 176).
        inside_rgb: (N, 3, 88, 104).
        mouth_logit: (N, 1, 88, 104).
        keep_logit: (N, 1, 192, 176).
    """
    x0, y0, x1, y1 = (v - LOOK_XYXY[i % 2] for i, v in enumerate(TEETH_XYXY))
    share = torch.sigmoid(mouth_logit).detach()
    hole = torch.sigmoid(-keep_logit[:, :, y0:y1, x0:x1]).detach()
    beside = F.max_pool2d(share, 2 * BESIDE_PX + 1, stride=1, padding=BESIDE_PX)
    share = torch.maximum(share, hole * beside)
    change = share * (inside_rgb - fill_rgb[:, :, y0:y1, x0:x1])
    return fill_rgb + F.pad(change, (x0, LOOK_HW[1] - x1, y0, LOOK_HW[0] - y1))


class AuFreeEncoder(nn.Module):
    """E_f: the stem's 1/16-size features (given detached) -> AU-free feature of the same size."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.reduce = norm_conv(config.stem_channels[3], config.au_free_channels, 1)
        self.block = ResBlock(config.au_free_channels)

    def forward(self, sixteenth: Tensor) -> Tensor:
        """(N, C_stem, h, w) -> (N, C_free, h, w)."""
        out: Tensor = self.block(act(self.reduce(sixteenth)))
        return out


class Generator(nn.Module):
    """G (with E_f): the target's features, its own and the mixed tokens -> Instructions."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        d16, d32, d64, d128 = config.decoder_channels
        n16, n32, n64, n128 = config.decoder_blocks
        s128, s64, s32, _ = config.stem_channels
        z = config.condition_dim
        self.au_free = AuFreeEncoder(config)
        self.condition1 = nn.Linear(2 * NUM_AUS * config.token_dim, 2 * z)
        self.condition2 = nn.Linear(2 * z, z)
        self.token_map = nn.Linear(z, config.map_channels * 64)
        # PyTorch's default for linear layers is so small that the tokens would hardly be heard
        for layer in (self.condition1, self.condition2):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
        nn.init.normal_(self.token_map.weight, std=z**-0.5)

        # In an aligned crop most of the motion is linear in the tokens' change: small maps of flow
        # and log2 shade per token number, which the rest of the generator refines. No bias, so that
        # no change asks for no motion.
        # Where the face's mesh is known from landmarks it says the same, of this very face.
        self.mesh = FaceMesh(config) if config.mesh_features else None
        self.lids = LidTone() if config.mesh_features else None
        self.folds = Folds(config.fold_depth) if config.fold_depth else None
        self.basis = None
        if self.mesh is None:
            self.basis = nn.Linear(
                NUM_AUS * config.token_dim, 3 * BASIS_HW[0] * BASIS_HW[1], bias=False
            )
            nn.init.zeros_(self.basis.weight)
        self.hear_basis = conv(3, d32, 1)
        # The same once more, of this very face. A face is linear in its units: what is shown at a
        # place came from there less the sum of what each unit did to it. So the decoder draws what
        # one unit of each does, flow and log2 shade, and weighs that by the change of intensities
        # that the tokens say. Rendered pictures know these fields (training.data.render), which
        # says fifty times as much as the one sum that a swap makes of them; and a unit alone, or
        # half of it, does its part of what it does in company.
        self.has_units = config.unit_channels > 0
        if self.has_units or self.mesh is not None or config.mouth_hidden:
            self.register_buffer("tokens_to_aus", torch.zeros(NUM_AUS, config.token_dim, 2))
        if self.has_units:
            self.units_enter = norm_conv(d64, config.unit_channels)
            self.units_leave = conv(config.unit_channels, 3 * 2 * NUM_AUS, 1, gain=0.0)
        if self.has_units or self.mesh is not None:
            self.hear_units = conv(2, d128, gain=0.0)
        if self.mesh is not None:
            self.hear_mesh = conv(4 + config.mesh_features, d64, gain=0.0)

        self.enter16 = FilmConv(config.au_free_channels + config.map_channels, d16, z)
        self.blocks16 = nn.ModuleList(FilmResBlock(d16, z) for _ in range(n16))
        self.up32, self.skip32 = norm_conv(d16, d32, 1), norm_conv(s32, d32, 1)
        self.blocks32 = nn.ModuleList(FilmResBlock(d32, z) for _ in range(n32))
        self.up64, self.skip64 = norm_conv(d32, d64, 1), norm_conv(s64, d64, 1)
        self.blocks64 = nn.ModuleList(FilmResBlock(d64, z) for _ in range(n64))
        self.up128, self.skip128 = norm_conv(d64, d128, 1), norm_conv(s128, d128, 1)
        self.blocks128 = nn.ModuleList(FilmResBlock(d128, z) for _ in range(n128))
        self.leave128 = FilmConv(d128, d128, z)
        # smooth answers (flow, shade) at half size; sharp ones (keep, fill) as 2x2 pixels
        # per position
        self.head_smooth = conv(d128, 3, gain=0.05)
        self.head_sharp = conv(d128, 16, gain=0.1)
        self.mouth = MouthLayers(config) if config.mouth_hidden else None
        self.register_buffer("fade", look_fade(), persistent=False)

    def au_free_of(self, features: StemFeatures) -> Tensor:
        """E_f: the stem's features (its gradient stops here) -> (N, C, 12, 11)."""
        out: Tensor = self.au_free(features.sixteenth.detach())
        return out

    def forward(
        self,
        features: StemFeatures,
        own_tokens: Tensor,
        mixed_tokens: Tensor,
        size_px: int = CROP_SIZE_PX,
        landmarks_xy: Tensor | None = None,
    ) -> Instructions:
        """Say how to turn the target's own expression into the mixed one.

        Args:
            features: The stem's, of the target.
            own_tokens: (N, K, D) the target's.
            mixed_tokens: (N, K, D) those to be shown.
            size_px: Side of the crop that the instructions are for.
            landmarks_xy: (N, 478, 2) the target's, pixels of a crop of 256; looked at where the
                network has a mesh.

        Raises:
            ContractError: If there are no landmarks where they are looked at.
        """
        cfg = self.config
        if not cfg.generation_trains_stem:
            features = features.detached()
        au_free = self.au_free_of(features)
        change = mixed_tokens - own_tokens
        pair = torch.cat([own_tokens, change], dim=2).flatten(1)
        drawn, features_64, gone_xy = self._drawn(change, landmarks_xy)
        z = act(self.condition2(act(self.condition1(pair))))
        painted = self.token_map(z).reshape(-1, cfg.map_channels, 8, 8)
        painted = resize(painted, (au_free.shape[2], au_free.shape[3]))

        x = self.enter16(torch.cat([au_free, painted.to(au_free.dtype)], dim=1), z)
        for block in self.blocks16:
            x = block(x, z)
        heard = self.hear_basis(resize(drawn, BASIS_HW).to(au_free.dtype))
        x = act(up2(self.up32(x)) + self.skip32(features.eighth) + heard)
        for block in self.blocks32:
            x = block(x, z)
        x = up2(self.up64(x)) + self.skip64(features.quarter)
        if features_64 is not None:
            x = x + self.hear_mesh(features_64.to(x.dtype))
        x = act(x)
        for block in self.blocks64:
            x = block(x, z)
        x128 = up2(self.up128(x)) + self.skip128(features.half)
        moved, fields = self._units(x, change) if self.has_units else (None, None)
        if self.mesh is not None:
            moved = drawn if moved is None else moved + drawn
        if moved is not None:
            half_hw = (LOOK_HW[0] // 2, LOOK_HW[1] // 2)
            x128 = x128 + self.hear_units(resize(moved[:, :2], half_hw).to(x128.dtype))
        x = act(x128)
        for block in self.blocks128:
            x = block(x, z)
        x = self.leave128(x, z)

        smooth = F.interpolate(
            self.head_smooth(x).float().contiguous(),
            scale_factor=2.0,
            mode="bilinear",
            align_corners=False,
        )
        if self.mesh is None:
            smooth = smooth + resize(drawn, LOOK_HW)
        if moved is not None:
            smooth = smooth + resize(moved, LOOK_HW)
        fade = self.get_buffer("fade")
        flow_raw = smooth[:, :2] * cfg.flow_scale_px * fade
        sharp = F.pixel_shuffle(self.head_sharp(x).float().contiguous(), 2)
        keep_logit = sharp[:, :1] + 4.0  # keep everything at first
        fill = torch.sigmoid(sharp[:, 1:4])
        mouth_logit = None
        if self.mouth is not None:
            inside, mouth_logit = self.mouth(
                x, features.sixteenth, z, self._aus(mixed_tokens), self._head_place(landmarks_xy)
            )
            fill = with_mouth(fill, inside, mouth_logit, keep_logit)
        if self.lids is not None and landmarks_xy is not None:
            fill = self.lids(fill, features.picture_rgb, landmarks_xy, self._aus(change))
        flow_xy = straight_through(firm_shrink(flow_raw, cfg.flow_dead_px), flow_raw)
        limit = cfg.shade_limit_log2
        shade_raw = torch.tanh(smooth[:, 2:3] / limit) * limit * fade
        shade_log2 = straight_through(firm_shrink(shade_raw, cfg.shade_dead_log2), shade_raw)
        keep_soft = torch.sigmoid(keep_logit)
        keep = straight_through(torch.clamp(keep_soft * 1.1 - 0.05, 0.0, 1.0), keep_soft)
        shaded_xyxy = LOOK_XYXY
        # the answers that training compares with have no folds: it would learn to undo them
        if self.folds is not None and not self.training:
            assert landmarks_xy is not None and gone_xy is not None
            folds = self.folds(
                features.picture_rgb,
                landmarks_xy,
                gone_xy,
                self._aus(own_tokens),
                self._aus(mixed_tokens),
            )
            shaded_xyxy = (FOLDS_XYXY[0], FOLDS_XYXY[1], FOLDS_XYXY[2], LOOK_XYXY[3])
            folds = F.pad(folds, (0, 0, 0, LOOK_XYXY[3] - FOLDS_XYXY[3]))
            above = (0, 0, LOOK_XYXY[1] - FOLDS_XYXY[1], 0)
            shade_raw, shade_log2 = (F.pad(s, above) + folds for s in (shade_raw, shade_log2))
        unit_px = size_px / CROP_SIZE_PX  # pixels of this crop per pixel of a 256-px one
        return Instructions(
            flow_raw=place(flow_raw, 0.0, size_px) * unit_px,
            flow_xy=place(flow_xy, 0.0, size_px) * unit_px,
            keep_logit=place(keep_logit, OUTSIDE_LOGIT, size_px),
            keep=place(1.0 - (1.0 - keep) * fade, 1.0, size_px),
            fill_rgb=place(fill, 0.5, size_px),
            shade_log2_raw=place(shade_raw, 0.0, size_px, shaded_xyxy),
            shade=place(torch.exp(shade_log2 * LN_2), 1.0, size_px, shaded_xyxy),
            au_free=au_free,
            unit_fields_raw=fields,
            mouth_logit=mouth_logit,
        )

    def _head_place(self, landmarks_xy: Tensor | None) -> Tensor | None:
        if self.mesh is None or landmarks_xy is None:
            return None
        with torch.autocast(landmarks_xy.device.type, enabled=False):
            place: Tensor = self.mesh.head_place(landmarks_xy.float())
            return place

    def _drawn(
        self, change: Tensor, landmarks_xy: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The part of flow and shade that needs no look at the picture.

        Args:
            change: (N, K, D) of the tokens.
            landmarks_xy: (N, 478, 2), or None.

        Returns:
            (N, 3, h, w) flow, in units of the head's, and log2 shade; what the mesh says besides,
            (N, 4 + C, 48, 44), and where the landmarks went, (N, 478, 2), where there is a mesh.
        """
        if self.mesh is None:
            assert self.basis is not None
            return self.basis(change.flatten(1)).float().reshape(-1, 3, *BASIS_HW), None, None
        if landmarks_xy is None:
            raise ContractError(
                "generator: these weights draw motion from landmarks; give landmarks_xy",
                expected="(N, 478, 2)",
                actual="None",
            )
        with torch.autocast(change.device.type, enabled=False):  # places are too fine for half
            moved, features, gone_xy = self.mesh(landmarks_xy.float(), self._aus(change))
            flow = moved[:, :2] * (1 / self.config.flow_scale_px)
            moved = torch.cat([flow, moved[:, 2:]], dim=1)
            return moved, torch.cat([moved, features], dim=1), gone_xy

    def _aus(self, tokens: Tensor) -> Tensor:
        """(N, K, D) tokens, or a change of tokens -> (N, 2K) the intensities that they say."""
        with torch.autocast(tokens.device.type, enabled=False):
            by_au = tokens.float().transpose(0, 1)
            aus = torch.matmul(by_au, self.get_buffer("tokens_to_aus")).transpose(0, 1)
            return aus.reshape(len(tokens), -1)

    def _units(self, x: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """What the change of each unit does.

        Args:
            x: (N, C, 48, 44) the decoder's features.
            change: (N, K, D) of the tokens.

        Returns:
            (N, 3, 48, 44) flow, in units of the head's, and log2 shade, 0 for no change; and
            Instructions.unit_fields_raw.
        """
        count, _, height, width = x.shape
        drawn = self.units_leave(act(self.units_enter(x))).float()
        with torch.autocast(x.device.type, enabled=False):  # pixels are too fine for half precision
            by_unit = drawn.reshape(count, 2 * NUM_AUS, -1)
            moved = -torch.matmul(self._aus(change)[:, None], by_unit)
        fields = drawn.reshape(count, 2 * NUM_AUS, 3, height, width)
        return moved.reshape(count, 3, height, width), fields
