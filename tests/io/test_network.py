"""Network streams, from a real server on this machine."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rt_swap.errors import SourceError
from rt_swap.io.network import NetworkCapture, is_network, without_secrets
from tests.support.videos import numbered, write_video


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield tmp_path, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join(5.0)


def test_stream_over_http_gives_every_picture_then_ends_as_an_error(
    server: tuple[Path, str],
) -> None:
    folder, url = server
    pictures = numbered(6, 48, 64)
    write_video(folder / "s.ts", pictures, codec="mpeg2video", options={"bf": "0"})
    capture = NetworkCapture(f"{url}/s.ts?token=secret")
    assert capture.info.name == f"{url}/s.ts"
    assert (capture.info.width, capture.info.height) == (64, 48)
    got = [picture for _ in pictures if (picture := capture.read()) is not None]
    with pytest.raises(SourceError, match="the stream ended") as caught:
        capture.read()
    assert "secret" not in str(caught.value)
    assert len(got) == 6
    for picture, expected in zip(got, pictures, strict=True):
        assert np.abs(picture.frame_bgr.astype(int) - expected).mean() < 12
    assert [p.captured_s for p in got] == sorted(p.captured_s for p in got)
    capture.close()
    capture.close()
    with pytest.raises(SourceError, match="gives no more pictures"):
        capture.read()


def test_error_addresses(server: tuple[Path, str]) -> None:
    folder, url = server
    (folder / "text.ts").write_text("this is no video" * 100, encoding="utf-8")
    write_video(folder / "sound.mp4", numbered(1), audio=["aac"])
    with pytest.raises(SourceError, match=r"none\.ts: cannot be opened .*check the address"):
        NetworkCapture(f"{url}/none.ts")
    with pytest.raises(SourceError, match=r"text\.ts: cannot be opened"):
        NetworkCapture(f"{url}/text.ts")
    with pytest.raises(SourceError, match=r"rtsp://127\.0\.0\.1:9/x: cannot be opened"):
        NetworkCapture("rtsp://user:password@127.0.0.1:9/x")


def test_addresses_and_their_secrets() -> None:
    assert is_network("rtsp://camera/1")
    assert is_network("HTTP://camera")
    assert not is_network("csi://0")
    assert not is_network("http")
    assert not is_network("C:/clips/http.mp4")
    assert without_secrets("rtsp://me:pass@cam:554/a?x=1#y") == "rtsp://cam:554/a"
    assert without_secrets("http://cam/a@b") == "http://cam/a@b"
