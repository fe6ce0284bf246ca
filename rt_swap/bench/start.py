"""What a new process does until its first frame: run by rt_swap.bench.measure.starts, in a process.

``python -m rt_swap.bench.start '{"model": null, "backend": "auto", "threads": 0, "size_wh": [1280,
720], "target": null}'`` writes two lines of JSON: times of the first start, then of a second one.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def run(arguments: dict[str, Any]) -> None:
    """Start twice; write milliseconds to stdout."""
    begin = time.perf_counter()
    from rt_swap.swapper import Swapper

    told = {"import_ms": _since(begin)}

    begin = time.perf_counter()
    from rt_swap.bench.clip import open_clip

    target = arguments["target"]
    width, height = arguments["size_wh"]
    clip = open_clip(Path(target) if target else None)
    pictures = [frame.frame_bgr for frame in clip.frames((width, height), 2)]
    told["prepare_ms"] = _since(begin)  # the camera's work, not the start's

    for number, prefix in enumerate(("", "warm_")):
        begin = time.perf_counter()
        with Swapper.load(
            arguments["model"], arguments["backend"], threads=arguments["threads"]
        ) as swapper:
            names = swapper.bundle.preset_names
            smile = swapper.preset("smile" if "smile" in names else names[0])
            told[f"{prefix}load_ms"] = _since(begin)
            begin = time.perf_counter()
            swapper.process(pictures[number], smile)
            told[f"{prefix}first_frame_ms"] = _since(begin)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        told = {}


def _since(begin: float) -> float:
    return (time.perf_counter() - begin) * 1e3


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
