"""Video files in and out, by PyAV (FFmpeg's libraries).

What is kept: every frame and its time stamp (so a variable frame rate survives), the picture's
size, the colour matrix, range, transfer and primaries, the pixel aspect ratio, and all sound, whose
packets are copied and not re-encoded. What is not: bits beyond eight per channel, transparency,
subtitles and data streams.

H.264 and H.265 store 4:2:0 pictures of even size only. A picture of odd size is written as 4:4:4,
so that it keeps its exact size; most players on a computer show that, some phones and browsers do
not, and a warning says so.

Where a file does not say which colour matrix it uses, players take BT.709 for 720 lines and more
and BT.601 below; so do we. The same matrix and range are used on the way in and on the way out, and
the tags are written as they were found.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rt_swap.errors import ConfigError, ContractError, SinkError, SourceError
from rt_swap.frames import U8, Frame
from rt_swap.io.output import PartFile, sink_error
from rt_swap.io.picture import exif_orientation
from rt_swap.io.pixels import turned

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

DEFAULT_CODECS: Final[dict[str, str]] = {
    ".mp4": "libx264",
    ".m4v": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".avi": "libx264",
    ".ts": "libx264",
    ".webm": "libvpx-vp9",
}
"""Encoder by extension, where none is named."""

_ENCODER_OPTIONS: Final[dict[str, dict[str, str]]] = {
    # two cores also have to track, run the network and compose; slower presets save little at these
    # rates
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "veryfast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "b:v": "0"},
    "libsvtav1": {"preset": "10"},
    "libaom-av1": {"cpu-used": "8", "row-mt": "1"},
}
_HAS_CRF: Final = frozenset(_ENCODER_OPTIONS)
DEFAULT_CRF: Final[dict[str, int]] = {
    "libx264": 18,
    "libx265": 20,
    "libvpx-vp9": 24,
    "libsvtav1": 24,
    "libaom-av1": 24,
}
"""Constant-rate factor by encoder where none is given: hard to tell from the original."""

_MOV_SUFFIXES: Final = frozenset({".mp4", ".m4v", ".mov"})
_RGB_FORMATS: Final = ("bgr24", "bgr0")
_EVEN_ONLY: Final = frozenset({"libx264", "libx265"})

# FFmpeg's numbers (libavutil/pixfmt.h, libswscale/swscale.h)
_FRAME_DURATION: Final = (
    1 << 8
)  # AV_CODEC_FLAG_FRAME_DURATION: packets last as long as their frames
_UNSPECIFIED: Final = 2
_RANGE_UNSPECIFIED: Final = 0
_FULL_RANGE: Final = 2
_SPC_RGB: Final = 0
_SWS_BT709, _SWS_BT601, _SWS_SMPTE240M, _SWS_FCC, _SWS_BT2020 = 1, 5, 7, 4, 9
_SWS_FROM_SPC: Final[dict[int, int]] = {
    1: _SWS_BT709,
    4: _SWS_FCC,
    5: _SWS_BT601,
    6: _SWS_BT601,
    7: _SWS_SMPTE240M,
    9: _SWS_BT2020,
    10: _SWS_BT2020,
}
# swscale's flags. Its quick path truncates and darkens every picture by one to two levels. Each 2x2
# block's chroma is given to its four pixels on the way in and averaged over them on the way out, so
# that what was not changed comes back as it was (mean change 0.0 in luma, 0.04 in chroma).
_POINT, _BILINEAR, _AREA = 0x10, 0x2, 0x20
_FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE_ROUNDING = 0x2000, 0x4000, 0x40000
_READ_FLAGS: Final = _POINT | _FULL_CHROMA_OUT | _ACCURATE_ROUNDING
_SCALE_FLAGS: Final = _BILINEAR | _FULL_CHROMA_OUT | _ACCURATE_ROUNDING
_WRITE_FLAGS: Final = _AREA | _FULL_CHROMA_IN | _ACCURATE_ROUNDING
_HDR_TRANSFERS: Final[dict[int, str]] = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class ColourTags:
    """FFmpeg's numbers for matrix, range, transfer and primaries, as the file gives them (2, 0, 2,
    2 = not said).
    """

    colorspace: int = _UNSPECIFIED
    color_range: int = _RANGE_UNSPECIFIED
    color_trc: int = _UNSPECIFIED
    color_primaries: int = _UNSPECIFIED

    def sws_matrix(self, height: int) -> int:
        """Swscale's number of the matrix to convert with.

        Args:
            height: Lines of the picture; decides where the file does not say.
        """
        fallback = _SWS_BT709 if height >= 720 else _SWS_BT601
        return _SWS_FROM_SPC.get(self.colorspace, fallback)


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a video before its frames are read.

    Attributes:
        path: The file.
        width: Pixels, after rotation.
        height: Pixels, after rotation.
        rate: Average frames per second (25 where the file does not say).
        time_base: Seconds per unit of pts.
        duration_s: Length in seconds, or None where the file does not say.
        frame_count: Frames the file says it has, or None.
        has_audio: Whether there is sound.
        rotation: Degrees counter-clockwise by which the stored pictures are turned to stand
            upright: 0, 90, 180, 270.
        codec: FFmpeg's name of the decoder.
        container: FFmpeg's name of the format.
        colour: Colour tags; of RGB material, the tags the output will have.
        sample_aspect: Width of a pixel / its height.
        clock_offset_s: Subtracted from all times of formats with a free-running clock (MPEG-TS); 0
            elsewhere.
    """

    path: Path
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    duration_s: float | None
    frame_count: int | None
    has_audio: bool
    rotation: int = 0
    codec: str = ""
    container: str = ""
    colour: ColourTags = ColourTags()
    sample_aspect: Fraction = Fraction(1)
    clock_offset_s: Fraction = Fraction(0)


