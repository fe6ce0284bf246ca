"""The expressions to choose from: the model's presets, and pictures and clips dropped in.

All encoding is done on one thread of the gallery's own, with a model of its own, so that nothing
waits for it but who asked. A file dropped in is removed as soon as it is encoded: what stays is its
tokens and a thumbnail, in memory.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, TypeVar

import numpy as np

from rt_swap.aus import AUS
from rt_swap.errors import ConfigError, ExpressionError, RtSwapError, SourceError
from rt_swap.expression import find_faces
from rt_swap.frames import U8, Expression, Frame
from rt_swap.geometry import crop_from_landmarks
from rt_swap.io.picture import is_still_picture, read_picture
from rt_swap.studio import pictures
from rt_swap.studio.uploads import Upload, check_video, kind_of, remove
from rt_swap.swapper import Swapper

logger = logging.getLogger(__name__)

MakeSwapper = Callable[[], Swapper]
T = TypeVar("T")

MAX_UPLOADS: Final = 48
MAX_CLIP_S: Final = 60.0
_STEP: Final = Fraction(1, 30)
_SETTLE: Final = 2
"""Frames of a still that are shown a preset before its picture is taken."""
_STRONGEST: Final = 4
_WORTH_TELLING: Final = 0.12

_ORDER: Final = (
    "smile",
    "laugh",
    "surprise",
    "wink",
    "sadness",
    "anger",
    "fear",
    "disgust",
    "neutral",
)
"""Presets as they stand in the gallery, and as the keys 1 to 9 choose them."""


@dataclass(frozen=True)
class Entry:
    """One expression of the gallery.

    Attributes:
        id: What the page calls it by.
        kind: "preset", "picture" or "clip".
        name: To be shown.
        expression: Its tokens.
        thumbnail: JPEG, or None while there is none.
        version: Changes with the thumbnail.
    """

    id: str
    kind: str
    name: str
    expression: Expression
    thumbnail: bytes | None = None
    version: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the AUs that stand out."""
        seen = self.expression.aus_lr[self.expression.valid].max(axis=2)
        peak = seen.max(axis=0)
        strongest = [int(k) for k in np.argsort(-peak)[:_STRONGEST] if peak[k] > _WORTH_TELLING]
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "thumbnail": self.version if self.thumbnail is not None else None,
            "duration_s": round(self.expression.duration_s, 2),
            "strongest": [f"{AUS[k].id.name} {AUS[k].name}" for k in strongest],
            "aus": {au.id.name: round(float(peak[k]), 3) for k, au in enumerate(AUS)},
        }


