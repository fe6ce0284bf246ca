"""The element ``rtswap`` in real pipelines: pictures, time stamps, latency, messages, options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_swap import gst
from rt_swap.errors import BackendUnavailable
from rt_swap.frames import U8
from tests.support.swapping import SittingTracker
from tests.support.tiny_model import tiny_bundle
from tests.support.videos import moving_portrait

ROOT = Path(__file__).resolve().parents[2]
SIZE_WH = (320, 240)
STEP_NS = 33_333_333
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gi")


@pytest.fixture(scope="module")
def Gst() -> Any:
    try:
        found, _, _ = gst.load()
    except BackendUnavailable as exc:
        pytest.skip(str(exc))
    gst.register()
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("gst") / "bundle")


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    """A tiny model, and a tracker that sees a face in the middle."""
    monkeypatch.setenv("RT_SWAP_MODEL", str(model))
    monkeypatch.setenv("RT_SWAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "rt_swap.swapper.MediapipeTracker", lambda max_faces=1, static=False: SittingTracker()
    )


class Line:
    """appsrc ! rtswap ! appsink, one picture at a time."""

    def __init__(self, Gst: Any, options: str, size_wh: tuple[int, int] = SIZE_WH) -> None:
        self.Gst = Gst
        width, height = size_wh
        caps = f"video/x-raw,format=BGR,width={width},height={height},framerate=30/1"
        self.pipeline = Gst.parse_launch(
            f'appsrc name=in format=time is-live=true caps="{caps}" ! rtswap name=r {options}'
            " ! appsink name=out sync=false"
        )
        self.element = self.pipeline.get_by_name("r")
        self._in, self._out = (self.pipeline.get_by_name(n) for n in ("in", "out"))
        self._stride = (3 * width + 3) // 4 * 4
        self.pushed = 0

    def start(self) -> None:
        assert self.pipeline.set_state(self.Gst.State.PLAYING) != self.Gst.StateChangeReturn.FAILURE

    def push(self, picture_bgr: U8, pts: int | None = None) -> tuple[U8, Any]:
        """One picture through the element, and the buffer that came out."""
        sample = self.pull(picture_bgr, pts)
        assert sample is not None, self.said()
        return self.pixels(sample, picture_bgr.shape[0], picture_bgr.shape[1])

    def pull(self, picture_bgr: U8, pts: int | None = None, wait_s: float = 30) -> Any:
        """One picture into the element; what comes out, None for nothing."""
        height, width = picture_bgr.shape[:2]
        rows = np.zeros((height, self._stride), np.uint8)
        rows[:, : 3 * width] = picture_bgr.reshape(height, -1)
        buffer = self.Gst.Buffer.new_wrapped(rows.tobytes())
        buffer.pts = 1_000 + self.pushed * STEP_NS if pts is None else pts
        buffer.duration = STEP_NS
        self.pushed += 1
        self._in.emit("push-buffer", buffer)
        return self._out.emit("try-pull-sample", int(wait_s * self.Gst.SECOND))

    def pixels(self, sample: Any, height: int, width: int) -> tuple[U8, Any]:
        """(height, width, 3) and its buffer."""
        out = sample.get_buffer()
        mapped, where = out.map(self.Gst.MapFlags.READ)
        assert mapped
        rows = np.frombuffer(where.data, np.uint8).reshape(height, self._stride).copy()
        out.unmap(where)
        return rows[:, : 3 * width].reshape(height, width, 3), out

    def said(self, kinds: Any = None, wait_s: float = 0.0) -> list[Any]:
        """Messages on the bus of some kinds; waits for one at most so long."""
        Gst = self.Gst
        kinds = kinds or (Gst.MessageType.ERROR | Gst.MessageType.WARNING)
        found, bus = [], self.pipeline.get_bus()
        message = bus.timed_pop_filtered(int(wait_s * Gst.SECOND), kinds)
        while message is not None:
            found.append(message)
            message = bus.timed_pop_filtered(0, kinds)
        return found

    def stop(self) -> None:
        self.pipeline.set_state(self.Gst.State.NULL)


@pytest.fixture
def line(Gst: Any, faces: None, request: pytest.FixtureRequest) -> Iterator[Line]:
    made = Line(Gst, getattr(request, "param", "preset=smile badge=off watermark=false"))
    made.start()
    yield made
    made.stop()


def test_only_the_face_changes_and_stamps_are_kept(line: Line) -> None:
    before = moving_portrait(3)
    for number, picture in enumerate(before):
        after, buffer = line.push(picture)
        assert buffer.pts == 1_000 + number * STEP_NS
        assert buffer.duration == STEP_NS
    assert (after != before[-1]).any()
    assert np.array_equal(after[:10], before[-1][:10])  # far from the crop
    assert line.element.get_property("face-found")
    assert not line.said()


@pytest.mark.parametrize("line", ["preset=smile badge=off watermark=false"], indirect=True)
def test_element_agrees_with_the_engine(line: Line, model: Path) -> None:
    from fractions import Fraction

    from rt_swap.frames import Frame
    from rt_swap.live.engine import LiveEngine
    from rt_swap.swapper import Swapper

    pictures = moving_portrait(4)
    with Swapper.load(model, cache=None) as swapper:
        engine = LiveEngine(swapper)
        engine.set_expression(swapper.preset("smile"), name="smile")
        for number, picture in enumerate(pictures):
            pts = 1_000 + number * STEP_NS
            wanted = engine.process(Frame(picture, pts, Fraction(1, 10**9)))
            shown, _ = line.push(picture)
            assert np.array_equal(shown, wanted.frame.frame_bgr)
        engine.close()


def test_rows_with_padding_are_read_and_written_right(Gst: Any, faces: None) -> None:
    line = Line(Gst, "badge=off watermark=false", (318, 240))  # 954 bytes a row, 956 apart
    line.start()
    try:
        picture = np.ascontiguousarray(moving_portrait(1)[0][:, :318])
        shown, _ = line.push(picture)
        assert np.array_equal(shown, picture)  # no expression: as it came
    finally:
        line.stop()


def test_a_failure_inside_lets_no_picture_through(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyGObject turns an exception into "OK": the camera's own picture would go on its way."""
    from rt_swap.live.engine import LiveEngine

    picture = moving_portrait(1)[0]
    line.push(picture)

    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(LiveEngine, "process", broken)
    assert line.pull(picture, wait_s=1.0) is None
    messages = line.said(line.Gst.MessageType.ERROR, 5.0)
    assert any("broken on purpose" in m.parse_error()[0].message for m in messages)


