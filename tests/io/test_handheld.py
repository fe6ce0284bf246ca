"""A still picture filmed by a simulated hand-held camera."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from rt_swap import geometry
from rt_swap.errors import ConfigError, ContractError
from rt_swap.io.handheld import HandheldCamera
from tests.support.videos import quadrants_bgr

SIZE_WH = (160, 90)


def test_handheld_gives_frames_of_the_size_and_times_asked_for() -> None:
    camera = HandheldCamera(quadrants_bgr(), SIZE_WH, Fraction(25), frame_count=4)
    frames = list(camera)
    assert [f.pts for f in frames] == [0, 1, 2, 3]
    assert {f.time_base for f in frames} == {Fraction(1, 25)}
    assert all(f.frame_bgr.shape == (90, 160, 3) and f.frame_bgr.dtype == np.uint8 for f in frames)
    assert all(f.frame_bgr.flags.c_contiguous for f in frames)


def test_handheld_same_seed_same_frames_other_seed_other_frames() -> None:
    def last(seed: int) -> np.ndarray:
        return list(HandheldCamera(quadrants_bgr(), SIZE_WH, frame_count=3, seed=seed))[
            -1
        ].frame_bgr

    np.testing.assert_array_equal(last(3), last(3))
    assert np.any(last(3) != last(4))


def test_handheld_motion_is_there_smooth_and_bounded() -> None:
    camera = HandheldCamera(quadrants_bgr(), (1280, 720))
    middle = np.array([[640.0, 360.0]]) + camera._margin_px
    path = np.array([geometry.apply(camera.pose(i / 30), middle)[0] for i in range(1800)])
    offset = path - [640, 360]
    assert np.abs(offset).max() <= 0.03 * 1280 + 1e-6
    assert offset.std(0).min() > 4  # it moves
    step = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert step.max() < 8  # and never jumps, pixels a frame
    scales = [geometry.scale_of(camera.pose(i / 30)) for i in range(1800)]
    assert 0.96 <= min(scales) < 1 < max(scales) <= 1.041


def test_handheld_frame_is_the_canvas_seen_through_the_pose() -> None:
    """A point of the picture lies where pose() says: half a pixel of error would show."""
    picture = np.zeros((40, 64, 3), np.uint8)
    picture[12:28, 20:44] = 255
    camera = HandheldCamera(picture, (640, 360), frame_count=20)
    frame = list(camera)[-1]

    def centre(bgr: np.ndarray) -> np.ndarray:
        weight = bgr[..., 0].astype(float)
        y, x = np.mgrid[0 : bgr.shape[0], 0 : bgr.shape[1]] + 0.5
        return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()

    expected = geometry.apply(camera.pose(19 / 30), centre(camera._canvas_bgr)[None])[0]
    np.testing.assert_allclose(centre(frame.frame_bgr), expected, atol=0.1)


def test_handheld_shows_the_picture_in_its_colours_and_no_black_edge() -> None:
    picture = np.full((50, 50, 3), (40, 90, 200), np.uint8)
    for frame in HandheldCamera(picture, SIZE_WH, frame_count=60):
        assert np.abs(frame.frame_bgr.astype(int) - (40, 90, 200)).max() <= 1


@pytest.mark.parametrize("hw", [(30, 300), (300, 30), (1, 1)])
def test_handheld_takes_a_picture_of_any_shape(hw: tuple[int, int]) -> None:
    picture = np.full((*hw, 3), 77, np.uint8)
    (frame,) = HandheldCamera(picture, SIZE_WH, frame_count=1)
    assert np.abs(frame.frame_bgr.astype(int) - 77).max() <= 1


def test_handheld_close_ends_the_iteration() -> None:
    camera = HandheldCamera(quadrants_bgr(), SIZE_WH, frame_count=1000)
    frames = iter(camera)
    next(frames)
    camera.close()
    assert list(frames) == []


def test_handheld_refuses_what_is_no_picture() -> None:
    with pytest.raises(ContractError, match=r"uint8 \(H, W, 3\), got float64 \(8, 8, 3\)"):
        HandheldCamera(np.zeros((8, 8, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"frame_count": 0}, {"size_wh": (8, 8)}, {"rate": Fraction(0)}]
)
def test_handheld_refuses_numbers_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="frame_count 1 or more"):
        HandheldCamera(quadrants_bgr(), **options)  # type: ignore[arg-type]
