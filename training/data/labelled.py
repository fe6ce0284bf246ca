"""Real pictures whose AUs are known: readers of published layouts, and crops ready for training.

    python -m training.data.labelled --layout disfa --from DIR --out labelled/disfa
    python -m training.train ... --labelled labelled/disfa

Nothing here downloads anything: RaFD, MMI, CFD, DISFA and BP4D are given out by those who made
them, under agreements of their own. Layouts are known from what the sets' makers publish (papers,
overview and help pages) and from how public code reads them; each reader's docstring says which.
Where a set does not say itself how a label becomes a number, the reader's docstring calls it a
judgement.

How labels become intensities, for every layout:
    FACS grades A to E, or 1 to 5, are 0.2 to 1.0 (:mod:`rt_swap.aus`). "Present" without a grade
    is PRESENT, the middle grade C (a judgement: 1 would teach that every smile is the widest).
    What nobody coded is not labelled, which is not the same as absent. AU27 (mouth stretch) and
    AU43 (eyes closed) are read as AU26 and AU45, which the same shapes show, but only where they
    are present: no stretched mouth may still be a dropped jaw. The sideways jaw, AU30, without a
    side is labelled only where it is absent. AUs without a token (such as 23 and 25) are dropped.

A prepared folder holds N crops, as the runtime would cut them, of people of all splits:

    rgb.npy    (N, 256, 256, 3) uint8    labels.npy (N, K, 2) float32, [left, right], in [0, 1]
    mask.npy   (N, K, 2) bool, labelled  people.npy (N,) int32 into labelled.json "people"
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import logging
import math
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rt_swap import geometry
from rt_swap.aus import AU_NAMES, AUS, NUM_AUS, AuId
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError, ContractError, RtSwapError, SourceError
from rt_swap.frames import F32, F64, U8, TrackedFace
from training import losses
from training.config import LOOK_XYXY, AugmentConfig
from training.data.dataset import (
    BatchMaker,
    colours_of,
    degraded,
    mirror_aus,
    mirror_order,
    to_tensor,
    warp_picture,
)
from training.data.split import SPLITS, split_of

logger = logging.getLogger(__name__)

FORMAT: Final = 1
PRESENT: Final = 0.6
"""Intensity of an AU that is there without a grade: the middle one, C, of A to E."""
EVERY: Final = 10
"""Of a sequence's labelled frames every so many are kept; neighbours show the same."""
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES: Final = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".wmv")

_KNOWN: Final[Mapping[int, AuId]] = {int(au): au for au in AuId}
_SAME_SHAPES: Final[Mapping[int, AuId]] = {27: AuId.AU26, 43: AuId.AU45}
"""Units that stronger or longer use of another one's shapes shows."""
_MIDLINE: Final = frozenset(au.id for au in AUS if au.is_midline)
_GAZE: Final = (AuId.AU61, AuId.AU62, AuId.AU63, AuId.AU64)
_SIDES: Final[Mapping[str, slice]] = {"": slice(0, 2), "L": slice(0, 1), "R": slice(1, 2)}
_SYSTEM_FILES: Final = ("thumbs.db", "desktop.ini")
_NAMED: Final = 5
"""Names that a log line lists before it counts only."""
_TRACKED_FACES: Final = 4
"""Faces looked for in a picture, as rt_swap.Swapper does for a source; the largest is taken."""
_EYE_CORNERS: Final = ((33, 133, 468), (362, 263, 473))
"""mediapipe's corners, from the person's right to their left, and iris centre, of each eye."""


