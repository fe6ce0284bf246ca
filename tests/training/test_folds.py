"""Folds that expressions make."""

from __future__ import annotations

import pytest
import torch

from rt_swap.aus import NUM_AUS, AuId
from training.config import LOOK_XYXY, get_config
from training.networks import build
from training.networks.encoder import look
from training.networks.folds import FOLDS, FOLDS_XYXY, Folds

HW = (LOOK_XYXY[3] - LOOK_XYXY[1], LOOK_XYXY[2] - LOOK_XYXY[0])
X0, Y0 = FOLDS_XYXY[:2]
SKIN = (0.8, 0.6, 0.5)
# a face in the crop: what the lines hang on, of the person's right half; the left mirrors it
RIGHT_XY = {
    8: (128.0, 74.0), 9: (128.0, 66.0), 10: (128.0, 32.0), 151: (128.0, 48.0), 168: (128.0, 82.0),
    6: (128.0, 90.0), 55: (114.0, 72.0), 107: (112.0, 65.0), 193: (119.0, 86.0),
    122: (116.0, 95.0), 63: (74.0, 66.0), 105: (84.0, 63.0), 66: (97.0, 63.0), 68: (69.0, 58.0),
    104: (79.0, 52.0), 69: (94.0, 49.0), 108: (110.0, 48.0), 54: (65.0, 51.0), 103: (75.0, 42.0),
    67: (90.0, 35.0), 109: (107.0, 32.0), 33: (80.0, 87.0), 156: (66.0, 76.0), 34: (62.0, 92.0),
    227: (64.0, 104.0), 101: (92.0, 118.0), 118: (90.0, 106.0),
}  # fmt: skip
LEFT_OF = {
    55: 285, 107: 336, 193: 417, 122: 351, 63: 293, 105: 334, 66: 296, 68: 298, 104: 333, 69: 299,
    108: 337, 54: 284, 103: 332, 67: 297, 109: 338, 33: 263, 156: 383, 34: 264, 227: 447,
    101: 330, 118: 347,
}  # fmt: skip
BETWEEN_BROWS = (slice(60, 80), slice(116, 141))
FOREHEAD = (slice(34, 61), slice(90, 167))
BESIDE_EYES = ((slice(78, 102), slice(64, 78)), (slice(78, 102), slice(178, 192)))


def landmarks() -> torch.Tensor:
    points = torch.full((1, 478, 2), 128.0)
    for index, (x, y) in RIGHT_XY.items():
        points[0, index] = torch.tensor([x, y])
        if index in LEFT_OF:
            points[0, LEFT_OF[index]] = torch.tensor([256.0 - x, y])
    return points


def change(**units: float | tuple[float, float]) -> torch.Tensor:
    out = torch.zeros(1, NUM_AUS, 2)
    for name, value in units.items():
        out[0, AuId[name].index] = torch.tensor(value)
    return out.flatten(1)


def plain(rgb: tuple[float, float, float] = SKIN) -> torch.Tensor:
    return torch.tensor(rgb)[None, :, None, None].expand(1, 3, *HW).contiguous()


def drawn(asked: torch.Tensor, picture: torch.Tensor | None = None) -> torch.Tensor:
    """(256, 256) log2 shade."""
    xy = landmarks()
    maps = Folds()(plain() if picture is None else picture, xy, xy, asked)
    assert maps.shape == (1, 1, FOLDS_XYXY[3] - Y0, FOLDS_XYXY[2] - X0)
    whole = torch.zeros(256, 256)
    whole[Y0 : FOLDS_XYXY[3], X0 : FOLDS_XYXY[2]] = maps[0, 0]
    return whole


def test_nothing_folds_where_nothing_changes_or_trembles() -> None:
    assert not drawn(change()).any()
    assert not drawn(change(AU4=0.1, AU1=0.1, AU2=0.05, AU6=0.1)).any()
    assert not drawn(change(AU4=-1.0, AU6=-1.0, AU1=-1.0)).any()  # a face's own folds stay


def test_a_frown_draws_lines_between_the_brows_and_nowhere_else() -> None:
    shade = drawn(change(AU4=1.0))
    deepest = FOLDS[0].depth
    assert -deepest * 1.1 < shade.min() < -deepest * 0.7
    row, column = divmod(int(shade.argmin()), 256)
    assert BETWEEN_BROWS[0].start <= row < BETWEEN_BROWS[0].stop
    assert BETWEEN_BROWS[1].start <= column < BETWEEN_BROWS[1].stop
    # one line on either side of the middle, the middle between them lighter
    dark = shade[70]
    assert dark[118:126].min() < 3 * dark[127] and dark[130:138].min() < 3 * dark[127]
    for part in (FOREHEAD[0].start, slice(110, 256)):
        rows = slice(0, part) if isinstance(part, int) else part
        assert shade[rows].abs().max() < 0.01


def test_a_frown_of_one_side_folds_that_side() -> None:
    left, right = (drawn(change(AU4=v))[BETWEEN_BROWS] for v in ((1.0, 0.0), (0.0, 1.0)))
    # a person's left is on the picture's right
    assert left[:, 13:].min() < -0.2 and left[:, :11].min() > -0.1
    assert right[:, :12].min() < -0.2 and right[:, 14:].min() > -0.1


