"""``rt-swap live`` on files and fakes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rt_swap.cli import main
from rt_swap.cli.keys import TerminalKeys
from rt_swap.errors import SinkError
from rt_swap.frames import Frame
from rt_swap.model import load_bundle
from rt_swap.provenance import manifest
from tests.support.captures import FakeCapture
from tests.support.tiny_model import tiny_bundle
from tests.support.videos import numbered, probe, write_video


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import platformdirs

    folder = tmp_path / "data"
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: str(folder))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return folder


def live(*arguments: str) -> int:
    return main(["live", *arguments])


def test_a_limit_on_latency_brings_the_installed_nano_unless_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rt_swap import model
    from rt_swap.cli import live as command

    monkeypatch.delenv("RT_SWAP_MODEL", raising=False)
    monkeypatch.setattr(model, "DEFAULT_BUNDLE", tmp_path / "default")

    def smaller(*given: str, asked_model: str | None = None) -> list[str]:
        parser = argparse.ArgumentParser()
        command.add_parser(parser.add_subparsers())
        arguments = parser.parse_args(["live", *given])
        return command._smaller_models(arguments, asked_model)

    assert smaller("--max-latency-ms", "33") == []  # there is none here
    for name in ("default", "nano"):
        tiny_bundle(tmp_path / name)
    nano = str(tmp_path / "nano")
    assert smaller("--max-latency-ms", "33") == [nano]
    assert smaller() == []
    assert smaller("--max-latency-ms", "33", asked_model="nano") == []
    assert smaller("--max-latency-ms", "33", asked_model="default") == [nano]
    assert smaller("--max-latency-ms", "33", asked_model=str(tmp_path / "default")) == [nano]
    assert smaller("--max-latency-ms", "33", "--source", "face.jpg") == [nano]
    # a saved expression belongs to the model that made it
    assert smaller("--max-latency-ms", "33", "--source", "saved.safetensors") == []
    assert smaller("--max-latency-ms", "33", "--smaller-model", "none") == []
    assert smaller("--max-latency-ms", "33", "--smaller-model", "a") == ["a"]
    assert smaller("--max-latency-ms", "33", "--source-camera", "0") == []
    monkeypatch.setenv("RT_SWAP_MODEL", str(tmp_path / "mine"))
    assert smaller("--max-latency-ms", "33") == []


def test_a_recording_names_every_model_that_may_have_made_it(
    target: Path, tmp_path: Path, faces: Callable[..., None]
) -> None:
    pytest.importorskip("c2pa")
    smaller = tiny_bundle(tmp_path / "smaller", seed=5)
    out = tmp_path / "out.mp4"
    words = ["--camera", str(target), "--once", "--preset", "smile", "-o", str(out), "--null"]
    limit = ["--max-latency-ms", "10000", "--smaller-model", str(smaller)]
    assert live(*words, *limit) == 0
    bundle = load_bundle(smaller)
    told = manifest.read(out)["rt_swap"]
    assert told["other_models"] == {bundle.name: bundle.generator_sha256}


def test_file_as_camera_to_file_with_summary(
    target: Path,
    tmp_path: Path,
    faces: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.mp4"
    code = live(
        "--camera", str(target), "--once", "--preset", "smile", "-o", str(out), "--null", "--json"
    )
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["received"] == 8
    assert summary["statuses"]["swapped"] + summary["dropped"] == 8
    assert summary["sinks"] == {str(out): None, "null": None}
    pytest.importorskip("c2pa")
    assert summary["marks"]["manifest"]["state"] == "written"
    found = manifest.read(out)
    assert found["state"] == "valid"
    assert [a["action"] for a in found["actions"]] == ["c2pa.opened", "c2pa.edited"]
    written = probe(out)
    assert written.stream["size_wh"] == (160, 120)
    assert len(written.pictures) == summary["statuses"]["swapped"]


def test_sources_presets_and_options_are_taken(
    target: Path,
    tmp_path: Path,
    faces: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cv2

    from rt_swap.live.controls import Controls

    seen: list[Controls] = []
    apply = Controls.apply

    def spy(controls: Controls, run: object) -> None:
        seen.append(controls)
        apply(controls, run)  # type: ignore[arg-type]

    monkeypatch.setattr(Controls, "apply", spy)
    cv2.imwrite(str(tmp_path / "grin.png"), numbered(1, 120, 160)[0])
    code = live(
        *("--camera", str(target), "--once", "--null"),
        *("--source", str(tmp_path / "grin.png"), "--source", str(target)),
        *("--preset", "fear", "--gains", "brows=0.5", "--mode", "relative"),
        *("--keep-speech", "--no-keep-blink", "--on-lost", "slate", "--transition", "0.1"),
        *("--max-latency-ms", "500", "-q"),
    )
    assert code == 0
    controls = seen[-1]
    names = [offer.name for offer in controls.offers]
    assert names[:5] == ["grin.png", target.name, "fear", "smile", "laugh"]
    assert len(names) == len(set(names)) == 2 + 9
    state = controls.engines[0].state
    assert state.expression == "grin.png"
    assert state.mode == "relative"
    assert state.keep_speech
    assert not state.keep_blink
    assert float(state.gains[0]) == 0.5
    assert controls.engines[0].on_lost == "slate"
    assert capsys.readouterr().out == ""


def test_calibration_is_kept_for_the_next_time(
    tmp_path: Path,
    faces: Callable[..., None],
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    camera = write_video(tmp_path / "long.mp4", numbered(25, 120, 160))
    options = ("--camera", str(camera), "--null", "--person", "Ada", "--mode", "relative")
    assert live(*options, "--preset", "smile", "--calibrate", "--duration", "4") == 0
    kept = list((data_dir / "neutral" / "Ada").iterdir())
    assert len(kept) == 1
    assert "kept in" in capsys.readouterr().err
    assert live(*options, "--preset", "smile", "--duration", "0.2") == 0
    assert "as measured earlier" in capsys.readouterr().err
    kept[0].write_bytes(b"\0" * 50)
    assert live(*options, "--preset", "smile", "--duration", "0.2") == 0
    assert "looking for it anew" in capsys.readouterr().err


def test_virtual_camera_gets_the_pictures(
    target: Path, faces: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    class Camera:
        name = "/dev/video10"

        def __init__(self) -> None:
            self.frames: list[Frame] = []
            self.closed = False

        def write(self, frame: Frame) -> None:
            self.frames.append(frame)

        def finish(self, **_: object) -> None:
            self.closed = True

        def abort(self) -> None:
            self.closed = True

    camera = Camera()

    def open_it(*arguments: object, by: str) -> Camera:
        asked.extend([*arguments, by])
        return camera

    monkeypatch.setattr("rt_swap.io.virtual_camera.open_virtual_camera", open_it)
    code = live(
        *("--camera", str(target), "--once", "--preset", "smile", "--fps", "25"),
        *("--virtual-cam", "rt_swap", "--virtual-cam-by", "v4l2"),
    )
    assert code == 0
    assert asked == ["rt_swap", (160, 120), 25.0, "v4l2"]
    assert camera.frames
    assert camera.closed


def test_sink_that_broke_gives_its_exit_code(
    target: Path,
    faces: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rt_swap.io.tee import FileTee

    def full(*_: object) -> None:
        raise SinkError("out.mp4: the disk is full")

    monkeypatch.setattr(FileTee, "write", full)
    out = target.parent / "full.mp4"
    assert live("--camera", str(target), "--once", "-o", str(out), "--null") == 32
    assert "the disk is full" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--camera", "nowhere.mp4/x"], 31, "there is no such file"),
        (["--size", "big"], 2, "--size: write width x height"),
        (["--fps", "0"], 2, "--fps: must be 1 to 240"),
        (["--max-latency-ms", "1"], 2, "--max-latency-ms: must be a number from 5"),
        (["--gains", "ears=1"], 2, "there is no 'ears'"),
        (["--transition", "-1"], 2, "--transition: must be 0 to 10"),
        (["--camera", "csi://x"], 2, "write csi://0"),
        (["--preset", "grin"], 2, "there is no preset 'grin'"),
        (["--slate", "none.png"], 31, "none.png"),
        (["-o", "/nowhere/out.mp4"], 32, "there is no folder"),
        ([], 32, "there is no display here"),
    ],
)
def test_error_options(
    arguments: list[str],
    code: int,
    message: str,
    target: Path,
    faces: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments if "--camera" in arguments else ["--camera", str(target), *arguments]
    if arguments:
        given += [] if "-o" in arguments else ["--null"]
    assert live(*given) == code
    error = capsys.readouterr().err
    assert message in error
    assert "bug" not in error


@pytest.mark.skipif(sys.platform != "linux", reason="device files are Linux's")
def test_error_camera_that_is_not_there(
    faces: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert live("--camera", "77", "--null") == 31
    assert "camera 77: there is no /dev/video77" in capsys.readouterr().err


def test_camera_unplugged_in_the_middle_of_a_call(
    faces: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rt_swap.errors import SourceError

    pictures = numbered(4, 120, 160)
    openings: list[FakeCapture | SourceError] = [
        FakeCapture([*pictures, SourceError("unplugged")], pace_s=0.03),
        SourceError("no such device"),
        FakeCapture([*pictures, None], pace_s=0.03),
    ]

    def open_it(*_: object, **__: object) -> FakeCapture:
        opening = openings.pop(0)
        if isinstance(opening, SourceError):
            raise opening
        return opening

    monkeypatch.setattr("rt_swap.io.captures.open_capture", open_it)
    assert live("--preset", "smile", "--null", "--json") == 0
    output = capsys.readouterr()
    summary = json.loads(output.out)
    assert summary["losses"] == summary["reconnects"] == 1
    assert "went away (unplugged)" in output.err
    assert "is back" in output.err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_terminal_keys_are_read_one_by_one_and_the_terminal_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pty
    import termios

    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    with os.fdopen(terminal, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
        with TerminalKeys() as keys:
            assert keys.key() is None
            os.write(controller, b"2")
            assert keys.key() == "2"
            os.write(controller, b"\x1b[A")
            assert keys.key() is None
            os.write(controller, b"\x1b")
            assert keys.key() == "escape"
            assert not termios.tcgetattr(terminal)[3] & termios.ICANON
        assert termios.tcgetattr(terminal) == before
        # in the background the terminal is left alone
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: -1)
        with TerminalKeys() as keys:
            os.write(controller, b"q\n")
            assert keys.key() is None
    os.close(controller)


def test_terminal_keys_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with TerminalKeys() as keys:
            assert keys.key() is None


def test_frames_of_a_window_are_keys_and_lines(
    target: Path, faces: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    shown: list[np.ndarray] = []
    keys = iter([-1, ord("3"), -1, ord("q")])
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "resizeWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture.copy()))
    monkeypatch.setattr(cv2, "waitKeyEx", lambda _: next(keys, -1))
    assert live("--camera", str(target)) == 0
    assert len(shown) == 4
    assert (shown[-1][:10] != shown[0][:10]).any()  # lines of text are on it