# --- what is read ---------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """One picture of one person, or one frame of a video, with the AUs that are known.

    Attributes:
        path: The picture or video.
        person: Who it is, unique within the dataset.
        labels: (K, 2) float32 in [0, 1], [left, right], the person's own sides; 0 where unknown.
        mask: (K, 2) bool, True where labelled. Sides are equal unless the layout tells them apart.
        frame: Number of the frame of a video, from 1; None for a picture.
        sequence: The sequence that it is a frame of; empty for a picture that stands alone.
    """

    path: Path
    person: str
    labels: F32
    mask: npt.NDArray[np.bool_]
    frame: int | None = None
    sequence: str = ""

    @property
    def name(self) -> str:
        """For messages."""
        return self.path.name + (f" frame {self.frame}" if self.frame is not None else "")


@dataclass
class Notes:
    """What could not be used, by reason, and AUs that have no token."""

    left_out: dict[str, list[str]] = field(default_factory=dict)
    unknown_aus: set[int] = field(default_factory=set)

    def add(self, reason: str, name: str) -> None:
        """Remember one."""
        self.left_out.setdefault(reason, []).append(name)

    def lines(self) -> list[str]:
        """A sentence for each reason, with the first names."""
        said = [
            f"{reason}: {len(names)} ({_some(names)})" for reason, names in self.left_out.items()
        ]
        if self.unknown_aus:
            numbers = ", ".join(f"AU{au}" for au in sorted(self.unknown_aus))
            said.append(f"labels that have no token of their own, dropped: {numbers}")
        return said


@dataclass(frozen=True)
class LabelledSet:
    """A set that was read.

    Attributes:
        layout: One of LAYOUTS.
        dataset: What people are split by: the layout's name; for ``csv`` the folder's.
        pictures: In a fixed order, frames of a sequence in theirs.
        notes: What was left out.
    """

    layout: str
    dataset: str
    pictures: tuple[LabelledPicture, ...]
    notes: Notes


def read_labelled(folder: Path, layout: str) -> LabelledSet:
    """Read a set of labelled pictures in one of LAYOUTS.

    Files that are not understood are counted and named in the log, AUs without a token once.

    Raises:
        ConfigError: If there is no such layout or folder, nothing of the layout in it, or a
            number that cannot be read (with file and line).
    """
    if layout not in LAYOUTS:
        raise ConfigError(
            f"read_labelled: no layout {layout!r}; there are {', '.join(sorted(LAYOUTS))}"
        )
    if not folder.is_dir():
        raise ConfigError(f"read_labelled: no folder at {folder}; check the path")
    files = _files(folder)
    if not any(_is_picture(p) or _is_video(p) for p in files):
        raise ConfigError(
            f"read_labelled: {folder} holds no pictures and no videos "
            f"({', '.join(PICTURE_SUFFIXES + VIDEO_SUFFIXES)}); give the folder that does"
        )
    notes = Notes()
    found = LAYOUTS[layout].read(folder, files, notes)
    for line in notes.lines():
        logger.info("%s: %s", folder.name, line)
    if not found:
        raise ConfigError(
            f"read_labelled: nothing in {folder} is a labelled picture of layout {layout!r}, which "
            f"looks like {LAYOUTS[layout].looks_like}; give the folder above these, or another "
            f"layout ({', '.join(sorted(LAYOUTS))})"
        )
    dataset = folder.resolve().name if layout == "csv" else layout
    return LabelledSet(layout, dataset, tuple(found), notes)


class _Labels:
    """Labels of one picture while they are put together; nothing is labelled at first.

    Args:
        notes: Where AUs without a token are remembered.
        absent: Start with every AU labelled as absent.
    """

    def __init__(self, notes: Notes, *, absent: bool = False) -> None:
        self.values = np.zeros((NUM_AUS, 2), np.float32)
        self.mask = np.full((NUM_AUS, 2), absent)
        self._notes = notes

    def set(self, number: int, value: float, side: str = "") -> None:
        """Label an AU; what says more of the same AU wins.

        Args:
            number: FACS number.
            value: Intensity in [0, 1].
            side: "L", "R", or empty for both.
        """
        where = self._where(number, side)
        if where is None or (number in _SAME_SHAPES and value <= 0):
            return
        if number == AuId.AU30 and not side and value > 0:
            self.mask[where] = False  # it went to one side, and nobody says which
            return
        self.values[where] = np.maximum(np.where(self.mask[where], self.values[where], 0.0), value)
        self.mask[where] = True

    def forget(self, number: int, side: str = "") -> None:
        """Make an AU unlabelled. Arguments as for :meth:`set`."""
        where = self._where(number, side)
        if where is not None:
            self.values[where], self.mask[where] = 0.0, False

    def _where(self, number: int, side: str) -> tuple[int, slice] | None:
        au = _KNOWN.get(number) or _SAME_SHAPES.get(number)
        if au is None:
            self._notes.unknown_aus.add(number)
            return None
        return au.index, _SIDES["" if au in _MIDLINE else side]

    def of(
        self, path: Path, person: str, frame: int | None = None, sequence: str = ""
    ) -> LabelledPicture:
        """The finished picture."""
        return LabelledPicture(path, person, self.values, self.mask, frame, sequence)


# --- csv ------------------------------------------------------------------------------------------
def read_csv(folder: Path, files: Sequence[Path], notes: Notes) -> list[LabelledPicture]:
    """Any pictures, with a table of AUs: ``labels.csv`` in the folder, or the only CSV in it.

    First row ``file,person,AU1,AU12_L,AU12_R,...``; then a row for each picture. ``file`` is
    relative to the folder; an empty ``person`` makes the file a person of its own. ``AU12`` is
    both sides, ``AU12_L`` and ``AU12_R`` the person's own left and right and count for more. An
    empty cell is not labelled. A column ``frame`` numbers a video's frames from 1. Lines that
    begin with # are comments; the comment ``# scale: 5`` says that intensities run from 0 to 5 and
    not from 0 to 1.

    Args:
        folder: The set's.
        files: All files in it.
        notes: Where to say what was left out.
    """
    table = _table(folder)
    rows, scale = _rows_of_table(table)
    if not rows:
        raise ConfigError(f"{table}: is empty; its first row must be file,person,AU1,...")
    (_, header), *rest = rows
    columns = _columns_of_table(table, header, notes)
    found, used = [], {table}
    for line, cells in rest:
        if len(cells) != len(header):
            raise ConfigError(
                f"{table}:{line}: has {len(cells)} cells, the first row has {len(header)}; "
                "write an empty cell for what is not labelled"
            )
        row = dict(zip(header, cells, strict=True))
        path = folder / row["file"]
        used.add(path)
        if not row["file"] or not path.is_file():
            notes.add(f"named in {table.name} but not there", row["file"] or f"line {line}")
            continue
        frame = _frame_of_row(table, line, path, row.get("frame", ""))
        labels = _Labels(notes)
        for column, number, side in columns:
            if row[column]:
                value = _number(row[column], table, line, column, scale) / scale
                if side and number in _KNOWN:
                    labels.forget(number, side)  # what both sides' column said
                labels.set(number, value, side)
        if not labels.mask.any():
            notes.add(f"no AU in {table.name}", path.name)
            continue
        sequence = row["file"] if frame is not None else ""
        found.append(labels.of(path, row["person"] or row["file"], frame, sequence))
    _add_unknown(notes, f"not in {table.name}", files, used)
    return sorted(found, key=lambda picture: (str(picture.path), picture.frame or 0))


def _table(folder: Path) -> Path:
    named = folder / "labels.csv"
    tables = [named] if named.is_file() else sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise ConfigError(
            f"{folder}: holds {len(tables)} CSV tables; name the one with the AUs labels.csv"
        )
    return tables[0]


def _rows_of_table(table: Path) -> tuple[list[tuple[int, list[str]]], float]:
    """Rows with their line numbers, and the scale."""
    rows, scale = [], 1.0
    for line, text in enumerate(_text(table).splitlines(), 1):
        if text.startswith("#"):
            option, _, value = text[1:].partition(":")
            if option.strip().lower() == "scale":
                scale = _number(value.strip(), table, line, "scale", math.inf)
                if scale <= 0:
                    raise ConfigError(f"{table}:{line}: scale must be more than 0, got {value}")
        elif text.strip():
            rows.append((line, [cell.strip() for cell in next(csv.reader([text]))]))
    return rows, scale


def _columns_of_table(
    table: Path, header: Sequence[str], notes: Notes
) -> list[tuple[str, int, str]]:
    """(column, AU, side) of each AU column that has a token, both sides at once before each."""
    found, strange = [], []
    for column in header:
        if column in ("file", "person", "frame"):
            continue
        match = re.fullmatch(r"AU0*(\d+)(?:_([LR]))?", column)
        if match is None:
            strange.append(column or "an empty one")
            continue
        number, side = int(match[1]), match[2] or ""
        if number not in _KNOWN and number not in _SAME_SHAPES:
            notes.unknown_aus.add(number)
        elif side and (_KNOWN.get(number) or _SAME_SHAPES[number]) in _MIDLINE:
            raise ConfigError(f"{table}: {column}: AU{number} has no sides; call it AU{number}")
        else:
            found.append((column, number, side))
    missing = [name for name in ("file", "person") if name not in header]
    if missing or strange or len(set(header)) != len(header):
        what = (
            f"has no column {' and no column '.join(missing)}"
            if missing
            else f"has columns that are no AU: {', '.join(strange)}"
            if strange
            else "names a column twice"
        )
        raise ConfigError(
            f"{table}: the first row {what}; it must be file,person, frame where there are videos, "
            "and AUs such as AU4, AU12_L, AU12_R"
        )
    return sorted(found, key=lambda entry: entry[2])


def _frame_of_row(table: Path, line: int, path: Path, text: str) -> int | None:
    if text:
        frame = _number(text, table, line, "frame", math.inf)
        if frame < 1 or frame != int(frame):
            raise ConfigError(f"{table}:{line}: frame must be a whole number from 1, got {text}")
        return int(frame)
    if _is_video(path):
        raise ConfigError(
            f"{table}:{line}: {path.name} is a video; say which frame in a column frame, from 1"
        )
    return None


# --- RaFD -----------------------------------------------------------------------------------------
def _graded(grades: str) -> float:
    """Mean intensity of a range of FACS grades, such as "CDE"."""
    return sum("ABCDE".index(grade) + 1 for grade in grades) / len(grades) / 5


RAFD_PROTOTYPES: Final[Mapping[str, Mapping[int, float]]] = {
    "neutral": {},
    "angry": {4: _graded("CDE"), 5: _graded("CDE"), 7: PRESENT, 17: PRESENT},
    "contemptuous": {},
    "disgusted": {9: PRESENT, 10: PRESENT},
    "fearful": {1: PRESENT, 2: PRESENT, 4: PRESENT, 5: _graded("DE"), 20: PRESENT},
    "happy": {6: PRESENT, 12: _graded("CDE")},
    "sad": {1: PRESENT, 4: PRESENT, 15: _graded("ABC"), 17: PRESENT},
    "surprised": {1: PRESENT, 2: PRESENT, 5: _graded("AB"), 26: PRESENT},
}
"""AUs that RaFD's models were coached to show, as its makers list them; see :func:`read_rafd`."""

