"""One suite over every registered backend, and a fake: no path needs hardware to stay alive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from rt_swap.backends import Backend, Session, available_backends, check_inputs, get_backend
from rt_swap.contract import ENCODER_SPEC, GENERATOR_SPEC, GRAPHS, GraphSpec
from rt_swap.errors import ConfigError, ContractError, InferenceError, ModelFileError
from rt_swap.frames import F32
from tests.support.fake_gpu import EmulatedBackend, fatbin_for
from tests.support.tiny_model import tiny_bundle


class FakeSession:
    """Answers each output with a number that depends on the inputs, in arrays it keeps."""

    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self._outputs = {t.name: np.zeros(t.shape, np.float32) for t in spec.outputs}
        self._closed = False

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        if self._closed:
            raise InferenceError(f"fake: {self.spec.name}: the session is closed")
        check_inputs("fake", self.spec, inputs)
        total = np.float32(sum(float(a.mean()) for a in inputs.values()))
        for array in self._outputs.values():
            array.fill(total)
        return dict(self._outputs)

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FakeBackend:
    name = "fake"

    def load(self, path: Path, spec: GraphSpec, threads: int) -> FakeSession:
        if threads < 0:
            raise ConfigError("fake: threads must be 0 or more")
        if not path.is_file():
            raise ModelFileError(f"{path}: there is no such model file")
        return FakeSession(spec)


NAMES = ["fake", "emulated-gpu", *available_backends()]
REAL = list(available_backends())


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "fake":
        return FakeBackend()
    if request.param == "emulated-gpu":
        return EmulatedBackend(fatbin_for(tmp_path / "kernels.fatbin")).backend
    reason = available_backends()[request.param]
    if reason is not None:
        pytest.skip(f"needs {request.param}: {reason}")
    return get_backend(request.param)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(params=list(GRAPHS))
def session(request: pytest.FixtureRequest, backend: Backend, bundle: Path) -> Iterator[Session]:
    loaded = backend.load(bundle / f"{request.param}.onnx", GRAPHS[request.param], threads=1)
    yield loaded
    loaded.close()


def random_inputs(spec: GraphSpec, seed: int = 0) -> dict[str, F32]:
    rng = np.random.default_rng(seed)
    return {t.name: rng.uniform(size=t.shape).astype(np.float32) for t in spec.inputs}


def test_protocols_are_met(backend: Backend, session: Session) -> None:
    assert isinstance(backend, Backend)
    assert isinstance(session, Session)


def test_run_gives_every_output_with_the_contract_s_shape(session: Session) -> None:
    outputs = session.run(random_inputs(session.spec))
    assert {n: (a.shape, a.dtype.name) for n, a in outputs.items()} == {
        t.name: (t.shape, "float32") for t in session.spec.outputs
    }
    assert all(np.isfinite(a).all() for a in outputs.values())


def test_run_twice_overwrites_the_first_answer_and_repeats_itself(session: Session) -> None:
    first = session.run(random_inputs(session.spec, 1))
    kept = {n: a.copy() for n, a in first.items()}
    second = session.run(random_inputs(session.spec, 2))
    assert all(second[n] is first[n] for n in first)
    assert any(not np.array_equal(second[n], kept[n]) for n in kept)
    again = session.run(random_inputs(session.spec, 1))
    for name, array in kept.items():
        np.testing.assert_array_equal(again[name], array)


def test_run_leaves_inputs_alone_and_takes_them_in_any_order(session: Session) -> None:
    inputs = random_inputs(session.spec, 3)
    kept = {n: a.copy() for n, a in inputs.items()}
    answer = {n: a.copy() for n, a in session.run(inputs).items()}
    turned = session.run(dict(reversed(inputs.items())))
    for name, array in kept.items():
        np.testing.assert_array_equal(inputs[name], array)
    for name, array in answer.items():
        np.testing.assert_array_equal(turned[name], array)


def test_run_with_strided_input_gives_the_same_answer(session: Session) -> None:
    inputs = random_inputs(session.spec, 4)
    plain = {n: a.copy() for n, a in session.run(inputs).items()}
    name = session.spec.inputs[0].name
    inputs[name] = np.asfortranarray(inputs[name])
    assert not inputs[name].flags.c_contiguous
    for output, array in session.run(inputs).items():
        np.testing.assert_array_equal(array, plain[output])


def test_run_with_wrong_inputs_lists_all_of_them(session: Session) -> None:
    inputs = random_inputs(session.spec)
    first = session.spec.inputs[0].name
    inputs[first] = inputs[first].astype(np.float64)[:, :, :-1]
    inputs["colour"] = np.zeros(1, np.float32)
    for tensor in session.spec.inputs[1:2]:
        del inputs[tensor.name]
    with pytest.raises(ContractError, match=f"{first} must be float32") as caught:
        session.run(inputs)
    message = str(caught.value)
    assert "float64" in message
    assert "colour is not an input" in message
    assert all(f"{t.name} is missing" in message for t in session.spec.inputs[1:2])
    assert caught.value.expected is not None
    assert caught.value.actual is not None


def test_run_after_close_says_so(session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(InferenceError, match="closed"):
        session.run(random_inputs(session.spec))


def test_with_closes(backend: Backend, bundle: Path) -> None:
    with backend.load(bundle / "expression_encoder.onnx", ENCODER_SPEC, threads=1) as session:
        session.run(random_inputs(ENCODER_SPEC))
    with pytest.raises(InferenceError, match="closed"):
        session.run(random_inputs(ENCODER_SPEC))


def test_load_missing_file_is_a_model_file_error(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        backend.load(tmp_path / "no.onnx", GENERATOR_SPEC, threads=1)


def test_load_negative_threads_is_a_config_error(backend: Backend, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="threads"):
        backend.load(bundle / "target_generator.onnx", GENERATOR_SPEC, threads=-1)


@pytest.mark.parametrize("name", REAL)
def test_load_damaged_file_is_a_model_file_error(name: str, bundle: Path, tmp_path: Path) -> None:
    reason = available_backends()[name]
    if reason is not None:
        pytest.skip(f"needs {name}: {reason}")
    whole = (bundle / "target_generator.onnx").read_bytes()
    for label, blob in (("cut", whole[: len(whole) // 2]), ("noise", b"nothing of the kind")):
        path = tmp_path / f"{label}.onnx"
        path.write_bytes(blob)
        with pytest.raises(ModelFileError, match="cannot load it"):
            get_backend(name).load(path, GENERATOR_SPEC, threads=1)


@pytest.mark.parametrize("name", REAL)
def test_load_another_graph_lists_every_mismatch(name: str, bundle: Path) -> None:
    reason = available_backends()[name]
    if reason is not None:
        pytest.skip(f"needs {name}: {reason}")
    with pytest.raises(ModelFileError, match="not the target_generator of contract") as caught:
        get_backend(name).load(bundle / "expression_encoder.onnx", GENERATOR_SPEC, threads=1)
    message = str(caught.value)
    for missing in [tensor.name for tensor in GENERATOR_SPEC.inputs]:
        assert f"input {missing} is missing" in message
    for missing in ("flow_xy", "keep", "fill_rgb", "shade"):
        assert f"output {missing} is missing" in message
    assert "input source_rgb is not in the contract" in message
    assert "output tokens" not in message  # that one is the same in both graphs
