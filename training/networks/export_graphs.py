"""The two graphs of rt_swap.contract as modules: positional tensors in and out, in the contract's
order. Networks that work at a smaller size than the contract's crop get it averaged down, and their
answers are brought back up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import NUM_AUS
from rt_swap.contract import CROP_SIZE_PX
from training.data.dataset import mirror_order
from training.networks.encoder import StemFeatures
from training.networks.rtnet import RtNet, mix_tokens


def _shrunk(picture_rgb: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(picture_rgb, factor) if factor > 1 else picture_rgb


def _grown(answer: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return answer
    return F.interpolate(answer, scale_factor=float(factor), mode="bilinear", align_corners=False)


class Reader(nn.Module):
    """The encoder as it ships: where the configuration says so, it reads the picture and its mirror
    image, and averages (test-time augmentation; Krizhevsky et al., NeurIPS 2012, section 4.1).

    A mirrored face's tokens are turned back through the intensities they say: the left side's
    become the right side's, looking left becomes looking right.
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
            across = torch.arange(net.config.work_px - 1, -1, -1)
            self.register_buffer("across", across, persistent=False)

    def forward(self, picture_rgb: Tensor) -> tuple[StemFeatures, Tensor, Tensor]:
        """(1, 3, W, W) -> features of the picture itself, tokens (1, K, D), aus_lr (1, K, 2)."""
        if not self.mirrored:
            encoded = self.encoder(picture_rgb)
            return encoded.features, encoded.tokens, encoded.aus_lr
        mirror = torch.index_select(picture_rgb, 3, self.get_buffer("across"))
        features = self.encoder.stem(torch.cat([picture_rgb, mirror], dim=0))
        both, _ = self.encoder.tokens(features)
        other = torch.index_select(both[1:2], 1, self.get_buffer("order")) - self.get_buffer("was")
        turned = torch.matmul(other.reshape(NUM_AUS, 1, -1), self.get_buffer("turn"))
        turned = turned.reshape(1, NUM_AUS, -1) + self.get_buffer("bias")
        tokens = 0.5 * (both[0:1] + turned)
        aus_lr = torch.sigmoid(self.encoder.tokens.read(tokens))
        return features[slice(0, 1)], tokens, aus_lr


class EncoderGraph(nn.Module):
    """expression_encoder: ``source_rgb`` -> ``tokens, aus_lr``."""

    def __init__(self, net: RtNet) -> None:
        super().__init__()
        self.reader = Reader(net)
        self.factor = CROP_SIZE_PX // net.config.work_px

    def forward(self, source_rgb: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, S, S) -> (1, K, D) and (1, K, 2)."""
        _, tokens, aus_lr = self.reader(_shrunk(source_rgb, self.factor))
        return tokens, aus_lr


class GeneratorGraph(nn.Module):
    """target_generator: see rt_swap.contract for each input and output."""

    def __init__(self, net: RtNet) -> None:
        super().__init__()
        self.reader = Reader(net)
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
        features, tokens, aus_lr = self.reader(_shrunk(target_rgb, self.factor))
        mixed = mix_tokens(tokens, source_tokens, base_tokens, gains, relative)
        said = self.generator(features, tokens, mixed)
        f = self.factor
        return (
            _grown(said.flow_xy, f) * float(f) if f > 1 else said.flow_xy,
            _grown(said.keep, f),
            _grown(said.fill_rgb, f),
            _grown(said.shade, f),
            tokens,
            aus_lr,
        )
