"""Mixed precision: what the rules keep, casts where types change, and every half value rounded."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engines import export, mixed, verify
from engines.mixed import Rules
from engines.onnx_rules import check_rules
from engines.onnx_runner import OnnxRunner
from engines.torch_graphs import TorchGraph
from rt_swap.contract import GENERATOR_SPEC, GRAPHS, GraphSpec, TensorSpec
from rt_swap.errors import EngineBuildError, ModelFileError
from rt_swap.model import load_bundle
from tests.support.tiny_model import tiny_bundle
from training.config import get_config
from training.networks import build
from training.networks.export_graphs import GeneratorGraph

SPEC = GraphSpec("g", (TensorSpec("x", (1, 4, 8, 8)),), (TensorSpec("y", (1, 4, 16, 16)),))


def graph(first: np.ndarray | None = None) -> onnx.ModelProto:
    """conv -> relu -> softmax -> add(shared constant) -> conv -> resize -> add(shared constant)."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 4, 1, 1)).astype(np.float32) if first is None else first
    weights = {
        "net.first.weight": kernel,
        "net.second.weight": rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
        "shared": np.array([0.1], np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "net.first.weight"], ["a"], "first", kernel_shape=[1, 1]),
        node("Relu", ["a"], ["b"], "relu"),
        node("Softmax", ["b"], ["c"], "softmax", axis=1),
        node("Add", ["c", "shared"], ["d"], "plus"),
        node("Conv", ["d", "net.second.weight"], ["e"], "second", kernel_shape=[1, 1]),
        node("Add", ["e", "shared"], ["f"], "half_plus"),
        node("Conv", ["f", "net.second.weight"], ["g"], "third", kernel_shape=[1, 1]),
        node("Resize", ["g", "", "scales"], ["h"], "resize", mode="nearest"),
        node("Add", ["h", "shared"], ["y"], "tail"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SPEC.inputs[0].shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, SPEC.outputs[0].shape)],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_rules_decide_by_operator_by_name_and_by_place() -> None:
    model = graph()
    assert mixed.half_nodes(model, Rules({}, {}, tail=False)) == {
        "first", "relu", "softmax", "plus", "second", "half_plus", "third", "resize",
    }  # fmt: skip  # "tail" answers an output
    by_operator = Rules({"Softmax": "why"}, {}, tail=False)
    # what follows a float32 value and reads nothing half is float32 too
    assert mixed.half_nodes(model, by_operator) == {
        "first", "relu", "second", "half_plus", "third", "resize",
    }  # fmt: skip
    by_name = Rules({}, {"net.first.*": "why"}, tail=True)
    assert mixed.half_nodes(model, by_name) == {"second", "half_plus", "third"}
    assert mixed.half_nodes(model, Rules({}, {}, tail=False), {"third"}) == {"third", "resize"}


def test_teeth_are_put_in_single_precision() -> None:
    """Half of a pixel's place is a thirtieth of a pixel off at the edge of a mouth, which a sharp
    edge of teeth shows.
    """
    torch.manual_seed(0)
    net = build(replace(get_config("smoke").network, mouth_hidden=8, mesh_features=4)).eval()
    torch.nn.init.normal_(net.generator.mouth.say.weight, std=0.1)
    torch.nn.init.normal_(net.generator.mouth.by_unit)
    torch.nn.init.normal_(net.generator.mouth.layers)
    model = export.export_onnx(TorchGraph(GeneratorGraph(net), GENERATOR_SPEC))
    half = mixed.half_nodes(model)
    assert half
    maker = {name: node for node in model.graph.node for name in node.output}
    samplers = [
        node
        for node in model.graph.node
        if node.op_type == "GridSample" and node.input[0] == "generator.mouth.layers"
    ]
    assert len(samplers) == 1  # of both layers; skin around eyes is sampled for its mean alone
    behind, seen = [node.input[1] for node in samplers], set()
    while behind:
        node = maker.get(behind.pop())
        # what the small network says, and what the intensities ask for, come from half numbers
        if node is None or node.op_type in ("Tanh", "ReduceSum") or node.name in seen:
            continue
        seen.add(node.name)
        assert node.name not in half, f"{node.op_type} {node.name} is half precision"
        behind += list(node.input)
    assert len(seen) > 20


def test_a_mixed_graph_is_valid_typed_and_float32_outside() -> None:
    made = mixed.to_mixed(graph())
    check_rules(made, SPEC, half=True)
    with pytest.raises(EngineBuildError, match="FLOAT16"):
        check_rules(made, SPEC)
    stored = {t.name: t.data_type for t in made.graph.initializer}
    assert stored["net.first.weight_fp16"] == TensorProto.FLOAT16
    # a constant that both kinds of nodes read is stored in both types, a scale in its own
    assert stored["shared"] == TensorProto.FLOAT
    assert stored["shared_fp16"] == TensorProto.FLOAT16
    assert stored["scales"] == TensorProto.FLOAT
    assert "net.first.weight" not in stored
    assert any(t.data_type == TensorProto.FLOAT16 for t in made.graph.initializer)
    assert all(t.data_type == TensorProto.FLOAT for t in graph().graph.initializer)
    x = np.random.default_rng(1).normal(size=SPEC.inputs[0].shape).astype(np.float32)
    wide, half = (OnnxRunner(m).run({"x": x})["y"] for m in (graph(), made))
    assert 0 < np.abs(wide - half).max() < 1e-2


