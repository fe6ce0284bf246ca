"""From a picture or a clip of the source to AU tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from rt_swap import geometry
from rt_swap.contract import CROP_SIZE_PX, ENCODER_SPEC, STABLE_LANDMARKS
from rt_swap.errors import ConfigError, ContractError, NoFaceError, SourceError
from rt_swap.frames import F32, F64, U8, Expression, FaceCrop, Frame, TrackedFace, TrackState

_log = logging.getLogger(__name__)

_RGB: Final = ENCODER_SPEC.inputs[0].name
_MARGINS: Final = (0.0, 0.5)
"""Borders to try around a picture, as a fraction of its longer side: a face that fills the picture
is found only with room around it."""


class Encoder(Protocol):
    """The part of a backend's session that encoding needs; run() may reuse its outputs."""

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run the expression encoder."""
        ...


class FaceFinder(Protocol):
    """The part of a face tracker that encoding a picture needs."""

    def detect(self, frame_bgr: U8) -> list[TrackedFace]:
        """Faces of a picture, the largest first."""
        ...


class Follower(Protocol):
    """The part of a face follower that encoding a clip needs."""

    def follow(self, frame: Frame) -> FaceCrop | None:
        """The chosen person's stabilised crop in the next frame."""
        ...


def encode_picture(
    picture_bgr: U8,
    encoder: Encoder,
    tracker: FaceFinder,
    face: str | int = "largest",
    *,
    name: str,
    model_sha256: str,
) -> Expression:
    """Encode one picture.

    Args:
        picture_bgr: (H, W, 3) uint8, BGR.
        encoder: Session of the expression encoder.
        tracker: Finds faces in a picture that no other came before.
        face: "largest", or the face's number counted from the left of the picture, 0 being the
            leftmost; the same as when a video's face is chosen.
        name: What the picture is called, for messages.
        model_sha256: Hash of the encoder.

    Returns:
        A still expression; its arrays are its own.

    Raises:
        NoFaceError: If there is no face, or not as many as face asks for.
        ConfigError: If face is neither "largest" nor a number from 0.
        ContractError: If the picture is not (H, W, 3) uint8.
    """
    wanted = check_face_choice(face)
    if picture_bgr.dtype != np.uint8 or picture_bgr.ndim != 3 or picture_bgr.shape[2] != 3:
        raise ContractError(
            f"encode_picture: {name}: the picture must be uint8 (H, W, 3) BGR, "
            f"got {picture_bgr.dtype} {picture_bgr.shape}"
        )
    faces = find_faces(picture_bgr, tracker)
    height, width = picture_bgr.shape[:2]
    if not faces:
        raise NoFaceError(
            f"{name}: no face was found in this {width}x{height} picture; use one that shows a "
            "face from the front, well lit, at least 64 pixels wide"
        )
    if wanted is not None and wanted >= len(faces):
        raise NoFaceError(
            f"{name}: face {wanted} was asked for, but only {len(faces)} "
            f"{'face was' if len(faces) == 1 else 'faces were'} found; "
            f"choose 0 (the leftmost) to {len(faces) - 1}, or the largest"
        )
    if wanted is None and len(faces) > 1:
        _log.warning(
            "%s: %d faces were found; using the largest (choose one with --face 0 to %d, counted "
            "from the left)",
            name,
            len(faces),
            len(faces) - 1,
        )
    chosen = faces[0] if wanted is None else sorted(faces, key=_centre_x)[wanted]
    M_crop_from_frame = geometry.crop_from_landmarks(chosen.landmarks_xy)
    tokens, aus_lr = _encode_crop(picture_bgr, M_crop_from_frame, encoder)
    return Expression(
        tokens=tokens[None],
        aus_lr=aus_lr[None],
        times_s=np.zeros(1),
        duration_s=0.0,
        name=name,
        model_sha256=model_sha256,
    )


def find_faces(picture_bgr: U8, tracker: FaceFinder) -> list[TrackedFace]:
    """Faces of a picture, the largest first; with a border around it where there is none without.

    Args:
        picture_bgr: (H, W, 3) uint8, BGR.
        tracker: Finds faces.

    Returns:
        Faces in coordinates of the picture as given; landmarks may lie outside of it.
    """
    for fraction in _MARGINS:
        margin_px = round(fraction * max(picture_bgr.shape[:2]))
        wider = _with_margin(picture_bgr, margin_px)
        faces = tracker.detect(wider)
        if faces:
            moved = [replace(f, landmarks_xy=f.landmarks_xy - float(margin_px)) for f in faces]
            return sorted(moved, key=_area, reverse=True)
    return []


def encode_clip(
    path: Path,
    encoder: Encoder,
    follower: Follower,
    *,
    name: str | None = None,
    model_sha256: str,
    progress: Callable[[float], None] | None = None,
) -> Expression:
    """Encode every frame of a clip.

    Args:
        path: A video file.
        encoder: Session of the expression encoder.
        follower: Follows one person; fresh, or reset.
        name: What the clip is called in messages; None: its file's name.
        model_sha256: Hash of the encoder.
        progress: Called after each frame with the seconds encoded so far.

    Returns:
        One entry per frame, times from 0; where no face is seen, valid is False.

    Raises:
        SourceError: If the clip cannot be read or has no frames.
        NoFaceError: If no frame shows a face.
    """
    from rt_swap.io.video import VideoReader

    name = path.name if name is None else name
    with VideoReader(path) as reader:
        return encode_frames(
            reader,
            encoder,
            follower,
            name=name,
            model_sha256=model_sha256,
            duration_s=reader.info.duration_s,
            progress=progress,
        )