def test_raised_brows_draw_three_lines_across_the_forehead_with_lit_banks() -> None:
    shade = drawn(change(AU1=1.0, AU2=1.0))
    middle = shade[30:64, 128]
    troughs = [
        i for i in range(1, len(middle) - 1)
        if middle[i] < -0.15 and middle[i] <= middle[i - 1] and middle[i] < middle[i + 1]
    ]  # fmt: skip
    assert len(troughs) == 3
    assert all(middle[t : t + 6].max() > 0.02 for t in troughs)
    assert shade[66:].abs().max() < 0.02
    # both halves alike, and less where brows are drawn together besides
    torch.testing.assert_close(shade, shade.flip(1), atol=2e-3, rtol=0)
    assert drawn(change(AU1=1.0, AU2=1.0, AU4=0.6))[FOREHEAD].min() > shade[FOREHEAD].min() + 0.02


def test_the_inner_brow_folds_the_middle_and_the_outer_the_ends() -> None:
    inner, outer = (drawn(change(**{name: 1.0})) for name in ("AU1", "AU2"))
    assert inner[FOREHEAD][:, 34:42].min() < -0.15 and inner[:64, :85].min() > -0.05
    one = drawn(change(AU2=(0.0, 1.0)))  # the person's right: on the picture's left
    assert outer[:64, 85:100].min() < -0.15
    assert one[:64, 85:100].min() < -0.1 and one[:64, 156:171].min() > -0.02


def test_raised_cheeks_fold_skin_beside_the_eyes() -> None:
    shade = drawn(change(AU6=1.0))
    for part in BESIDE_EYES:
        assert shade[part].min() < -0.1
    rest = shade.clone()
    for rows, columns in BESIDE_EYES:
        rest[rows.start - 6 : rows.stop + 6, columns.start - 6 : columns.stop + 6] = 0
    assert rest.abs().max() < 0.02


def test_depth_is_bounded() -> None:
    torch.testing.assert_close(drawn(change(AU4=5.0)), drawn(change(AU4=1.0)))


def test_hair_and_glasses_do_not_fold() -> None:
    asked = change(AU1=1.0, AU2=1.0, AU4=0.0)
    bare = drawn(asked)[FOREHEAD].min()
    dark, striped = plain(), plain()
    fringe = slice(0, 62 - LOOK_XYXY[1])
    dark[:, :, fringe] = torch.tensor([0.15, 0.1, 0.08])[:, None, None]
    # fair hair: about as bright as skin, and in strands
    strands = 0.75 + 0.25 * torch.rand(HW[1], generator=torch.Generator().manual_seed(0))
    striped[:, :, fringe] *= strands
    for picture in (dark, striped):
        assert drawn(asked, picture)[FOREHEAD].min() > 0.2 * bare
    # a fringe that ends above the brows leaves the skin between them to fold
    frown = change(AU4=1.0)
    assert drawn(frown, dark)[66:90].min() < 0.5 * drawn(frown)[66:90].min()


def test_dark_skin_folds_like_fair_skin() -> None:
    asked = change(AU1=0.8, AU2=0.8, AU6=0.8)
    torch.testing.assert_close(drawn(asked, plain((0.16, 0.1, 0.08))), drawn(asked))


def test_folds_go_where_the_skin_goes() -> None:
    xy = landmarks()
    still, moved = (Folds()(plain(), xy, xy + d, change(AU4=1.0)) for d in (0.0, 4.0))
    torch.testing.assert_close(moved[:, :, 24:, 14:], still[:, :, 20:-4, 10:-4], atol=1e-4, rtol=0)
    assert still.abs().max() > 0.2


def test_generator_shades_folds_into_its_answer_and_trains_nothing_by_them() -> None:
    config = get_config("rt-small")
    net = build(config.network).eval()
    mesh = net.generator.mesh
    assert mesh is not None
    torch.manual_seed(0)
    picture = torch.tensor(SKIN)[None, :, None, None].expand(1, 3, 256, 256).contiguous()
    calm, frown = (torch.zeros(1, NUM_AUS, 2) for _ in range(2))
    frown[0, AuId.AU4.index] = 1.0
    own, wanted = net.label_tokens(calm), net.label_tokens(frown)
    # tokens say intensities by a map that training finds; here by least squares
    tokens = torch.stack([net.label_tokens(torch.eye(2 * NUM_AUS)[i].reshape(1, NUM_AUS, 2))[0]
                          for i in range(2 * NUM_AUS)]) - own  # fmt: skip
    by_au = net.generator.get_buffer("tokens_to_aus")
    for k in range(NUM_AUS):
        basis = tokens[2 * k : 2 * k + 2, k]  # (2, D)
        by_au[k] = torch.linalg.pinv(basis)
    features = net.encoder.stem(look(picture))
    answer, without = (net.generator(features, own, t, 256, landmarks()) for t in (wanted, own))
    assert answer.shade[0, 0, 66:78, 116:141].min() < 0.9
    torch.testing.assert_close(without.shade, torch.ones_like(without.shade), atol=0.05, rtol=0)
    half = net.generator(features, own, wanted, 128, landmarks())
    assert half.shade.shape[2:] == (128, 128) and half.shade[0, 0, 33:39, 58:70].min() < 0.95
    assert not any(p is not None and "folds" in n for n, p in net.named_parameters())


@pytest.mark.parametrize("index", range(len(FOLDS)))
def test_every_line_is_drawn_by_some_unit_and_hangs_on_the_face(index: int) -> None:
    fold = FOLDS[index]
    for anchor in fold.through:
        assert sum(weight for _, weight in anchor) == pytest.approx(1.0)
    folds = Folds()
    start = sum(f.points for f in FOLDS[:index])
    own = slice(start, start + fold.points)
    most = folds.get_buffer("units")[:, own].clamp(min=0).sum(0)
    assert most.min() > 0.3 and fold.depth > 0
    place = folds.get_buffer("place")[own]
    torch.testing.assert_close(place.sum(1), torch.ones(fold.points))
