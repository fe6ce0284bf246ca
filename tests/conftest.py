"""Shared set-up: kinds of tests, seeds, and what a test needs in order to run."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest

KINDS = ("unit", "parity", "golden", "gpu", "trt", "slow")
SEED = 20211


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


def has_nvidia_gpu() -> bool:
    """A device node of the desktop and server driver, or of Jetson's."""
    return any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu"))


def has_tensorrt() -> bool:
    return any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    run_slow = config.getoption("--run-slow") or "slow" in config.getoption("-m")
    needs = {
        "gpu": (has_nvidia_gpu(), "needs an NVIDIA GPU"),
        "trt": (has_tensorrt(), "needs tensorrt or tensorrt_rtx (pip install rt-swap[rtx])"),
        "slow": (run_slow, "slow; needs --run-slow"),
    }
    for item in items:
        if not any(item.get_closest_marker(kind) for kind in KINDS):
            item.add_marker(pytest.mark.unit)
        for kind, (available, reason) in needs.items():
            if not available and item.get_closest_marker(kind):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers for a test whatever ran before it."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - for libraries that draw from the global generator
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed; draw on the CPU."""
    return np.random.default_rng(SEED)