@dataclass(frozen=True)
class _Turn:
    """How stored pictures become upright: a transposition, then flips."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False
    degrees: int = 0

    def __bool__(self) -> bool:
        return self.transpose or self.flip_x or self.flip_y

    def apply(self, frame_bgr: U8) -> U8:
        return turned(frame_bgr, transpose=self.transpose, flip_x=self.flip_x, flip_y=self.flip_y)


@functools.cache
def _pyav_major() -> int:
    import av

    return int(av.__version__.split(".")[0])


def _conversion(side: str, matrix: int, color_range: int | None) -> dict[str, Any]:
    """Arguments for a conversion between RGB and YUV on one thread, whatever PyAV is there.

    Args:
        side: Where the YUV is: "src" or "dst".
        matrix: Swscale's number of its matrix.
        color_range: FFmpeg's number of its range; None where it is not known.
    """
    arguments: dict[str, Any] = {
        f"{side}_colorspace": matrix,
        f"{side}_color_range": color_range,
    }
    if _pyav_major() >= 17:
        arguments["threads"] = 1  # before, it always was
    else:
        # PyAV 16 sets a matrix only where both sides' differ; that of RGB does not count
        rgb_side = "dst" if side == "src" else "src"
        arguments[f"{rgb_side}_colorspace"] = _SWS_BT601 if matrix != _SWS_BT601 else _SWS_BT709
    return arguments


_EXIF_TURNS: Final = {
    1: _Turn(),
    2: _Turn(flip_x=True),
    3: _Turn(flip_x=True, flip_y=True, degrees=180),
    4: _Turn(flip_y=True),
    5: _Turn(transpose=True),
    6: _Turn(transpose=True, flip_x=True, degrees=270),
    7: _Turn(transpose=True, flip_x=True, flip_y=True),
    8: _Turn(transpose=True, flip_y=True, degrees=90),
}


def _turn_of(picture: VideoFrame, container: InputContainer, path: Path) -> _Turn:
    """How a file wants its pictures turned: by EXIF in a still picture, else by the display matrix.

    The matrix is 9 numbers a b u c d v x y w; a stored point (x, y) is shown at (a x + c y, b x +
    d y).
    """
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        return _EXIF_TURNS[exif_orientation(path)]
    try:
        side_data: Any = picture.side_data
    except ValueError:
        # PyAV 18 fails on side data newer than itself, as EXIF is; this loses mirroring only
        return _EXIF_TURNS[{90: 8, 180: 3, 270: 6}.get(round(picture.rotation) % 360, 1)]
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _Turn()
    a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(matrix), np.int32)[:5])
    if a == 0 and d == 0 and b and c:
        degrees = 0 if (b > 0) == (c > 0) else (90 if b < 0 else 270)
        return _Turn(True, c < 0, b < 0, degrees)
    if b == 0 and c == 0 and a and d:
        return _Turn(False, a < 0, d < 0, 180 if a < 0 and d < 0 else 0)
    logger.warning(
        "%s: asks to be shown turned by other than a quarter turn, which is left out", path
    )
    return _Turn()


def _open(path: Path) -> InputContainer:
    """Open a file for reading, by content.

    Raises:
        SourceError: See VideoReader.
    """
    import av

    try:
        if path.is_dir():
            raise SourceError(f"{path}: is a folder; give a video or picture file")
        if not path.exists():
            raise SourceError(f"{path}: there is no such file; check the spelling")
        if path.is_file() and path.stat().st_size == 0:
            raise SourceError(f"{path}: is empty (0 bytes); copy or download it again")
        # "file:" keeps a colon in a name from being taken for a protocol
        options = {"pattern_type": "none"} if "%" in path.name else {}  # else numbered pictures
        container = av.open(f"file:{path}", metadata_errors="ignore", options=options)
    except av.error.PermissionError as exc:
        raise SourceError(f"{path}: may not be read; check its permissions") from exc
    except av.error.FFmpegError as exc:
        raise SourceError(
            f"{path}: is not a video that can be read ({exc.strerror}); it may be cut short before"
            " its index, or be something else under a video's name. Try to play it, or convert it"
            " with: ffmpeg -i IN OUT.mp4"
        ) from exc
    except SourceError:
        raise
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    if container.format.name == "tty":  # FFmpeg draws any .txt as a terminal would
        container.close()
        raise SourceError(f"{path}: is a text file, not a video")
    return container


class VideoReader:
    """Reads a video file, frame by frame, upright, in BGR.

    Opening decodes the first frame, so what cannot be read fails at once. Single pass; a context
    manager. Pictures are read as a video of one frame. Damaged packets are skipped and counted;
    where the file ends before it should, iteration ends quietly and ``damage`` says so in one
    sentence.

    Args:
        path: The file.
        threads: Decoder threads; 0 lets FFmpeg decide.

    Attributes:
        info: See VideoInfo.
        frames_read: Frames given so far.
        last_duration: Units of ``info.time_base`` for which the latest frame is shown; None where
            the file does not say.

    Raises:
        SourceError: If the file is missing, a folder, empty, unreadable, not a video, has only
            sound or no frame.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        import av.error
        from av.video.reformatter import VideoReformatter

        self._path = Path(path)
        self._container = _open(self._path)
        try:
            self._stream = self._pick_stream()
            self._stream.thread_type = "AUTO"
            self._stream.thread_count = threads
            self._reformatter = VideoReformatter()
            self._errors = (av.error.FFmpegError,)
            self._eof = av.error.EOFError
            self.frames_read = 0
            self.last_duration: int | None = None
            self._packets_seen = 0
            self._damaged = 0
            self._end_s = 0.0  # where the last packet of any stream ends
            self._finished = False
            self._failure: str | None = None
            self._missing: str | None = None
            self._pictures = self._decode()
            first = next(self._pictures, None)
            if first is None:
                detail = f" ({self._failure})" if self._failure else ""
                raise SourceError(
                    f"{self._path}: has a video stream but not one frame that can be decoded"
                    f"{detail}; it is damaged or was never finished"
                )
            self._first: VideoFrame | None = first
            self._first_pts = first.pts
            self._turn = _turn_of(first, self._container, self._path)
            self._stored_wh = (first.width, first.height)
            self.info = self._read_info(first)
        except BaseException:
            self._container.close()
            raise
        colour = self.info.colour
        self._conversion = _conversion(
            "src", colour.sws_matrix(self.info.height), colour.color_range or None
        )
        self._last_pts: int | None = None
        if self.info.colour.color_trc in _HDR_TRANSFERS:
            logger.warning(
                "%s: is HDR (%s); it is handled with 8 bits per channel, gradients may show steps",
                self._path,
                _HDR_TRANSFERS[self.info.colour.color_trc],
            )

    # --- opening ---
    def _pick_stream(self) -> VideoStream:
        from av.stream import Disposition

        streams = [
            s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic
        ]
        if not streams:
            if self._container.streams.audio:
                raise SourceError(f"{self._path}: has sound but no pictures; give a video")
            raise SourceError(f"{self._path}: has neither pictures nor sound; give a video")
        # as players do: what is marked as default, else the largest
        streams.sort(
            # without a decoder a stream has no size
            key=lambda s: (
                s.codec_context is not None,
                bool(s.disposition & Disposition.default),
                s.width * s.height if s.codec_context is not None else 0,
            ),
            reverse=True,
        )
        stream = streams[0]
        if stream.codec_context is None:
            raise SourceError(
                f"{self._path}: no decoder for its video is here; convert it to H.264"
            )
        return stream

    def _read_info(self, first: VideoFrame) -> VideoInfo:
        stream, container = self._stream, self._container
        height, width = first.height, first.width
        if self._turn.transpose:
            height, width = width, height
        time_base = stream.time_base or first.time_base or Fraction(1, 25)
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        if not rate or rate <= 0 or rate > 1000:
            rate = Fraction(25)
        duration_s: float | None = None
        if stream.duration:
            duration_s = float(stream.duration * time_base)
        elif container.duration:
            duration_s = container.duration / 1_000_000
        aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1)
        if stream.sample_aspect_ratio:
            aspect = Fraction(stream.sample_aspect_ratio)
        if aspect <= 0:
            aspect = Fraction(1)
        if self._turn.transpose:
            aspect = 1 / aspect
        # formats whose clock starts anywhere
        free_clock = container.format.name in ("mpegts", "mpeg", "rtp", "rtsp", "hls")
        offset = Fraction(container.start_time or 0, 1_000_000) if free_clock else Fraction(0)
        if first.format.is_rgb or first.colorspace == _SPC_RGB:
            colour = ColourTags(1, 1, 1, 1)  # BT.709, limited range
        else:
            full = first.format.name.startswith("yuvj")
            context = stream.codec_context
            colour = ColourTags(
                int(first.colorspace),
                _FULL_RANGE if full else int(first.color_range),
                # PyAV 16 has these of the stream only
                int(getattr(first, "color_trc", context.color_trc)),
                int(getattr(first, "color_primaries", context.color_primaries)),
            )
        return VideoInfo(
            path=self._path,
            width=width,
            height=height,
            rate=Fraction(rate),
            time_base=time_base,
            duration_s=duration_s,
            frame_count=stream.frames or None,
            has_audio=bool(container.streams.audio),
            rotation=self._turn.degrees,
            codec=stream.codec_context.name,
            container=container.format.name,
            colour=colour,
            sample_aspect=aspect,
            clock_offset_s=offset,
        )

    # --- reading ---
    def _decode(self) -> Generator[VideoFrame, None, None]:
        streams = (self._stream, *self._container.streams.audio)
        packets = self._container.demux(*streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (
                self._errors
            ) as exc:  # the container itself is damaged here; what the decoder holds is still good
                self._failure = str(exc.strerror)
                with contextlib.suppress(*self._errors):
                    yield from self._stream.decode(None)
                return
            if packet.pts is not None and packet.time_base:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._end_s = max(self._end_s, end)
            if packet.stream.index != self._stream.index:
                continue
            self._packets_seen += packet.size > 0
            try:
                yield from packet.decode()  # type: ignore[misc]
            except self._eof:
                return
            except self._errors as exc:
                self._damaged += 1
                self._failure = str(exc.strerror)

    def __iter__(self) -> Iterator[Frame]:
        while not self._finished:
            if self._first is not None:
                picture, self._first = self._first, None
            else:
                following = next(self._pictures, None)
                if following is None:
                    self._finished = True
                    self._missing = self._cut_short()
                    return
                picture = following
            yield self._frame(picture)

    def rewind(self) -> bool:
        """Begin again at the first frame, without opening the file again.

        Returns:
            False where that cannot be done, as in a file that cannot be sought: open it anew then;
            this reader has ended.
        """
        self._pictures.close()
        self._first, self._finished = None, True
        try:
            self._container.seek(self._container.start_time or 0)
        except self._errors:
            return False
        self._packets_seen, self._failure = 0, None
        self._pictures = self._decode()
        first = next(self._pictures, None)
        if first is None or first.pts != self._first_pts:
            return False
        self._first, self._finished, self._last_pts = first, False, None
        return True

    def _frame(self, picture: VideoFrame) -> Frame:
        info = self.info
        step = max(round(1 / (info.rate * info.time_base)), 1)
        if picture.pts is not None:
            pts = picture.pts - round(info.clock_offset_s / info.time_base)
        else:
            pts = 0 if self._last_pts is None else self._last_pts + step
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1  # a broken clock must not cost a frame
        self._last_pts = pts
        self.last_duration = self._duration_of(picture, pts)
        self.frames_read += 1
        return Frame(self._bgr(picture), pts, info.time_base, time.perf_counter())

    def _duration_of(self, picture: VideoFrame, pts: int) -> int | None:
        """For how long a picture is shown, if it is the last one."""
        stream = self._stream
        if stream.duration is not None and picture.pts is not None:
            left = (stream.start_time or 0) + stream.duration - picture.pts
            # where the length of the track is sound, nothing knows better
            if left > 0 and "mov" in self.info.container:
                return left
        # with B-frames a packet's duration is that of another one
        if picture.duration and not stream.codec_context.has_b_frames:
            return picture.duration
        return None

    def _bgr(self, picture: VideoFrame) -> U8:
        # a stream may change its size on the way, the output cannot: all are scaled to the first
        width, height = self._stored_wh
        converted = self._reformatter.reformat(
            picture,
            width,
            height,
            "bgr24",
            interpolation=_READ_FLAGS if picture.width == width else _SCALE_FLAGS,
            **self._conversion,
        )
        plane = converted.planes[0]
        pixels: Any = plane  # a buffer, which its stub does not say
        rows = np.frombuffer(pixels, np.uint8).reshape(-1, plane.line_size)[:height, : 3 * width]
        if converted is picture:  # BGR as it came, which the decoder may go on reading
            frame_bgr = rows.copy().reshape(height, width, 3)
        elif plane.line_size == 3 * width:
            frame_bgr = rows.reshape(height, width, 3)  # a view; the array keeps the picture alive
        else:
            frame_bgr = np.ascontiguousarray(rows).reshape(height, width, 3)
        return self._turn.apply(frame_bgr) if self._turn else frame_bgr

    @property
    def damage(self) -> str | None:
        """One sentence on what is wrong with the file, or None. Complete after the last frame."""
        parts = []
        if self._damaged:
            parts.append(f"{self._damaged} damaged packet{'s' * (self._damaged > 1)} skipped")
        if self._missing:
            parts.append(self._missing)
        elif self._failure and not self._damaged:
            parts.append(self._failure)
        if not parts:
            return None
        return f"{self._path}: {self.frames_read} frames could be read: {', '.join(parts)}"

    def _cut_short(self) -> str | None:
        """Whether the file ended before its own index or header says it should."""
        indexed = 0
        if "mov" in self.info.container:
            # PyAV 16 does not show the index
            indexed = len(getattr(self._stream, "index_entries", ()))
        elif self.info.container == "avi":
            indexed = self._stream.frames
        if indexed:
            if self._packets_seen < indexed:
                return f"the file is cut short, its index lists {indexed}"
            return None
        declared_us = self._container.duration
        # what MPEG-TS, raw streams and pictures declare is FFmpeg's guess from the file's size
        if declared_us is None or not {"mov", "matroska", "webm", "flv", "asf"} & set(
            self.info.container.split(",")
        ):
            return None
        declared_s = declared_us / 1_000_000
        if self._end_s < declared_s - max(0.5, 3 / float(self.info.rate)):
            return f"the file is cut short at {self._end_s:.1f} s of {declared_s:.1f} s"
        return None

    # --- lifetime ---
    def close(self) -> None:
        """Close the file; harmless when done twice."""
        self._first = None
        self._pictures.close()  # it holds this reader, which holds it: a dozen MiB until collected
        self._container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _AudioCopy:
    """Copies the packets of all audio streams of a file, in step with the pictures."""

    def __init__(
        self, info: VideoInfo, container: av.container.OutputContainer, path: Path
    ) -> None:
        self._input = _open(info.path)
        self._path = info.path
        self._skips = False
        self._offset_s = info.clock_offset_s
        self._container = container
        self._out = {}
        self._names: list[str] = []
        for stream in self._input.streams.audio:
            name = stream.codec_context.name if stream.codec_context else "unknown"
            try:
                copy = container.add_stream_from_template(stream)
            except ValueError as exc:
                self._input.close()
                raise _cannot_hold(path, name, info.path) from exc
            copy.metadata.update(stream.metadata)
            marks: Any = stream.disposition
            copy.disposition = getattr(marks, "value", marks)  # PyAV 16 takes the bare number
            self._out[stream.index] = copy
            self._names.append(name)
        self._packets = iter(self._input.demux(*self._input.streams.audio))
        self._waiting: Packet[Any] | None = None
        self._done = not self._out

    @property
    def codecs(self) -> str:
        return ", ".join(dict.fromkeys(self._names))

    def advance(self, until_s: float | None) -> None:
        """Mux all packets that start before a time; None: all that is left."""
        import av.error

        while not self._done:
            packet = self._waiting
            if packet is None:
                try:
                    packet = next(self._packets)
                except StopIteration:
                    self._done = True
                    return
                except av.error.FFmpegError as exc:
                    logger.warning(
                        "%s: the sound ends early, the file is damaged there: %s",
                        self._path,
                        exc.strerror,
                    )
                    self._done = True
                    return
                if packet.dts is None and packet.pts is None:  # the demuxer's end marks
                    continue
                if self._offset_s:
                    shift = round(self._offset_s / packet.time_base)
                    packet.pts = None if packet.pts is None else packet.pts - shift
                    packet.dts = None if packet.dts is None else packet.dts - shift
            start = packet.dts if packet.dts is not None else packet.pts
            assert start is not None
            if until_s is not None and start * packet.time_base >= until_s:
                self._waiting = packet
                return
            self._waiting = None
            packet.stream = self._out[packet.stream_index]
            try:
                self._container.mux_one(packet)
            except (
                ValueError,  # as which "Invalid argument" comes, whatever its own name
                av.error.InvalidDataError,
                av.error.PatchWelcomeError,
            ) as exc:
                if not self._skips:  # damaged sound must not cost the pictures
                    logger.warning(
                        "%s: sound is damaged in places and left out there: %s",
                        self._path,
                        getattr(exc, "strerror", exc),
                    )
                self._skips = True

    def close(self) -> None:
        self._input.close()


def _cannot_hold(path: Path, codecs: str, source: Path) -> SinkError:
    elsewhere = ""
    if path.suffix.lower() != ".mkv":  # which holds nearly everything
        elsewhere = f"write to {path.with_suffix('.mkv').name} instead, or "
    return SinkError(
        f"{path}: a {path.suffix} file cannot hold the sound of {source} ({codecs}) unchanged;"
        f" {elsewhere}leave the sound out with --no-audio"
    )


class VideoWriter:
    """Writes a video file like another one.

    A context manager: finishes on success, throws everything away on an exception.

    Args:
        path: The output; its extension decides the container.
        like: The video whose rate, time base, colours and pixel shape are taken over.
        size_wh: Size where it is not ``like``'s.
        codec: FFmpeg's name of the encoder; None takes the container's usual one (H.264, or VP9 in
            .webm).
        crf: Constant-rate factor, smaller is better and larger; None takes the encoder's default
            here.
        audio_from: File whose sound is copied, or None for silence.
        overwrite: Replace an existing file.
        inputs: More files that are being read; the output may not be one of them.
        options: More options for the encoder, in FFmpeg's words.
        threads: Encoder threads; 0 lets the encoder decide.
        seal: See PartFile.

    Attributes:
        path: The output.
        frames: Frames taken so far.

    Raises:
        SinkError: If the path cannot be used (see PartFile) or the container cannot hold what is
            asked for.
        ConfigError: If codec or crf is wrong.
    """

    def __init__(
        self,
        path: str | Path,
        like: VideoInfo,
        *,
        size_wh: tuple[int, int] | None = None,
        codec: str | None = None,
        crf: int | None = None,
        audio_from: VideoInfo | None = None,
        overwrite: bool = False,
        inputs: Iterable[Path] = (),
        options: Mapping[str, str] | None = None,
        threads: int = 0,
        seal: Callable[[Path], None] | None = None,
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self.path = Path(path)
        self.frames = 0
        self._width, self._height = size_wh or (like.width, like.height)
        self._like = like
        read = [info.path for info in (like, audio_from) if info is not None]
        self._part = PartFile(self.path, overwrite=overwrite, inputs=[*read, *inputs], seal=seal)
        self._container: av.container.OutputContainer | None = None
        self._audio: _AudioCopy | None = None
        self._reformatter = VideoReformatter()
        self._conversion = _conversion(
            "dst", like.colour.sws_matrix(like.height), like.colour.color_range or 1
        )
        self._first_pts: int | None = None
        self._last_pts: int | None = None
        self._first_dts: Fraction | None = None
        self._held: VideoFrame | None = None
        try:
            self._codec = _choose_codec(self.path, codec)
            self._options = _encoder_options(self._codec, crf, options)
            self._open_output(like, audio_from, threads)
        except BaseException:
            self.abort()
            raise

    def _open_output(self, like: VideoInfo, audio_from: VideoInfo | None, threads: int) -> None:
        import av
        import av.error

        try:
            self._container = av.open(f"file:{self._part.part}", "w")
        except (ValueError, av.error.FFmpegError) as exc:
            if getattr(exc, "errno", None):
                raise sink_error(self.path, exc, "opening it") from exc
            raise SinkError(
                f"{self.path}: FFmpeg knows no video format {self.path.suffix!r};"
                " use .mp4, .mkv or .webm"
            ) from exc
        container = self._container
        container.metadata.update(_kept_metadata(like.path))
        try:
            added: Any = container.add_stream(
                self._codec,
                rate=like.rate,
                options=self._options,
                width=self._width,
                height=self._height,
                time_base=like.time_base,
            )
        except ValueError as exc:
            raise SinkError(
                f"{self.path}: a {self.path.suffix} file cannot hold video made by {self._codec};"
                " name another --codec or write to .mkv"
            ) from exc
        stream: VideoStream = added
        stream.pix_fmt = self._pixel_format(stream.codec_context.codec.video_formats)
        context = stream.codec_context
        self._colour = like.colour
        if stream.pix_fmt in _RGB_FORMATS:  # or players would take the three planes for YUV
            self._colour = replace(like.colour, colorspace=_SPC_RGB, color_range=_FULL_RANGE)
        for name, value in vars(self._colour).items():
            setattr(context, name, value)
        context.sample_aspect_ratio = like.sample_aspect
        context.thread_count = threads
        context.flags |= _FRAME_DURATION
        self._stream = stream
        if audio_from is not None and audio_from.has_audio:
            self._audio = _AudioCopy(audio_from, container, self.path)
        try:
            context.open(strict=False)
        except av.error.FFmpegError as exc:
            raise SinkError(
                f"{self.path}: the encoder {self._codec} does not take {self._width}x{self._height}"
                f" pictures at time base {like.time_base} ({exc.strerror}); name another --codec"
            ) from exc
        try:
            container.start_encoding()  # writes the header: what it cannot hold fails now
        except av.error.FFmpegError as exc:
            if self._audio is not None and getattr(exc, "errno", None) in (22, None):
                raise _cannot_hold(self.path, self._audio.codecs, like.path) from exc
            raise sink_error(self.path, exc, "writing its header") from exc

    def _pixel_format(self, formats: Any) -> str:
        names = [f.name for f in formats or ()]
        odd = self._width % 2 or self._height % 2
        wanted = ["yuv420p", "yuv422p10le", "yuv444p", *_RGB_FORMATS]
        if odd and self._codec in _EVEN_ONLY:
            wanted.insert(0, "yuv444p")
            logger.warning(
                "%s: %dx%d is odd, so it is written as 4:4:4, which keeps the exact size but which"
                " some phones and browsers do not play",
                self.path,
                self._width,
                self._height,
            )
        for name in wanted:
            if name in names or not names:
                return name
        raise ConfigError(
            f"--codec {self._codec}: takes none of {', '.join(wanted)} but {', '.join(names)};"
            " name another encoder, as libx264"
        )

    def write(self, frame: Frame) -> None:
        """Encode one frame and all sound up to it.

        Args:
            frame: Of the size given at the start; its array is not kept.

        Raises:
            ContractError: If size or type is wrong or its time does not come after the last one's.
            SinkError: If writing fails.
        """
        import av
        import av.error

        if self._container is None:
            raise SinkError(f"{self.path}: a frame came after the file was completed")
        frame_bgr = frame.frame_bgr
        if frame_bgr.shape != (self._height, self._width, 3) or frame_bgr.dtype != np.uint8:
            raise ContractError(
                f"VideoWriter.write: frame_bgr must be uint8 ({self._height}, {self._width}, 3),"
                f" got {frame_bgr.dtype} {frame_bgr.shape}",
                expected=f"uint8 ({self._height}, {self._width}, 3)",
                actual=f"{frame_bgr.dtype} {frame_bgr.shape}",
            )
        pts = frame.pts
        if frame.time_base != self._like.time_base:
            pts = round(pts * frame.time_base / self._like.time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            raise ContractError(
                f"VideoWriter.write: times must ascend, got pts {pts} after {self._last_pts}"
            )
        self._last_pts = pts
        if self._first_pts is None:
            self._first_pts = pts
        frame_bgr = np.ascontiguousarray(frame_bgr)
        if self._stream.pix_fmt == "bgr24":  # not converted, and encoders look at it later on
            frame_bgr = frame_bgr.copy()
        picture = av.VideoFrame.from_numpy_buffer(frame_bgr, "bgr24")
        # PyAV 17 knows no number for BT.2020, but hands the picture's own tag on
        picture.colorspace = self._colour.colorspace
        picture = self._reformatter.reformat(
            picture,
            format=self._stream.pix_fmt,
            interpolation=_WRITE_FLAGS,
            **self._conversion,
        )
        picture.pts, picture.time_base = pts, self._like.time_base
        for name, value in vars(self._colour).items():
            if hasattr(picture, name):  # PyAV 16 knows two of the four
                setattr(picture, name, value)
        try:
            self._encode_held(pts)
            self._held = picture
            if self._audio is not None:
                self._audio.advance(float(pts * self._like.time_base))
        except (av.error.FFmpegError, OSError) as exc:
            raise sink_error(self.path, exc, "writing") from exc
        self.frames += 1

    def _encode_held(self, following_pts: int) -> None:
        """Encode the frame before this one, now that it is known for how long it is shown."""
        held, self._held = self._held, None
        if held is None or self._container is None:
            return
        assert held.pts is not None
        held.duration = following_pts - held.pts
        for packet in self._stream.encode(held):
            self._mux(packet)

    def _mux(self, packet: Packet[Any]) -> None:
        assert self._container is not None
        if self._first_dts is None and packet.dts is not None:
            self._first_dts = Fraction(packet.dts * packet.time_base)
        self._container.mux_one(packet)

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Write what is left and give the file its final name.

        Args:
            last_duration: How long the last frame is shown, in units of its time base.
            cut_audio: End the sound with the last frame (after an interruption).

        Raises:
            SinkError: If the disk is full, or no frame was written; nothing is left then.
        """
        import av.error

        if self._container is None:
            return
        if self.frames == 0:
            self.abort()
            raise SinkError(f"{self.path}: not one frame was written, so there is no file")
        like = self._like
        duration = last_duration or max(round(1 / (like.rate * like.time_base)), 1)
        assert self._last_pts is not None
        end_s = (self._last_pts + duration) * like.time_base
        try:
            self._encode_held(self._last_pts + duration)
            packets = self._stream.encode(None)
            if packets and self.path.suffix.lower() in _MOV_SUFFIXES:
                self._stretch_last(packets, end_s)
            for packet in packets:
                self._mux(packet)
            if self._audio is not None:
                self._audio.advance(float(end_s) if cut_audio else None)
            container, self._container = self._container, None
            container.close()
        except (av.error.FFmpegError, OSError) as exc:
            self.abort()
            raise sink_error(self.path, exc, "completing it") from exc
        except BaseException:
            self.abort()
            raise
        if self._audio is not None:
            self._audio.close()
        self._part.commit()

    def _stretch_last(self, packets: Sequence[Packet[Any]], end_s: Fraction) -> None:
        """Make the last packet last until the end.

        MP4 and MOV take a track's length from the last packet in order of decoding, which with
        B-frames is not the one that is shown last.
        """
        packet, first_s = packets[-1], self._first_dts
        if first_s is None and packets[0].dts is not None:  # the encoder held all of them back
            first_s = Fraction(packets[0].dts * packets[0].time_base)
        if packet.dts is None or first_s is None or self._first_pts is None:
            return
        shown_s = end_s - self._first_pts * self._like.time_base
        decoded_s = packet.dts * packet.time_base - first_s
        packet.duration = max(round((shown_s - decoded_s) / packet.time_base), 1)

    def abort(self) -> None:
        """Throw away what was written; never raises; harmless after finish."""
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except (
                Exception
            ):  # the file is removed anyway, and the first error is the one to report
                logger.debug("closing %s failed", self._part.part, exc_info=True)
        if self._audio is not None:
            self._audio.close()
        self._part.discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()


def _choose_codec(path: Path, codec: str | None) -> str:
    """The encoder's name, checked.

    Raises:
        ConfigError: If FFmpeg's libraries here have no such video encoder.
        SinkError: If the extension is none we know a usual encoder for.
    """
    import av.codec

    if codec is None:
        try:
            return DEFAULT_CODECS[path.suffix.lower()]
        except KeyError:
            raise SinkError(
                f"{path}: {path.suffix or 'no extension'} is not a video format written here;"
                f" use {', '.join(DEFAULT_CODECS)}, or name an encoder with --codec"
            ) from None
    try:
        found = av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        found = None
    if found is None or found.type != "video":
        usual = [n for n in DEFAULT_CRF if n in av.codec.codecs_available]
        raise ConfigError(
            f"--codec {codec}: there is no such video encoder here; try {', '.join(usual)} or ffv1"
        )
    return found.name


def _encoder_options(codec: str, crf: int | None, more: Mapping[str, str] | None) -> dict[str, str]:
    options = dict(_ENCODER_OPTIONS.get(codec, {}))
    if crf is not None:
        top = 51 if codec in _EVEN_ONLY else 63
        if codec not in _HAS_CRF:
            raise ConfigError(f"--crf: the encoder {codec} has no such setting; leave it out")
        if not 0 <= crf <= top:
            raise ConfigError(f"--crf: must be 0 to {top} for {codec}, got {crf}")
        options["crf"] = str(crf)
    elif codec in DEFAULT_CRF:
        options["crf"] = str(DEFAULT_CRF[codec])
    options.update(more or {})
    return options


_KEPT_METADATA: Final = (
    "title",
    "artist",
    "album",
    "date",
    "genre",
    "copyright",
    "creation_time",
    "location",
)


def _kept_metadata(path: Path) -> dict[str, str]:
    """The file's own title and so on, and a comment that says what was done to it."""
    kept = {"comment": "facial expression altered with rt_swap"}
    try:
        with _open(path) as container:
            kept.update({k: v for k, v in container.metadata.items() if k in _KEPT_METADATA})
    except SourceError:
        pass  # like.path need not exist for a made-up VideoInfo
    return kept
