from __future__ import annotations

import numpy as np
import pytest

from rt_swap.tracking import CutDetector
from tests.support.data import shared_data_dir
from tests.support.faces import clip_frames


def scene(rng, hw=(240, 320)):
    blocks = rng.integers(0, 256, (hw[0] // 20, hw[1] // 20, 3))
    return np.kron(blocks, np.ones((20, 20, 1))).astype(np.uint8)


def test_cut_between_scenes_and_back(rng):
    one, other = scene(rng), scene(rng)
    cuts = CutDetector()
    assert [cuts.update(f) for f in (one, one, other, other, one)] == [
        False, False, True, False, True,
    ]  # fmt: skip


def test_no_cut_where_only_the_light_changes(rng):
    picture = scene(rng)
    cuts = CutDetector()
    cuts.update(picture)
    assert not cuts.update((picture * 0.5).astype(np.uint8))
    assert not cuts.update(np.minimum(picture.astype(int) + 60, 255).astype(np.uint8))


def test_cut_to_and_from_black(rng):
    black = np.zeros((240, 320, 3), np.uint8)
    cuts = CutDetector()
    assert [cuts.update(f) for f in (scene(rng), black, black, scene(rng))] == [
        False, True, False, True,
    ]  # fmt: skip


def test_cut_over_a_change_of_size(rng):
    picture = scene(rng)
    cuts = CutDetector()
    cuts.update(picture)
    assert not cuts.update(np.kron(picture, np.ones((2, 2, 1), np.uint8)))


def test_reset_forgets(rng):
    cuts = CutDetector()
    cuts.update(scene(rng))
    cuts.reset()
    assert not cuts.update(scene(rng))


@pytest.mark.parametrize("hw", [(1, 1), (16, 16), (3, 500)])
def test_tiny_pictures(hw):
    cuts = CutDetector()
    assert not cuts.update(np.zeros((*hw, 3), np.uint8))
    assert not cuts.update(np.zeros((*hw, 3), np.uint8))


def test_real_clips_have_no_cut_inside_and_one_between():
    names = [
        "face-demographics-walking-and-pause.gif",
        "help.mkv",
        "head-pose-face-detection-female-and-male.gif",
        "yes.mkv",
        "head-pose-face-detection-male.gif",
    ]
    cuts = CutDetector()
    found = []
    for name in names:
        frames = clip_frames(shared_data_dir("clips", name))
        found.append([i for i, frame in enumerate(frames) if cuts.update(frame.frame_bgr)])
    assert found == [[], [0], [0], [0], [0]]
