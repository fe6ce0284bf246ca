"""Engines without a GPU: a builder of a few bytes, and a tiny bundle in half precision too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rt_swap.contract import GRAPHS, GraphSpec
from rt_swap.enginecache import Built, Device
from rt_swap.enginecache.build import Progress
from rt_swap.model import onnx_file
from tests.support.tiny_model import tiny_bundle, write_manifest


class FakeBuilder:
    """Builds "engines" that say what they were built from, and counts."""

    def __init__(
        self,
        *,
        version: str = "1.0",
        portable: bool = True,
        seconds: float = 0.0,
        log: Path | None = None,
        verdicts: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.name = "fake"
        self.version = version
        self.portable = portable
        self.flags = "tf32=0"
        self.builds = 0
        self.checked_with: list[Path] = []
        self.timings: list[bytes | None] = []
        self._seconds = seconds
        self._log = log
        self._verdicts = verdicts or {}

    def require(self) -> None:
        """It can always build."""

    def build(
        self,
        onnx_path: Path,
        spec: GraphSpec,
        device: Device,
        *,
        timing: bytes | None = None,
        progress: Progress | None = None,
    ) -> Built:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write("begin\n")
        time.sleep(self._seconds)
        self.builds += 1
        self.timings.append(timing)
        if progress is not None:
            progress(1, 1)
        if self._log is not None:
            with self._log.open("a") as file:
                file.write("end\n")
        return Built(
            engine=f"engine of {onnx_path.name} for {device.sm}".encode() * 100,
            io={t.name: {"shape": list(t.shape)} for t in spec.inputs},
            timing=f"timings {self.builds}".encode(),
        )

    def check(
        self, engine: bytes, onnx_path: Path, spec: GraphSpec, precision: str, device: Device
    ) -> Mapping[str, Any] | None:
        self.checked_with.append(onnx_path)
        return self._verdicts.get(precision)


def half_bundle(path: Path) -> Path:
    """The tiny bundle with its fp16 files."""
    import onnx

    from engines import mixed

    tiny_bundle(path)
    for name in GRAPHS:
        half = mixed.to_mixed(onnx.load(str(path / onnx_file(name, "fp32"))))
        (path / onnx_file(name, "fp16")).write_bytes(half.SerializeToString())
    write_manifest(path)
    return path
