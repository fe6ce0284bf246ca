"""The unlabelled evaluation: its bookkeeping and numbers, on made-up series and faces."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rt_swap import geometry
from rt_swap.aus import NUM_AUS
from rt_swap.contract import TOKEN_DIM
from rt_swap.errors import ConfigError
from rt_swap.frames import (
    Expression,
    FaceCrop,
    Frame,
    FrameResult,
    FrameStatus,
    TrackedFace,
    TrackState,
)
from training import evaluate_real
from training.data.portraits import list_portraits
from training.data.split import is_held_out, split_of
from training.descriptors import NAMES, describe, rigid_points_xy
from training.evaluate_real import (
    AIMS,
    Clip,
    FaceReader,
    Series,
    agreement,
    clip_targets,
    mean_reading,
    run_pair,
    same_person_scores,
    score_pair,
    summary,
    there_and_back,
)

M_CROP = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def face(mouth: float = 0.0, turn_deg: float = 0.0) -> np.ndarray:
    """(478, 3) a made-up face whose lips are ``mouth`` apart, turned about the vertical axis."""
    from training.descriptors import RIGID_POINTS

    p = np.random.default_rng(1).uniform(-0.4, 0.4, (478, 3))
    for i, xyz in RIGID_POINTS.items():
        p[i] = xyz
    for up, low in ((13, 14), (82, 87), (312, 317)):
        p[up] = (0, 0.7, -0.2)
        p[low] = (0, 0.7 + mouth, -0.2)
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    return 100.0 * p @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T + 128.0


class Scripted:
    """Reads landmarks that are written into a frame's first pixel: mouth (x 100) and turn."""

    def read(self, frame_bgr: np.ndarray, M_crop_from_frame: np.ndarray) -> np.ndarray | None:
        mouth, turn, found = (int(v) for v in frame_bgr[0, 0])
        return face(mouth / 100.0, float(turn)) if found else None

    def look(
        self, frame_bgr: np.ndarray, M_crop_from_frame: np.ndarray
    ) -> tuple[np.ndarray | None, tuple[np.ndarray, np.ndarray]]:
        points = self.read(frame_bgr, M_crop_from_frame)
        nothing = np.full(5, np.nan)
        if points is None:
            return None, (nothing, nothing)
        # the mirror image's mouth seems 0.02 wider open
        return points, (describe(points), describe(points) + 0.02)


def frame(t: int, mouth: int = 0, turn: int = 0, found: int = 1) -> Frame:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[0, 0] = mouth, turn, found
    return Frame(picture, t, Fraction(1, 10))


def series(count: int = 40, **changes: np.ndarray) -> Series:
    t = np.linspace(0, 6, count)
    source = np.stack([np.abs(np.sin(t)), *(0.1 * np.sin(t + k) for k in range(4))], 1)
    rigid = np.random.default_rng(0).normal(size=(count, 18, 2))
    values = {
        "source": source,
        "target": np.zeros((count, 5)),
        "output": source.copy(),
        "drift_deg": np.linspace(0, 2, count),
        "target_rigid": rigid,
        "output_rigid": 2.0 * rigid,
    }
    return Series(**{**values, **changes})


def test_there_and_back_shows_each_end_once() -> None:
    assert there_and_back(4, 9) == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert there_and_back(1, 3) == [0, 0, 0]
    assert there_and_back(5, 2) == [0, 1]


def test_score_pair_output_that_follows_scores_one_and_knows_drift_and_jitter() -> None:
    row = score_pair(series())
    for name in NAMES:
        assert row["r"][name] == pytest.approx(1.0)
        assert row["moves"][name]
    assert row["drift_deg"] == pytest.approx(1.0)
    assert row["drift_p95_deg"] == pytest.approx(1.9)
    assert row["jitter_head"] == pytest.approx(2.0)
    assert row["jitter_expression"] == pytest.approx(1.0)
    assert row["read"] == 1.0


