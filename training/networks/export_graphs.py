"""The two graphs of rt_swap.contract as modules: positional tensors in and out, in the contract's
order. Networks that work at a smaller size than the contract's crop get it averaged down, and their
answers are brought back up.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.contract import CROP_SIZE_PX
from training.networks.rtnet import RtNet, mix_tokens


def _shrunk(picture_rgb: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(picture_rgb, factor) if factor > 1 else picture_rgb


def _grown(answer: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return answer
    return F.interpolate(answer, scale_factor=float(factor), mode="bilinear", align_corners=False)


class EncoderGraph(nn.Module):
    """expression_encoder: ``source_rgb`` -> ``tokens, aus_lr``."""

    def __init__(self, net: RtNet) -> None:
        super().__init__()
        self.encoder = net.encoder
        self.factor = CROP_SIZE_PX // net.config.work_px

    def forward(self, source_rgb: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, S, S) -> (1, K, D) and (1, K, 2)."""
        encoded = self.encoder(_shrunk(source_rgb, self.factor))
        return encoded.tokens, encoded.aus_lr


class GeneratorGraph(nn.Module):
    """target_generator: see rt_swap.contract for each input and output."""

    def __init__(self, net: RtNet) -> None:
        super().__init__()
        self.encoder = net.encoder
        self.generator = net.generator
        self.factor = CROP_SIZE_PX // net.config.work_px

    def forward(
        self,
        target_rgb: Tensor,
        source_tokens: Tensor,
        base_tokens: Tensor,
        gains: Tensor,
        relative: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``flow_xy, keep, fill_rgb, shade, tokens, aus_lr``."""
        encoded = self.encoder(_shrunk(target_rgb, self.factor))
        mixed = mix_tokens(encoded.tokens, source_tokens, base_tokens, gains, relative)
        said = self.generator(encoded.features, encoded.tokens, mixed)
        f = self.factor
        return (
            _grown(said.flow_xy, f) * float(f) if f > 1 else said.flow_xy,
            _grown(said.keep, f),
            _grown(said.fill_rgb, f),
            _grown(said.shade, f),
            encoded.tokens,
            encoded.aus_lr,
        )
