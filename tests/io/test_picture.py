"""Pictures of every kind come out alike, and what is none gets one sentence."""

from __future__ import annotations

import io
import os
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rt_swap.errors import SourceError
from rt_swap.io import picture as module
from rt_swap.io.picture import ALPHA_BACKGROUND, is_still_picture, read_picture

# Four colours, one a quadrant, so that any turn, flip or exchange of channels shows. 64 x 48.
RED, GREEN, BLUE, GREY = (250, 10, 20), (15, 240, 30), (25, 35, 230), (120, 120, 120)


def quadrants_rgb(height: int = 64, width: int = 48) -> np.ndarray:
    rgb = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    rgb[:h, :w], rgb[:h, w:], rgb[h:, :w], rgb[h:, w:] = RED, GREEN, BLUE, GREY
    return rgb


def corners_rgb(picture_bgr: np.ndarray) -> list[tuple[int, ...]]:
    """Colours near the four corners, in reading order."""
    h, w = picture_bgr.shape[:2]
    at = [(h // 8, w // 8), (h // 8, w - w // 8), (h - h // 8, w // 8), (h - h // 8, w - w // 8)]
    return [tuple(int(v) for v in picture_bgr[y, x, ::-1]) for y, x in at]


def assert_quadrants(picture_bgr: np.ndarray, tolerance: int = 0) -> None:
    assert picture_bgr.dtype == np.uint8
    assert picture_bgr.flags.c_contiguous
    assert picture_bgr.flags.writeable
    np.testing.assert_allclose(corners_rgb(picture_bgr), [RED, GREEN, BLUE, GREY], atol=tolerance)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path


# --- what can be read ---
@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("p.png", {}, 0),
        ("p.bmp", {}, 0),
        ("p.tif", {}, 0),
        ("p.webp", {"lossless": True}, 0),
        ("p.jpg", {"quality": 95, "subsampling": 0}, 4),
        ("p.ppm", {}, 0),
    ],
)
def test_formats(tmp_path: Path, name: str, options: dict[str, Any], tolerance: int) -> None:
    read = read_picture(save(tmp_path / name, quadrants_rgb(), **options))
    assert read.shape == (64, 48, 3)
    assert_quadrants(read, tolerance)


@pytest.mark.parametrize("name", ["photo.jpg", "photo", "photo.mp4", "ph\u00f6to.PNG.txt"])
def test_a_wrong_name_does_not_matter(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "p.png", quadrants_rgb()).rename(tmp_path / name)
    assert_quadrants(read_picture(str(path)))
    assert is_still_picture(path)


# EXIF orientation -> what is stored, given what shall be seen
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](quadrants_rgb()))
    options = {"quality": 95, "subsampling": 0} if name.endswith("jpg") else {}
    read = read_picture(save(tmp_path / name, stored, exif=exif, **options))
    assert read.shape == (64, 48, 3)
    assert_quadrants(read, tolerance=4)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = np.arange(64 * 48, dtype=np.int64).reshape(64, 48) % 251
    read = read_picture(save(tmp_path / "p.png", grey.astype(np.uint8)))
    np.testing.assert_array_equal(read, np.repeat(grey[:, :, None], 3, axis=2))


def test_black_and_white_bitmap(tmp_path: Path) -> None:
    rows = np.zeros((64, 48), np.uint8)
    rows[::2] = 255
    read = read_picture(save(tmp_path / "p.png", rows, mode="1"))
    np.testing.assert_array_equal(read[:, :, 1], rows)


