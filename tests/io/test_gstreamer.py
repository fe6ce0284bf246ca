"""GStreamer pipelines as cameras: real ones, where GStreamer is."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from rt_swap.errors import SourceError
from rt_swap.io import gstreamer
from rt_swap.io.gstreamer import GStreamerCapture, csi_pipeline, csi_sensor

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gi")
RED = "videotestsrc pattern=red ! video/x-raw,width=65,height=48,framerate=30/1"


@pytest.fixture(scope="module")
def gst() -> Any:
    try:
        return gstreamer._gstreamer()
    except SourceError as exc:
        pytest.skip(str(exc))


def test_pictures_come_with_their_colours_at_any_width(gst: Any) -> None:
    capture = GStreamerCapture(RED, name="red")
    info = capture.info
    assert (info.name, info.width, info.height, info.rate_hz) == ("red", 65, 48, 30.0)
    before = 0.0
    for _ in range(3):
        picture = capture.read()
        assert picture is not None
        assert picture.frame_bgr.shape == (48, 65, 3)  # rows are padded in memory
        assert picture.frame_bgr.flags.writeable
        np.testing.assert_allclose(picture.frame_bgr.mean((0, 1)), (0, 0, 255), atol=3)
        assert picture.captured_s > before
        before = picture.captured_s
    capture.close()
    capture.close()
    with pytest.raises(SourceError, match="no more pictures"):
        capture.read()


def test_only_the_newest_is_kept_for_a_slow_reader(gst: Any) -> None:
    capture = GStreamerCapture(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,width=64,height=48,framerate=100/1"
    )
    capture.read()
    time.sleep(0.3)
    begin = time.perf_counter()
    for _ in range(5):
        capture.read()
    # 30 pictures came meanwhile; had they queued, these five would be there at once
    assert time.perf_counter() - begin > 0.02
    capture.close()


def test_end_and_errors_are_told(gst: Any) -> None:
    capture = GStreamerCapture(f"videotestsrc num-buffers=9 ! {RED.partition('! ')[2]}")

    def read_on() -> None:
        for _ in range(20):
            capture.read()

    with contextlib.closing(capture), pytest.raises(SourceError, match="the stream ended"):
        read_on()
    with pytest.raises(SourceError, match="no element"):
        GStreamerCapture("nosuchelement")
    with pytest.raises(SourceError, match=r"GStreamer pipeline .*nowhere"):
        GStreamerCapture("filesrc location=/nowhere.bin ! decodebin")


def test_close_wakes_a_waiting_reader(gst: Any) -> None:
    capture = GStreamerCapture(
        "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=1/2"
    )
    capture.read()
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(SourceError):
            capture.read()
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    capture.close()
    assert ended.wait(2.5)
    reader.join(1.0)


def test_error_without_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "_SYSTEM_FOLDERS", ())
    monkeypatch.setattr(gstreamer.importlib.util, "find_spec", lambda _: None)
    for name in [m for m in sys.modules if m == "gi" or m.startswith("gi.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(SourceError, match=r"GStreamer for Python is not here .*sudo apt install"):
        GStreamerCapture("videotestsrc")


def test_csi_pipelines() -> None:
    assert csi_sensor("csi://0") == 0
    assert csi_sensor("CSI://12/") == 12
    assert csi_sensor("0") is None
    text = csi_pipeline(1, (1920, 1080), 60)
    assert text.startswith("nvarguscamerasrc sensor-id=1 ! ")
    assert "width=1920,height=1080,framerate=60/1" in text
