"""Names, shapes and ranges of everything that crosses a seam: graphs, crops and the files between
them.

Shared by training, engines and the runtime; changing anything here raises CONTRACT_VERSION.

expression encoder (``expression_encoder.onnx``)
    in   source_rgb    (1, 3, S, S)   RGB, [0, 1], the aligned crop
    out  tokens        (1, K, D)      AU tokens
         aus_lr        (1, K, 2)      intensities read off the tokens, [left, right], [0, 1]

target generator (``target_generator.onnx``)
    in   target_rgb    (1, 3, S, S)   RGB, [0, 1], the aligned crop
         landmarks_xy  (1, L, 2)      its face-mesh landmarks, pixels of the crop, order (x, y),
         mediapipe's order: 468 of the face and 10 of the irises
         source_tokens (1, K, D)
         base_tokens   (1, K, D)      stored neutral; read only where relative is 1
         gains         (1, K)         0 leaves an AU as the target has it, 1 takes the source's
         relative      (1, 1)         0: base is the target's own tokens (absolute); 1: base is
         base_tokens
    out  flow_xy       (1, 2, S, S)   where to fetch, offset in crop pixels, order (x, y)
         keep          (1, 1, S, S)   [0, 1], how far to trust the fetched pixel
         fill_rgb      (1, 3, S, S)   [0, 1], what to paint where nothing can be fetched
         shade         (1, 1, S, S)   > 0, factor on the fetched pixel (folds and wrinkles); 1
         changes nothing
         tokens        (1, K, D)      the target's own
         aus_lr        (1, K, 2)      the target's own

    mixed = own + gains * (source_tokens - base), inside the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rt_swap.aus import NUM_AUS

CONTRACT_VERSION: Final = 2

CROP_SIZE_PX: Final = 256
"""S: side of the aligned crop."""

TOKEN_DIM: Final = 16
"""D: numbers per AU token."""

NUM_LANDMARKS: Final = 478
"""L: face-mesh landmarks of a face, the irises' included."""

ENCODER_NAME: Final = "expression_encoder"
GENERATOR_NAME: Final = "target_generator"

# --- the aligned crop
# -------------------------------------------------------------------------------------------------
# Landmarks (mediapipe face-mesh indices) that an expression hardly moves, and where they lie in
# the aligned crop, as a
# fraction of its side. Positions: the mean over 80 neutral frontal faces, in units of the outer
# canthal distance around
# its middle, then scaled by TEMPLATE_CANTHAL_FRACTION so that forehead and an open jaw both fit.
TEMPLATE_CANTHAL_FRACTION: Final = 0.38
TEMPLATE_CENTRE_XY: Final = (0.5, 0.34)
STABLE_LANDMARKS: Final[tuple[int, ...]] = (33, 133, 362, 263, 168, 6, 197, 195, 2)
_STABLE_OFFSETS: Final = (
    (-0.5000, 0.0000),
    (-0.1892, 0.0214),
    (0.1892, 0.0214),
    (0.5000, 0.0000),
    (0.0000, -0.0479),
    (0.0000, 0.0352),
    (0.0000, 0.1145),
    (0.0000, 0.1907),
    (0.0000, 0.5170),
)

FEATHER_FRACTION: Final = 0.05
"""Width of the feather w(q) along each edge of the crop, as a fraction of its side."""


def template_xy() -> npt.NDArray[np.float64]:
    """Where STABLE_LANDMARKS lie in the aligned crop.

    Returns:
        (9, 2) pixels of the crop, order (x, y), origin at the top-left corner.
    """
    offsets = np.array(_STABLE_OFFSETS) * TEMPLATE_CANTHAL_FRACTION
    return np.asarray((offsets + np.array(TEMPLATE_CENTRE_XY)) * CROP_SIZE_PX, np.float64)


def some_landmarks() -> npt.NDArray[np.float32]:
    """Landmarks of nobody, for inputs that no picture gave: points spread evenly over where faces
    are in the crop (the additive recurrence R2 of Roberts, 2018).

    Returns:
        (1, 478, 2) pixels of the crop.
    """
    steps = np.arange(1, NUM_LANDMARKS + 1)[:, None] * (0.7548776662466927, 0.5698402909980532)
    spread = (steps % 1.0) * (0.6, 0.7) + (0.2, 0.2)
    return (spread[None] * CROP_SIZE_PX).astype(np.float32)


