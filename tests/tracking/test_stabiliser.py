from __future__ import annotations

import math

import numpy as np
import pytest

from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import TrackState
from rt_swap.geometry import apply, crop_from_landmarks, invert, scale_of
from rt_swap.tracking import CropStabiliser
from tests.support.faces import face_at

HW = (480, 640)
CORNERS = np.array([[0, 0], [256, 0], [0, 256], [256, 256]], np.float64)


def corners_of(crop):
    return apply(invert(crop.M_crop_from_frame), CORNERS)


def test_first_crop_is_the_landmarks_own():
    face = face_at(300, 200, 150, 0.3)
    crop = CropStabiliser().update(face, 1.0, HW)
    assert crop is not None
    assert crop.state is TrackState.TRACKED
    assert crop.face is face
    np.testing.assert_allclose(
        crop.M_crop_from_frame, crop_from_landmarks(face.landmarks_xy), atol=1e-9
    )


def test_crop_stays_a_similarity_under_noise(rng):
    stabiliser = CropStabiliser()
    for i in range(30):
        face = face_at(300 + i, 200, 150, 0.02 * i, noise=rng.normal(0, 2, (478, 2)))
        crop = stabiliser.update(face, i / 30, HW)
        assert crop is not None
        a, b = crop.M_crop_from_frame[0, :2], crop.M_crop_from_frame[1, :2]
        assert a[0] == pytest.approx(b[1])
        assert a[1] == pytest.approx(-b[0])


def test_noise_at_rest_is_cut_by_more_than_half(rng):
    stabiliser = CropStabiliser()
    raw, steady = [], []
    for i in range(120):
        face = face_at(300, 200, 128, noise=rng.normal(0, 1, (478, 2)))
        raw.append(apply(invert(crop_from_landmarks(face.landmarks_xy)), CORNERS))
        crop = stabiliser.update(face, i / 30, HW)
        assert crop is not None
        steady.append(corners_of(crop))
    shake = [np.diff(np.array(path)[30:], axis=0).std() for path in (raw, steady)]
    assert shake[1] < shake[0] / 2.5


def test_lag_at_a_brisk_pace_is_under_three_percent_of_the_crop():
    stabiliser = CropStabiliser()
    for i in range(60):  # one crop side per second
        crop = stabiliser.update(face_at(100 + i * 128 / 30, 200, 128), i / 30, (480, 1000))
    assert crop is not None
    lag_px = (100 + 59 * 128 / 30) - corners_of(crop)[:, 0].mean()
    assert 0 < lag_px < 0.03 * 128


def test_same_motion_at_another_resolution_is_filtered_the_same(rng):
    one, four = CropStabiliser(), CropStabiliser()
    for i in range(40):
        noise = rng.normal(0, 1, (478, 2))
        x, y = 200 + 3.0 * i, 200 + 20 * math.sin(i / 5)
        small = one.update(face_at(x, y, 100, noise=noise), i / 25, HW)
        large = four.update(face_at(4 * x, 4 * y, 400, noise=4 * noise), i / 25, (1920, 2560))
        assert small is not None
        assert large is not None
        np.testing.assert_allclose(4 * corners_of(small), corners_of(large), atol=1e-6)


def test_varying_rate_converges_in_the_same_time():
    after = []
    for times in (np.arange(1, 31) / 30, np.sort(np.r_[np.arange(1, 11) / 10])):
        stabiliser = CropStabiliser(anchor_beta=0, size_beta=0, angle_beta=0)
        stabiliser.update(face_at(300, 200), 0.0, HW)
        for time_s in times:
            crop = stabiliser.update(face_at(310, 200), float(time_s), HW)
        assert crop is not None
        after.append(corners_of(crop)[:, 0].mean())
    assert after[0] == pytest.approx(after[1], abs=0.3)
    assert 309 < after[0] < 310


def test_states_tracked_held_lost_tracked():
    stabiliser = CropStabiliser(hold_s=0.2)
    assert stabiliser.state is TrackState.LOST
    assert stabiliser.update(None, 0.0, HW) is None
    assert stabiliser.state is TrackState.LOST

    seen = stabiliser.update(face_at(300, 200, track_id=4), 0.1, HW)
    assert seen is not None
    for time_s in (0.2, 0.3):
        held = stabiliser.update(None, time_s, HW)
        assert held is not None
        assert held.state is stabiliser.state is TrackState.HELD
        assert held.face is None
        assert held.track_id == 4
        np.testing.assert_array_equal(held.M_crop_from_frame, seen.M_crop_from_frame)

    assert stabiliser.update(None, 0.31, HW) is None
    assert stabiliser.state is TrackState.LOST

    # afresh: nothing of the old place is left
    again = stabiliser.update(face_at(320, 210, track_id=4), 0.35, HW)
    assert again is not None
    assert again.state is TrackState.TRACKED
    assert corners_of(again).mean(0) == pytest.approx([320, 210])


def test_held_then_seen_goes_on_smoothly():
    stabiliser = CropStabiliser(hold_s=0.5)
    for i in range(10):
        stabiliser.update(face_at(300, 200), i / 30, HW)
    stabiliser.update(None, 10 / 30, HW)
    crop = stabiliser.update(face_at(306, 200), 11 / 30, HW)
    assert crop is not None
    assert crop.state is TrackState.TRACKED
    assert 301 < corners_of(crop)[:, 0].mean() < 305.99


