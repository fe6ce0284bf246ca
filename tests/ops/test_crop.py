"""crop_rgb: conventions, parity with the reference, edges, errors."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap import geometry, ops
from rt_swap.errors import ContractError
from rt_swap.ops import reference
from tests.support.tolerance import CROP_ATOL, CROP_SMALL_ATOL
from tests.support.warp_cases import PLACES, noise_frame, placed

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

both = pytest.mark.parametrize(
    "crop_rgb", [ops.crop_rgb, reference.crop_rgb], ids=["native", "reference"]
)


def chw(frame_bgr: np.ndarray) -> np.ndarray:
    return frame_bgr[:, :, ::-1].transpose(2, 0, 1)[None] / np.float32(255)


@both
def test_crop_smoke_gives_rgb_planes_in_unit_range(crop_rgb, rng):
    frame = noise_frame(rng, 20, 30)
    crop = crop_rgb(frame, IDENTITY, 12)
    assert crop.shape == (1, 3, 12, 12)
    assert crop.dtype == np.float32
    np.testing.assert_allclose(crop, chw(frame[:12, :12]), atol=1e-7)


@both
def test_convention_shift_right_by_one_reads_the_next_column(crop_rgb, rng):
    frame = noise_frame(rng, 20, 30)
    shifted = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(crop_rgb(frame, shifted, 12), chw(frame[:12, 1:13]), atol=1e-7)


@both
def test_convention_shift_down_by_two_reads_the_second_next_row(crop_rgb, rng):
    frame = noise_frame(rng, 20, 30)
    shifted = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    np.testing.assert_allclose(crop_rgb(frame, shifted, 12), chw(frame[2:14, :12]), atol=1e-7)


@both
def test_convention_half_pixel_shift_averages_two_neighbours(crop_rgb):
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[:, 1] = 200
    shifted = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]])
    crop = crop_rgb(frame, shifted, 3) * 255
    np.testing.assert_allclose(crop[0, 0, 1], [100, 100, 0], atol=1e-4)


@both
def test_convention_quarter_turn_takes_the_crops_x_down_the_frame(crop_rgb, rng):
    frame = noise_frame(rng, 12, 12)
    # p_frame = (12 - y, x): the crop's first row is the frame's last column, read from the top
    turned = np.array([[0.0, -1.0, 12.0], [1.0, 0.0, 0.0]])
    crop = crop_rgb(frame, turned, 12)
    np.testing.assert_allclose(crop, chw(np.rot90(frame).copy()), atol=1e-6)
    np.testing.assert_allclose(crop[0, 2, 0], frame[:, 11, 0] / 255.0, atol=1e-6)


@both
def test_convention_halving_averages_blocks_of_four(crop_rgb, rng):
    frame = noise_frame(rng, 16, 16)
    crop = crop_rgb(frame, np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), 8)
    blocks = frame.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop, chw(blocks), atol=1e-6)


@both
def test_convention_doubling_places_centres_at_quarters(crop_rgb):
    frame = np.zeros((1, 2, 3), np.uint8)
    frame[0, 1] = 100
    crop = crop_rgb(frame, np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]), 4)
    # crop centres 0.5 1.5 2.5 3.5 are at 0.25 0.75 1.25 1.75 of the frame; its own centres are at
    # 0.5 and 1.5
    np.testing.assert_allclose(crop[0, 0, 0] * 255, [0, 25, 75, 100], atol=1e-4)


@both
def test_crop_agrees_with_opencv_through_to_cv2(crop_rgb, rng):
    cv2 = pytest.importorskip("cv2")
    frame = cv2.GaussianBlur(noise_frame(rng, 80, 90), (0, 0), 3)
    matrix = placed((43.2, 38.9), 1.2, 17.0, 31)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    by_cv2 = cv2.warpAffine(frame, geometry.to_cv2(matrix), (31, 31), flags=flags)
    # OpenCV rounds positions to 1/32 px and results to whole levels
    np.testing.assert_allclose(crop_rgb(frame, matrix, 31), chw(by_cv2), atol=2.5 / 255)


@pytest.mark.parity
@pytest.mark.parametrize("place", PLACES)
def test_parity_crop_native_reference(place, rng):
    (height, width), size_px, centre, scale, degrees = PLACES[place]
    frame = noise_frame(rng, height, width)
    matrix = placed(centre, scale, degrees, size_px)
    native = ops.crop_rgb(frame, matrix, size_px)
    expected = reference.crop_rgb(frame, matrix, size_px)
    atol = CROP_SMALL_ATOL if scale * size_px < 100 else CROP_ATOL
    np.testing.assert_allclose(native, expected, atol=atol, rtol=0)


@pytest.mark.parity
@pytest.mark.parametrize("scale", [1.49, 1.51, 2.49, 2.51, 6.3, 7.9, 8.6, 15.0])
def test_parity_crop_4k_face_does_not_alias(scale, rng):
    frame = noise_frame(rng, 2160, 3840)
    matrix = placed((2901.3, 1011.8), scale, 11.0, 96)
    native = ops.crop_rgb(frame, matrix, 96)
    np.testing.assert_allclose(
        native, reference.crop_rgb(frame, matrix, 96), atol=CROP_ATOL, rtol=0
    )
    # white noise has a deviation of 0.29; averaged over n x n pixels at least 1 / n of it goes
    assert native.std() < 1.2 * 0.29 / min(max(np.rint(scale), 1), 8)


@both
def test_crop_outside_repeats_the_edge(crop_rgb, rng):
    frame = noise_frame(rng, 9, 7)
    left = crop_rgb(frame, np.array([[1.0, 0.0, -50.0], [0.0, 1.0, 0.0]]), 9)
    np.testing.assert_allclose(left, chw(np.repeat(frame[:, :1], 9, axis=1)), atol=1e-7)
    corner = crop_rgb(frame, np.array([[1.0, 0.0, 90.0], [0.0, 1.0, 90.0]]), 2)
    np.testing.assert_allclose(corner, chw(np.broadcast_to(frame[8, 6], (2, 2, 3))), atol=1e-7)


@pytest.mark.parametrize("scale", [0.3, 1.0, *range(2, 12)])
def test_crop_of_white_is_exactly_one(scale):
    frame = np.full((90, 90, 3), 255, np.uint8)
    crop = ops.crop_rgb(frame, placed((45.1, 44.7), float(scale), 33.0, 16), 16)
    assert (crop == 1.0).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 1000])
def test_crop_is_the_same_with_any_number_of_threads(threads, rng):
    frame = noise_frame(rng, 301, 403)
    matrix = placed((200.0, 150.0), 2.3, 20.0, 127)
    expected = ops.crop_rgb(frame, matrix, 127, threads=0)
    np.testing.assert_array_equal(ops.crop_rgb(frame, matrix, 127, threads=threads), expected)


@both
def test_crop_writes_into_out_and_returns_it(crop_rgb, rng):
    frame = noise_frame(rng, 20, 30)
    out = np.full((1, 3, 12, 12), np.nan, np.float32)
    assert crop_rgb(frame, IDENTITY, 12, out=out) is out
    np.testing.assert_allclose(out, chw(frame[:12, :12]), atol=1e-7)


def test_crop_leaves_its_inputs_alone(rng):
    frame = noise_frame(rng, 20, 30)
    matrix = placed((10.0, 10.0), 1.2, 20.0, 12)
    frame_before, matrix_before = frame.copy(), matrix.copy()
    frame.flags.writeable = matrix.flags.writeable = False
    ops.crop_rgb(frame, matrix, 12)
    np.testing.assert_array_equal(frame, frame_before)
    np.testing.assert_array_equal(matrix, matrix_before)


def non_contiguous_views(canvas: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "cut_out": canvas[5:45, 7:60],
        "every_other_row": canvas[::2, :53],
        "rows_reversed": canvas[::-1],
        "columns_reversed": canvas[:, ::-1],
        "channels_reversed": canvas[:, :, ::-1],
        "transposed": canvas.transpose(1, 0, 2),
    }


@pytest.mark.parametrize("view", ["cut_out", "every_other_row", "rows_reversed", "columns_reversed",
                                  "channels_reversed", "transposed"])  # fmt: skip
def test_crop_of_non_contiguous_frame_equals_that_of_its_copy(view, rng):
    frame = non_contiguous_views(noise_frame(rng, 80, 70))[view]
    assert not frame.flags.c_contiguous
    matrix = placed((20.0, 20.0), 1.7, 30.0, 40)
    np.testing.assert_array_equal(
        ops.crop_rgb(frame, matrix, 40), ops.crop_rgb(frame.copy(), matrix, 40)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_crop_takes_matrices_of_other_number_types(dtype, rng):
    frame = noise_frame(rng, 20, 30)
    np.testing.assert_array_equal(
        ops.crop_rgb(frame, IDENTITY.astype(dtype), 12), ops.crop_rgb(frame, IDENTITY, 12)
    )


FRAME = np.zeros((8, 9, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (
            np.zeros((3, 8, 9), np.float32),
            r"crop_rgb: frame_bgr must be uint8 HWC with 3 channels, got float32 \(3",
        ),
        (np.zeros((8, 9), np.uint8), r"got uint8 \(8, 9\)"),
        (np.zeros((8, 9, 4), np.uint8), r"got uint8 \(8, 9, 4\)"),
        (np.zeros((0, 9, 3), np.uint8), r"pixels high and wide, got uint8 \(0, 9, 3\)"),
        ([[1, 2, 3]], "got list"),
    ],
)
def test_crop_rejects_what_is_no_frame(frame, match):
    with pytest.raises(ContractError, match=match):
        ops.crop_rgb(frame, IDENTITY, 12)


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (np.eye(3), r"M_frame_from_crop must be a \(2, 3\) array of numbers, got float64 \(3, 3\)"),
        (np.zeros((2, 3)), "must be finite and invertible, got determinant 0"),
        (np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]]), "invertible"),
        (np.array([[1.0, 0.0, np.nan], [0.0, 1.0, 0.0]]), "finite"),
        (np.array([[np.inf, 0.0, 0.0], [0.0, 1.0, 0.0]]), "finite"),
        (np.zeros((2, 3), np.complex128), "array of numbers"),
        (None, "got NoneType"),
    ],
)
def test_crop_rejects_a_bad_matrix(matrix, match):
    with pytest.raises(ContractError, match=match):
        ops.crop_rgb(FRAME, matrix, 12)


@pytest.mark.parametrize("size_px", [0, -3, 12.0, True, "12", 16385])
def test_crop_rejects_a_bad_size(size_px):
    with pytest.raises(ContractError, match=r"size_px must be a whole number in 1 \.\. 16384"):
        ops.crop_rgb(FRAME, IDENTITY, size_px)


@pytest.mark.parametrize("threads", [-1, 1.5, True, None])
def test_crop_rejects_a_bad_thread_count(threads):
    with pytest.raises(ContractError, match="threads must be a whole number"):
        ops.crop_rgb(FRAME, IDENTITY, 12, threads=threads)


def read_only() -> np.ndarray:
    out = np.zeros((1, 3, 12, 12), np.float32)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("out", "match"),
    [
        (np.zeros((1, 3, 11, 12), np.float32), r"out must be writable float32 \(1, 3, 12, 12\)"),
        (np.zeros((1, 3, 12, 12), np.float64), "got float64"),
        (np.zeros((1, 12, 12, 3), np.float32).transpose(0, 3, 1, 2), "C-contiguous"),
        (read_only(), "read-only"),
        ([], "got list"),
    ],
)
def test_crop_rejects_a_bad_out(out, match):
    with pytest.raises(ContractError, match=match):
        ops.crop_rgb(FRAME, IDENTITY, 12, out=out)
