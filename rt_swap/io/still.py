"""A sink for one picture: a still target gives a still output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final

from rt_swap.errors import SinkError
from rt_swap.frames import U8, Frame
from rt_swap.io.output import PartFile, sink_error

STILL_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Extensions that mean a picture."""

_JPEG_QUALITY: Final = 95


class StillWriter:
    """Writes exactly one picture. A context manager: finishes on success, throws all away on an
    exception.

    Args:
        path: The output; its extension decides the format.
        overwrite: Replace an existing file.
        inputs: Files that are being read; the output may not be one of them.
        seal: See PartFile.

    Attributes:
        path: The output.
        frames: Pictures taken, 0 or 1.

    Raises:
        SinkError: If the path cannot be used (see PartFile).
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        inputs: Iterable[Path] = (),
        seal: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.frames = 0
        self._part = PartFile(self.path, overwrite=overwrite, inputs=inputs, seal=seal)
        self._picture: U8 | None = None

    def write(self, frame: Frame) -> None:
        """Take the picture.

        Raises:
            SinkError: If it is the second one.
        """
        if self.frames:
            raise SinkError(
                f"{self.path}: is a picture, but the target has more than one frame; write to"
                f" {self.path.with_suffix('.mp4').name} instead"
            )
        self._picture = frame.frame_bgr.copy()
        self.frames = 1

    def finish(self, *, last_duration: int | None = None, cut_audio: bool = False) -> None:
        """Write the file under its final name.

        Raises:
            SinkError: If nothing came or it cannot be written; nothing is left then.
        """
        import cv2

        if self._picture is None:
            if not self.frames:
                self.abort()
                raise SinkError(f"{self.path}: no picture came, so there is no file")
            return
        picture, self._picture = self._picture, None
        options = []
        if self.path.suffix.lower() in (".jpg", ".jpeg"):
            options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        try:
            done, encoded = cv2.imencode(self.path.suffix.lower(), picture, options)
        except cv2.error as exc:
            self.abort()
            raise sink_error(self.path, exc, "encoding the picture") from exc
        if not done:
            self.abort()
            raise SinkError(f"{self.path}: the picture could not be encoded; use .png")
        try:
            self._part.part.write_bytes(encoded.tobytes())
        except OSError as exc:
            self.abort()
            raise sink_error(self.path, exc, "writing") from exc
        self._part.commit()

    def abort(self) -> None:
        """Throw the picture away; never raises; harmless after finish."""
        self._picture = None
        self._part.discard()

    def __enter__(self) -> StillWriter:
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
