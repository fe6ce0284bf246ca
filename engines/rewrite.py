"""Rewrites of exported graphs that change their form, not their answers."""

from __future__ import annotations

import fnmatch
from collections import defaultdict

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rt_swap.errors import EngineBuildError


def fold_pixel_unshuffle(model: onnx.ModelProto) -> int:
    """Turn "fold r x r pixels into channels, then a 1x1 convolution" into one strided convolution.

    PyTorch's exporter writes ``pixel_unshuffle(x, r)`` as Reshape to rank 6, Transpose and Reshape.
    A 1x1 convolution with weights (O, C r r, 1, 1) of that is the convolution of x with the weights
    seen as (O, C, r, r), kernel r and stride r: the channel order of pixel_unshuffle,
    c r r + i r + j, is just how such weights lie in memory. One pass over memory instead of three,
    and no rank above 4.

    Args:
        model: Changed in place.

    Returns:
        How many places were rewritten.
    """
    graph = model.graph
    weights = {t.name: t for t in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    kept = {v.name for v in graph.output}
    done = 0
    for first in [n for n in graph.node if n.op_type == "Reshape"]:
        chain = _chain(first, ("Reshape", "Transpose", "Reshape", "Conv"), users, kept)
        if chain is None:
            continue
        _, transpose, second, conv = chain
        inner, outer = _values(weights, first.input[1]), _values(weights, second.input[1])
        weight = weights.get(conv.input[1])
        if inner is None or outer is None or weight is None or len(inner) != 6:
            continue
        _, channels, height, r, width, r2 = inner
        perm = next((list(a.ints) for a in transpose.attribute if a.name == "perm"), None)
        matches = (
            r == r2
            and perm == [0, 1, 3, 5, 2, 4]
            and outer[1:] == [channels * r * r, height, width]
            and outer[0] in (-1, inner[0])
            and list(weight.dims[1:]) == [channels * r * r, 1, 1]
            and all(_is_plain(a) for a in conv.attribute)
            and len(users[conv.input[1]]) == 1
        )
        if not matches:
            continue
        folded = numpy_helper.to_array(weight).reshape(weight.dims[0], channels, r, r)
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(folded), weight.name))
        replacement = helper.make_node(
            "Conv",
            [first.input[0], *conv.input[1:]],
            list(conv.output),
            name=conv.name,
            kernel_shape=[r, r],
            strides=[r, r],
        )
        conv.CopyFrom(replacement)
        for node in (first, transpose, second):
            graph.node.remove(node)
        done += 1
    if done:
        _remove_unused_weights(graph)
    return done


def _chain(
    first: onnx.NodeProto,
    kinds: tuple[str, ...],
    users: dict[str, list[onnx.NodeProto]],
    kept: set[str],
) -> list[onnx.NodeProto] | None:
    """Nodes of these kinds, each the only user of the one before through its first input."""
    chain = [first]
    for kind in kinds[1:]:
        name = chain[-1].output[0]
        following = users[name]
        if len(following) != 1 or following[0].op_type != kind or name in kept:
            return None
        if following[0].input[0] != name:
            return None
        chain.append(following[0])
    return chain


def _values(weights: dict[str, onnx.TensorProto], name: str) -> list[int] | None:
    tensor = weights.get(name)
    return None if tensor is None else [int(v) for v in numpy_helper.to_array(tensor)]


def _is_plain(attribute: onnx.AttributeProto) -> bool:
    """Whether a 1x1 convolution's attribute says nothing beyond "every position, all channels"."""
    value = helper.get_attribute_value(attribute)
    plain = {
        "kernel_shape": [1, 1],
        "strides": [1, 1],
        "dilations": [1, 1],
        "pads": [0, 0, 0, 0],
        "group": 1,
        "auto_pad": b"NOTSET",
    }
    return attribute.name in plain and (
        list(value) == plain[attribute.name]
        if isinstance(plain[attribute.name], list)
        else value == plain[attribute.name]
    )


def _remove_unused_weights(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


SMALLEST_STORED_HALF = 1024
"""Weights of fewer numbers stay as they are: there is nothing to gain."""
STORED_SINGLE = {
    "*tokens.weight2*": "the last layer before the tokens",
    "*tokens.attention*": "where the tokens look; the centres of that are read as numbers",
    "*tokens.place*": "the same",
}
"""Names of weights that stay as they are, with the reason: motion is drawn from the tokens as they
say, and these three alone took the flow of exaggerated gains from 0.006 to 0.016 px off.
"""
_STORED = ".stored_half"


def store_half(model: onnx.ModelProto) -> int:
    """Keep large float32 weights as float16 in the file, with a Cast to float32 behind each.

    The arithmetic stays float32: every runtime folds a Cast of a constant when it loads the graph.
    Only the weights are rounded, once, to 11 bits, but for STORED_SINGLE; the file shrinks to half.

    Args:
        model: Changed in place.

    Returns:
        How many weights are stored so.

    Raises:
        EngineBuildError: If a weight does not fit into float16.
    """
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < SMALLEST_STORED_HALF:
            continue
        if any(fnmatch.fnmatchcase(weight.name, name) for name in STORED_SINGLE):
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise EngineBuildError(
                f"{graph.name}: weight {weight.name} reaches {np.abs(values).max():g}, "
                "which half precision cannot hold; train with more weight decay"
            )
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + _STORED))
        casts.append(
            helper.make_node(
                "Cast", [name + _STORED], [name], name=f"{name}.load", to=TensorProto.FLOAT
            )
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)


def load_stored(model: onnx.ModelProto) -> int:
    """Undo :func:`store_half`: float32 weights again (of the rounded values), no Cast.

    Args:
        model: Changed in place; one without such weights stays as it is.

    Returns:
        How many weights were loaded.
    """
    graph = model.graph
    stored = {t.name: t for t in graph.initializer if t.name.endswith(_STORED)}
    kept = []
    for node in graph.node:
        weight = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if weight is None:
            kept.append(node)
            continue
        values = numpy_helper.to_array(weight).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    done = len(graph.node) - len(kept)
    del graph.node[:]
    graph.node.extend(kept)
    return done