def test_a_seek_does_not_stop_time(line: Line) -> None:
    """Stamps that run back must not hold a change of expression up until they catch up."""
    picture, second = moving_portrait(1)[0], line.Gst.SECOND
    line.element.set_property("preset", "")
    for number in range(3):
        line.push(picture, 600 * second + number * STEP_NS)
    line.element.set_property("preset", "smile")
    deadline = time.monotonic() + 10
    while line.element.get_property("preset") != "smile" and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in range(30):
        shown, buffer = line.push(picture, number * STEP_NS)
        assert buffer.pts == number * STEP_NS
    assert (shown != picture).any()


def test_properties_change_while_playing(line: Line) -> None:
    picture = moving_portrait(1)[0]
    line.element.set_property("transition", 0.0)
    smile, _ = line.push(picture)
    line.element.set_property("preset", "anger")
    line.push(picture)
    anger, _ = line.push(picture)
    assert (smile != anger).any()
    line.element.set_property("gains", "all=0")
    for _ in range(3):
        line.push(picture)
    still, _ = line.push(picture)
    line.element.set_property("gains", "")
    for _ in range(3):
        line.push(picture)
    again, _ = line.push(picture)
    assert (again != still).any()
    line.element.set_property("badge", "top-left")
    marked, _ = line.push(picture)
    assert (marked[:30, :100] != picture[:30, :100]).any()
    line.element.set_property("enabled", False)
    untouched, _ = line.push(picture)
    assert np.array_equal(untouched, picture)
    line.element.set_property("enabled", True)
    on, _ = line.push(picture)
    assert (on != picture).any()
    assert not line.said()


def test_source_file_is_encoded_in_the_background(line: Line, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "face.png"), moving_portrait(1)[0])
    picture = moving_portrait(1)[0]
    line.push(picture)
    line.element.set_property("source", str(tmp_path / "face.png"))
    deadline = time.monotonic() + 30
    while line.element._engine.state.expression != str(tmp_path / "face.png"):
        assert time.monotonic() < deadline
        line.push(picture)
    assert not line.said()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mode", "sideways", "absolute, relative"),
        ("preset", "grin", "there is no preset 'grin'"),
        ("gains", "nostril=1", "nostril"),
        ("badge", "middle", "bottom-right"),
        ("on-lost", "panic", "passthrough"),
        ("source", "/nowhere/face.png", "no such file"),
    ],
)
def test_wrong_value_is_a_warning_and_frames_go_on(
    line: Line, name: str, value: str, words: str
) -> None:
    picture = moving_portrait(1)[0]
    line.push(picture)
    before = line.element.get_property(name)
    line.element.set_property(name, value)
    (message,) = line.said(line.Gst.MessageType.WARNING, wait_s=20)
    error, _ = message.parse_warning()
    assert words in error.message
    if name != "source":  # a file is looked at later
        assert line.element.get_property(name) == before
    line.push(picture)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("preset=grin", "there is no preset 'grin'"),
        ("backend=tensorrt9", "there is no backend"),
        ("source=/nowhere/face.png", "no such file"),
        ("model=/nowhere", "there is no such model folder"),
    ],
)
def test_what_cannot_start_is_an_error_that_says_why(
    Gst: Any, faces: None, options: str, words: str
) -> None:
    line = Line(Gst, options)
    try:
        state = line.pipeline.set_state(Gst.State.PLAYING)
        assert state == Gst.StateChangeReturn.FAILURE
        (message,) = line.said(Gst.MessageType.ERROR, wait_s=20)
        error, _ = message.parse_error()
        assert words in error.message
    finally:
        line.stop()


