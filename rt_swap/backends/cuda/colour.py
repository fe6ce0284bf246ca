"""Which YCbCr an NV12 frame is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from rt_swap.errors import ConfigError

_LUMA_WEIGHTS: Final = {
    # ITU-R BT.601-7 and BT.709-6, section 3 of each: share of red and of blue in luma
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
}
_SITINGS: Final = {
    # where the first chroma sample lies, luma pixels from the first luma pixel's centre
    "left": (0.0, 1 / 2),
    "centre": (1 / 2, 1 / 2),
}


@dataclass(frozen=True)
class Colour:
    """Conversion between an NV12 frame and RGB.

    Attributes:
        matrix: "bt709" (HD video) or "bt601" (SD, many webcams).
        full_range: Whether Y goes from 0 to 255 instead of 16 to 235.
        siting: Where chroma samples lie: "left" (H.264's and HEVC's default) or "centre" (JPEG).
    """

    matrix: str = "bt709"
    full_range: bool = False
    siting: str = "left"

    def __post_init__(self) -> None:
        for name, choices in (("matrix", _LUMA_WEIGHTS), ("siting", _SITINGS)):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"Colour: {name} must be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)!r}"
                )

    def numbers(self) -> tuple[float, ...]:
        """The 18 numbers of ``Colours`` in warp_gpu.h, in its order; grey levels."""
        red, blue = _LUMA_WEIGHTS[self.matrix]
        green = 1.0 - red - blue
        y_offset, y_span, c_span = (0.0, 255.0, 255.0) if self.full_range else (16.0, 219.0, 224.0)
        y_scale, c_scale = 255.0 / y_span, 255.0 / c_span
        r_from_v, b_from_u = 2.0 * (1.0 - red) * c_scale, 2.0 * (1.0 - blue) * c_scale
        g_from_u, g_from_v = -b_from_u * blue / green, -r_from_v * red / green
        to_bgr = np.array(
            [[y_scale, b_from_u, 0.0], [y_scale, g_from_u, g_from_v], [y_scale, 0.0, r_from_v]]
        )
        from_bgr = np.linalg.inv(to_bgr)
        return (
            y_offset,
            128.0,
            y_scale,
            r_from_v,
            g_from_u,
            g_from_v,
            b_from_u,
            *(float(v) for v in from_bgr.ravel()),
            *_SITINGS[self.siting],
        )