_RAFD_NAME: Final = re.compile(
    r"rafd(?P<angle>\d{3})_(?P<person>\d+)_[a-z]+_(?:fe)?male_"
    rf"(?P<emotion>{'|'.join(RAFD_PROTOTYPES)})_(?P<gaze>left|frontal|right)",
    re.IGNORECASE,
)
_PROFILES: Final = ("000", "180")


def read_rafd(folder: Path, files: Sequence[Path], notes: Notes) -> list[LabelledPicture]:
    """Radboud Faces Database: ``Rafd090_01_Caucasian_female_angry_frontal.jpg``, in any folders.

    A name says camera angle, model number, group, gender, expression and gaze (the set's FAQ
    page). RaFD comes without FACS scores. Its makers publish which AUs each expression was to
    have: models were coached by FACS coders, and pictures chosen by these (Langner et al.,
    Cognition & Emotion 24(8), 2010; list in the project's blog, 23 July 2008): anger 4CDE + 5CDE +
    7 + 17 + 23/24; contempt unilateral 14; disgust 9 + 10 + 25; fear 1 + 2 + 4 + 5DE + 20 + 25;
    happiness 6 + 12CDE + 25; sadness 1 + 4 + 15ABC + 17; surprise 1 + 2 + 5AB + 26.

    Judgements: those AUs are labelled, at the middle of their grades, as they were *meant*, not
    scored; what else the face may show is not labelled. 23 and 25 have no token, of "23/24" nobody
    says which, and of 14 nobody says which side, so contempt labels the gaze alone. ``neutral``
    labels everything as absent. A sideways gaze is AU61 (``left``) or AU62 (``right``), taken as
    the person's own side; RaFD does not say whose it is, so :func:`prepare` asks the irises.
    Profiles (angles 000 and 180) are left out.

    Args:
        folder: The set's.
        files: All files in it.
        notes: Where to say what was left out.
    """
    found, used = [], set()
    for path in filter(_is_picture, files):
        match = _RAFD_NAME.fullmatch(path.stem)
        if match is None:
            continue
        used.add(path)
        if match["angle"] in _PROFILES:
            notes.add("profiles, half of the face is hidden", path.name)
            continue
        emotion, gaze = match["emotion"].lower(), match["gaze"].lower()
        labels = _Labels(notes, absent=emotion == "neutral")
        for number, value in RAFD_PROTOTYPES[emotion].items():
            labels.set(number, value)
        for au in _GAZE:
            labels.set(au, 0.0)
        if gaze != "frontal":
            labels.set(AuId.AU61 if gaze == "left" else AuId.AU62, PRESENT)
        found.append(labels.of(path, match["person"]))
    _add_unknown(notes, "not named as RaFD's pictures", files, used)
    return found


# --- CFD ------------------------------------------------------------------------------------------
CFD_EXPRESSIONS: Final[Mapping[str, Mapping[int, float]]] = {
    "N": {},
    "A": {4: PRESENT, 5: PRESENT, 7: PRESENT},
    "F": {1: PRESENT, 2: PRESENT, 4: PRESENT, 5: PRESENT},
    "HC": {12: PRESENT, 26: 0.0},
    "HO": {12: PRESENT},
}
"""AUs that CFD's expressions are taken to show; a judgement, see :func:`read_cfd`."""

_CFD_NAME: Final = re.compile(
    r"CFD-(?P<person>[A-Z]{2}-\d{3})-\d{3}-(?P<expression>N|A|F|HC|HO)", re.IGNORECASE
)


def read_cfd(folder: Path, files: Sequence[Path], notes: Notes) -> list[LabelledPicture]:
    """Chicago Face Database: ``CFD-WF-001-003-N.jpg``, in any folders, with its extensions.

    A name says group and gender, model, picture and expression: N neutral, A angry, F fearful, HC
    happy with a closed and HO with an open mouth (Ma, Correll and Wittenbrink, Behavior Research
    Methods 47, 2015, and the set's page).

    Judgements, all of them: CFD has no FACS scores. An AU is labelled as present where *every*
    main prototype of that emotion in the FACS Investigator's Guide (Ekman, Friesen and Hager,
    2002) has it: anger 4 + 5 + 7, fear 1 + 2 + 4 + 5, happiness 12; nothing else is labelled. HC
    labels AU26 as absent. N labels everything as absent. All look into the camera, which labels
    the gaze.

    Args:
        folder: The set's.
        files: All files in it.
        notes: Where to say what was left out.
    """
    found, used = [], set()
    for path in filter(_is_picture, files):
        match = _CFD_NAME.fullmatch(path.stem)
        if match is None:
            continue
        used.add(path)
        expression = match["expression"].upper()
        labels = _Labels(notes, absent=expression == "N")
        for number, value in CFD_EXPRESSIONS[expression].items():
            labels.set(number, value)
        for au in _GAZE:
            labels.set(au, 0.0)
        found.append(labels.of(path, match["person"].upper()))
    _add_unknown(notes, "not named as CFD's pictures", files, used)
    return found


