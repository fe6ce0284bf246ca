"""One short benchmark of the tiny model, shared by the tests of what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rt_swap.bench.run import Plan, run_bench
from tests.support.machines import FakeMachine
from tests.support.swapping import SittingTracker
from tests.support.tiny_model import tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bench") / "bundle")


@pytest.fixture(scope="session")
def document(bundle: Path) -> dict[str, Any]:
    """A result with every part but the starts, over a tracker that always sees a face."""
    pytest.importorskip("skimage", reason="needs scikit-image's portrait")
    other = tiny_bundle(bundle.parent / "other", seed=1)
    plan = Plan(
        frames=6,
        warm_up=2,
        size_wh=(192, 128),
        seconds=0.5,
        threads=1,
        parts=("overlapped", "live", "ladder", "models", "backends"),
        model=bundle,
        backend="onnxruntime",
        more_models=(other,),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rt_swap.swapper.MediapipeTracker", lambda **_: SittingTracker())
        patch.setattr("rt_swap.bench.measure.LADDER", {"small": (160, 120), "large": (320, 240)})
        return run_bench(plan, FakeMachine())
