"""The inside of mouths: teeth, gums and tongue as pictures that are put where they belong."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rt_swap.aus import NUM_AUS
from rt_swap.contract import CROP_SIZE_PX
from training.config import LOOK_XYXY, NetworkConfig
from training.networks.blocks import SLOPE, act, conv, norm_conv

TEETH_XYXY: Final = (76, 124, 180, 212)
"""Where mouths are in the aligned crop, opened wide or pulled aside, pixels: 99.98 % of the pixels
of lips and mouth in 2,000 rendered quadruples. Sides are multiples of 4.
"""
DENTURE_XYXY: Final = (80, 124, 176, 204)
"""What the layers' pictures show with a closed mouth, pixels of the aligned crop."""
DENTURE_SCALE: Final = 1.5
"""Their pixels per pixel of the crop."""
DENTURE_HW: Final = (
    round((DENTURE_XYXY[3] - DENTURE_XYXY[1]) * DENTURE_SCALE),
    round((DENTURE_XYXY[2] - DENTURE_XYXY[0]) * DENTURE_SCALE),
)
_MIDDLE: Final = CROP_SIZE_PX / 2
_LINEAR_STEP: Final = 0.02
_SHIFT_STEP_PX: Final = 1.0
_LIGHT_STEP: Final = 0.3
_HUE_STEP: Final = 0.03
"""What an output of 1 means: of a map's linear part, of its shift, of the logarithm of light, and
of what its colours differ by. Small, for a picture's error is least where teeth are shoved behind a
lip and gums, lit white, are the paint that no edge of a tooth can spoil: left free, it went there.
"""
_DARKEST: Final = 0.4
"""Logarithm of the deepest shadow that lips throw inwards."""
_MOST: Final = 3.0
"""Largest such output."""
_LEAST_AREA: Final = 0.05
"""What a layer shrinks to at least, whatever landmarks say: nothing is divided by less."""
_AUS_RANGE: Final = (-0.5, 2.0)
"""Of intensities that move a layer."""
_WIDE: Final = 32
"""Channels of the map that is read as one long vector."""
_LIGHT: Final = 1.15
"""Of the inside before what is read off the target. Training with 0.9 left the brightest tenth of
opened mouths at 0.43 where answers have 0.49 (validation people), for teeth a pixel off cost least
where they are grey; with this it is 0.47, at the same error to half a percent.
"""
_BEHIND: Final = (0.10, 0.04, 0.04)
"""Behind everything: a socket in little light. Left free, it went grey, for the mean of teeth that
lie elsewhere and none at all is grey.
"""