# --- MMI ------------------------------------------------------------------------------------------
_MMI_NAME: Final = re.compile(r"(?P<clip>.+?)-(?:oao_)?aucs", re.IGNORECASE)
_MMI_UNIT: Final = re.compile(r"(?P<side>[LR]?)0*(?P<number>\d+)")
_MMI_PROFILE: Final = "1"
_NEUTRAL, _ONSET, _APEX, _OFFSET = range(4)


def read_mmi(folder: Path, files: Sequence[Path], notes: Notes) -> list[LabelledPicture]:
    """MMI Facial Expression Database: folders of sessions, each with ``session.xml`` (subject,
    view), a video ``NAME.avi`` and its coding ``NAME-oao_aucs.xml``.

    The coding (onset, apex, offset) lists an ``ActionUnit`` with its ``Number`` for each unit that
    occurs, and in it ``Marker``s: from ``Frame`` (counted from 1) on the unit is in phase
    ``Type``, 0 neutral, 1 onset, 2 apex, 3 offset (Pantic et al., ICME 2005; numbers and names as
    public readers of the set take them). An L or R before the number is that side alone.

    Judgements: a unit at its apex is PRESENT (MMI has no grades), neutral is absent, onset and
    offset are not labelled. Units that the file does not list are absent, as the videos are coded
    for all. Frames after the last marker are not used. Sessions without a subject are left out,
    since nobody could hold the person out; so are profile views (view 1). In a dual view (2) the
    larger face is taken.

    Args:
        folder: The set's.
        files: All files in it.
        notes: Where to say what was left out.
    """
    found: list[LabelledPicture] = []
    used: set[Path] = set()
    videos = {path for path in files if _is_video(path)}
    for path in files:
        match = _MMI_NAME.fullmatch(path.stem) if path.suffix.lower() == ".xml" else None
        if path.name.lower() == "session.xml":
            used.add(path)
        if match is None:
            continue
        used.add(path)
        session = path.parent / "session.xml"
        beside = [path.with_name(match["clip"] + suffix) for suffix in VIDEO_SUFFIXES]
        video = next((clip for clip in beside if clip in videos), None)
        if video is None:
            notes.add("coding without a video beside it", path.name)
            continue
        used.add(video)
        if not session.is_file():
            notes.add("no session.xml, so nobody knows who it is", path.name)
            continue
        person, view = _mmi_session(session, path.name)
        if not person:
            notes.add("session.xml names no subject", f"{path.parent.name}/{path.name}")
        elif view == _MMI_PROFILE:
            notes.add("profile views", path.name)
        else:
            found += _mmi_frames(path, video, person, notes)
    _add_unknown(notes, "neither coding nor coded video", files, used)
    return found


def _mmi_session(session: Path, coding: str) -> tuple[str, str]:
    """The subject, and the view of the track that has the coding (else of the first)."""
    root = _xml(session)
    person = next((node.get("id", "") for node in root.iter("subject")), "")
    tracks = list(root.iter("track"))
    own = [t for t in tracks if any(a.get("filename") == coding for a in t.iter("annotation"))]
    return person, next((track.get("view", "") for track in own or tracks), "")


def _mmi_frames(path: Path, video: Path, person: str, notes: Notes) -> list[LabelledPicture]:
    phases: list[tuple[int, str, list[tuple[int, int]]]] = []
    for unit in _xml(path).iter("ActionUnit"):
        code = unit.get("Number", "")
        match = _MMI_UNIT.fullmatch(code)
        if match is None:
            notes.add("codes that are not understood", f"{code!r} in {path.name}")
            continue
        try:
            markers = sorted(
                (int(m.get("Frame", "")), int(m.get("Type", ""))) for m in unit.iter("Marker")
            )
        except ValueError as exc:
            raise ConfigError(
                f"{path}: a Marker of ActionUnit {code} has no whole Frame and Type ({exc}); get "
                "the file again"
            ) from exc
        phases.append((int(match["number"]), match["side"], markers))
    last = max((markers[-1][0] for *_, markers in phases if markers), default=0)
    if not last:
        notes.add("no unit with a time", path.name)
    # frames between two markers are alike, and share their labels
    changes = sorted({frame for *_, markers in phases for frame, _ in markers} | {1, last + 1})
    found = []
    for start, end in itertools.pairwise(frame for frame in changes if frame >= 1):
        labels = _Labels(notes, absent=True)
        now = [(n, side, _phase_at(markers, start)) for n, side, markers in phases]
        for number, side, phase in now:
            if phase != _NEUTRAL:
                labels.forget(number, side)
        for number, side, phase in now:
            if phase == _APEX:
                labels.set(number, PRESENT, side)
        sequence = f"{path.parent.name}/{video.name}"
        found += [labels.of(video, person, frame, sequence) for frame in range(start, end)]
    return found


def _phase_at(markers: Sequence[tuple[int, int]], frame: int) -> int:
    """Phase at a frame; onset, which says nothing, before the first marker and without any."""
    return next((phase for start, phase in reversed(markers) if start <= frame), _ONSET)


# --- DISFA ----------------------------------------------------------------------------------------
_DISFA_LABELS: Final = re.compile(r"(?P<person>SN\d+)_au(?P<number>\d+)", re.IGNORECASE)
_DISFA_VIDEO: Final = re.compile(r"(?P<camera>left|right)_?video(?P<person>SN\d+)_comp", re.I)


