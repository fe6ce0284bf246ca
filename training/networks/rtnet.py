"""RtNet: encoder and generator together, and the mixing of tokens between them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from training.config import SCHEMES, NetworkConfig
from training.networks.encoder import Encoder, LabelTokens
from training.networks.generator import Generator
from training.networks.synthesis import EftGenerator, GanimationGenerator

HEAD_SLOPE = 5.0
"""Logits per unit of intensity with which the AU head starts; intensity 1/2 is logit 0."""


def mix_tokens(
    own: Tensor, source: Tensor, base: Tensor, gains: Tensor, relative: Tensor
) -> Tensor:
    """``own + gains * (source - base')`` per AU, as rt_swap.contract defines it.

    Args:
        own: (N, K, D) the target's tokens.
        source: (N, K, D).
        base: (N, K, D) tokens of the source's resting face; read where relative is 1.
        gains: (N, K).
        relative: (N, 1); base' = relative * base + (1 - relative) * own.

    Returns:
        (N, K, D).
    """
    relative = relative[:, :, None]
    reference = relative * base + (1 - relative) * own
    return own + gains[:, :, None] * (source - reference)


_GENERATORS: Final[dict[str, type[nn.Module]]] = dict(
    zip(SCHEMES, (Generator, EftGenerator, GanimationGenerator), strict=True)
)


class RtNet(nn.Module):
    """What is shipped.

    Attributes:
        encoder: E and E_r.
        generator: E_f and G of the configured scheme.
        label_tokens: Teacher of the tokens; training only.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.generator: nn.Module = _GENERATORS[config.scheme](config)
        self.label_tokens = LabelTokens(config)
        with torch.no_grad():
            # the AU head starts as the teacher's inverse: a random one would pull the tokens away
            # from where the teacher wants them
            inverse = torch.linalg.pinv(self.label_tokens.weight)
            self.encoder.tokens.head_weight.copy_(HEAD_SLOPE * inverse)
            self.encoder.tokens.head_bias.fill_(-HEAD_SLOPE / 2)
        self.tie_guide()

    @torch.no_grad()
    def tie_guide(self) -> None:
        """Tell a generator that is guided by intensities how this teacher's tokens say them; again
        after the teacher's weights were replaced.
        """
        told = dict(self.generator.named_buffers(recurse=False))
        if "tokens_to_aus" in told:
            told["tokens_to_aus"].copy_(torch.linalg.pinv(self.label_tokens.weight))
        if "tokens_bias" in told:
            told["tokens_bias"].copy_(self.label_tokens.bias)


def build(config: NetworkConfig) -> RtNet:
    """A freshly initialised RtNet; seed torch first for a reproducible one."""
    return RtNet(config)