def test_every_half_value_is_rounded() -> None:
    # 1 + 2^-12 is no half-precision number: x times 1 rounds to 1 there, and stays as float32
    model = graph(np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1))
    rounded = mixed.rounded_in_float32(mixed.cast_nodes(model, {"first", "relu"}))
    assert all(t.data_type != TensorProto.FLOAT16 for t in rounded.graph.initializer)
    x = np.full(SPEC.inputs[0].shape, 1 + 2.0**-12, np.float32)
    x[0, 0] = 2048 + 1.5  # 2050 in half precision
    runner = OnnxRunner(rounded, ["b"])
    b = runner.run({"x": x})["b"]
    np.testing.assert_array_equal(b, x.astype(np.float16).astype(np.float32))
    assert not np.array_equal(b, x)


def test_a_weight_that_does_not_fit_is_refused() -> None:
    with pytest.raises(EngineBuildError, match=r"net\.first\.weight reaches 70000, .* 65504"):
        mixed.to_mixed(graph(np.full((4, 4, 1, 1), 70000, np.float32)))


def test_a_graph_with_nothing_to_gain_is_refused() -> None:
    model = graph()
    with pytest.raises(EngineBuildError, match="nothing in it would be half"):
        mixed.to_mixed(model, Rules({}, {"*": "why"}))
    model.graph.node[0].name = ""
    with pytest.raises(EngineBuildError, match="must have a name"):
        mixed.half_nodes(model)


def test_a_float32_matrix_product_is_refused_in_a_mixed_file() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    spec = GraphSpec("g", SPEC.inputs, (TensorSpec("y", (1, 4, 8, 8)),))
    made = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 8, 8))],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    check_rules(model, spec)
    with pytest.raises(EngineBuildError, match=r"cannot be built for Turing \(sm75\)"):
        check_rules(model, spec, half=True)


# --- bundles ---
def test_the_command_adds_the_files_to_a_bundle(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    before = load_bundle(bundle)
    with pytest.raises(ModelFileError, match="--fp16-of"):
        before.graph_path("target_generator", "fp16")
    assert export.main(["--fp16-of", str(bundle)]) == 0
    after = load_bundle(bundle)
    assert (after.sha256, after.preset_names) == (before.sha256, before.preset_names)
    for name, spec in GRAPHS.items():
        path = after.graph_path(name, "fp16")
        check_rules(onnx.load(str(path)), spec, half=True)
        assert after.manifest["files"][path.name]["bytes"] == path.stat().st_size
    report = json.loads((bundle / "parity.json").read_text())["fp16"]
    assert report["ok"]
    assert report["inputs"] == "real crops"
    assert export.main(["--fp16-of", str(tmp_path / "none")]) == 2
    assert export.main(["--fp16-of", str(bundle), "--out", str(tmp_path)]) == 2


@pytest.mark.parity
def test_parity_of_the_shipped_half_precision_on_real_crops() -> None:
    reports = {r["candidate"]: r for r in verify.verify(load_bundle())}
    assert set(reports) == {"onnxruntime fp16", "fp16, every half value rounded"}
    for report in reports.values():
        assert report["ok"], report
        assert report["composed"]["p99"] <= 1
        assert report["composed"]["max"] > 0  # something was at stake
    # ONNX Runtime's CPU flatters: it keeps wide what the file says is half
    mean = {
        name: r["graphs"]["target_generator"]["fill_rgb"]["mean"] for name, r in reports.items()
    }
    assert mean["onnxruntime fp16"] < mean["fp16, every half value rounded"]


def test_a_composed_picture_that_is_too_far_off_fails() -> None:
    from engines import parity

    faces = parity.faces_of_pictures(parity.structured_pictures()[3:4])
    composer = parity.Composer(faces)
    assert composer.summary() is None
    answer = {
        t.name: np.ones(t.shape, np.float32) * (t.name in ("keep", "shade"))
        for t in GRAPHS["target_generator"].outputs
    }
    composer.see(0, answer, answer)
    summary = composer.summary()
    assert summary is not None
    assert summary["ok"]
    assert (summary["max"], summary["psnr_db"]) == (0, None)
    moved = {**answer, "flow_xy": answer["flow_xy"] + 5}
    composer.see(0, answer, moved)
    summary = composer.summary()
    assert summary is not None
    assert not summary["ok"]
    assert summary["p99"] > 1


@pytest.mark.parametrize("name", list(GRAPHS))
def test_what_stays_float32_by_name_is_float32_in_the_shipped_files(name: str) -> None:
    """A pattern that matches nothing would spare nothing, and nobody would notice."""
    bundle = load_bundle()
    made = onnx.load(str(bundle.graph_path(name, "fp16")))
    weights = {t.name: t.data_type for t in made.graph.initializer}
    for pattern in mixed.FP32_NAMES:
        named = [n for n in weights if fnmatchcase(n, f"{pattern}") and n.endswith(".weight")]
        assert named, f"{pattern} names no weight of {name}"
        assert {weights[n] for n in named} == {TensorProto.FLOAT}
