"""The colour of eyelids that close: that of the skin around the eye."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import AuId
from training.config import LOOK_XYXY

SKIN: Final = ((257, 258, 259, 449, 450, 451), (27, 28, 29, 229, 230, 231))
"""Landmarks on the skin above and below the person's left and right eye."""
CORNERS: Final = ((362, 263), (133, 33))
"""Landmarks of each eye's inner and outer corner."""
_SHARE: Final = 0.7
"""Of the skin's hue in a closed lid's. On 157 closing eyes of validation people (rendered) the
logarithm of hue is off by 0.090 as painted, 0.095 as the skin has it, and 0.084 to 0.087 with a
half to three quarters of the skin's; and on real people painted lids may be far too red.
"""
_ACROSS: Final = 0.45
_DOWN: Final = 0.3
"""Deviations of the window around an eye, in distances of its corners."""
_FULL: Final = 1.5
"""Height of the window's bell, which is cut off at 1."""
_FARTHEST: Final = 30.0
_GREY: Final = 0.01
"""Added to what is seen: skin in the dark is grey, and nothing is divided by 0."""


class LidTone(nn.Module):
    """Gives what is painted where an eye closes the hue of the skin around that eye.

    A lid that was open is hidden skin, so it has to be painted, and a painter that has seen many
    skins paints a mean one. How bright the lid is, and where its crease and lashes are, stays as
    painted; hue, the part that the eye of a stranger stumbles over, is taken from the picture. Eyes
    that open are left alone: what appears there is no skin.
    """

    def __init__(self) -> None:
        super().__init__()
        x0, y0, x1, y1 = LOOK_XYXY
        index = AuId.AU45.index
        for name, value in (
            ("skin", torch.tensor(SKIN).flatten()),
            ("corners", torch.tensor(CORNERS).flatten()),
            ("blinks", torch.tensor([2 * index, 2 * index + 1])),
            ("columns", torch.arange(x0, x1, dtype=torch.float32) + 0.5),
            ("rows", torch.arange(y0, y1, dtype=torch.float32) + 0.5),
            ("first_xy", torch.tensor([x0, y0], dtype=torch.float32)),
            ("per_px", 2.0 / torch.tensor([x1 - x0, y1 - y0], dtype=torch.float32)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(
        self, fill_rgb: Tensor, picture_rgb: Tensor, landmarks_xy: Tensor, change_lr: Tensor
    ) -> Tensor:
        """Tone the lids.

        Args:
            fill_rgb: (N, 3, 192, 176) what is painted, in [0, 1].
            picture_rgb: (N, 3, 192, 176) the target's look, in [0, 1].
            landmarks_xy: (N, 478, 2) the target's, pixels of a 256-px crop.
            change_lr: (N, 2K) of the intensities.

        Returns:
            (N, 3, 192, 176) in [0, 1].
        """
        count = len(fill_rgb)
        with torch.autocast(fill_rgb.device.type, enabled=False):  # places are too fine for half
            at = torch.index_select(landmarks_xy.float(), 1, self.get_buffer("skin"))
            grid = (at - self.get_buffer("first_xy")) * self.get_buffer("per_px") - 1.0
            seen = F.grid_sample(
                picture_rgb.float(), grid[:, None], padding_mode="border", align_corners=False
            )
            skin = seen.reshape(count, 3, 2, -1).mean(3)  # RGB by eye
            hue = (skin + _GREY) / (skin.mean(1, keepdim=True) + _GREY)
            ends = torch.index_select(landmarks_xy.float(), 1, self.get_buffer("corners"))
            ends = ends.reshape(count, 2, 2, 2)  # eye, corner, xy
            middle = ends.mean(2)
            # the crop is aligned: corners lie side by side
            width = (ends[:, :, 0] - ends[:, :, 1]).abs().sum(2, keepdim=True) + 1.0
            closing = torch.index_select(change_lr.float(), 1, self.get_buffer("blinks"))
            closing = closing.clamp(0.0, 1.0)[:, :, None, None]
            across = (self.get_buffer("columns") - middle[..., :1]) / (width * _ACROSS)
            down = (self.get_buffer("rows") - middle[..., 1:]) / (width * _DOWN)
            across = torch.exp((across * across * -0.5).clamp(min=-_FARTHEST))
            down = torch.exp((down * down * -0.5).clamp(min=-_FARTHEST)) * _FULL
            window = (down[..., :, None] * across[..., None, :]).clamp(max=1.0)
            share = (window * closing).detach() * _SHARE  # (N, 2, 192, 176)
            left, right = share.split(1, dim=1)
            wanted = hue[..., None].detach()
            bright = fill_rgb.mean(1, keepdim=True)
            toned = left * wanted[:, :, :1] + right * wanted[:, :, 1:]
            out: Tensor = fill_rgb * (1.0 - left - right) + bright * toned
        return out.clamp(0.0, 1.0)
