"""Things in front of a face: hands, microphones, whatever is held up. They belong to nobody's
expression, so a swap has to leave them where they are.

Drawn, not photographed: no pictures of hands with a licence to train on are at hand. A hand has the
person's own skin colour, rounded by a shading from its outline; an object has a piece of a real
picture on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

KINDS = ("hand", "microphone", "object")
_FINER = 2  # drawn so many times finer, then averaged


@dataclass(frozen=True)
class Occluder:
    """Something in front of a crop of side S.

    Attributes:
        rgb: (S, S, 3) float32, 0..255; its colours, anything where it is not.
        alpha: (S, S) float32 in [0, 1], how far it covers.
    """

    rgb: F32
    alpha: F32

    def over(self, picture_rgb: U8) -> U8:
        """The picture behind it. (S, S, 3) uint8 -> the same."""
        a = self.alpha[..., None]
        return np.rint(picture_rgb * (1 - a) + self.rgb * a).clip(0, 255).astype(np.uint8)


def draw_occluder(
    rng: np.random.Generator, size_px: int, skin_rgb: F32, texture_rgb: U8, kind: str | None = None
) -> Occluder:
    """Draw one at random; it comes from below or from a side and covers some of the lower face.

    Args:
        rng: Source of chance.
        size_px: Side of the crop.
        skin_rgb: (3,) 0..255, the person's skin, for hands.
        texture_rgb: (H, W, 3) a real picture, a piece of which covers an object.
        kind: One of KINDS; None draws one, hands half of the time.
    """
    kind = kind or str(rng.choice(KINDS, p=(0.5, 0.25, 0.25)))
    fine = size_px * _FINER
    outline = np.zeros((fine, fine), np.uint8)
    unit = fine / 256.0
    # where it ends on the face, and which way it came from
    tip = np.array([rng.uniform(85, 171), rng.uniform(125, 205)]) * unit
    angle = np.radians(rng.uniform(20, 160))  # 90 is straight from below
    toward = np.array([np.cos(angle), np.sin(angle)])
    if kind == "hand":
        _draw_hand(outline, rng, tip, toward, unit)
        tone = skin_rgb * rng.uniform(0.8, 1.1) * rng.uniform(0.95, 1.05, 3)
        rgb = np.broadcast_to(tone.astype(np.float32), (size_px, size_px, 3)).copy()
        rounded = 14.0
    elif kind == "microphone":
        rounded = rng.uniform(11, 20)
        _line(outline, tip, tip + toward * fine, rounded * unit * rng.uniform(0.5, 0.8))
        cv2.circle(outline, _at(tip), round(rounded * unit), 255, -1, cv2.LINE_AA)
        rgb = np.full((size_px, size_px, 3), rng.uniform(25, 70), np.float32)
        wave = np.sin(np.arange(size_px, dtype=np.float32) * (np.pi / 3.0 * 256 / size_px))
        rgb += (np.float32(18) * wave[:, None] * wave)[..., None]
    else:
        across = np.array([-toward[1], toward[0]])
        half = rng.uniform(18, 40) * unit
        far = tip + toward * fine
        corners = [tip + across * half, far + across * half, far - across * half]
        corners.append(tip - across * half)
        cv2.fillPoly(outline, [np.rint(np.array(corners)).astype(np.int32)], 255, cv2.LINE_AA)
        rgb = _piece(texture_rgb, rng, size_px)
        rounded = 5.0
    alpha = cv2.resize(outline, (size_px, size_px), interpolation=cv2.INTER_AREA)
    # rounded off towards its outline, and lit from somewhere
    depth = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 5)
    px = np.float32(size_px / 256)
    shading = 0.55 + 0.45 * np.sin(np.clip(depth / (rounded * px), 0, 1) * np.float32(np.pi / 2))
    down, right = np.gradient(cv2.GaussianBlur(depth, (0, 0), 2.0 * float(px)))
    lamp = rng.uniform(-1, 1, 2).astype(np.float32)
    shading *= 1 + np.float32(0.15) * np.tanh(lamp[0] * down + lamp[1] * right)
    rgb *= shading[..., None]
    grain = np.float32(rng.uniform(0, 5))
    rgb += rng.standard_normal((size_px, size_px, 1), np.float32) * grain
    return Occluder(rgb, alpha.astype(np.float32) / 255)


def _draw_hand(mask: U8, rng: np.random.Generator, tip: F32, toward: F32, unit: float) -> None:
    """A palm from which two to four fingers reach to ``tip``, and the arm behind it."""
    across = np.array([-toward[1], toward[0]])
    length, width = rng.uniform(38, 60) * unit, rng.uniform(7, 10) * unit
    palm = tip + toward * (length + 22 * unit)
    count = int(rng.integers(2, 5))
    spread = rng.uniform(1.7, 2.3) * width
    for i in range(count):
        aside = (i - (count - 1) / 2) * spread
        shorter = rng.uniform(0.0, 0.25) * length
        bent = across * (aside * rng.uniform(0.9, 1.4)) + toward * shorter
        knuckle = palm - toward * 18 * unit + across * aside
        _line(mask, tip + bent, knuckle, width)
    side = max(count * spread, 26 * unit)
    turned_deg = float(np.degrees(np.arctan2(across[1], across[0])))
    size = (float(side * 1.15), float(60 * unit))
    cv2.ellipse(mask, (_at(palm), size, turned_deg), 255, -1, cv2.LINE_AA)
    _line(mask, palm, palm + toward * mask.shape[0], side * 0.42)


def _line(mask: U8, start: F32, end: F32, half_width: float) -> None:
    thick = max(1, round(2 * half_width))
    cv2.line(mask, _at(start), _at(end), 255, thick, cv2.LINE_AA)
    cv2.circle(mask, _at(start), round(half_width), 255, -1, cv2.LINE_AA)


def _at(point: F32) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _piece(texture_rgb: U8, rng: np.random.Generator, side: int) -> F32:
    """A quarter of a picture's edge region, where clothes and backgrounds are, scaled up."""
    h, w = texture_rgb.shape[:2]
    y, x = rng.integers(0, h // 2 + 1), int(rng.choice((0, w - w // 3)))
    piece = texture_rgb[y : y + h // 2, x : x + w // 3]
    return cv2.resize(piece, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def occlude(raw: dict[str, npt.NDArray[np.generic]], person: int, occluder: Occluder) -> None:
    """Hold something up in front of one person of a quadruple, in both pictures at the same place.

    What covers the face neither moves nor changes. What shows and could be fetched before, but is
    behind it in the partner, cannot be fetched any more.

    Args:
        raw: A quadruple's arrays, changed in place (so they must be copies): rgb, and where there
            are some flow (1/64 px), keep, shade, region, and fields.
        person: 0 or 1.
        occluder: Of the shards' size.
    """
    covered = occluder.alpha > 0.5
    edge = (occluder.alpha > 0.02) & ~covered
    hidden = cv2.dilate((occluder.alpha > 0.02).astype(np.uint8), np.ones((3, 3), np.uint8))
    size = covered.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    for i in (2 * person, 2 * person + 1):
        raw["rgb"][i] = occluder.over(np.asarray(raw["rgb"][i], np.uint8))
        if "flow" not in raw:
            continue
        flow = raw["flow"][i].astype(np.float32) / 64.0
        behind = cv2.remap(hidden, x + flow[0], y + flow[1], cv2.INTER_NEAREST) > 0
        # at its soft edge some of it shows, which nothing that moves can be fetched with
        raw["keep"][i][(behind | edge) & (np.hypot(flow[0], flow[1]) > 0.3)] = 0
        for name, still in (("flow", 0), ("keep", 255), ("shade", 128), ("region", 0)):
            raw[name][i][..., covered] = still
        if "fields" in raw:
            # it does not move with the face's units either
            cells = raw["fields"].shape[1]
            at = cv2.resize(occluder.alpha, (cells, cells), interpolation=cv2.INTER_AREA) > 0.5
            raw["fields"][i][at] = 0
