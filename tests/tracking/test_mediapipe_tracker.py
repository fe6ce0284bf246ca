"""The real tracker on real clips."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
import pytest

from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import BackendUnavailable, ConfigError, ContractError
from rt_swap.frames import Frame, TrackedFace, TrackState
from rt_swap.geometry import apply, crop_from_landmarks, invert, scale_of
from rt_swap.tracking import CropStabiliser, FaceFollower, FaceTracker, MediapipeTracker
from rt_swap.tracking.identity import place_of
from rt_swap.tracking.plausibility import template_residual
from tests.support.data import shared_data_dir
from tests.support.faces import clip_frames

BOTH = "head-pose-face-detection-female-and-male.gif"
FEMALE = "head-pose-face-detection-female.gif"
MALE = "head-pose-face-detection-male.gif"
WALKING = "face-demographics-walking-and-pause.gif"
# right and left, and the midline: a mirror exchanges the first two
MIRROR = {33: 263, 263: 33, 133: 362, 362: 133, 61: 291, 291: 61, 168: 168, 6: 6, 1: 1, 2: 2}


@functools.cache
def pictures(name: str) -> list[np.ndarray]:
    frames = [frame.frame_bgr for frame in clip_frames(shared_data_dir("clips", name))]
    for frame_bgr in frames:
        frame_bgr.flags.writeable = False  # the tests share them
    return frames


def middle_of(face: TrackedFace) -> np.ndarray:
    return place_of(face.landmarks_xy).centre_xy


def settled(frame_bgr: np.ndarray) -> TrackedFace | None:
    """A still's face after the region of interest has come to rest on it."""
    with MediapipeTracker() as tracker:
        for _ in range(6):
            faces = tracker.detect(frame_bgr)
    return faces[0] if faces else None


@pytest.fixture(scope="module")
def static_tracker() -> Iterator[MediapipeTracker]:
    with MediapipeTracker(max_faces=4, static=True) as tracker:
        yield tracker


# --- what it finds ------------------------------------------------------------------------------


def test_tracker_fulfils_the_protocol(static_tracker):
    assert isinstance(static_tracker, FaceTracker)
    frame_bgr = pictures(BOTH)[0]
    before = frame_bgr.copy()
    faces = static_tracker.detect(frame_bgr)
    np.testing.assert_array_equal(frame_bgr, before)
    assert len(faces) == 2
    for face in faces:
        assert face.landmarks_xy.shape == (478, 2)
        assert face.landmarks_xy.dtype == face.depth.dtype == np.float64
        assert face.depth.shape == (478,)
        assert 0.5 <= face.confidence <= 1.0
    sizes = [place_of(face.landmarks_xy).size_px for face in faces]
    assert sizes == sorted(sizes, reverse=True)


def test_depth_is_smaller_where_nearer(static_tracker):
    (face,) = static_tracker.detect(pictures(MALE)[0])
    nose_tip, ears = face.depth[1], face.depth[[234, 454]]
    assert nose_tip < ears.min()
    # of the order of the face, in pixels
    assert 0.2 < (ears.mean() - nose_tip) / place_of(face.landmarks_xy).size_px < 1.5


def test_static_tracker_gives_every_picture_new_ids(static_tracker):
    frame_bgr = pictures(BOTH)[0]
    first, second = (static_tracker.detect(frame_bgr) for _ in range(2))
    assert not {f.track_id for f in first} & {f.track_id for f in second}


def test_max_faces_keeps_the_largest():
    frame_bgr = pictures(WALKING)[30]
    with MediapipeTracker(4, static=True) as tracker:
        everybody = tracker.detect(frame_bgr)
    with MediapipeTracker(1, static=True) as tracker:
        (one,) = tracker.detect(frame_bgr)
    assert len(everybody) == 3
    np.testing.assert_allclose(middle_of(one), middle_of(everybody[0]), atol=1)


# --- convention ---------------------------------------------------------------------------------