# --- graphs --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph: name, static shape, always float32 at the seam."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A graph's name (the file's stem), inputs and outputs."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


_S = CROP_SIZE_PX
_TOKENS = (1, NUM_AUS, TOKEN_DIM)
_AUS_LR = (1, NUM_AUS, 2)

ENCODER_SPEC: Final = GraphSpec(
    ENCODER_NAME,
    inputs=(TensorSpec("source_rgb", (1, 3, _S, _S)),),
    outputs=(TensorSpec("tokens", _TOKENS), TensorSpec("aus_lr", _AUS_LR)),
)

GENERATOR_SPEC: Final = GraphSpec(
    GENERATOR_NAME,
    inputs=(
        TensorSpec("target_rgb", (1, 3, _S, _S)),
        TensorSpec("landmarks_xy", (1, NUM_LANDMARKS, 2)),
        TensorSpec("source_tokens", _TOKENS),
        TensorSpec("base_tokens", _TOKENS),
        TensorSpec("gains", (1, NUM_AUS)),
        TensorSpec("relative", (1, 1)),
    ),
    outputs=(
        TensorSpec("flow_xy", (1, 2, _S, _S)),
        TensorSpec("keep", (1, 1, _S, _S)),
        TensorSpec("fill_rgb", (1, 3, _S, _S)),
        TensorSpec("shade", (1, 1, _S, _S)),
        TensorSpec("tokens", _TOKENS),
        TensorSpec("aus_lr", _AUS_LR),
    ),
)

GRAPHS: Final[dict[str, GraphSpec]] = {g.name: g for g in (ENCODER_SPEC, GENERATOR_SPEC)}

# --- how close two runtimes must be
# -----------------------------------------------------------------------------------
PARITY_ATOL_FP32: Final[dict[str, float]] = {
    # flow in pixels: 1/100 px moves a full black-to-white edge by 2.6 grey levels at most and a
    # real one by far less
    "flow_xy": 1e-2,
    # the rest in units of 1: half a grey level
    "keep": 2e-3,
    "fill_rgb": 2e-3,
    "shade": 2e-3,
    "tokens": 2e-3,
    "aus_lr": 2e-3,
}
"""Largest absolute difference allowed between PyTorch fp32 and ONNX Runtime fp32, per output,
with the reason.
"""


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be off, absolute.

    Attributes:
        max: Anywhere.
        p99: For 99 of 100 values.
    """

    max: float
    p99: float


PARITY: Final[dict[str, dict[str, Tolerance]]] = {
    "fp32": {name: Tolerance(atol, atol) for name, atol in PARITY_ATOL_FP32.items()},
    "fp16": {
        # a strong edge of a real face changes by some 25 grey levels a pixel at the crop's size:
        # 0.02 px are half a level there, 0.1 px, anywhere, two or three levels of a single pixel
        "flow_xy": Tolerance(max=0.1, p99=0.02),
        # half a grey level; two or three, anywhere
        "keep": Tolerance(max=1e-2, p99=2e-3),
        "fill_rgb": Tolerance(max=1e-2, p99=2e-3),
        # a factor: on a pixel of middle grey 0.02 are two or three levels
        "shade": Tolerance(max=2e-2, p99=2e-3),
        # numbers of a token reach about 3; what this moves shows up in the answers above
        "tokens": Tolerance(max=2e-2, p99=1e-2),
        # intensities are shown with two digits
        "aus_lr": Tolerance(max=1e-2, p99=5e-3),
    },
}
"""Largest absolute difference allowed from fp32 of the reference, by precision and output."""

COMPOSED_P99_LEVELS: Final = 1.0
"""Grey levels by which 99 of 100 values of a composed picture may differ from the reference's: one
level cannot be seen, and a value at a rounding tie falls on either side."""

COMPOSED_MIN_PSNR_DB: Final = 55.0
"""The composed picture's PSNR against the reference's, at least. Rounding to 8 bits alone is 58.9
dB, so this is an error about as large as the one that every picture has already."""
