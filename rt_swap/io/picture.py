"""Reading one picture, whatever it is stored as, into 8-bit BGR the right way up.

Files are told by what is in them, not by their name. Decoding is Pillow's; what Pillow does not
know (16-bit colour TIFF and the like) OpenCV may try.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rt_swap.errors import SourceError
from rt_swap.frames import U8

_log = logging.getLogger(__name__)

MIN_SIDE_PX: Final = 32
"""Smallest side of a picture in which a face can be found at all."""

MAX_PIXELS: Final = 150_000_000
"""Largest picture that is decoded, in pixels (an 8K frame has 33 million)."""

ALPHA_BACKGROUND: Final = 128
"""Grey level behind transparent pixels: far from neither dark hair nor pale skin."""

_EXIF_ORIENTATION: Final = 0x0112

_PICTURE_KINDS: Final[tuple[tuple[bytes, int], ...]] = (
    (b"\xff\xd8\xff", 0),  # JPEG
    (b"\x89PNG\r\n\x1a\n", 0),
    (b"GIF8", 0),
    (b"BM", 0),
    (b"II*\x00", 0),  # TIFF
    (b"MM\x00*", 0),
    (b"WEBP", 8),
    (b"ftypavif", 4),
    (b"ftypavis", 4),
    (b"ftypheic", 4),
    (b"ftypmif1", 4),
)
_OTHER_KINDS: Final[tuple[tuple[bytes, int, str], ...]] = (
    (b"ftyphei", 4, "a HEIC picture, which cannot be read here: convert it to JPEG or PNG"),
    (b"ftypmif1", 4, "a HEIF picture, which cannot be read here: convert it to JPEG or PNG"),
    (b"ftyp", 4, "a video (MP4 or MOV): give it as a clip, or take a still from it"),
    (b"\x1aE\xdf\xa3", 0, "a video (Matroska or WebM): give it as a clip, or take a still from it"),
    (b"AVI ", 8, "a video (AVI): give it as a clip, or take a still from it"),
    (b"WAVE", 8, "a sound file (WAV), which has no picture"),
    (b"ID3", 0, "a sound file (MP3), which has no picture"),
    (b"OggS", 0, "an Ogg file: give it as a clip if it is a video"),
    (b"%PDF", 0, "a PDF: save the picture in it as JPEG or PNG"),
    (b"PK\x03\x04", 0, "a ZIP archive: unpack it first"),
    (b"<svg", 0, "an SVG drawing: save it as PNG"),
    (b"<!DOCTYPE html", 0, "a web page, not the picture it shows: download the picture itself"),
    (b"<html", 0, "a web page, not the picture it shows: download the picture itself"),
)


def read_picture(path: Path | str) -> U8:
    """Read a picture.

    The EXIF rotation is applied; grey becomes colour; what is transparent is put on mid grey;
    16 bits and floats are scaled to 8; of an animation the first picture is taken.

    Args:
        path: JPEG, PNG, GIF, WebP, BMP, TIFF and what else Pillow or OpenCV reads.

    Returns:
        (H, W, 3) uint8, BGR, C-contiguous, the caller's own.

    Raises:
        SourceError: If the file is missing, empty, not a picture, cut short, or its picture is too
            small (a side under MIN_SIDE_PX) or too large (over MAX_PIXELS).
    """
    path = Path(path)
    head = _head_of(path)
    rgb = _read_with_pillow(path)
    if rgb is None:
        rgb = _read_with_opencv(path)
    if rgb is None:
        raise SourceError(f"{path}: not a picture that can be read; {_what_it_is(head)}")
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise SourceError(
            f"{path}: {width}x{height} pixels are too few to show a face; "
            f"use a picture of at least {MIN_SIDE_PX} pixels a side, better 256"
        )
    return np.ascontiguousarray(rgb[:, :, ::-1])


def is_still_picture(path: Path | str) -> bool:
    """Whether a file holds one still picture, judged by what is in it.

    An animated GIF, WebP or PNG with several pictures is not still: it is a clip.

    Args:
        path: Any file.

    Raises:
        SourceError: If the file is missing, empty, a folder or may not be read.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    head = _head_of(path)
    if not any(head[at : at + len(magic)] == magic for magic, at in _PICTURE_KINDS):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                # a camera's JPEG may carry previews (MPO), a TIFF pages; neither moves
                moving = picture.format in ("GIF", "WEBP", "PNG", "AVIF")
                return not (moving and getattr(picture, "n_frames", 1) > 1)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return True  # meant as a picture; read_picture says what is wrong with it


