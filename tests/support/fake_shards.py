"""Tiny shards in the real format: coloured noise under a known shift, so that flow, keep and truth
agree.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.contract import NUM_LANDMARKS
from training.data.dataset import FIELDS_SIDE, NOTHING
from training.data.layout import FORMAT


def write_fake_shard(
    path: Path,
    quadruples: int = 3,
    size_px: int = 64,
    seed: int = 0,
    split: str = "train",
    reals: int = 4,
    pictures_only: bool = False,
) -> Path:
    """Write a shard whose picture 1 is picture 0 moved by (3, -2) px, and picture 3 is picture
    2 moved so.

    So flow to 1 from 0 is (3, -2) everywhere, and flow to 0 from 1 is (-3, 2); keep is 0 in a
    box of picture 1 and 3. The units' fields add up to the flow; the mesh is not in the top rows.
    With ``pictures_only`` all that says how they move is left out.
    """
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    q, s = quadruples, size_px
    coarse = rng.integers(0, 256, (q, 2, s // 8, s // 8, 3), dtype=np.uint8)
    still = coarse.repeat(8, axis=2).repeat(8, axis=3)
    rgb = np.empty((q, 4, s, s, 3), np.uint8)
    rgb[:, [0, 2]] = still
    rgb[:, [1, 3]] = np.roll(still, (2, -3), axis=(2, 3))  # moved(p) = still(p + (3, -2))
    flow = np.empty((q, 4, 2, s, s), np.int16)
    flow[:, [1, 3], 0], flow[:, [1, 3], 1] = 3 * 64, -2 * 64
    flow[:, [0, 2], 0], flow[:, [0, 2], 1] = -3 * 64, 2 * 64
    keep = np.full((q, 4, s, s), 255, np.uint8)
    keep[:, [1, 3], s // 2 : s // 2 + 8, s // 4 : s // 2] = 0
    region = (
        rng.integers(0, 6, (q, 4, s // 8, s // 8), dtype=np.uint8)
        .repeat(8, axis=2)
        .repeat(8, axis=3)
    )
    a, b = (rng.random((q, NUM_AUS, 2)).astype(np.float32) for _ in range(2))
    gains = (rng.random((q, NUM_AUS)) < 0.7).astype(np.float32)
    gains[0] = 1
    g = gains[:, :, None]
    aus_lr = np.stack([a, a + g * (b - a), b, b + g * (a - b)], axis=1).astype(np.float32)
    # as much of the flow for each unit as it changes: the sum of change times field is the flow
    change = (aus_lr[:, [1, 0, 3, 2]] - aus_lr).reshape(q, 4, -1, 1)
    of_unit = change * flow[:, :, None, :, 0, 0] / 64 / (change**2).sum(2, keepdims=True)
    step_px = np.abs(of_unit).max(-1) / 127
    steps = np.rint(of_unit / np.maximum(step_px, 1e-9)[..., None]).astype(np.int8)
    fields = np.empty((q, 4, FIELDS_SIDE, FIELDS_SIDE, NUM_AUS, 2, 2), np.int8)
    fields[:] = steps.reshape(q, 4, 1, 1, NUM_AUS, 2, 2)
    fields[:, :, :14] = NOTHING
    # points all over; the second picture's are where the flow takes the first's
    landmarks = np.repeat(rng.uniform(0.1 * s, 0.9 * s, (1, 1, NUM_LANDMARKS, 3)), 4, 1)
    landmarks = np.repeat(landmarks, q, 0).astype(np.float32)
    landmarks[:, [1, 3], :, :2] += np.float32([-3.0, 2.0])
    arrays = {
        "landmarks": landmarks,
        "rgb": rgb,
        "flow": flow,
        "keep": keep,
        "shade": np.full((q, 4, s, s), 160, np.uint8),
        "region": region,
        "aus_lr": aus_lr,
        "fields": fields,
        "step_px": step_px.reshape(q, 4, NUM_AUS, 2).astype(np.float32),
        "gains": gains,
        "people": np.tile(np.array([[0, 1]], np.int32), (q, 1)),
        "real": rng.integers(0, 256, (reals, s, s, 3), dtype=np.uint8),
    }
    if pictures_only:
        for stem in ("flow", "keep", "shade", "region", "fields", "step_px", "landmarks"):
            del arrays[stem]
    for stem, array in arrays.items():
        np.save(path / f"{stem}.npy", array)
    meta = {
        "format": FORMAT,
        "size_px": s,
        "quadruples": q,
        "pictures_only": pictures_only,
        "seed": seed,
        "split": split,
        "people": [{"file": f"{split}_{i}.png", "dataset": "fake"} for i in range(2)],
        "aus": list(AU_NAMES),
    }
    (path / "shard.json").write_text(json.dumps(meta))
    return path
