"""Encoding: which face, where it is cut, what is copied, and what a clip without a face gets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rt_swap import geometry
from rt_swap.aus import NUM_AUS
from rt_swap.backends import Session, get_backend
from rt_swap.contract import CROP_SIZE_PX, ENCODER_SPEC, STABLE_LANDMARKS, TOKEN_DIM, template_xy
from rt_swap.errors import ConfigError, ContractError, NoFaceError, SourceError
from rt_swap.expression import encode_face, encode_frames, encode_picture, find_faces
from rt_swap.frames import F32, F64, U8, FaceCrop, Frame, TrackedFace, TrackState
from tests.support.tiny_model import tiny_bundle

MODEL = "a" * 64


def face_at(x: float, y: float, scale: float, track_id: int = 0) -> TrackedFace:
    """A face whose aligned crop is a plain square of the frame: side 256 * scale, corner (x, y)."""
    landmarks = np.random.default_rng(0).uniform(0.3, 0.7, (478, 2)) * CROP_SIZE_PX
    landmarks[list(STABLE_LANDMARKS)] = template_xy()
    return TrackedFace(landmarks * scale + [x, y], np.zeros(478), 0.9, track_id)


class FakeTracker:
    """Finds given faces, in pictures of given sizes only."""

    def __init__(
        self, faces: list[TrackedFace], only_size_hw: tuple[int, int] | None = None
    ) -> None:
        self.faces = faces
        self.only_size_hw = only_size_hw
        self.seen: list[U8] = []

    def detect(self, frame_bgr: U8) -> list[TrackedFace]:
        self.seen.append(frame_bgr)
        if self.only_size_hw is not None and frame_bgr.shape[:2] != self.only_size_hw:
            return []
        return self.faces


class MeanEncoder:
    """Every token number is the mean green of the crop; reuses its outputs, as sessions may."""

    def __init__(self) -> None:
        self.outputs = {
            "tokens": np.zeros((1, NUM_AUS, TOKEN_DIM), np.float32),
            "aus_lr": np.zeros((1, NUM_AUS, 2), np.float32),
        }
        self.crops: list[F32] = []

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        (rgb,) = inputs.values()
        self.crops.append(rgb.copy())
        self.outputs["tokens"].fill(rgb[0, 1].mean())
        self.outputs["aus_lr"].fill(rgb[0, 0].mean())
        return self.outputs


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundle"))
    path = bundle / "expression_encoder.onnx"
    with get_backend("onnxruntime").load(path, ENCODER_SPEC, threads=1) as loaded:
        yield loaded


def noise(height: int, width: int, seed: int = 0) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(
    picture: U8, tracker: FakeTracker, face: str | int = "largest", encoder: object = None
) -> F32:
    used = MeanEncoder() if encoder is None else encoder
    made = encode_picture(picture, used, tracker, face, name="p.jpg", model_sha256=MODEL)  # type: ignore[arg-type]
    return made.tokens


# --- pictures ---
def test_picture_is_cut_at_the_face_and_turned_to_rgb() -> None:
    picture = noise(300, 400)
    encoder = MeanEncoder()
    encode(picture, FakeTracker([face_at(40, 20, 1.0)]), encoder=encoder)
    expected = picture[20:276, 40:296, ::-1].transpose(2, 0, 1)[None] / np.float32(255)
    np.testing.assert_allclose(encoder.crops[0], expected, atol=2e-3)


def test_real_session_s_outputs_are_copied(session: Session) -> None:
    made = [
        encode_picture(
            noise(256, 256, seed) // (1 + seed),
            session,
            FakeTracker([face_at(0, 0, 1.0)]),
            name=f"{seed}.jpg",
            model_sha256=MODEL,
        )
        for seed in range(2)
    ]
    assert np.abs(made[0].tokens - made[1].tokens).max() > 1e-3
    first = made[0]
    assert first.tokens.shape == (1, NUM_AUS, TOKEN_DIM)
    assert first.aus_lr.shape == (1, NUM_AUS, 2)
    assert (first.name, first.model_sha256, first.duration_s) == ("0.jpg", MODEL, 0.0)
    assert first.times_s.tolist() == [0.0]
    assert first.valid.tolist() == [True]


def striped(values: list[int]) -> tuple[U8, list[TrackedFace]]:
    """A row of grey squares with a face in each; the second face is the largest."""
    picture = np.zeros((256, 256 * len(values), 3), np.uint8)
    faces = []
    for i, value in enumerate(values):
        picture[:, 256 * i : 256 * (i + 1)] = value
        scale = (0.6, 1.0, 0.8)[i]
        offset = 128 * (1 - scale)
        faces.append(face_at(256 * i + offset, offset, scale, i))
    return picture, faces


def test_several_faces_take_the_largest_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    picture, faces = striped([51, 102, 204])
    with caplog.at_level(logging.WARNING):
        tokens = encode(picture, FakeTracker(faces[::-1]))
    assert tokens.mean() == pytest.approx(102 / 255, abs=2e-3)
    assert "p.jpg: 3 faces were found; using the largest (choose one with --face 0 to 2" in (
        caplog.text
    )


@pytest.mark.parametrize(("face", "value"), [(0, 51), (1, 102), ("2", 204)])
def test_a_face_can_be_chosen_by_its_place_from_the_left(
    face: str | int, value: int, caplog: pytest.LogCaptureFixture
) -> None:
    picture, faces = striped([51, 102, 204])
    tokens = encode(picture, FakeTracker(faces[::-1]), face)
    assert tokens.mean() == pytest.approx(value / 255, abs=2e-3)
    assert caplog.text == ""


def test_a_number_beyond_the_faces_found() -> None:
    picture, faces = striped([51, 102])
    with pytest.raises(NoFaceError, match=r"face 2 was asked for, but only 2 faces were found"):
        encode(picture, FakeTracker(faces), 2)
    with pytest.raises(NoFaceError, match=r"only 1 face was found; choose 0"):
        encode(picture, FakeTracker(faces[:1]), 1)


@pytest.mark.parametrize("face", ["left", -1, "1.5", True])
def test_face_that_is_no_choice(face: str | int) -> None:
    with pytest.raises(ConfigError, match='face must be "largest" or a number from 0'):
        encode(noise(64, 64), FakeTracker([]), face)


def test_no_face_says_what_to_use() -> None:
    tracker = FakeTracker([])
    with pytest.raises(NoFaceError, match=r"p\.jpg: no face was found in this 80x64 picture; use"):
        encode(noise(64, 80), tracker)
    assert [p.shape[:2] for p in tracker.seen] == [(64, 80), (144, 160)]


def test_face_that_fills_the_picture_is_found_with_room_around_it() -> None:
    picture = noise(256, 256)
    # found only in the widened picture, where everything lies 128 px further right and down
    tracker = FakeTracker([face_at(128, 128, 1.0)], only_size_hw=(512, 512))
    found = find_faces(picture, tracker)
    np.testing.assert_allclose(found[0].landmarks_xy, face_at(0, 0, 1.0).landmarks_xy)
    encoder = MeanEncoder()
    encode(picture, tracker, encoder=encoder)
    expected = picture[:, :, ::-1].transpose(2, 0, 1)[None] / np.float32(255)
    np.testing.assert_allclose(encoder.crops[0], expected, atol=2e-3)


@pytest.mark.parametrize(
    "picture", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32)]
)
def test_wrong_array_is_a_contract_error(picture: U8) -> None:
    with pytest.raises(ContractError, match="must be uint8"):
        encode(picture, FakeTracker([]))


# --- clips ---
class FakeFollower:
    """Says of each frame by its first pixel: 1 tracked, 2 held, else lost."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def follow(self, frame: Frame) -> FaceCrop | None:
        self.times_s.append(frame.time_s)
        kind = int(frame.frame_bgr[0, 0, 0])
        M: F64 = geometry.invert(np.array([[1.0, 0, 0], [0, 1, 0]]))
        if kind == 1:
            return FaceCrop(M, TrackState.TRACKED, face_at(0, 0, 1), 0)
        return FaceCrop(M, TrackState.HELD, None, 0) if kind == 2 else None