def test_convention_mirrored_picture_gives_mirrored_landmarks(static_tracker):
    # a picture whose pixels were counted from their centres would be off by 0.5 px, here twice
    off = []
    for name in (MALE, "help.mkv", "yes.mkv"):
        for frame_bgr in pictures(name)[::12]:
            there = static_tracker.detect(frame_bgr)
            back = static_tracker.detect(np.ascontiguousarray(frame_bgr[:, ::-1]))
            if not (len(there) == len(back) == 1):
                continue
            mirrored = back[0].landmarks_xy * (-1, 1) + (frame_bgr.shape[1], 0)
            off.append([there[0].landmarks_xy[i] - mirrored[j] for i, j in MIRROR.items()])
    assert len(off) >= 10
    assert np.abs(np.mean(off, axis=(0, 1))).max() < 0.25


def test_convention_turned_picture_gives_turned_landmarks():
    off = []
    for frame_bgr in pictures(MALE)[::10] + pictures("help.mkv")[::10]:
        there, back = settled(frame_bgr), settled(np.ascontiguousarray(np.rot90(frame_bgr, -1)))
        if there is None or back is None:  # the detectors dislike faces that lie
            continue
        x, y = back.landmarks_xy.T
        turned = np.stack([y, frame_bgr.shape[0] - x], 1)
        off.append((there.landmarks_xy - turned).mean(0))
    assert len(off) >= 3
    assert np.abs(np.median(off, axis=0)).max() < 0.25


