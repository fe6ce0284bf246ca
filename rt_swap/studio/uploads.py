"""What comes in from the browser: kept in a temporary folder under names of our own, limited in
size, told by content, removed after use.

The client's file name is a label that is shown again; no path is ever made from it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from rt_swap.errors import RtSwapError, SourceError

MIB: Final = 1024 * 1024
_MAX_NAME: Final = 80
_MAX_VIDEO_PIXELS: Final = 7680 * 4320

# The first bytes of what is given to a decoder. FFmpeg tells a file by content, and some of what it
# knows (playlists, lists of files) are texts that name other files, so nothing else gets that far.
_PICTURE_MAGIC: Final[tuple[tuple[int, bytes], ...]] = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF8"),
    (0, b"BM"),
    (0, b"II*\x00"),
    (0, b"MM\x00*"),
    (8, b"WEBP"),
    (4, b"ftypavif"),
    (4, b"ftypavis"),
)
_VIDEO_MAGIC: Final[tuple[tuple[int, bytes], ...]] = (
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"wide"),
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "),
    (0, b"OggS"),
    (0, b"FLV\x01"),
    (0, b"\x00\x00\x01\xba"),  # MPEG-PS
    (0, b"0&\xb2u\x8ef\xcf\x11"),  # ASF, WMV
)
_TS_PACKET: Final = 188


class TooLargeError(RtSwapError):
    """More bytes came than are taken."""


@dataclass(frozen=True)
class Upload:
    """A file that came in.

    Attributes:
        path: Where it is; a name of ours.
        name: What the client calls it, cleaned, to be shown.
        bytes: Its size.
    """

    path: Path
    name: str
    bytes: int

    def told(self, error: BaseException) -> str:
        """An error's message with the client's name in place of our path."""
        return " ".join(str(error).replace(str(self.path), self.name).split())


_PREFIX: Final = "rt_swap_studio_"


def _remove_orphans(parent: Path) -> None:
    """Remove folders of studios that are no more."""
    if sys.platform == "win32":  # which has no harmless way to ask
        return
    for folder in parent.glob(f"{_PREFIX}*_*"):
        number = folder.name.removeprefix(_PREFIX).split("_")[0]
        try:
            if not number.isdigit() or folder.stat().st_uid != os.getuid():
                continue
            os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # somebody else's process, or just gone
            continue


class Uploads:
    """The temporary folder; a context manager that removes it and all that is in it.

    What studios that were killed left behind is removed at the next one's start.

    Args:
        parent: Where to make it; None takes the system's place for temporary files.
    """

    def __init__(self, parent: Path | None = None) -> None:
        _remove_orphans(Path(tempfile.gettempdir()) if parent is None else parent)
        # only this user may look into it
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}_", dir=parent))

    def new_path(self, suffix: str = "") -> Path:
        """A name nobody can guess and no client has any part in."""
        return self.folder / f"{secrets.token_hex(16)}{suffix}"

    async def receive(
        self, chunks: AsyncIterator[bytes], name: str, limit_bytes: int, announced: int | None
    ) -> Upload:
        """Store what a client sends.

        Args:
            chunks: The body.
            name: The client's name of it, percent-encoded.
            limit_bytes: The most that is taken.
            announced: What the client says it will send, bytes.

        Raises:
            TooLargeError: If it is more than the limit; nothing is kept.
            SourceError: If nothing came or the disk is full.
        """
        label = clean_name(name)
        if announced is not None and announced > limit_bytes:
            raise _too_large(label, limit_bytes)
        path = self.new_path()
        size = 0
        try:
            with path.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit_bytes:
                        raise _too_large(label, limit_bytes)
                    file.write(chunk)
            if size == 0:
                raise SourceError(f"{label}: the file is empty (0 bytes)")
        except OSError as error:
            remove(path)
            if isinstance(error, RtSwapError):
                raise
            raise SourceError(f"{label}: cannot be stored ({error.strerror})") from error
        except BaseException:
            remove(path)
            raise
        return Upload(path, label, size)

    def close(self) -> None:
        """Remove everything; harmless when done twice."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove(path: Path) -> None:
    """Remove a file; harmless where there is none."""
    with contextlib.suppress(OSError):
        path.unlink()


def clean_name(name: str) -> str:
    """A client's name of a file as one short line of printable text, without folders."""
    text = unquote(name, errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    text = "".join(c for c in text if unicodedata.category(c)[0] != "C").strip()
    if len(text) > _MAX_NAME:
        stem, suffix = os.path.splitext(text)
        suffix = suffix[:10]
        text = stem[: _MAX_NAME - len(suffix) - 1] + "…" + suffix
    return text or "file"


def kind_of(upload: Upload) -> str:
    """What a file is by its first bytes.

    Returns:
        "picture" or "video".

    Raises:
        SourceError: If it is neither.
    """
    with upload.path.open("rb") as file:
        head = file.read(2 * _TS_PACKET + 1)

    def begins(magics: tuple[tuple[int, bytes], ...]) -> bool:
        return any(head[at : at + len(magic)] == magic for at, magic in magics)

    if begins(_PICTURE_MAGIC):
        return "picture"
    is_ts = len(head) > 2 * _TS_PACKET and {head[0], head[_TS_PACKET], head[2 * _TS_PACKET]} == {71}
    if begins(_VIDEO_MAGIC) or is_ts:
        return "video"
    raise SourceError(
        f"{upload.name}: is neither a picture nor a video that is taken here; use JPEG, PNG or"
        " WebP, or MP4, MOV, MKV or WebM"
    )


def check_video(upload: Upload) -> float | None:
    """Decode a video's first frame.

    Returns:
        Its length in seconds, or None where it does not say.

    Raises:
        SourceError: If it cannot be read or its picture is larger than 8K.
    """
    from rt_swap.io.video import VideoReader

    with VideoReader(upload.path) as reader:
        info = reader.info
        if info.width * info.height > _MAX_VIDEO_PIXELS:
            raise SourceError(
                f"{upload.name}: {info.width}x{info.height} is larger than 8K; make it smaller"
            )
        return info.duration_s


def _too_large(name: str, limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"{name}: is larger than the {limit_bytes // MIB} MiB that are taken here; cut it, or use"
        " rt-swap on the command line, which has no limit"
    )
