"""E, the shared stem, and E_r, the AU-related encoder that makes one token per action unit.

Both look at the face alone, at the crop's full size (:func:`look`): expressions are read off lids
three pixels high, and the face fills half of an aligned crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import AUS, NUM_AUS
from rt_swap.contract import CROP_SIZE_PX
from training.config import LOOK_XYXY, NetworkConfig
from training.networks.blocks import ResBlock, act, conv, norm_conv, up2


@dataclass(frozen=True)
class StemFeatures:
    """What the stem sees, at 1/2, 1/4, 1/8 and 1/16 of the look's size; each (N, C, H, W).

    ``picture_rgb`` is the look itself, (N, 3, H, W) in [0, 1].
    """

    picture_rgb: Tensor
    half: Tensor
    quarter: Tensor
    eighth: Tensor
    sixteenth: Tensor

    def detached(self) -> StemFeatures:
        """The same numbers, through which no gradient flows."""
        return StemFeatures(
            self.picture_rgb.detach(),
            self.half.detach(),
            self.quarter.detach(),
            self.eighth.detach(),
            self.sixteenth.detach(),
        )


@dataclass(frozen=True)
class Encoded:
    """A picture, encoded.

    Attributes:
        features: The stem's.
        tokens: (N, K, D) AU tokens.
        au_logits: (N, K, 2) before the sigmoid, [left, right].
        aus_lr: (N, K, 2) in [0, 1].
    """

    features: StemFeatures
    tokens: Tensor
    au_logits: Tensor
    aus_lr: Tensor


class Stem(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> StemFeatures; names count a side of 256.

    Args:
        channels: At 1/2, 1/4, 1/8 and 1/16 of the side.
        blocks: Residual blocks at 1/4, 1/8 and 1/16.
    """

    def __init__(self, channels: tuple[int, int, int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        c128, c64, c32, c16 = channels
        b64, b32, b16 = blocks
        self.down128 = norm_conv(3, c128, 3, 2)
        self.down64 = norm_conv(c128, c64, 3, 2)
        self.blocks64 = nn.Sequential(*(ResBlock(c64) for _ in range(b64)))
        self.down32 = norm_conv(c64, c32, 3, 2)
        self.blocks32 = nn.Sequential(*(ResBlock(c32) for _ in range(b32)))
        self.down16 = norm_conv(c32, c16, 3, 2)
        self.blocks16 = nn.Sequential(*(ResBlock(c16) for _ in range(b16)))

    def forward(self, picture_rgb: Tensor) -> StemFeatures:
        """Encode; both sides must be multiples of 16."""
        half = act(self.down128(picture_rgb * 2 - 1))
        quarter = self.blocks64(act(self.down64(half)))
        eighth = self.blocks32(act(self.down32(quarter)))
        sixteenth = self.blocks16(act(self.down16(eighth)))
        return StemFeatures(picture_rgb, half, quarter, eighth, sixteenth)


class TokenEncoder(nn.Module):
    """E_r: two attention maps per AU (left, right) pool a 1/8-size feature map; a
    small MLP of each AU makes its token.

    Lids and lips are small, so the pooled map also carries the 1/4-size features, folded into
    channels. Each map gives
    besides features the centre of its attention, so an MLP can read how far a lip corner or a
    lid has moved; a pooled
    whole-face context tells it what the resting face looks like.

    Beside it runs a wide path, as in landmark regressors: the 1/16-size features are read as one
    long vector, so that a unit can compare places (a jaw that went sideways has moved against the
    nose, which no pooling around the chin can see). The aligned crop is what makes that work. Both
    paths add up to the tokens.

    The AU head reads a token's own numbers only, which is what makes token k mean AU k.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        _, c64, c32, c16 = config.stem_channels
        width, hidden, dim = config.token_features, config.token_hidden, config.token_dim
        self.from16 = norm_conv(c16, width, 1)
        self.from32 = norm_conv(c32, width, 1)
        self.from64 = norm_conv(c64, width, 2, 2)  # folds 2x2 positions into channels
        self.merge = norm_conv(width, width)
        self.attention = conv(width, 2 * NUM_AUS, 1)
        self.place = nn.Parameter(_first_places(LOOK_XYXY))
        self.context = nn.Linear(c16, config.token_global)
        in_dim = 2 * (width + 2) + config.token_global
        self.weight1 = nn.Parameter(torch.randn(NUM_AUS, in_dim, hidden) * (2.0 / in_dim) ** 0.5)
        self.bias1 = nn.Parameter(torch.zeros(NUM_AUS, 1, hidden))
        self.weight2 = nn.Parameter(torch.randn(NUM_AUS, hidden, dim) * (4.0 / hidden) ** 0.5)
        self.bias2 = nn.Parameter(torch.zeros(NUM_AUS, 1, dim))
        self.wide_channels = config.token_wide_channels
        if self.wide_channels:
            self.wide_reduce = norm_conv(c16, self.wide_channels, 1)
            # all of the map at once: a fully connected layer of limited rank (a full one would be
            # a fifth of all weights), written so that its normalisation folds like any other
            x0, y0, x1, y1 = LOOK_XYXY
            whole_map = ((y1 - y0) // 16, (x1 - x0) // 16)
            self.wide_look = conv(self.wide_channels, config.token_wide_rank, whole_map)
            self.wide_read = norm_conv(config.token_wide_rank, config.token_wide_hidden, 1)
            self.wide_out = nn.Linear(config.token_wide_hidden, NUM_AUS * dim)
            nn.init.zeros_(self.wide_out.weight)
            nn.init.zeros_(self.wide_out.bias)
        self.head_weight = nn.Parameter(torch.randn(NUM_AUS, dim, 2) * (1.0 / dim) ** 0.5)
        self.head_bias = nn.Parameter(torch.full((NUM_AUS, 1, 2), -1.5))

    def forward(self, features: StemFeatures) -> tuple[Tensor, Tensor]:
        """Make the tokens.

        Returns:
            tokens (N, K, D) and au_logits (N, K, 2).
        """
        count = features.sixteenth.shape[0]
        merged = up2(self.from16(features.sixteenth)) + self.from32(features.eighth)
        merged = merged + self.from64(features.quarter)
        merged = act(self.merge(act(merged)))
        height, width = merged.shape[2], merged.shape[3]
        attention = self.attention(merged) + self.place  # (N, 2K, H, W)
        attention = attention.flatten(2).float().softmax(dim=2)
        values = merged.flatten(2).transpose(1, 2)  # (N, HW, C)
        pooled = torch.matmul(attention.to(values.dtype), values)  # (N, 2K, C)
        centres = torch.matmul(attention, _grid_xy(height, width, attention.device))  # (N, 2K, 2)
        pooled = torch.cat([pooled.float(), centres], dim=2).reshape(count, NUM_AUS, -1)
        context = act(self.context(features.sixteenth.mean(dim=(2, 3)))).float()
        context = context[:, None, :].expand(count, NUM_AUS, context.shape[1])
        x = torch.cat([pooled, context], dim=2).transpose(0, 1)  # (K, N, in)
        x = act(torch.matmul(x, self.weight1) + self.bias1)
        tokens = (torch.matmul(x, self.weight2) + self.bias2).float()
        tokens = tokens.transpose(0, 1)
        if self.wide_channels:
            tokens = tokens + self._wide(features.sixteenth).reshape(tokens.shape)
        return tokens, self.read(tokens)

    def _wide(self, sixteenth: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, K D)."""
        x = act(self.wide_read(self.wide_look(act(self.wide_reduce(sixteenth)))))
        said: Tensor = self.wide_out(x.flatten(1)).float()
        return said

    def read(self, tokens: Tensor) -> Tensor:
        """The AU head: (N, K, D) tokens -> (N, K, 2) logits, each off its own token only."""
        logits = torch.matmul(tokens.transpose(0, 1), self.head_weight) + self.head_bias
        return logits.float().transpose(0, 1)


_PLACES_XY = {
    "brows": (0.12, 0.27),
    "eyes": (0.13, 0.345),
    "gaze": (0.13, 0.345),
    "nose": (0.05, 0.46),
    "cheeks": (0.17, 0.50),
    "mouth": (0.09, 0.64),
    "jaw": (0.06, 0.74),
}
"""Where a region lies in the aligned crop: distance from the middle line and height, as
fractions.
"""


def _first_places(window_xyxy: tuple[int, int, int, int]) -> Tensor:
    """Attention's first bias, (1, 2K, h, w): each AU looks around its own region and side.

    A person's left is on the right of the picture. Logarithm of a Gaussian of 0.08 crop sides.

    Args:
        window_xyxy: Part of the crop that is seen, pixels; h and w are an eighth of its sides.
    """
    x0, y0, x1, y1 = window_xyxy
    xs = (torch.arange((x1 - x0) // 8, dtype=torch.float32) + 0.5) * 8 + x0
    ys = (torch.arange((y1 - y0) // 8, dtype=torch.float32) + 0.5) * 8 + y0
    maps = []
    for au in AUS:
        offset, height = _PLACES_XY[au.region]
        for x in (0.5 + offset, 0.5 - offset):
            squared = (xs / CROP_SIZE_PX - x)[None, :] ** 2 + (ys / CROP_SIZE_PX - height)[
                :, None
            ] ** 2
            maps.append(-squared / (2 * 0.08**2))
    return torch.stack(maps).clamp_min(-8.0)[None]


class LabelTokens(nn.Module):
    """Teacher of E_r: the token of each AU as a fixed, randomly drawn linear function of its
    known intensities.

    Rendered pictures come with their intensities, and those decide everything that a swap
    changes. So the generator can learn from these tokens before the encoder can see, and the
    encoder's tokens are drawn towards them. Never used at run time, where tokens come from
    pictures.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        # fixed: a teacher that learns finds it easiest to say the same of everything
        self.weight = nn.Parameter(torch.randn(NUM_AUS, 2, config.token_dim), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(NUM_AUS, config.token_dim), requires_grad=False)

    def forward(self, aus_lr: Tensor) -> Tensor:
        """(N, K, 2) intensities in [0, 1] -> (N, K, D)."""
        return torch.einsum("nks,ksd->nkd", aus_lr, self.weight) + self.bias

    def inverse(self, tokens: Tensor) -> Tensor:
        """(N, K, D) tokens -> the (N, K, 2) intensities whose tokens are nearest, unbounded."""
        back = torch.linalg.pinv(self.weight)
        return torch.einsum("nkd,kds->nks", tokens - self.bias, back)


def _grid_xy(height: int, width: int, device: torch.device) -> Tensor:
    """Pixel centres of a map as (HW, 2), order (x, y), from -2 to 2 (so that they weigh like
    features).
    """
    ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (4.0 / height) - 2.0
    xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (4.0 / width) - 2.0
    return torch.stack(
        [xs[None, :].expand(height, width), ys[:, None].expand(height, width)], dim=2
    ).reshape(-1, 2)


def cut_look(picture: Tensor) -> Tensor:
    """The part of a map that lies in LOOK_XYXY, at the map's own resolution; a little more where
    its sides would not be multiples of 8.

    Args:
        picture: (N, C, S, S), S a divisor of 256 from 32 on.

    Returns:
        (N, C, 192, 176) for S = 256, contiguous; in proportion for smaller ones.
    """
    side = picture.shape[3]
    x0, y0, x1, y1 = (value * side // CROP_SIZE_PX for value in LOOK_XYXY)
    more_x, more_y = -(x1 - x0) % 8, -(y1 - y0) % 8
    x0, y0 = x0 - more_x // 2, y0 - more_y // 2
    return picture[
        :, :, y0 : y1 + more_y - more_y // 2, x0 : x1 + more_x - more_x // 2
    ].contiguous()


def look(picture_rgb: Tensor) -> Tensor:
    """What the networks see of a crop: its face, as if the crop had the contract's size.

    Args:
        picture_rgb: (N, 3, S, S). A smaller crop is scaled up, which the training's blurred
            pictures prepare for.

    Returns:
        (N, 3, 192, 176).
    """
    side = picture_rgb.shape[3]
    if side != CROP_SIZE_PX:
        picture_rgb = F.interpolate(
            picture_rgb, size=(CROP_SIZE_PX, CROP_SIZE_PX), mode="bilinear", align_corners=False
        )
    x0, y0, x1, y1 = LOOK_XYXY
    return picture_rgb[:, :, y0:y1, x0:x1].contiguous(memory_format=torch.channels_last)


class Encoder(nn.Module):
    """E and E_r.

    Attributes:
        stem: E.
        tokens: E_r.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.stem = Stem(config.stem_channels, config.stem_blocks)
        self.tokens = TokenEncoder(config)

    def forward(self, look_rgb: Tensor) -> Encoded:
        """(N, 3, 192, 176) RGB in [0, 1], see :func:`look` -> Encoded."""
        features = self.stem(look_rgb)
        tokens, logits = self.tokens(features)
        return Encoded(features, tokens, logits, torch.sigmoid(logits))
