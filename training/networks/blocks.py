"""Convolution blocks. Batch normalisation folds into its convolution at export: it costs nothing
at run time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.1
"""Negative slope of every LeakyReLU."""


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    gain: float = 1.0,
) -> nn.Conv2d:
    """A convolution (padded where the kernel is odd) with He initialisation for LeakyReLU (He
    et al., ICCV 2015, eq. 15).

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel: Kernel size; an even one, or one of (height, width), is not padded.
        stride: Stride; output sides are the input's divided by it.
        gain: Extra factor on the initial weights; small ones start a residual branch near zero.
    """
    padding = kernel // 2 if isinstance(kernel, int) and kernel % 2 else 0
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
    with torch.no_grad():
        layer.weight.mul_(gain)
        assert layer.bias is not None
        layer.bias.zero_()
    return layer


def norm_conv(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    gain: float = 1.0,
) -> nn.Sequential:
    """A convolution and batch normalisation (Ioffe and Szegedy, ICML 2015); arguments as in
    :func:`conv`.

    ``gain`` is the normalisation's initial factor: small ones start a residual branch near zero.
    """
    norm = nn.BatchNorm2d(out_channels, momentum=0.03)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(conv(in_channels, out_channels, kernel, stride), norm)


def act(x: Tensor) -> Tensor:
    """LeakyReLU."""
    return F.leaky_relu(x, SLOPE)


def up2(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by 2, (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """``x + conv(act(conv(x)))``, then LeakyReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = norm_conv(channels, channels)
        self.conv2 = norm_conv(channels, channels, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return act(x + self.conv2(act(self.conv1(x))))


class Film(nn.Module):
    """Feature-wise linear modulation ``x * (1 + gamma(z)) + beta(z)`` (Perez et al., AAAI 2018,
    eq. 2).

    Both start small.
    """

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(condition_dim, channels)
        self.beta = nn.Linear(condition_dim, channels)
        for layer in (self.gamma, self.beta):
            nn.init.normal_(layer.weight, std=0.5 / condition_dim**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(N, C, H, W) and (N, condition_dim) -> (N, C, H, W)."""
        gamma = self.gamma(z)[:, :, None, None]
        beta = self.beta(z)[:, :, None, None]
        return x * (1 + gamma) + beta


class FilmConv(nn.Module):
    """Convolution, FiLM, LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int) -> None:
        super().__init__()
        self.conv = norm_conv(in_channels, out_channels)
        self.film = Film(condition_dim, out_channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(N, C_in, H, W) and (N, condition_dim) -> (N, C_out, H, W)."""
        return act(self.film(self.conv(x), z))


class FilmResBlock(nn.Module):
    """A residual block whose inner activation is modulated."""

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.inner = FilmConv(channels, channels, condition_dim)
        self.conv2 = norm_conv(channels, channels, gain=0.3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(N, C, H, W) and (N, condition_dim) -> (N, C, H, W)."""
        return act(x + self.conv2(self.inner(x, z)))


def edge_ramp(count: int, edge_px: int) -> Tensor:
    """(count,) 1 inside, falling smoothly (cubic smoothstep) to 0 over edge_px at both ends."""
    at = torch.arange(count, dtype=torch.float32) + 0.5
    ramp = (torch.minimum(at, count - at) / edge_px).clamp(max=1.0)
    return ramp * ramp * (3 - 2 * ramp)
