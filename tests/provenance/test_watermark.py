"""The mark in the pixels: it stays in the face, it is read back, it survives a call, and it is not
seen where it is not.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import cv2
import numpy as np
import pytest

from rt_swap import geometry
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import F64, U8
from rt_swap.provenance import watermark
from rt_swap.provenance.watermark import DETECTION_SCORE, Detector, Embedder, Payload
from tests.support.faces import similarity

astronaut = pytest.importorskip("skimage.data", reason="needs scikit-image").astronaut
PAYLOAD = Payload(0x9F3)
# where the astronaut's face lies: middle and side of the aligned crop
FACE = (224.0, 128.7, 158.0)


def filmed(count: int, height: int = 720) -> tuple[list[U8], list[F64]]:
    """The portrait at a height, drifting and turning a little, and M_crop_from_frame of each."""
    portrait = np.ascontiguousarray(astronaut()[..., ::-1])
    scale = height / 512
    wide = round(height * 16 / 9)
    pictures, crops = [], []
    for t in range(count):
        angle = np.radians(2.0 * np.sin(0.21 * t))
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array([wide / 2 + 9 * np.sin(0.13 * t), 0.42 * height + 4 * np.cos(0.17 * t)])
        M = np.concatenate([linear, (middle - linear @ np.array(FACE[:2]))[:, None]], 1)
        size = (wide, height)
        pictures.append(
            cv2.warpAffine(portrait, geometry.to_cv2(M), size, borderMode=cv2.BORDER_REPLICATE)
        )
        M_portrait_from_crop = similarity(*FACE, 0.0)
        crops.append(geometry.invert(geometry.compose(M, M_portrait_from_crop)))
    return pictures, crops


def marked(pictures: Sequence[U8], crops: Sequence[F64], **options: float) -> list[U8]:
    embedder = Embedder(PAYLOAD, threads=1, **options)  # type: ignore[arg-type]
    out = [picture.copy() for picture in pictures]
    for picture, M in zip(out, crops, strict=True):
        embedder.write(picture, M)
    return out


def seen(pictures: Sequence[U8], crops: Sequence[F64]) -> watermark.Detection:
    detector = Detector(threads=1)
    for picture, M in zip(pictures, crops, strict=True):
        detector.see(picture, M)
    return detector.result()


def called(pictures: Sequence[U8], kbit_s: int) -> list[U8]:
    """Through H.264 as a call sends it: no look-ahead, one key frame, a hard limit on the rate."""
    height, width = pictures[0].shape[:2]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = kbit_s * 1000
        stream.options = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "maxrate": f"{kbit_s}k",
            "bufsize": f"{kbit_s}k",
            "g": "300",
            "threads": "1",
        }
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    assert file.tell() * 8 * 30 / len(pictures) < 1300 * kbit_s  # it did have to save
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def rescaled(
    pictures: Sequence[U8], crops: Sequence[F64], height: int
) -> tuple[list[U8], list[F64]]:
    before = pictures[0].shape[0]
    scale = height / before
    size = (round(pictures[0].shape[1] * scale) // 2 * 2, height)
    ratio = size[0] / pictures[0].shape[1]
    back = np.array([[1 / ratio, 0, 0], [0, 1 / scale, 0.0]])
    return (
        [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures],
        [geometry.compose(M, back) for M in crops],
    )


def test_one_picture_is_enough_where_nothing_is_lost() -> None:
    pictures, crops = filmed(1)
    found = seen(marked(pictures, crops), crops)
    assert found.found
    assert found.payload == PAYLOAD
    assert found.payload.model_text == "9f3"
    assert not seen(pictures, crops).found


def test_nothing_outside_the_crop_changes_and_little_inside() -> None:
    pictures, crops = filmed(1)
    (out,) = marked(pictures, crops)
    changed = (out != pictures[0]).any(axis=2)
    corners = geometry.apply(
        geometry.invert(crops[0]), np.array([[0, 0], [256, 0], [256, 256], [0, 256.0]])
    )
    inside = np.zeros(changed.shape, np.uint8)
    cv2.fillConvexPoly(inside, np.round(corners).astype(np.int32), 1)
    inside = cv2.dilate(inside, np.ones((3, 3)))
    assert changed.any()
    assert not (changed & (inside == 0)).any()
    difference = (out.astype(int) - pictures[0])[changed]
    assert np.sqrt(np.mean(np.square(difference))) < 6
    assert np.abs(difference).max() <= 30


@pytest.mark.parametrize(("height", "kbit_s"), [(720, 1000), (480, 600)])
def test_mark_survives_a_call(height: int, kbit_s: int) -> None:
    pictures, crops = filmed(30)
    sent, where = rescaled(marked(pictures, crops), crops, height)
    found = seen(called(sent, kbit_s), where)
    assert found.found, found
    assert found.payload == PAYLOAD


def test_mark_survives_wrong_alignment_and_jpeg() -> None:
    pictures, crops = filmed(1)
    (out,) = marked(pictures, crops)
    kept = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1)
    for x, y, angle, scale in ((3, -2, 0.0, 1.0), (-2, 2, 0.02, 1.015), (1, 3, -0.02, 0.985)):
        wrong = np.array(
            [
                [scale * np.cos(angle), -scale * np.sin(angle), x],
                [scale * np.sin(angle), scale * np.cos(angle), y],
            ]
        )
        middle = np.array([[1, 0, CROP_SIZE_PX / 2], [0, 1, CROP_SIZE_PX / 2.0]])
        about = geometry.compose(middle, geometry.compose(wrong, geometry.invert(middle)))
        found = seen([kept], [geometry.compose(about, crops[0])])
        assert found.found, (x, y, angle, scale, found)
        assert found.payload == PAYLOAD


def test_unmarked_portraits_stay_far_below(rng: np.random.Generator) -> None:
    from skimage.data import lfw_subset

    worst = 0.0
    for face in lfw_subset()[:12]:  # 25 x 25 grey, in [0, 1]: blurred faces of twelve people
        big = cv2.resize((255 * face).astype(np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(big + rng.normal(0, 4, big.shape), 0, 255).astype(np.uint8)
        crop = np.eye(2, 3)
        worst = max(worst, seen([cv2.cvtColor(noisy, cv2.COLOR_GRAY2BGR)], [crop]).score)
    assert worst < DETECTION_SCORE - 1


def test_another_key_sees_nothing() -> None:
    pictures, crops = filmed(1)
    (out,) = marked(pictures, crops)
    detector = Detector(key=b"another", threads=1)
    detector.see(out, crops[0])
    assert not detector.result().found


@pytest.mark.golden
def test_golden_carriers_never_change() -> None:
    # made by: python -c "from rt_swap.provenance import watermark as w; import hashlib;
    #   c = w._carriers(w.KEY); print(len(c.rows), hashlib.sha256(c.group.astype('<i8').tobytes() +
    #   c.signs.astype('<f4').tobytes()).hexdigest()[:16])"
    import hashlib

    carriers = watermark._carriers(watermark.KEY)
    data = carriers.group.astype("<i8").tobytes() + carriers.signs.astype("<f4").tobytes()
    assert (len(carriers.rows), hashlib.sha256(data).hexdigest()[:16]) == GOLDEN


GOLDEN = (1737, "5270ed0d0e410b83")


def test_code_has_distance_eight() -> None:
    words = watermark._words(5)
    assert words.shape == (4096, 32)
    apart = (32 - words @ words.T) / 2
    np.fill_diagonal(apart, 32)
    assert apart.min() == 8


def test_frames_without_room_are_left_alone() -> None:
    picture = np.full((48, 64, 3), 80, np.uint8)
    far = similarity(5000, 5000, 40, 0.0)
    Embedder(PAYLOAD, threads=1).write(picture, geometry.invert(far))
    assert (picture == 80).all()


def test_wrong_use_is_told() -> None:
    with pytest.raises(ConfigError, match=r"strength must be from 0\.2 to 4"):
        Embedder(PAYLOAD, strength=20)
    with pytest.raises(ConfigError, match="model must be under 4096"):
        Payload(4096)
    with pytest.raises(ContractError, match="no picture was seen"):
        Detector().result()
    picture = np.zeros((8, 8, 3), np.uint8)
    picture.flags.writeable = False
    with pytest.raises(ContractError, match="read-only"):
        Embedder(PAYLOAD).write(picture, np.eye(2, 3))
