"""ONNX graphs as others see them: as counts of operations and bytes, and as PyTorch modules.

The shipped files are read as they are, so that a new model is counted and run without anybody
writing it down again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap.errors import ConfigError

_MATRIX: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_VIEWS: Final = frozenset(
    {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Constant", "Shape"}
)
"""Nodes that move nothing."""


@dataclass(frozen=True)
class Cost:
    """What one run of a graph takes.

    Attributes:
        macs: Multiply-adds of convolutions and matrix products.
        other_operations: Arithmetic of everything else, one per element written.
        weight_values: Weights read.
        fused_values: Values read and written between kernels where every element-wise node is fused
            into the matrix node before it, as engines do: least traffic through memory.
        unfused_values: The same where every node is a kernel of its own: most traffic.
        kernels: Matrix, resize and pooling nodes: kernels that remain after such fusion.
        nodes: All nodes that do something.
    """

    macs: int
    other_operations: int
    weight_values: int
    fused_values: int
    unfused_values: int
    kernels: int
    nodes: int


def _load_weights(model: Any) -> None:
    """Fold each Cast of a weight into the weight, as every runtime does when it loads a graph: the
    shipped files store their weights in half precision.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {i.name: i for i in graph.initializer}
    kept = []
    for node in graph.node:
        weight = weights.get(node.input[0]) if node.op_type == "Cast" and node.input else None
        if weight is None:
            kept.append(node)
            continue
        to = next(a.i for a in node.attribute if a.name == "to")
        values = numpy_helper.to_array(weight).astype(helper.tensor_dtype_to_np_dtype(to))
        weight.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)


def cost_of(path: Path) -> Cost:
    """Count a graph.

    Args:
        path: An ONNX file with static shapes.

    Raises:
        ConfigError: If a shape cannot be told.
    """
    import onnx
    from onnx import shape_inference

    model = onnx.load(str(path))
    _load_weights(model)
    model = shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    shapes = {i.name: tuple(i.dims) for i in graph.initializer}
    weights = set(shapes)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value for d in dims)

    def size(name: str) -> int:
        if name not in shapes or not all(d > 0 for d in shapes[name]):
            raise ConfigError(f"{path.name}: the shape of {name!r} cannot be told from the file")
        return prod(shapes[name])

    floats = {i.name for i in graph.initializer if i.data_type in (1, 10)}
    macs = other = fused = unfused = kernels = nodes = 0
    used: set[str] = set()
    for node in graph.node:
        if node.op_type in _VIEWS:
            continue
        nodes += 1
        used |= floats & set(node.input)
        read = sum(size(name) for name in node.input if name and name not in weights)
        written = sum(size(name) for name in node.output if name)
        unfused += read + written
        is_matrix = node.op_type in _MATRIX
        if is_matrix:
            macs += _macs(node, shapes, written)
        else:
            other += written
        if is_matrix or node.op_type in ("Resize", "AveragePool", "MaxPool", "Concat"):
            kernels += 1
            fused += read + written
    return Cost(macs, other, sum(size(n) for n in used), fused, unfused, kernels, nodes)


def _macs(node: Any, shapes: Mapping[str, tuple[int, ...]], written: int) -> int:
    if node.op_type == "Conv":
        # weights are (out, in / groups, kernel...)
        return written * prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return written * shapes[node.input[0]][0 if transposed else 1]
    return written * shapes[node.input[0]][-1]


# --- as PyTorch ----------------------------------------------------------------------------------
def torch_module(path: Path) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """The graph as straight-line PyTorch code with the same weights.

    Args:
        path: An ONNX file of the operators in OPERATORS.

    Returns:
        A ``torch.fx.GraphModule`` in eval mode, the names of its inputs in the order of its
        arguments, and those of its outputs.

    Raises:
        ConfigError: If PyTorch is not installed, or the file holds other operators.
    """
    try:
        import torch
    except ImportError as exc:
        raise ConfigError("PyTorch is not installed: pip install 'rt-swap[train]'") from exc
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    _load_weights(model)
    unknown = sorted({n.op_type for n in model.graph.node} - set(OPERATORS))
    if unknown:
        raise ConfigError(
            f"{path.name}: has operators that benchmarks/graphs.py cannot run in PyTorch:"
            f" {', '.join(unknown)}"
        )
    constants = {i.name: np.array(numpy_helper.to_array(i)) for i in model.graph.initializer}
    root, graph = torch.nn.Module(), torch.fx.Graph()
    values: dict[str, Any] = {}
    inputs = tuple(i.name for i in model.graph.input if i.name not in constants)
    for name in inputs:
        values[name] = graph.placeholder(name)

    def value(name: str) -> Any:
        if name not in values:
            place = f"w{len(values)}"
            root.register_buffer(place, torch.from_numpy(constants[name]))
            values[name] = graph.get_attr(place)
        return values[name]

    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = np.array(numpy_helper.to_array(attributes["value"]))
            continue
        step = _Step(graph, node, attributes, value, constants)
        result = OPERATORS[node.op_type](step)
        several = len(node.output) > 1
        for place, name in enumerate(node.output):
            values[name] = step.call(operator.getitem, result, place) if several else result
    outputs = tuple(o.name for o in model.graph.output)
    graph.output(tuple(value(name) for name in outputs))
    return torch.fx.GraphModule(root, graph).eval(), inputs, outputs


