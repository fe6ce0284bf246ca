"""Built engines: found by everything that decides whether they are valid, or built, once.

``get_or_build(onnx_path, spec, flavour, precision, device)`` is a path to an engine that may be
loaded here. Knows no TensorRT: what builds is handed in (see :class:`Builder`).
"""

from rt_swap.enginecache.build import Builder, Built, get_or_build
from rt_swap.enginecache.key import Device, EngineKey
from rt_swap.enginecache.store import (
    Entry,
    State,
    check_file,
    engines_dir,
    entries,
    prune,
    read_checked,
)

__all__ = [
    "Builder",
    "Built",
    "Device",
    "EngineKey",
    "Entry",
    "State",
    "check_file",
    "engines_dir",
    "entries",
    "get_or_build",
    "prune",
    "read_checked",
]
