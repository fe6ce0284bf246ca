"""The two schemes that rt is compared with; both paint the picture instead of saying where to
fetch it.

:class:`EftGenerator` is the published method's (Shao et al., IEEE TIP 30, 2021): the AU-free
feature of the target and the AU-related tokens are all it sees, and the picture is synthesised from
them. How large the feature is has not been published; the authors' public code for the same idea
one domain over (ADLD) has it at a quarter of the picture's side, and so has ours.

:class:`GanimationGenerator` is written from Pumarola et al., *GANimation*, ECCV 2018, section 4:
the picture and an *estimated AU vector* go in, an attention mask and a colour mask come out.

Both answer in rt's own terms (keep and fill, no flow), so training, export, runtime and evaluation
are the same for all three. A frame costs 2.0 GMAC with the one and 2.2 with the other, rt's takes
1.1: a whole picture is painted at a quarter of its side or finer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import NUM_AUS
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError
from training.config import NetworkConfig
from training.networks.blocks import SLOPE, FilmResBlock, ResBlock, act, conv, norm_conv, up2
from training.networks.encoder import StemFeatures
from training.networks.generator import OUTSIDE_LOGIT, Instructions, look_fade, place


def painted(
    rgb: Tensor, leave_logit: Tensor, fade: Tensor, au_free: Tensor, size_px: int
) -> Instructions:
    """Instructions of a scheme that paints.

    Args:
        rgb: (N, 3, 192, 176) in [0, 1], the colours.
        leave_logit: (N, 1, 192, 176), how far a pixel stays as it is, before the sigmoid.
        fade: (1, 1, 192, 176), 0 at the look's edges.
        au_free: For the adversary.
        size_px: Side of the crop.
    """
    none = torch.zeros_like(leave_logit)
    flow = place(torch.cat([none, none], dim=1), 0.0, size_px)
    leave = torch.sigmoid(leave_logit)
    shade = place(none, 0.0, size_px)
    return Instructions(
        flow_raw=flow,
        flow_xy=flow,
        keep_logit=place(leave_logit, OUTSIDE_LOGIT, size_px),
        keep=place(1.0 - (1.0 - leave) * fade, 1.0, size_px),
        fill_rgb=place(rgb, 0.5, size_px),
        shade_log2_raw=shade,
        shade=torch.exp(shade),
        au_free=au_free,
    )


class EftGenerator(nn.Module):
    """``G(f_f, f_r)``: the target's AU-free feature and tokens -> a picture, painted whole."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        _, _, d64, d128 = config.decoder_channels
        width, z = config.au_free_channels, config.condition_dim
        self.reduce = norm_conv(config.stem_channels[1], width)
        self.free_blocks = nn.Sequential(ResBlock(width), ResBlock(width))
        self.condition1 = nn.Linear(NUM_AUS * config.token_dim, 2 * z)
        self.condition2 = nn.Linear(2 * z, z)
        self.token_map = nn.Linear(z, config.map_channels * 64)
        for layer in (self.condition1, self.condition2):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
        nn.init.normal_(self.token_map.weight, std=z**-0.5)
        self.enter = norm_conv(width + config.map_channels, d64)
        self.blocks = nn.ModuleList(FilmResBlock(d64, z) for _ in range(3))
        self.up128 = norm_conv(d64, d128)
        self.block128 = FilmResBlock(d128, z)
        self.head = conv(d128, 12, gain=0.5)
        self.register_buffer("fade", look_fade(), persistent=False)

    def au_free_of(self, features: StemFeatures) -> Tensor:
        """E_f: the stem's features (its gradient stops here) -> (N, C, 48, 44)."""
        out: Tensor = self.free_blocks(act(self.reduce(features.quarter.detach())))
        return out

    def forward(
        self,
        features: StemFeatures,
        own_tokens: Tensor,
        mixed_tokens: Tensor,
        size_px: int = CROP_SIZE_PX,
        landmarks_xy: Tensor | None = None,
    ) -> Instructions:
        """Arguments as those of Generator; of the target, ``own_tokens`` and landmarks are not
        looked at.
        """
        au_free = self.au_free_of(features)
        z = act(self.condition2(act(self.condition1(mixed_tokens.flatten(1)))))
        map_hw = (au_free.shape[2], au_free.shape[3])
        said = self.token_map(z).reshape(-1, self.config.map_channels, 8, 8)
        said = F.interpolate(said, size=map_hw, mode="bilinear", align_corners=False)
        x = act(self.enter(torch.cat([au_free, said.to(au_free.dtype)], dim=1)))
        for block in self.blocks:
            x = block(x, z)
        x = self.block128(act(up2(self.up128(x))), z)
        rgb = torch.sigmoid(F.pixel_shuffle(self.head(x).float().contiguous(), 2))
        leave = torch.full_like(rgb[:, :1], -OUTSIDE_LOGIT)
        return painted(rgb, leave, self.get_buffer("fade"), au_free, size_px)