def read_disfa(folder: Path, files: Sequence[Path], notes: Notes) -> list[LabelledPicture]:
    """DISFA: ``ActionUnit_Labels/SN001/SN001_au1.txt`` and
    ``Videos_LeftCamera/LeftVideoSN001_comp.avi`` (capitals and folder names vary).

    A line is ``frame,intensity``: frames count from 1, intensities are FACS grades 0 to 5 (Mavadati
    et al., IEEE Trans. Affective Computing 4(2), 2013). Coded are AUs 1, 2, 4, 5, 6, 9, 12, 15, 17,
    20, 25 and 26; 25 has no token. The right camera's videos show the same moments and are not
    used.

    Args:
        folder: The set's.
        files: All files in it.
        notes: Where to say what was left out.
    """
    codings: dict[str, dict[int, Path]] = {}
    videos: dict[str, Path] = {}
    used: set[Path] = set()
    for path in files:
        coding = _DISFA_LABELS.fullmatch(path.stem) if path.suffix.lower() == ".txt" else None
        video = _DISFA_VIDEO.fullmatch(path.stem) if _is_video(path) else None
        if coding is not None:
            codings.setdefault(coding["person"].upper(), {})[int(coding["number"])] = path
        elif video is not None and video["camera"].lower() == "left":
            videos[video["person"].upper()] = path
        elif video is not None:
            notes.add("videos of the right camera, not needed", path.name)
        else:
            continue
        used.add(path)
    found: list[LabelledPicture] = []
    for person in sorted(codings.keys() | videos.keys()):
        if person not in videos or person not in codings:
            what = "labels" if person in videos else "video of the left camera"
            notes.add(f"no {what} of", person)
            continue
        frames: dict[int, _Labels] = {}
        for number, path in sorted(codings[person].items()):
            for line, (frame, grade) in _pairs(path):
                value = _number(grade, path, line, f"AU{number}", 5.0) / 5.0
                frames.setdefault(_whole(frame, path, line), _Labels(notes)).set(number, value)
        found += [
            labels.of(videos[person], person, frame, person)
            for frame, labels in sorted(frames.items())
            if labels.mask.any()
        ]
    _add_unknown(notes, "neither labels nor videos of DISFA", files, used)
    return found


# --- BP4D -----------------------------------------------------------------------------------------
_BP4D_OCCURRENCE: Final = re.compile(r"(?P<person>[FM]\d{3})_(?P<task>T\d+)", re.IGNORECASE)
_BP4D_INTENSITY: Final = re.compile(
    r"(?P<person>[FM]\d{3})_(?P<task>T\d+)_AU(?P<number>\d+)", re.IGNORECASE
)
_BP4D_UNKNOWN: Final = 9.0


def read_bp4d(folder: Path, files: Sequence[Path], notes: Notes) -> list[LabelledPicture]:
    """BP4D-Spontaneous: ``AUCoding/AU_OCC/F001_T1.csv``, where there is one
    ``AUCoding/AU_INT/AU06/F001_T1_AU06.csv``, and pictures ``Sequences/F001/T1/0001.jpg`` (zeros
    before the number vary, and so does the folder's name).

    AU_OCC has a row for each coded frame: its number, which is the picture's, then a code under
    each AU's number in the first row: 0 absent, 1 present, 9 not known (Zhang et al., Image and
    Vision Computing 32(10), 2014). AU_INT has rows ``frame,intensity`` without a heading, 0 to 5,
    9 not known; intensities count for more than occurrence. Judgement: occurrence without an
    intensity is PRESENT. Any other code is not labelled, and named.

    Args:
        folder: The set's.
        files: All files in it.
        notes: Where to say what was left out.
    """
    tables: dict[tuple[str, str], Path] = {}
    intensities: dict[tuple[str, str], dict[int, Path]] = {}
    pictures: dict[tuple[str, str], dict[int, Path]] = {}
    used: set[Path] = set()
    for path in files:
        is_csv = path.suffix.lower() == ".csv"
        occurrence = _BP4D_OCCURRENCE.fullmatch(path.stem) if is_csv else None
        intensity = _BP4D_INTENSITY.fullmatch(path.stem) if is_csv else None
        place = _BP4D_OCCURRENCE.fullmatch(f"{path.parent.parent.name}_{path.parent.name}")
        if occurrence is not None:
            tables[_bp4d_key(occurrence)] = path
        elif intensity is not None:
            entry = intensities.setdefault(_bp4d_key(intensity), {})
            entry[int(intensity["number"])] = path
        elif place is not None and _is_picture(path) and path.stem.isdecimal():
            pictures.setdefault(_bp4d_key(place), {})[int(path.stem)] = path
        else:
            continue
        used.add(path)
    found: list[LabelledPicture] = []
    for key in sorted(tables.keys() | pictures.keys()):
        name = "_".join(key)
        if key not in tables or key not in pictures:
            notes.add("no pictures of" if key in tables else "no occurrence table of", name)
            continue
        frames = _bp4d_occurrence(tables[key], notes)
        for number, path in sorted(intensities.get(key, {}).items()):
            for line, (frame_text, grade) in _pairs(path):
                frame = _whole(frame_text, path, line)
                value = _number(grade, path, line, f"AU{number}", _BP4D_UNKNOWN)
                if value > 5.0:
                    if value != _BP4D_UNKNOWN:
                        notes.add("intensities that are no grade", f"{value:g} {path.name}:{line}")
                elif frame in frames:
                    frames[frame].forget(number)
                    frames[frame].set(number, value / 5.0)
        for frame, labels in sorted(frames.items()):
            picture = pictures[key].get(frame)
            if picture is None:
                notes.add("coded frames without a picture", f"{name} {frame}")
            elif labels.mask.any():
                found.append(labels.of(picture, key[0], None, name))
        for frame in sorted(pictures[key].keys() - frames.keys()):
            notes.add("pictures of frames that are not coded", f"{name} {frame}")
    _add_unknown(notes, "neither tables nor pictures of BP4D", files, used)
    return found


def _bp4d_key(match: re.Match[str]) -> tuple[str, str]:
    return match["person"].upper(), match["task"].upper()


def _bp4d_occurrence(table: Path, notes: Notes) -> dict[int, _Labels]:
    rows = [
        (line, [cell.strip() for cell in next(csv.reader([text]))])
        for line, text in enumerate(_text(table).splitlines(), 1)
        if text.strip()
    ]
    heading = rows[0][1][1:] if rows else []
    names = [re.fullmatch(r"(?:AU)?0*(\d+)", cell, re.IGNORECASE) for cell in heading]
    if not any(names):
        raise ConfigError(
            f"{table}:1: the first row must have AU numbers from the second cell on; get the file "
            "again"
        )
    frames: dict[int, _Labels] = {}
    for line, cells in rows[1:]:
        labels = frames.setdefault(_whole(cells[0], table, line), _Labels(notes))
        for name, cell in zip(names, cells[1:], strict=False):
            if name is None:
                continue
            code = _number(cell, table, line, f"AU{name[1]}", math.inf)
            if code in (0.0, 1.0):
                labels.set(int(name[1]), PRESENT * code)
            elif code != _BP4D_UNKNOWN:
                notes.add("occurrences that are not 0, 1 or 9", f"{code:g} {table.name}:{line}")
    return frames


