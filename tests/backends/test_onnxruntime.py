"""What only ONNX Runtime has: its options, and bindings that copy nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rt_swap.backends.onnxruntime import OnnxRuntimeBackend, why_provider_missing
from rt_swap.contract import GENERATOR_SPEC, GraphSpec, TensorSpec
from rt_swap.errors import BackendUnavailable, ConfigError, ModelFileError
from tests.support.tiny_model import tiny_bundle

SPEC = GraphSpec("double", (TensorSpec("x", (1, 3)),), (TensorSpec("y", (1, 3)),))


def write_graph(
    path: Path,
    shape: list[int | str],
    dtype: int = TensorProto.FLOAT,
    names: tuple[str, str] = ("x", "y"),
) -> Path:
    x, y = (helper.make_tensor_value_info(name, dtype, shape) for name in names)
    node = helper.make_node("Add", [names[0], names[0]], [names[1]])
    graph = helper.make_graph([node], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_unknown_provider_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match="no provider 'npu'; there are cpu, cuda"):
        OnnxRuntimeBackend("npu")


def test_cuda_without_cuda_says_what_to_install() -> None:
    if why_provider_missing("cuda") is None:
        pytest.skip("needs an onnxruntime without CUDA")
    with pytest.raises(BackendUnavailable, match="onnxruntime-gpu"):
        OnnxRuntimeBackend("cuda")


@pytest.mark.parametrize("spinning", [False, True])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_every_threading_gives_the_same_answer(
    tmp_path: Path, threads: int, spinning: bool
) -> None:
    bundle = tiny_bundle(tmp_path)
    rng = np.random.default_rng(0)
    inputs = {t.name: rng.uniform(size=t.shape).astype("f4") for t in GENERATOR_SPEC.inputs}
    path = bundle / "target_generator.onnx"
    with OnnxRuntimeBackend("cpu").load(path, GENERATOR_SPEC, 1) as session:
        expected = {n: a.copy() for n, a in session.run(inputs).items()}
    backend = OnnxRuntimeBackend("cpu", spinning=spinning)
    with backend.load(path, GENERATOR_SPEC, threads) as session:
        for name, array in session.run(inputs).items():
            np.testing.assert_allclose(array, expected[name], atol=1e-5)


def test_outputs_are_written_where_they_were_bound(tmp_path: Path) -> None:
    with OnnxRuntimeBackend().load(write_graph(tmp_path / "g.onnx", [1, 3]), SPEC, 1) as session:
        first = session.run({"x": np.array([[1, 2, 3]], np.float32)})["y"]
        address = first.ctypes.data
        second = session.run({"x": np.array([[4, 5, 6]], np.float32)})["y"]
        assert second.ctypes.data == address
        np.testing.assert_array_equal(first, [[8, 10, 12]])


def test_answer_outlives_the_session(tmp_path: Path) -> None:
    session = OnnxRuntimeBackend().load(write_graph(tmp_path / "g.onnx", [1, 3]), SPEC, 1)
    answer = session.run({"x": np.array([[1, 2, 3]], np.float32)})["y"]
    session.close()
    np.testing.assert_array_equal(answer, [[2, 4, 6]])


@pytest.mark.parametrize(
    ("shape", "dtype", "names", "complaint"),
    [
        ([1, 4], TensorProto.FLOAT, ("x", "y"), r"input x is float32 \(1, 4\), expected"),
        (["N", 3], TensorProto.FLOAT, ("x", "y"), r"input x is float32 \('N', 3\), expected"),
        ([1, 3], TensorProto.DOUBLE, ("x", "y"), r"input x is tensor\(double\) \(1, 3\), expected"),
        ([1, 3], TensorProto.FLOAT, ("x", "z"), "output y is missing; output z is not in the"),
    ],
)
def test_load_checks_names_shapes_and_types(
    tmp_path: Path, shape: list[int | str], dtype: int, names: tuple[str, str], complaint: str
) -> None:
    path = write_graph(tmp_path / "g.onnx", shape, dtype, names)
    with pytest.raises(ModelFileError, match=complaint):
        OnnxRuntimeBackend().load(path, SPEC, 1)
