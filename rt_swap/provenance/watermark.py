"""An imperceptible mark in the pixels of a re-expressed face, and the blind detector for it.

The mark lives in the aligned crop's coordinates (rt_swap.contract), so the face itself is what the
detector synchronises on: it survives rescaling, cropping, a face pasted into another layout, and a
call's compression, and it touches nothing outside the face.

How it is made:

* The crop, 128 x 128 here, has 2-D DCT-II coefficients. Those of a middle band, which both an eye
  overlooks and a coarse quantiser keeps, are shuffled and signed by a key and dealt out to 32
  carriers, so that each carrier is a pattern over the whole face: spread spectrum (Cox et al.,
  IEEE TIP 6, 1997).
* A carrier holds one bit of a 32-bit word of the Reed-Muller code RM(2, 5), distance 8, which holds
  16 bits: 4 of format, 12 of the model.
* How strongly a carrier is written depends on what the picture already says there: a face that
  happens to agree needs less (informed embedding; Malvar and Florencio, IEEE TSP 51, 2003), so that
  the face, the same in all frames, is no noise to the detector. Texture gets more than smooth skin.

The detector levels and averages aligned crops, whitens the band, tries small shifts, sizes and
turns, and compares the carriers with all 4,096 words of the format (soft maximum-likelihood
decoding). Its score is a correlation normalised by the picture's own energy, in standard deviations
of what a random key would give. DETECTION_SCORE lies above what unmarked pictures reach: see
docs/responsible-use.md.

The key is public: anybody can detect the mark, and who wants to remove it can. It tells honest
people that a face was altered; it is no protection against a forger.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rt_swap import geometry, ops
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import F32, F64, U8

KEY: Final = b"rt_swap pixel mark 1"
"""Public; another key makes a mark that this one does not see."""
FORMAT: Final = 5
"""4 bits at the front of the payload."""
FORMAT_BITS: Final = 4
MODEL_BITS: Final = 12
STRENGTH: Final = 1.0
"""Factor on what is added."""
DETECTION_SCORE: Final = 6.5
"""Scores from here on mean that the mark is there."""

_SIZE: Final = 128
_BAND: Final = (12.0, 50.0)
"""Radius of the band, in half-periods per side of the crop."""
_LEAST_INDEX: Final = 2
_CARRIERS: Final = 32
_GIVE: Final = (0.4, 1.6)
"""Least and most of a carrier's share, for one that agrees already and one that disagrees."""
_SETTLE: Final = 0.6
"""How much of the last pattern's amplitudes stays in the next: the mark must not flicker."""
_LUMA_RGB: Final = (0.299, 0.587, 0.114)
_CLIP: Final = 2.5
_COARSE: Final = 2.5
_AROUND: Final = 3.0
_FLOOR: Final = 1.0
"""Blur that leaves the fine detail, blur that measures its local strength (standard deviations in
pixels of 128), and the strength taken for none (grey levels)."""
_WANTED: Final = 2.0
"""A carrier's wanted correlation, in what a full share gives it."""
_SMOOTH: Final = 0.7
_BUSY: Final = 0.28
_LIMITS: Final = (0.8, 4.0)
"""Grey levels added to a smooth place, more for each grey level of its local strength, and least
and most; for a carrier mix at a share of 1."""
_RENEW: Final = 3
"""Frames for which a pattern is used; it lies in the face's coordinates and moves with it."""
_RINGS: Final = 6
_RINGS_READ: Final = (4, 6)