# --- layouts --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """A published layout.

    Attributes:
        read: (folder, all files in it, notes) -> pictures, frames of a sequence in their order.
        looks_like: What is found in it, for messages.
    """

    read: Callable[[Path, Sequence[Path], Notes], list[LabelledPicture]]
    looks_like: str


LAYOUTS: Final[Mapping[str, Layout]] = {
    "csv": Layout(read_csv, "labels.csv beside pictures, first row file,person,AU1,..."),
    "rafd": Layout(read_rafd, "Rafd090_01_Caucasian_female_angry_frontal.jpg"),
    "mmi": Layout(read_mmi, "Sessions/1/session.xml, S001-001.avi and S001-001-oao_aucs.xml"),
    "cfd": Layout(read_cfd, "CFD-WF-001-003-N.jpg"),
    "disfa": Layout(
        read_disfa,
        "ActionUnit_Labels/SN001/SN001_au1.txt and Videos_LeftCamera/LeftVideoSN001_comp.avi",
    ),
    "bp4d": Layout(read_bp4d, "AUCoding/AU_OCC/F001_T1.csv and Sequences/F001/T1/0001.jpg"),
}
"""Every layout that :func:`read_labelled` takes, by name."""


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, sorted, without what systems leave behind."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.name.lower() not in _SYSTEM_FILES
    )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _add_unknown(notes: Notes, reason: str, files: Iterable[Path], used: set[Path]) -> None:
    for path in files:
        if path not in used:
            notes.add(reason, path.name)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read as text ({exc}); get the file again") from exc


def _xml(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc})") from exc
    except ET.ParseError as exc:
        line = exc.position[0]
        raise ConfigError(f"{path}:{line}: is no XML ({exc}); get the file again") from exc


def _pairs(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Line numbers and the two cells of each line."""
    for line, text in enumerate(_text(path).splitlines(), 1):
        if not text.strip():
            continue
        cells = [cell.strip() for cell in text.split(",")]
        if len(cells) != 2:
            raise ConfigError(f"{path}:{line}: must be frame,intensity, got {text.strip()!r}")
        yield line, (cells[0], cells[1])


def _number(text: str, path: Path, line: int, what: str, highest: float) -> float:
    """A number from 0 on.

    Raises:
        ConfigError: If it is none, or too high; with file and line.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and 0 <= value <= highest):
        limits = "0 or more" if math.isinf(highest) else f"a number from 0 to {highest:g}"
        raise ConfigError(f"{path}:{line}: {what} must be {limits}, got {text!r}; correct the file")
    return value


def _whole(text: str, path: Path, line: int) -> int:
    value = _number(text, path, line, "frame", math.inf)
    if value != int(value):
        raise ConfigError(f"{path}:{line}: frame must be a whole number, got {text!r}")
    return int(value)


# --- preparation ----------------------------------------------------------------------------------
class FaceFinder(Protocol):
    """The part of a face tracker that preparation needs; it treats each picture on its own."""

    def detect(self, frame_bgr: U8) -> list[TrackedFace]:
        """Faces of a picture."""
        ...


def thinned(pictures: Iterable[LabelledPicture], every: int) -> list[LabelledPicture]:
    """Every so many frames of each sequence, from its first on; pictures that stand alone stay."""
    seen: dict[str, int] = {}
    kept = []
    for picture in pictures:
        count = seen.get(picture.sequence, 0)
        seen[picture.sequence] = count + 1
        if not picture.sequence or count % every == 0:
            kept.append(picture)
    return kept


def prepare(
    found: LabelledSet, out: Path, tracker: FaceFinder, every: int = EVERY
) -> dict[str, Any]:
    """Find the faces, cut them out as the runtime cuts a still source, and write a folder.

    Args:
        found: From :func:`read_labelled`.
        out: Folder to write; appears only when complete.
        tracker: Finds faces in a picture that no other came before.
        every: Of each sequence every so many labelled frames are kept.

    Returns:
        What ``labelled.json`` says.

    Raises:
        ConfigError: If ``out`` exists, ``every`` is less than 1, or no picture shows a face.
    """
    if out.exists():
        raise ConfigError(f"prepare: {out} is there already; remove it or give another --out")
    if every < 1:
        raise ConfigError(f"prepare: --every must be 1 or more, got {every}")
    wanted = thinned(found.pictures, every)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.parent / f".crops_{out.name}_{os.getpid()}.npy"
    notes = Notes()
    try:
        shape = (len(wanted), CROP_SIZE_PX, CROP_SIZE_PX, 3)
        crops = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            scratch, mode="w+", dtype=np.uint8, shape=shape
        )
        kept: list[LabelledPicture] = []
        gaze: list[float] = []
        for picture, crop, landmarks_xy in _crops(wanted, tracker, notes):
            crops[len(kept)] = crop
            kept.append(picture)
            gaze.append(gaze_offset(landmarks_xy))
            if len(kept) % 500 == 0:
                logger.info("%d of %d pictures", len(kept), len(wanted))
        for line in notes.lines():
            logger.warning("%s", line)
        if not kept:
            raise ConfigError(f"prepare: not one of {len(wanted)} pictures shows a face")
        labels = np.stack([picture.labels for picture in kept])
        mask = np.stack([picture.mask for picture in kept])
        exchanged = found.layout == "rafd" and _gaze_is_the_viewers(labels, np.array(gaze))
        if exchanged:
            labels, mask = labels[:, mirror_order()], mask[:, mirror_order()]
        people = sorted({picture.person for picture in kept})
        number = {person: i for i, person in enumerate(people)}
        said = {
            "layout": found.layout,
            "dataset": found.dataset,
            "every": every,
            "gaze_exchanged": exchanged,
            "people": [{"person": p, "split": split_of(found.dataset, p)} for p in people],
            "left_out": {
                reason: {"count": len(names), "first": names[:100]}
                for reason, names in (found.notes.left_out | notes.left_out).items()
            },
        }
        return write_labelled(
            out,
            crops[: len(kept)],
            labels,
            mask,
            np.array([number[picture.person] for picture in kept], np.int32),
            said,
        )
    finally:
        scratch.unlink(missing_ok=True)


def write_labelled(
    out: Path,
    rgb: U8,
    labels: F32,
    mask: npt.NDArray[np.bool_],
    people: npt.NDArray[np.int32],
    said: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a prepared folder, which appears under its name only when complete.

    Args:
        out: The folder; must not exist.
        rgb: (N, S, S, 3) uint8.
        labels: (N, K, 2) float32.
        mask: (N, K, 2) bool.
        people: (N,) int32 into ``said["people"]``.
        said: For ``labelled.json``: "dataset", "people" and what else is worth knowing.

    Returns:
        All of ``labelled.json``.
    """
    whole = {
        "format": FORMAT,
        "size_px": int(rgb.shape[1]),
        "pictures": len(rgb),
        "aus": list(AU_NAMES),
        **said,
    }
    partial = out.parent / f".partial_{out.name}_{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        arrays: dict[str, npt.NDArray[Any]] = {
            "rgb": rgb,
            "labels": labels,
            "mask": mask,
            "people": people,
        }
        for stem, array in arrays.items():
            np.save(partial / f"{stem}.npy", array, allow_pickle=False)
        text = json.dumps(whole, indent=1)
        (partial / "labelled.json").write_text(text, encoding="utf-8")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return whole


