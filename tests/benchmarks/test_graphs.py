"""ONNX graphs counted and run in PyTorch: counts by hand, outputs as ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_networks import inputs_of, largest_differences, measure
from benchmarks.graphs import cost_of, torch_module
from rt_swap.backends import get_backend
from rt_swap.contract import GENERATOR_SPEC
from rt_swap.errors import ConfigError
from rt_swap.model import load_bundle
from tests.support.tiny_model import tiny_bundle

onnx = pytest.importorskip("onnx", reason="needs onnx")


def small_graph(path: Path, *, unknown: bool = False) -> Path:
    """x (1, 3, 8, 8) -> Conv to 4 channels, stride 2 -> Relu -> Flatten -> Gemm to 5."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish" if unknown else "Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "h"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [weight("w", 4, 3, 3, 3), weight("b", 4), weight("g", 64, 5), weight("h", 5)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(path))
    return path


def test_cost_counted_by_hand(tmp_path: Path) -> None:
    got = cost_of(small_graph(tmp_path / "g.onnx"))
    assert got.macs == 4 * 4 * 4 * 27 + 64 * 5
    assert got.weight_values == 4 * 27 + 4 + 64 * 5 + 5
    assert got.other_operations == 64  # the Relu
    assert got.fused_values == (192 + 64) + (64 + 5)
    assert got.unfused_values == got.fused_values + 2 * 64
    assert (got.kernels, got.nodes) == (2, 3)


def test_torch_operator_that_is_not_known_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    with pytest.raises(ConfigError, match="HardSwish"):
        torch_module(small_graph(tmp_path / "g.onnx", unknown=True))


@pytest.mark.parity
@pytest.mark.parametrize("which", ["shipped", "tiny"])
def test_torch_gives_what_onnx_runtime_gives(which: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    folder = None if which == "shipped" else tiny_bundle(tmp_path / "bundle")
    path = load_bundle(folder).generator_path
    module, names, outputs = torch_module(path)
    given = inputs_of()
    assert set(names) == {t.name for t in GENERATOR_SPEC.inputs}
    with torch.inference_mode():
        answer = module(*[torch.from_numpy(given[name]) for name in names])
    theirs = {name: value.numpy() for name, value in zip(outputs, answer, strict=True)}
    with get_backend("onnxruntime").load(path, GENERATOR_SPEC, 1) as session:
        differences = largest_differences(session.run(given), theirs)
    assert len(differences) == len(GENERATOR_SPEC.outputs)
    for name, difference in differences.items():
        assert difference["largest"] <= difference["allowed"], name
    assert np.ptp(theirs["flow_xy"]) > 0.1  # and it does something


def test_measure_takes_turns_and_leaves_the_warm_up_out() -> None:
    order: list[str] = []

    def way(name: str, ms: float) -> object:
        def run() -> float:
            order.append(name)
            return ms if order.count(name) > 1 else 1000.0

        return run

    got = measure({"a": way("a", 1.0), "b": way("b", 2.0)}, repeats=3, warm_up=1)  # type: ignore[dict-item]
    assert (got["a"]["max"], got["b"]["max"]) == (1.0, 2.0)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_the_shipped_graphs_can_be_run_in_pytorch() -> None:
    """Every operator of theirs is known, or the networks' benchmark stops at once."""
    bundle = load_bundle(None)
    for path in (bundle.encoder_path, bundle.generator_path):
        assert torch_module(path) is not None