def test_latency_is_upstreams_and_its_own(Gst: Any, faces: None) -> None:
    pipeline = Gst.parse_launch(
        "videotestsrc is-live=true ! video/x-raw,format=BGR,width=64,height=48,framerate=20/1"
        " ! rtswap name=r ! fakesink name=out"
    )
    try:
        pipeline.set_state(Gst.State.PLAYING)
        pipeline.get_state(30 * Gst.SECOND)
        query = Gst.Query.new_latency()
        assert pipeline.get_by_name("r").get_static_pad("src").query(query)
        live, least, _ = query.parse_latency()
        upstream = Gst.Query.new_latency()
        assert pipeline.get_by_name("r").get_static_pad("sink").peer_query(upstream)
        own = pipeline.get_by_name("r").get_property("latency") * Gst.MSECOND
        assert live
        assert own >= 40 * Gst.MSECOND
        assert least == upstream.parse_latency()[1] + own
    finally:
        pipeline.set_state(Gst.State.NULL)


@pytest.mark.parametrize("line", ["preset=smile stats-interval=1"], indirect=True)
def test_statistics_are_element_messages(line: Line) -> None:
    for picture in moving_portrait(3):
        line.push(picture)
        time.sleep(0.002)
    messages = line.said(line.Gst.MessageType.ELEMENT, wait_s=5)
    told = messages[-1].get_structure()
    assert told.get_name() == "rtswap-stats"
    assert told.get_value("frames") >= 1
    assert told.get_value("swapped") == told.get_value("frames")
    assert told.get_value("expression") == "smile"
    assert told.get_value("process-ms-p95") >= told.get_value("process-ms-p50") > 0


@pytest.mark.parametrize("line", ["preset=smile"], indirect=True)
def test_marks_are_there_unless_switched_off(line: Line) -> None:
    from rt_swap.provenance import badge

    plain = np.full((240, 320, 3), 90, np.uint8)
    shown, _ = line.push(plain)
    assert badge.find(shown)[0] == "bottom-right"


def test_calibrate_is_an_action(line: Line) -> None:
    line.push(moving_portrait(1)[0])
    line.element.emit("calibrate", 0.5)
    assert line.element._engine.state.calibrating_left_s > 0
    line.element.emit("calibrate", 99.0)
    (message,) = line.said(line.Gst.MessageType.WARNING, wait_s=5)
    assert "0.5 to 30" in message.parse_warning()[0].message


# --- as other programs find it ---
def _tool(name: str, arguments: list[str], tmp_path: Path, model: Path) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not here; on Debian: apt install gstreamer1.0-tools")
    plugin = Path("/usr/lib").glob("*/gstreamer-1.0/libgstpython.so")
    if not any(plugin):
        pytest.skip("GStreamer's Python loader: apt install gstreamer1.0-python3-plugin-loader")
    system = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if system != str(tuple(sys.version_info[:2])):
        pytest.skip(f"GStreamer's loader runs Python {system}, the tests {sys.version_info[:2]}")
    environ = {
        **os.environ,
        "GST_PLUGIN_PATH": str(gst.plugin_path()),
        "GST_REGISTRY": str(tmp_path / "registry.bin"),
        "RT_SWAP_MODEL": str(model),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *(p for p in sys.path if "site-packages" in p)]),
    }
    done = subprocess.run(
        [name, *arguments],
        capture_output=True,
        text=True,
        env=environ,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_gst_inspect_shows_every_property(Gst: Any, tmp_path: Path, model: Path) -> None:
    text = _tool("gst-inspect-1.0", ["rtswap"], tmp_path, model)
    assert "Facial expression transfer" in text
    lines = text.splitlines()
    for name in ("preset", "source", "gains", "mode", "on-lost", "transition", "enabled", "badge"):
        (at,) = [i for i, line in enumerate(lines) if line.split(":")[0].strip() == name]
        assert len(lines[at].split(":", 1)[1]) > 20  # a blurb
        assert "changeable in NULL, READY, PAUSED or PLAYING state" in lines[at + 1]


def test_gst_launch_runs_the_pipeline(Gst: Any, tmp_path: Path, model: Path) -> None:
    pipeline = (
        "videotestsrc num-buffers=12 ! video/x-raw,width=160,height=120,framerate=30/1"
        " ! videoconvert ! rtswap preset=smile stats-interval=1 ! videoconvert ! fakesink"
    )
    text = _tool("gst-launch-1.0", ["-m", *pipeline.split()], tmp_path, model)
    assert "rtswap-stats" in text
    assert "Got EOS" in text
