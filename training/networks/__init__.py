"""Networks: stem E, AU-related E_r, AU-free E_f, generator G, critics D and D_au."""

from training.networks.critics import Critics
from training.networks.encoder import Encoded, StemFeatures
from training.networks.generator import Instructions
from training.networks.rtnet import RtNet, build, mix_tokens

__all__ = ["Critics", "Encoded", "Instructions", "RtNet", "StemFeatures", "build", "mix_tokens"]