def exif_orientation(path: Path | str) -> int:
    """EXIF's number of how a picture is stored, 1 to 8; 1, upright, where it does not say.

    Args:
        path: Any file.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                number = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return 1  # not for Pillow, or no EXIF that can be read
    return number if isinstance(number, int) and 1 <= number <= 8 else 1


def _head_of(path: Path) -> bytes:
    """First bytes of the file.

    Raises:
        SourceError: If there are none to be had.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as exc:
        raise SourceError(f"{path}: there is no such file") from exc
    except IsADirectoryError as exc:
        raise SourceError(f"{path}: a folder, not a picture; name one file in it") from exc
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
    if not head:
        raise SourceError(f"{path}: the file is empty (0 bytes)")
    return head


def _read_with_pillow(path: Path) -> U8 | None:
    """(H, W, 3) uint8 RGB, or None where Pillow does not know the format."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with warnings.catch_warnings():
        # the limit that counts is ours, below
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # half-broken EXIF and TIFF tags are of no interest as long as the pixels come
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        try:
            with Image.open(path) as picture:
                _check_size(path, *picture.size)
                picture.load()
                return _rgb_from_pillow(ImageOps.exif_transpose(picture))
        except UnidentifiedImageError:
            return None
        except Image.DecompressionBombError as exc:
            raise SourceError(
                f"{path}: the picture is larger than {MAX_PIXELS // 1_000_000} million pixels; "
                "make it smaller first"
            ) from exc
        except SourceError:
            raise
        except (OSError, ValueError, SyntaxError, EOFError, IndexError) as exc:
            # Pillow reports damage with all of these
            raise SourceError(
                f"{path}: the picture is cut short or damaged ({exc}); get the file again"
            ) from exc


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise SourceError(
            f"{path}: {width}x{height} pixels are more than {MAX_PIXELS // 1_000_000} million; "
            "make the picture smaller first"
        )


def _rgb_from_pillow(picture: Any) -> U8:
    """Any mode of Pillow's to (H, W, 3) uint8 RGB."""
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = _to_uint8(np.asarray(picture))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA"), np.float32)
        alpha = rgba[:, :, 3:] / np.float32(255)
        mixed = rgba[:, :, :3] * alpha + np.float32(ALPHA_BACKGROUND) * (1 - alpha)
        return np.asarray(np.rint(mixed), np.uint8)
    return np.array(picture.convert("RGB"), np.uint8)


def _to_uint8(values: npt.NDArray[Any]) -> U8:
    """Grey levels of another depth to 8 bits: by type, or by their maximum where that is vague."""
    scaled = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(scaled.max(initial=0.0))
    if values.dtype.kind == "f":
        scaled *= 255.0 if highest <= 1.0 else (1.0 if highest <= 255.0 else 255.0 / highest)
    elif values.dtype == np.uint16 or highest > 255.0:
        scaled *= 255.0 / (65535.0 if highest <= 65535.0 else highest)
    return np.asarray(np.rint(np.clip(scaled, 0.0, 255.0)), np.uint8)


def _read_with_opencv(path: Path) -> U8 | None:
    """(H, W, 3) uint8 RGB, or None where OpenCV does not know the format either."""
    import cv2

    _check_bytes(path)
    data = np.fromfile(path, np.uint8)
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as exc:
        _log.debug("%s: OpenCV: %s", path, exc)
        return None
    found: object = picture  # the stubs do not know that it may be None
    if found is None:
        return None
    array: npt.NDArray[Any] = np.asarray(picture)
    _check_size(path, array.shape[1], array.shape[0])
    array = _to_uint8(array) if array.dtype != np.uint8 else array
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.float32) / np.float32(255)
        mixed = array[:, :, :3] * alpha + np.float32(ALPHA_BACKGROUND) * (1 - alpha)
        array = np.asarray(np.rint(mixed), np.uint8)
    return np.ascontiguousarray(array[:, :, 2::-1])


def _check_bytes(path: Path) -> None:
    """OpenCV wants the whole file in memory; a long video under the name of a picture stays out.

    Raises:
        SourceError: If the file is too long.
    """
    if os.path.getsize(path) > 4 * MAX_PIXELS:
        raise SourceError(f"{path}: not a picture; {_what_it_is(_head_of(path))}")


def _what_it_is(head: bytes) -> str:
    """Half a sentence on what a file that is no picture seems to be, and what to do."""
    for magic, at, meaning in _OTHER_KINDS:
        if head[at : at + len(magic)].lower() == magic.lower():
            return f"it looks like {meaning}"
    if any(head[at : at + len(magic)] == magic for magic, at in _PICTURE_KINDS):
        return "it begins like one but is damaged: get the file again"
    return "use a JPEG or PNG"
