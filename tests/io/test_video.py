"""Video files: what goes in comes out, at its time, with its sound; what is no video is told so."""

from __future__ import annotations

import gc
import io
import itertools
import logging
import os
import re
import shutil
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_swap.errors import ConfigError, ContractError, SinkError, SourceError
from rt_swap.frames import Frame
from rt_swap.io.picture import read_picture
from rt_swap.io.video import VideoReader, VideoWriter
from tests.support.videos import Probed, numbered, probe, quadrants_bgr, write_video

LOSSLESS = {"qp": "0", "preset": "ultrafast"}


def copy_video(source: Path, out: Path, **options: Any) -> Probed:
    """Read and write a file as the pipeline does, changing nothing."""
    with VideoReader(source) as reader:
        options.setdefault("audio_from", reader.info)
        with VideoWriter(out, reader.info, **options) as writer:
            for frame in reader:
                writer.write(frame)
            writer.finish(last_duration=reader.last_duration)
    return probe(out)


def corners(picture_bgr: np.ndarray) -> list[tuple[int, ...]]:
    h, w = picture_bgr.shape[:2]
    at = [(h // 8, w // 8), (h // 8, w - w // 8), (h - h // 8, w // 8), (h - h // 8, w - w // 8)]
    return [tuple(int(v) for v in picture_bgr[y, x]) for y, x in at]


def assert_alike(actual: np.ndarray, expected: np.ndarray, tolerance: float = 6.0) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected.astype(int)).mean() < tolerance


# --- reading ---
def test_reader_gives_every_frame_with_its_own_time(tmp_path: Path) -> None:
    pictures = numbered(7)
    write_video(tmp_path / "a.mp4", pictures, options=LOSSLESS)
    with VideoReader(tmp_path / "a.mp4") as reader:
        info = reader.info
        frames = list(reader)
    assert (info.width, info.height, info.rate) == (64, 48, 25)
    assert info.frame_count == 7
    assert info.duration_s == pytest.approx(7 / 25)
    assert not info.has_audio
    assert [Fraction(f.pts * f.time_base) for f in frames] == [Fraction(i, 25) for i in range(7)]
    for frame, picture in zip(frames, pictures, strict=True):
        assert frame.frame_bgr.flags.c_contiguous
        assert frame.frame_bgr.dtype == np.uint8
        assert_alike(frame.frame_bgr, picture)
    assert reader.damage is None
    assert reader.frames_read == 7


def test_reader_frames_stay_valid_after_the_next_one_and_after_close(tmp_path: Path) -> None:
    pictures = numbered(5)
    write_video(tmp_path / "a.mkv", pictures, codec="ffv1", pix_fmt="bgr0")
    with VideoReader(tmp_path / "a.mkv") as reader:
        frames = list(reader)
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.frame_bgr, picture)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"codec": "libx264", "audio": ["aac"]}),
        ("a.mkv", {"codec": "libx264", "options": {"bf": "2"}}),
    ],
)
def test_rewind_gives_the_same_frames_again(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    write_video(tmp_path / name, numbered(30), **options)
    with VideoReader(tmp_path / name) as reader:
        rounds = [[(f.pts, f.frame_bgr.tobytes()) for f in reader]]
        assert reader.rewind()
        next(iter(reader))  # from the middle, too
        assert reader.rewind()
        rounds.append([(f.pts, f.frame_bgr.tobytes()) for f in reader])
        assert reader.damage is None
    assert len(rounds[0]) == 30
    assert rounds[1] == rounds[0]


def test_rewind_says_where_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", numbered(5))
    with VideoReader(tmp_path / "a.mp4") as reader:
        first = next(iter(reader))
        monkeypatch.setattr(reader, "_first_pts", first.pts + 7)  # as if seeking landed elsewhere
        assert not reader.rewind()
        assert list(reader) == []


def test_a_closed_reader_is_gone_at_once(tmp_path: Path) -> None:
    """Without the collector of cycles: each keeps a decoder's buffers, a dozen MiB at 720p."""
    write_video(tmp_path / "a.mp4", numbered(5))
    gc.collect()
    gc.disable()
    try:
        reader = VideoReader(tmp_path / "a.mp4")
        frames = iter(reader)
        next(frames)
        reader.close()
        gone = weakref.ref(reader)
        del reader, frames
        assert gone() is None
    finally:
        gc.enable()


def test_reader_frames_are_the_callers_to_write_into(tmp_path: Path) -> None:
    # a screen recorder's codec: it decodes to BGR, and each picture into the one before
    pictures = [numbered(1)[0].copy() for _ in range(4)]
    for i, picture in enumerate(pictures):
        picture[:8, :8] = 60 * i
    write_video(tmp_path / "a.flv", pictures, codec="flashsv", pix_fmt="bgr24")
    with VideoReader(tmp_path / "a.flv") as reader:
        for frame, picture in zip(reader, pictures, strict=True):
            np.testing.assert_array_equal(frame.frame_bgr, picture)
            frame.frame_bgr[...] = 255


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx265", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mkv", "ffv1", "yuv444p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.mkv", "mjpeg", "yuvj420p"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("a.mkv", "libx264", "gray"),
    ],
)
def test_reader_reads_codecs(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    pictures = numbered(4)
    tags = {"color_range": 2} if pix_fmt == "yuvj420p" else None
    write_video(tmp_path / name, pictures, codec=codec, pix_fmt=pix_fmt, options=options, tags=tags)
    with VideoReader(tmp_path / name) as reader:
        frames = list(reader)
    assert len(frames) == 4
    for frame, picture in zip(frames, pictures, strict=True):
        if pix_fmt == "gray":
            assert np.ptp(frame.frame_bgr.astype(int), axis=2).max() <= 2
        else:
            assert_alike(frame.frame_bgr, picture, 12.0)


@pytest.mark.parametrize(
    ("rotation", "turned"),
    [
        (90, lambda p: np.rot90(p, 1)),
        (180, lambda p: np.rot90(p, 2)),
        (-90, lambda p: np.rot90(p, -1)),
    ],
)
def test_convention_rotation_flag_turns_the_pixels(
    tmp_path: Path, rotation: int, turned: Any
) -> None:
    write_video(tmp_path / "a.mp4", [quadrants_bgr()] * 2, options=LOSSLESS, rotation=rotation)
    assert probe(tmp_path / "a.mp4").stream["rotation"] in (
        rotation,
        -180 if rotation == 180 else 0,
    )
    with VideoReader(tmp_path / "a.mp4") as reader:
        info, frames = reader.info, list(reader)
    expected = turned(quadrants_bgr())
    assert (info.height, info.width) == expected.shape[:2]
    assert info.rotation == rotation % 360
    assert_alike(frames[1].frame_bgr, expected)
    assert frames[1].frame_bgr.flags.c_contiguous
    out = copy_video(tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert out.stream["rotation"] == 0
    assert_alike(out.pictures[0], expected)


def test_reader_mirror_in_the_display_matrix_is_applied(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=25, width=64, height=48, options=LOSSLESS
        )
        stream.pix_fmt = "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("needs PyAV 17 or later to write a display matrix")
        stream.set_display_rotation(0, hflip=True)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(quadrants_bgr(), "bgr24")))
        container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        frame = next(iter(reader))
    assert_alike(frame.frame_bgr, quadrants_bgr()[:, ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_convention_exif_orientation_turns_a_picture(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(_with_exif(orientation, "JPEG" if suffix == ".jpg" else "PNG"))
    with VideoReader(path) as reader:
        (frame,) = reader
        assert (reader.info.height, reader.info.width) == frame.frame_bgr.shape[:2]
    assert_alike(frame.frame_bgr, read_picture(path))


def test_reader_takes_motion_jpeg_whose_pictures_have_exif(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, width=96, height=64)
        stream.pix_fmt = "yuvj420p"  # type: ignore[union-attr]
        for i in range(3):
            packet = av.Packet(_with_exif(6, "JPEG"))
            packet.stream, packet.pts, packet.dts = stream, i, i
            packet.time_base, packet.is_keyframe = Fraction(1, 25), True
            container.mux(packet)
    with VideoReader(tmp_path / "a.avi") as reader:
        frames = list(reader)
    assert [frame.frame_bgr.shape for frame in frames] == [(96, 64, 3)] * 3
    (tmp_path / "a.jpg").write_bytes(_with_exif(6, "JPEG"))
    assert_alike(frames[0].frame_bgr, read_picture(tmp_path / "a.jpg"))


def _with_exif(orientation: int, kind: str) -> bytes:
    from PIL import Image

    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    rgb = np.ascontiguousarray(quadrants_bgr(64, 96)[:, :, ::-1])
    Image.fromarray(rgb).save(file, kind, exif=exif, quality=95)
    return file.getvalue()


def test_reader_gif_keeps_its_pauses(tmp_path: Path) -> None:
    from PIL import Image

    stills = [Image.fromarray(p[:, :, ::-1]) for p in numbered(4)]
    delays_ms = [100, 300, 50, 1000]
    stills[0].save(
        tmp_path / "a.gif", save_all=True, append_images=stills[1:], duration=delays_ms, loop=0
    )
    out = copy_video(tmp_path / "a.gif", tmp_path / "out.mp4")
    assert out.times == [Fraction(0), Fraction(1, 10), Fraction(4, 10), Fraction(45, 100)]
    assert out.duration == Fraction(145, 100)
    for actual, expected in zip(out.pictures, numbered(4), strict=True):
        assert_alike(actual, expected, 12.0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".mp4"])
def test_reader_picture_is_a_video_of_one_frame_whatever_its_name(
    tmp_path: Path, suffix: str
) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "p.png"), quadrants_bgr())
    path = tmp_path / f"shot %03d{suffix}"
    if suffix == ".jpg":
        cv2.imwrite(str(path), quadrants_bgr())
    else:
        shutil.copy(tmp_path / "p.png", path)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert len(frames) == 1
    assert corners(frames[0].frame_bgr)[3] == pytest.approx((120, 120, 120), abs=3)
    assert_alike(frames[0].frame_bgr, quadrants_bgr())
    assert reader.damage is None


