"""Network cameras and streams (RTSP, HTTP, RTMP, SRT, UDP) and FFmpeg's devices, by PyAV."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from rt_swap.errors import SourceError
from rt_swap.frames import U8
from rt_swap.io.capture import CaptureInfo, Picture

logger = logging.getLogger(__name__)

SCHEMES: Final = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")
_OPEN_S: Final = 10.0
_READ_S: Final = 3.0
_LONGEST_WAIT_S: Final = 1.0


def is_network(spec: str) -> bool:
    """Whether a text is the address of a stream."""
    return spec.partition("://")[0].lower() in SCHEMES and "://" in spec


def without_secrets(url: str) -> str:
    """An address without user, password, query and fragment, for messages."""
    url = re.sub(r"(?<=://)[^/@]*@", "", url)
    return re.split(r"[?#]", url, maxsplit=1)[0]


def device_formats() -> frozenset[str]:
    """FFmpeg's input formats that this PyAV has."""
    import av

    return frozenset(av.formats_available)


class NetworkCapture:
    """A stream over the network. One of known length (a file on a server) is played in real time.

    Args:
        url: Its address; RTSP is asked for over TCP, which loses no packets.
        options: More options, in FFmpeg's words.
        device_format: FFmpeg's name of an input device, such as "dshow" on Windows or
            "avfoundation" on macOS; ``url`` is then the device's name.

    Raises:
        SourceError: If it cannot be reached, or shows no video.
    """

    def __init__(
        self,
        url: str,
        *,
        options: dict[str, str] | None = None,
        device_format: str | None = None,
    ) -> None:
        import av
        import av.error

        self._who = without_secrets(url)
        chosen: dict[str, str] = {}
        if url.lower().startswith("rtsp"):
            chosen["rtsp_transport"] = "tcp"
        chosen.update(options or {})
        self._container: Any = None
        self._closed = False
        self._lock = threading.Lock()  # a container must not be closed while it is read
        self._errors = (av.error.FFmpegError, OSError, ValueError)
        try:
            self._container = av.open(
                url, format=device_format, options=chosen, timeout=(_OPEN_S, _READ_S)
            )
            self._stream = next(iter(self._container.streams.video), None)
            if self._stream is None:
                raise SourceError(f"{self._who}: has no video")
            # frame threads would hold as many pictures back as there are threads
            self._stream.thread_type = "SLICE"
            self._stream.codec_context.flags |= 0x80000  # AV_CODEC_FLAG_LOW_DELAY
            self._frames: Iterator[Any] = self._container.decode(self._stream)
            self._is_file = device_format is None and bool(self._container.duration)
            self._began_s: float | None = None  # clock time of stream time 0
            self._waiting: Picture | None = self._next()
        except SourceError:
            self.close()
            raise
        except self._errors as exc:
            self.close()
            raise SourceError(
                f"{self._who}: cannot be opened ({_reason(exc)}); check the address, user and"
                " password, and that the camera is on"
            ) from exc
        if self._waiting is None:
            self.close()
            raise SourceError(f"{self._who}: shows no picture")
        height, width = self._waiting.frame_bgr.shape[:2]
        self._info = CaptureInfo(
            name=self._who,
            width=width,
            height=height,
            rate_hz=float(self._stream.average_rate or 0),
            format=self._stream.codec_context.name,
        )

    @property
    def info(self) -> CaptureInfo:
        """What was opened."""
        return self._info

    def read(self) -> Picture | None:
        """The next picture.

        Raises:
            SourceError: If none comes: the stream ended, the network is gone.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            return waiting
        try:
            with self._lock:
                picture = None if self._closed else self._next()
        except self._errors as exc:
            raise SourceError(f"{self._who}: gives no more pictures ({_reason(exc)})") from exc
        if picture is None:
            raise SourceError(f"{self._who}: gives no more pictures (the stream ended)")
        return picture

    def _next(self) -> Picture | None:
        frame = next(self._frames, None)
        if frame is None:
            return None
        if self._is_file:
            self._wait_until_due(frame.time)
        now = time.perf_counter()
        frame_bgr: U8 = np.ascontiguousarray(frame.to_ndarray(format="bgr24"), np.uint8)
        return Picture(frame_bgr, now)

    def _wait_until_due(self, stream_s: float | None) -> None:
        if stream_s is None:
            return
        now = time.perf_counter()
        if self._began_s is None:
            self._began_s = now - stream_s
        early_s = self._began_s + stream_s - now
        if early_s > 0:
            time.sleep(min(early_s, _LONGEST_WAIT_S))
        elif early_s < -_LONGEST_WAIT_S:  # the network was too slow: count anew
            self._began_s = now - stream_s

    def close(self) -> None:
        """Hang up; harmless when done twice."""
        self._closed = True
        with self._lock:  # a read comes to its end within _READ_S
            container, self._container = self._container, None
            if container is not None:
                container.close()


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return without_secrets(str(text))
