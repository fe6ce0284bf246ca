"""Run one engine by itself through PyCUDA: for the check after a build and for engines.verify.

Plain and synchronous; the pipeline has its own session, with pinned buffers and a CUDA graph.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from rt_swap.backends import trt
from rt_swap.backends.base import check_inputs
from rt_swap.contract import CROP_SIZE_PX, PARITY, GraphSpec
from rt_swap.enginecache import Device, read_checked
from rt_swap.errors import BackendUnavailable, InferenceError
from rt_swap.frames import F32

_log = logging.getLogger(__name__)


def this_device(ordinal: int = 0) -> Device:
    """The GPU of this machine.

    Raises:
        BackendUnavailable: If there is none, or PyCUDA or the driver is missing.
    """
    try:
        import pycuda.driver as cuda
    except Exception as exc:  # a missing libcuda is an ImportError, a broken one anything
        raise BackendUnavailable(
            f"no GPU can be used: PyCUDA cannot be loaded ({exc}); install NVIDIA's driver and "
            "pip install pycuda"
        ) from exc
    try:
        cuda.init()
        device = cuda.Device(ordinal)
        major, minor = device.compute_capability()
        return Device(sm=10 * major + minor, name=str(device.name()), is_here=True, ordinal=ordinal)
    except cuda.Error as exc:
        raise BackendUnavailable(
            f"no GPU can be used: {exc}; is there one, and its driver?"
        ) from exc


class EngineRunner:
    """A loaded engine with device memory of its own, run by name and in order.

    Args:
        engine: An engine's file in the cache, or its bytes.
        flavour: What built it.
        spec: What it is.
        ordinal: Which GPU.

    Raises:
        BackendUnavailable: If there is no GPU or library.
        EngineMismatch: If it is not the engine it should be.
    """

    def __init__(
        self, engine: Path | bytes, flavour: trt.Flavour, spec: GraphSpec, ordinal: int = 0
    ) -> None:
        this_device(ordinal)
        import pycuda.driver as cuda

        path = engine if isinstance(engine, Path) else None
        blob = read_checked(engine)[0] if isinstance(engine, Path) else engine
        self._spec = spec
        self._cuda = cuda
        with ExitStack() as undo:
            self._context: Any = cuda.Device(ordinal).retain_primary_context()
            undo.callback(self._context.detach)  # after the pop; PyCUDA's own is the wrong one
            self._context.push()
            undo.callback(self._context.pop)
            self._stream: Any = cuda.Stream()
            loaded = trt.load_bytes(blob, flavour, spec, path)
            undo.callback(loaded.close)
            self._memory: dict[str, Any] = {}
            for tensor in (*spec.inputs, *spec.outputs):
                self._memory[tensor.name] = cuda.mem_alloc(4 * int(np.prod(tensor.shape)))
                loaded.bind(tensor.name, int(self._memory[tensor.name]))
            self._engine: trt.LoadedEngine = loaded
            self._undo = undo.pop_all()

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Every output by name, arrays of their own.

        Raises:
            ContractError: If the inputs are not what the graph takes.
            InferenceError: If it fails.
        """
        check_inputs(f"engine {self._spec.name}", self._spec, inputs)
        outputs = {t.name: np.empty(t.shape, np.float32) for t in self._spec.outputs}
        try:
            for tensor in self._spec.inputs:
                array = np.ascontiguousarray(inputs[tensor.name])
                self._cuda.memcpy_htod(self._memory[tensor.name], array)
            self._engine.enqueue(self._stream.handle)
            self._stream.synchronize()
            for name, array in outputs.items():
                self._cuda.memcpy_dtoh(array, self._memory[name])
        except self._cuda.Error as exc:
            raise InferenceError(f"engine {self._spec.name}: {exc}") from exc
        return outputs

    def close(self) -> None:
        """Give everything back; may be called twice."""
        for memory in self._memory.values():
            memory.free()
        self._memory = {}
        self._stream = None  # while its context is still there
        self._undo.close()

    def __enter__(self) -> EngineRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_cases(spec: GraphSpec) -> list[dict[str, F32]]:
    """Inputs for the check: smooth pictures and tokens of the size that real ones have.

    Returns:
        Three cases, always the same.
    """
    y, x = (np.mgrid[0:CROP_SIZE_PX, 0:CROP_SIZE_PX] + 0.5) / CROP_SIZE_PX
    cases = []
    for i in range(3):
        rng = np.random.default_rng(i)
        waves = [
            0.5 + 0.45 * np.sin(2 * np.pi * (a * x + b * y + c))
            for a, b, c in rng.uniform(0.3, 4.0, (3, 3))
        ]
        case: dict[str, F32] = {}
        for tensor in spec.inputs:
            if len(tensor.shape) == 4:
                values = np.stack(waves)[None]
            elif tensor.name == "relative":
                values = np.full(tensor.shape, float(i == 1))
            elif tensor.name == "gains":
                values = rng.uniform(0, 1, tensor.shape)
            else:
                values = rng.normal(scale=0.7, size=tensor.shape)
            case[tensor.name] = values.astype(np.float32)
        cases.append(case)
    return cases


def compare_with_onnxruntime(
    runner: Any, onnx_path: Path, spec: GraphSpec, precision: str
) -> dict[str, Any]:
    """An engine's answers against ONNX Runtime's on the float32 file.

    Args:
        runner: Has ``run(inputs)``.
        onnx_path: The float32 ONNX file.
        spec: The graph.
        precision: Of the engine: which of the contract's tolerances hold.

    Returns:
        {"ok", "why" (empty where ok), "cases", "max": {output: largest error, None where it is not
        finite}}.
    """
    from rt_swap.backends.registry import get_backend

    worst: dict[str, float] = {t.name: 0.0 for t in spec.outputs}
    cases = check_cases(spec)
    with get_backend("onnxruntime").load(onnx_path, spec, 0) as session:
        for case in cases:
            wanted = session.run(case)
            got = runner.run(case)
            for name in worst:
                error = float(np.abs(wanted[name].astype(np.float64) - got[name]).max())
                # a comparison with NaN is False: keep NaN once it was seen
                worst[name] = max(worst[name], error) if error == error else float("nan")
    allowed = {name: PARITY[precision][name].max for name in worst}
    wrong = [
        f"{name} is off by {error:.3g}, {allowed[name]:g} is allowed"
        for name, error in worst.items()
        if not error <= allowed[name]
    ]
    return {
        "ok": not wrong,
        "why": "; ".join(wrong),
        "cases": len(cases),
        "max": {name: error if np.isfinite(error) else None for name, error in worst.items()},
    }


def self_check(
    engine: bytes,
    flavour: trt.Flavour,
    onnx_path: Path,
    spec: GraphSpec,
    precision: str,
    device: Device,
) -> dict[str, Any] | None:
    """Run an engine that was just built; see :class:`rt_swap.enginecache.Builder`."""
    try:
        here = this_device(device.ordinal)
    except BackendUnavailable as exc:
        _log.warning("%s: the engine was not checked: %s", spec.name, exc)
        return None
    if here.sm != device.sm:
        return None
    with EngineRunner(engine, flavour, spec, device.ordinal) as runner:
        return compare_with_onnxruntime(runner, onnx_path, spec, precision)