class MouthLayers(nn.Module):
    """Upper and lower teeth as two flat layers (training.data.denture), moved, lit, and laid over
    each other and a dark ground.

    A decoder that has to paint teeth anew paints the mean of what they might be, a soft grey band.
    Here only where they are has to be found: the upper ones hang from the skull, the lower ones
    from the jaw, whose way the wanted intensities say; a small network reads from the target how
    its own mouth differs from the mean one, and how it is lit. Edges stay as sharp as the layers'
    pictures are, and teeth stay put while lips move over them.

    Attributes:
        layers: (2, 4, h, w) upper and lower, RGB times alpha and alpha.
        by_unit: (2, 2K, 2, 3) how each unit of intensity moves a point (x, y, 1) of a layer,
            pixels from the crop's middle. Both are all 0 until :meth:`wear` or a checkpoint.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        hidden, d128 = config.mouth_hidden, config.decoder_channels[3]
        x0, y0, x1, y1 = (v - LOOK_XYXY[i % 2] for i, v in enumerate(TEETH_XYXY))  # of the look
        self.half_rows, self.half_columns = slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2)
        self.register_buffer("layers", torch.zeros(2, 4, *DENTURE_HW))
        self.register_buffer("by_unit", torch.zeros(2, 2 * NUM_AUS, 2, 3))
        look_sides = ((LOOK_XYXY[3] - LOOK_XYXY[1]) // 16, (LOOK_XYXY[2] - LOOK_XYXY[0]) // 16)
        self.reduce = norm_conv(config.stem_channels[3], _WIDE, 1)
        self.look = conv(_WIDE, hidden, look_sides)
        self.hear = nn.Linear(config.condition_dim, hidden)
        self.read = nn.Linear(hidden, hidden)
        for layer in (self.hear, self.read):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
        # the head's place, the jaw's besides, and light
        self.say = nn.Linear(hidden, 6 + 6 + 1 + 3)
        nn.init.zeros_(self.say.weight)
        nn.init.zeros_(self.say.bias)
        # by place: where the mouth is open, as 2x2 pixels, and shadow
        self.part = conv(d128, 4, gain=0.1)
        assert self.part.bias is not None
        nn.init.constant_(self.part.bias, -2.0)  # closed, as mostly
        self.shadow = conv(d128, 1, gain=0.0)
        rows = torch.arange(TEETH_XYXY[1], TEETH_XYXY[3], dtype=torch.float32) + 0.5 - _MIDDLE
        columns = torch.arange(TEETH_XYXY[0], TEETH_XYXY[2], dtype=torch.float32) + 0.5 - _MIDDLE
        steps = torch.tensor([_LINEAR_STEP, _LINEAR_STEP, _SHIFT_STEP_PX] * 2)
        for name, value in (
            ("x", columns[None, None]),
            ("y", rows[None, :, None]),
            ("steps", steps),
            ("jaw_steps", torch.stack([torch.zeros(6), steps])),
            ("behind_rgb", torch.tensor(_BEHIND)[None, :, None, None]),
            ("stay", torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])),
        ):
            self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def wear(self, layers: Tensor, by_unit: Tensor) -> None:
        """Put in a denture (training.data.denture.Denture).

        Raises:
            ValueError: If its shapes are others.
        """
        for name, value in (("layers", layers), ("by_unit", by_unit)):
            mine = self.get_buffer(name)
            if value.shape != mine.shape:
                raise ValueError(
                    f"wear: {name} has shape {tuple(value.shape)}, expected {tuple(mine.shape)}"
                )
            mine.copy_(value)

    @property
    def is_empty(self) -> bool:
        """Whether there are no teeth yet."""
        return not bool(self.get_buffer("layers").any())

    def forward(
        self,
        x: Tensor,
        sixteenth: Tensor,
        z: Tensor,
        aus_lr: Tensor,
        head_place: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw the mouth's inside.

        Args:
            x: (N, C, 96, 88) the decoder's last features.
            sixteenth: (N, C, 12, 11) the stem's, of the target.
            z: (N, condition_dim).
            aus_lr: (N, 2K) the wanted intensities; gains may take them out of [0, 1], and the jaw
                follows as far as from -0.5 to 2.
            head_place: (N, 6) FaceMesh.head_place: where the skull is, against a mean one; None
                where nobody knows, and it has to be read off the picture.

        Returns:
            (N, 3, 88, 104) the inside in [0, 1], as if the mouth were open wherever it may be;
            and (N, 1, 88, 104) the logit of its being so, within TEETH_XYXY.
        """
        wide = self.look(act(self.reduce(sixteenth))).flatten(1)
        said = self.say(act(self.read(act(wide + self.hear(z))))).float()
        # bounded, so that no map can turn over; a hyperbolic tangent stays single precision, too
        said = torch.tanh(said / _MOST) * _MOST
        here = x[:, :, self.half_rows, self.half_columns]
        part = F.pixel_shuffle(self.part(here).float().contiguous(), 2)
        shadow = F.interpolate(
            self.shadow(here).float().contiguous(),
            scale_factor=2.0,
            mode="bilinear",
            align_corners=False,
        )
        with torch.autocast(x.device.type, enabled=False):  # places are too fine for half precision
            upper, lower = self._placed(aus_lr.float().clamp(*_AUS_RANGE), said, head_place)
            under = lower[:, :3] + (1 - lower[:, 3:]) * self.get_buffer("behind_rgb")
            inside = upper[:, :3] + (1 - upper[:, 3:]) * under
            light = said[:, 12:13] * _LIGHT_STEP + said[:, 13:16] * _HUE_STEP
            light = torch.exp(light)[:, :, None, None] * _LIGHT
            shadow = torch.exp(torch.sigmoid(shadow) * -_DARKEST)
            inside = (inside * light * shadow).clamp(0.0, 1.0)
        return inside, part

    def _placed(
        self, aus_lr: Tensor, said: Tensor, head_place: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Upper and lower layer, (N, 4, 88, 104), where they belong.

        A layer's point goes where its units take it, then where the jaw differs, then where the
        head is; the picture looks the way back. Both ways are six numbers a layer, and only the
        last sums are taken by pixel.
        """
        count, stay = len(aus_lr), self.get_buffer("stay")
        head = stay if head_place is None else head_place.float()[:, None]
        head = said[:, None, :6] * self.get_buffer("steps") + head  # (N, 1, 6)
        # a sum, and no product of matrices: those are half precision in a mixed graph
        own = (aus_lr[:, None, :, None] * self.get_buffer("by_unit").flatten(2)).sum(2)
        own = own + said[:, None, 6:12] * self.get_buffer("jaw_steps") + stay  # (N, 2, 6)
        a, b, c = (head[..., 0:1] * own[..., :3] + head[..., 1:2] * own[..., 3:]).split(1, 2)
        d, e, f = (head[..., 3:4] * own[..., :3] + head[..., 4:5] * own[..., 3:]).split(1, 2)
        c, f = c + head[..., 2:3], f + head[..., 5:6]
        det = (a * e - b * d).clamp(min=_LEAST_AREA)
        # back: x' = (e (x - c) - b (y - f)) / det, y' = (a (y - f) - d (x - c)) / det; and from
        # there to grid_sample's -1 to 1
        x0, y0, x1, y1 = (v - _MIDDLE for v in DENTURE_XYXY)
        across, down = 2 / (x1 - x0) / det, 2 / (y1 - y0) / det
        a, b, d, e = a * down, b * across, d * down, e * across
        at_x = b * f - e * c - ((x1 + x0) / (x1 - x0))
        at_y = d * c - a * f - ((y1 + y0) / (y1 - y0))
        a, b, d, e, at_x, at_y = (v.reshape(-1, 1, 1) for v in (a, b, d, e, at_x, at_y))
        x, y = self.get_buffer("x"), self.get_buffer("y")
        grid = torch.stack([e * x - b * y + at_x, a * y - d * x + at_y], dim=3)
        pictures = self.get_buffer("layers")
        if count > 1:
            pictures = pictures.repeat(count, 1, 1, 1)
        both = F.grid_sample(pictures, grid, padding_mode="zeros", align_corners=False)
        both = both.reshape(count, 8, *both.shape[2:])
        return both[:, :4], both[:, 4:]
