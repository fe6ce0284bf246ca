"""The folder of what was dropped, and what a studio that was killed leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rt_swap.studio.uploads import Uploads

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="asks for processes as POSIX does")


def test_a_killed_studios_folder_goes_with_the_next_start_and_a_living_ones_stays(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    dead = tmp_path / f"rt_swap_studio_{done.stdout.strip()}_abc"
    alive = tmp_path / f"rt_swap_studio_{os.getpid()}_abc"
    other = tmp_path / "rt_swap_studio_mine"
    for folder in (dead, alive, other):
        folder.mkdir()
        (folder / "face.jpg").write_bytes(b"x")
    with Uploads(tmp_path) as uploads:
        assert not dead.exists()
        assert (alive / "face.jpg").exists()
        assert (other / "face.jpg").exists()
        assert uploads.folder.stat().st_mode & 0o077 == 0
    assert not uploads.folder.exists()
