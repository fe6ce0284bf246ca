"""The two graphs of rt_swap.contract as modules: positional tensors in and out, in the contract's
order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rt_swap.aus import NUM_AUS
from training.config import LOOK_XYXY
from training.data.dataset import mirror_order
from training.networks.rtnet import RtNet, mix_tokens


def _look(crop_rgb: Tensor) -> Tensor:
    x0, y0, x1, y1 = LOOK_XYXY
    return crop_rgb[:, :, y0:y1, x0:x1]


class EncoderGraph(nn.Module):
    """expression_encoder: ``source_rgb`` -> ``tokens, aus_lr``.

    Where the configuration says so, it looks at the face and at its mirror image, and averages
    (test-time augmentation; Krizhevsky et al., NeurIPS 2012, section 4.1). A mirrored face's tokens
    are turned back through the intensities they say: the left side's become the right side's,
    looking left becomes looking right.
    """

    def __init__(self, net: RtNet) -> None:
        super().__init__()
        self.encoder = net.encoder
        self.mirrored = net.config.read_mirrored
        if self.mirrored:
            teacher = net.label_tokens
            with torch.no_grad():
                inverse = torch.linalg.pinv(teacher.weight).flip(2)  # (K, D, 2), sides exchanged
            order = torch.from_numpy(mirror_order())
            self.register_buffer("order", order, persistent=False)
            # tokens of unit k, mirrored, become those of unit order[k]
            self.register_buffer("turn", (inverse[order] @ teacher.weight), persistent=False)
            self.register_buffer("was", teacher.bias.detach()[order][None], persistent=False)
            self.register_buffer("bias", teacher.bias.detach()[None].clone(), persistent=False)
            across = torch.arange(LOOK_XYXY[2] - LOOK_XYXY[0] - 1, -1, -1)
            self.register_buffer("across", across, persistent=False)

    def forward(self, source_rgb: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, S, S) -> tokens (1, K, D) and aus_lr (1, K, 2)."""
        face = _look(source_rgb)
        if not self.mirrored:
            encoded = self.encoder(face)
            return encoded.tokens, encoded.aus_lr
        mirror = torch.index_select(face, 3, self.get_buffer("across"))
        both = self.encoder(torch.cat([face, mirror], dim=0)).tokens
        other = torch.index_select(both[1:2], 1, self.get_buffer("order")) - self.get_buffer("was")
        turned = torch.matmul(other.reshape(NUM_AUS, 1, -1), self.get_buffer("turn"))
        turned = turned.reshape(1, NUM_AUS, -1) + self.get_buffer("bias")
        tokens = 0.5 * (both[0:1] + turned)
        return tokens, torch.sigmoid(self.encoder.tokens.read(tokens))


class GeneratorGraph(nn.Module):
    """target_generator: see rt_swap.contract for each input and output."""

    def __init__(self, net: RtNet) -> None:
        super().__init__()
        self.encoder = net.encoder
        self.generator = net.generator

    def forward(
        self,
        target_rgb: Tensor,
        landmarks_xy: Tensor,
        source_tokens: Tensor,
        base_tokens: Tensor,
        gains: Tensor,
        relative: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``flow_xy, keep, fill_rgb, shade, tokens, aus_lr``."""
        encoded = self.encoder(_look(target_rgb))
        mixed = mix_tokens(encoded.tokens, source_tokens, base_tokens, gains, relative)
        said = self.generator(encoded.features, encoded.tokens, mixed, landmarks_xy=landmarks_xy)
        return said.flow_xy, said.keep, said.fill_rgb, said.shade, encoded.tokens, encoded.aus_lr
