"""D, the image discriminators, and D_au, the AU classifier on f_f. Training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import NUM_AUS
from training.config import NetworkConfig
from training.networks.blocks import act, conv

MOUTH_XYXY = (0.25, 0.50, 0.75, 0.8125)
"""Where the mouth lies in the aligned crop, fractions of its side (see rt_swap.contract's
template).
"""
EYES_XYXY = (0.1875, 0.21875, 0.8125, 0.46875)
"""Where eyes and brows lie."""


class PatchCritic(nn.Module):
    """LSGAN patch discriminator (Isola et al., CVPR 2017, section 3.2.2): (N, 3, H, W) -> (N,
    1, H/8, W/8).

    Spectral normalisation (Miyato et al., ICLR 2018) keeps it from running away from a small
    generator.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.conv1 = norm(conv(3, width, 3, 2))
        self.conv2 = norm(conv(width, 2 * width, 3, 2))
        self.conv3 = norm(conv(2 * width, 4 * width, 3, 2))
        self.conv4 = conv(4 * width, 1, 3)

    def forward(self, picture_rgb: Tensor) -> Tensor:
        """Realness per patch; 1 means real."""
        x = act(self.conv1(picture_rgb * 2 - 1))
        x = act(self.conv2(x))
        x = act(self.conv3(x))
        out: Tensor = self.conv4(x)
        return out


class AuClassifier(nn.Module):
    """D_au: (N, C, h, w) AU-free feature -> (N, K), the presence of each AU it can still see,
    in [0, 1].
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.conv1 = conv(config.au_free_channels, 64)
        self.conv2 = conv(64, 64, 3, 2)
        self.linear1 = nn.Linear(64 * 16, 128)
        self.linear2 = nn.Linear(128, NUM_AUS)

    def forward(self, au_free: Tensor) -> Tensor:
        """Guess which AUs are present."""
        x = act(self.conv2(act(self.conv1(au_free))))
        x = F.adaptive_avg_pool2d(x.float(), 4).flatten(1)
        return torch.sigmoid(self.linear2(act(self.linear1(x))))


class Critics(nn.Module):
    """All of them: whole face, mouth and eyes against real pictures; whole face against self-
    reconstruction; D_au.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.face = PatchCritic()
        self.mouth = PatchCritic()
        self.eyes = PatchCritic()
        self.swap = PatchCritic()
        self.au = AuClassifier(config)


def cut(picture_rgb: Tensor, box_xyxy: tuple[float, float, float, float]) -> Tensor:
    """A fixed part of the aligned crop.

    Args:
        picture_rgb: (N, 3, S, S).
        box_xyxy: Fractions of S.
    """
    side = picture_rgb.shape[3]
    x0, y0, x1, y1 = (round(v * side) for v in box_xyxy)
    return picture_rgb[:, :, y0:y1, x0:x1]
