"""ONNX graphs in memory on ONNX Runtime's CPU, for graphs that are in no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto

from rt_swap.frames import F32


class OnnxRunner:
    """An ONNX model in memory on ONNX Runtime's CPU, as a Runner; for graphs in no file."""

    def __init__(self, model: onnx.ModelProto, extra_outputs: Sequence[str] = ()) -> None:
        """Load it.

        Args:
            model: The graph, weights inside.
            extra_outputs: Names of values to answer too.
        """
        import onnxruntime as ort

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in extra_outputs
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = ort.InferenceSession(copy.SerializeToString(), options)
        self._names = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Every output by name."""
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))
