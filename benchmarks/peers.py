"""What peers compute for every frame, re-stated as shapes and operations.

LivePortrait (Guo et al., arXiv 2407.03168; KwaiVGI/LivePortrait, MIT): for each frame the motion
extractor M, the warping module W, the SPADE generator G and the stitching network S run; the
appearance extractor F runs once per source. The shapes are those of its published configuration
(``src/config/models.yaml``: 21 keypoints, feature volume 32 x 16 x 64 x 64, picture 256 in and 512
out). Only what takes time is stated: convolutions, matrix products and grid samples. What lies
between them (norms, activations, copies) is left out, so a run of this is a *lower* bound on
theirs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from rt_swap.errors import ConfigError

LIVEPORTRAIT_GMAC: Final = 622.0
"""Multiply-adds of a frame that are quoted for it; the layers below must come to it."""
_DEPTH: Final = 16
_KEYPOINTS: Final = 21


@dataclass(frozen=True)
class Layer:
    """One operation.

    Attributes:
        network: Which network it belongs to.
        kind: "conv" (2-D or 3-D by the length of ``size``), "linear" or "sample" (grid sample).
        into: Channels in.
        out: Channels out.
        kernel: Side of the kernel, in every dimension.
        size: Of the output, (H, W) or (D, H, W); () for a linear layer of one row.
        stride: Of the convolution.
        groups: As many as channels for a depthwise one.
        times: How often it runs in a frame.
    """

    network: str
    kind: str
    into: int
    out: int
    kernel: int
    size: tuple[int, ...]
    stride: int = 1
    groups: int = 1
    times: int = 1

    @property
    def macs(self) -> int:
        """Multiply-adds in a frame; a sample counts 8 per value (trilinear) or 4."""
        if self.kind == "sample":
            return self.times * self.out * prod(self.size) * 2 ** len(self.size)
        per_value = self.into // self.groups * self.kernel ** len(self.size)
        return self.times * self.out * prod(self.size) * per_value


def liveportrait() -> Iterator[Layer]:
    """The layers that run for every frame."""
    yield from _motion_extractor()
    yield from _warping_module()
    yield from _generator()
    for into, out in ((126, 128), (128, 128), (128, 64), (64, 65)):
        yield Layer("stitching", "linear", into, out, 1, ())


def _motion_extractor() -> Iterator[Layer]:
    name = "motion extractor"
    widths, depths = (96, 192, 384, 768), (3, 3, 9, 3)  # ConvNeXt V2 tiny
    side, before = 64, 3
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        patch = 4 if stage == 0 else 2
        yield Layer(name, "conv", before, width, patch, (side, side), stride=patch)
        yield Layer(name, "conv", width, width, 7, (side, side), groups=width, times=depth)
        yield Layer(name, "conv", width, 4 * width, 1, (side, side), times=depth)
        yield Layer(name, "conv", 4 * width, width, 1, (side, side), times=depth)
        side, before = side // 2, width
    # keypoints and expression, three angles of 66 bins, translation, scale
    yield Layer(name, "linear", 768, 2 * 3 * _KEYPOINTS + 3 * 66 + 3 + 1, 1, ())


def _warping_module() -> Iterator[Layer]:
    name, parts = "warping module", _KEYPOINTS + 1
    volume = (_DEPTH, 64, 64)
    yield Layer(name, "conv", 32, 4, 1, volume)
    yield Layer(name, "sample", 4, 4, 1, volume, times=parts)
    into = parts * 5
    wide, side = into, 64
    for level in range(5):  # the hourglass halves height and width only
        out = 32 * 2 ** (level + 1)
        yield Layer(name, "conv", wide, out, 3, (_DEPTH, side, side))
        wide, side = out, side // 2
    for level in reversed(range(5)):
        side *= 2
        out = 32 * 2**level
        yield Layer(name, "conv", wide, out, 3, (_DEPTH, side, side))
        wide = 2 * out  # the skip connection doubles it
    wide = 32 + into
    yield Layer(name, "conv", wide, wide, 3, volume)
    yield Layer(name, "conv", wide, parts, 7, volume)
    yield Layer(name, "conv", wide * _DEPTH, 1, 7, (64, 64))
    yield Layer(name, "sample", 32, 32, 1, volume)
    yield Layer(name, "conv", 32 * _DEPTH, 256, 3, (64, 64))
    yield Layer(name, "conv", 256, 256, 1, (64, 64))


def _generator() -> Iterator[Layer]:
    name, label = "generator", 256

    def norm(width: int, side: int, times: int = 1) -> Iterator[Layer]:
        yield Layer(name, "conv", label, 128, 3, (side, side), times=times)
        yield Layer(name, "conv", 128, width, 3, (side, side), times=2 * times)

    yield Layer(name, "conv", 256, 512, 3, (64, 64))
    yield from norm(512, 64, times=12)
    yield Layer(name, "conv", 512, 512, 3, (64, 64), times=12)
    for into, out, side in ((512, 256, 128), (256, 64, 256)):
        middle = min(into, out)
        yield from norm(into, side, times=2)  # the block's own and its shortcut's
        yield from norm(middle, side)
        yield Layer(name, "conv", into, middle, 3, (side, side))
        yield Layer(name, "conv", middle, out, 3, (side, side))
        yield Layer(name, "conv", into, out, 1, (side, side))
    yield Layer(name, "conv", 64, 12, 3, (256, 256))


def gmac_by_network() -> dict[str, float]:
    """10^9 multiply-adds a frame, by network."""
    totals: dict[str, float] = {}
    for layer in liveportrait():
        totals[layer.network] = totals.get(layer.network, 0.0) + layer.macs / 1e9
    return totals


def restated(device: str, half: bool) -> dict[str, Callable[[], object]]:
    """Functions that run each network's operations once, on random values.

    Args:
        device: PyTorch's name of it.
        half: In fp16.
    """
    import torch
    import torch.nn.functional as F

    kind = torch.float16 if half else torch.float32
    steps: dict[str, list[Callable[[], object]]] = {}
    made: dict[tuple[int, ...], Any] = {}

    def values(*shape: int) -> Any:
        # one array a shape: operations of a shape read the same memory, as layers in a row do
        if shape not in made:
            made[shape] = torch.rand(shape, device=device).to(kind)
        return made[shape]

    def step(layer: Layer) -> Callable[[], object]:
        if layer.kind == "linear":
            a, w = values(1, layer.into), values(layer.out, layer.into)
            return lambda: F.linear(a, w)
        if layer.kind == "sample":
            volume = values(1, layer.into, *layer.size)
            grid = values(1, *layer.size, 3) * 2 - 1
            return lambda: F.grid_sample(volume, grid, align_corners=False)
        dimensions = len(layer.size)
        side = tuple(s * layer.stride for s in layer.size)
        a = values(1, layer.into, *side)
        w = values(layer.out, layer.into // layer.groups, *(layer.kernel,) * dimensions)
        padding = layer.kernel // 2 if layer.stride == 1 else 0
        convolve = F.conv2d if dimensions == 2 else F.conv3d
        return lambda: convolve(a, w, None, layer.stride, padding, 1, layer.groups)

    for layer in liveportrait():
        steps.setdefault(layer.network, []).extend([step(layer)] * layer.times)

    def run_all(functions: list[Callable[[], object]]) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                for function in functions:
                    function()
            return None

        return run

    return {name: run_all(functions) for name, functions in steps.items()}


def from_checkout(folder: Path, device: str, half: bool) -> dict[str, Callable[[], object]]:
    """The peer's own code, from a checkout of KwaiVGI/LivePortrait that the user has.

    Weights are random: they do not change how long it takes. **This runs the code in that folder.**

    Args:
        folder: The checkout.
        device: PyTorch's name of it.
        half: In fp16.

    Raises:
        ConfigError: If it is no such checkout, or its packages are missing.
    """
    import torch

    settings = folder / "src" / "config" / "models.yaml"
    if not settings.is_file():
        raise ConfigError(f"--liveportrait {folder}: has no src/config/models.yaml")
    sys.path.insert(0, str(folder))
    try:
        import yaml

        options = yaml.safe_load(settings.read_text(encoding="utf-8"))["model_params"]

        def network(module: str, name: str, key: str) -> Any:
            made = getattr(importlib.import_module(f"src.modules.{module}"), name)(**options[key])
            made = made.to(device).eval()
            return made.half() if half else made

        motion = network("motion_extractor", "MotionExtractor", "motion_extractor_params")
        warping = network("warping_network", "WarpingNetwork", "warping_module_params")
        generator = network("spade_generator", "SPADEDecoder", "spade_generator_params")
    except (ImportError, AttributeError, KeyError, TypeError) as exc:
        raise ConfigError(f"--liveportrait {folder}: cannot be loaded: {exc}") from exc
    finally:
        sys.path.remove(str(folder))
    kind = torch.float16 if half else torch.float32

    def values(*shape: int) -> Any:
        return torch.rand(shape, device=device).to(kind)

    picture, volume = values(1, 3, 256, 256), values(1, 32, _DEPTH, 64, 64)
    points, feature = values(1, _KEYPOINTS, 3), values(1, 256, 64, 64)

    def call(function: Any, *arguments: Any) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return function(*arguments)

        return run

    return {
        "motion extractor": call(motion, picture),
        "warping module": call(warping, volume, points, points),
        "generator": call(generator, feature),
    }
