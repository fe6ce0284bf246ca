"""What an ONNX file must keep to so that every runtime takes it, and how much arithmetic it costs.

The rules are those of the design: operators that ONNX Runtime and TensorRT 10 run without a plugin,
static shapes, rank at most 4, nothing but float32 (and the integers that shapes are made of), in
mixed-precision files float16 too, though never at an input or output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import onnx
from onnx import TensorProto, helper, shape_inference

from rt_swap.contract import GraphSpec, TensorSpec
from rt_swap.errors import EngineBuildError

MIN_OPSET: Final = 17
MAX_OPSET: Final = 20
"""TensorRT 10.0's parser reads up to 20."""

IR_VERSION: Final = 8
"""The oldest that carries opset 18, so that old runtimes on Jetson read the file too."""

MAX_RANK: Final = 4

OPERATORS: Final[frozenset[str]] = frozenset(
    {
        "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
        "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Elu",
        "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "Gemm",
        "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample",
        "HardSigmoid",
        "HardSwish", "Identity", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
        "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow",
        "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape",
        "Resize", "Round", "Shape", "Sigmoid", "Sign", "Slice", "Softmax", "Softplus",
        "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
        "Where",
    }
)  # fmt: skip
"""Operators of the default domain in both ONNX Runtime's and TensorRT 10's own sets (the latter:
``docs/operators.md`` of onnx/onnx-tensorrt, release/10.0-GA). GridSample is for small maps: on the
CPU it is slow. GroupNormalization and InstanceNormalization are left out on purpose: slow, or a
plugin in older TensorRT."""

_DTYPES: Final[dict[int, str]] = {
    TensorProto.FLOAT: "float32",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.BOOL: "bool",
}
_HALF: Final[dict[int, str]] = {TensorProto.FLOAT16: "float16"}
_RESIZE_MODES: Final = {"nearest", "linear"}


def check_rules(model: onnx.ModelProto, spec: GraphSpec, *, half: bool = False) -> None:
    """Check a graph against the contract and against every rule above.

    Args:
        model: The graph, weights inside.
        spec: What it must be.
        half: Whether half precision is allowed inside.

    Raises:
        EngineBuildError: Listing everything that breaks a rule.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as exc:
        raise EngineBuildError(f"{spec.name}: not a valid ONNX graph: {exc}") from exc
    wrong = [
        *_wrong_opsets(model),
        *_wrong_interface("input", spec.inputs, model.graph.input),
        *_wrong_interface("output", spec.outputs, model.graph.output),
        *_wrong_nodes(model.graph),
        *(_wide_products(inferred) if half else ()),
        *_wrong_values(inferred, {**_DTYPES, **_HALF} if half else _DTYPES),
    ]
    if wrong:
        raise EngineBuildError(f"{spec.name}: {'; '.join(wrong)}")


def count_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of one run: convolutions and matrix products, nothing else.

    Args:
        model: A graph that check_rules() accepts.
    """
    shapes = _shapes(shape_inference.infer_shapes(model, data_prop=True))
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            # each output (Conv) or input (ConvTranspose) position of each picture meets every
            # weight once
            weight = shapes[node.input[1]]
            over = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            total += over[0] * _product(over[2:]) * _product(weight)
        elif node.op_type in ("MatMul", "Gemm"):
            left, out = shapes[node.input[0]], shapes[node.output[0]]
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += _product(out) * (left[0] if transposed else left[-1])
    return total


def clean(model: onnx.ModelProto) -> None:
    """Remove what exporters leave behind, in place: source paths, stack traces, inferred shapes.

    They would put the machine they were made on into the shipped file, and newer IR versions with
    them.
    """
    model.ir_version = IR_VERSION
    model.doc_string = ""
    model.producer_name, model.producer_version = "rt_swap", ""
    del model.metadata_props[:]
    del model.functions[:]
    graph = model.graph
    graph.doc_string = ""
    del graph.value_info[:]
    del graph.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*graph.input, *graph.output]:
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def _wrong_opsets(model: onnx.ModelProto) -> list[str]:
    wrong = []
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            wrong.append(f"operators of the domain {opset.domain!r} need a plugin")
        elif not MIN_OPSET <= opset.version <= MAX_OPSET:
            wrong.append(f"opset {opset.version} is outside {MIN_OPSET} to {MAX_OPSET}")
    if model.ir_version > IR_VERSION:
        wrong.append(f"IR version {model.ir_version} is newer than {IR_VERSION}")
    return wrong