def _crops(
    pictures: Sequence[LabelledPicture], tracker: FaceFinder, notes: Notes
) -> Iterator[tuple[LabelledPicture, U8, F64]]:
    """Pictures with a face, their crop (S, S, 3) uint8 RGB and landmarks."""
    from rt_swap.expression import find_faces
    from rt_swap.ops import crop_rgb

    for picture, picture_bgr in _pixels(pictures, notes):
        faces = find_faces(picture_bgr, tracker)
        if not faces:
            notes.add("no face found", picture.name)
            continue
        landmarks_xy = faces[0].landmarks_xy
        M_crop_from_frame = geometry.crop_from_landmarks(landmarks_xy)
        rgb = crop_rgb(picture_bgr, geometry.invert(M_crop_from_frame), CROP_SIZE_PX)
        yield picture, np.rint(rgb[0].transpose(1, 2, 0) * 255.0).astype(np.uint8), landmarks_xy


def _pixels(
    pictures: Sequence[LabelledPicture], notes: Notes
) -> Iterator[tuple[LabelledPicture, U8]]:
    """Each picture with its (H, W, 3) uint8 BGR; a video is read once, from its beginning."""
    from rt_swap.io.picture import read_picture
    from rt_swap.io.video import VideoReader

    for path, group in itertools.groupby(pictures, key=lambda picture: picture.path):
        of_path = list(group)
        try:
            if of_path[0].frame is None:
                yield of_path[0], read_picture(path)
                continue
            missing = {picture.frame: picture for picture in of_path}
            with VideoReader(path) as frames:
                for number, frame in enumerate(frames, 1):
                    if number in missing:
                        yield missing.pop(number), frame.frame_bgr
                    if not missing:
                        break
            for picture in missing.values():
                notes.add("the video ends before this", picture.name)
        except SourceError as exc:
            logger.warning("%s", exc)
            notes.add("cannot be read", path.name)


def gaze_offset(landmarks_xy: F64) -> float:
    """How far the irises stand to the person's own left, from the middle of the eyes, in eye
    widths; the mean of both eyes.

    Args:
        landmarks_xy: (478, 2) pixels, mediapipe face-mesh order.
    """
    offsets = []
    for right, left, iris in _EYE_CORNERS:
        axis = landmarks_xy[left] - landmarks_xy[right]
        way = landmarks_xy[iris] - (landmarks_xy[left] + landmarks_xy[right]) / 2
        offsets.append(float(way @ axis) / max(float(axis @ axis), 1e-12))
    return float(np.mean(offsets))


def _gaze_is_the_viewers(labels: F32, offsets: F64) -> bool:
    """Whether pictures labelled as looking left look to the person's own right.

    Args:
        labels: (N, K, 2).
        offsets: (N,) from :func:`gaze_offset`.
    """
    left, right = (labels[:, au.index, 0] > 0 for au in (AuId.AU61, AuId.AU62))
    if not left.any() or not right.any():
        if left.any() or right.any():
            logger.warning("only one sideways gaze is there: whose left is meant was not checked")
        return False
    apart = float(offsets[left].mean() - offsets[right].mean())
    viewers = apart < 0
    logger.info(
        "'left' and 'right' gazes: irises are %.3f eye widths apart, so 'left' is the %s left",
        abs(apart),
        "viewer's" if viewers else "person's own",
    )
    return viewers


# --- training -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LabelledShard:
    """One opened folder; arrays are memory-mapped and read-only, shapes as in the module's text.

    Attributes:
        path: Its directory.
        meta: labelled.json.
        arrays: By file stem.
    """

    path: Path
    meta: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


_SHAPES: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "rgb": ("uint8", (CROP_SIZE_PX, CROP_SIZE_PX, 3)),
    "labels": ("float32", (NUM_AUS, 2)),
    "mask": ("bool", (NUM_AUS, 2)),
    "people": ("int32", ()),
}


def open_labelled(path: Path) -> LabelledShard:
    """Open and check a prepared folder.

    Raises:
        ConfigError: If files are missing or unreadable, or the format is another.
        ContractError: If shapes, types, numbers or the order of AUs are not this version's; all
            mismatches are listed.
    """
    again = "prepare it again with python -m training.data.labelled"
    try:
        meta = json.loads((path / "labelled.json").read_text(encoding="utf-8"))
        arrays = {
            stem: np.load(path / f"{stem}.npy", mmap_mode="r", allow_pickle=False)
            for stem in _SHAPES
        }
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"open_labelled: {path} cannot be read as prepared labelled pictures: {exc}; {again}"
        ) from exc
    if meta.get("format") != FORMAT:
        raise ConfigError(
            f"open_labelled: {path} has format {meta.get('format')!r}, this reader takes {FORMAT}; "
            f"{again}"
        )
    if tuple(meta.get("aus", ())) != AU_NAMES:
        raise ContractError(
            f"open_labelled: the AUs of {path} are not rt_swap.aus' in its order; {again}",
            expected=", ".join(AU_NAMES),
            actual=", ".join(map(str, meta.get("aus", ()))),
        )
    faults = []
    for stem, (dtype, rest) in _SHAPES.items():
        want, have = (meta.get("pictures"), *rest), arrays[stem]
        if have.shape != want or have.dtype != np.dtype(dtype):
            faults.append(f"{stem}: expected {dtype} {want}, got {have.dtype} {have.shape}")
    if not faults:
        labels, people = arrays["labels"], arrays["people"]
        if not bool(((labels >= 0) & (labels <= 1)).all()):  # NaN fails both
            faults.append("labels: expected numbers in [0, 1]")
        if len(people) and not 0 <= people.min() <= people.max() < len(meta.get("people", ())):
            faults.append("people: expected numbers of the people in labelled.json")
    if faults:
        raise ContractError(f"open_labelled: {path}: {'; '.join(faults)}; {again}")
    return LabelledShard(path, meta, arrays)