def test_score_pair_output_that_shows_two_thirds_has_r_of_one_and_that_slope() -> None:
    made = series()
    output = 0.3 + made.source * 2 / 3
    output[7] = np.nan
    row = score_pair(series(output=output))
    for name in NAMES:
        assert row["r"][name] == pytest.approx(1.0)
        assert row["slope"][name] == pytest.approx(2 / 3)
    still = score_pair(series(output=np.zeros((40, 5))))
    assert still["slope"]["smile"] == 0.0
    assert summary([row, row])["slope"]["smile"] == pytest.approx(2 / 3)


def test_same_person_scores_know_what_is_shown_from_what_is_left() -> None:
    target = np.array([[0.0, 0.3, 0.1, 0.2, 0.5], [0.1, 0.2, 0.2, 0.1, 0.4]])
    change = np.array([[0.2, 0.1, 0.4, 0.0, -0.1], [0.4, -0.1, 0.2, 0.0, -0.3]])
    # too little of the first, too much of the second, and the last goes the wrong way
    done = change * (0.5, 1.5, 1.0, 1.0, -1.0)
    got = same_person_scores(np.stack([target + change, target, target + done], 1))
    assert got["people"] == 2
    assert list(got["left"].values()) == pytest.approx([0.5, 0.5, 0.0, 0.0, 2.0])
    assert list(got["shown"].values()) == pytest.approx([0.5, 1.5, 1.0, 0.0, -1.0])
    assert list(got["moved"].values()) == pytest.approx([0.3, 0.1, 0.3, 0.0, 0.2])
    nobody = same_person_scores(np.array([]))
    assert nobody["people"] == 0 and np.isnan(nobody["shown"]["smile"])


def test_score_pair_still_source_is_marked_and_a_still_target_has_no_jitter_ratio() -> None:
    made = series()
    source = made.source.copy()
    source[:, 3] = 0.001 * np.sin(np.arange(40))
    row = score_pair(series(source=source, target_rigid=np.zeros((40, 18, 2))))
    assert not row["moves"]["brow_height"]
    assert row["moves"]["smile"]
    assert np.isnan(row["jitter_head"])


def test_score_pair_lost_frames_are_left_out_and_counted() -> None:
    made = series()
    output, drift = made.output.copy(), made.drift_deg.copy()
    output[10:20], drift[10:20] = np.nan, np.nan
    row = score_pair(series(output=output, drift_deg=drift))
    assert row["r"]["smile"] == pytest.approx(1.0)
    assert row["read"] == pytest.approx(0.75)


def test_summary_median_takes_only_pairs_that_move() -> None:
    rows = [score_pair(series()), score_pair(series()), score_pair(series())]
    for row, r, moves in zip(rows, (0.9, 0.5, -0.7), (True, True, False), strict=True):
        row["r"]["smile"], row["moves"]["smile"] = r, moves
    got = summary(rows)
    assert got["r"]["smile"] == pytest.approx(0.7)
    assert got["r_all_pairs"]["smile"] == pytest.approx(0.5)
    assert got["pairs"]["smile"] == 2
    assert np.isnan(summary([])["drift_deg"])


def test_run_pair_reads_source_time_by_time_and_keeps_what_is_asked_for() -> None:
    crop = FaceCrop(M_CROP, TrackState.TRACKED, None, 0)

    def process(shown: Frame, tokens: np.ndarray) -> FrameResult:
        if shown.pts == 2:
            return FrameResult(shown, FrameStatus.NO_FACE, None, None, {})
        # opens the mouth as the token says and turns the head by 3 degrees, a fault
        out = frame(shown.pts, mouth=int(tokens[0, 0]), turn=3)
        return FrameResult(out, FrameStatus.SWAPPED, crop, None, {})

    tokens = [np.full((NUM_AUS, TOKEN_DIM), 10.0 * t, np.float32) for t in range(5)]
    source = np.zeros((5, 5))
    targets = [frame(t, mouth=50, turn=1, found=t != 3) for t in range(5)]
    got, kept = run_pair(process, Scripted(), tokens, source, targets, keep={4})
    np.testing.assert_allclose(got.output[[0, 1, 3, 4], 0], [0.01, 0.11, 0.31, 0.41], atol=1e-6)
    assert np.isnan(got.output[2]).all()
    np.testing.assert_allclose(got.target[[0, 1, 4], 0], 0.51, atol=1e-6)
    assert np.isnan(got.target[[2, 3]]).all()
    np.testing.assert_allclose(got.target_rigid[4], rigid_points_xy(face(0.5, 1.0)), atol=1e-9)
    np.testing.assert_allclose(got.output_rigid[4], rigid_points_xy(face(0.4, 3.0)), atol=1e-9)
    np.testing.assert_allclose(got.drift_deg[[0, 1, 4]], 2.0, atol=1e-6)
    assert np.isnan(got.drift_deg[[2, 3]]).all()  # no crop; no landmarks in the target
    assert set(kept) == {4}


