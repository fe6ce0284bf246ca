"""What a backend and a session promise, and the checks every one of them makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from rt_swap.contract import CONTRACT_VERSION, GraphSpec
from rt_swap.errors import ContractError, ModelFileError
from rt_swap.frames import F32, F64, U8


@runtime_checkable
class Session(Protocol):
    """One loaded graph with its buffers. Belongs to one thread at a time; usable in ``with``.

    The pipeline makes one per graph at start, calls run() once a frame and close() at the end.
    """

    @property
    def spec(self) -> GraphSpec:
        """What was loaded: names and shapes of inputs and outputs."""
        ...

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run the graph once.

        Args:
            inputs: Every input of ``spec`` by name, float32, exactly the spec's shape. Not changed,
                not kept.

        Returns:
            Every output of ``spec`` by name, float32, exactly the spec's shape. The arrays belong
            to the session and **the next run overwrites them**: copy what must live longer.

        Raises:
            ContractError: If inputs are missing, unknown, or of a wrong shape or dtype (all are
                listed).
            InferenceError: If the runtime fails, or the session is closed.
        """
        ...

    def close(self) -> None:
        """Give memory and device back. May be called twice."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class Composed:
    """What a fused session made of one frame.

    Attributes:
        box_xyxy: Half-open box of the frame outside which nothing changed; may be empty.
        roi_bgr: (y1 - y0, x1 - x0, 3) uint8, the composed box. The session's own memory: valid
            until release() or the session's end, and not to be written.
        outputs: The graph's small outputs by name, float32, the caller's own.
        release: Gives the memory back; to be called once, from any thread.
    """

    box_xyxy: tuple[int, int, int, int]
    roi_bgr: U8
    outputs: dict[str, F32]
    release: Callable[[], None]


@runtime_checkable
class FusedSession(Protocol):
    """A session that also crops and composes, where the network runs. Optional: the pipeline uses
    it where a session has it, and does the two itself elsewhere.
    """

    def swap(
        self,
        frame_bgr: U8,
        M_crop_from_frame: F64,
        inputs: Mapping[str, F32],
        *,
        compose: bool = True,
    ) -> Composed:
        """Crop, run and compose, as rt_swap.ops.crop_rgb, run() and rt_swap.ops.compose_bgr with
        rt_swap.ops.feather would.

        Args:
            frame_bgr: (H, W, 3) uint8. Not changed, not kept.
            M_crop_from_frame: (2, 3), invertible.
            inputs: Every input of the spec but the crop.
            compose: False: no picture is wanted; ``box_xyxy`` is empty.

        Raises:
            ContractError: If an argument is not as said.
            InferenceError: If the runtime fails, or the session is closed.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """A way to run graphs. Made by the registry; cheap to make, holds no device memory itself."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...

    def load(self, path: Path, spec: GraphSpec, threads: int) -> Session:
        """Load a graph and check that it is what the contract says.

        Args:
            path: The ONNX file.
            spec: What it must be.
            threads: CPU threads one run may use; 0 lets the runtime choose. GPU backends ignore it.

        Raises:
            ModelFileError: If the file is missing or damaged, or its inputs and outputs are not
                ``spec``'s (all mismatches listed).
            BackendUnavailable: If the device cannot be used after all.
            ConfigError: If threads is negative.
        """
        ...


def check_inputs(who: str, spec: GraphSpec, inputs: Mapping[str, F32]) -> None:
    """Compare what came with what the graph takes.

    Raises:
        ContractError: Listing every mismatch.
    """
    wrong: list[str] = []
    for tensor in spec.inputs:
        array: object = inputs.get(tensor.name)
        if array is None:
            wrong.append(f"{tensor.name} is missing")
        elif not isinstance(array, np.ndarray):
            wrong.append(f"{tensor.name} must be a NumPy array, got {type(array).__name__}")
        elif array.shape != tensor.shape or array.dtype != np.float32:
            wrong.append(
                f"{tensor.name} must be float32 {tensor.shape}, got {array.dtype} {array.shape}"
            )
    known = {tensor.name for tensor in spec.inputs}
    wrong += [f"{name} is not an input" for name in inputs if name not in known]
    if wrong:
        raise ContractError(
            f"{who}: {'; '.join(wrong)}",
            expected=str({t.name: t.shape for t in spec.inputs}),
            actual=str({n: getattr(a, "shape", type(a).__name__) for n, a in inputs.items()}),
        )


def check_graph_io(
    path: Path,
    spec: GraphSpec,
    inputs: Iterable[tuple[str, tuple[object, ...], str]],
    outputs: Iterable[tuple[str, tuple[object, ...], str]],
) -> None:
    """Compare a loaded graph's inputs and outputs with the contract.

    Args:
        path: The file, for the message.
        spec: What it must be.
        inputs: (name, shape, element type) of each input of the file; the type as "float32".
        outputs: The same of each output.

    Raises:
        ModelFileError: Listing every mismatch.
    """
    wrong: list[str] = []
    for kind, wanted, found in (("input", spec.inputs, inputs), ("output", spec.outputs, outputs)):
        there = {name: (shape, dtype) for name, shape, dtype in found}
        for tensor in wanted:
            if tensor.name not in there:
                wrong.append(f"{kind} {tensor.name} is missing")
                continue
            shape, dtype = there.pop(tensor.name)
            if tuple(shape) != tensor.shape or dtype != "float32":
                wrong.append(
                    f"{kind} {tensor.name} is {dtype} {tuple(shape)}, "
                    f"expected float32 {tensor.shape}"
                )
        wrong += [f"{kind} {name} is not in the contract" for name in there]
    if wrong:
        raise ModelFileError(
            f"{path}: not the {spec.name} of contract version {CONTRACT_VERSION}: "
            f"{'; '.join(wrong)}; use a model exported by this version of rt_swap"
        )
