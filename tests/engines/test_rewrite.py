"""Rewrites that change a graph's form: half-precision storage there and back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.rewrite import SMALLEST_STORED_HALF, load_stored, store_half
from rt_swap.errors import EngineBuildError

X = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)


def linear(scale: float = 1.0) -> onnx.ModelProto:
    """y = x W + b; W is large enough to be stored in half, b is not."""
    rng = np.random.default_rng(0)
    W = (rng.normal(size=(64, 32)) * scale).astype(np.float32)
    assert W.size >= SMALLEST_STORED_HALF
    b = rng.normal(size=32).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "W", "b"], ["y"], name="gemm")],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 32))],
        [numpy_helper.from_array(W, "W"), numpy_helper.from_array(b, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answer(model: onnx.ModelProto) -> np.ndarray:
    import onnxruntime

    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["y"], {"x": X})[0])


def test_stored_half_computes_in_float32_with_rounded_weights() -> None:
    model = linear()
    before, size = answer(model), model.ByteSize()
    W = numpy_helper.to_array(model.graph.initializer[0])
    b = numpy_helper.to_array(model.graph.initializer[1])
    assert store_half(model) == 1
    assert model.ByteSize() < 0.6 * size
    expected = X @ W.astype(np.float16).astype(np.float32) + b
    np.testing.assert_allclose(answer(model), expected, rtol=0, atol=1e-5)
    # rounding did something, and not much: 64 products, each to 2^-11
    assert 1e-5 < np.abs(answer(model) - before).max() < 64 * 2.0**-11


def test_what_the_tokens_hang_on_stays_single() -> None:
    model = linear()
    wanted = answer(model)
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "encoder.tokens.weight2"
    assert store_half(model) == 0
    np.testing.assert_array_equal(answer(model), wanted)


def test_loading_gives_the_plain_graph_back() -> None:
    model = linear()
    store_half(model)
    stored = answer(model)
    assert load_stored(model) == 1
    assert [n.op_type for n in model.graph.node] == ["Gemm"]
    assert {t.name: t.data_type for t in model.graph.initializer} == {
        "W": TensorProto.FLOAT,
        "b": TensorProto.FLOAT,
    }
    np.testing.assert_array_equal(answer(model), stored)
    assert load_stored(linear()) == 0


def test_a_weight_that_half_cannot_hold_is_named() -> None:
    with pytest.raises(EngineBuildError, match="weight W reaches"):
        store_half(linear(scale=1e5))
