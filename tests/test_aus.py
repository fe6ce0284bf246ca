from __future__ import annotations

import numpy as np
import pytest

from rt_swap.aus import (
    AU_NAMES,
    AUS,
    NUM_AUS,
    OPENFACE_AUS,
    REGIONS,
    UNMAPPED_SHAPES,
    AuId,
    derived_aus,
    region_mask,
)
from tests.support.data import shared_data_dir


def all_shapes():
    return [s for au in AUS for s in dict.fromkeys(au.shapes_left + au.shapes_right)]


def test_every_id_has_one_token_in_order():
    assert len(AUS) == len(AuId) == NUM_AUS == len(AU_NAMES)
    assert [au.id.index for au in AUS] == list(range(NUM_AUS))
    assert [au.id.name for au in AUS] == list(AU_NAMES)
    assert {au.id for au in AUS} == set(AuId)


def test_golden_order():
    # tokens of shipped models and saved expressions are in this order; append, never insert
    assert AU_NAMES == (
        "AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15", "AU16",
        "AU17", "AU18", "AU20", "AU22", "AU24", "AU26", "AU28", "AU29", "AU30", "AU33", "AU45",
        "AU61", "AU62", "AU63", "AU64",
    )  # fmt: skip


def test_the_value_is_the_facs_number_and_not_the_index():
    assert AuId.AU12 == 12
    assert AuId.AU12.index == 8


def test_sides_mirror_each_other():
    for au in AUS:
        assert au.shapes_left
        assert au.is_midline == (au.shapes_left == au.shapes_right)
        if au.region == "gaze" or au.id is AuId.AU30:
            continue
        swapped = tuple(s[:-2] + "_R" if s.endswith("_L") else s for s in au.shapes_left)
        assert swapped == au.shapes_right


def test_midline_units_are_those_with_one_muscle_or_both_eyes():
    midline = {au.id.name for au in AUS if au.is_midline}
    assert midline == {
        "AU17", "AU18", "AU22", "AU26", "AU28", "AU29", "AU61", "AU62", "AU63", "AU64",
    }  # fmt: skip


def test_no_shape_belongs_to_two_units():
    shapes = all_shapes()
    assert len(shapes) == len(set(shapes))
    assert not set(shapes) & set(UNMAPPED_SHAPES)


def test_shapes_are_exactly_those_of_the_model():
    with np.load(shared_data_dir("ict_facekit", "ict_facekit_light.npz")) as model:
        names = {str(name) for name in model["expression_names"]}
    assert set(all_shapes()) | set(UNMAPPED_SHAPES) == names


def test_openface_units_are_all_covered():
    own = {int(au.id) for au in AUS}
    derived = {int(name[2:]) for name in derived_aus(np.zeros(NUM_AUS, np.float32))}
    assert set(OPENFACE_AUS) <= own | derived
    assert {18, 22, 24, 28} <= own  # speech


def test_region_masks_partition_the_units():
    masks = np.array([region_mask(region) for region in REGIONS])
    assert masks.shape == (len(REGIONS), NUM_AUS)
    np.testing.assert_array_equal(masks.sum(0), 1)
    assert region_mask("brows").tolist()[:3] == [True] * 3
    assert region_mask("brows").sum() == 3


def test_region_mask_unknown_is_refused_with_the_choice():
    with pytest.raises(KeyError, match="brows, eyes"):
        region_mask("forehead")


@pytest.mark.parametrize(
    ("au", "value", "au23", "au25"),
    [
        (AuId.AU24, 0.6, 0.6, 0.0),
        (AuId.AU28, 0.5, 0.5, 0.0),
        (AuId.AU26, 0.7, 0.0, 0.7),
        (AuId.AU10, 0.4, 0.0, 0.4),
        (AuId.AU16, 0.3, 0.0, 0.3),
        (AuId.AU22, 0.8, 0.0, 0.4),
        (AuId.AU12, 1.0, 0.0, 0.0),
    ],
)
def test_derived_aus_from_one_cause(au, value, au23, au25):
    aus = np.zeros((2, NUM_AUS), np.float32)
    aus[1, au.index] = value
    got = derived_aus(aus)
    assert got["AU23"].dtype == got["AU25"].dtype == np.float32
    np.testing.assert_allclose(got["AU23"], [0, au23])
    np.testing.assert_allclose(got["AU25"], [0, au25])


def test_derived_aus_stay_in_range():
    got = derived_aus(np.ones((3, 4, NUM_AUS), np.float32))
    for values in got.values():
        assert values.shape == (3, 4)
        assert values.max() == 1.0
