"""A tiny but real model bundle, built in an instant, so that no test needs trained weights.

The graphs have the contract's names and shapes and behave like the real ones in what tests look at:

* the same crop gives the same tokens from both graphs; other crops give other tokens; intensities
  lie in (0, 1);
* ``mixed = own + gains * (source - base)`` with both values of ``relative``;
* flow, keep and shade depend on ``mixed - own`` only: gains of 0, or the target's own tokens as the
  source, answer flow 0, keep 1 and shade 1 exactly, so a composition gives its input back bit for
  bit;
* anything else moves pixels (a few px, smoothly), lowers keep around the mouth and changes shade.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rt_swap.aus import NUM_AUS
from rt_swap.contract import (
    CONTRACT_VERSION,
    CROP_SIZE_PX,
    ENCODER_SPEC,
    GENERATOR_SPEC,
    TOKEN_DIM,
    GraphSpec,
    TensorSpec,
)

OPSET = 17
MAX_FLOW_PX = 6.0
_GRID = 8  # side of the coarse maps that are enlarged to the crop
_WIDTH = 8  # channels of the stem


class _Graph:
    """Nodes and weights of one graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, array: np.ndarray) -> str:
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def op(self, kind: str, *inputs: str, out: str, **attributes: object) -> str:
        self.nodes.append(
            helper.make_node(kind, list(inputs), [out], name=f"{out}_{kind}", **attributes)
        )
        return out

    def model(self, spec: GraphSpec) -> onnx.ModelProto:
        def info(tensor: TensorSpec) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.shape)

        graph = helper.make_graph(
            self.nodes,
            spec.name,
            [info(t) for t in spec.inputs],
            [info(t) for t in spec.outputs],
            list(self.weights.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _shared_weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens, side = NUM_AUS * TOKEN_DIM, 4
    coarse = 4 * _GRID * _GRID

    def normal(*shape: int, scale: float) -> np.ndarray:
        return rng.normal(scale=scale, size=shape).astype(np.float32)

    return {
        "stem_w": normal(_WIDTH, 3, 8, 8, scale=0.3),
        "stem_b": normal(_WIDTH, scale=0.1),
        "tokens_w": normal(_WIDTH * side * side, tokens, scale=0.1),
        "tokens_b": normal(tokens, scale=0.3),
        "aus_w": normal(TOKEN_DIM, 2, scale=0.5),
        "maps_w": normal(tokens, coarse, scale=0.04),
    }


def _add_encoder(graph: _Graph, rgb: str, weights: dict[str, np.ndarray]) -> tuple[str, str]:
    """Crop -> "tokens" (1, K, D) and "aus_lr" (1, K, 2)."""
    for name in ("stem_w", "stem_b", "tokens_w", "tokens_b", "aus_w"):
        graph.weight(name, weights[name])
    graph.op("Conv", rgb, "stem_w", "stem_b", out="stem", kernel_shape=[8, 8], strides=[8, 8])
    graph.op("Relu", "stem", out="stem_relu")
    graph.op("AveragePool", "stem_relu", out="pooled", kernel_shape=[8, 8], strides=[8, 8])
    graph.op("Flatten", "pooled", out="flat", axis=1)
    graph.op("Gemm", "flat", "tokens_w", "tokens_b", out="tokens_flat")
    shape = graph.weight("tokens_shape", np.array([1, NUM_AUS, TOKEN_DIM], np.int64))
    graph.op("Reshape", "tokens_flat", shape, out="tokens")
    graph.op("MatMul", "tokens", "aus_w", out="aus_logits")
    graph.op("Sigmoid", "aus_logits", out="aus_lr")
    return "tokens", "aus_lr"


def encoder_model(seed: int = 0) -> onnx.ModelProto:
    """The expression encoder."""
    graph = _Graph()
    _add_encoder(graph, "source_rgb", _shared_weights(seed))
    return graph.model(ENCODER_SPEC)


def generator_model(seed: int = 0) -> onnx.ModelProto:
    """The target generator."""
    weights = _shared_weights(seed)
    graph = _Graph()
    _add_encoder(graph, "target_rgb", weights)

    # mixed - own = gains * (source - base), base = relative * base_tokens + (1 - relative) * own
    one = graph.weight("one", np.ones(1, np.float32))
    rel_shape = graph.weight("relative_shape", np.array([1, 1, 1], np.int64))
    graph.op("Reshape", "relative", rel_shape, out="relative_111")
    graph.op("Sub", one, "relative_111", out="absolute_111")
    graph.op("Mul", "base_tokens", "relative_111", out="base_part")
    graph.op("Mul", "tokens", "absolute_111", out="own_part")
    graph.op("Add", "base_part", "own_part", out="base")
    graph.op("Sub", "source_tokens", "base", out="source_minus_base")
    gains_shape = graph.weight("gains_shape", np.array([1, NUM_AUS, 1], np.int64))
    graph.op("Reshape", "gains", gains_shape, out="gains_1k1")
    graph.op("Mul", "source_minus_base", "gains_1k1", out="delta")

    # four coarse maps: flow x, flow y, a keep map and a shade map, all exactly 0 where delta is 0
    graph.op("Flatten", "delta", out="delta_flat", axis=1)
    graph.weight("maps_w", weights["maps_w"])
    graph.op("MatMul", "delta_flat", "maps_w", out="maps_flat")
    graph.op("Tanh", "maps_flat", out="maps_tanh")
    maps_shape = graph.weight("maps_shape", np.array([1, 4, _GRID, _GRID], np.int64))
    graph.op("Reshape", "maps_tanh", maps_shape, out="maps_coarse")
    scale = CROP_SIZE_PX / _GRID
    scales = graph.weight("scales", np.array([1, 1, scale, scale], np.float32))
    graph.op(
        "Resize",
        "maps_coarse",
        "",
        scales,
        out="maps",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    splits = graph.weight("splits", np.array([2, 1, 1], np.int64))
    graph.nodes.append(
        helper.make_node(
            "Split",
            ["maps", splits],
            ["flow_unit", "keep_unit", "shade_unit"],
            name="split",
            axis=1,
        )
    )
    graph.op(
        "Mul",
        "flow_unit",
        graph.weight("max_flow", np.full(1, MAX_FLOW_PX, np.float32)),
        out="flow_xy",
    )

    # keep falls only around the mouth, so the rest of the face stays fetched
    y, x = (np.mgrid[0:CROP_SIZE_PX, 0:CROP_SIZE_PX] + 0.5) / CROP_SIZE_PX
    mouth = np.exp(-(((x - 0.5) / 0.15) ** 2) - ((y - 0.68) / 0.1) ** 2).astype(np.float32)
    graph.op("Abs", "keep_unit", out="keep_abs")
    graph.op("Mul", "keep_abs", graph.weight("mouth", mouth[None, None]), out="keep_loss")
    graph.op("Sub", one, "keep_loss", out="keep")
    graph.op(
        "Mul",
        "shade_unit",
        graph.weight("shade_depth", np.full(1, 0.1, np.float32)),
        out="shade_offset",
    )
    graph.op("Add", one, "shade_offset", out="shade")

    # fill: the target, blurred
    graph.op(
        "AveragePool",
        "target_rgb",
        out="blurred",
        kernel_shape=[15, 15],
        strides=[1, 1],
        pads=[7, 7, 7, 7],
    )
    graph.op(
        "Mul", "blurred", graph.weight("fill_tint", np.full(1, 0.8, np.float32)), out="fill_rgb"
    )
    return graph.model(GENERATOR_SPEC)


def write_manifest(bundle: Path, name: str = "tiny") -> None:
    """(Re)write manifest.json with the hashes of the files that are there."""
    files = {}
    for path in sorted([*bundle.glob("*.onnx"), *bundle.glob("presets/*.safetensors")]):
        blob = path.read_bytes()
        key = path.relative_to(bundle).as_posix()
        files[key] = {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
    manifest = {
        "contract_version": CONTRACT_VERSION,
        "name": name,
        "files": files,
        "config": {"size": "tiny"},
        "data": {},
        "steps": 0,
        "validation": {},
        "licence": "Apache-2.0",
        "created": "2000-01-01T00:00:00Z",
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def tiny_bundle(path: Path, seed: int = 0) -> Path:
    """Build a model bundle: both graphs, nine presets and the manifest.

    Args:
        path: Folder to make the bundle in (usually tmp_path); made if missing.
        seed: Another seed gives other weights, hence another model hash.

    Returns:
        The bundle's folder, ``path``.
    """
    from rt_swap.expression.files import save_expression
    from rt_swap.frames import Expression

    path.mkdir(parents=True, exist_ok=True)
    onnx.save(encoder_model(seed), str(path / f"{ENCODER_SPEC.name}.onnx"))
    onnx.save(generator_model(seed), str(path / f"{GENERATOR_SPEC.name}.onnx"))
    sha256 = hashlib.sha256((path / f"{ENCODER_SPEC.name}.onnx").read_bytes()).hexdigest()
    rng = np.random.default_rng(seed + 1)
    presets = (
        "neutral",
        "smile",
        "laugh",
        "surprise",
        "anger",
        "sadness",
        "disgust",
        "fear",
        "wink",
    )
    for name in presets:
        expression = Expression(
            tokens=rng.normal(size=(1, NUM_AUS, TOKEN_DIM)).astype(np.float32),
            aus_lr=rng.uniform(size=(1, NUM_AUS, 2)).astype(np.float32),
            times_s=np.zeros(1),
            duration_s=0.0,
            name=name,
            model_sha256=sha256,
        )
        save_expression(expression, path / "presets" / f"{name}.safetensors")
    write_manifest(path)
    return path
