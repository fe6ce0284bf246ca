"""Where tests find the shared data (portraits, clips, the morphable model), which is not part of
the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ENV_NAME = "RT_SWAP_DATA"
CHECKOUT = Path(__file__).resolve().parents[2]


def find_shared_data_dir() -> Path | None:
    """The folder, or None where there is none.

    Raises:
        FileNotFoundError: If RT_SWAP_DATA names a folder that does not exist: that is a mistake,
            not an absence.
    """
    named = os.environ.get(ENV_NAME)
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{ENV_NAME}={named} is not a folder")
        return folder
    folder = CHECKOUT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def shared_data_dir(*parts: str) -> Path:
    """A path inside the shared data; skips the test where it is not there.

    Args:
        parts: Folder and file names below the data folder, or none for the folder itself.
    """
    folder = find_shared_data_dir()
    if folder is None:
        pytest.skip(
            f"needs the shared data: set {ENV_NAME} or put it in ../shared/data beside the checkout"
        )
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} in the shared data")
    return path