def test_face_reader_gives_landmarks_back_in_the_frames_own_pixels() -> None:
    points = face(0.2)

    class Tracker:
        """Knows the face in the resampled picture it is shown."""

        def detect(self, picture: np.ndarray) -> list[TrackedFace]:
            self.shape = picture.shape
            scale = 384 / (256 * 1.5)
            seen = geometry.apply(M, points[:, :2]) * scale + 0.25 * 256 * scale
            depth = points[:, 2] * scale * geometry.scale_of(M)
            return [TrackedFace(seen, depth, 1.0, 0)]

    M = np.array([[0.6, 0.8, 5.0], [-0.8, 0.6, -3.0]]) * 1.7
    tracker = Tracker()
    got = FaceReader(tracker).read(np.zeros((300, 400, 3), np.uint8), M)
    assert tracker.shape == (384, 384, 3)
    np.testing.assert_allclose(got, points, atol=1e-6)


def test_face_reader_describes_a_face_and_its_mirror_image() -> None:
    class Tracker:
        """A face whose mouth is 0.1 open, 0.3 in a picture that is dark on the left."""

        def detect(self, picture: np.ndarray) -> list[TrackedFace]:
            opening = 0.3 if picture[:, :100].mean() < picture[:, -100:].mean() else 0.1
            points = face(opening)
            return [TrackedFace(points[:, :2], points[:, 2], 1.0, 0)]

    picture = np.zeros((256, 256, 3), np.uint8)
    picture[:, :128] = 200
    first, second = FaceReader(Tracker()).describe(picture, M_CROP)
    assert first[0] == pytest.approx(0.1) and second[0] == pytest.approx(0.3)
    assert mean_reading((first, second))[0] == pytest.approx(0.2)
    nothing = np.full(5, np.nan)
    assert mean_reading((nothing, second))[0] == pytest.approx(0.3)
    assert np.isnan(mean_reading((nothing, nothing))).all()


def test_a_crooked_face_has_the_same_descriptors_in_the_mirror() -> None:
    """Every pair of landmarks that they are made of is symmetric."""
    sides = [
        (61, 291), (82, 312), (87, 317), (33, 263), (133, 362), (103, 332), (54, 284), (67, 297),
        (21, 251), (70, 300), (63, 293), (105, 334), (66, 296), (107, 336), (160, 387), (159, 386),
        (158, 385), (144, 373), (145, 374), (153, 380),
    ]  # fmt: skip
    order = np.arange(478)
    for a, b in sides:
        order[a], order[b] = b, a
    crooked = face(0.2, turn_deg=20.0) + np.random.default_rng(3).normal(0, 3, (478, 3))
    mirrored = (crooked * (-1.0, 1.0, 1.0))[order]
    np.testing.assert_allclose(describe(mirrored), describe(crooked), atol=1e-9)
    assert np.abs(describe(crooked * (-1.0, 1.0, 1.0)) - describe(crooked)).max() > 1e-3


