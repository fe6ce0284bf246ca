"""The compose of rt_swap's contract in torch: carry instructions out on the crop itself,
differentiably.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fetch(picture_rgb: Tensor, flow_xy: Tensor) -> Tensor:
    """Backward warp: ``out(p) = picture(p + flow(p))``, bilinear, edge replicated.

    Convention:
        Pixel centres lie at +0.5 (``align_corners=False``); flow is an offset in pixels,
        order (x, y).

    Args:
        picture_rgb: (N, C, H, W) float32.
        flow_xy: (N, 2, H, W) float32.

    Returns:
        (N, C, H, W) float32.
    """
    height, width = picture_rgb.shape[2], picture_rgb.shape[3]
    xs = (torch.arange(width, device=flow_xy.device, dtype=torch.float32) + 0.5) * (
        2.0 / width
    ) - 1.0
    ys = (torch.arange(height, device=flow_xy.device, dtype=torch.float32) + 0.5) * (
        2.0 / height
    ) - 1.0
    grid = torch.stack(
        [flow_xy[:, 0] * (2.0 / width) + xs, flow_xy[:, 1] * (2.0 / height) + ys[:, None]], dim=3
    )
    return F.grid_sample(
        picture_rgb, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def compose(
    target_rgb: Tensor,
    flow_xy: Tensor,
    keep: Tensor,
    fill_rgb: Tensor,
    shade: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """``(1-w) target + w [keep clamp(shade target(p + flow)) + (1-keep) fill]``.

    Args:
        target_rgb: (N, 3, S, S) in [0, 1].
        flow_xy: (N, 2, S, S) pixels.
        keep: (N, 1, S, S) in [0, 1].
        fill_rgb: (N, 3, S, S) in [0, 1].
        shade: (N, 1, S, S) > 0, or None for 1.
        weight: Feather w, broadcastable to (N, 1, S, S), or None for 1.

    Returns:
        (N, 3, S, S) in [0, 1].
    """
    fetched = fetch(target_rgb, flow_xy)
    if shade is not None:
        fetched = torch.clamp(fetched * shade, 0.0, 1.0)
    painted = fill_rgb + keep * (fetched - fill_rgb)
    if weight is None:
        return painted
    return target_rgb + weight * (painted - target_rgb)
