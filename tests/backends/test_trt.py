"""TensorRT for RTX really builds the shipped graphs, in half precision, without a GPU."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import onnx
import pytest

from rt_swap import enginecache
from rt_swap.backends import trt, trt_runner
from rt_swap.contract import ENCODER_SPEC, GENERATOR_SPEC, GRAPHS
from rt_swap.enginecache import Device, State, check_file
from rt_swap.errors import (
    BackendUnavailable,
    ConfigError,
    EngineBuildError,
    EngineMismatch,
    ModelFileError,
)
from rt_swap.model import load_bundle
from tests.conftest import has_nvidia_gpu

RTX_SMS = (75, 86, 89, 120)
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="needs tensorrt_rtx (pip install rt-swap[rtx])",
)


def get(name: str, sm: int, folder: Path) -> Path:
    onnx_path = load_bundle().graph_path(name, "fp16")
    return enginecache.get_or_build(
        onnx_path, GRAPHS[name], trt.RTX, "fp16", Device(sm), folder=folder
    )


@pytest.mark.trt
@needs_rtx
@pytest.mark.parametrize("sm", RTX_SMS)
@pytest.mark.parametrize("name", list(GRAPHS))
def test_the_shipped_graphs_build_in_half_precision(
    name: str, sm: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = get(name, sm, tmp_path)
    entry = check_file(path)
    assert entry.state is State.GOOD
    assert entry.size_bytes > 100_000
    # names, types and shapes as the builder's own network has them
    spec = GRAPHS[name]
    wanted = {
        t.name: {"shape": list(t.shape), "dtype": "float32", "is_input": t in spec.inputs}
        for t in (*spec.inputs, *spec.outputs)
    }
    assert entry.sidecar["io"] == wanted
    about = entry.sidecar["about"]
    assert about["strongly_typed"] is True
    # the rest is the tail, what places teeth and tones lids, all float32, and their constants
    assert about["half_layers"] > about["layers"] * 0.15
    # the second start finds it
    written = path.stat().st_mtime_ns
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="rt_swap"):
        assert get(name, sm, tmp_path) == path
    assert "building" not in caplog.text
    assert path.stat().st_mtime_ns == written


@pytest.mark.trt
@needs_rtx
def test_a_float32_engine_builds_too_and_progress_is_told(tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    onnx_path = load_bundle().graph_path(ENCODER_SPEC.name, "fp32")
    built = trt.RTX.build(
        onnx_path,
        ENCODER_SPEC,
        Device(89),
        progress=lambda done, total: steps.append((done, total)),
    )
    # nothing but the stored weights is half, and each is cast at once
    stored = [n for n in onnx.load(str(onnx_path)).graph.node if n.op_type == "Cast"]
    assert stored
    assert built.about["half_layers"] == len(stored)
    assert steps
    assert all(total is not None and 0 <= done <= total for done, total in steps)


@pytest.mark.trt
@needs_rtx
def test_the_builder_refuses_what_it_cannot_build(tmp_path: Path) -> None:
    onnx_path = load_bundle().graph_path(ENCODER_SPEC.name, "fp16")
    with pytest.raises(BackendUnavailable, match=r"compute capability 9, only for 7\.5, 8, 8\.6"):
        trt.RTX.build(onnx_path, ENCODER_SPEC, Device(90))
    with pytest.raises(ModelFileError, match="output keep is missing"):
        trt.RTX.build(onnx_path, GENERATOR_SPEC, Device(89))
    with pytest.raises(ModelFileError, match="cannot be read"):
        trt.RTX.build(tmp_path / "none.onnx", ENCODER_SPEC, Device(89))
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(EngineBuildError, match="TensorRT cannot read it"):
        trt.RTX.build(tmp_path / "no.onnx", ENCODER_SPEC, Device(89))


@pytest.mark.trt
@needs_rtx
@pytest.mark.skipif(has_nvidia_gpu(), reason="tells what happens without a GPU")
def test_loading_without_a_gpu_says_so_and_never_loads_what_is_wrong(tmp_path: Path) -> None:
    path = get(ENCODER_SPEC.name, 89, tmp_path)
    with pytest.raises(BackendUnavailable, match="the GPU cannot be used"):
        trt.load_engine(path, trt.RTX, ENCODER_SPEC)
    sidecar = path.with_name(path.name + ".json")
    blob, text = path.read_bytes(), sidecar.read_text()
    path.write_bytes(blob[:-1])
    with pytest.raises(EngineMismatch, match="truncated"):
        trt.load_engine(path, trt.RTX, ENCODER_SPEC)
    path.write_bytes(blob)
    values = json.loads(text)
    values["key"]["runtime_version"] = "1.0"
    sidecar.write_text(json.dumps(values))
    with pytest.raises(EngineMismatch, match="tampered"):
        trt.load_engine(path, trt.RTX, ENCODER_SPEC)


# --- the table ---
def test_flavours_by_name() -> None:
    assert trt.flavour("rtx") is trt.RTX
    assert trt.flavour("tensorrt") is trt.TENSORRT
    with pytest.raises(ConfigError, match="no runtime 'trt'; there are tensorrt, rtx"):
        trt.flavour("trt")


def test_tensorrt_builds_for_its_own_gpu_only() -> None:
    with pytest.raises(BackendUnavailable, match=r"this machine's own GPU only; .*--runtime rtx"):
        trt.TENSORRT._check_target(None, Device(89))
    trt.TENSORRT._check_target(None, Device(90, "NVIDIA H100", is_here=True))


@pytest.mark.parametrize(
    ("version", "ok"),
    [
        ("9.3.0", False),
        ("10.0.1", True),
        ("10.13.3.9.post1", True),
        ("11.4.1", True),
        ("12.0", False),
    ],
)
def test_versions_are_compared_as_numbers(
    monkeypatch: pytest.MonkeyPatch, version: str, ok: bool
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    reason = trt.TENSORRT.why_not()
    assert (reason is None) is ok
    if reason is not None:
        assert f"tensorrt {version} is installed, rt_swap works with 10.0 up to" in reason


class _Flags:
    STRONGLY_TYPED = 1


class _Module:
    NetworkDefinitionCreationFlag = _Flags


@pytest.mark.parametrize(("version", "flags"), [("10.3.0", 2), ("11.0.0", 0)])
def test_tensorrt_10_is_told_to_be_strongly_typed(
    monkeypatch: pytest.MonkeyPatch, version: str, flags: int
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert trt.TENSORRT._network_flags(_Module) == flags
    assert trt.RTX._network_flags(_Module) == 0


# --- the check after a build ---
class _Shifted:
    """ONNX Runtime's answers, one output shifted."""

    def __init__(self, session: object, name: str, by: float) -> None:
        self._session, self._name, self._by = session, name, by

    def run(self, inputs: object) -> dict[str, object]:
        answers = {k: v.copy() for k, v in self._session.run(inputs).items()}  # type: ignore[attr-defined]
        answers[self._name].ravel()[0] += self._by
        return answers


@pytest.mark.parametrize(
    ("by", "ok", "why"),
    [
        (0.0, True, ""),
        (0.009, True, ""),
        (0.03, False, "aus_lr is off"),
        (float("nan"), False, "aus_lr"),
    ],
)
def test_the_check_holds_an_engine_to_the_contract(by: float, ok: bool, why: str) -> None:
    from rt_swap.backends import get_backend

    onnx_path = load_bundle().graph_path(ENCODER_SPEC.name, "fp32")
    with get_backend("onnxruntime").load(onnx_path, ENCODER_SPEC, 1) as session:
        report = trt_runner.compare_with_onnxruntime(
            _Shifted(session, "aus_lr", by), onnx_path, ENCODER_SPEC, "fp16"
        )
    assert report["ok"] is ok
    assert why in report["why"]
    json.dumps(report, allow_nan=False)