@pytest.mark.parametrize("hw", [(16, 16), (4320, 7680)])
def test_reader_and_writer_take_tiny_and_8k(tmp_path: Path, hw: tuple[int, int]) -> None:
    picture = quadrants_bgr(*hw)
    write_video(tmp_path / "a.mp4", [picture], options={"preset": "ultrafast"})
    out = copy_video(tmp_path / "a.mp4", tmp_path / "out.mp4", options={"preset": "ultrafast"})
    assert len(out.pictures) == 1
    step = max(hw[0] // 240, 1)
    assert_alike(out.pictures[0][::step, ::step], picture[::step, ::step], 10.0)


def test_reader_scales_a_stream_that_changes_its_size(tmp_path: Path) -> None:
    # two H.264 streams of different size, one after the other
    for name, hw in (("a", (48, 64)), ("b", (96, 128))):
        write_video(tmp_path / f"{name}.h264", numbered(3, *hw))
    joined = tmp_path / "both.h264"
    joined.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    with VideoReader(joined) as reader:
        frames = list(reader)
    assert [f.frame_bgr.shape for f in frames] == [(48, 64, 3)] * 6
    assert_alike(frames[5].frame_bgr, numbered(3)[2], 16.0)
    assert all(b.pts > a.pts for a, b in itertools.pairwise(frames))


# --- round trips ---
def test_round_trip_variable_rate_keeps_every_time(tmp_path: Path) -> None:
    pts = [0, 1001, 1500, 9000, 9001, 40_000, 41_003]
    base = Fraction(1, 30_000)
    write_video(
        tmp_path / "a.mp4",
        numbered(7),
        pts=pts,
        time_base=base,
        options={"bf": "0"},
        last_duration=6000,
        audio=["aac"],
    )
    assert probe(tmp_path / "a.mp4").duration == (41_003 + 6000) * base
    out = copy_video(tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert out.times == [p * base for p in pts]
    assert out.duration == (41_003 + 6000) * base


def test_round_trip_rational_rate(tmp_path: Path) -> None:
    base = Fraction(1001, 30_000)
    write_video(
        tmp_path / "a.mp4", numbered(9), time_base=base, options={"bf": "0"}, last_duration=1
    )
    out = copy_video(tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert out.times == [i * base for i in range(9)]
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.info.rate == Fraction(30_000, 1001)


def test_round_trip_start_that_is_not_zero_keeps_sound_in_step(tmp_path: Path) -> None:
    base = Fraction(1, 1000)
    write_video(
        tmp_path / "a.mkv",
        numbered(5),
        pts=[500, 540, 580, 620, 660],
        time_base=base,
        audio=["flac"],
    )
    before = probe(tmp_path / "a.mkv")
    out = copy_video(tmp_path / "a.mkv", tmp_path / "out.mkv")
    assert out.times == before.times == [Fraction(p, 1000) for p in (500, 540, 580, 620, 660)]
    assert out.sounds == before.sounds


def test_round_trip_mpegts_clock_is_brought_to_zero_with_sound_in_step(tmp_path: Path) -> None:
    later = {"output_ts_offset": "3600"}
    write_video(tmp_path / "a.ts", numbered(6), audio=["aac"], container_options=later)
    before = probe(tmp_path / "a.ts")
    assert before.times[0] >= 3600
    out = copy_video(tmp_path / "a.ts", tmp_path / "out.mp4")
    assert len(out.times) == 6
    assert out.times[0] < Fraction(1, 10)
    shift = before.times[0] - out.times[0]
    assert float(before.sounds[0][3][0] - out.sounds[0][3][0]) == pytest.approx(
        float(shift), abs=1e-3
    )


@pytest.mark.parametrize(
    ("name", "out_name", "audio"),
    [
        ("a.mp4", "out.mp4", ["aac"]),
        ("a.mkv", "out.mkv", ["aac", "flac", "pcm_s16le"]),
        ("a.mkv", "out.mp4", ["libopus", "mp2"]),
        ("a.webm", "out.webm", ["libopus"]),
        ("a.mov", "out.mov", ["pcm_s16le"]),
    ],
)
def test_round_trip_copies_the_packets_of_all_sound(
    tmp_path: Path, name: str, out_name: str, audio: list[str]
) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    write_video(tmp_path / name, numbered(30), audio=audio, audio_s=1.5, codec=codec)
    before = probe(tmp_path / name)
    after = copy_video(tmp_path / name, tmp_path / out_name)
    assert len(after.sounds) == len(audio)
    for old, new in zip(before.sounds, after.sounds, strict=True):
        assert len(old) > 10
        assert [h for _, h in new] == [h for _, h in old]
        for (t_old, _), (t_new, _) in zip(old, new, strict=True):
            assert float(t_new - t_old) == pytest.approx(0.0, abs=1.1e-3)
    assert after.times == before.times


def test_round_trip_leaves_sound_out_when_told(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered(3), audio=["aac"])
    assert copy_video(tmp_path / "a.mp4", tmp_path / "out.mp4", audio_from=None).sounds == []


@pytest.mark.parametrize("byte", [2, 3])
def test_damaged_sound_costs_no_picture_and_is_said(
    tmp_path: Path, byte: int, caplog: pytest.LogCaptureFixture
) -> None:
    stream = bytearray(write_video(tmp_path / "a.ts", numbered(30), audio=["aac"]).read_bytes())
    headers = [m.start() for m in re.finditer(rb"\xff\xf1", stream)]  # ADTS: one per sound packet
    for at in headers[3:6]:
        stream[at + byte] = 0xFF
    (tmp_path / "b.ts").write_bytes(stream)
    out = copy_video(tmp_path / "b.ts", tmp_path / "out.mkv")
    assert len(out.times) == 30
    assert caplog.text.count("b.ts: sound is damaged in places and left out there") == 1
    whole = probe(tmp_path / "a.ts").sounds[0]
    assert len(whole) // 2 < len(out.sounds[0]) < len(whole)


def test_finish_can_cut_the_sound_with_the_pictures(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered(50), audio=["aac"])
    with (
        VideoReader(tmp_path / "a.mp4") as reader,
        VideoWriter(tmp_path / "out.mp4", reader.info, audio_from=reader.info) as writer,
    ):
        for _, frame in zip(range(10), reader, strict=False):
            writer.write(frame)
        writer.finish(cut_audio=True)
    out = probe(tmp_path / "out.mp4")
    assert len(out.times) == 10
    assert 0.3 < out.sounds[0][-1][0] < 0.4


@pytest.mark.parametrize("hw", [(47, 64), (48, 63), (47, 63)])
def test_round_trip_odd_sizes_stay_exact(
    tmp_path: Path, hw: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "a.mkv", numbered(3, *hw), codec="ffv1", pix_fmt="bgr0")
    out = copy_video(tmp_path / "a.mkv", tmp_path / "out.mp4")
    assert out.stream["size_wh"] == (hw[1], hw[0])
    assert out.stream["pix_fmt"] == "yuv444p"
    assert_alike(out.pictures[2], numbered(3, *hw)[2])
    assert "odd" in caplog.text


def test_even_sizes_are_written_as_every_player_takes_them(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", numbered(3), codec="ffv1", pix_fmt="yuv444p")
    assert copy_video(tmp_path / "a.mkv", tmp_path / "out.mp4").stream["pix_fmt"] == "yuv420p"


@pytest.mark.parametrize(
    "tags",
    [
        {"color_range": 1, "colorspace": 1, "color_trc": 1, "color_primaries": 1},
        {"color_range": 2, "colorspace": 1, "color_trc": 1, "color_primaries": 1},
        {"color_range": 1, "colorspace": 6, "color_trc": 6, "color_primaries": 6},
        {"color_range": 1, "colorspace": 9, "color_trc": 14, "color_primaries": 9},
        {"color_range": 0, "colorspace": 2, "color_trc": 2, "color_primaries": 2},
    ],
)
def test_round_trip_keeps_colours_and_says_which_they_are(
    tmp_path: Path, tags: dict[str, int]
) -> None:
    # one colour a picture, so that the codec's chroma filtering plays no part
    colours = [(20, 10, 250), (30, 240, 15), (230, 35, 25), (128, 128, 128), (0, 0, 0), (255,) * 3]
    pictures = [np.full((48, 64, 3), c, np.uint8) for c in colours]
    write_video(tmp_path / "a.mp4", pictures, options=LOSSLESS, tags=tags)
    before = probe(tmp_path / "a.mp4")
    with VideoReader(tmp_path / "a.mp4") as reader:
        for frame, colour in zip(reader, colours, strict=True):
            assert tuple(frame.frame_bgr[20, 30]) == pytest.approx(colour, abs=4)
    out = copy_video(tmp_path / "a.mp4", tmp_path / "out.mp4", options={"qp": "0"}, crf=0)
    for name in tags:
        assert out.stream[name] == before.stream[name], name
    import av

    for path in ("a.mp4", "out.mp4"):
        with av.open(str(tmp_path / path)) as container:
            luma = [f.to_ndarray()[20, 30] for f in container.decode(video=0)]
        if path == "a.mp4":
            first = luma
    np.testing.assert_allclose(luma, first, atol=2)


def test_round_trip_keeps_the_pixel_aspect_and_turns_it_with_the_picture(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered(2), aspect=Fraction(4, 3))
    assert copy_video(tmp_path / "a.mp4", tmp_path / "o.mp4").stream["aspect"] == Fraction(4, 3)
    write_video(tmp_path / "b.mp4", numbered(2), aspect=Fraction(4, 3), rotation=90)
    assert copy_video(tmp_path / "b.mp4", tmp_path / "p.mp4").stream["aspect"] == Fraction(3, 4)


def test_output_says_that_it_was_altered(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered(2))
    out = copy_video(tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert "altered with rt_swap" in out.stream["metadata"]["comment"]


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("out.webm", None, "vp9"),
        ("out.mkv", "ffv1", "ffv1"),
        ("out.mov", "prores_ks", "prores"),
        ("out.mkv", "libx264rgb", "h264"),
        ("out.mp4", "libx265", "hevc"),
        ("out.avi", "mpeg4", "mpeg4"),
    ],
)
def test_writer_codecs(tmp_path: Path, name: str, codec: str | None, expected: str) -> None:
    write_video(tmp_path / "a.mp4", numbered(4))
    out = copy_video(tmp_path / "a.mp4", tmp_path / name, codec=codec)
    assert expected in out.stream["codec"]
    assert len(out.pictures) == 4
    assert_alike(out.pictures[3], numbered(4)[3], 8.0)


@pytest.mark.parametrize("codec", ["libx264", "libx264rgb"])
def test_writer_keeps_no_hold_of_the_array(tmp_path: Path, codec: str) -> None:
    write_video(tmp_path / "a.mkv", numbered(1), codec="ffv1", pix_fmt="bgr0")
    with VideoReader(tmp_path / "a.mkv") as reader:
        info = reader.info
    canvas = np.empty((info.height, info.width, 3), np.uint8)
    with VideoWriter(tmp_path / "o.mkv", info, codec=codec) as writer:
        for i in range(6):
            canvas[...] = 40 * i
            writer.write(Frame(canvas, i, Fraction(1, 10)))
    levels = [float(picture.mean()) for picture in probe(tmp_path / "o.mkv").pictures]
    assert levels == pytest.approx([40 * i for i in range(6)], abs=3)


def test_writer_crf_decides_the_size(tmp_path: Path, rng: np.random.Generator) -> None:
    noise = [rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(4)]
    write_video(tmp_path / "a.mkv", noise, codec="ffv1", pix_fmt="bgr0")
    for crf in (10, 45):
        copy_video(tmp_path / "a.mkv", tmp_path / f"{crf}.mp4", crf=crf)
    assert (tmp_path / "10.mp4").stat().st_size > 3 * (tmp_path / "45.mp4").stat().st_size


# --- inputs that are none ---
def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    (folder / "text.txt").write_text("this is not a video either\n" * 50)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(3).bytes(5000))
    (folder / "folder.mp4").mkdir()
    import av

    with av.open(str(folder / "sound.m4a"), "w") as container:
        from tests.support.videos import _add_audio, _write_tone

        _write_tone(container, _add_audio(container, "aac"), 0.5, 440.0)
    whole = write_video(folder / "whole.mp4", numbered(20)).read_bytes()
    (folder / "no_index.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(folder / "no_frames.mkv"), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25, width=64, height=48)
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    return {
        "missing": (folder / "missing.mp4", "there is no such file"),
        "folder": (folder / "folder.mp4", "is a folder"),
        "empty": (folder / "empty.mp4", "is empty"),
        "text": (folder / "text.mp4", "is not a video that can be read"),
        "text file": (folder / "text.txt", "is a text file|is not a video that can be read"),
        "noise": (folder / "noise.mp4", "is not a video that can be read"),
        "sound only": (folder / "sound.m4a", "has sound but no pictures"),
        "no index": (folder / "no_index.mp4", "is not a video that can be read.*cut short"),
        "no frames": (
            folder / "no_frames.mkv",
            "not one frame that can be decoded|neither pictures nor sound|not a video",
        ),
    }


@pytest.mark.parametrize(
    "case",
    [
        "missing",
        "folder",
        "empty",
        "text",
        "text file",
        "noise",
        "sound only",
        "no index",
        "no frames",
    ],
)
def test_error_unreadable_input_is_one_sentence(tmp_path: Path, case: str) -> None:
    path, message = bad_inputs(tmp_path)[case]
    with pytest.raises(SourceError, match=message) as caught:
        VideoReader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_error_video_nobody_can_decode(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", numbered(3)).read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole.replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))
    with pytest.raises(SourceError, match=r"b\.mp4: no decoder for its video is here; convert"):
        VideoReader(tmp_path / "b.mp4")


def test_error_cover_picture_of_a_song_is_no_video(tmp_path: Path) -> None:
    import av
    import cv2

    path = tmp_path / "song.mp4"
    _, cover = cv2.imencode(".png", quadrants_bgr())
    with av.open(str(path), "w") as container:
        from tests.support.videos import _add_audio, _write_tone

        sound = _add_audio(container, "aac")
        picture: Any = container.add_stream("png", width=64, height=48)
        picture.pix_fmt = "rgb24"
        picture.disposition = 0x400
        packet = av.Packet(cover.tobytes())
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = picture, 0, 0, True
        container.mux(packet)
        _write_tone(container, sound, 0.3, 440.0)
    with pytest.raises(SourceError, match="has sound but no pictures"):
        VideoReader(path)


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {}), ("a.avi", {})]
)
def test_truncated_file_plays_what_is_there_and_says_so(
    tmp_path: Path, name: str, options: dict[str, str], rng: np.random.Generator
) -> None:
    noise = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    path = write_video(
        tmp_path / name, noise, options={"g": "5", "bf": "0"}, container_options=options
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    with VideoReader(path) as reader:
        frames = list(reader)
        assert 20 < len(frames) < 60
        assert reader.damage is not None
        assert re.search(rf"{len(frames)} frames could be read", reader.damage)


def test_damaged_packets_cost_no_other_frames(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_video(tmp_path / "a.mkv", numbered(20), codec="ffv1", pix_fmt="bgr0")
    import av

    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at = bytes(data).index(packets[10])
    data[at : at + len(packets[10])] = rng.bytes(len(packets[10]))
    path.write_bytes(bytes(data))
    with VideoReader(path) as reader:
        frames = list(reader)
    assert 17 <= len(frames) < 20
    assert reader.damage is not None
    assert "damaged packet" in reader.damage
    np.testing.assert_array_equal(frames[-1].frame_bgr, numbered(20)[-1])


# --- outputs that cannot be ---
def info_of(tmp_path: Path) -> Any:
    path = tmp_path / "in.mp4"
    if not path.exists():
        write_video(path, numbered(3), audio=["aac"])
    with VideoReader(path) as reader:
        return reader.info


def no_part_files(folder: Path) -> bool:
    return not list(folder.rglob("*.part*"))


def test_error_output_exists_is_left_alone(tmp_path: Path) -> None:
    info = info_of(tmp_path)
    (tmp_path / "out.mp4").write_text("mine")
    with pytest.raises(SinkError, match="exists already; pass --overwrite"):
        VideoWriter(tmp_path / "out.mp4", info)
    assert (tmp_path / "out.mp4").read_text() == "mine"
    assert no_part_files(tmp_path)


def test_overwrite_replaces_only_at_the_end(tmp_path: Path) -> None:
    info_of(tmp_path)
    out = tmp_path / "out.mp4"
    out.write_text("mine")
    with (
        VideoReader(tmp_path / "in.mp4") as reader,
        VideoWriter(out, reader.info, overwrite=True) as writer,
    ):
        for frame in reader:
            writer.write(frame)
            assert out.read_text() == "mine"
    assert len(probe(out).pictures) == 3


@pytest.mark.parametrize("link", ["same", "symlink", "hard link", "other spelling"])
def test_error_output_is_the_input(tmp_path: Path, link: str) -> None:
    info = info_of(tmp_path)
    before = (tmp_path / "in.mp4").read_bytes()
    out = tmp_path / "in.mp4"
    if link == "symlink":
        out = tmp_path / "link.mp4"
        out.symlink_to(tmp_path / "in.mp4")
    elif link == "hard link":
        out = tmp_path / "link.mp4"
        out.hardlink_to(tmp_path / "in.mp4")
    elif link == "other spelling":
        (tmp_path / "sub").mkdir()
        out = tmp_path / "sub" / ".." / "in.mp4"
    with pytest.raises(SinkError, match="is also an input"):
        VideoWriter(out, info, overwrite=True)
    assert (tmp_path / "in.mp4").read_bytes() == before


def test_error_output_folder_missing_or_file_or_device(tmp_path: Path) -> None:
    info = info_of(tmp_path)
    with pytest.raises(SinkError, match="there is no folder"):
        VideoWriter(tmp_path / "nowhere" / "out.mp4", info)
    (tmp_path / "dir.mp4").mkdir()
    with pytest.raises(SinkError, match="is a folder"):
        VideoWriter(tmp_path / "dir.mp4", info)
    with pytest.raises(SinkError, match="give a name and an extension"):
        VideoWriter(tmp_path / "out", info)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SinkError, match="is not a regular file"):
        VideoWriter(tmp_path / "pipe.mp4", info, overwrite=True)


def test_error_output_folder_not_writable(tmp_path: Path) -> None:
    info = info_of(tmp_path)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    folder = Path("/proc/self") if os.geteuid() == 0 else locked  # root may write to the other
    if not folder.is_dir():
        pytest.skip("needs a folder that even root cannot write to, such as /proc")
    with pytest.raises(SinkError, match="choose a folder that you may write to"):
        VideoWriter(folder / "out.mp4", info)


def test_error_container_cannot_hold_sound_or_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.wmv", numbered(3), codec="wmv2", audio=["wmav2"])
    with VideoReader(path) as reader:
        info = reader.info
    with pytest.raises(SinkError, match=r"cannot hold the sound .*wmav2.*out\.mkv"):
        VideoWriter(tmp_path / "out.mp4", info, audio_from=info)
    with pytest.raises(SinkError, match="cannot hold video made by libx264"):
        VideoWriter(tmp_path / "out.webm", info, codec="libx264")
    with pytest.raises(SinkError, match="is not a video format written here"):
        VideoWriter(tmp_path / "out.xyz", info)
    assert no_part_files(tmp_path)


def test_error_no_other_container_is_named_where_that_one_fails_too(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", numbered(3), audio=["aac"]).read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole.replace(b"mp4a", b"zzz9").replace(b"esds", b"zzzd"))
    with pytest.raises(SinkError, match=r"\(unknown\) unchanged; leave the sound out with"):
        copy_video(tmp_path / "b.mp4", tmp_path / "o.mkv")


def test_error_codec_and_crf(tmp_path: Path) -> None:
    info = info_of(tmp_path)
    with pytest.raises(ConfigError, match="no such video encoder here; try libx264"):
        VideoWriter(tmp_path / "out.mp4", info, codec="h265000")
    with pytest.raises(ConfigError, match="no such video encoder"):
        VideoWriter(tmp_path / "out.mp4", info, codec="aac")
    with pytest.raises(ConfigError, match="--crf: must be 0 to 51"):
        VideoWriter(tmp_path / "out.mp4", info, crf=60)
    with pytest.raises(ConfigError, match="no such setting"):
        VideoWriter(tmp_path / "out.mkv", info, codec="ffv1", crf=3)
    assert no_part_files(tmp_path)


def test_error_wrong_frames(tmp_path: Path) -> None:
    info = info_of(tmp_path)
    base = info.time_base
    with VideoWriter(tmp_path / "out.mp4", info) as writer:
        writer.write(Frame(numbered(1)[0], 5, base))
        with pytest.raises(ContractError, match="times must ascend"):
            writer.write(Frame(numbered(1)[0], 5, base))
        with pytest.raises(ContractError, match=r"must be uint8 \(48, 64, 3\)"):
            writer.write(Frame(np.zeros((48, 65, 3), np.uint8), 600, base))


def test_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    info = info_of(tmp_path)
    writer = VideoWriter(tmp_path / "out.mp4", info, audio_from=info)
    with pytest.raises(RuntimeError, match="on purpose"), writer:  # noqa: PT012
        writer.write(Frame(numbered(1)[0], 0, info.time_base))
        raise RuntimeError("on purpose")
    assert not (tmp_path / "out.mp4").exists()
    assert no_part_files(tmp_path)


def test_error_no_frames_written_leaves_nothing(tmp_path: Path) -> None:
    info = info_of(tmp_path)
    writer = VideoWriter(tmp_path / "out.mp4", info)
    with pytest.raises(SinkError, match="not one frame was written"), writer:
        pass
    assert not (tmp_path / "out.mp4").exists()
    assert no_part_files(tmp_path)


def test_output_is_readable_to_others_as_any_new_file(tmp_path: Path) -> None:
    info_of(tmp_path)
    copy_video(tmp_path / "in.mp4", tmp_path / "out.mp4")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "out.mp4").stat().st_mode == (tmp_path / "plain").stat().st_mode


FULL_DISK = """
import resource, sys
from rt_swap.errors import SinkError
from rt_swap.io.picture import read_picture
from rt_swap.io.video import VideoReader, VideoWriter
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with VideoReader(sys.argv[1]) as reader:
        with VideoWriter(sys.argv[2], reader.info, crf=1) as writer:
            for frame in reader:
                writer.write(frame)
except SinkError as error:
    print(error)
    sys.exit(32)
"""


@pytest.mark.parametrize("limit", [0, 3000, 60_000])
def test_error_full_disk_leaves_nothing(
    tmp_path: Path, limit: int, rng: np.random.Generator
) -> None:
    noise = [rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(20)]
    write_video(tmp_path / "a.mkv", noise, codec="ffv1", pix_fmt="bgr0")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "a.mkv", tmp_path / "out.mp4", str(limit)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert done.returncode == 32, done.stderr
    assert "the disk is full" in done.stdout
    assert done.stderr == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mkv"]


def test_hdr_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags = {"color_range": 1, "colorspace": 9, "color_trc": 16, "color_primaries": 9}
    write_video(tmp_path / "a.mp4", numbered(2), tags=tags, pix_fmt="yuv420p10le")
    with caplog.at_level(logging.WARNING), VideoReader(tmp_path / "a.mp4") as reader:
        assert len(list(reader)) == 2
    assert "HDR (PQ)" in caplog.text
