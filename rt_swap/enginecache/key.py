"""What decides whether a built engine is valid."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rt_swap.contract import CONTRACT_VERSION, GraphSpec

SUFFIX: Final = ".engine"
ANY_GPU: Final = "any"
"""The GPU's name in the key of an engine that runs on every GPU of its compute capability."""

_KEY_DIGITS: Final = 16


@dataclass(frozen=True)
class Device:
    """What an engine is for.

    Attributes:
        sm: Compute capability as one number: 89 for 8.9, 120 for 12.0.
        name: The GPU's name; ANY_GPU for an engine made ahead of time.
        is_here: Whether it is a GPU of this machine, so that engines can be run on it.
        ordinal: Which of this machine's.
    """

    sm: int
    name: str = ANY_GPU
    is_here: bool = False
    ordinal: int = 0


@dataclass(frozen=True)
class EngineKey:
    """Everything that decides validity; two engines with one key are interchangeable.

    Attributes:
        graph: The graph's name.
        onnx_sha256: Of the ONNX file's bytes.
        contract_version: Names and shapes at the seam.
        precision: "fp32" or "fp16".
        shapes: "name=1x3x256x256,..." of inputs, then outputs.
        runtime: What builds and runs it, "tensorrt" or "rtx".
        runtime_version: Its whole version; engines of another one are not loaded.
        sm: Compute capability.
        gpu: The GPU's name, or ANY_GPU where the runtime's engines fit every GPU of that sm.
        flags: How it was built, "tf32=0,...".
        platform: "Linux-x86_64" and so on.
    """

    graph: str
    onnx_sha256: str
    contract_version: int
    precision: str
    shapes: str
    runtime: str
    runtime_version: str
    sm: int
    gpu: str
    flags: str
    platform: str

    @property
    def sha256(self) -> str:
        """Hash of all fields."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def family(self) -> str:
        """Start of the file name: engines that stand in for each other when things change."""
        return f"{self.graph}.{self.precision}.{self.runtime}.sm{self.sm}."

    @property
    def file_name(self) -> str:
        """``<graph>.<precision>.<runtime>.sm<sm>.<start of the hash>.engine``."""
        return f"{self.family}{self.sha256[:_KEY_DIGITS]}{SUFFIX}"

    def differences(self, other: EngineKey) -> list[str]:
        """Fields that differ: "runtime_version 1.6.0 (here 1.7.1)"."""
        mine, others = dataclasses.asdict(self), dataclasses.asdict(other)
        return [
            f"{name} {_short(mine[name])} (here {_short(others[name])})"
            for name in mine
            if mine[name] != others[name]
        ]

    @classmethod
    def from_json(cls, values: object) -> EngineKey | None:
        """A key from a sidecar; None where it is none."""
        if not isinstance(values, Mapping):
            return None
        fields = {f.name: int if "int" in str(f.type) else str for f in dataclasses.fields(cls)}
        if set(values) != set(fields):
            return None
        if any(type(values[name]) is not kind for name, kind in fields.items()):
            return None
        arguments: dict[str, Any] = dict(values)
        return cls(**arguments)


def make_key(
    onnx_sha256: str,
    spec: GraphSpec,
    precision: str,
    device: Device,
    *,
    runtime: str,
    runtime_version: str,
    portable: bool,
    flags: str,
) -> EngineKey:
    """The key of an engine that is to be had.

    Args:
        onnx_sha256: Of the ONNX file.
        spec: The graph.
        precision: "fp32" or "fp16".
        device: What it is for.
        runtime: Name of the flavour.
        runtime_version: The library's version.
        portable: Whether the runtime's engines run on every GPU of their compute capability.
        flags: How it would be built.
    """
    shapes = ",".join(
        f"{t.name}={'x'.join(map(str, t.shape))}" for t in (*spec.inputs, *spec.outputs)
    )
    return EngineKey(
        graph=spec.name,
        onnx_sha256=onnx_sha256,
        contract_version=CONTRACT_VERSION,
        precision=precision,
        shapes=shapes,
        runtime=runtime,
        runtime_version=runtime_version,
        sm=device.sm,
        gpu=ANY_GPU if portable else device.name,
        flags=flags,
        platform=f"{platform.system()}-{platform.machine()}",
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12]
