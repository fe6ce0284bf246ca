"""The rules: a good graph passes, each kind of bad one is named, and costs are counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.onnx_rules import check_rules, clean, count_macs
from engines.rewrite import fold_pixel_unshuffle
from rt_swap.contract import ENCODER_SPEC, GENERATOR_SPEC, GraphSpec, TensorSpec
from rt_swap.errors import EngineBuildError
from tests.support.tiny_model import encoder_model, generator_model

SPEC = GraphSpec("g", (TensorSpec("x", (1, 4, 8, 8)),), (TensorSpec("y", (1, 4, 8, 8)),))


def graph(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    shape_x: Sequence[int | str] = (1, 4, 8, 8),
    shape_y: Sequence[int | str] = (1, 4, 8, 8),
    opset: int = 17,
    extra_domain: str | None = None,
    ir_version: int = 8,
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape_x)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape_y)
    initializers = [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()]
    opsets = [helper.make_opsetid("", opset)]
    if extra_domain is not None:
        opsets.append(helper.make_opsetid(extra_domain, 1))
    made = helper.make_graph(list(nodes), "g", [x], [y], initializers)
    return helper.make_model(made, opset_imports=opsets, ir_version=ir_version)


def node(kind: str, inputs: Sequence[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], name=f"{kind}_{output}", **attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_good_graphs_pass() -> None:
    check_rules(graph([node("Relu", ["x"])]), SPEC)
    check_rules(encoder_model(), ENCODER_SPEC)
    check_rules(generator_model(), GENERATOR_SPEC)


BAD: dict[str, tuple[onnx.ModelProto, str]] = {
    "operator": (graph([node("Mish", ["x"])], opset=18), "outside the list: Mish"),
    "opset": (graph([node("Relu", ["x"])], opset=16), "opset 16 is outside 17 to 20"),
    "newer IR": (graph([node("Relu", ["x"])], ir_version=10), "IR version 10 is newer"),
    "dynamic": (
        graph([node("Relu", ["x"])], shape_x=("N", 4, 8, 8), shape_y=("N", 4, 8, 8)),
        r"x has no static shape.*y has no static shape",
    ),
    "shape": (
        graph([node("Relu", ["x"])], shape_x=(1, 2, 8, 8), shape_y=(1, 2, 8, 8)),
        r"input x is float32 \(1, 2, 8, 8\), expected float32 \(1, 4, 8, 8\)",
    ),
    "rank": (
        graph(
            [
                node("Reshape", ["x", "to5"], "a"),
                node("Relu", ["a"], "b"),
                node("Reshape", ["b", "to4"]),
            ],
            {"to5": ints(1, 2, 2, 8, 8), "to4": ints(1, 4, 8, 8)},
        ),
        "a has rank 5, more than 4",
    ),
    "double": (
        graph(
            [node("Cast", ["x"], "a", to=TensorProto.DOUBLE), node("Cast", ["a"], to=1)],
        ),
        "a is DOUBLE",
    ),
    "cubic": (
        graph(
            [node("Resize", ["x", "", "s"], mode="cubic")], {"s": np.ones(4, np.float32)}
        ),
        "mode cubic",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_graph_is_named(kind: str) -> None:
    model, complaint = BAD[kind]
    with pytest.raises(EngineBuildError, match=complaint):
        check_rules(model, SPEC)


def test_names_must_be_the_contract_s() -> None:
    other = GraphSpec("g", (TensorSpec("rgb", (1, 4, 8, 8)),), SPEC.outputs)
    with pytest.raises(EngineBuildError, match="input rgb is missing; input x is not in the"):
        check_rules(graph([node("Relu", ["x"])]), other)


def test_foreign_domain_is_refused() -> None:
    custom = helper.make_node("Swap", ["x"], ["y"], domain="com.example", name="n")
    with pytest.raises(EngineBuildError, match=r"com\.example"):
        check_rules(graph([custom], extra_domain="com.example"), SPEC)


def test_broken_graph_is_refused() -> None:
    with pytest.raises(EngineBuildError, match="not a valid ONNX graph"):
        check_rules(graph([node("Relu", ["nowhere"])]), SPEC)


def test_macs_are_counted() -> None:
    weight = np.zeros((6, 2, 3, 3), np.float32)
    conv = node("Conv", ["x", "w"], group=2, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    model = graph([conv], {"w": weight}, shape_y=(1, 6, 4, 4))
    assert count_macs(model) == 4 * 4 * 6 * 2 * 9

    up = node("ConvTranspose", ["x", "w"], kernel_shape=[2, 2], strides=[2, 2])
    model = graph([up], {"w": np.zeros((4, 3, 2, 2), np.float32)}, shape_y=(1, 3, 16, 16))
    assert count_macs(model) == 8 * 8 * 4 * 3 * 4

    matmul = [node("MatMul", ["x", "w"])]
    assert count_macs(graph(matmul, {"w": np.zeros((8, 8), np.float32)})) == 4 * 8 * 8 * 8


def test_macs_of_gemm_with_a_transposed_input() -> None:
    nodes = [
        node("Reshape", ["x", "flat"], "a"),
        node("Gemm", ["a", "w"], "b", transA=1),
        node("Reshape", ["b", "back"]),
    ]
    weights = {"flat": ints(16, 16), "w": np.zeros((16, 16), np.float32), "back": ints(1, 4, 8, 8)}
    assert count_macs(graph(nodes, weights)) == 16 * 16 * 16


def test_clean_removes_paths_and_traces() -> None:
    model = graph([node("Relu", ["x"])], ir_version=10)
    trace = model.graph.node[0].metadata_props.add()
    trace.key, trace.value = "pkg.torch.onnx.stack_trace", "/home/somebody/secret.py"
    model.graph.node[0].doc_string = "/home/somebody"
    model.doc_string = "/home/somebody"
    clean(model)
    assert b"somebody" not in model.SerializeToString()
    check_rules(model, SPEC)


# --- rewriting ---
def unshuffle_graph(perm: Sequence[int] = (0, 1, 3, 5, 2, 4), kernel: int = 1) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        node("Reshape", ["x", "six"], "a"),
        node("Transpose", ["a"], "b", perm=list(perm)),
        node("Reshape", ["b", "four"], "c"),
        node(
            "Conv", ["c", "w", "bias"], kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, group=1
        ),
    ]
    weights = {
        "six": ints(1, 4, 4, 2, 4, 2),
        "four": ints(-1, 16, 4, 4),
        "w": rng.normal(size=(3, 16, kernel, kernel)).astype(np.float32),
        "bias": rng.normal(size=3).astype(np.float32),
    }
    return graph(nodes, weights, shape_y=(1, 3, 4, 4))


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    return np.asarray(ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0])


def test_pixel_unshuffle_becomes_one_convolution_with_the_same_answer() -> None:
    model = unshuffle_graph()
    x = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    expected = run(model, x)
    cost = count_macs(model)
    assert fold_pixel_unshuffle(model) == 1
    assert [n.op_type for n in model.graph.node] == ["Conv"]
    assert {t.name for t in model.graph.initializer} == {"w", "bias"}
    assert count_macs(model) == cost
    np.testing.assert_allclose(run(model, x), expected, atol=1e-5)
    spec = GraphSpec("g", SPEC.inputs, (TensorSpec("y", (1, 3, 4, 4)),))
    check_rules(model, spec)


@pytest.mark.parametrize(
    "model", [unshuffle_graph(perm=(0, 1, 5, 3, 2, 4)), unshuffle_graph(kernel=3)]
)
def test_what_is_no_pixel_unshuffle_stays(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert fold_pixel_unshuffle(model) == 0
    assert model.SerializeToString() == before


def test_an_intermediate_that_others_read_stays() -> None:
    model = unshuffle_graph()
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, (1, 16, 4, 4)))
    assert fold_pixel_unshuffle(model) == 0


# --- the exporter ---
def test_torch_pixel_unshuffle_is_exported_within_the_rules() -> None:
    torch = pytest.importorskip("torch", reason="needs torch (pip install rt-swap[train])")
    pytest.importorskip("onnxscript", reason="needs onnxscript (pip install rt-swap[train])")
    from engines.torch_graphs import TorchGraph, export_onnx

    class Folded(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(16, 3, 1)

        def forward(self, x: Any) -> Any:
            return self.conv(torch.nn.functional.pixel_unshuffle(x, 2))

    spec = GraphSpec("g", SPEC.inputs, (TensorSpec("y", (1, 3, 4, 4)),))
    wrapped = TorchGraph(Folded(), spec)
    model = export_onnx(wrapped)
    assert [n.op_type for n in model.graph.node] == ["Conv"]
    x = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(model, x), wrapped.run({"x": x})["y"], atol=1e-5)
