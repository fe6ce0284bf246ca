"""What the writers and the readers of training data share; imports nothing heavy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FORMAT: Final = 3
"""3: labels count from where the tracker sees faces at rest (training.data.calibrate); 2: keep
tells eyes behind lids, and what looks otherwise than what is fetched."""
FLOW_UNITS_PER_PX: Final = 64.0
FIELDS_SIDE: Final = 64
"""Cells of a unit's field along a side of the crop."""
NOTHING: Final = -128
"""In a shard's fields: the face's mesh is not there."""


def write_folder(
    folder: Path, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any], name: str
) -> None:
    """Write arrays as ``.npy`` files and what is said of them as JSON, whole or not at all.

    Args:
        folder: Will be made; must not be there.
        arrays: By file stem.
        about: For the JSON file.
        name: Of the JSON file.
    """
    partial = folder.with_name(f".partial_{folder.name}_{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        for stem, array in arrays.items():
            np.save(partial / f"{stem}.npy", array)
        (partial / name).write_text(json.dumps(about, indent=1), encoding="utf-8")
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
