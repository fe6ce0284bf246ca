"""fp32 ONNX -> strongly typed mixed precision: what can be half precision is, what must not is not.

TensorRT 11 has no FP16 builder flag any more, so the precision lives in the file: every value has
one type, casts stand where it changes, and inputs and outputs stay float32 as the contract says.

Which nodes stay float32 is decided in this order:

1. by operator (:data:`FP32_OPERATORS`): sums over many numbers, exponentials, divisions;
2. by name (:data:`FP32_NAMES`): convolutions that read a weight of such a name;
3. convolutions and matrix products that are left are half. Matrix products always are, those with
   an attention's weights and the grid's coordinates included: TensorRT for RTX has no float32 one
   for Turing, and measured, half costs nothing there (a float32 softmax makes the weights);
4. so does the tail: what turns the last convolutions' answers into flow, keep, fill and shade,
   whose dead zones and ends must be met exactly, and whose values are pixels;
5. everything else follows what it reads: half where it reads a half value, and float32 where it
   has nothing half before it.

``python -m engines.precision`` measures on real crops what each group of weights costs in half
precision; the reasons below are from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from rt_swap.errors import EngineBuildError

FP32_OPERATORS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("Softmax", "Exp", "Log", "Sigmoid", "Tanh", "Erf", "Softplus", "HardSigmoid"),
        "saturates or grows: near its ends half precision has a few steps left",
    ),
    "GridSample": "its places are fractions of a pixel: near the far edge half has a tenth of one",
    **dict.fromkeys(
        ("Div", "Reciprocal", "Sqrt", "Pow"), "overflows or vanishes where its input is extreme"
    ),
    **dict.fromkeys(
        (
            "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "GlobalAveragePool",
            "LayerNormalization", "BatchNormalization",
        ),
        "a statistic over hundreds of numbers: a half-precision sum loses its last digits",
    ),
}  # fmt: skip
"""Operators that stay float32 wherever they stand, with the reason."""

FP32_NAMES: Final[Mapping[str, str]] = {
    "*.down128.*": "the first convolution sees the picture itself: measured, half of a "
    "half-precision network's error in flow and tokens is made here, with 1 % of the arithmetic",
}
"""Patterns of names of convolutions' weights; the convolutions stay float32."""

HEAVY: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
MAX_HALF: Final = 65504.0
"""Largest number of half precision."""
MIN_HALF: Final = 2.0**-24
"""Smallest positive number of half precision; what is smaller becomes 0."""

_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Rules:
    """What stays float32.

    Attributes:
        operators: Operator -> reason.
        names: Pattern (shell-style) of a weight's or graph input's name -> reason.
        tail: Whether what follows the last matrix product on the way to the outputs stays too.
    """

    operators: Mapping[str, str]
    names: Mapping[str, str]
    tail: bool = True

    def reason_by_name(self, name: str) -> str | None:
        """Why nodes that read this stay float32; None where nothing says so."""
        return next((why for glob, why in self.names.items() if fnmatchcase(name, glob)), None)


DEFAULT_RULES: Final = Rules(FP32_OPERATORS, FP32_NAMES)


def half_nodes(
    model: onnx.ModelProto, rules: Rules = DEFAULT_RULES, heavy: Set[str] | None = None
) -> set[str]:
    """Which nodes are half precision by the rules.

    Args:
        model: A float32 graph whose nodes have names; topologically sorted, as ONNX demands.
        rules: What stays float32.
        heavy: Names of the convolutions and matrix products that may be half; None: all.

    Returns:
        Names of nodes.

    Raises:
        EngineBuildError: If a node has no name of its own.
    """
    graph = model.graph
    names = [node.name for node in graph.node]
    if len(set(names)) != len(names) or "" in names:
        raise EngineBuildError(f"{graph.name}: every node must have a name of its own")
    fixed = {t.name for t in graph.initializer} | {v.name for v in graph.input}
    outputs = {v.name for v in graph.output}
    tail = _tail(graph) if rules.tail else set()
    half_values: set[str] = set()
    half: set[str] = set()
    for node in graph.node:
        if not _can_be_half(node, model):
            continue
        kept = node.op_type in rules.operators or any(
            name in fixed and rules.reason_by_name(name) for name in node.input
        )
        kept = kept or (node.op_type in HEAVY and heavy is not None and node.name not in heavy)
        if kept or node.name in tail or outputs & set(node.output):
            continue
        if node.op_type in HEAVY or half_values & set(node.input):
            half.add(node.name)
            half_values |= set(node.output)
    return half


def to_mixed(model: onnx.ModelProto, rules: Rules = DEFAULT_RULES) -> onnx.ModelProto:
    """The same graph with half precision inside.

    Args:
        model: A float32 graph that engines.onnx_rules accepts; not changed.
        rules: What stays float32.

    Returns:
        A new graph: same inputs and outputs, casts at every change of type, weights of half nodes
        stored in half precision.

    Raises:
        EngineBuildError: If a weight does not fit half precision, or nothing would be half.
    """
    half = half_nodes(model, rules)
    if not half:
        raise EngineBuildError(f"{model.graph.name}: nothing in it would be half precision")
    return cast_nodes(model, half)


