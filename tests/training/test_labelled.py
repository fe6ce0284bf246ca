"""Labelled real pictures: published layouts on tiny files, preparation, and what training makes of
them.
"""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import TrackedFace
from tests.support.faces import FakeTracker, face_at, landmarks_at
from tests.support.fake_shards import write_fake_shard
from tests.support.videos import write_video
from training import losses
from training.checkpoint import latest_checkpoint
from training.config import LOOK_XYXY, AugmentConfig, get_config
from training.data.dataset import BatchMaker, ShardSet
from training.data.labelled import (
    LAYOUTS,
    PRESENT,
    LabelledBatch,
    LabelledMaker,
    LabelledPicture,
    LabelledPictures,
    LabelledSet,
    Notes,
    gaze_offset,
    main,
    open_labelled,
    prepare,
    read_labelled,
    thinned,
    write_labelled,
)
from training.data.split import split_of
from training.loop import loop
from training.networks import build
from training.objective import Objective, encode
from training.train import main as train_main

SMOKE = get_config("smoke")
GAZE = (AuId.AU61, AuId.AU62, AuId.AU63, AuId.AU64)


def astronaut_bgr() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, for the astronaut")
    return np.ascontiguousarray(data.astronaut()[:256, 100:356, ::-1])


def drawn(path: Path, grey: int = 90) -> Path:
    """A small picture without a face."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((48, 64, 3), grey, np.uint8)
    picture[10:20, 5:9] = 250
    assert cv2.imwrite(str(path), picture)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def clip(path: Path, frames: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [np.full((48, 64, 3), 40 + 20 * i, np.uint8) for i in range(frames)]
    return write_video(path, pictures, codec="mpeg4")


def said(picture: LabelledPicture) -> dict[str, tuple[float, ...]]:
    """Labelled AUs as (both,), or (left, right) where these differ or one is missing (NaN)."""
    out = {}
    for au in AuId:
        values = np.where(picture.mask[au.index], picture.labels[au.index], np.nan)
        if not np.isnan(values).all():
            left, right = (round(float(v), 3) for v in values)
            out[au.name] = (left,) if left == right else (left, right)
    return out


def by_name(found: LabelledSet) -> dict[str, LabelledPicture]:
    return {picture.name: picture for picture in found.pictures}


def person_in(dataset: str, split: str, skip: int = 0) -> str:
    names = (f"{i:03d}" for i in itertools.count())
    return next(itertools.islice((n for n in names if split_of(dataset, n) == split), skip, None))


# --- layouts --------------------------------------------------------------------------------------
def test_csv_tells_sides_and_leaves_empty_cells_unlabelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    drawn(tmp_path / "a.png")
    drawn(tmp_path / "more" / "b.png")
    drawn(tmp_path / "stray.png")
    clip(tmp_path / "c.avi")
    text(
        tmp_path / "labels.csv",
        "# made by hand\n# scale: 5\n"
        "file,person,frame,AU12,AU12_L,AU4,AU25,AU27,AU30,AU30_R,AU43\n"
        "a.png,anna,,1,5,0,3,,,,\n"
        "\n"
        "more/b.png,,,,,,,5,2,4,0\n"
        "c.avi,carl,3,2.5,,,,0,0,,5\n"
        "gone.png,dora,,1,,,,,,,\n",
    )
    found = read_labelled(tmp_path, "csv")
    pictures = by_name(found)
    assert found.dataset == tmp_path.name
    assert said(pictures["a.png"]) == {"AU4": (0.0,), "AU12": (1.0, 0.2)}
    # AU27 shows as a dropped jaw, and absent says nothing; of AU30 only a side says where to
    assert said(pictures["b.png"])["AU26"] == (1.0,)
    assert said(pictures["b.png"]).keys() == {"AU26", "AU30"}
    assert np.array_equal(pictures["b.png"].mask[AuId.AU30.index], [False, True])
    assert said(pictures["c.avi frame 3"]) == {"AU12": (0.5,), "AU30": (0.0,), "AU45": (1.0,)}
    assert [p.person for p in found.pictures] == ["anna", "carl", "more/b.png"]
    assert found.notes.left_out == {
        "named in labels.csv but not there": ["gone.png"],
        "not in labels.csv": ["stray.png"],
    }
    assert "dropped: AU25" in caplog.text
    assert "not in labels.csv: 1 (stray.png)" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its first row must be file,person"),
        ("file,AU1\n", "has no column person; it must be file,person"),
        ("file,person,AU1,smile\n", "columns that are no AU: smile"),
        ("file,person,AU1,AU1\n", "names a column twice"),
        ("file,person,AU17_L\n", "AU17_L: AU17 has no sides; call it AU17"),
        ("file,person,AU1\na.png,x,big\n", r"labels.csv:2: AU1 must be a number from 0 to 1, got"),
        ("file,person,AU1\n# scale: 5\n\na.png,x,6\n", r"labels.csv:4: AU1 .* 0 to 5, got '6'"),
        ("file,person,AU1\na.png,x,nan\n", r"labels.csv:2: AU1 must be"),
        ("# scale: none\nfile,person,AU1\n", r"labels.csv:1: scale must be"),
        ("# scale: 0\nfile,person,AU1\n", r"labels.csv:1: scale must be more than 0"),
        ("file,person,AU1\na.png,x\n", r"labels.csv:2: has 2 cells, the first row has 3"),
        ("file,person,AU1\nc.avi,x,1\n", r"labels.csv:2: c.avi is a video; say which frame"),
        ("file,person,frame,AU1\nc.avi,x,0,1\n", r"labels.csv:2: frame must be a whole number"),
        ("file,person,AU1\na.png,x,\n", "is a labelled picture of layout 'csv'"),
    ],
)
def test_broken_csv_is_refused_with_file_and_line(
    tmp_path: Path, content: str, message: str
) -> None:
    drawn(tmp_path / "a.png")
    (tmp_path / "c.avi").write_bytes(b"x")
    text(tmp_path / "labels.csv", content)
    with pytest.raises(ConfigError, match=message):
        read_labelled(tmp_path, "csv")


def test_csv_takes_the_only_table_and_asks_where_there_are_two(tmp_path: Path) -> None:
    drawn(tmp_path / "a.png")
    text(tmp_path / "mine.csv", "\ufefffile,person,AU1\na.png,x,0.5\n")
    assert said(read_labelled(tmp_path, "csv").pictures[0]) == {"AU1": (0.5,)}
    text(tmp_path / "other.csv", "")
    with pytest.raises(ConfigError, match=r"holds 2 CSV tables; name the one .* labels\.csv"):
        read_labelled(tmp_path, "csv")
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        read_labelled(tmp_path, "csv")


def test_rafd_labels_what_its_prototypes_have(tmp_path: Path) -> None:
    names = {
        "angry": "Rafd090_01_Caucasian_female_angry_frontal",
        "happy": "Rafd045_02_Kid_male_happy_left",
        "contempt": "Rafd135_47_Moroccan_male_contemptuous_right",
        "neutral": "Rafd090_01_Caucasian_female_neutral_frontal",
        "profile": "Rafd180_01_Caucasian_female_neutral_frontal",
    }
    for name in names.values():
        drawn(tmp_path / "all" / f"{name}.jpg")
    drawn(tmp_path / "holiday.jpg")
    found = read_labelled(tmp_path, "rafd")
    pictures = {key: by_name(found).get(f"{name}.jpg") for key, name in names.items()}
    straight = {au.name: (0.0,) for au in GAZE}
    assert said(pictures["angry"]) == straight | {
        "AU4": (0.8,),
        "AU5": (0.8,),
        "AU7": (PRESENT,),
        "AU17": (PRESENT,),
    }
    assert said(pictures["happy"]) == straight | {
        "AU6": (PRESENT,),
        "AU12": (0.8,),
        "AU61": (PRESENT,),
    }
    assert said(pictures["contempt"]) == straight | {"AU62": (PRESENT,)}
    assert said(pictures["neutral"]) == {au.name: (0.0,) for au in AuId}
    assert found.dataset == "rafd"
    assert {p.person for p in found.pictures} == {"01", "02", "47"}
    assert found.notes.left_out == {
        "profiles, half of the face is hidden": [f"{names['profile']}.jpg"],
        "not named as RaFD's pictures": ["holiday.jpg"],
    }


def test_cfd_labels_what_every_prototype_has(tmp_path: Path) -> None:
    for name in ("CFD-WF-001-003-N", "CFD-WF-001-014-A", "CFD-BM-010-003-HC", "CFD-IF-601-519-F"):
        drawn(tmp_path / "CFD" / f"{name}.jpg")
    drawn(tmp_path / "CFD-BM-010-003-HO.jpg")
    drawn(tmp_path / "CFD-BM-010-003-XX.jpg")
    found = read_labelled(tmp_path, "cfd")
    pictures = {p.path.stem.split("-")[-1]: p for p in found.pictures}
    straight = {au.name: (0.0,) for au in GAZE}
    there = (PRESENT,)
    assert said(pictures["N"]) == {au.name: (0.0,) for au in AuId}
    assert said(pictures["A"]) == straight | {"AU4": there, "AU5": there, "AU7": there}
    assert said(pictures["F"]) == straight | dict.fromkeys(("AU1", "AU2", "AU4", "AU5"), there)
    assert said(pictures["HC"]) == straight | {"AU12": there, "AU26": (0.0,)}
    assert said(pictures["HO"]) == straight | {"AU12": there}
    assert {p.person for p in found.pictures} == {"WF-001", "BM-010", "IF-601"}
    assert found.notes.left_out == {"not named as CFD's pictures": ["CFD-BM-010-003-XX.jpg"]}


def mmi_session(
    folder: Path, units: str, name: str = "S001-001", subject: str = '<subject id="7"/>', view="0"
) -> Path:
    coding = f"{name}-oao_aucs.xml"
    clip(folder / f"{name}.avi")
    text(folder / coding, f"<AnnotationSet>{units}</AnnotationSet>")
    text(
        folder / "session.xml",
        f'<session sessionId="1">{subject}<track view="{view}" filename="{name}.avi">'
        f'<annotation filename="{name}.xml"/><annotation filename="{coding}"/></track></session>',
    )
    return folder


def unit(number: str, *markers: tuple[int, int]) -> str:
    inner = "".join(f'<Marker Frame="{frame}" Type="{phase}"/>' for frame, phase in markers)
    return f'<ActionUnit Number="{number}">{inner}</ActionUnit>'


def test_mmi_labels_apex_and_neutral_and_not_what_is_between(tmp_path: Path) -> None:
    cycle = ((1, 0), (3, 1), (5, 2), (7, 3), (9, 0))
    mmi_session(
        tmp_path / "Sessions" / "1",
        unit("12", *cycle) + unit("R4", (1, 0), (2, 2), (4, 0)) + unit("25", *cycle)
        + unit("9") + unit("27", (1, 2)) + unit("M60", (1, 2)),
    )  # fmt: skip
    found = read_labelled(tmp_path, "mmi")
    frames = {picture.frame: said(picture) for picture in found.pictures}
    assert list(frames) == list(range(1, 10))
    assert {f: labels.get("AU12") for f, labels in frames.items()} == {
        **dict.fromkeys((1, 2, 9), (0.0,)),
        **dict.fromkeys((3, 4, 7, 8), None),
        **dict.fromkeys((5, 6), (PRESENT,)),
    }
    assert frames[2]["AU4"] == (0.0, PRESENT)
    assert frames[4]["AU4"] == (0.0,)
    assert all("AU9" not in labels for labels in frames.values())  # at some time, nobody says when
    assert all(labels["AU26"] == (PRESENT,) for labels in frames.values())  # by AU27
    assert all(labels["AU1"] == (0.0,) for labels in frames.values())  # not listed
    assert {p.person for p in found.pictures} == {"7"}
    assert {p.sequence for p in found.pictures} == {"1/S001-001.avi"}
    assert found.notes.left_out == {
        "codes that are not understood": ["'M60' in S001-001-oao_aucs.xml"]
    }
    assert found.notes.unknown_aus == {25}


def test_mmi_sessions_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = unit("1", (1, 2), (3, 0))
    mmi_session(tmp_path / "1", good)
    mmi_session(tmp_path / "2", good, "S002-001", view="1")
    mmi_session(tmp_path / "3", good, "S003-001", subject="")
    (mmi_session(tmp_path / "4", good, "S004-001") / "session.xml").unlink()
    (mmi_session(tmp_path / "5", good, "S005-001") / "S005-001.avi").unlink()
    mmi_session(tmp_path / "6", unit("1"), "S006-001")
    text(tmp_path / "readme.txt", "")
    found = read_labelled(tmp_path, "mmi")
    assert {p.path.parent.name for p in found.pictures} == {"1"}
    assert found.notes.left_out == {
        "profile views": ["S002-001-oao_aucs.xml"],
        "session.xml names no subject": ["3/S003-001-oao_aucs.xml"],
        "no session.xml, so nobody knows who it is": ["S004-001-oao_aucs.xml"],
        "coding without a video beside it": ["S005-001-oao_aucs.xml"],
        "no unit with a time": ["S006-001-oao_aucs.xml"],
        "neither coding nor coded video": ["readme.txt"],
    }
    text(tmp_path / "1" / "S001-001-oao_aucs.xml", "<AnnotationSet>\n<ActionUnit")
    with pytest.raises(ConfigError, match=r"S001-001-oao_aucs\.xml:2: is no XML"):
        read_labelled(tmp_path, "mmi")
    mmi_session(tmp_path / "1", '<ActionUnit Number="1"><Marker Frame="x" Type="2"/></ActionUnit>')
    with pytest.raises(ConfigError, match="a Marker of ActionUnit 1 has no whole Frame and Type"):
        read_labelled(tmp_path, "mmi")


def test_disfa_reads_grades_of_frames_of_the_left_camera(tmp_path: Path) -> None:
    coding = tmp_path / "ActionUnit_Labels" / "SN001"
    text(coding / "SN001_au1.txt", "1,0\n2,5\n3,1\n")
    text(coding / "SN001_au12.txt", "1,3\n2,0\n")
    text(coding / "SN001_au25.txt", "1,3\n2,0\n3,0\n4,2\n")
    text(tmp_path / "ActionUnit_Labels" / "SN002" / "SN002_au1.txt", "1,0\n")
    text(tmp_path / "licence.txt", "")
    clip(tmp_path / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi")
    clip(tmp_path / "Videos_LeftCamera" / "leftVideoSN003_Comp.avi")
    clip(tmp_path / "Videos_RightCamera" / "RightVideoSN001_comp.avi")
    found = read_labelled(tmp_path, "disfa")
    assert {p.frame: said(p) for p in found.pictures} == {
        1: {"AU1": (0.0,), "AU12": (0.6,)},
        2: {"AU1": (1.0,), "AU12": (0.0,)},
        3: {"AU1": (0.2,)},
    }
    assert {(p.person, p.path.name) for p in found.pictures} == {
        ("SN001", "LeftVideoSN001_comp.avi")
    }
    assert found.notes.unknown_aus == {25}
    assert found.notes.left_out == {
        "videos of the right camera, not needed": ["RightVideoSN001_comp.avi"],
        "no video of the left camera of": ["SN002"],
        "no labels of": ["SN003"],
        "neither labels nor videos of DISFA": ["licence.txt"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,0\n2,six\n", r"SN001_au4\.txt:2: AU4 must be a number from 0 to 5, got 'six'"),
        ("1,9\n", r"SN001_au4\.txt:1: AU4 must be a number from 0 to 5, got '9'"),
        ("1 0\n", r"SN001_au4\.txt:1: must be frame,intensity, got '1 0'"),
        ("1.5,0\n", r"SN001_au4\.txt:1: frame must be a whole number, got '1\.5'"),
    ],
)
def test_broken_disfa_labels_are_refused_with_file_and_line(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "LeftVideoSN001_comp.avi").write_bytes(b"x")
    text(tmp_path / "SN001_au4.txt", content)
    with pytest.raises(ConfigError, match=message):
        read_labelled(tmp_path, "disfa")


def test_bp4d_reads_occurrence_intensity_and_what_is_unknown(tmp_path: Path) -> None:
    coding = tmp_path / "AUCoding"
    text(
        coding / "AU_OCC" / "F001_T1.csv",
        "0,1,2,6,12,23\n2440,0,1,1,9,1\n2441,1,0,0,1,0\n2442,9,2,9,9,9\n2443,1,1,1,1,1\n",
    )
    text(coding / "AU_OCC" / "M002_T8.csv", "Frame,AU01\n1,1\n")
    text(coding / "AU_INT" / "AU06" / "F001_T1_AU06.csv", "2440,4\n2441,9\n2442,7\n9999,1\n")
    text(coding / "AU_INT" / "AU12" / "F001_T1_AU12.csv", "2440,5\n2441,0\n")
    for number in ("2440", "2441", "2442", "2450"):
        drawn(tmp_path / "Sequences" / "F001" / "T1" / f"{number}.jpg")
    drawn(tmp_path / "Sequences" / "M002" / "T8" / "001.jpg")
    drawn(tmp_path / "Sequences" / "M003" / "T1" / "001.jpg")
    drawn(tmp_path / "cover.jpg")
    found = read_labelled(tmp_path, "bp4d")
    pictures = by_name(found)
    assert pictures.keys() == {"2440.jpg", "2441.jpg", "001.jpg"}
    assert said(pictures["2440.jpg"]) == {
        "AU1": (0.0,),
        "AU2": (PRESENT,),
        "AU6": (0.8,),
        "AU12": (1.0,),
    }
    assert said(pictures["2441.jpg"]) == {
        "AU1": (PRESENT,),
        "AU2": (0.0,),
        "AU6": (0.0,),
        "AU12": (0.0,),
    }
    assert said(pictures["001.jpg"]) == {"AU1": (PRESENT,)}
    assert {(p.person, p.sequence) for p in found.pictures} == {
        ("F001", "F001_T1"),
        ("M002", "M002_T8"),
    }
    assert found.notes.left_out == {
        "occurrences that are not 0, 1 or 9": ["2 F001_T1.csv:4"],
        "intensities that are no grade": ["7 F001_T1_AU06.csv:3"],
        "coded frames without a picture": ["F001_T1 2443"],
        "pictures of frames that are not coded": ["F001_T1 2450"],
        "no occurrence table of": ["M003_T1"],
        "neither tables nor pictures of BP4D": ["cover.jpg"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"F001_T1\.csv:1: the first row must have AU numbers"),
        ("frame,mood\n1,0\n", r"F001_T1\.csv:1: the first row must have AU numbers"),
        ("0,1\n1,no\n", r"F001_T1\.csv:2: AU1 must be 0 or more, got 'no'"),
    ],
)
def test_broken_bp4d_tables_are_refused_with_file_and_line(
    tmp_path: Path, content: str, message: str
) -> None:
    drawn(tmp_path / "F001" / "T1" / "1.jpg")
    text(tmp_path / "F001_T1.csv", content)
    with pytest.raises(ConfigError, match=message):
        read_labelled(tmp_path, "bp4d")


def test_wrong_folders_and_layouts_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no layout 'ck'; there are bp4d, cfd, csv, disfa, mmi"):
        read_labelled(tmp_path, "ck")
    with pytest.raises(ConfigError, match=r"no folder at .*nowhere; check the path"):
        read_labelled(tmp_path / "nowhere", "rafd")
    text(tmp_path / "notes.txt", "")
    with pytest.raises(ConfigError, match=r"holds no pictures and no videos \(\.jpg"):
        read_labelled(tmp_path, "rafd")
    drawn(tmp_path / "a.jpg")
    for layout in LAYOUTS.keys() - {"csv"}:
        with pytest.raises(ConfigError, match=f"labelled picture of layout '{layout}', which loo"):
            read_labelled(tmp_path, layout)
    with pytest.raises(ConfigError, match=r"holds 0 CSV tables"):
        read_labelled(tmp_path, "csv")


# --- preparation ----------------------------------------------------------------------------------
def test_thinning_counts_each_sequence_and_keeps_single_pictures() -> None:
    def picture(name: str, sequence: str) -> LabelledPicture:
        zeros = np.zeros((NUM_AUS, 2))
        return LabelledPicture(Path(name), "x", zeros, zeros > 0, None, sequence)

    names = [*(f"a{i}" for i in range(5)), *(f"b{i}" for i in range(3)), "c", "d"]
    pictures = [picture(name, name[0] if name[0] in "ab" else "") for name in names]
    assert [p.path.name for p in thinned(pictures, 2)] == ["a0", "a2", "a4", "b0", "b2", "c", "d"]


def test_command_cuts_the_crop_that_the_runtime_cuts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Pictures and a video of the astronaut, one without a face, one that is none, one frame too
    many."""
    from rt_swap.expression import encode_picture
    from rt_swap.tracking import MediapipeTracker

    face_bgr = astronaut_bgr()
    folder = tmp_path / "mine"
    folder.mkdir()
    cv2.imwrite(str(folder / "face.png"), face_bgr)
    drawn(folder / "wall.png")
    text(folder / "torn.png", "x")
    write_video(folder / "clip.avi", [np.roll(face_bgr, 3 * i, 1) for i in range(3)])
    text(
        folder / "labels.csv",
        "file,person,frame,AU12_L,AU4\nface.png,a,,0.5,\nwall.png,b,,1,\ntorn.png,b,,1,\n"
        "clip.avi,c,1,,0\nclip.avi,c,2,,1\nclip.avi,c,3,,0.25\nclip.avi,c,9,,0.25\n",
    )
    out = tmp_path / "out" / "mine"
    arguments = ["--layout", "csv", "--from", str(folder), "--out", str(out)]
    assert main([*arguments, "--every", "2"]) == 0
    assert f"{out}: 3 pictures of 2 people" in capsys.readouterr().out
    assert "no face found: 1 (wall.png)" in caplog.text
    shard = open_labelled(out)
    meta, arrays = shard.meta, shard.arrays
    assert sorted(p.name for p in out.parent.iterdir()) == ["mine"]  # and nothing half-done
    assert {reason: entry["count"] for reason, entry in meta["left_out"].items()} == {
        "no face found": 1,
        "cannot be read": 1,
    }
    assert [p["person"] for p in meta["people"]] == ["a", "c"]
    assert [p["split"] for p in meta["people"]] == [split_of("mine", "a"), split_of("mine", "c")]
    assert arrays["people"].tolist() == [1, 1, 0]  # clip.avi, frames 1 and 3; face.png
    assert arrays["labels"][:, AuId.AU4.index, 0].tolist() == [0.0, 0.25, 0.0]
    assert arrays["mask"][2].sum() == 1
    assert arrays["mask"][2, AuId.AU12.index, 0]

    seen: list[np.ndarray] = []

    class Watching:
        def run(self, inputs: Any) -> dict[str, np.ndarray]:
            seen.extend(np.array(value) for value in inputs.values())
            return {"tokens": np.zeros((1, NUM_AUS, 1)), "aus_lr": np.zeros((1, NUM_AUS, 2))}

    with MediapipeTracker(max_faces=4, static=True) as tracker:
        encode_picture(face_bgr, Watching(), tracker, name="face", model_sha256="")
    np.testing.assert_allclose(
        arrays["rgb"][2] / 255.0, seen[0][0].transpose(1, 2, 0), atol=0.5 / 255 + 1e-6
    )
    assert main(arguments) == 2
    assert "is there already; remove it or give another --out" in capsys.readouterr().err
    assert main([*arguments[:-1], str(tmp_path / "new"), "--every", "0"]) == 2
    assert "--every must be 1 or more" in capsys.readouterr().err


