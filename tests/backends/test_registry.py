"""Names, reasons, and that naming a backend never gets another one."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from rt_swap.backends import available_backends, get_backend, register_backend, registry
from rt_swap.errors import BackendUnavailable, ConfigError


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that the test may change."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(registry, "_announced", set())


def test_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"no backend 'openvino'.*auto.*tensorrt.*rtx.*onnxruntime"
    ):
        get_backend("openvino")


def test_available_backends_gives_a_reason_or_none() -> None:
    backends = available_backends()
    assert backends["onnxruntime"] is None
    reason = backends["onnxruntime-cuda"]
    assert reason is None or "onnxruntime-gpu" in reason


def test_get_backend_has_the_name_asked_for() -> None:
    assert get_backend("onnxruntime").name == "onnxruntime"


@pytest.mark.usefixtures("own_registry")
def test_named_backend_that_cannot_run_does_not_fall_back() -> None:
    register_backend("lame", lambda: get_backend("onnxruntime"), lambda: "its leg is broken")
    with pytest.raises(BackendUnavailable, match="lame cannot run here: its leg is broken"):
        get_backend("lame")


@pytest.mark.usefixtures("own_registry")
def test_taken_names_are_refused() -> None:
    for name in ("auto", "onnxruntime"):
        with pytest.raises(ConfigError, match="taken"):
            register_backend(name, lambda: get_backend("onnxruntime"), lambda: None)


@pytest.mark.usefixtures("own_registry")
def test_auto_says_once_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    registry._REGISTRY.pop("onnxruntime-cuda")
    with caplog.at_level(logging.INFO, logger="rt_swap.backends.registry"):
        assert get_backend().name == "onnxruntime"
        assert get_backend("auto").name == "onnxruntime"
    assert [r.message for r in caplog.records] == ["backend auto: using onnxruntime"]


@pytest.mark.usefixtures("own_registry")
def test_auto_passes_over_what_fails_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise BackendUnavailable("no device")

    whole = dict(registry._REGISTRY)
    registry._REGISTRY.clear()
    register_backend("first", fail, lambda: None)  # type: ignore[arg-type]
    registry._REGISTRY["onnxruntime"] = whole["onnxruntime"]
    assert get_backend().name == "onnxruntime"


@pytest.mark.usefixtures("own_registry")
def test_auto_with_nothing_left_lists_every_reason() -> None:
    registry._REGISTRY.clear()
    register_backend("one", lambda: get_backend("two"), lambda: "no card")
    register_backend("two", lambda: get_backend("one"), lambda: "no driver")
    with pytest.raises(BackendUnavailable, match="one: no card; two: no driver"):
        get_backend()


def test_importing_backends_imports_no_runtime() -> None:
    code = "import sys, rt_swap.backends as b; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["tensorrt", "rtx"])
def test_gpu_backend_says_why_not_and_what_to_do(name: str) -> None:
    reason = available_backends()[name]
    if reason is None:
        assert get_backend(name).name == name
        return
    with pytest.raises(BackendUnavailable, match=f"{name} cannot run here: ") as caught:
        get_backend(name)
    assert reason in str(caught.value)


def test_auto_tries_the_fastest_first() -> None:
    assert list(available_backends())[:4] == ["tensorrt", "rtx", "onnxruntime-cuda", "onnxruntime"]