@pytest.mark.parametrize("factor", [5, 9])
def test_convention_landmarks_of_a_huge_frame_scale_back(factor):
    frame_bgr = pictures(MALE)[0]  # 480 x 270, so 2400 x 1350 and 4320 x 2430
    small = settled(frame_bgr)
    huge = settled(cv2.resize(frame_bgr, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    assert small is not None
    assert huge is not None
    difference = huge.landmarks_xy / factor - small.landmarks_xy
    assert np.abs(difference.mean(0)).max() < 0.3
    assert np.percentile(np.abs(difference), 95) < 1.5
    assert np.ptp(huge.depth) == pytest.approx(factor * np.ptp(small.depth), rel=0.1)


# --- identity -----------------------------------------------------------------------------------


def test_ids_stay_throughout_with_two_people():
    with MediapipeTracker(max_faces=3) as tracker:
        left, right = set(), set()
        for frame_bgr in pictures(BOTH):
            faces = tracker.detect(frame_bgr)
            assert len(faces) == 2
            by_x = sorted(faces, key=lambda f: middle_of(f)[0])
            left.add(by_x[0].track_id)
            right.add(by_x[1].track_id)
    assert len(left) == len(right) == 1
    assert left != right


def test_ids_stay_with_three_people_walking():
    with MediapipeTracker(max_faces=4) as tracker:
        where: dict[int, list[float]] = {}
        for frame_bgr in pictures(WALKING):
            for face in tracker.detect(frame_bgr):
                where.setdefault(face.track_id, []).append(middle_of(face)[0])
    assert len(where) == 3
    for path in where.values():
        assert np.abs(np.diff(path)).max() < 15
        assert len(path) > 35


def walkers() -> Iterator[tuple[np.ndarray, float, float]]:
    """Two portraits that pass each other, the first in front, and their middles' x."""
    heads = []
    for name in ("003f.jpg", "095m.jpg"):
        picture = cv2.imread(str(shared_data_dir("portraits", "canada", name)))
        picture = cv2.resize(picture, (260, 260), interpolation=cv2.INTER_AREA)
        y, x = np.mgrid[-1:1:260j, -1:1:260j]
        heads.append((picture, ((x / 0.62) ** 2 + (y / 0.85) ** 2 < 1)[..., None]))
    for step in range(41):
        right_going, left_going = 140 + 20 * step, 940 - 20 * step
        frame_bgr = np.full((360, 1080, 3), 128, np.uint8)
        for (picture, shape), x0, y0 in (
            (heads[1], left_going - 130, 60),
            (heads[0], right_going - 130, 40),
        ):
            part = frame_bgr[y0 : y0 + 260, x0 : x0 + 260]
            part[:] = np.where(shape, picture, part)
        yield frame_bgr, right_going, left_going


def test_ids_survive_one_person_passing_in_front_of_another():
    in_front, behind = set(), set()
    with MediapipeTracker(max_faces=2) as tracker:
        for frame_bgr, right_going, left_going in walkers():
            faces = tracker.detect(frame_bgr)
            if abs(right_going - left_going) < 200:
                continue
            assert len(faces) == 2
            for face in faces:
                x = middle_of(face)[0]
                nearest = in_front if abs(x - right_going) < abs(x - left_going) else behind
                nearest.add(face.track_id)
    assert len(in_front) == len(behind) == 1
    assert in_front != behind


def test_id_survives_a_short_loss_and_a_flicker_of_nothing():
    frames = pictures(MALE)
    nothing = np.full_like(frames[0], 200)
    # noise that correlates with the picture, so that this is a loss and no cut
    hidden = frames[5].copy()
    with MediapipeTracker(max_faces=1) as tracker:
        (before,) = tracker.detect(frames[4])
        x, y = (int(v) for v in middle_of(before))
        hidden[max(y - 60, 0) : y + 60, max(x - 60, 0) : x + 60] = nothing[0, 0]
        for _ in range(4):
            assert tracker.detect(hidden) == []
        (after,) = tracker.detect(frames[6])
    assert after.track_id == before.track_id


def test_id_is_kept_for_a_hidden_person_though_another_is_in_view():
    frames = pictures(BOTH)
    with MediapipeTracker(max_faces=1) as tracker:
        (man,) = tracker.detect(frames[0])  # the larger of the two
        x, y = (int(v) for v in middle_of(man))
        for frame_bgr in frames[1:5]:
            hidden = frame_bgr.copy()
            hidden[max(y - 70, 0) : y + 70, x - 70 : x + 60] = 150
            assert tracker.detect(hidden) == []
        (again,) = tracker.detect(frames[5])
    assert again.track_id == man.track_id


# --- loss, detection again, cuts ----------------------------------------------------------------


def test_lost_and_found_again_in_the_very_picture():
    frames = pictures(WALKING)
    blank = np.full_like(frames[0], 90)
    with MediapipeTracker(max_faces=4) as tracker:
        assert len(tracker.detect(frames[20])) == 3
        for _ in range(8):
            assert tracker.detect(blank) == []
        assert len(tracker.detect(frames[24])) == 3


def test_follower_states_over_a_loss():
    frames = pictures(WALKING)
    empty = cv2.GaussianBlur(frames[20], (0, 0), 25)  # the same scene without anybody to be seen
    script = [*frames[20:23], *[empty] * 8, *frames[31:34]]
    with MediapipeTracker(max_faces=4) as tracker:
        follower = FaceFollower(tracker, face=1, hold_s=0.25)
        states, ids = [], set()
        for i, frame_bgr in enumerate(script):
            crop = follower.follow(Frame(frame_bgr, i, Fraction(2, 25)))
            states.append(follower.state)
            if crop is not None:
                ids.add(crop.track_id)
    assert states == (
        [TrackState.TRACKED] * 3
        + [TrackState.HELD] * 3
        + [TrackState.LOST] * 5
        + [TrackState.TRACKED] * 3
    )
    assert len(ids) == 1


def test_cut_to_another_person_is_followed_at_once():
    script = pictures(WALKING)[20:23] + pictures(FEMALE)[8:12] + pictures("yes.mkv")[:3]
    with MediapipeTracker(max_faces=4) as tracker:
        follower = FaceFollower(tracker)
        seen = [follower.follow(Frame(p, i, Fraction(1, 25))) for i, p in enumerate(script)]
    assert all(crop is not None and crop.state is TrackState.TRACKED for crop in seen)
    ids = [crop.track_id for crop in seen if crop is not None]
    assert len(set(ids[:3])) == len(set(ids[3:7])) == len(set(ids[7:])) == 1
    assert len({ids[0], ids[3], ids[7]}) == 3
    # the first crop of a scene owes nothing to the scene before
    for i in (3, 7):
        crop = seen[i]
        assert crop is not None
        assert crop.face is not None
        np.testing.assert_allclose(
            crop.M_crop_from_frame, crop_from_landmarks(crop.face.landmarks_xy), atol=1e-9
        )


def test_nothing_is_found_where_nobody_is(rng):
    with MediapipeTracker(max_faces=4) as tracker:
        for _ in range(6):
            assert tracker.detect(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)) == []
        for value in (0, 255):
            assert tracker.detect(np.full((240, 320, 3), value, np.uint8)) == []


def test_tracking_does_not_stick_to_where_a_face_was():
    frames = pictures(FEMALE)
    with MediapipeTracker(max_faces=1) as tracker:
        (face,) = tracker.detect(frames[10])
        width = frames[10].shape[1]
        # the picture slides away sideways, 12 px a step, until she is gone; then only wall is left
        for step in range(1, 60):
            slid = np.roll(frames[10], 12 * step, axis=1)
            slid[:, : min(12 * step, width)] = frames[10][:, :1]
            faces = tracker.detect(slid)
            x = middle_of(face)[0] + 12 * step
            if x > width + 40:
                assert faces == []
            elif x < width - 60:
                assert len(faces) == 1
                assert faces[0].track_id == face.track_id


def test_confidence_falls_towards_the_edge():
    frame_bgr = pictures(FEMALE)[10]
    width = frame_bgr.shape[1]
    with MediapipeTracker(max_faces=1, min_confidence=0.05) as tracker:
        confidence = []
        for step in range(0, 300, 10):
            slid = np.roll(frame_bgr, step, axis=1)
            slid[:, :step] = frame_bgr[:, :1]
            faces = tracker.detect(slid)
            if faces:
                confidence.append((middle_of(faces[0])[0], faces[0].confidence))
    assert confidence[0][1] > 0.95
    assert min(c for _, c in confidence) < 0.6
    assert max(x for x, _ in confidence) < width + 20


def test_turned_heads_of_real_clips_fit_the_template_well_enough():
    worst = []
    for name in (FEMALE, MALE, BOTH, "help.mkv"):
        with MediapipeTracker(max_faces=3) as tracker:
            faces = [f for frame_bgr in pictures(name) for f in tracker.detect(frame_bgr)]
        worst.append(max(template_residual(f.landmarks_xy) for f in faces))
        assert min(f.confidence for f in faces) > 0.8
    assert max(worst) < 0.65
    assert min(worst) < 0.25


# --- the steady crop on real clips --------------------------------------------------------------


def paths(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners and middle of the crop in the frame, raw and steady, in units of its side."""
    grid = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]]) * CROP_SIZE_PX
    raw, steady, sides = [], [], []
    stabiliser = CropStabiliser()
    with MediapipeTracker(max_faces=1) as tracker:
        for frame in clip_frames(shared_data_dir("clips", name)):
            (face,) = tracker.detect(frame.frame_bgr)
            crop = stabiliser.update(face, frame.time_s, frame.frame_bgr.shape[:2])
            assert crop is not None
            M_frame_from_crop = invert(crop_from_landmarks(face.landmarks_xy))
            raw.append(apply(M_frame_from_crop, grid))
            steady.append(apply(invert(crop.M_crop_from_frame), grid))
            sides.append(CROP_SIZE_PX * scale_of(M_frame_from_crop))
    side_px = float(np.median(sides))
    return np.array(raw) / side_px, np.array(steady) / side_px


def shake(path: np.ndarray) -> float:
    """Root mean square of the second difference: what motion at a steady pace has none of."""
    return float(np.sqrt((np.diff(path, n=2, axis=0) ** 2).sum(-1).mean()))


@pytest.mark.parametrize(
    ("name", "remaining"), [(MALE, 0.5), ("help.mkv", 0.6), ("thanks.mkv", 0.6)]
)
def test_steady_crop_of_a_real_clip_shakes_less_and_lags_little(name, remaining):
    raw, steady = paths(name)
    assert shake(steady) < remaining * shake(raw)
    lag = np.sqrt(((steady - raw) ** 2).sum(-1))
    assert np.median(lag) < 0.01
    assert lag.max() < 0.025


def test_steady_crop_keeps_up_with_a_head_that_turns_fast():
    raw, steady = paths(FEMALE)  # 12 pictures a second
    lag = np.sqrt(((steady - raw) ** 2).sum(-1))
    assert np.median(lag) < 0.015
    assert lag.max() < 0.04


# --- odd sizes and misuse -----------------------------------------------------------------------


@pytest.mark.parametrize("hw", [(1, 1), (16, 16), (17, 500), (500, 17), (3, 4000), (31, 33)])
def test_odd_sizes_do_not_crash(hw, rng):
    with MediapipeTracker() as tracker:
        for _ in range(2):
            assert tracker.detect(rng.integers(0, 256, (*hw, 3), dtype=np.uint8)) == []


def test_frame_size_may_change_within_a_stream():
    frame_bgr = pictures(MALE)[0]
    with MediapipeTracker() as tracker:
        for factor in (1.0, 0.5, 2.0, 0.05, 1.0):
            faces = tracker.detect(cv2.resize(frame_bgr, None, fx=factor, fy=factor))
            assert len(faces) == (factor != 0.05)


def test_frame_need_not_be_contiguous(static_tracker):
    frame_bgr = pictures(MALE)[0]
    padded = np.zeros((frame_bgr.shape[0], frame_bgr.shape[1] + 40, 3), np.uint8)
    padded[:, :-40] = frame_bgr
    (face,) = static_tracker.detect(padded[:, :-40])
    (expected,) = static_tracker.detect(frame_bgr)
    np.testing.assert_allclose(face.landmarks_xy, expected.landmarks_xy)


@pytest.mark.parametrize(
    "frame_bgr",
    [
        np.zeros((20, 20), np.uint8),
        np.zeros((20, 20, 4), np.uint8),
        np.zeros((20, 20, 3), np.float32),
        np.zeros((0, 20, 3), np.uint8),
        None,
    ],
)
def test_wrong_picture_is_refused(static_tracker, frame_bgr):
    with pytest.raises(ContractError, match=r"frame_bgr must be uint8 \(H, W, 3\)"):
        static_tracker.detect(frame_bgr)


@pytest.mark.parametrize(
    "options", [{"max_faces": 0}, {"min_confidence": 0.0}, {"min_confidence": 1.0}]
)
def test_wrong_option_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        MediapipeTracker(**options)


def test_closed_tracker_says_so():
    tracker = MediapipeTracker()
    tracker.close()
    tracker.close()
    with pytest.raises(ContractError, match="closed"):
        tracker.detect(np.zeros((64, 64, 3), np.uint8))


def test_missing_mediapipe_is_said_with_what_to_do(monkeypatch):
    for name in list(sys.modules):
        if name == "mediapipe" or name.startswith("mediapipe."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'mediapipe<=0.10.21'"):
        MediapipeTracker()


# --- what it says and loads ---------------------------------------------------------------------

_QUIET = """
import os, sys
import numpy as np
from rt_swap.tracking import MediapipeTracker
from rt_swap.tracking import mediapipe_tracker
heavy = {"mediapipe", "cv2"} & set(sys.modules)
assert not heavy, heavy
with MediapipeTracker() as tracker:
    tracker.detect(np.zeros((100, 100, 3), np.uint8))
with mediapipe_tracker._without_chatter():
    os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\nE0000 a real error\\n")
try:
    with mediapipe_tracker._without_chatter():
        os.write(2, b"last words\\n")
        raise RuntimeError
except RuntimeError:
    pass
os.write(2, b"and after\\n")
"""


def test_start_up_is_silent_but_errors_are_heard_and_nothing_is_loaded_early():
    done = subprocess.run(
        [sys.executable, "-c", _QUIET], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["E0000 a real error", "last words", "and after"]


def test_landmark_network_runs_once_per_face_and_detectors_only_when_needed(monkeypatch):
    frames = pictures(MALE)
    with MediapipeTracker(max_faces=1) as tracker:
        graphs = tracker._graphs
        assert graphs is not None
        calls = {"landmarks": 0, "regions": 0}
        for name in calls:
            inner = getattr(graphs, name)

            def counted(*args, name=name, inner=inner):
                calls[name] += 1
                return inner(*args)

            monkeypatch.setattr(graphs, name, counted)
        for frame_bgr in itertools.islice(itertools.cycle(frames), 40):
            assert len(tracker.detect(frame_bgr)) == 1
    assert calls == {"landmarks": 40, "regions": 1}
