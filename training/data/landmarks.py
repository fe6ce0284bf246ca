"""Face-mesh landmarks of the pictures in shards: where the tracker sees each point of the face.

    python -m training.data.landmarks SHARDS [SHARDS ...]

adds ``landmarks.npy`` to shards of pictures only (training.data.shards, ``--pictures-only``), which
are rendered without:

    landmarks.npy (Q, 4, 478, 3) float32 x, y and relative depth (smaller is nearer) in pixels of
    the picture, mediapipe's face-mesh order; NaN where no face was found

They are found as they are at run time, by mediapipe in the picture, with its errors, and not taken
from the renderer: what learns from them will see no others.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np

from rt_swap.contract import NUM_LANDMARKS
from rt_swap.errors import RtSwapError
from rt_swap.frames import F32, F64, U8
from rt_swap.tracking import FaceTracker, MediapipeTracker
from training.data.dataset import find_shards, open_shard

logger = logging.getLogger(__name__)


def crop_face(tracker: FaceTracker, rgb: U8) -> F64 | None:
    """Face-mesh landmarks of an aligned crop, with depth.

    The detector wants air around a face, so the crop's edge is replicated outwards first.

    Args:
        tracker: Of single pictures (``static``).
        rgb: (S, S, 3) uint8.

    Returns:
        (478, 3) x, y and depth, pixels of the crop, or None where no face is found.
    """
    pad = rgb.shape[0] // 4
    padded = np.pad(rgb[..., ::-1], ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    faces = tracker.detect(np.ascontiguousarray(padded))
    if not faces:
        return None
    return np.concatenate([faces[0].landmarks_xy - pad, faces[0].depth[:, None]], axis=1)


def crop_landmarks(tracker: FaceTracker, rgb: U8) -> F64 | None:
    """The same without depth: (478, 2), or None."""
    found = crop_face(tracker, rgb)
    return None if found is None else found[:, :2]


def landmarks_of(tracker: FaceTracker, pictures: U8) -> F32:
    """Landmarks of a shard's pictures.

    Args:
        tracker: Of single pictures (``static``).
        pictures: (Q, 4, S, S, 3) uint8.

    Returns:
        (Q, 4, 478, 3) float32 pixels; NaN where no face is found.
    """
    out = np.full((*pictures.shape[:2], NUM_LANDMARKS, 3), np.nan, np.float32)
    for place in np.ndindex(*pictures.shape[:2]):
        found = crop_face(tracker, np.asarray(pictures[place]))
        if found is not None:
            out[place] = found
    return out


def add_landmarks(shard: Path, tracker: FaceTracker) -> int:
    """Write a shard's ``landmarks.npy``.

    Returns:
        In how many pictures no face was found.

    Raises:
        ConfigError, ContractError: If it is no shard.
    """
    found = landmarks_of(tracker, open_shard(shard).arrays["rgb"])
    partial = shard / f".landmarks_{os.getpid()}.npy"
    np.save(partial, found)
    os.replace(partial, shard / "landmarks.npy")
    return int(np.isnan(found[..., 0, 0]).sum())


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m training.data.landmarks",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument("shards", type=Path, nargs="+", help="shards, or folders of shards")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        folders = find_shards(args.shards)
        with MediapipeTracker(static=True) as tracker:
            for folder in folders:
                if (folder / "landmarks.npy").is_file():
                    logger.info("%s has its landmarks already", folder)
                    continue
                start = time.perf_counter()
                missed = add_landmarks(folder, tracker)
                took = time.perf_counter() - start
                logger.info("%s: no face in %d pictures; %.0f s", folder, missed, took)
    except RtSwapError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
