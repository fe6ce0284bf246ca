"""Small video files made on the spot, and what is in a file according to PyAV itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rt_swap.frames import U8

RATE = 25


def quadrants_bgr(height: int = 48, width: int = 64) -> U8:
    """Four colours, one a quadrant, so that any turn, flip or exchange of channels shows."""
    picture = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    picture[:h, :w], picture[:h, w:] = (20, 10, 250), (30, 240, 15)
    picture[h:, :w], picture[h:, w:] = (230, 35, 25), (120, 120, 120)
    return picture


def numbered(count: int, height: int = 48, width: int = 64) -> list[U8]:
    """Pictures that differ: quadrants with a bar that grows from left to right."""
    pictures = []
    for i in range(count):
        picture = quadrants_bgr(height, width)
        picture[height // 3 : height // 3 + 4, : (i + 1) * width // count] = 255
        pictures.append(picture)
    return pictures


def write_video(
    path: Path,
    pictures: Sequence[U8],
    *,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, RATE),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    audio: Sequence[str] = (),
    audio_s: float | None = None,
    rotation: int | None = None,
    tags: dict[str, int] | None = None,
    aspect: Fraction | None = None,
    container_options: dict[str, str] | None = None,
    last_duration: int | None = None,
) -> Path:
    """Write pictures as a video, in plain PyAV.

    Args:
        path: Its extension decides the container.
        pictures: (H, W, 3) uint8 BGR each.
        pts: Time stamps; None: 0, 1, 2, ...
        time_base: Seconds per unit of pts.
        codec: Encoder.
        pix_fmt: Pixel format.
        options: Encoder options.
        audio: Encoders of the audio streams, one tone each.
        audio_s: Seconds of sound; None: as long as the pictures.
        rotation: Degrees of the display matrix, counter-clockwise as FFmpeg counts.
        tags: Colour attributes of the codec context.
        aspect: Sample aspect ratio.
        container_options: As movflags.
        last_duration: Units for which the last frame is shown.
    """
    pts = list(range(len(pictures))) if pts is None else list(pts)
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(
            codec, rate=RATE, width=width, height=height, time_base=time_base, options=options or {}
        )
        stream.pix_fmt = pix_fmt
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("needs PyAV 17 or later to write a display matrix")
            stream.set_display_rotation(rotation)
        sounds: list[Any] = [_add_audio(container, name) for name in audio]
        matrix = {1: 1, 9: 9}.get((tags or {}).get("colorspace", 2), 5)
        for picture, at in zip(pictures, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            frame.colorspace = (tags or {}).get("colorspace", 2)  # PyAV 17.1 takes BT.2020 of here
            frame = frame.reformat(
                format=pix_fmt,
                src_colorspace=5 if matrix == 1 else 1,  # of RGB: only PyAV 16 looks, see _bgr
                dst_colorspace=matrix,
                dst_color_range=(tags or {}).get("color_range") or 1,
                interpolation=0x40000 | 0x20,  # accurate rounding, area
            )
            frame.pts, frame.time_base = at, time_base
            container.mux(stream.encode(frame))
        for packet in stream.encode(None):
            if last_duration is not None:  # needs packets in order of display: no B-frames
                packet.duration = round(last_duration * time_base / packet.time_base)
            container.mux(packet)
        seconds = float((pts[-1] + 1) * time_base) if audio_s is None else audio_s
        for number, sound in enumerate(sounds):
            _write_tone(container, sound, seconds, 330.0 * (number + 1))
    return path


def _add_audio(container: Any, codec: str) -> Any:
    sound = container.add_stream(codec, rate=48000)
    sound.layout = "stereo"
    if codec.startswith("wma"):
        sound.bit_rate = 128_000
    return sound


def _write_tone(container: Any, sound: Any, seconds: float, hertz: float) -> None:
    format_ = sound.codec_context.format.name
    resampler = av.AudioResampler(format=format_, layout="stereo", rate=48000, frame_size=1024)
    length = round(seconds * 48000)
    tone = (12000 * np.sin(np.arange(length) * 2 * np.pi * hertz / 48000)).astype(np.int16)
    for start in range(0, length, 1024):
        part = np.repeat(tone[start : start + 1024], 2)[None]
        frame = av.AudioFrame.from_ndarray(part, "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        for ready in resampler.resample(frame):
            container.mux(sound.encode(ready))
    for ready in resampler.resample(None):
        container.mux(sound.encode(ready))
    container.mux(sound.encode(None))


@dataclass(frozen=True)
class Probed:
    """What a file holds.

    Attributes:
        times: Time of each picture, in seconds, exactly.
        pictures: (H, W, 3) uint8 BGR each, as stored (not turned).
        sounds: One list per audio stream: (time in seconds, hash of the packet's bytes).
        stream: Properties of the video stream.
        duration: Of the video stream in seconds, or None.
    """

    times: list[Fraction]
    pictures: list[U8]
    sounds: list[list[tuple[Fraction, str]]]
    stream: dict[str, Any]
    duration: Fraction | None


def probe(path: Path) -> Probed:
    """Look into a file with PyAV, independently of rt_swap."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        times, pictures = [], []
        for frame in container.decode(video):
            times.append(Fraction(frame.pts * frame.time_base))
            pictures.append(_bgr(frame))
            last = frame
        context = video.codec_context
        stream = {
            "codec": context.name,
            "pix_fmt": context.pix_fmt,
            "size_wh": (context.width, context.height),
            "aspect": context.sample_aspect_ratio,
            "rotation": last.rotation,
            "container": container.format.name,
            "metadata": dict(container.metadata),
            **{
                name: int(getattr(last, name, getattr(context, name)))
                for name in ("color_range", "colorspace", "color_trc", "color_primaries")
            },
        }
        duration = Fraction(video.duration * video.time_base) if video.duration else None
    sounds = []
    with av.open(str(path)) as container:
        for sound in container.streams.audio:
            with av.open(str(path)) as again:
                packets = [
                    (Fraction(p.pts * p.time_base), hashlib.sha256(bytes(p)).hexdigest())
                    for p in again.demux(again.streams[sound.index])
                    if p.pts is not None and p.size
                ]
            sounds.append(packets)
    return Probed(times, pictures, sounds, stream, duration)


def _bgr(frame: av.VideoFrame) -> U8:
    """A decoded picture in BGR by its own tag, or BT.601 where it has none."""
    matrix = {1: 1, 9: 9}.get(int(frame.colorspace), 5)
    # PyAV 16 looks at a matrix only where the two differ
    converted = frame.reformat(
        format="bgr24", src_colorspace=matrix, dst_colorspace=5 if matrix == 1 else 1
    )
    return np.asarray(converted.to_ndarray(), np.uint8)


def moving_portrait(count: int, height: int = 240, width: int = 320) -> list[U8]:
    """The public-domain portrait of scikit-image under a moving camera."""
    import cv2
    import skimage.data

    portrait = np.ascontiguousarray(skimage.data.astronaut()[:, :, ::-1])
    face_xy, zoom = (220.0, 120.0), height / 240.0
    pictures = []
    for i in range(count):
        t = i / RATE
        M = cv2.getRotationMatrix2D(face_xy, 4 * np.sin(2 * t), zoom * (1 + 0.05 * np.sin(t)))
        M[:, 2] += (
            width / 2 - face_xy[0] + 8 * np.sin(3 * t),
            height / 2 - face_xy[1] + 6 * np.cos(2 * t),
        )
        moved = cv2.warpAffine(portrait, M, (width, height), borderMode=cv2.BORDER_REFLECT)
        pictures.append(np.asarray(moved, np.uint8))
    return pictures