def test_pictures_without_any_face_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    drawn(tmp_path / "cfd" / "CFD-WF-001-003-N.jpg")
    found = read_labelled(tmp_path / "cfd", "cfd")
    with pytest.raises(ConfigError, match="not one of 1 pictures shows a face"):
        prepare(found, tmp_path / "out", FakeTracker([]))
    assert [p.name for p in tmp_path.iterdir()] == ["cfd"]


def looking(offset: float) -> TrackedFace:
    """A face whose irises stand ``offset`` eye widths towards its own left (right in a picture)."""
    xy = landmarks_at(32.0, 24.0, 40.0)
    for right, left, iris in ((33, 133, 468), (362, 263, 473)):
        xy[left] = xy[right] + (6.0, 0.0)
        xy[iris] = xy[right] + (3.0 + 6.0 * offset, 0.5)
    return replace(face_at(32.0, 24.0, 40.0), landmarks_xy=xy)


@pytest.mark.parametrize("own_side", [True, False])
def test_whose_left_rafd_means_is_read_off_the_irises(tmp_path: Path, own_side: bool) -> None:
    assert gaze_offset(looking(0.25).landmarks_xy) == pytest.approx(0.25)
    for gaze in ("frontal", "left", "right"):  # in the order of their names
        drawn(tmp_path / "rafd" / f"Rafd090_01_Caucasian_female_happy_{gaze}.jpg")
    found = read_labelled(tmp_path / "rafd", "rafd")
    sign = 1 if own_side else -1
    # all faces look a little to one side: only the difference counts
    tracker = FakeTracker([[looking(0.3 + sign * shift)] for shift in (0.0, 0.2, -0.2)])
    said_of_all = prepare(found, tmp_path / "out", tracker)
    labels = open_labelled(tmp_path / "out").arrays["labels"]
    assert said_of_all["gaze_exchanged"] is not own_side
    left, right = AuId.AU61 if own_side else AuId.AU62, AuId.AU62 if own_side else AuId.AU61
    for au, values in ((left, [0, PRESENT, 0]), (right, [0, 0, PRESENT])):
        np.testing.assert_allclose(labels[:, au.index, 0], values, rtol=1e-6)
    np.testing.assert_allclose(labels[:, AuId.AU12.index], 0.8)


