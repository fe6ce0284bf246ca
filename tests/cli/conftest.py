"""A command line over the tiny model, a cache of its own and no user settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.swapping import FacesAt, SittingTracker
from tests.support.tiny_model import tiny_bundle
from tests.support.videos import numbered, write_video


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture(autouse=True)
def environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, model: Path
) -> Path:
    """Set the variables; returns the cache's folder."""
    import platformdirs

    home = tmp_path_factory.mktemp("home")
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(home / "config"))
    monkeypatch.setenv("RT_SWAP_MODEL", str(model))
    monkeypatch.setenv("RT_SWAP_CACHE", str(home / "cache"))
    monkeypatch.setenv("RT_SWAP_THREADS", "1")
    monkeypatch.delenv("RT_SWAP_DEBUG", raising=False)
    return home / "cache"


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace mediapipe by a tracker that sees a face in the middle, or what it is told."""

    def use(target: FacesAt | None = None, still: FacesAt | None = None) -> None:
        def make(max_faces: int = 1, static: bool = False) -> SittingTracker:
            return SittingTracker(still if static else target)

        monkeypatch.setattr("rt_swap.swapper.MediapipeTracker", make)

    use()
    return use


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "target.mp4"
    return write_video(path, numbered(8, 120, 160), audio=["aac"])