def frames(kinds: list[int], values: list[int], pts: list[int] | None = None) -> Iterator[Frame]:
    for i, (kind, value) in enumerate(zip(kinds, values, strict=True)):
        picture = np.full((256, 256, 3), value, np.uint8)
        picture[0, 0, 0] = kind
        yield Frame(picture, i if pts is None else pts[i], Fraction(1, 10))


def test_clip_has_an_entry_a_frame_and_repeats_the_last_valid_one() -> None:
    ticks: list[float] = []
    made = encode_frames(
        frames([0, 1, 2, 0, 1, 0], [9, 51, 9, 9, 102, 9]),
        MeanEncoder(),
        FakeFollower(),
        name="c.mp4",
        model_sha256=MODEL,
        progress=ticks.append,
    )
    assert made.valid.tolist() == [False, True, False, False, True, False]
    greens = made.tokens[:, 0, 0] * 255
    np.testing.assert_allclose(greens, [51, 51, 51, 51, 102, 102], atol=0.1)
    np.testing.assert_allclose(made.times_s, np.arange(6) / 10)
    assert made.duration_s == pytest.approx(0.6)
    assert ticks == made.times_s.tolist()
    assert (made.name, made.model_sha256) == ("c.mp4", MODEL)


def test_clip_times_start_at_zero_and_ascend(caplog: pytest.LogCaptureFixture) -> None:
    follower = FakeFollower()
    made = encode_frames(
        frames([1] * 5, [10, 20, 30, 40, 50], pts=[100, 101, 101, 99, 107]),
        MeanEncoder(),
        follower,
        name="c.mp4",
        model_sha256=MODEL,
        duration_s=1.0,
    )
    np.testing.assert_allclose(made.times_s, [0, 0.1, 0.7])
    np.testing.assert_allclose(made.tokens[:, 0, 0] * 255, [10, 20, 50], atol=0.1)
    assert made.duration_s == 1.0
    assert "2 frames out of order were left out" in caplog.text


