"""What is measured on pictures whose true answer is known: pure functions and sums.

For a target picture, a source and gains, the data engine renders the true answer with its exact
flow, visibility and regions (see the shards' format in training.data.dataset). Definitions:

changed pixels
    Where the answer has to differ from the target: any channel of |truth - target| above
    CHANGED_LEVEL, or the true flow longer than CHANGED_FLOW_PX, or true keep under one half.
image error
    Mean of |answer - truth| over the changed pixels and the three channels, in [0, 1]. All pixels
    of all pictures weigh the same, so a picture in which much changes weighs more.
spill
    The same over all other pixels: what the method disturbs that should have stayed. The unchanged
    target's is the small rest under CHANGED_LEVEL.
flow error
    Mean end-point error, ``|flow - true flow|`` in pixels of the crop, over the pixels of the face
    (region > 0) that the target really shows (true keep above VISIBLE_KEEP). The unchanged target's
    flow is 0.
hole overlap
    Intersection over union of the disoccluded pixels, keep under one half, summed over all
    pictures. NaN where neither the truth nor the answer has any.
SSIM
    Structural similarity of answer and truth (:func:`ssim_map`), the mean over the pixels of the
    face (region > 0); 1 where they are the same picture. Unlike the image error it counts the whole
    face, changed or not.
region error
    The image error split by what the truth shows there.

"Reduction" is ``1 - error / error of the unchanged target``: 0 is as bad as doing nothing, 1 is
perfect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from rt_swap.errors import ContractError
from rt_swap.frames import F32, U8

CHANGED_LEVEL: Final = 8.0 / 255.0
CHANGED_FLOW_PX: Final = 0.5
VISIBLE_KEEP: Final = 0.99

REGIONS: Final[dict[str, tuple[int, ...]]] = {
    "mouth_interior": (2,),
    "eyes": (3, 5),
    "lips": (4,),
    "skin": (1,),
    "outside": (0,),
}
"""Groups of the shards' region codes: 0 background, hair and neck, 1 skin, 2 inside the mouth, 3
eyeball, 4 lips, 5 lids."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One target with its true answer, in one crop of side S.

    Attributes:
        target_rgb: (S, S, 3) uint8.
        truth_rgb: (S, S, 3) uint8.
        flow_xy: (2, S, S) float32 pixels, true backward flow.
        keep: (S, S) float32 [0, 1], true visibility.
        region: (S, S) uint8, what the truth shows.
    """

    target_rgb: U8
    truth_rgb: U8
    flow_xy: F32
    keep: F32
    region: U8

    def __post_init__(self) -> None:
        size_hw = self.target_rgb.shape[:2]
        wanted = {
            "target_rgb": (*size_hw, 3),
            "truth_rgb": (*size_hw, 3),
            "flow_xy": (2, *size_hw),
            "keep": size_hw,
            "region": size_hw,
        }
        wrong = [
            f"{name} must be {shape}, got {getattr(self, name).shape}"
            for name, shape in wanted.items()
            if getattr(self, name).shape != shape
        ]
        if wrong:
            raise ContractError("Case: " + "; ".join(wrong))

    def changed(self) -> Bools:
        """(S, S) bool, the pixels where the answer has to differ from the target."""
        differs = np.abs(self.truth_rgb.astype(np.int16) - self.target_rgb).max(2)
        moves = np.hypot(self.flow_xy[0], self.flow_xy[1]) > CHANGED_FLOW_PX
        return np.asarray((differs > CHANGED_LEVEL * 255.0) | moves | (self.keep < 0.5))


@dataclass(frozen=True)
class Answer:
    """What a method gives for a case.

    Attributes:
        picture_rgb: (S, S, 3) uint8, the composed crop.
        flow_xy: (2, S, S) float32 pixels.
        keep: (S, S) float32 [0, 1].
    """

    picture_rgb: U8
    flow_xy: F32
    keep: F32


def unchanged(case: Case) -> Answer:
    """The answer of doing nothing."""
    return Answer(case.target_rgb, np.zeros_like(case.flow_xy), np.ones_like(case.keep))


def ssim_map(a_rgb: U8, b_rgb: U8) -> F32:
    """Structural similarity around each pixel, of the pictures' luma.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE Trans. Image Processing 13(4), 2004, equation 13, with their 11x11
    Gaussian window of 1.5 pixels and constants.

    Args:
        a_rgb: (H, W, 3) uint8.
        b_rgb: (H, W, 3) uint8.

    Returns:
        (H, W) float32 in [-1, 1].
    """
    a, b = (cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).astype(np.float32) for x in (a_rgb, b_rgb))

    def mean(x: F32) -> F32:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5), np.float32)

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) + mean(b * b) - mean_a**2 - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return np.asarray(likeness / ((mean_a**2 + mean_b**2 + c1) * (variances + c2)), np.float32)


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, values: npt.NDArray[np.floating]) -> None:
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size

    def merge(self, other: _Mean) -> None:
        self.total += other.total
        self.count += other.count

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else float("nan")


@dataclass
class Score:
    """Sums over cases of one method's errors; the module's docstring says what each is."""

    image: _Mean = field(default_factory=_Mean)
    spill: _Mean = field(default_factory=_Mean)
    flow: _Mean = field(default_factory=_Mean)
    ssim: _Mean = field(default_factory=_Mean)
    regions: dict[str, _Mean] = field(default_factory=lambda: {name: _Mean() for name in REGIONS})
    hole_both: int = 0
    hole_any: int = 0
    cases: int = 0

    def add(self, case: Case, answer: Answer) -> float:
        """Count one case in.

        Args:
            case: The truth.
            answer: What the method gave.

        Returns:
            This case's own image error (NaN where nothing should change), for finding the worst.

        Raises:
            ContractError: If the answer's shapes are not the case's.
        """
        for name, want in (
            ("picture_rgb", case.truth_rgb.shape),
            ("flow_xy", case.flow_xy.shape),
            ("keep", case.keep.shape),
        ):
            if getattr(answer, name).shape != want:
                raise ContractError(
                    f"Score.add: the answer's {name} must be {want}, "
                    f"got {getattr(answer, name).shape}"
                )
        error = np.abs(answer.picture_rgb.astype(np.float32) - case.truth_rgb).mean(2) / 255.0
        changed = case.changed()
        self.image.add(error[changed])
        self.spill.add(error[~changed])
        for name, codes in REGIONS.items():
            self.regions[name].add(error[changed & np.isin(case.region, codes)])
        seen = (case.keep > VISIBLE_KEEP) & (case.region > 0)
        off = answer.flow_xy - case.flow_xy
        self.flow.add(np.hypot(off[0], off[1])[seen])
        face = case.region > 0
        self.ssim.add(ssim_map(answer.picture_rgb, case.truth_rgb)[face])
        true_hole, hole = case.keep < 0.5, answer.keep < 0.5
        self.hole_both += int((true_hole & hole).sum())
        self.hole_any += int((true_hole | hole).sum())
        self.cases += 1
        return float(error[changed].mean()) if changed.any() else float("nan")

    def merge(self, other: Score) -> None:
        """Count in everything that another has counted."""
        for mine, theirs in (
            (self.image, other.image),
            (self.spill, other.spill),
            (self.flow, other.flow),
            (self.ssim, other.ssim),
            *((self.regions[name], other.regions[name]) for name in REGIONS),
        ):
            mine.merge(theirs)
        self.hole_both += other.hole_both
        self.hole_any += other.hole_any
        self.cases += other.cases

    def result(self) -> dict[str, float]:
        """{"image", "flow_px", "ssim", "hole_iou", "spill", "mouth_interior", "eyes", ...}; NaN
        where nothing was counted.
        """
        return {
            "image": self.image.value,
            "flow_px": self.flow.value,
            "ssim": self.ssim.value,
            "hole_iou": self.hole_both / self.hole_any if self.hole_any else float("nan"),
            "spill": self.spill.value,
            **{name: mean.value for name, mean in self.regions.items()},
        }


def reduction(error: float, unchanged_error: float) -> float:
    """``1 - error / unchanged_error``; NaN where the unchanged target has no error."""
    return 1.0 - error / unchanged_error if unchanged_error > 0 else float("nan")


def au_errors(
    read_lr: npt.NDArray[np.floating], label_lr: npt.NDArray[np.floating]
) -> dict[str, npt.NDArray[np.float64]]:
    """How well intensities are read, per AU.

    Args:
        read_lr: (N, K, 2) what was read, [left, right], in [0, 1].
        label_lr: (N, K, 2) what is true.

    Returns:
        Each (K,) float64: "mae" mean absolute error over pictures and sides; "blind" the same of
        the best constant per AU and side, the label's median, which needs no picture; "r" Pearson's
        correlation over pictures and sides (NaN where the label or the reading never varies).

    Raises:
        ContractError: If shapes differ or there is no picture.
    """
    read, label = np.asarray(read_lr, np.float64), np.asarray(label_lr, np.float64)
    if read.shape != label.shape or read.ndim != 3 or read.shape[2] != 2 or not len(read):
        raise ContractError(
            "au_errors: two arrays of shape (N >= 1, K, 2) are needed, "
            f"got {read.shape} and {label.shape}"
        )
    flat_read = read.transpose(1, 0, 2).reshape(read.shape[1], -1)
    flat_label = label.transpose(1, 0, 2).reshape(read.shape[1], -1)
    a = flat_read - flat_read.mean(1, keepdims=True)
    b = flat_label - flat_label.mean(1, keepdims=True)
    spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    r = np.full(len(spread), np.nan)
    np.divide((a * b).sum(1), spread, out=r, where=spread > 1e-12)
    return {
        "mae": np.abs(flat_read - flat_label).mean(1),
        "blind": np.abs(label - np.median(label, axis=0)).mean((0, 2)),
        "r": r,
    }
