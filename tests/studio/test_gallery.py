"""Thumbnails of the presets, wherever a face comes from."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from rt_swap.geometry import invert
from rt_swap.studio import pictures
from rt_swap.studio.gallery import Gallery
from rt_swap.swapper import Swapper
from tests.support.faces import similarity

MakeSwapper = Callable[[], Swapper]


def _decoded(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def test_presets_go_by_their_words_until_a_face_is_seen(
    make_tiny: MakeSwapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "portrait", lambda: None)
    gallery = Gallery(make_tiny)
    try:
        gallery.start().result(20)
        names = [entry.name for entry in gallery.entries()]
        assert names[:2] == ["Smile", "Laugh"]
        assert len(names) == 9
        gallery.show_presets_on(np.full((120, 160, 3), 90, np.uint8)).result(20)
        assert not gallery.lacks_thumbnails()
        versions = {entry.version for entry in gallery.entries()}
        assert len(versions) == 9 and 0 not in versions
    finally:
        gallery.close()


def test_without_a_face_in_the_picture_words_stay(
    make_tiny: MakeSwapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "portrait", lambda: None)

    def make() -> Swapper:
        swapper = make_tiny()
        nobody = type("Nobody", (), {"detect": lambda self, _: [], "close": lambda self: None})
        swapper._make_tracker = lambda faces, static: nobody()
        return swapper

    gallery = Gallery(make)
    try:
        gallery.start().result(20)
        gallery.show_presets_on(np.full((120, 160, 3), 90, np.uint8)).result(20)
        assert gallery.lacks_thumbnails()
        assert "thumbnail" in gallery.entries()[0].as_json()
        assert gallery.entries()[0].as_json()["thumbnail"] is None
    finally:
        gallery.close()


@pytest.mark.parametrize("side_px", [60.0, 900.0], ids=["small", "large"])
def test_a_thumbnail_shows_the_face(side_px: float) -> None:
    picture = np.zeros((1000, 1200, 3), np.uint8)
    M_frame_from_crop = similarity(700, 500, side_px, 0.0)
    cv2.circle(picture, (700, 500), round(side_px * 0.2), (0, 255, 0), -1)
    thumb = _decoded(pictures.thumbnail(picture, invert(M_frame_from_crop)))
    assert thumb.shape == (pictures.THUMBNAIL_PX, pictures.THUMBNAIL_PX, 3)
    middle = thumb.shape[0] // 2
    assert thumb[middle, middle, 1] > 240
    green = (thumb[:, :, 1] > 128).mean()
    # a disc of 0.2 sides in a thumbnail of 0.86 sides
    assert green == pytest.approx(np.pi * (0.2 / 0.86) ** 2, rel=0.08)


def test_without_a_face_the_middle_is_shown() -> None:
    picture = np.zeros((400, 1000, 3), np.uint8)
    picture[:, 300:700] = (0, 0, 255)
    thumb = _decoded(pictures.thumbnail(picture, None))
    assert (thumb[:, 4:-4, 2] > 240).all()
