"""Which pictures of a stream get which marks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from rt_swap.frames import FaceCrop, Frame, FrameResult, FrameStatus, TrackState
from rt_swap.provenance.marker import Marker
from rt_swap.provenance.marks import Marks

SHA = "5" * 64
M_CROP_FROM_FRAME = np.array([[0.8, 0.0, 0.0], [0.0, 0.8, 0.0]])


def result(status: FrameStatus, *, repeats: bool = False) -> FrameResult:
    picture = np.random.default_rng(0).integers(60, 190, (320, 320, 3), dtype=np.uint8)
    crop = None
    if status is not FrameStatus.NO_FACE:
        crop = FaceCrop(M_CROP_FROM_FRAME, TrackState.TRACKED, None, 1)
    return FrameResult(Frame(picture, 0, Fraction(1, 30)), status, crop, None, {}, repeats)


def changed(marker: Marker, given: FrameResult) -> bool:
    before = given.frame.frame_bgr.copy()
    return bool((marker.apply(given).frame.frame_bgr != before).any())


@pytest.mark.parametrize("shown_before", [True, False])
def test_what_is_not_altered_is_not_marked_in_its_pixels(shown_before: bool) -> None:
    """The own face let through, the slate, a blurred picture: none of them was re-expressed."""
    marker = Marker(Marks(badge="off"), SHA)
    if shown_before:
        assert changed(marker, result(FrameStatus.SWAPPED))
    frames = marker.record.watermarked_frames
    assert not changed(marker, result(FrameStatus.NO_FACE))
    assert marker.record.watermarked_frames == frames


def test_an_altered_picture_that_is_shown_again_is_marked_where_the_face_was() -> None:
    marker = Marker(Marks(badge="off"), SHA)
    marker.apply(result(FrameStatus.SWAPPED))
    marker.apply(result(FrameStatus.NO_FACE, repeats=True))
    assert marker.record.watermarked_frames == 2
    assert changed(marker, result(FrameStatus.NO_FACE, repeats=True))
    marker.reset()  # another stream: there is no face to mark yet
    assert not changed(marker, result(FrameStatus.NO_FACE, repeats=True))


def test_every_picture_has_the_badge() -> None:
    marker = Marker(Marks(watermark=False), SHA)
    for status in FrameStatus:
        given = result(status)
        before = given.frame.frame_bgr.copy()
        after = marker.apply(given).frame.frame_bgr
        assert (after[-40:, -200:] != before[-40:, -200:]).any()
        assert (after[:200] == before[:200]).all()