@dataclass(frozen=True)
class Payload:
    """What a mark says.

    Attributes:
        model: The first 12 bits of the SHA-256 of the model's generator.
        version: Format of the mark, 0 to 15.
    """

    model: int
    version: int = FORMAT

    def __post_init__(self) -> None:
        if not 0 <= self.model < 1 << MODEL_BITS or not 0 <= self.version < 1 << FORMAT_BITS:
            raise ConfigError(
                f"Payload: model must be under {1 << MODEL_BITS} and version under"
                f" {1 << FORMAT_BITS}, got {self.model} and {self.version}"
            )

    @classmethod
    def of_model(cls, generator_sha256: str) -> Payload:
        """The payload of a model, by its generator's hash in hexadecimal."""
        return cls(int(generator_sha256[: MODEL_BITS // 4], 16))

    @property
    def model_text(self) -> str:
        """The model's part as the hash's first hexadecimal digits."""
        return f"{self.model:0{MODEL_BITS // 4}x}"


@dataclass(frozen=True)
class Detection:
    """What a detector saw.

    Attributes:
        score: Correlation with the best word, in standard deviations of chance.
        payload: What that word says; trustworthy only where ``found``.
        pictures: Pictures it was averaged from.
    """

    score: float
    payload: Payload
    pictures: int

    @classmethod
    def nothing(cls) -> Detection:
        """What is seen where there is no face."""
        return cls(0.0, Payload(0), 0)

    @property
    def found(self) -> bool:
        """Whether the mark is there."""
        return self.score >= DETECTION_SCORE


# --- the code ------------------------------------------------------------------------------------
def _generator_matrix() -> npt.NDArray[np.uint8]:
    """RM(2, 5): (16, 32) of 0 and 1, the monomials of degree 0 to 2 in 5 variables."""
    points = ((np.arange(_CARRIERS)[None, :] >> np.arange(5)[:, None]) & 1).astype(np.uint8)
    rows = [np.ones(_CARRIERS, np.uint8)]
    rows += [points[i] for i in range(5)]
    rows += [points[i] & points[j] for i, j in itertools.combinations(range(5), 2)]
    return np.stack(rows)


@functools.lru_cache(maxsize=4)
def _words(version: int) -> F32:
    """(4096, 32) of +1 and -1: the code words of a format, by model."""
    numbers = (version << MODEL_BITS) | np.arange(1 << MODEL_BITS)
    bits = (numbers[:, None] >> np.arange(FORMAT_BITS + MODEL_BITS)[None, :]) & 1
    coded = (bits @ _generator_matrix()) & 1
    return (1.0 - 2.0 * coded).astype(np.float32)


# --- the carriers --------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Carriers:
    """A key's patterns.

    Attributes:
        rows: (N,) DCT row index of each coefficient of the band, by carrier.
        columns: (N,) the same.
        signs: (N,) +1 or -1.
        group: (N,) which carrier.
        ring: (N,) which ring of the band, for whitening.
        patterns: (32, 128 * 128) the carriers as pictures, windowed.
        energy: (32,) sum of squares of each.
        unit: Amplitude of all carriers that gives 1 grey level rms under the window.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    signs: F32
    group: npt.NDArray[np.int64]
    ring: npt.NDArray[np.int64]
    patterns: F32
    energy: F32
    unit: float


@functools.lru_cache(maxsize=1)
def _basis() -> F32:
    """(K, 128): orthonormal DCT-II rows up to the band's end."""
    k = np.arange(int(_BAND[1]) + 1)[:, None]
    x = np.arange(_SIZE)[None, :] + 0.5
    rows = np.cos(np.pi * k * x / _SIZE) * np.sqrt(2.0 / _SIZE)
    return np.asarray(rows, np.float32)


@functools.lru_cache(maxsize=1)
def _window() -> F32:
    """(128, 128): 1 over the face, 0 from the crop's edge on, smooth between (an ellipse)."""
    y, x = np.meshgrid(*(2 * [(np.arange(_SIZE) + 0.5) / _SIZE]), indexing="ij")
    radius = np.hypot((x - 0.5) / 0.42, (y - 0.52) / 0.46)
    t = np.clip((1.0 - radius) / 0.35, 0.0, 1.0)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _stream(key: bytes, what: bytes, count: int) -> npt.NDArray[np.uint64]:
    """Pseudo-random 64-bit numbers that no version of any library changes."""
    data = hashlib.shake_256(what + b"\0" + key).digest(8 * count)
    return np.frombuffer(data, "<u8")


@functools.lru_cache(maxsize=4)
def _carriers(key: bytes) -> _Carriers:
    last = int(_BAND[1])
    v, u = np.meshgrid(np.arange(last + 1), np.arange(last + 1), indexing="ij")
    radius = np.hypot(u, v)
    inside = (radius >= _BAND[0]) & (radius <= _BAND[1]) & (np.minimum(u, v) >= _LEAST_INDEX)
    rows, columns = np.nonzero(inside)
    radii = radius[rows, columns]
    ring = np.minimum(
        ((radii - _BAND[0]) / (_BAND[1] - _BAND[0]) * _RINGS).astype(np.int64), _RINGS - 1
    )
    # dealt out ring by ring, so that every carrier has its share of each frequency
    shuffled = _stream(key, b"order", len(rows))
    order = np.lexsort((shuffled, ring))
    group = np.empty(len(rows), np.int64)
    group[order] = np.arange(len(rows)) % _CARRIERS
    signs = np.where(_stream(key, b"sign", len(rows)) >> np.uint64(63), 1.0, -1.0)
    gain = (radii / radii.mean()) ** -0.5
    spectra = np.zeros((_CARRIERS, last + 1, last + 1), np.float32)
    spectra[group, rows, columns] = signs * gain
    basis = _basis()
    pictures = np.einsum("gvu,vy,ux->gyx", spectra, basis, basis, optimize=True)
    patterns = (pictures * _window()).reshape(_CARRIERS, -1).astype(np.float32)
    energy = np.square(patterns).sum(axis=1)
    unit = float(np.sqrt(np.square(_window()).sum() / energy.sum()))
    return _Carriers(rows, columns, signs.astype(np.float32), group, ring, patterns, energy, unit)


def _aligned_luma(picture_bgr: U8, M_crop_from_frame: F64, threads: int) -> F32:
    """(128, 128) luma of the aligned crop, 0 to 255."""
    size = np.array([[CROP_SIZE_PX / _SIZE, 0.0, 0.0], [0.0, CROP_SIZE_PX / _SIZE, 0.0]])
    M_frame_from_small = geometry.compose(geometry.invert(M_crop_from_frame), size)
    crop = ops.crop_rgb(picture_bgr, M_frame_from_small, _SIZE, None, threads)[0]
    red, green, blue = (np.float32(255 * share) for share in _LUMA_RGB)
    return np.asarray(red * crop[0] + green * crop[1] + blue * crop[2], np.float32)


def _levelled(luma: F32) -> tuple[F32, F32]:
    """Fine detail over its own local strength, and the factor that was.

    The face's contrast sits in a few places (lids, brows, lips) and is a hundred times the mark's
    there; levelled, those places weigh no more than a cheek.

    Returns:
        Twice (128, 128): the levelled detail, and what it was multiplied by.
    """
    import cv2

    fine = luma - cv2.GaussianBlur(luma, (0, 0), _COARSE)
    power = cv2.GaussianBlur(np.square(fine), (0, 0), _AROUND)
    factor = 1.0 / np.sqrt(power + _FLOOR**2)
    return np.asarray(fine * factor, np.float32), np.asarray(factor, np.float32)


# --- writing -------------------------------------------------------------------------------------
class Embedder:
    """Writes a mark into the faces of one stream. Use from one thread.

    Args:
        payload: What the mark says.
        strength: Factor on what is added, 0.2 to 4.
        key: Which patterns.
        threads: CPU threads of the native crop; 0 chooses.

    Raises:
        ConfigError: If the strength is out of range.
    """

    def __init__(
        self,
        payload: Payload,
        *,
        strength: float = STRENGTH,
        key: bytes = KEY,
        threads: int = 0,
    ) -> None:
        if not 0.2 <= strength <= 4:
            raise ConfigError(f"Embedder: strength must be from 0.2 to 4, got {strength}")
        self.payload = payload
        self._carriers = _carriers(key)
        self._word = _words(payload.version)[payload.model]
        self._strength = strength
        self._threads = threads
        self._last: F32 | None = None
        self._shown: F32 | None = None
        self._age = 0

    def reset(self) -> None:
        """Begin another stream."""
        self._last = self._shown = None
        self._age = 0

    def write(self, picture_bgr: U8, M_crop_from_frame: F64) -> None:
        """Mark one face, in place.

        Args:
            picture_bgr: (H, W, 3) uint8, writable; changed inside the aligned crop only.
            M_crop_from_frame: (2, 3), where the face is (FaceCrop).

        Raises:
            ContractError: If the picture is not writable.
        """
        import cv2

        if not picture_bgr.flags.writeable:
            raise ContractError("Embedder.write: picture_bgr is read-only; pass a copy")
        height, width = picture_bgr.shape[:2]
        M_frame_from_crop = geometry.invert(M_crop_from_frame)
        box = geometry.roi_of_crop(M_frame_from_crop, CROP_SIZE_PX, (height, width))
        x0, y0, x1, y1 = box
        if x1 <= x0 or y1 <= y0:
            return
        if self._shown is None or self._age % _RENEW == 0:
            luma = _aligned_luma(picture_bgr, M_crop_from_frame, self._threads)
            self._shown = self._pattern(luma)
        self._age += 1
        M_small_from_part = geometry.compose(
            np.array([[_SIZE / CROP_SIZE_PX, 0.0, 0.0], [0.0, _SIZE / CROP_SIZE_PX, 0.0]]),
            geometry.compose(M_crop_from_frame, np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]])),
        )
        added = cv2.warpAffine(
            self._shown,
            geometry.to_cv2(M_small_from_part),
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        part = picture_bgr[y0:y1, x0:x1]
        three = cv2.cvtColor(added, cv2.COLOR_GRAY2BGR)
        part[:] = cv2.add(part, three, dtype=cv2.CV_8U)

    def _pattern(self, luma: F32) -> F32:
        """(128, 128) float32, what to add to the aligned crop."""
        carriers = self._carriers
        levelled, factor = _levelled(luma)
        window = _window()
        # what is busy hides more
        strength = np.clip(_SMOOTH + _BUSY / factor, *_LIMITS) * self._strength
        gained = float((factor * strength * window).sum() / window.sum())
        given = self._word * (carriers.patterns @ levelled.reshape(-1))
        needed = _WANTED - given / (carriers.unit * gained * carriers.energy)
        share = np.clip(needed, *_GIVE).astype(np.float32)
        if self._last is not None:
            share = _SETTLE * self._last + (1 - _SETTLE) * share
        self._last = share
        pattern = ((self._word * share * carriers.unit) @ carriers.patterns).reshape(luma.shape)
        return np.asarray(pattern * strength, np.float32)


# --- reading -------------------------------------------------------------------------------------
class Detector:
    """Looks for a mark over several pictures of one face.

    Args:
        key: Which patterns.
        threads: CPU threads of the native crop; 0 chooses.

    Attributes:
        pictures: Pictures seen so far.
    """

    def __init__(self, *, key: bytes = KEY, threads: int = 0) -> None:
        self._carriers = _carriers(key)
        self._threads = threads
        self._sum: F64 = np.zeros((_SIZE, _SIZE))
        self.pictures = 0

    def see(self, picture_bgr: U8, M_crop_from_frame: F64) -> None:
        """Take one picture.

        Args:
            picture_bgr: (H, W, 3) uint8. Not changed.
            M_crop_from_frame: (2, 3), where the face is.
        """
        self._sum += _levelled(_aligned_luma(picture_bgr, M_crop_from_frame, self._threads))[0]
        self.pictures += 1

    def result(self, version: int = FORMAT) -> Detection:
        """The best word over all small misalignments.

        Raises:
            ContractError: If no picture was seen.
        """
        if not self.pictures:
            raise ContractError("Detector.result: no picture was seen; call see() first")
        mean = (self._sum / self.pictures).astype(np.float32)
        words = _words(version)
        best, at = -np.inf, 0
        for x in self._candidates(mean):
            scores = words @ x
            k, which = np.unravel_index(int(scores.argmax()), scores.shape)
            if scores[k, which] > best:
                best, at = float(scores[k, which]), int(k)
        return Detection(round(best, 3), Payload(at, version), self.pictures)

    def _candidates(self, mean: F32) -> list[F32]:
        """(32, 2) correlations of the carriers, normalised, for each misalignment tried."""
        import cv2

        found = []
        middle = _SIZE / 2
        shifts = np.arange(-2.0, 2.5, 1.0)
        for size in (0.97, 0.985, 1.0, 1.015, 1.03):
            for turn in (-1.5, 0.0, 1.5):
                for dy in shifts:
                    for dx in shifts:
                        about = cv2.getRotationMatrix2D((middle - 0.5, middle - 0.5), turn, size)
                        M = np.asarray(about, np.float64)
                        M[:, 2] += (dx, dy)
                        moved = cv2.warpAffine(
                            mean, M, (_SIZE, _SIZE), borderMode=cv2.BORDER_REPLICATE
                        )
                        found.append(self._read(np.asarray(moved, np.float32)))
        return found

    def _read(self, luma: F32) -> F32:
        carriers, basis = self._carriers, _basis()
        windowed = (luma - luma.mean()) * _window()
        spectrum = basis @ windowed @ basis.T
        values = spectrum[carriers.rows, carriers.columns]
        power = np.asarray(np.bincount(carriers.ring, np.square(values), _RINGS), np.float64)
        mean_power = power / np.bincount(carriers.ring, minlength=_RINGS)
        whitened = values / np.sqrt(mean_power[carriers.ring] + 1e-9)
        whitened = np.clip(whitened, -_CLIP, _CLIP) * carriers.signs
        found = []
        for rings in _RINGS_READ:  # what is coarse outlives a low bit rate; what is fine is plenty
            part = np.where(carriers.ring < rings, whitened, 0.0)
            sums = np.bincount(carriers.group, part, _CARRIERS)
            found.append(sums / np.sqrt(np.square(part).sum() + 1e-9))
        return np.asarray(np.stack(found, axis=1), np.float32)
