"""Graphs in small, for the GPU chain's tests."""

from __future__ import annotations

from rt_swap.contract import GraphSpec, TensorSpec


def generator_like(size_px: int) -> GraphSpec:
    """The generator's crop and maps of side ``size_px``, with one small input."""
    s = size_px
    return GraphSpec(
        "target_generator",
        (TensorSpec("target_rgb", (1, 3, s, s)), TensorSpec("gains", (1, 5))),
        (
            TensorSpec("flow_xy", (1, 2, s, s)),
            TensorSpec("keep", (1, 1, s, s)),
            TensorSpec("fill_rgb", (1, 3, s, s)),
            TensorSpec("shade", (1, 1, s, s)),
        ),
    )