def test_hold_of_zero_never_holds():
    stabiliser = CropStabiliser(hold_s=0.0)
    stabiliser.update(face_at(300, 200), 0.0, HW)
    assert stabiliser.update(None, 0.01, HW) is None


def test_hold_ends_though_the_time_stands_still():
    stabiliser = CropStabiliser(hold_s=0.2)
    stabiliser.update(face_at(300, 200), 5.0, HW)
    states = []
    for _ in range(10):
        stabiliser.update(None, 5.0, HW)
        states.append(stabiliser.state)
    assert states[0] is TrackState.HELD
    assert states[-1] is TrackState.LOST


@pytest.mark.parametrize(
    "jump",
    [
        {"x": 380.0},  # 0.6 of the crop's side
        {"side_px": 190.0},
        {"angle_rad": 1.0},
    ],
)
def test_jump_starts_afresh(jump):
    place = {"x": 300.0, "y": 200.0, "side_px": 128.0, "angle_rad": 0.0}
    stabiliser = CropStabiliser()
    for i in range(10):
        stabiliser.update(face_at(**place), i / 30, HW)
    face = face_at(**{**place, **jump})
    crop = stabiliser.update(face, 10 / 30, HW)
    assert crop is not None
    np.testing.assert_allclose(
        crop.M_crop_from_frame, crop_from_landmarks(face.landmarks_xy), atol=1e-9
    )


def test_motion_within_the_limits_does_not_start_afresh():
    stabiliser = CropStabiliser()
    for i in range(10):
        stabiliser.update(face_at(300, 200), i / 30, HW)
    crop = stabiliser.update(face_at(310, 200), 10 / 30, HW)
    assert crop is not None
    assert corners_of(crop)[:, 0].mean() < 309.5


def test_another_person_starts_afresh():
    stabiliser = CropStabiliser()
    for i in range(10):
        stabiliser.update(face_at(300, 200, track_id=1), i / 30, HW)
    crop = stabiliser.update(face_at(306, 200, track_id=2), 10 / 30, HW)
    assert crop is not None
    assert crop.track_id == 2
    assert corners_of(crop).mean(0) == pytest.approx([306, 200])


def test_angle_runs_through_pi_without_a_turn():
    stabiliser = CropStabiliser()
    for i in range(40):
        angle = math.pi - 0.2 + 0.01 * i
        crop = stabiliser.update(face_at(300, 200, 128, angle), i / 30, HW)
        assert crop is not None
        M = invert(crop.M_crop_from_frame)
        off = math.remainder(math.atan2(M[1, 0], M[0, 0]) - angle, 2 * math.pi)
        assert abs(off) < 0.05
        assert scale_of(M) == pytest.approx(128 / CROP_SIZE_PX)


@pytest.mark.parametrize("times", [[0, 0, 0, 0.1], [0, 0.1, 0.05, 0.2], [3.0, 0.0, 0.1, 0.2]])
def test_time_that_does_not_go_forward_is_survived(times):
    stabiliser = CropStabiliser()
    for i, time_s in enumerate(times):
        crop = stabiliser.update(face_at(300 + i, 200), time_s, HW)
        assert crop is not None
        assert np.isfinite(crop.M_crop_from_frame).all()
        assert 299 < corners_of(crop)[:, 0].mean() < 304


def test_seek_back_starts_afresh():
    stabiliser = CropStabiliser()
    for i in range(10):
        stabiliser.update(face_at(300, 200), 10 + i / 30, HW)
    crop = stabiliser.update(face_at(310, 200), 2.0, HW)
    assert crop is not None
    assert corners_of(crop)[:, 0].mean() == pytest.approx(310)
    assert stabiliser.update(None, 0.0, HW) is None


@pytest.mark.parametrize("time_s", [math.nan, math.inf])
def test_time_not_finite_is_refused(time_s):
    with pytest.raises(ContractError, match="time_s must be a finite"):
        CropStabiliser().update(None, time_s, HW)


@pytest.mark.parametrize("hold_s", [-0.1, math.nan, math.inf])
def test_hold_out_of_range_is_refused(hold_s):
    with pytest.raises(ConfigError, match="hold_s"):
        CropStabiliser(hold_s=hold_s)


def test_useless_landmarks_count_as_not_seen():
    stabiliser = CropStabiliser()
    stabiliser.update(face_at(300, 200), 0.0, HW)
    nan = face_at(300, 200, noise=np.full((478, 2), np.nan))
    point = face_at(300, 200, side_px=0.0)
    outside = face_at(2000, 200)
    for i, face in enumerate((nan, point, outside)):
        crop = stabiliser.update(face, 0.03 * (i + 1), HW)
        assert crop is not None
        assert crop.state is TrackState.HELD


def test_crop_over_the_edge_is_a_crop():
    crop = CropStabiliser().update(face_at(10, 10, 128), 0.0, HW)
    assert crop is not None
    assert crop.state is TrackState.TRACKED