@dataclass
class _Step:
    """One ONNX node on its way into an fx graph."""

    graph: Any
    node: Any
    attributes: dict[str, Any]
    value: Callable[[str], Any]
    constants: dict[str, Any]

    def call(self, function: Any, *arguments: Any, **named: Any) -> Any:
        return self.graph.call_function(function, arguments, named)

    def input(self, place: int) -> Any:
        return self.value(self.node.input[place])

    def has(self, place: int) -> bool:
        return len(self.node.input) > place and bool(self.node.input[place])

    def constant(self, place: int) -> Any:
        name = self.node.input[place]
        if name not in self.constants:
            raise ConfigError(
                f"{self.node.op_type} {self.node.name!r}: input {name!r} is computed, and must be"
                " a constant here"
            )
        return self.constants[name]

    def integers(self, place: int) -> list[int]:
        return [int(v) for v in np.atleast_1d(self.constant(place))]


def _f() -> Any:
    import torch.nn.functional as F

    return F


def _t() -> Any:
    import torch

    return torch


def _conv(s: _Step) -> Any:
    pads = list(s.attributes.get("pads", [0, 0, 0, 0]))
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        raise ConfigError(f"Conv {s.node.name!r}: pads differently on two sides")
    return s.call(
        _f().conv2d,
        s.input(0),
        s.input(1),
        s.input(2) if s.has(2) else None,
        tuple(s.attributes.get("strides", [1, 1])),
        tuple(pads[:half]),
        tuple(s.attributes.get("dilations", [1, 1])),
        s.attributes.get("group", 1),
    )


def _gemm(s: _Step) -> Any:
    if s.attributes.get("transA"):
        raise ConfigError(f"Gemm {s.node.name!r}: a transposed first matrix is not known here")
    weight = s.input(1)
    if not s.attributes.get("transB"):
        weight = s.call(_t().t, weight)
    return s.call(_f().linear, s.input(0), weight, s.input(2) if s.has(2) else None)


def _resize(s: _Step) -> Any:
    mode = bytes(s.attributes.get("mode", b"nearest")).decode()
    where = bytes(s.attributes.get("coordinate_transformation_mode", b"half_pixel")).decode()
    how = {"scale_factor": None, "size": None}
    if s.has(2) and len(s.constant(2)):
        how["scale_factor"] = tuple(float(v) for v in s.constant(2)[2:])
    else:
        how["size"] = tuple(s.integers(3)[2:])
    if (mode, where) == ("nearest", "asymmetric"):
        return s.call(_f().interpolate, s.input(0), mode="nearest", **how)
    if (mode, where) == ("linear", "half_pixel"):
        return s.call(_f().interpolate, s.input(0), mode="bilinear", align_corners=False, **how)
    raise ConfigError(f"Resize {s.node.name!r}: {mode} {where} is not known here")


def _slice(s: _Step) -> Any:
    axes = s.integers(3) if s.has(3) else list(range(len(s.integers(1))))
    steps = s.integers(4) if s.has(4) else [1] * len(axes)
    result = s.input(0)
    for axis, begin, end, step in zip(axes, s.integers(1), s.integers(2), steps, strict=True):
        index = (slice(None),) * axis + (slice(begin, min(end, 2**31 - 1), step),)
        result = s.call(operator.getitem, result, index)
    return result


def _unsqueeze(s: _Step) -> Any:
    result = s.input(0)
    for axis in sorted(s.integers(1)):
        result = s.call(_t().unsqueeze, result, axis)
    return result


def _split(s: _Step) -> Any:
    axis = s.attributes.get("axis", 0)
    if s.has(1):
        return s.call(_t().split, s.input(0), s.integers(1), axis)
    return s.call(_t().chunk, s.input(0), s.attributes["num_outputs"], axis)


def _gather(s: _Step) -> Any:
    axis = s.attributes.get("axis", 0)
    index = s.constants.get(s.node.input[1])
    if index is not None and np.ndim(index) == 0:  # a single index takes the axis away
        return s.call(_t().select, s.input(0), axis, int(index))
    return s.call(_t().index_select, s.input(0), axis, s.input(1))


