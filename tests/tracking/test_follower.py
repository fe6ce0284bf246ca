from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from rt_swap.errors import ConfigError
from rt_swap.frames import Frame, TrackState
from rt_swap.geometry import apply, invert
from rt_swap.tracking import CropStabiliser, FaceFollower, FaceTracker, choose_face
from tests.support.faces import FakeTracker, blank_frame, face_at

SMALL = face_at(100, 200, 90, track_id=7)
LARGE = face_at(300, 200, 160, track_id=3)
MIDDLE = face_at(500, 200, 120, track_id=5)


def follow(follower, count, start=0):
    return [follower.follow(blank_frame(i)) for i in range(start, start + count)]


def test_fake_is_a_tracker():
    assert isinstance(FakeTracker([]), FaceTracker)


@pytest.mark.parametrize(("face", "track_id"), [("largest", 3), (0, 7), (1, 3), (2, 5)])
def test_choose_face(face, track_id):
    for faces in ([SMALL, LARGE, MIDDLE], [MIDDLE, LARGE, SMALL]):
        chosen = choose_face(faces, face)
        assert chosen is not None
        assert chosen.track_id == track_id


@pytest.mark.parametrize(("faces", "face"), [([], "largest"), ([], 0), ([SMALL, LARGE], 2)])
def test_choose_face_too_few_is_none(faces, face):
    assert choose_face(faces, face) is None


@pytest.mark.parametrize("face", ["smallest", -1, 1.0, True, None])
def test_choose_face_refuses_anything_else(face):
    with pytest.raises(ConfigError, match="leftmost"):
        choose_face([SMALL], face)
    with pytest.raises(ConfigError, match="leftmost"):
        FaceFollower(FakeTracker([]), face)


def test_follower_reports_everybody_the_largest_first():
    follower = FaceFollower(FakeTracker([[SMALL, LARGE, MIDDLE]]))
    assert follower.faces == []
    (crop,) = follow(follower, 1)
    assert crop is not None
    assert crop.track_id == follower.track_id == 3
    assert [f.track_id for f in follower.faces] == [3, 5, 7]


def test_follower_keeps_its_choice_when_somebody_larger_comes():
    giant = face_at(500, 240, 300, track_id=9)
    follower = FaceFollower(FakeTracker([[SMALL, LARGE], [giant, LARGE], [LARGE, giant]]))
    assert [crop and crop.track_id for crop in follow(follower, 3)] == [3, 3, 3]


@pytest.mark.parametrize("prefers_larger", [False, True])
def test_follower_turns_to_a_much_larger_face_only_where_asked_and_after_a_while(prefers_larger):
    """Somebody sits down in front of a poster."""
    poster, person = face_at(100, 200, 60, track_id=1), face_at(400, 240, 200, track_id=2)
    script = [[poster]] * 5 + [[poster, person]] * 60
    follower = FaceFollower(FakeTracker(script), prefers_larger=prefers_larger)
    ids = [crop and crop.track_id for crop in follow(follower, len(script))]
    assert ids[:30] == [1] * 30
    assert ids[-1] == (2 if prefers_larger else 1)
    if prefers_larger:  # a second later, in one step, with no frame without a face between
        assert ids.index(2) == 5 + 30
        assert set(ids[35:]) == {2}


def test_follower_does_not_turn_to_a_passer_by_or_a_face_about_as_large():
    person, other = face_at(400, 240, 160, track_id=2), face_at(150, 240, 200, track_id=3)
    passer = face_at(150, 240, 300, track_id=4)
    script = [[person]] * 5 + [[person, other]] * 40
    script += ([[person, passer]] * 20 + [[person]] * 5) * 3
    follower = FaceFollower(FakeTracker(script), prefers_larger=True)
    assert {crop and crop.track_id for crop in follow(follower, len(script))} == {2}


def test_follower_by_number_never_turns_to_a_larger_face():
    script = [[SMALL, face_at(400, 240, 300, track_id=9)]] * 60
    follower = FaceFollower(FakeTracker(script), face=0, prefers_larger=True)
    assert {crop and crop.track_id for crop in follow(follower, 60)} == {7}