class Gallery:
    """Thread-safe.

    Args:
        make_swapper: Loads the model; what it encodes must not be kept on disk.
    """

    def __init__(self, make_swapper: MakeSwapper) -> None:
        self._make_swapper = make_swapper
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._version = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rt_swap gallery")
        self._swapper: Swapper | None = None
        self._closed = False

    # --- looking ---
    def entries(self) -> list[Entry]:
        """All, presets first."""
        with self._lock:
            return list(self._entries.values())

    def get(self, id_: str) -> Entry:
        """One of them.

        Raises:
            ConfigError: If there is none of that id.
        """
        with self._lock:
            entry = self._entries.get(id_)
        if entry is None:
            raise ConfigError("the gallery has no such expression; it may have been removed")
        return entry

    # --- changing ---
    def start(self) -> Future[None]:
        """Load the presets and begin with their thumbnails, on the gallery's thread."""
        loaded = self._thread.submit(self._load_presets)
        own = self._thread.submit(self._show_presets, None)
        own.add_done_callback(_log_failure)
        return loaded

    def show_presets_on(self, picture_bgr: U8) -> Future[None]:
        """Make the presets' thumbnails from a picture of a face, such as the user's own."""
        return self._thread.submit(self._show_presets, picture_bgr)

    def lacks_thumbnails(self) -> bool:
        """Whether presets are shown by their names only."""
        return any(e.kind == "preset" and e.thumbnail is None for e in self.entries())

    def add(self, upload: Upload) -> Future[Entry]:
        """Encode a picture or clip; its file is removed, whatever comes of it.

        The future's exception is an RtSwapError whose text may be shown to the client.
        """
        try:
            return self._thread.submit(self._add, upload)
        except RuntimeError:  # closed meanwhile
            remove(upload.path)
            raise SourceError("the studio is being closed") from None

    def remove(self, id_: str) -> None:
        """Forget an upload.

        Raises:
            ConfigError: If there is none, or it is a preset.
        """
        if self.get(id_).kind == "preset":
            raise ConfigError("presets cannot be removed")
        with self._lock:
            self._entries.pop(id_, None)

    def close(self) -> None:
        """Release the model; what waits is dropped. Harmless when done twice."""
        self._closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._swapper is not None:
            self._swapper.close()
            self._swapper = None

    # --- on the gallery's thread ---
    def _model(self) -> Swapper:
        if self._swapper is None:
            self._swapper = self._make_swapper()
        return self._swapper

    def _load_presets(self) -> None:
        swapper = self._model()
        shipped: list[str] = list(swapper.bundle.preset_names)
        names: list[str] = [name for name in _ORDER if name in shipped]
        names += [name for name in shipped if name not in names]
        for name in names:
            entry = Entry(f"preset:{name}", "preset", name.capitalize(), swapper.preset(name))
            with self._lock:
                self._entries[entry.id] = entry

    def _show_presets(self, picture_bgr: U8 | None) -> None:
        """Thumbnails of all presets on one face, each in place as soon as it is there."""
        if picture_bgr is None:
            picture_bgr = pictures.portrait()
        if picture_bgr is None:
            return  # until the first camera picture
        picture_bgr = pictures.shrunk(picture_bgr)
        swapper = self._model()
        swapper.reset()
        pts = 0
        for entry in self.entries():
            if entry.kind != "preset" or self._closed:
                continue
            for _ in range(_SETTLE):
                frame = Frame(picture_bgr, pts, _STEP)
                result = swapper.process(frame, entry.expression)
                pts += 1
            if result.crop is None:
                logger.info("the gallery's picture shows no face, so presets go by their names")
                return
            data = pictures.thumbnail(result.frame.frame_bgr, result.crop.M_crop_from_frame)
            with self._lock:
                self._version += 1
                if entry.id in self._entries:
                    self._entries[entry.id] = replace(entry, thumbnail=data, version=self._version)

    def _add(self, upload: Upload) -> Entry:
        try:
            with self._lock:
                uploads = sum(e.kind != "preset" for e in self._entries.values())
            if uploads >= MAX_UPLOADS:
                raise ConfigError(f"{MAX_UPLOADS} expressions are enough; remove one first")
            kind, expression, data = self._encode(upload)
        except RtSwapError as error:
            raise type(error)(upload.told(error)) from error
        except (ValueError, MemoryError, OSError) as error:
            logger.warning("encoding an upload failed: %s", error, exc_info=True)
            raise SourceError(f"{upload.name}: cannot be read") from error
        finally:
            remove(upload.path)
        with self._lock:
            self._version += 1
            entry = Entry(
                f"upload:{secrets.token_hex(8)}",
                kind,
                upload.name,
                replace(expression, name=upload.name),
                data,
                self._version,
            )
            self._entries[entry.id] = entry
        return entry

    def _encode(self, upload: Upload) -> tuple[str, Expression, bytes]:
        swapper = self._model()
        if kind_of(upload) == "picture" and is_still_picture(upload.path):
            picture_bgr = read_picture(upload.path)
            expression = swapper.encode(picture_bgr, name=upload.name)
            return "picture", expression, self._face(picture_bgr)
        length_s = check_video(upload)
        if length_s is not None and length_s > MAX_CLIP_S:
            raise _too_long(upload)

        def watch(time_s: float) -> None:
            if time_s > MAX_CLIP_S:  # of a file that did not say
                raise _too_long(upload)
            if self._closed:
                raise SourceError("the studio is being closed")

        expression = swapper.encode_clip(upload.path, progress=watch)
        return "clip", expression, self._face(_frame_at(upload, _telling_moment(expression)))

    def _face(self, picture_bgr: U8) -> bytes:
        from rt_swap.tracking import MediapipeTracker

        picture_bgr = pictures.shrunk(picture_bgr)
        with MediapipeTracker(static=True) as tracker:
            faces = find_faces(picture_bgr, tracker)
        M = crop_from_landmarks(faces[0].landmarks_xy) if faces else None
        return pictures.thumbnail(picture_bgr, M)


def _too_long(upload: Upload) -> ExpressionError:
    return ExpressionError(
        f"{upload.name}: is longer than {MAX_CLIP_S:g} s; cut out the part you want"
    )


def _telling_moment(expression: Expression) -> float:
    """Seconds into a clip at which the most is going on in the face."""
    strength = expression.aus_lr.max(axis=2).sum(axis=1) * expression.valid
    return float(expression.times_s[int(np.argmax(strength))])


def _frame_at(upload: Upload, time_s: float) -> U8:
    from rt_swap.io.video import VideoReader

    with VideoReader(upload.path) as reader:
        start_s: float | None = None
        for frame in reader:
            start_s = frame.time_s if start_s is None else start_s
            if frame.time_s - start_s >= time_s:
                break
        return frame.frame_bgr


def _log_failure(future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("the gallery's thumbnails could not be made: %s", error)
