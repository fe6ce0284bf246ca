from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from rt_swap import contract
from rt_swap.aus import NUM_AUS
from rt_swap.errors import ContractError, RtSwapError
from rt_swap.frames import Expression, FaceCrop, Frame, TrackedFace

S, K, D = contract.CROP_SIZE_PX, NUM_AUS, contract.TOKEN_DIM


def test_golden_contract():
    # changing any of these needs a new CONTRACT_VERSION: shipped graphs and caches depend on it
    assert contract.CONTRACT_VERSION == 2
    assert (S, K, D) == (256, 27, 16)
    assert {t.name: t.shape for t in contract.ENCODER_SPEC.inputs} == {
        "source_rgb": (1, 3, 256, 256)
    }
    assert {t.name: t.shape for t in contract.ENCODER_SPEC.outputs} == {
        "tokens": (1, 27, 16),
        "aus_lr": (1, 27, 2),
    }
    assert {t.name: t.shape for t in contract.GENERATOR_SPEC.inputs} == {
        "target_rgb": (1, 3, 256, 256),
        "landmarks_xy": (1, 478, 2),
        "source_tokens": (1, 27, 16),
        "base_tokens": (1, 27, 16),
        "gains": (1, 27),
        "relative": (1, 1),
    }
    assert {t.name: t.shape for t in contract.GENERATOR_SPEC.outputs} == {
        "flow_xy": (1, 2, 256, 256),
        "keep": (1, 1, 256, 256),
        "fill_rgb": (1, 3, 256, 256),
        "shade": (1, 1, 256, 256),
        "tokens": (1, 27, 16),
        "aus_lr": (1, 27, 2),
    }


def test_graphs_go_by_their_names():
    assert set(contract.GRAPHS) == {contract.ENCODER_NAME, contract.GENERATOR_NAME}
    for name, spec in contract.GRAPHS.items():
        assert spec.name == name
        names = [t.name for t in spec.inputs + spec.outputs]
        assert len(names) == len(set(names))
        for tensor in spec.inputs + spec.outputs:
            assert tensor.shape[0] == 1
            assert len(tensor.shape) <= 4


def test_every_output_has_a_parity_bound():
    outputs = {t.name for spec in contract.GRAPHS.values() for t in spec.outputs}
    assert outputs == set(contract.PARITY_ATOL_FP32)
    assert all(0 < bound <= 1e-2 for bound in contract.PARITY_ATOL_FP32.values())


def test_template_lies_in_the_crop_and_is_symmetric():
    points = contract.template_xy()
    assert points.shape == (len(contract.STABLE_LANDMARKS), 2)
    assert points.dtype == np.float64
    assert (points > 0).all()
    assert (points < S).all()
    by_index = dict(zip(contract.STABLE_LANDMARKS, points, strict=True))
    for right, left in ((33, 263), (133, 362)):
        np.testing.assert_allclose(by_index[right] + (0, 0), by_index[left] * (-1, 1) + (S, 0))
    for midline in (168, 6, 197, 195, 2):
        assert by_index[midline][0] == S / 2


def test_template_canthi_are_as_far_apart_as_the_contract_says():
    by_index = dict(zip(contract.STABLE_LANDMARKS, contract.template_xy(), strict=True))
    # the person's right eye is on the picture's left
    apart = by_index[263] - by_index[33]
    np.testing.assert_allclose(apart, [contract.TEMPLATE_CANTHAL_FRACTION * S, 0], atol=1e-9)
    middle = (by_index[263] + by_index[33]) / 2
    np.testing.assert_allclose(middle, np.array(contract.TEMPLATE_CENTRE_XY) * S)


def test_template_is_a_new_array_each_time():
    contract.template_xy()[:] = 0
    assert contract.template_xy().any()


def test_template_goes_down_the_nose():
    by_index = dict(zip(contract.STABLE_LANDMARKS, contract.template_xy(), strict=True))
    heights = [by_index[i][1] for i in (168, 6, 197, 195, 2)]
    assert heights == sorted(heights)
    assert math.isclose(by_index[33][1], contract.TEMPLATE_CENTRE_XY[1] * S)


def test_contract_error_carries_both_sides_and_is_a_value_error():
    error = ContractError("who: what", expected="a", actual="b")
    assert (error.expected, error.actual, str(error)) == ("a", "b", "who: what")
    assert isinstance(error, ValueError)
    assert isinstance(error, RtSwapError)


@pytest.mark.parametrize("kind", [Frame, TrackedFace, FaceCrop, Expression, contract.TensorSpec])
def test_what_crosses_a_seam_is_frozen(kind):
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen


def test_frame_time_is_exact_for_rational_rates():
    from fractions import Fraction

    frame = Frame(np.zeros((2, 2, 3), np.uint8), 30000 * 3600, Fraction(1, 30000))
    assert frame.time_s == 3600.0