def test_agreement_is_what_the_mean_of_two_noisy_readings_correlates_with() -> None:
    rng = np.random.default_rng(0)
    truth = 0.1 * rng.normal(size=(20000, 5))
    truth[:, 4] *= 1e-3  # does not move
    noise = np.array([0.0, 0.05, 0.1, 0.2, 1e-5])
    first, second = (truth + noise * rng.normal(size=truth.shape) for _ in range(2))
    found = agreement(first, second)
    another = (truth + noise * rng.normal(size=truth.shape) for _ in range(2))
    output = sum(another) / 2  # what a perfect method's answers would be read as
    for k, name in enumerate(NAMES[:4]):
        r = np.corrcoef((first[:, k] + second[:, k]) / 2, output[:, k])[0, 1]
        assert found[name] == pytest.approx(r, abs=0.02)
    assert np.isnan(found["eye_opening"])
    assert agreement(first, -second)["brow_height"] == 0.0


def test_clip_targets_are_on_the_sources_clock() -> None:
    tokens = np.zeros((3, NUM_AUS, TOKEN_DIM), np.float32)
    made = Expression(tokens, np.zeros((3, NUM_AUS, 2), np.float32), np.arange(3.0), 3.0, "x", "")
    source_frames = [Frame(np.zeros((2, 2, 3), np.uint8), 7 * t, Fraction(1, 30)) for t in range(3)]
    target_frames = [frame(t, mouth=t) for t in range(2)]
    source = Clip("s", source_frames, made, np.zeros((3, 5)), [M_CROP] * 3, {})
    target = Clip("t", target_frames, made, np.zeros((2, 5)), [M_CROP] * 2, {})
    got = clip_targets(source, target)
    assert [int(f.frame_bgr[0, 0, 0]) for f in got] == [0, 1, 0]
    assert [f.pts for f in got] == [0, 7, 14]
    assert got[0].time_base == Fraction(1, 30)


@pytest.mark.parametrize(("folder_name", "named"), [("london", {}), ("mine", {"name": "london"})])
def test_held_out_portraits_are_of_held_out_people_only(
    tmp_path: Path, folder_name: str, named: dict[str, str]
) -> None:
    folder = tmp_path / "portraits" / folder_name
    folder.mkdir(parents=True)
    people = [f"{n:03d}" for n in range(200)]
    pictures = [
        {"file": f"{kind}_{p}.jpg", "person": p, "yaw_deg": 1.5}
        for p in people
        for kind in ("smiling", "neutral")
    ]
    (folder / "manifest.json").write_text(json.dumps({**named, "pictures": pictures}))
    got = evaluate_real.held_out_portraits(tmp_path)
    wanted = {p for p in people if is_held_out("london", p)}
    assert {p.person for p in got} == wanted
    assert 0 < len(wanted) < 60
    trained_on = list_portraits([folder])  # by the same rule
    assert {p.person for p in trained_on if split_of(p.dataset, p.person) != "train"} == wanted
    assert sum(p.is_neutral for p in got) == len(wanted)


def test_held_out_portraits_damaged_manifest_names_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "portraits" / "x"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"pictures": [{"file": "a.jpg"}]}')
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        evaluate_real.held_out_portraits(tmp_path)


def test_find_data_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RT_SWAP_DATA", raising=False)
    checkout = tmp_path / "checkout" / "training" / "evaluate_real.py"
    monkeypatch.setattr(evaluate_real, "__file__", str(checkout))
    with pytest.raises(ConfigError, match="RT_SWAP_DATA"):
        evaluate_real.find_data(None)
    with pytest.raises(ConfigError, match="no clips/"):
        evaluate_real.find_data(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "portraits").mkdir()
    monkeypatch.setenv("RT_SWAP_DATA", str(tmp_path))
    assert evaluate_real.find_data(None) == tmp_path
    monkeypatch.setenv("RT_SWAP_DATA", str(tmp_path / "clips"))
    with pytest.raises(ConfigError, match=r"^RT_SWAP_DATA .*no clips/"):
        evaluate_real.find_data(None)


