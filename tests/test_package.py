"""The package's front door: what it exports, and that importing it costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import rt_swap

HEAVY = (
    "numpy",
    "cv2",
    "mediapipe",
    "onnxruntime",
    "av",
    "torch",
    "rt_swap._warp",
    "rt_swap.swapper",
)


def test_import_loads_nothing_heavy():
    code = f"import sys, rt_swap; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_exported_names_exist():
    assert rt_swap.__all__ == ["Swapper", "__version__"]
    for name in rt_swap.__all__:
        assert getattr(rt_swap, name) is not None
    assert dir(rt_swap) == sorted(rt_swap.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'swapper_of_things'"):
        _ = rt_swap.swapper_of_things


def test_version_is_that_of_the_metadata():
    assert rt_swap.__version__ == metadata.version("rt-swap")