def _average_pool(s: _Step) -> Any:
    pads = list(s.attributes.get("pads", [0, 0, 0, 0]))
    return s.call(
        _f().avg_pool2d,
        s.input(0),
        tuple(s.attributes["kernel_shape"]),
        tuple(s.attributes.get("strides", [1, 1])),
        tuple(pads[: len(pads) // 2]),
        bool(s.attributes.get("ceil_mode", 0)),
        bool(s.attributes.get("count_include_pad", 0)),
    )


def _max_pool(s: _Step) -> Any:
    pads = list(s.attributes.get("pads", [0, 0, 0, 0]))
    if pads[:2] != pads[2:] or set(s.attributes.get("dilations", [1])) != {1}:
        raise ConfigError(f"MaxPool {s.node.name!r}: only even padding, undilated, is known here")
    return s.call(
        _f().max_pool2d,
        s.input(0),
        tuple(s.attributes["kernel_shape"]),
        tuple(s.attributes.get("strides", [1, 1])),
        tuple(pads[:2]),
        ceil_mode=bool(s.attributes.get("ceil_mode", 0)),
    )


def _max(s: _Step) -> Any:
    if len(s.node.input) != 2:
        raise ConfigError(f"Max {s.node.name!r}: only of two is known here")
    return s.call(_t().maximum, s.input(0), s.input(1))


def _clip(s: _Step) -> Any:
    low = float(s.constant(1)) if s.has(1) else None
    high = float(s.constant(2)) if s.has(2) else None
    return s.call(_t().clamp, s.input(0), low, high)


def _pad(s: _Step) -> Any:
    if bytes(s.attributes.get("mode", b"constant")) != b"constant" or s.has(3):
        raise ConfigError(f"Pad {s.node.name!r}: only a constant around all axes is known here")
    pads = s.integers(1)
    rank = len(pads) // 2
    # PyTorch begins with the last axis, and has its two sides beside each other
    sides = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
    outside = float(np.asarray(s.constant(2)).item()) if s.has(2) else 0.0
    return s.call(_f().pad, s.input(0), sides, "constant", outside)


def _reduced(name: str) -> Callable[[_Step], Any]:
    def reduce(s: _Step) -> Any:
        axes = s.integers(1) if s.has(1) else list(s.attributes["axes"])
        function = getattr(_t(), name)
        return s.call(function, s.input(0), axes, bool(s.attributes.get("keepdims", 1)))

    return reduce


def _depth_to_space(s: _Step) -> Any:
    if bytes(s.attributes.get("mode", b"DCR")) != b"CRD":
        raise ConfigError(f"DepthToSpace {s.node.name!r}: only the order CRD is known here")
    return s.call(_f().pixel_shuffle, s.input(0), s.attributes["blocksize"])


def _grid_sample(s: _Step) -> Any:
    mode = bytes(s.attributes.get("mode", b"linear")).decode()
    padding = bytes(s.attributes.get("padding_mode", b"zeros")).decode()
    if mode not in ("linear", "bilinear"):  # opset 20 and before
        raise ConfigError(f"GridSample {s.node.name!r}: {mode} is not known here")
    aligned = bool(s.attributes.get("align_corners", 0))
    return s.call(_f().grid_sample, s.input(0), s.input(1), "bilinear", padding, aligned)


def _binary(function: Any) -> Callable[[_Step], Any]:
    return lambda s: s.call(function, s.input(0), s.input(1))


def _unary(name: str) -> Callable[[_Step], Any]:
    return lambda s: s.call(getattr(_t(), name), s.input(0))


OPERATORS: Final[dict[str, Callable[[_Step], Any]]] = {
    "Abs": _unary("abs"),
    "Add": _binary(operator.add),
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": lambda s: s.call(
        _t().cat, [s.value(name) for name in s.node.input], s.attributes["axis"]
    ),
    "Constant": lambda s: None,
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Div": _binary(operator.truediv),
    "Exp": _unary("exp"),
    "Expand": lambda s: s.call(_t().broadcast_to, s.input(0), tuple(s.integers(1))),
    "Flatten": lambda s: s.call(_t().flatten, s.input(0), s.attributes.get("axis", 1)),
    "Gather": _gather,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "LeakyRelu": lambda s: s.call(
        _f().leaky_relu, s.input(0), float(s.attributes.get("alpha", 0.01))
    ),
    "Log": _unary("log"),
    "MatMul": _binary(operator.matmul),
    "Max": _max,
    "MaxPool": _max_pool,
    "Mul": _binary(operator.mul),
    "Neg": _unary("neg"),
    "Reciprocal": _unary("reciprocal"),
    "ReduceMean": _reduced("mean"),
    "ReduceSum": _reduced("sum"),
    "Pad": _pad,
    "Pow": _binary(operator.pow),
    "Relu": _unary("relu"),
    "Reshape": lambda s: s.call(_t().reshape, s.input(0), tuple(s.integers(1))),
    "Resize": _resize,
    "Sigmoid": _unary("sigmoid"),
    "Slice": _slice,
    "Softmax": lambda s: s.call(_t().softmax, s.input(0), s.attributes.get("axis", -1)),
    "Split": _split,
    "Sqrt": _unary("sqrt"),
    "Sub": _binary(operator.sub),
    "Tanh": _unary("tanh"),
    "Transpose": lambda s: s.call(_t().permute, s.input(0), tuple(s.attributes["perm"])),
    "Unsqueeze": _unsqueeze,
}
"""ONNX operators that can be run in PyTorch, and how."""
