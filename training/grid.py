"""Sample grids: one row a sample; target, source, output, truth, flow, keep, fill."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.config import SampleConfig, TrainConfig
from training.data.dataset import Batch
from training.networks import RtNet
from training.objective import plan_samples, run_networks


def flow_rgb(flow_xy: npt.NDArray[np.float32], full_px: float) -> npt.NDArray[np.uint8]:
    """Flow as colour: hue is direction, brightness is length up to ``full_px``.

    Args:
        flow_xy: (2, H, W) pixels.
        full_px: Length shown at full brightness.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    angle = np.arctan2(flow_xy[1], flow_xy[0])
    length = np.clip(np.hypot(flow_xy[0], flow_xy[1]) / full_px, 0, 1)
    hsv = np.stack(
        [(angle + np.pi) / (2 * np.pi) * 179, np.full_like(angle, 255), length * 255], axis=-1
    )
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def _u8(picture: Tensor) -> npt.NDArray[np.uint8]:
    return (picture.clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)


@torch.no_grad()
def save_grid(
    path: Path, net: RtNet, batches: list[Batch], config: TrainConfig, rows: int = 8
) -> None:
    """Write a PNG of absolute swaps between held-out people.

    Args:
        path: Where to, ``.png``.
        net: Networks.
        batches: Taken from the front until there are enough rows; two pictures of each
            quadruple are shown.
        config: The run's.
        rows: How many samples.
    """
    lines = []
    for batch in batches:
        plan = plan_samples(batch.gains, SampleConfig(1, 0, 0, 0), np.random.default_rng(0))
        f = run_networks(net, batch, plan, config)
        side = batch.rgb.shape[3]
        for row in range(0, len(batch.rgb), 2):
            flow = f.said.flow_xy[row].float().cpu().numpy()
            keep = f.said.keep[row].expand(3, -1, -1)
            lines.append(
                np.concatenate(
                    [
                        _u8(batch.rgb[row]),
                        _u8(batch.rgb[plan.source[row]]),
                        _u8(f.out_rgb[row]),
                        _u8(f.truth.rgb[row]),
                        flow_rgb(flow, 8.0 * side / 256),
                        _u8(keep),
                        _u8(f.said.fill_rgb[row]),
                    ],
                    axis=1,
                )
            )
        if len(lines) >= rows:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = cv2.cvtColor(np.concatenate(lines[:rows]), cv2.COLOR_RGB2BGR)
    ok, coded = cv2.imencode(".png", picture)
    if ok:
        path.write_bytes(coded.tobytes())