@pytest.mark.parametrize("name", ["p.png", "p.tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, name: str) -> None:
    levels = np.array([0, 1, 128, 257, 32768, 65534, 65535], np.uint16)
    grey = np.zeros((64, 48), np.uint16)
    grey[:7] = levels[:, None]
    assert cv2.imwrite(str(tmp_path / name), grey)
    read = read_picture(tmp_path / name)
    np.testing.assert_array_equal(read[:7, 0, 0], [0, 0, 0, 1, 128, 255, 255])


def test_dark_sixteen_bit_grey_stays_dark(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "p.png"), np.full((64, 48), 200, np.uint16))
    assert read_picture(tmp_path / "p.png").max() == 1


@pytest.mark.parametrize("name", ["p.png", "p.tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bit_colour_is_scaled(tmp_path: Path, name: str, alpha: bool) -> None:
    colour = quadrants_rgb()[:, :, ::-1].astype(np.uint16) * 257
    if alpha:
        colour = np.dstack([colour, np.full((64, 48), 65535, np.uint16)])
    assert cv2.imwrite(str(tmp_path / name), colour)
    assert_quadrants(read_picture(tmp_path / name), tolerance=1)


def test_float_tiff_is_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[:, None].repeat(48, axis=1)
    ramp[3, 3] = np.nan
    Image.fromarray(ramp).save(tmp_path / "p.tif")
    read = read_picture(tmp_path / "p.tif")
    assert (read[0, 0, 0], read[63, 0, 0], read[3, 3, 0]) == (0, 255, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_put_on_grey(tmp_path: Path, mode: str) -> None:
    rgba = np.dstack([np.full((64, 48, 3), 200, np.uint8), np.zeros((64, 48), np.uint8)])
    rgba[16:32, :, 3] = 128
    rgba[32:, :, 3] = 255
    read = read_picture(save(tmp_path / "p.png", rgba, mode=mode))
    half = round(200 * 128 / 255 + ALPHA_BACKGROUND * 127 / 255)
    assert read[:16].min() == read[:16].max() == ALPHA_BACKGROUND
    assert read[16:32].min() == read[16:32].max() == half
    assert read[32:].min() == read[32:].max() == 200


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    assert_quadrants(read_picture(save(tmp_path / "p.png", quadrants_rgb(), mode="P")), 60)
    image = Image.fromarray(quadrants_rgb()).quantize(8)
    index = int(np.asarray(image)[0, 0])
    image.save(tmp_path / "t.png", transparency=index)
    read = read_picture(tmp_path / "t.png")
    assert corners_rgb(read)[0] == (ALPHA_BACKGROUND,) * 3
    np.testing.assert_allclose(corners_rgb(read)[1:], [GREEN, BLUE, GREY], atol=2)


def test_gif_gives_its_first_picture(tmp_path: Path) -> None:
    first = Image.fromarray(quadrants_rgb()).quantize(16)
    second = Image.fromarray(np.zeros((64, 48, 3), np.uint8)).quantize(16)
    first.save(tmp_path / "still.gif")
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second], duration=40)
    for name in ("still.gif", "moving.gif"):
        assert_quadrants(read_picture(tmp_path / name), tolerance=3)
    assert is_still_picture(tmp_path / "still.gif")
    assert not is_still_picture(tmp_path / "moving.gif")


def test_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    path = save(tmp_path / "p.jpg", quadrants_rgb(), mode="CMYK", quality=95, subsampling=0)
    assert_quadrants(read_picture(path), tolerance=8)


def test_large_picture_is_read(tmp_path: Path) -> None:
    big = np.zeros((4320, 7680, 3), np.uint8)
    big[:, :100] = RED
    path = save(tmp_path / "8k.png", big, compress_level=1)
    read = read_picture(path)
    assert read.shape == (4320, 7680, 3)
    assert tuple(read[0, 0, ::-1]) == RED


# --- what cannot ---
def test_missing_empty_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no\.jpg: there is no such file"):
        read_picture(tmp_path / "no.jpg")
    (tmp_path / "empty.jpg").touch()
    for reads in (read_picture, is_still_picture):
        with pytest.raises(SourceError, match=r"empty\.jpg: the file is empty \(0 bytes\)"):
            reads(tmp_path / "empty.jpg")
    with pytest.raises(SourceError, match="a folder, not a picture"):
        read_picture(tmp_path)


def test_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = save(tmp_path / "p.png", quadrants_rgb())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("needs a user whom permissions bind")
    with pytest.raises(SourceError, match="cannot be read"):
        read_picture(path)


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.gif", "p.webp", "p.tif", "p.bmp"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated_picture(tmp_path: Path, name: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    path = save(tmp_path / name, noise)
    blob = path.read_bytes()
    path.write_bytes(blob[: int(share * len(blob))])
    with pytest.raises(SourceError, match=r"damaged|cut short"):
        read_picture(path)


def test_damaged_png(tmp_path: Path) -> None:
    path = save(tmp_path / "p.png", quadrants_rgb())
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 255
    path.write_bytes(bytes(blob))
    with pytest.raises(SourceError, match="damaged"):
        read_picture(path)


def wav_bytes() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0" * 1000)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("blob", "complaint"),
    [
        (b"hello, I am text", "use a JPEG or PNG"),
        (b"\x00\x00\x00\x20ftypisom" + b"\0" * 500, "looks like a video"),
        (b"\x00\x00\x00\x20ftypheic" + b"\0" * 500, "HEIC"),
        (b"\x1aE\xdf\xa3" + b"\0" * 500, "a video .Matroska"),
        (b"%PDF-1.7\n" + b"x" * 500, "a PDF"),
        (b"PK\x03\x04" + b"\0" * 500, "a ZIP archive"),
        (b"<!doctype HTML><html></html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (wav_bytes(), "a sound file"),
        (b"\x80\x04\x95" + b"\0" * 50, "use a JPEG or PNG"),
    ],
)
def test_wrongly_named_file_says_what_it_is(tmp_path: Path, blob: bytes, complaint: str) -> None:
    path = tmp_path / "portrait.jpg"
    path.write_bytes(blob)
    with pytest.raises(SourceError, match=f"not a picture that can be read; .*{complaint}"):
        read_picture(path)


def test_real_video_under_the_name_of_a_picture(tmp_path: Path) -> None:
    import av

    path = tmp_path / "portrait.png"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        array = np.zeros((64, 64, 3), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="bgr24")))
        container.mux(stream.encode())
    assert not is_still_picture(path)
    with pytest.raises(SourceError, match=r"a video \(MP4 or MOV\): give it as a clip"):
        read_picture(path)


@pytest.mark.parametrize("size_wh", [(16, 16), (1, 1), (31, 500), (500, 31)])
def test_too_small_picture(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    path = save(tmp_path / "p.png", np.zeros((*size_wh[::-1], 3), np.uint8))
    with pytest.raises(SourceError, match=f"{size_wh[0]}x{size_wh[1]} pixels are too few"):
        read_picture(path)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [13000, 100000])
def test_too_large_picture_is_refused_undecoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(png_that_claims(side, side))
    with pytest.raises(SourceError, match=r"million.*smaller"):
        read_picture(path)
    assert is_still_picture(path)


def test_long_unknown_file_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.jpg"
    path.write_bytes(b"\x1aE\xdf\xa3" + b"\0" * 5000)
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    with pytest.raises(SourceError, match="Matroska"):
        read_picture(path)
