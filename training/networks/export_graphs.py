"""The two graphs of rt_swap.contract as modules: positional tensors in and out, in the contract's
order.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.networks.rtnet import RtNet, mix_tokens


class EncoderGraph(nn.Module):
    """expression_encoder: ``source_rgb`` -> ``tokens, aus_lr``."""

    def __init__(self, net: RtNet) -> None:
        super().__init__()
        self.encoder = net.encoder

    def forward(self, source_rgb: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, S, S) -> (1, K, D) and (1, K, 2)."""
        encoded = self.encoder(source_rgb)
        return encoded.tokens, encoded.aus_lr


class GeneratorGraph(nn.Module):
    """target_generator: see rt_swap.contract for each input and output."""

    def __init__(self, net: RtNet) -> None:
        super().__init__()
        self.encoder = net.encoder
        self.generator = net.generator

    def forward(
        self,
        target_rgb: Tensor,
        source_tokens: Tensor,
        base_tokens: Tensor,
        gains: Tensor,
        relative: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``flow_xy, keep, fill_rgb, shade, tokens, aus_lr``."""
        encoded = self.encoder(target_rgb)
        mixed = mix_tokens(encoded.tokens, source_tokens, base_tokens, gains, relative)
        said = self.generator(encoded.features, encoded.tokens, mixed)
        return said.flow_xy, said.keep, said.fill_rgb, said.shade, encoded.tokens, encoded.aus_lr