def _wrong_interface(
    kind: str, wanted: Iterable[TensorSpec], found: Iterable[onnx.ValueInfoProto]
) -> list[str]:
    have = {v.name: (_dims(v), v.type.tensor_type.elem_type) for v in found}
    wrong = []
    for tensor in wanted:
        if tensor.name not in have:
            wrong.append(f"{kind} {tensor.name} is missing")
            continue
        shape, dtype = have.pop(tensor.name)
        if shape != tensor.shape or dtype != TensorProto.FLOAT:
            found_as = _DTYPES.get(dtype, TensorProto.DataType.Name(dtype))
            wrong.append(
                f"{kind} {tensor.name} is {found_as} {shape}, expected float32 {tensor.shape}"
            )
    return wrong + [f"{kind} {name} is not in the contract" for name in have]


def _wrong_nodes(graph: onnx.GraphProto) -> list[str]:
    wrong = []
    foreign = sorted({n.op_type for n in graph.node if n.op_type not in OPERATORS})
    if foreign:
        wrong.append(f"operators outside the list: {', '.join(foreign)}")
    for node in graph.node:
        if node.op_type != "Resize":
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        mode = attributes.get("mode", b"nearest").decode()
        if mode not in _RESIZE_MODES or attributes.get("antialias", 0):
            wrong.append(f"{node.name or 'Resize'}: mode {mode} or antialiasing is not portable")
    if any(t.data_location == TensorProto.EXTERNAL for t in graph.initializer):
        wrong.append("weights lie outside the file")
    return wrong


def _wide_products(inferred: onnx.ModelProto) -> list[str]:
    """Float32 matrix products, which TensorRT for RTX (1.7) refuses to build for Turing."""
    dtypes = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    dtypes |= {v.name: v.type.tensor_type.elem_type for v in inferred.graph.output}
    return [
        f"{node.name or node.op_type}: a float32 matrix product cannot be built for Turing (sm75)"
        for node in inferred.graph.node
        if node.op_type in ("MatMul", "Gemm") and dtypes.get(node.output[0]) == TensorProto.FLOAT
    ]


def _wrong_values(inferred: onnx.ModelProto, dtypes: Mapping[int, str]) -> list[str]:
    graph = inferred.graph
    wrong = []
    known = {v.name: v for v in [*graph.value_info, *graph.input, *graph.output]}
    for node in graph.node:
        for name in node.output:
            if not name:
                continue
            if name not in known:
                wrong.append(f"the shape of {name} ({node.op_type}) cannot be told")
    for name, value in known.items():
        shape, dtype = _dims(value), value.type.tensor_type.elem_type
        if len(shape) > MAX_RANK:
            wrong.append(f"{name} has rank {len(shape)}, more than {MAX_RANK}")
        if any(not isinstance(d, int) for d in shape):
            wrong.append(f"{name} has no static shape: {shape}")
        if dtype not in dtypes:
            wrong.append(f"{name} is {TensorProto.DataType.Name(dtype)}")
    wrong += [
        f"the weight {t.name} is {TensorProto.DataType.Name(t.data_type)} of rank {len(t.dims)}"
        for t in graph.initializer
        if t.data_type not in dtypes or len(t.dims) > MAX_RANK
    ]
    return wrong


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return ("?",)
    return tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
    )


def _shapes(inferred: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = inferred.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        shapes[value.name] = tuple(int(d) for d in _dims(value))
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    shapes[node.output[0]] = tuple(attribute.t.dims)
    return shapes


def _product(numbers: Iterable[int]) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total