def test_follower_by_number_keeps_its_choice_when_the_order_changes():
    script = [[SMALL, LARGE]]
    for x in range(100, 600, 25):  # the leftmost walks past the other
        script.append([face_at(x, 200, 90, track_id=7), LARGE])
    follower = FaceFollower(FakeTracker(script), face=0)
    assert {crop and crop.track_id for crop in follow(follower, len(script))} == {7}


def test_follower_by_number_waits_until_there_are_enough():
    follower = FaceFollower(FakeTracker([[LARGE], [LARGE], [LARGE, SMALL]]), face=1)
    crops = follow(follower, 3)
    assert crops[:2] == [None, None]
    assert crops[2] is not None
    assert crops[2].track_id == 3


def test_follower_holds_though_others_are_there_then_chooses_again():
    script = [[SMALL, LARGE]] * 3 + [[SMALL]] * 10
    follower = FaceFollower(FakeTracker(script), hold_s=0.1)
    got = [(c.track_id, c.state) if c else None for c in follow(follower, 13)]
    assert got[:3] == [(3, TrackState.TRACKED)] * 3
    assert got[3:6] == [(3, TrackState.HELD)] * 3
    assert got[6:] == [(7, TrackState.TRACKED)] * 7


def test_follower_lost_and_found_again():
    script = [[LARGE]] * 2 + [[]] * 20 + [[MIDDLE]] * 2
    follower = FaceFollower(FakeTracker(script), hold_s=0.2)
    states = []
    for i in range(24):
        crop = follower.follow(blank_frame(i))
        assert (crop is None) == (follower.state is TrackState.LOST)
        states.append(follower.state.value)
    assert states == ["tracked"] * 2 + ["held"] * 6 + ["lost"] * 14 + ["tracked"] * 2
    assert follower.track_id == 5


def scene(rng, index):
    return Frame(
        np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((40, 40, 1))).astype(np.uint8),
        index,
        Fraction(1, 30),
    )


def test_follower_does_not_hold_over_a_cut(rng):
    one, other = scene(rng, 0), scene(rng, 1)
    follower = FaceFollower(FakeTracker([[LARGE], [SMALL]]), hold_s=1.0)
    assert follower.follow(one) is not None
    crop = follower.follow(other)
    assert crop is not None
    assert crop.state is TrackState.TRACKED
    assert crop.track_id == 7


def test_follower_does_not_smooth_over_a_cut(rng):
    one, other = scene(rng, 0), scene(rng, 1)
    moved = face_at(310, 200, 160, track_id=3)
    follower = FaceFollower(FakeTracker([[LARGE], [moved]]))
    follower.follow(one)
    crop = follower.follow(other)
    assert crop is not None
    middle = apply(invert(crop.M_crop_from_frame), np.array([128.0, 128.0]))
    assert middle == pytest.approx([310, 200])


def test_follower_reset_forgets_the_person():
    follower = FaceFollower(FakeTracker([[SMALL], [SMALL, LARGE]]))
    follow(follower, 1)
    follower.reset()
    assert follower.faces == []
    assert follower.track_id is None
    assert follower.state is TrackState.LOST
    (crop,) = follow(follower, 1, start=1)
    assert crop is not None
    assert crop.track_id == 3


def test_follower_takes_a_stabiliser_of_its_own():
    follower = FaceFollower(FakeTracker([[LARGE], []]), stabiliser=CropStabiliser(hold_s=0.0))
    assert [crop is None for crop in follow(follower, 2)] == [False, True]


def test_follower_leaves_the_tracker_open():
    with FakeTracker([[LARGE]]) as tracker:
        follow(FaceFollower(tracker), 1)
        assert not tracker.closed
    assert tracker.closed


def test_follower_says_whom_it_chose_among_several(caplog):
    with caplog.at_level("INFO", logger="rt_swap.tracking"):
        follow(FaceFollower(FakeTracker([[SMALL, LARGE]] * 5)), 5)
    assert [r.getMessage() for r in caplog.records] == [
        "2 faces are in view; following the largest, as long as it stays"
    ]