class LabelledPictures:
    """The labelled pictures of prepared folders that may train: never a held-out person's.

    Args:
        paths: Prepared folders.

    Raises:
        ConfigError: If a folder cannot be read, or nobody in them may train.
        ContractError: If a folder's content is not this version's.
    """

    size_px: Final = CROP_SIZE_PX

    def __init__(self, paths: Sequence[Path]) -> None:
        self._shards = [open_labelled(path) for path in paths]
        self._rows: list[npt.NDArray[np.int64]] = []
        trained: set[tuple[str, str]] = set()
        for shard in self._shards:
            dataset = str(shard.meta["dataset"])
            people = [str(p["person"]) for p in shard.meta["people"]]
            # the rule itself, not what the file says of it
            splits = [split_of(dataset, person) for person in people]
            may = np.array([split == "train" for split in splits], np.bool_)
            used = may[shard.arrays["people"]]
            self._rows.append(np.flatnonzero(used))
            trained |= {(dataset, p) for p, ok in zip(people, may, strict=True) if ok}
            if not used.all():
                logger.info(
                    "%s: %d pictures of %d held-out people (val, test) are not trained on",
                    shard.path,
                    int((~used).sum()),
                    int((~may).sum()),
                )
        self.people = frozenset(trained)
        """(dataset, person) of everybody in them."""
        self._starts = np.cumsum([0, *map(len, self._rows)])
        if not len(self):
            raise ConfigError(
                f"labelled: nobody in {', '.join(map(str, paths))} may train: all people are held "
                "out by the split rule; add pictures of other people"
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def picture(self, index: int) -> tuple[U8, F32, npt.NDArray[np.bool_]]:
        """(S, S, 3) uint8 RGB, (K, 2) labels and (K, 2) mask of one; views of the files."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = int(self._rows[number][index - int(self._starts[number])])
        arrays = self._shards[number].arrays
        return arrays["rgb"][row], arrays["labels"][row], arrays["mask"][row]

    def au_weights(self, threshold: float) -> Tensor:
        """:func:`training.losses.au_weights` over the AUs that are labelled at all.

        Args:
            threshold: Intensity from which an AU counts as present.

        Returns:
            (K,) float32 with mean 1 over labelled AUs, 0 for the others. Rates are those among
            labelled entries, at least 0.02.
        """
        labels, mask = (
            np.concatenate(
                [
                    np.asarray(shard.arrays[stem])[rows]
                    for shard, rows in zip(self._shards, self._rows, strict=True)
                ]
            )
            for stem in ("labels", "mask")
        )
        known = mask.sum((0, 2))
        rates = ((labels >= threshold) & mask).sum((0, 2)) / np.maximum(known, 1)
        rates = torch.from_numpy(np.maximum(rates, 0.02)).float()
        there = torch.from_numpy(known > 0)
        weights = torch.zeros(NUM_AUS)
        weights[there] = losses.au_weights(rates[there])
        return weights


@dataclass(frozen=True)
class LabelledBatch:
    """L labelled pictures.

    Attributes:
        look_rgb: (L, 3, 192, 176) float32 in [0, 1], as training.data.dataset.Batch's.
        labels: (L, K, 2) float32 in [0, 1].
        mask: (L, K, 2) float32, 1 where labelled.
    """

    look_rgb: Tensor
    labels: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> LabelledBatch:
        """The batch on a device; pictures in channels-last order."""
        look_rgb = self.look_rgb.to(device, non_blocking=True)
        return LabelledBatch(
            look_rgb.contiguous(memory_format=torch.channels_last),
            self.labels.to(device, non_blocking=True),
            self.mask.to(device, non_blocking=True),
        )


class LabelledMaker:
    """Makes batches of labelled pictures, varied as the rendered ones are; a pure function of
    (pictures, options, seed, cursor), so a resumed run sees the same.

    Args:
        pictures: Where from.
        augment: How much to vary, or None for none.
        seed: Of order and variation.
    """

    def __init__(self, pictures: LabelledPictures, augment: AugmentConfig | None, seed: int):
        self.pictures, self.augment, self.seed = pictures, augment, seed
        # of the set it is given, order and geometry need the length and the size alone
        self._maker = BatchMaker(pictures, augment, seed)  # type: ignore[arg-type]

    def batch(self, cursor: int, count: int) -> LabelledBatch:
        """The batch that starts at a cursor.

        Args:
            cursor: Pictures used before it, in an endless order that is shuffled per epoch.
            count: L.
        """
        rng = np.random.default_rng((self.seed, 4, cursor))
        rows = [self._one(self._maker.index_at(cursor + i), rng) for i in range(count)]
        look, labels, mask = (np.stack(part) for part in zip(*rows, strict=True))
        return LabelledBatch(to_tensor(look), torch.from_numpy(labels), torch.from_numpy(mask))

    def _one(self, index: int, rng: np.random.Generator) -> tuple[U8, F32, F32]:
        rgb, known, labelled = self.pictures.picture(index)
        labels, mask = np.array(known, np.float32), np.array(labelled, np.float32)
        picture = np.array(rgb, np.uint8)
        a = self.augment
        if a is not None:
            flip = bool(rng.random() < a.flip)
            geometry_ = self._maker.draw_geometry(flip, rng)
            picture = warp_picture(picture, *geometry_.maps(self.pictures.size_px))
            table, _, mixer = colours_of(a, rng)
            picture = np.asarray(cv2.LUT(cv2.transform(picture, mixer), table), np.uint8)
            if rng.random() < a.degrade:
                picture = degraded(picture, rng)
            if flip:
                labels, mask = mirror_aus(labels), mirror_aus(mask)
        x0, y0, x1, y1 = LOOK_XYXY
        return picture[y0:y1, x0:x1], labels, mask


# --- command --------------------------------------------------------------------------------------
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring. Returns the exit code: 0 done, 2 wrong options or
    data.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.data.labelled",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument("--layout", required=True, help=", ".join(sorted(LAYOUTS)))
    parser.add_argument(
        "--from", dest="folder", type=Path, required=True, metavar="DIR", help="the set's folder"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--every",
        type=int,
        default=EVERY,
        metavar="N",
        help="keep every N-th labelled frame of a sequence, >= 1; single pictures are all kept "
        "(default: %(default)s)",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        found = read_labelled(args.folder, args.layout)
        from rt_swap.tracking import MediapipeTracker

        with MediapipeTracker(max_faces=_TRACKED_FACES, static=True) as tracker:
            said = prepare(found, args.out, tracker, args.every)
    except RtSwapError as exc:
        print(f"labelled: {exc}", file=sys.stderr)
        return 2
    people = [p["split"] for p in said["people"]]
    splits = ", ".join(f"{people.count(split)} {split}" for split in SPLITS)
    print(f"{args.out}: {said['pictures']} pictures of {len(people)} people ({splits})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
