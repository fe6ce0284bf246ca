"""Building once: found again, made anew where it is wrong, and two processes at once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rt_swap.contract import ENCODER_SPEC
from rt_swap.enginecache import Device, State, check_file, get_or_build, read_checked
from rt_swap.errors import BackendError, ConfigError, EngineBuildError, ModelFileError
from tests.support.engines import FakeBuilder
from tests.support.tiny_model import encoder_model

ROOT = Path(__file__).resolve().parents[2]
HERE = Device(89, "GPU", is_here=True)
PROGRAM = """
import sys
from pathlib import Path
from rt_swap.contract import ENCODER_SPEC
from rt_swap.enginecache import Device, get_or_build
from tests.support.engines import FakeBuilder
onnx_path, folder, log, seconds = sys.argv[1:]
builder = FakeBuilder(seconds=float(seconds), log=Path(log))
print("READY", flush=True)
print(get_or_build(Path(onnx_path), ENCODER_SPEC, builder, "fp32", Device(89), folder=Path(folder)))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of an encoder in both precisions."""
    folder = tmp_path / "model"
    folder.mkdir()
    blob = encoder_model().SerializeToString()
    (folder / "expression_encoder.onnx").write_bytes(blob)
    (folder / "expression_encoder.fp16.onnx").write_bytes(blob + b"")
    return folder


def start(model: Path, folder: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    arguments = [model / "expression_encoder.onnx", folder, log, seconds]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_second_start_finds_it_and_force_builds_again(model: Path, tmp_path: Path) -> None:
    builder, steps = FakeBuilder(), []
    arguments = (model / "expression_encoder.onnx", ENCODER_SPEC, builder, "fp32", Device(89))
    path = get_or_build(
        *arguments, folder=tmp_path / "e", progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 1)]
    again = get_or_build(*arguments, folder=tmp_path / "e")
    assert again == path
    assert builder.builds == 1
    get_or_build(*arguments, folder=tmp_path / "e", force=True)
    assert builder.builds == 2
    assert builder.timings == [None, b"timings 1"]  # what the first build measured helps the next


@pytest.mark.parametrize("damage", ["truncated", "tampered", "without sidecar"])
def test_a_wrong_engine_is_named_and_built_anew(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    builder = FakeBuilder()
    arguments = (model / "expression_encoder.onnx", ENCODER_SPEC, builder, "fp32", Device(89))
    path = get_or_build(*arguments, folder=tmp_path / "e")
    blob = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(blob[:100])
    elif damage == "tampered":
        path.write_bytes(b"X" + blob[1:])
    else:
        path.with_name(path.name + ".json").unlink()
    with caplog.at_level(logging.WARNING, logger="rt_swap"):
        assert get_or_build(*arguments, folder=tmp_path / "e") == path
    assert f"{path.name} is {damage} (" in caplog.text
    assert builder.builds == 2
    assert read_checked(path)[0] == blob


def test_an_engine_of_another_version_is_not_used_and_it_is_said_why(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = (model / "expression_encoder.onnx", ENCODER_SPEC)
    rest = ("fp32", Device(89))
    old = get_or_build(*arguments, FakeBuilder(), *rest, folder=tmp_path / "e")
    newer = FakeBuilder(version="1.1")
    with caplog.at_level(logging.INFO, logger="rt_swap"):
        path = get_or_build(*arguments, newer, *rest, folder=tmp_path / "e")
    assert path != old
    assert newer.builds == 1
    assert f"{old.name} is stale: built for runtime_version 1.0 (here 1.1)" in caplog.text


def test_a_changed_model_is_another_engine(model: Path, tmp_path: Path) -> None:
    onnx_path, builder = model / "expression_encoder.onnx", FakeBuilder()
    first = get_or_build(onnx_path, ENCODER_SPEC, builder, "fp32", HERE, folder=tmp_path / "e")
    onnx_path.write_bytes(encoder_model(seed=1).SerializeToString())
    second = get_or_build(onnx_path, ENCODER_SPEC, builder, "fp32", HERE, folder=tmp_path / "e")
    assert first != second
    assert builder.builds == 2


def test_half_precision_that_fails_its_check_falls_back_aloud_and_once(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {"ok": False, "why": "flow_xy is off by 3"}
    builder = FakeBuilder(verdicts={"fp16": wrong, "fp32": {"ok": True, "why": ""}})
    onnx_path = model / "expression_encoder.fp16.onnx"
    for start in range(2):
        caplog.clear()
        path = get_or_build(onnx_path, ENCODER_SPEC, builder, "fp16", HERE, folder=tmp_path / "e")
        entry = check_file(path)
        assert entry.state is State.GOOD
        assert entry.key is not None
        assert entry.key.precision == "fp32"
        assert "too far off on this GPU (flow_xy is off by 3); using fp32, which is slower" in (
            caplog.text
        )
        assert builder.builds == 2, f"start {start}"
    # both were compared with the float32 file
    assert {p.name for p in builder.checked_with} == {"expression_encoder.onnx"}


def test_float32_that_fails_its_check_is_an_error(model: Path, tmp_path: Path) -> None:
    wrong = {"ok": False, "why": "tokens is off by 1"}
    builder = FakeBuilder(verdicts={"fp16": wrong, "fp32": wrong})
    onnx_path = model / "expression_encoder.fp16.onnx"
    with pytest.raises(EngineBuildError, match=r"answers are wrong \(tokens is off by 1\)"):
        get_or_build(onnx_path, ENCODER_SPEC, builder, "fp16", HERE, folder=tmp_path / "e")


def test_an_engine_for_another_machine_is_not_run(model: Path, tmp_path: Path) -> None:
    builder = FakeBuilder(verdicts={"fp32": {"ok": False, "why": "x"}})
    onnx_path = model / "expression_encoder.onnx"
    get_or_build(onnx_path, ENCODER_SPEC, builder, "fp32", Device(86), folder=tmp_path / "e")
    assert builder.checked_with == []


@pytest.mark.parametrize("ok", [True, False])
def test_an_engine_made_ahead_of_time_is_tried_where_it_first_runs(
    model: Path, tmp_path: Path, ok: bool
) -> None:
    """Its kernels are compiled on that GPU only, so that is where wrong answers would show."""
    folder, onnx_path = tmp_path / "e", model / "expression_encoder.fp16.onnx"
    made = get_or_build(onnx_path, ENCODER_SPEC, FakeBuilder(), "fp16", Device(89), folder=folder)
    verdict = {"ok": ok, "why": "" if ok else "flow_xy is off by 3"}
    builder = FakeBuilder(verdicts={"fp16": verdict, "fp32": {"ok": True, "why": ""}})
    paths = [
        get_or_build(onnx_path, ENCODER_SPEC, builder, "fp16", HERE, folder=folder)
        for _ in range(2)
    ]
    assert paths[0] == paths[1]
    assert (paths[0] == made) == ok
    # the float32 file is what both are compared with, and each once
    assert len(builder.checked_with) == (1 if ok else 2)
    assert builder.builds == (0 if ok else 1)


def test_a_good_engine_in_a_folder_that_cannot_be_written_is_used(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, builder = tmp_path / "e", FakeBuilder()
    arguments = (model / "expression_encoder.onnx", ENCODER_SPEC, builder, "fp32", Device(89))
    path = get_or_build(*arguments, folder=folder)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("rt_swap.enginecache.build.locked", refused)
    assert get_or_build(*arguments, folder=folder) == path
    with pytest.raises(
        BackendError, match=r"cannot be written \(Permission denied\); name another"
    ):
        get_or_build(*arguments, folder=folder, force=True)


def test_wrong_arguments(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision must be one of fp32, fp16, got 'int8'"):
        get_or_build(model, ENCODER_SPEC, FakeBuilder(), "int8", HERE, folder=tmp_path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        get_or_build(model / "no", ENCODER_SPEC, FakeBuilder(), "fp32", HERE, folder=tmp_path)


# --- real processes ---
def test_two_processes_at_once_build_one_engine(model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = [start(model, tmp_path / "e", log, 0.5) for _ in range(3)]
    said = [process.communicate(timeout=60) for process in running]
    assert [p.returncode for p in running] == [0, 0, 0], said
    paths = {out.splitlines()[-1] for out, _ in said}
    assert len(paths) == 1
    assert log.read_text().split() == ["begin", "end"]
    read_checked(Path(paths.pop()))


def test_a_builder_that_is_killed_leaves_nothing_in_the_way(model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = start(model, tmp_path / "e", log, 60)
    deadline_s = time.monotonic() + 60
    while not log.exists() or "begin" not in log.read_text():
        assert time.monotonic() < deadline_s
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list((tmp_path / "e").glob("*.engine"))
    out, error = start(model, tmp_path / "e", log, 0).communicate(timeout=60)
    assert error == ""
    read_checked(Path(out.splitlines()[-1]))