# --- prepared folders -----------------------------------------------------------------------------
def write_fake(
    out: Path,
    people: list[str],
    *,
    dataset: str = "fake",
    seed: int = 0,
    labels: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> Path:
    """A prepared folder of noise, a picture for each person; the red of a picture is its number."""
    rng = np.random.default_rng(seed)
    count = len(people)
    rgb = rng.integers(0, 256, (count, CROP_SIZE_PX, CROP_SIZE_PX, 3), dtype=np.uint8)
    rgb[..., 0] = np.arange(count)[:, None, None]
    if labels is None:
        labels = rng.random((count, NUM_AUS, 2))
    mask = rng.random((count, NUM_AUS, 2)) < 0.5 if mask is None else mask
    write_labelled(
        out,
        rgb,
        labels.astype(np.float32),
        mask,
        np.arange(count, dtype=np.int32),
        {"dataset": dataset, "people": [{"person": p, "split": "train"} for p in people]},
    )
    return out


@pytest.fixture
def people() -> list[str]:
    """Four who train, one of validation, one of the test."""
    held_out = [person_in("fake", "val"), person_in("fake", "test")]
    train = [person_in("fake", "train", i) for i in range(4)]
    return [held_out[0], *train[:2], held_out[1], *train[2:]]


def test_people_of_val_and_test_never_come(
    tmp_path: Path, people: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever labelled.json says of their split."""
    caplog.set_level(logging.INFO)
    pictures = LabelledPictures([write_fake(tmp_path / "a", people)])
    assert len(pictures) == 4
    assert pictures.people == {("fake", people[i]) for i in (1, 2, 4, 5)}
    assert "2 pictures of 2 held-out people (val, test) are not trained on" in caplog.text
    maker = LabelledMaker(pictures, None, 0)
    reds = [int(maker.batch(i, 1).look_rgb[0, 0, 0, 0] * 255 + 0.5) for i in range(8)]
    assert reds == [1, 2, 4, 5] * 2
    both = LabelledPictures([tmp_path / "a", write_fake(tmp_path / "b", people[1:2], seed=5)])
    assert len(both) == 5
    assert np.array_equal(both.picture(4)[0], np.load(tmp_path / "b" / "rgb.npy")[0])
    only = write_fake(tmp_path / "c", [people[0], people[3]])
    with pytest.raises(ConfigError, match=r"nobody in .* may train: all people are held out"):
        LabelledPictures([only])


def test_damaged_folders_are_refused(tmp_path: Path, people: list[str]) -> None:
    folder = write_fake(tmp_path / "a", people)
    with pytest.raises(ConfigError, match="cannot be read as prepared labelled pictures"):
        open_labelled(tmp_path / "nowhere")
    whole = json.loads((folder / "labelled.json").read_text())
    for change, error, message in (
        ({"format": 9}, ConfigError, "has format 9, this reader takes 1"),
        ({"aus": ["AU1"]}, ContractError, "are not rt_swap.aus' in its order"),
        ({"pictures": 5}, ContractError, r"rgb: expected uint8 \(5, .*; labels: .*; people:"),
        ({"people": []}, ContractError, "people: expected numbers of the people"),
    ):
        text(folder / "labelled.json", json.dumps(whole | change))
        with pytest.raises(error, match=message):
            open_labelled(folder)
    text(folder / "labelled.json", json.dumps(whole))
    np.save(folder / "labels.npy", np.full((6, NUM_AUS, 2), np.nan, np.float32))
    with pytest.raises(ContractError, match=r"labels: expected numbers in \[0, 1\]"):
        open_labelled(folder)
    np.save(folder / "labels.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ConfigError, match="cannot be read as prepared"):
        open_labelled(folder)


def test_writing_is_atomic(tmp_path: Path, people: list[str]) -> None:
    with pytest.raises(TypeError):
        write_labelled(
            tmp_path / "a",
            np.zeros((1, 8, 8, 3), np.uint8),
            np.zeros((1, NUM_AUS, 2), np.float32),
            np.zeros((1, NUM_AUS, 2), np.bool_),
            np.zeros(1, np.int32),
            {"people": {1, 2}},  # no JSON
        )
    assert not list(tmp_path.iterdir())


def test_batches_are_a_function_of_their_cursor(tmp_path: Path, people: list[str]) -> None:
    pictures = LabelledPictures([write_fake(tmp_path / "a", people)])
    one, other = (LabelledMaker(pictures, SMOKE.augment, 3) for _ in range(2))
    first = [one.batch(cursor, 3) for cursor in (0, 3, 6)]
    for cursor, batch in ((6, first[2]), (0, first[0]), (3, first[1])):
        again = other.batch(cursor, 3)
        for name in ("look_rgb", "labels", "mask"):
            assert torch.equal(getattr(again, name), getattr(batch, name))
    assert first[0].look_rgb.shape == (3, 3, 192, 176)
    reseeded = LabelledMaker(pictures, SMOKE.augment, 4).batch(0, 3)
    assert not torch.equal(first[0].look_rgb, reseeded.look_rgb)


def test_mirrored_pictures_have_mirrored_labels_and_masks(tmp_path: Path) -> None:
    person = person_in("fake", "train")
    labels, mask = np.zeros((1, NUM_AUS, 2)), np.zeros((1, NUM_AUS, 2), np.bool_)
    for au, side, value in ((AuId.AU12, 0, 0.7), (AuId.AU61, 0, 0.4), (AuId.AU61, 1, 0.4)):
        labels[0, au.index, side], mask[0, au.index, side] = value, True
    pictures = LabelledPictures([write_fake(tmp_path / "a", [person], labels=labels, mask=mask)])
    only_flips = AugmentConfig(**dict.fromkeys(AugmentConfig.__dataclass_fields__, 0.0))
    flipped = LabelledMaker(pictures, replace(only_flips, flip=1.0), 0).batch(0, 1)
    x0, y0, x1, y1 = LOOK_XYXY
    rgb = pictures.picture(0)[0][:, ::-1][y0:y1, x0:x1]
    np.testing.assert_allclose(flipped.look_rgb[0].permute(1, 2, 0) * 255, rgb, atol=1e-3)
    wanted = torch.zeros(NUM_AUS, 2)
    wanted[AuId.AU12.index, 1], wanted[AuId.AU62.index] = 0.7, 0.4
    torch.testing.assert_close(flipped.labels[0], wanted)
    assert torch.equal(flipped.mask[0], (wanted > 0).float())


def test_au_weights_are_of_labelled_entries_of_people_who_train(
    tmp_path: Path, people: list[str]
) -> None:
    labels = np.zeros((6, NUM_AUS, 2))
    mask = np.zeros((6, NUM_AUS, 2), np.bool_)
    mask[:, [AuId.AU1.index, AuId.AU2.index]] = True
    mask[1, AuId.AU2.index] = False
    labels[[0, 3], AuId.AU1.index] = 1.0  # held out: do not count
    labels[1, AuId.AU1.index] = 0.3
    labels[[1, 2, 4, 5], AuId.AU2.index] = 0.3
    pictures = LabelledPictures([write_fake(tmp_path / "a", people, labels=labels, mask=mask)])
    weights = pictures.au_weights(0.2)
    # rates 1/4 and 1, so weights as 4 : 1, mean 1
    assert weights[[AuId.AU1.index, AuId.AU2.index]].tolist() == pytest.approx([1.6, 0.4])
    assert weights.sum().item() == pytest.approx(2.0)


# --- training -------------------------------------------------------------------------------------
def test_loss_is_the_weighted_cross_entropy_of_labelled_entries() -> None:
    logits = torch.tensor([[[0.0, 2.0], [-1.0, 3.0]]])
    labels = torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])
    mask = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    weights = torch.tensor([0.5, 2.0])
    # -log 1/2; -(log s(2) + log s(-2)) / 2; -log s(1)
    literal = (0.5 * 0.693147 + 0.5 * 1.126928 + 2.0 * 0.313262) / 3
    loss = losses.labelled_au(logits, labels, mask, weights)
    assert loss.item() == pytest.approx(literal, rel=1e-5)
    all_of_it = losses.labelled_au(logits, labels, torch.ones_like(mask), weights)
    torch.testing.assert_close(all_of_it, losses.au_bce(logits, labels, weights))
    assert losses.labelled_au(logits, labels, torch.zeros_like(mask), weights).item() == 0.0
    hidden = torch.where(mask > 0, labels, 1 - labels)
    torch.testing.assert_close(losses.labelled_au(logits, hidden, mask, weights), loss)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=3, size_px=64)
    return tmp_path


def test_labelled_pictures_teach_stem_tokens_and_head(shards: Path, people: list[str]) -> None:
    pictures = LabelledPictures([write_fake(shards / "labelled", people)])
    labelled = LabelledMaker(pictures, SMOKE.augment, 0).batch(0, 3)
    batch = BatchMaker(ShardSet([shards / "train"]), None, 0).batch(0, 1, 32)
    torch.manual_seed(0)
    net = build(SMOKE.network)
    objective = Objective(SMOKE, torch.ones(NUM_AUS), torch.eye(2 * NUM_AUS))
    total, terms = objective.encoder_losses(net, batch, labelled)
    without, fewer = objective.encoder_losses(net, batch)
    assert terms.keys() - fewer.keys() == {"labelled_au"}
    weighted = sum(getattr(SMOKE.losses, k) * v.item() for k, v in terms.items())
    assert total.item() == pytest.approx(weighted, rel=1e-5)
    reached = (
        net.encoder.stem.down128, net.encoder.tokens.attention, net.encoder.tokens.weight2,
        net.encoder.tokens.head_weight,
    )  # fmt: skip
    for part in reached:
        weight = part if isinstance(part, torch.Tensor) else next(part.parameters())
        (gradient,) = torch.autograd.grad(terms["labelled_au"], weight, retain_graph=True)
        assert 0 < float(gradient.abs().sum()) < float("inf")
    assert without.isfinite()


def test_encoding_with_labelled_pictures_gives_each_its_own(
    shards: Path, people: list[str]
) -> None:
    pictures = LabelledPictures([write_fake(shards / "labelled", people)])
    labelled = LabelledMaker(pictures, None, 0).batch(0, 2)
    batch = BatchMaker(ShardSet([shards / "train"]), None, 0).batch(0, 1, 32)
    net = build(SMOKE.network).eval()
    encoded, logits = encode(net, batch, labelled)
    alone, none = encode(net, batch, None)
    assert none is None
    torch.testing.assert_close(encoded.tokens, alone.tokens, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoded.features.half, alone.features.half, atol=1e-5, rtol=1e-4)
    assert logits is not None
    torch.testing.assert_close(
        logits, net.encoder(labelled.look_rgb).au_logits, atol=1e-5, rtol=1e-4
    )


def run(shards: Path, name: str, labelled: list[Path], **options: Any) -> Path:
    config = replace(SMOKE, steps=4, labelled_pictures=3, **options.pop("changes", {}))
    out = shards / name
    loop(
        config=config, shards=[shards / "train"], val_shards=[], out=out, labelled=labelled,
        threads=1, device="cpu", **options,
    )  # fmt: skip
    return out


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_resumed_run_with_labelled_pictures_ends_exactly_like_an_uninterrupted_one(
    shards: Path, people: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    labelled = [write_fake(shards / "labelled", people)]
    cursors = []
    batch = LabelledMaker.batch

    def watched(maker: LabelledMaker, cursor: int, count: int) -> LabelledBatch:
        cursors.append(cursor)
        return batch(maker, cursor, count)

    monkeypatch.setattr(LabelledMaker, "batch", watched)
    whole = run(shards, "whole", labelled)
    assert cursors[:4] == [0, 3, 6, 9]  # and perhaps one ahead
    run(shards, "parts", labelled, max_steps=2)
    parts = run(shards, "parts", labelled, resume=True)
    terms = [[line["labelled_au"] for line in log_of(out)] for out in (whole, parts)]
    assert len(terms[0]) == 4  # in phases of the encoder alone, too
    assert terms[0] == terms[1]
    a, b = (
        load_file(latest_checkpoint(out / "checkpoints") / "model.safetensors")  # type: ignore[operator]
        for out in (whole, parts)
    )
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_nothing_of_it_without_the_pictures_the_weight_or_before_its_time(
    shards: Path, people: list[str]
) -> None:
    plain = run(shards, "plain", [])
    assert all("labelled_au" not in line for line in log_of(plain))
    labelled = [write_fake(shards / "labelled", people)]
    off = replace(SMOKE.losses, labelled_au=0.0)
    weightless = run(shards, "off", labelled, changes={"losses": off})
    assert [x["total"] for x in log_of(weightless)] == [x["total"] for x in log_of(plain)]
    late = replace(SMOKE.losses, labelled_from=0.5)
    lines = log_of(run(shards, "late", labelled, changes={"losses": late, "precision": "bf16"}))
    assert ["labelled_au" in line for line in lines] == [False, False, True, True]


def test_train_command_takes_labelled_folders(
    shards: Path, people: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = str(write_fake(shards / "labelled", people))
    arguments = [
        "--config", "smoke", "--shards", str(shards / "train"), "--out", str(shards / "run"),
        "--labelled", labelled, "--device", "cpu", "--threads", "1",
    ]  # fmt: skip
    assert train_main([*arguments, "--dry-run"]) == 0
    assert "labelled: 4 pictures of 4 people" in capsys.readouterr().out
    assert train_main([*arguments, "--max-steps", "1"]) == 0
    assert json.loads((shards / "run" / "config.json").read_text())["labelled"] == [labelled]
    assert "labelled_au" in log_of(shards / "run")[0]
    for options, message in (
        (["--labelled", "nowhere"], "nowhere cannot be read as prepared labelled pictures"),
        (["--set", "labelled_pictures=0"], "labelled_pictures must be 1 or more"),
        (["--set", "losses.labelled_from=2"], "losses.labelled_from must be in [0, 1]"),
    ):
        assert train_main([*arguments, "--out", str(shards / "new"), *options]) == 2
        assert message in capsys.readouterr().err


def test_notes_say_how_many_and_name_the_first() -> None:
    notes = Notes()
    for i in range(7):
        notes.add("torn", f"{i}.png")
    assert notes.lines() == ["torn: 7 (0.png, 1.png, 2.png, 3.png, 4.png and 2 more)"]


def test_batch_moves_to_a_device_in_channels_last_order() -> None:
    batch = LabelledBatch(torch.rand(2, 3, 192, 176), torch.rand(2, 1, 2), torch.ones(2, 1, 2))
    moved = batch.to(torch.device("cpu"))
    assert moved.look_rgb.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.labels, batch.labels)
