"""compose_bgr and feather: the identity, conventions, parity with the reference, edges, errors."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap import geometry, ops
from rt_swap.contract import FEATHER_FRACTION
from rt_swap.errors import ContractError
from rt_swap.ops import reference
from tests.support.tolerance import assert_compose_close
from tests.support.warp_cases import PLACES, noise_frame, placed, random_maps, still_maps

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

both = pytest.mark.parametrize(
    "compose_bgr", [ops.compose_bgr, reference.compose_bgr], ids=["native", "reference"]
)


def solid_weight(size_px: int) -> np.ndarray:
    return np.ones((size_px, size_px), np.float32)


# --- the promise: what is to be left alone is left alone, bit for bit -----------------------------
@both
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("with_shade", [True, False])
def test_compose_of_still_maps_is_the_input_bit_for_bit(compose_bgr, place, with_shade, rng):
    (height, width), size_px, centre, scale, degrees = PLACES[place]
    frame = noise_frame(rng, height, width)
    maps = still_maps(size_px, ops.feather(size_px))
    if not with_shade:
        maps = maps._replace(shade=None)
    matrix = geometry.invert(placed(centre, scale, degrees, size_px))
    np.testing.assert_array_equal(compose_bgr(frame, matrix, *maps), frame)


def test_compose_identity_needs_no_special_case(rng):
    # shade a hair off 1 keeps the fast path out, yet 255 * 1.0000001 and less still round to the
    # same level; so the blend itself, with any weight, must give back the frame
    size_px = 61
    frame = noise_frame(rng, 97, 131)
    maps = still_maps(size_px, rng.random((size_px, size_px), dtype=np.float32))
    maps.shade[...] = np.nextafter(np.float32(1), np.float32(2))
    out = ops.compose_bgr(frame, geometry.invert(placed((60.0, 50.0), 1.4, 33.0, size_px)), *maps)
    np.testing.assert_array_equal(out, frame)


def test_compose_changes_nothing_where_weight_is_zero(rng):
    size_px = 33
    frame = noise_frame(rng, 97, 131)
    maps = random_maps(rng, size_px, np.zeros((size_px, size_px), np.float32))
    out = ops.compose_bgr(frame, geometry.invert(placed((60.0, 50.0), 1.4, 33.0, size_px)), *maps)
    np.testing.assert_array_equal(out, frame)


def test_compose_changes_nothing_outside_the_crop(rng):
    size_px = 33
    frame = noise_frame(rng, 97, 131)
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, size_px))
    out = ops.compose_bgr(frame, matrix, *random_maps(rng, size_px, solid_weight(size_px)))
    x, y = np.meshgrid(np.arange(131) + 0.5, np.arange(97) + 0.5)
    q = geometry.apply(matrix, np.stack([x, y], -1))
    inside = ((q > -1e-3) & (q < size_px + 1e-3)).all(-1)
    np.testing.assert_array_equal(out[~inside], frame[~inside])
    assert (out[inside] != frame[inside]).any(-1).mean() > 0.9


# --- conventions ----------------------------------------------------------------------------------
@both
def test_convention_flow_of_one_right_fetches_the_next_column(compose_bgr, rng):
    frame = noise_frame(rng, 16, 16)
    maps = still_maps(16, solid_weight(16))
    maps.flow_xy[0, 0] = 1.0
    out = compose_bgr(frame, IDENTITY, *maps)
    np.testing.assert_array_equal(out[:, :-1], frame[:, 1:])
    np.testing.assert_array_equal(out[:, -1], frame[:, -1])


@both
def test_convention_flow_of_two_up_fetches_two_rows_above(compose_bgr, rng):
    frame = noise_frame(rng, 16, 16)
    maps = still_maps(16, solid_weight(16))
    maps.flow_xy[0, 1] = -2.0
    out = compose_bgr(frame, IDENTITY, *maps)
    np.testing.assert_array_equal(out[2:], frame[:-2])
    np.testing.assert_array_equal(out[:2], frame[[0, 0]])


@both
def test_convention_flow_is_in_crop_pixels(compose_bgr, rng):
    # a crop pixel is three frame pixels wide: a flow of 1 fetches from three to the right
    frame = noise_frame(rng, 24, 24)
    maps = still_maps(8, solid_weight(8))
    maps.flow_xy[0, 0] = 1.0
    out = compose_bgr(frame, np.array([[1 / 3, 0.0, 0.0], [0.0, 1 / 3, 0.0]]), *maps)
    np.testing.assert_array_equal(out[:, :-3], frame[:, 3:])


@both
def test_convention_flow_turns_with_the_crop(compose_bgr, rng):
    # p_frame = (16 - y, x): the crop's x axis points down the frame
    frame = noise_frame(rng, 16, 16)
    maps = still_maps(16, solid_weight(16))
    maps.flow_xy[0, 0] = 1.0
    matrix = geometry.invert(np.array([[0.0, -1.0, 16.0], [1.0, 0.0, 0.0]]))
    out = compose_bgr(frame, matrix, *maps)
    np.testing.assert_array_equal(out[:-1], frame[1:])


@both
def test_convention_maps_lie_where_the_crop_lies(compose_bgr, rng):
    # the crop covers columns 3 .. 6 and rows 2 .. 5; only its pixel [1, 2] is painted: frame pixel
    # [3, 5]
    frame = noise_frame(rng, 9, 11)
    maps = still_maps(4, solid_weight(4))
    maps.keep[0, 0, 1, 2] = 0.0
    maps.fill_rgb[0] = np.array([1.0, 0.2, 0.0])[:, None, None]
    out = compose_bgr(frame, np.array([[1.0, 0.0, -3.0], [0.0, 1.0, -2.0]]), *maps)
    expected = frame.copy()
    expected[3, 5] = (0, 51, 255)
    np.testing.assert_array_equal(out, expected)


@both
def test_convention_maps_are_sampled_bilinearly_at_pixel_centres(compose_bgr):
    # twice as many frame pixels as crop pixels: the frame's centres fall at quarters between the
    # crop's
    frame = np.zeros((2, 4, 3), np.uint8)
    maps = still_maps(2, solid_weight(2))
    maps.keep[...] = 0.0
    maps.fill_rgb[...] = np.array([0.0, 100 / 255], np.float32)
    out = compose_bgr(frame, np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]), *maps)
    np.testing.assert_array_equal(out[:, :, 0], [[0, 25, 75, 100]] * 2)


@both
def test_compose_formula_on_one_pixel(compose_bgr):
    # (1 - 0.5) 100 + 0.5 [ 0.75 clamp(2 * 150) + 0.25 * 0.4 * 255 ] with 150 fetched from the right
    frame = np.full((1, 2, 3), 100, np.uint8)
    frame[0, 1] = 150
    maps = still_maps(1, np.full((1, 1), 0.5, np.float32), fill=0.4)
    maps.flow_xy[0, 0] = 1.0
    maps.keep[...] = 0.75
    maps.shade[...] = 2.0
    out = compose_bgr(frame, IDENTITY, *maps)
    assert out[0, 0].tolist() == [round(50 + 0.5 * (0.75 * 255 + 0.25 * 102))] * 3
    np.testing.assert_array_equal(out[0, 1], frame[0, 1])


@both
@pytest.mark.parametrize(
    ("level", "expected"), [(1, 0), (3, 2), (5, 2), (7, 4), (251, 126), (253, 126), (255, 128)]
)
def test_compose_rounds_half_to_even(compose_bgr, level, expected):
    # half of an odd level over black: exact in float32, so this is really a tie
    frame = np.full((1, 1, 3), level, np.uint8)
    maps = still_maps(1, np.full((1, 1), 0.5, np.float32), fill=0.0)
    maps.keep[...] = 0.0
    assert compose_bgr(frame, IDENTITY, *maps)[0, 0].tolist() == [expected] * 3


@both
@pytest.mark.parametrize(
    ("shade", "fill", "keep", "expected"),
    [(9.0, 0.0, 1.0, 255), (-1.0, 0.0, 1.0, 0), (1.0, 3.0, 0.0, 255), (1.0, -3.0, 0.0, 0)],
)
def test_compose_clamps(compose_bgr, shade, fill, keep, expected):
    frame = np.full((1, 1, 3), 100, np.uint8)
    maps = still_maps(1, solid_weight(1), fill=fill)
    maps.shade[...] = shade
    maps.keep[...] = keep
    assert compose_bgr(frame, IDENTITY, *maps)[0, 0].tolist() == [expected] * 3


@both
def test_compose_clamps_the_shaded_pixel_before_it_mixes(compose_bgr):
    frame = np.full((1, 1, 3), 200, np.uint8)
    maps = still_maps(1, solid_weight(1), fill=0.0)
    maps.shade[...] = 2.0
    maps.keep[...] = 0.5
    assert compose_bgr(frame, IDENTITY, *maps)[0, 0, 0] in (127, 128)  # 0.5 * 255, not 0.5 * 400


# --- parity ---------------------------------------------------------------------------------------
@pytest.mark.parity
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("with_shade", [True, False])
def test_parity_compose_native_reference(place, with_shade, rng):
    (height, width), size_px, centre, scale, degrees = PLACES[place]
    frame = noise_frame(rng, height, width)
    maps = random_maps(rng, size_px, ops.feather(size_px))
    if not with_shade:
        maps = maps._replace(shade=None)
    matrix = geometry.invert(placed(centre, scale, degrees, size_px))
    assert_compose_close(
        ops.compose_bgr(frame, matrix, *maps), reference.compose_bgr(frame, matrix, *maps)
    )


@pytest.mark.parity
def test_parity_compose_4k(rng):
    frame = noise_frame(rng, 2160, 3840)
    maps = random_maps(rng, 64, ops.feather(64), flow_px=1.0)
    matrix = geometry.invert(placed((3301.3, 1611.8), 11.3, 17.0, 64))
    box = (3000, 1400, 3840, 2160)  # what the reference looks at is cut, for its sake
    native = ops.compose_bgr(frame, matrix, *maps, box_xyxy=box)
    x0, y0, x1, y1 = 2300, 1000, 3840, 2160
    moved = geometry.compose(matrix, np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]]))
    inner = (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0)
    expected = reference.compose_bgr(frame[y0:y1, x0:x1], moved, *maps, box_xyxy=inner)
    assert_compose_close(native[y0:y1, x0:x1], expected)
    untouched = np.ones(frame.shape[:2], bool)
    untouched[box[1] : box[3], box[0] : box[2]] = False
    np.testing.assert_array_equal(native[untouched], frame[untouched])


@pytest.mark.parity
def test_parity_compose_mirrored_and_sheared(rng):
    frame = noise_frame(rng, 60, 83)
    maps = random_maps(rng, 33, ops.feather(33))
    matrix = np.array([[-0.6, 0.21, 40.0], [0.1, 0.7, -9.0]])
    assert_compose_close(
        ops.compose_bgr(frame, matrix, *maps), reference.compose_bgr(frame, matrix, *maps)
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 1000])
def test_compose_is_the_same_with_any_number_of_threads(threads, rng):
    frame = noise_frame(rng, 301, 403)
    maps = random_maps(rng, 127, ops.feather(127))
    matrix = geometry.invert(placed((200.0, 150.0), 2.3, 20.0, 127))
    expected = ops.compose_bgr(frame, matrix, *maps, threads=0)
    np.testing.assert_array_equal(ops.compose_bgr(frame, matrix, *maps, threads=threads), expected)


# --- box, out, views ------------------------------------------------------------------------------
@both
@pytest.mark.parametrize("box", [(40, 30, 70, 60), (-10, -10, 60, 50), (50, 20, 500, 500)])
def test_compose_box_limits_what_changes(compose_bgr, box, rng):
    frame = noise_frame(rng, 97, 131)
    maps = random_maps(rng, 33, solid_weight(33))
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, 33))
    whole = compose_bgr(frame, matrix, *maps)
    x0, y0, x1, y1 = box
    rows, cols = slice(max(y0, 0), y1), slice(max(x0, 0), x1)
    expected = frame.copy()
    expected[rows, cols] = whole[rows, cols]
    np.testing.assert_array_equal(compose_bgr(frame, matrix, *maps, box_xyxy=box), expected)


@both
@pytest.mark.parametrize(
    "box", [(0, 0, 0, 0), (70, 60, 40, 30), (0, 0, 5, 5), (900, 900, 950, 950)]
)
def test_compose_empty_region_returns_a_new_copy(compose_bgr, box, rng):
    frame = noise_frame(rng, 97, 131)
    maps = random_maps(rng, 33, solid_weight(33))
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, 33))
    out = compose_bgr(frame, matrix, *maps, box_xyxy=box)
    np.testing.assert_array_equal(out, frame)
    assert not np.shares_memory(out, frame)


@both
def test_compose_writes_every_pixel_of_out_and_returns_it(compose_bgr, rng):
    frame = noise_frame(rng, 97, 131)
    maps = random_maps(rng, 33, ops.feather(33))
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, 33))
    out = noise_frame(rng, 97, 131)
    assert compose_bgr(frame, matrix, *maps, out_bgr=out) is out
    np.testing.assert_array_equal(out, compose_bgr(frame, matrix, *maps))


def test_compose_leaves_its_inputs_alone(rng):
    frame = noise_frame(rng, 97, 131)
    maps = random_maps(rng, 33, ops.feather(33))
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, 33))
    inputs = [frame, matrix, *maps]
    before = [a.copy() for a in inputs]
    ops.compose_bgr(*inputs)
    for now, then in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_compose_works_between_two_halves_of_one_canvas(rng):
    canvas = noise_frame(rng, 97, 262)
    frame, out = canvas[:, :131], canvas[:, 131:]
    maps = random_maps(rng, 33, ops.feather(33))
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, 33))
    expected = ops.compose_bgr(frame.copy(), matrix, *maps)
    ops.compose_bgr(frame, matrix, *maps, out_bgr=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("view", ["cut_out", "every_other_row", "rows_reversed", "columns_reversed",
                                  "channels_reversed", "transposed"])  # fmt: skip
def test_compose_of_non_contiguous_frame_equals_that_of_its_copy(view, rng):
    canvas = noise_frame(rng, 97, 131)
    frame = {
        "cut_out": canvas[5:85, 7:120],
        "every_other_row": canvas[::2, :53],
        "rows_reversed": canvas[::-1],
        "columns_reversed": canvas[:, ::-1],
        "channels_reversed": canvas[:, :, ::-1],
        "transposed": canvas.transpose(1, 0, 2),
    }[view]
    maps = random_maps(rng, 33, ops.feather(33))
    matrix = geometry.invert(placed((40.0, 30.0), 1.4, 33.0, 33))
    np.testing.assert_array_equal(
        ops.compose_bgr(frame, matrix, *maps), ops.compose_bgr(frame.copy(), matrix, *maps)
    )


def test_compose_of_non_contiguous_maps_equals_that_of_their_copies(rng):
    frame = noise_frame(rng, 97, 131)
    maps = random_maps(rng, 33, ops.feather(33))
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, 33))
    turned = [np.ascontiguousarray(m.swapaxes(-1, -2)).swapaxes(-1, -2) for m in maps]
    assert not any(m.flags.c_contiguous for m in turned)
    np.testing.assert_array_equal(
        ops.compose_bgr(frame, matrix, *turned), ops.compose_bgr(frame, matrix, *maps)
    )


# --- numbers that are none ------------------------------------------------------------------------
@both
@pytest.mark.parametrize("name", ["flow_xy", "keep", "fill_rgb", "shade", "weight"])
def test_compose_leaves_pixels_whose_instructions_are_nan(compose_bgr, name, rng):
    frame = noise_frame(rng, 97, 131)
    maps = random_maps(rng, 33, solid_weight(33))
    getattr(maps, name)[...] = np.nan
    matrix = geometry.invert(placed((60.0, 50.0), 1.4, 33.0, 33))
    np.testing.assert_array_equal(compose_bgr(frame, matrix, *maps), frame)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38, -3e38, 1e12, 5e8])
def test_compose_survives_endless_flow(value, rng):
    frame = noise_frame(rng, 97, 131)
    maps = still_maps(33, solid_weight(33))
    maps.flow_xy[0, 0] = value
    matrix = geometry.invert(placed((60.0, 50.0), 1.0, 0.0, 33))
    out = ops.compose_bgr(frame, matrix, *maps)
    assert out.shape == frame.shape
    if np.isfinite(value) and abs(value) < 1e30:
        np.testing.assert_array_equal(out[50, 50], frame[50, 130 if value > 0 else 0])


# --- errors ---------------------------------------------------------------------------------------
def arguments(**changed):
    maps = still_maps(5, solid_weight(5))
    given = {
        "frame_bgr": np.zeros((8, 9, 3), np.uint8),
        "M_crop_from_frame": IDENTITY,
        **maps._asdict(),
    }
    return {**given, **changed}


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (
            {"frame_bgr": np.zeros((3, 8, 9), np.float32)},
            "compose_bgr: frame_bgr must be uint8 HWC with 3 channels, got f",
        ),
        (
            {"M_crop_from_frame": np.zeros((2, 3))},
            "M_crop_from_frame must be finite and invertible",
        ),
        ({"M_crop_from_frame": np.eye(2)}, r"M_crop_from_frame must be a \(2, 3\) array"),
        (
            {"flow_xy": np.zeros((1, 2, 5, 4), np.float32)},
            r"flow_xy must be float32 \(1, 2, 5, 5\), got float32 \(1, 2, 5, 4",
        ),
        ({"flow_xy": np.zeros((1, 5, 5, 2), np.float32)}, "flow_xy must be float32"),
        ({"keep": np.zeros((1, 1, 5, 5), np.float64)}, "keep must be float32 .* got float64"),
        ({"fill_rgb": np.zeros((1, 1, 5, 5), np.float32)}, "fill_rgb must be float32"),
        ({"shade": np.zeros((5, 5), np.float32)}, "shade must be float32"),
        (
            {"weight": np.zeros((5, 4), np.float32)},
            r"weight must be float32 \(S, S\), got float32 \(5, 4\)",
        ),
        ({"weight": np.zeros((0, 0), np.float32)}, "weight must be float32"),
        ({"weight": None}, "weight must be float32 .* got NoneType"),
        ({"box_xyxy": (1, 2, 3)}, "box_xyxy must be four whole numbers"),
        ({"box_xyxy": (1, 2, 3, 4.5)}, "box_xyxy must be four whole numbers"),
        ({"out_bgr": np.zeros((9, 8, 3), np.uint8)}, r"out_bgr must be writable uint8 \(8, 9, 3\)"),
        ({"out_bgr": np.zeros((8, 9, 3), np.float32)}, "out_bgr must be writable uint8"),
        (
            {"out_bgr": np.zeros((9, 8, 3), np.uint8).transpose(1, 0, 2)},
            "out_bgr must be packed BGR rows",
        ),
        ({"threads": -1}, "threads must be a whole number"),
    ],
)
def test_compose_rejects_bad_arguments(changed, match):
    with pytest.raises(ContractError, match=match):
        ops.compose_bgr(**arguments(**changed))


def test_compose_rejects_a_read_only_out():
    out = np.zeros((8, 9, 3), np.uint8)
    out.flags.writeable = False
    with pytest.raises(ContractError, match="read-only"):
        ops.compose_bgr(**arguments(out_bgr=out))


@pytest.mark.parametrize("shift", [0, 1])
def test_compose_rejects_an_out_that_shares_the_frames_memory(shift):
    canvas = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ContractError, match="must not share memory with frame_bgr"):
        ops.compose_bgr(**arguments(frame_bgr=canvas[:8], out_bgr=canvas[shift : 8 + shift]))


def test_contract_error_carries_expected_and_actual():
    with pytest.raises(ContractError) as caught:
        ops.compose_bgr(**arguments(keep=np.zeros((1, 2, 5, 5), np.float32)))
    assert caught.value.expected == "float32 (1, 1, 5, 5)"
    assert caught.value.actual == "float32 (1, 2, 5, 5)"


# --- feather --------------------------------------------------------------------------------------
@pytest.mark.parametrize("size_px", [1, 2, 3, 20, 33, 256])
@pytest.mark.parametrize("fraction", [0.01, FEATHER_FRACTION, 0.5])
def test_parity_feather_native_reference(size_px, fraction):
    np.testing.assert_allclose(
        ops.feather(size_px, fraction), reference.feather(size_px, fraction), atol=1e-7
    )


def test_feather_is_zero_on_the_edge_one_inside_and_monotonous():
    weight = ops.feather(256)
    assert weight.shape == (256, 256)
    assert weight.dtype == np.float32
    for edge in (weight[0], weight[-1], weight[:, 0], weight[:, -1]):
        assert (edge == 0).all()
    ramp = weight[128, :14]
    assert (np.diff(ramp) > 0).all()
    assert (weight[14:-14, 14:-14] == 1).all()
    np.testing.assert_array_equal(weight, weight[::-1, ::-1])


def test_golden_feather_smoothstep():
    # t = k / (0.1 * 20); [t * t * (3 - 2 * t) for t in (0, 0.5, 1)]
    np.testing.assert_allclose(ops.feather(20, 0.1)[10, :4], [0.0, 0.5, 1.0, 1.0])


def test_feather_is_shared_and_read_only():
    weight = ops.feather(64)
    assert ops.feather(64) is weight
    with pytest.raises(ValueError, match="read-only"):
        weight[0, 0] = 1


@pytest.mark.parametrize(
    ("size_px", "fraction", "match"),
    [
        (0, 0.1, "size_px"),
        (8, 0.0, "fraction"),
        (8, 0.6, "fraction"),
        (8, float("nan"), "fraction"),
    ],
)
def test_feather_rejects_bad_arguments(size_px, fraction, match):
    with pytest.raises(ContractError, match=match):
        ops.feather(size_px, fraction)