def test_clip_duration_is_never_before_its_last_frame() -> None:
    made = encode_frames(
        frames([1, 1], [1, 2]), MeanEncoder(), FakeFollower(), name="c", model_sha256=MODEL,
        duration_s=0.01,
    )  # fmt: skip
    assert made.duration_s == pytest.approx(0.1)


def test_clip_without_a_face() -> None:
    with pytest.raises(NoFaceError, match=r"c\.mp4: no face was found in any of its 3 frames"):
        encode_frames(
            frames([0, 2, 0], [1, 2, 3]), MeanEncoder(), FakeFollower(),
            name="c.mp4", model_sha256=MODEL,
        )  # fmt: skip


def test_clip_without_frames() -> None:
    with pytest.raises(SourceError, match=r"c\.mp4: has no frames"):
        encode_frames(iter(()), MeanEncoder(), FakeFollower(), name="c.mp4", model_sha256=MODEL)


def test_live_face_is_encoded_into_arrays_of_its_own() -> None:
    (frame,) = frames([1], [51])
    crop = FakeFollower().follow(frame)
    assert crop is not None
    encoder = MeanEncoder()
    tokens, aus_lr = encode_face(frame.frame_bgr, crop, encoder)
    assert tokens.shape == (NUM_AUS, TOKEN_DIM)
    assert aus_lr.shape == (NUM_AUS, 2)
    encoder.outputs["tokens"].fill(9)
    assert tokens.max() == pytest.approx(0.2, abs=1e-3)


# --- the real tracker and reader ---
def test_real_face_is_encoded(session: Session) -> None:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image's portrait")
    tracking = pytest.importorskip("rt_swap.tracking")
    picture = np.ascontiguousarray(data.astronaut()[:, :, ::-1])
    with tracking.MediapipeTracker(max_faces=4, static=True) as tracker:
        made = encode_picture(picture, session, tracker, name="astronaut", model_sha256=MODEL)
        with pytest.raises(NoFaceError, match="no face"):
            encode_picture(
                np.full((200, 200, 3), 90, np.uint8), session, tracker, name="x", model_sha256=MODEL
            )
    assert np.isfinite(made.tokens).all()


def test_clip_file_is_read(session: Session, tmp_path: Path) -> None:
    import av

    from rt_swap.expression import encode_clip

    path = tmp_path / "c.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for value in (20, 120, 220):
            array = np.full((256, 256, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="bgr24")))
        container.mux(stream.encode())

    class Always:
        def follow(self, frame: Frame) -> FaceCrop:
            M = np.array([[1.0, 0, 0], [0, 1, 0]])
            return FaceCrop(M, TrackState.TRACKED, face_at(0, 0, 1), 0)

    encoder = MeanEncoder()
    made = encode_clip(path, encoder, Always(), model_sha256=MODEL)
    assert made.name == "c.mp4"
    np.testing.assert_allclose(made.times_s, [0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(made.tokens[:, 0, 0] * 255, [20, 120, 220], atol=6)
    assert made.duration_s == pytest.approx(0.3, abs=0.02)