def test_same_person_smiles_by_their_smile_and_rests_by_their_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [evaluate_real.Portrait("london", n[-7:-4], tmp_path / n, 0.0) for n in (
        "neutral_001.jpg", "smiling_001.jpg", "neutral_002.jpg", "smiling_003.jpg",
    )]  # fmt: skip
    mouths = {"neutral_001.jpg": 0.1, "smiling_001.jpg": 0.5}

    def load(_: object, portrait: evaluate_real.Portrait) -> evaluate_real._Source:
        mouth = mouths[portrait.path.name]
        picture = np.full((2, 2, 3), int(100 * mouth), np.uint8)
        tokens = np.full((NUM_AUS, TOKEN_DIM), mouth, np.float32)
        return evaluate_real._Source(picture, M_CROP, tokens, np.full(5, mouth))

    class HalfWay:
        def run(self, tokens, source, targets, shown):
            (tokens,), (target,) = tokens, targets
            there, wanted = target.frame_bgr[0, 0, 0] / 100.0, float(tokens[0, 0])
            assert source[0, 0] == pytest.approx(wanted)
            made = np.full((1, 5), there + (0.5 if wanted > there else 0.75) * (wanted - there))
            return series(1, target=np.full((1, 5), there), output=made)

    monkeypatch.setattr(evaluate_real, "_load_source", load)
    got = evaluate_real._score_same_person(HalfWay(), people, None)
    for way, shown in (("smile", 0.5), ("rest", 0.75)):
        assert got[way]["people"] == 1
        assert got[way]["shown"]["smile"] == pytest.approx(shown)
        assert got[way]["left"]["smile"] == pytest.approx(1 - shown)
        assert got[way]["moved"]["smile"] == pytest.approx(0.4)


def test_text_names_every_pair_aim_and_unknown_number() -> None:
    row = {"source": "a.gif", "target": "b.mkv", **score_pair(series())}
    row["r"]["smile"] = float("nan")
    row["moves"]["mouth_width"] = False
    report = {
        "clips": {
            "pairs": [row],
            "median": summary([row]),
            "agreement": dict.fromkeys(NAMES, 0.87),
        },
        "portraits": {
            "pairs": [{"target": "n.jpg", "sources": 9, **score_pair(series())}],
            "median_r": dict.fromkeys(NAMES, 0.5),
            "median_slope": dict.fromkeys(NAMES, 0.4),
            "median_drift_deg": 0.4,
        },
        "same_person": {
            way: {
                "people": people,
                "left": dict.fromkeys(NAMES, 0.25) | {"brow_height": 1.75},
                "shown": dict.fromkeys(NAMES, 0.8) | {"brow_height": -3.0},
                "moved": dict.fromkeys(NAMES, 0.09) | {"brow_height": 0.004},
            }
            for way, people in (("smile", 3), ("rest", 2))
        },
        "aims": dict.fromkeys([*AIMS, "drift"], True),
    }
    text = evaluate_real.text(report)
    assert "a.gif -> b.mkv" in text
    assert "(1.00)" in text  # the source hardly moves
    assert "n.jpg <- 9 sources" in text
    assert "what readings of these clips can reach" in text and "0.87" in text
    assert "met    drift" in text
    lines = [line for line in text.splitlines() if "held-out people" in line]
    own = {line[:50].strip(): line[50:].split() for line in lines}
    # a smile leaves brows alone
    for who in ("3 held-out people smile", "2 held-out people come to rest"):
        assert own[f"{who}: left"] == ["0.25", "0.25", "0.25", "(1.75)", "0.25"]
        assert own[f"{who}: shown"] == ["0.80", "0.80", "0.80", "(-3.00)", "0.80"]
    slopes = [line.split()[2:7] for line in text.splitlines() if line.startswith("median slope")]
    assert slopes == [["1.00", "-", "1.00", "1.00", "1.00"], ["0.40"] * 5]
    aims = [line.split() for line in text.splitlines() if line.startswith("aim")]
    assert aims == [["aim", "0.95", "0.85", "0.85", "0.70", "0.80", "1.50"]]


def test_scripted_face_opens_as_it_says() -> None:
    # the helper above is only worth something if the descriptors see what it does
    assert describe(face(0.3))[0] == pytest.approx(0.3)
