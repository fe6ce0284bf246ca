"""How a backend gets its engine: which file, for which GPU, and what it refuses."""

from __future__ import annotations

import dataclasses
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from rt_swap.backends.cuda import backend as module
from rt_swap.backends.cuda.backend import CudaBackend
from rt_swap.contract import GENERATOR_SPEC
from rt_swap.errors import BackendUnavailable, ConfigError, EngineBuildError, ModelFileError
from tests.support.fake_gpu import DEVICE, EmulatedBackend, fatbin_for
from tests.support.gpu_specs import generator_like

pytest.importorskip("rt_swap._warp", reason="needs the native module (make ext)")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for the TensorRT adapter and the engine cache; gets what they are asked."""
    log: list[Any] = []

    @dataclasses.dataclass(frozen=True)
    class Device:
        sm: int
        name: str
        is_here: bool

    def get_or_build(path, spec, flavour, precision, device):
        log.append((path.name, spec.name, flavour, precision, device))
        return path.with_suffix(".engine")

    trt = types.SimpleNamespace(
        flavour=lambda name: f"the {name} flavour",
        load_engine=lambda path, flavour, spec: (path.name, flavour, spec.name),
    )
    cache = types.SimpleNamespace(Device=Device, get_or_build=get_or_build)
    monkeypatch.setitem(sys.modules, "rt_swap.backends.trt", trt)
    monkeypatch.setitem(sys.modules, "rt_swap.enginecache", cache)
    return log


def test_half_precision_file_is_taken_where_the_model_has_one(asked, tmp_path):
    path = tmp_path / "target_generator.onnx"
    (tmp_path / "target_generator.fp16.onnx").touch()
    loaded = module._open_engine(path, GENERATOR_SPEC, "rtx", "fp16", DEVICE)
    assert loaded == ("target_generator.fp16.engine", "the rtx flavour", "target_generator")
    ((name, spec, flavour, precision, device),) = asked
    assert (name, spec, precision) == ("target_generator.fp16.onnx", "target_generator", "fp16")
    assert flavour == "the rtx flavour"
    assert (device.sm, device.name, device.is_here) == (89, "Emulated GPU", True)


def test_model_without_half_precision_runs_in_float32_and_says_so(asked, tmp_path, caplog):
    path = tmp_path / "target_generator.onnx"
    with caplog.at_level(logging.WARNING):
        module._open_engine(path, GENERATOR_SPEC, "tensorrt", "fp16", DEVICE)
    assert asked[0][0] == "target_generator.onnx"
    assert asked[0][3] == "fp32"
    assert "has no target_generator.fp16.onnx, so it runs in float32" in caplog.text


def test_float32_is_asked_for_as_such(asked, tmp_path, caplog):
    (tmp_path / "target_generator.fp16.onnx").touch()
    module._open_engine(tmp_path / "target_generator.onnx", GENERATOR_SPEC, "rtx", "fp32", DEVICE)
    assert asked[0][0] == "target_generator.onnx"
    assert caplog.text == ""


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="precision must be fp16 or fp32, got 'int8'"):
        CudaBackend("rtx", precision="int8")
    with pytest.raises(ConfigError, match="pixels must be bgr or nv12, got 'yuy2'"):
        CudaBackend("rtx", pixels="yuy2")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads must be 0 or more"):
        CudaBackend("rtx").load(tmp_path / "x", GENERATOR_SPEC, -1)
    with pytest.raises(ModelFileError, match="no such model file"):
        CudaBackend("rtx").load(tmp_path / "x", GENERATOR_SPEC, 0)


def load(made: EmulatedBackend, folder: Path) -> None:
    path = folder / "target_generator.onnx"
    path.touch()
    made.backend.load(path, generator_like(33), 0)


def test_gpu_that_the_kernels_were_not_built_for_is_refused_and_let_go(tmp_path):
    made = EmulatedBackend(fatbin_for(tmp_path / "k.fatbin", archs=(90,), ptx=(90,)))
    with pytest.raises(BackendUnavailable, match=r"compute capability 8\.9"):
        load(made, tmp_path)
    assert made.gpus[-1].closed
    assert made.gpus[-1].living == []


def test_engine_that_cannot_be_built_lets_the_gpu_go(tmp_path):
    made = EmulatedBackend(fatbin_for(tmp_path / "k.fatbin"))

    def fail(*_: Any) -> Any:
        raise EngineBuildError("the parser said no")

    made.backend._open_engine = fail
    with pytest.raises(EngineBuildError, match="the parser said no"):
        load(made, tmp_path)
    assert made.gpus[-1].closed
