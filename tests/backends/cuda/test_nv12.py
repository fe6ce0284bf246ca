"""NV12 frames on the emulated GPU against the NumPy reference, and the colours' numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rt_swap import geometry, ops
from rt_swap.backends.cuda.colour import Colour
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import U8
from rt_swap.ops import reference
from tests.support.fake_gpu import EmulatedBackend, fatbin_for
from tests.support.gpu_specs import generator_like
from tests.support.tolerance import CROP_ATOL, assert_compose_close
from tests.support.warp_cases import PLACES, Maps, placed, random_maps, still_maps

pytest.importorskip("rt_swap._warp", reason="needs the native module (make ext)")

EVEN = ["inside", "rotated", "upside_down", "over_left", "over_corner", "outside", "shrunk_5"]


def noise_nv12(rng: np.random.Generator, height: int, width: int) -> U8:
    return rng.integers(0, 256, (height * 3 // 2, width), dtype=np.uint8)


def swap(folder: Path, frame: U8, matrix, maps: Maps, colour: Colour) -> tuple[U8, np.ndarray]:
    """The whole composed frame, and the crop that the engine saw."""
    seen: list[np.ndarray] = []

    def answer(inputs):
        seen.append(inputs["target_rgb"].copy())
        names = ("flow_xy", "keep", "fill_rgb", "shade")
        return dict(zip(names, maps, strict=False))

    made = EmulatedBackend(fatbin_for(folder / "k.fatbin"), pixels="nv12", colour=colour)
    made.function = answer
    path = folder / "target_generator.onnx"
    path.write_bytes(b"any")
    gains = {"gains": np.ones((1, 5), np.float32)}
    with made.backend.load(path, generator_like(maps.weight.shape[0]), 0) as session:
        composed = session.swap(frame, matrix, gains)
        out = frame.copy()
        x0, y0, x1, y1 = composed.box_xyxy
        rows, height = y1 - y0, frame.shape[0] // 3 * 2
        out[y0:y1, x0:x1] = composed.roi_bgr[:rows]
        out[height + y0 // 2 : height + y1 // 2, x0:x1] = composed.roi_bgr[rows:]
        composed.release()
    return out, seen[-1]


@pytest.mark.parity
@pytest.mark.parametrize("place", EVEN)
@pytest.mark.parametrize(
    "colour", [Colour(), Colour("bt601", full_range=True, siting="centre")], ids=["hd", "jpeg"]
)
def test_parity_nv12_emulated_gpu_reference(place, colour, rng, tmp_path):
    (height, width), size_px, centre, scale, degrees = PLACES[place]
    height, width = height // 2 * 2, width // 2 * 2
    frame = noise_nv12(rng, height, width)
    matrix = geometry.invert(placed(centre, scale, degrees, size_px))
    maps = random_maps(rng, size_px, ops.feather(size_px))
    out, crop = swap(tmp_path, frame, matrix, maps, colour)
    numbers = colour.numbers()
    expected = reference.crop_rgb_nv12(frame, geometry.invert(matrix), size_px, numbers)
    # conversion multiplies luma's error by up to 1.2 and chroma's by up to 2.1
    np.testing.assert_allclose(crop, expected, atol=3 * CROP_ATOL)
    assert_compose_close(out, reference.compose_nv12(frame, matrix, *maps, numbers))


def test_nv12_still_instructions_give_the_frame_bit_for_bit(rng, tmp_path):
    frame = noise_nv12(rng, 96, 130)
    matrix = geometry.invert(placed((60.0, 50.0), 1.7, 33.0, 33))
    out, _ = swap(tmp_path, frame, matrix, still_maps(33, ops.feather(33)), Colour())
    np.testing.assert_array_equal(out, frame)


def test_nv12_of_odd_size_is_refused(rng, tmp_path):
    maps = still_maps(33, ops.feather(33))
    with pytest.raises(ContractError, match="even width and height, got 131 x 96"):
        swap(tmp_path, noise_nv12(rng, 96, 131), np.eye(3)[:2], maps, Colour())
    with pytest.raises(ContractError, match=r"frame must be uint8 \(H \* 3 / 2, W\), NV12"):
        swap(tmp_path, np.zeros((96, 130, 3), np.uint8), np.eye(3)[:2], maps, Colour())


def test_convention_nv12_flow_of_two_pixels_moves_luma_by_two_and_chroma_by_one(tmp_path):
    frame = np.full((96 * 3 // 2, 130), 128, np.uint8)
    frame[40, 60] = 250  # one luma pixel
    frame[96 + 20, 60] = 20  # Cb of the sample under columns 60 and 61, rows 40 and 41
    maps = still_maps(33, np.ones((33, 33), np.float32))
    maps.flow_xy[0, 0] = 2.0  # fetched from the right: everything moves left
    matrix = geometry.invert(placed((60.0, 40.0), 1.0, 0.0, 33))
    out, _ = swap(tmp_path, frame, matrix, maps, Colour())
    assert np.argwhere(out[:96] == 250).tolist() == [[40, 58]]
    assert np.argwhere(out[96:] == 20).tolist() == [[20, 58]]


# ITU-R BT.709-6, 8-bit video range: white, black, and the 100 % primaries
# red: Y = 16 + 219 * 0.2126 = 62.6, Cr = 240; blue: Y = 16 + 219 * 0.0722 = 31.8, Cb = 240
@pytest.mark.golden
@pytest.mark.parametrize(
    ("yuv", "bgr"),
    [
        ((235.0, 128.0, 128.0), (255.0, 255.0, 255.0)),
        ((16.0, 128.0, 128.0), (0.0, 0.0, 0.0)),
        ((62.5594, 102.3358, 240.0), (0.0, 0.0, 255.0)),
        ((31.8118, 240.0, 117.7303), (255.0, 0.0, 0.0)),
    ],
)
def test_golden_bt709_video_range(yuv, bgr):
    n = Colour().numbers()
    y, u, v = (yuv[0] - n[0]) * n[2], yuv[1] - n[1], yuv[2] - n[1]
    made = (y + n[6] * u, y + n[4] * u + n[5] * v, y + n[3] * v)
    np.testing.assert_allclose(made, bgr, atol=1e-2)
    back = np.array(n[7:16]).reshape(3, 3) @ np.array(bgr) + np.array([n[0], n[1], n[1]])
    np.testing.assert_allclose(back, yuv, atol=1e-2)


@pytest.mark.parametrize("wrong", [{"matrix": "bt2020"}, {"siting": "top"}])
def test_unknown_colours_are_refused(wrong):
    with pytest.raises(ConfigError, match="must be one of"):
        Colour(**wrong)
