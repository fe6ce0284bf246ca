"""ONNX Runtime. The only place that imports ``onnxruntime``.

Outputs are bound once to arrays of the session's own, inputs to the caller's arrays at each run, so
a run on the CPU copies nothing. By default worker threads sleep between operators instead of
spinning: the other stages of the pipeline share the cores, and a spinning pool takes their time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from rt_swap.backends.base import check_graph_io, check_inputs
from rt_swap.contract import GraphSpec
from rt_swap.errors import (
    BackendUnavailable,
    ConfigError,
    InferenceError,
    ModelFileError,
)
from rt_swap.frames import F32

_log = logging.getLogger(__name__)

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FLOAT: Final = {"tensor(float)": "float32"}


def why_provider_missing(provider: str) -> str | None:
    """None where this build of ONNX Runtime has the provider ("cpu", "cuda"), else why not."""
    if _PROVIDERS[provider] in ort.get_available_providers():
        return None
    return (
        f"onnxruntime {ort.__version__} was built without {_PROVIDERS[provider]}; "
        "install onnxruntime-gpu in its place, on a machine with an NVIDIA GPU"
    )


class OnnxRuntimeBackend:
    """Runs ONNX files on the CPU or on an NVIDIA GPU through ONNX Runtime.

    Args:
        provider: "cpu" or "cuda".
        spinning: Whether idle worker threads of a session spin instead of sleeping. Saves some
            microseconds per operator where the session has the cores to itself.

    Raises:
        ConfigError: If the provider is neither.
        BackendUnavailable: If this build of ONNX Runtime lacks it.
    """

    def __init__(self, provider: str = "cpu", *, spinning: bool = False) -> None:
        if provider not in _PROVIDERS:
            raise ConfigError(
                f"onnxruntime: no provider {provider!r}; there are {', '.join(_PROVIDERS)}"
            )
        reason = why_provider_missing(provider)
        if reason is not None:
            raise BackendUnavailable(f"onnxruntime: {reason}")
        self._provider = provider
        self._spinning = spinning

    @property
    def name(self) -> str:
        """The registered name: "onnxruntime" on the CPU, "onnxruntime-cuda" on the GPU."""
        return "onnxruntime" if self._provider == "cpu" else f"onnxruntime-{self._provider}"

    def load(self, path: Path, spec: GraphSpec, threads: int) -> OnnxRuntimeSession:
        """See :class:`rt_swap.backends.base.Backend`."""
        if threads < 0:
            raise ConfigError(f"{self.name}: threads must be 0 or more, got {threads}")
        if not path.is_file():
            raise ModelFileError(f"{path}: there is no such model file")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only; they come as exceptions too
        spin = "1" if self._spinning else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", spin)
        wanted = _PROVIDERS[self._provider]
        try:
            session = ort.InferenceSession(str(path), sess_options=options, providers=[wanted])
        except Exception as exc:  # the library raises many unrelated types
            raise ModelFileError(
                f"{path}: ONNX Runtime cannot load it ({_first_line(exc)}); "
                "the file is damaged or of another kind: install the model again"
            ) from exc
        # ONNX Runtime drops to the CPU without an exception; a named backend must not
        used = session.get_providers()
        if wanted not in used:
            raise BackendUnavailable(
                f"{self.name}: ONNX Runtime could not start {wanted} and offers {', '.join(used)}; "
                "check the CUDA and cuDNN libraries it was built for"
            )
        check_graph_io(
            path, spec, _describe(session.get_inputs()), _describe(session.get_outputs())
        )
        _log.debug("%s: loaded %s, threads=%d", self.name, path.name, threads)
        return OnnxRuntimeSession(session, spec, self.name)


class OnnxRuntimeSession:
    """One graph in ONNX Runtime; see :class:`rt_swap.backends.base.Session`."""

    def __init__(self, session: Any, spec: GraphSpec, backend_name: str) -> None:
        self._spec = spec
        self._who = f"{backend_name}: {spec.name}"
        self._session: Any = session
        self._outputs: dict[str, F32] = {
            tensor.name: np.empty(tensor.shape, np.float32) for tensor in spec.outputs
        }
        self._binding: Any = session.io_binding()
        for name, array in self._outputs.items():
            self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    @property
    def spec(self) -> GraphSpec:
        """Names and shapes of inputs and outputs."""
        return self._spec

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run the graph once; the arrays returned are overwritten by the next run.

        Args:
            inputs: Every input by name, float32, exactly the spec's shape.

        Returns:
            Every output by name.

        Raises:
            ContractError: If the inputs are not what the graph takes.
            InferenceError: If the runtime fails or the session is closed.
        """
        if self._session is None:
            raise InferenceError(f"{self._who}: the session is closed")
        check_inputs(self._who, self._spec, inputs)
        # held until the run is over: the binding only borrows their memory
        held = {t.name: np.ascontiguousarray(inputs[t.name]) for t in self._spec.inputs}
        try:
            for name, array in held.items():
                self._binding.bind_cpu_input(name, array)
            self._session.run_with_iobinding(self._binding)
        except Exception as exc:  # the library raises many unrelated types
            raise InferenceError(f"{self._who}: {_first_line(exc)}") from exc
        finally:
            self._binding.clear_binding_inputs()
        return dict(self._outputs)

    def close(self) -> None:
        """Free the graph. The arrays of the last run stay valid."""
        self._binding = None
        self._session = None

    def __enter__(self) -> OnnxRuntimeSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _describe(arguments: Any) -> list[tuple[str, tuple[object, ...], str]]:
    return [(a.name, tuple(a.shape), _FLOAT.get(a.type, str(a.type))) for a in arguments]


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip() or type(exc).__name__
    return text.splitlines()[0]