def encode_frames(
    frames: Iterable[Frame],
    encoder: Encoder,
    follower: Follower,
    *,
    name: str,
    model_sha256: str,
    duration_s: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Expression:
    """Encode frames, one entry each.

    A frame whose time does not go on from the one before is left out. Where the follower only holds
    its last crop the face is not really seen: that entry is not valid and repeats the last valid
    one (the first valid one where none came before).

    Args:
        frames: In order of time.
        encoder: Session of the expression encoder.
        follower: Follows one person; fresh, or reset.
        name: For messages.
        model_sha256: Hash of the encoder.
        duration_s: Length of the clip in seconds; None: the last time and one mean step.
        progress: Called after each frame with the seconds encoded so far.

    Returns:
        The expression; times start at 0.

    Raises:
        SourceError: If there are no frames.
        NoFaceError: If no frame shows a face.
    """
    tokens: list[F32 | None] = []
    aus_lr: list[F32 | None] = []
    times_s: list[float] = []
    start_s: float | None = None
    out_of_order = 0
    for frame in frames:
        start_s = frame.time_s if start_s is None else start_s
        time_s = frame.time_s - start_s
        if times_s and time_s <= times_s[-1]:
            out_of_order += 1
            continue
        crop = follower.follow(frame)
        times_s.append(time_s)
        if crop is None or crop.state is not TrackState.TRACKED:
            tokens.append(None)
            aus_lr.append(None)
        else:
            frame_tokens, frame_aus = _encode_crop(frame.frame_bgr, crop.M_crop_from_frame, encoder)
            tokens.append(frame_tokens)
            aus_lr.append(frame_aus)
        if progress is not None:
            progress(time_s)
    if not times_s:
        raise SourceError(f"{name}: has no frames; use a clip that plays, or a picture")
    if out_of_order:
        _log.warning("%s: %d frames out of order were left out", name, out_of_order)
    valid = np.array([entry is not None for entry in tokens], np.bool_)
    if not valid.any():
        raise NoFaceError(
            f"{name}: no face was found in any of its {len(times_s)} frames; use a clip that shows "
            "a face from the front, well lit"
        )
    if not valid.all():
        _log.info("%s: no face in %d of %d frames", name, int((~valid).sum()), len(valid))
    step_s = times_s[-1] / (len(times_s) - 1) if len(times_s) > 1 else 0.0
    return Expression(
        tokens=_filled(tokens),
        aus_lr=_filled(aus_lr),
        times_s=np.array(times_s),
        duration_s=max(times_s[-1] + step_s if duration_s is None else duration_s, times_s[-1]),
        name=name,
        model_sha256=model_sha256,
        valid=valid,
    )


def encode_face(frame_bgr: U8, crop: FaceCrop, encoder: Encoder) -> tuple[F32, F32]:
    """Encode one face that is already tracked, as of a live source.

    Args:
        frame_bgr: (H, W, 3) uint8, BGR.
        crop: Where the face is.
        encoder: Session of the expression encoder.

    Returns:
        tokens (K, D) and aus_lr (K, 2), float32, the caller's own.
    """
    return _encode_crop(frame_bgr, crop.M_crop_from_frame, encoder)


def check_face_choice(face: str | int) -> int | None:
    """None for "largest", else the face's number.

    Raises:
        ConfigError: If it is neither.
    """
    if face == "largest":
        return None
    try:
        number = int(face)
    except ValueError:
        number = -1
    if number < 0 or isinstance(face, bool):
        raise ConfigError(
            f'face must be "largest" or a number from 0 (0 is the leftmost), got {face!r}'
        )
    return number


def _encode_crop(frame_bgr: U8, M_crop_from_frame: F64, encoder: Encoder) -> tuple[F32, F32]:
    from rt_swap.ops import crop_rgb

    rgb = crop_rgb(frame_bgr, geometry.invert(M_crop_from_frame), CROP_SIZE_PX)
    outputs = encoder.run({_RGB: rgb})
    # the session overwrites its outputs at the next run
    return outputs["tokens"][0].copy(), outputs["aus_lr"][0].copy()


def _with_margin(picture_bgr: U8, margin_px: int) -> U8:
    if margin_px == 0:
        return np.ascontiguousarray(picture_bgr)
    border = ((margin_px, margin_px), (margin_px, margin_px), (0, 0))
    return np.pad(picture_bgr, border, mode="constant", constant_values=128)


def _area(face: TrackedFace) -> float:
    width, height = face.landmarks_xy.max(0) - face.landmarks_xy.min(0)
    return float(width * height)


def _centre_x(face: TrackedFace) -> float:
    return float(face.landmarks_xy[list(STABLE_LANDMARKS), 0].mean())


def _filled(entries: list[F32 | None]) -> F32:
    """Stack; what is missing repeats the last one there, or the first where none came before."""
    last = next(entry for entry in entries if entry is not None)
    stacked = np.empty((len(entries), *last.shape), np.float32)
    for i, entry in enumerate(entries):
        last = last if entry is None else entry
        stacked[i] = last
    return stacked