def cast_nodes(model: onnx.ModelProto, half: set[str]) -> onnx.ModelProto:
    """The graph with these nodes in half precision.

    Args:
        model: A float32 graph; not changed.
        half: Names of nodes.

    Raises:
        EngineBuildError: If a weight of such a node is too large for half precision.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    weights = {t.name: t for t in model.graph.initializer}
    dtypes = _value_dtypes(model)
    produced_half = {
        output for node in graph.node if node.name in half for output in node.output if output
    }
    nodes: list[onnx.NodeProto] = []
    casts: dict[tuple[str, int], str] = {}  # (value, type) -> the value in that type
    new_weights: dict[str, onnx.TensorProto] = {}

    def typed(name: str, to: int) -> str:
        """The name under which a float value can be had in a type; adds a cast where needed."""
        if not name or dtypes.get(name) != TensorProto.FLOAT:
            return name
        is_half = name in produced_half
        if is_half == (to == TensorProto.FLOAT16):
            return name
        key = (name, to)
        if key in casts:
            return casts[key]
        suffix = "_fp16" if to == TensorProto.FLOAT16 else "_fp32"
        if name in weights:
            casts[key] = name + suffix
            new_weights[name + suffix] = _half_weight(weights[name], name + suffix)
            return casts[key]
        casts[key] = name + suffix
        nodes.append(
            helper.make_node("Cast", [name], [name + suffix], name=f"cast_{name}{suffix}", to=to)
        )
        return casts[key]

    for node in graph.node:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        wanted = TensorProto.FLOAT16 if node.name in half else TensorProto.FLOAT
        data = _data_inputs(node, model)
        for i, name in enumerate(node.input):
            # a scale or a region of interest stays float32 whatever the data is
            to = wanted if i in data else TensorProto.FLOAT
            changed.input[i] = typed(name, to)
        nodes.append(changed)
    for value in graph.output:
        if value.name in produced_half:
            raise EngineBuildError(f"{graph.name}: the output {value.name} would be half precision")
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *new_weights.values()])
    del graph.value_info[:]
    return made


def rounded_in_float32(mixed: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that computes what the mixed one means, every half value rounded.

    ONNX Runtime's CPU has no half-precision convolution: it widens the operands, and keeps the wide
    answers where it can, so running a mixed file there flatters it. This graph rounds every value
    that the mixed one holds in half precision, and sums in float32 as tensor cores do.

    Args:
        mixed: From :func:`to_mixed`; not changed.
    """
    dtypes = _value_dtypes(mixed)
    made = onnx.ModelProto()
    made.CopyFrom(mixed)
    graph = made.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in mixed.graph.node:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        if node.op_type == "Cast" and dtypes.get(node.input[0]) in _FLOATS:
            changed = helper.make_node("Identity", node.input, node.output, name=node.name)
        nodes.append(changed)
        for i, name in enumerate(node.output):
            if dtypes.get(name) != TensorProto.FLOAT16:
                continue
            changed.output[i] = f"{name}__exact"
            nodes += [
                helper.make_node(
                    "Cast", [f"{name}__exact"], [f"{name}__half"], f"round_{name}",
                    to=TensorProto.FLOAT16,
                ),
                helper.make_node(
                    "Cast", [f"{name}__half"], [name], f"widen_{name}", to=TensorProto.FLOAT
                ),
            ]  # fmt: skip
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return made


def _tail(graph: onnx.GraphProto) -> set[str]:
    """Nodes whose answers reach outputs only, and without passing a matrix product."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    tail: set[str] = set()
    for node in reversed(graph.node):  # users come first
        if node.op_type not in HEAVY and all(
            user.name in tail for name in node.output for user in users.get(name, [])
        ):
            tail.add(node.name)
    return tail


def _half_weight(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > MAX_HALF:
        raise EngineBuildError(
            f"the weight {tensor.name} reaches {largest:g}, half precision ends at {MAX_HALF:g}; "
            "name it in engines.mixed.FP32_NAMES"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _value_dtypes(model: onnx.ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    dtypes = {t.name: int(t.data_type) for t in inferred.initializer}
    for value in [*inferred.value_info, *inferred.input, *inferred.output]:
        dtypes[value.name] = value.type.tensor_type.elem_type
    return dtypes


def _opset(model: onnx.ModelProto) -> int:
    return next(int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx"))


def _data_inputs(node: onnx.NodeProto, model: onnx.ModelProto) -> set[int]:
    """Which inputs have the type of the (first) output, by the operator's own signature."""
    schema = defs.get_schema(node.op_type, _opset(model))
    kind = schema.outputs[0].type_str
    count = len(schema.inputs)
    return {
        i
        for i in range(len(node.input))
        if count and schema.inputs[min(i, count - 1)].type_str == kind
    }


def _can_be_half(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether the operator's signature allows half precision and its answer is a float of its
    input's kind (a comparison's is not, a cast's is what it says).
    """
    if node.op_type in ("Cast", "Constant", "ConstantOfShape", "Shape"):
        return False
    schema = defs.get_schema(node.op_type, _opset(model))
    kind = schema.outputs[0].type_str
    allowed = next((c for c in schema.type_constraints if c.type_param_str == kind), None)
    return allowed is not None and "tensor(float16)" in allowed.allowed_type_strs