class GanimationGenerator(nn.Module):
    """``A * I + (1 - A) * C`` (GANimation, eq. 1): attention A and colour C from the picture I and
    an estimated AU vector.

    The vector is what the tokens say of each intensity and nothing else: the guide that the
    published method argues against. The paper repeats it over the picture as more channels, which
    for a convolution is one more bias. Widths are a quarter of the paper's; batch normalisation
    takes the place of its instance normalisation, as everywhere here. Its adversary is a
    Wasserstein critic that regresses the intensities, too; here the terms are the other schemes'.

    Attributes:
        tokens_to_aus: (K, D, 2) and tokens_bias (K, D): the linear teacher's inverse, set by RtNet.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        a, b, c = 16, 40, 80
        self.register_buffer("tokens_to_aus", torch.zeros(NUM_AUS, config.token_dim, 2))
        self.register_buffer("tokens_bias", torch.zeros(NUM_AUS, config.token_dim))
        self.enter = norm_conv(3, a, 7)
        self.guide = nn.Linear(2 * NUM_AUS, a)
        self.down1, self.down2 = norm_conv(a, b, 3, 2), norm_conv(b, c, 3, 2)
        self.blocks = nn.Sequential(*(ResBlock(c) for _ in range(4)))
        self.up1, self.up2 = norm_conv(c, b), norm_conv(b, a)
        self.head = conv(a, 4, 7, gain=0.3)
        # there is no AU-free feature here; the adversary has the bottleneck to look at, unused
        self.free = conv(c, config.au_free_channels, 1)
        self.register_buffer("fade", look_fade(), persistent=False)

    def guide_of(self, tokens: Tensor) -> Tensor:
        """(N, K, D) tokens -> (N, 2K) intensities in [0, 1] that they say, [left, right] by AU."""
        apart = (tokens - self.get_buffer("tokens_bias")).transpose(0, 1)
        aus = torch.matmul(apart, self.get_buffer("tokens_to_aus")).transpose(0, 1)
        return aus.flatten(1).clamp(0.0, 1.0)

    def au_free_of(self, features: StemFeatures) -> Tensor:
        """There is none.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("ganimation: the scheme has no AU-free feature")

    def forward(
        self,
        features: StemFeatures,
        own_tokens: Tensor,
        mixed_tokens: Tensor,
        size_px: int = CROP_SIZE_PX,
        landmarks_xy: Tensor | None = None,
    ) -> Instructions:
        """Arguments as those of Generator; of the target only the picture is looked at."""
        guide = self.guide(self.guide_of(mixed_tokens).detach())
        x = act(self.enter(features.picture_rgb * 2 - 1) + guide[:, :, None, None])
        x = self.blocks(act(self.down2(act(self.down1(x)))))
        au_free = self.free(x.detach())
        x = act(self.up2(up2(act(self.up1(up2(x))))))
        said = self.head(x).float()
        fade = self.get_buffer("fade")
        return painted(torch.sigmoid(said[:, :3]), said[:, 3:4] + 2.0, fade, au_free, size_px)
