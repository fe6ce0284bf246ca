"""Folds that expressions make."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rt_swap.aus import NUM_AUS, AuId
from training.config import LOOK_XYXY, get_config
from training.networks import build
from training.networks.encoder import look
from training.networks.folds import FOLDS, FOLDS_XYXY, Folds

HW = (LOOK_XYXY[3] - LOOK_XYXY[1], LOOK_XYXY[2] - LOOK_XYXY[0])
X0, Y0 = FOLDS_XYXY[:2]
X_LOOK, Y_LOOK = LOOK_XYXY[:2]
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
NOSE_ROOT = (slice(76, 97), slice(112, 145))
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


def drawn(
    wanted: torch.Tensor,
    picture: torch.Tensor | None = None,
    own: torch.Tensor | None = None,
    moved_px: tuple[float, float] = (0.0, 0.0),
) -> torch.Tensor:
    """(256, 256) log2 shade."""
    xy = landmarks()
    picture = plain() if picture is None else picture
    own = change() if own is None else own
    maps = Folds()(picture, xy, xy + torch.tensor(moved_px), own, wanted)
    assert maps.shape == (1, 1, FOLDS_XYXY[3] - Y0, FOLDS_XYXY[2] - X0)
    whole = torch.zeros(256, 256)
    whole[Y0 : FOLDS_XYXY[3], X0 : FOLDS_XYXY[2]] = maps[0, 0]
    return whole


def troughs_of(column: torch.Tensor) -> list[int]:
    return [
        i
        for i in range(1, 64)
        if column[i] < -0.1 and column[i] <= column[i - 1] and column[i] < column[i + 1]
    ]


def elsewhere(shade: torch.Tensor, *parts: tuple[slice, slice], around: int = 4) -> float:
    """Largest |shade| outside of the parts and some pixels around them."""
    rest = shade.clone()
    for rows, columns in parts:
        rest[
            rows.start - around : rows.stop + around, columns.start - around : columns.stop + around
        ] = 0
    return float(rest.abs().max())


def test_nothing_folds_where_nothing_changes_or_trembles() -> None:
    assert not drawn(change()).any()
    assert not drawn(change(AU4=0.1, AU1=0.1, AU2=0.05, AU6=0.1)).any()
    worn = change(AU4=1.0, AU6=1.0, AU1=1.0, AU2=1.0)
    assert not drawn(change(), own=worn).any()  # a face's own folds stay
    assert not drawn(worn, own=worn).any()


def test_a_frown_draws_lines_between_the_brows_and_nowhere_else() -> None:
    shade = drawn(change(AU4=1.0))
    deepest = FOLDS[0].depth + FOLDS[2].depth  # the line and the shadow around it
    assert -deepest * 1.1 < shade.min() < -deepest * 0.8
    # one line on either side of the middle, the middle between them lighter
    dark = shade[70]
    for side in (dark[118:126], dark[130:138]):
        assert side.min() < 3 * dark[127]
    assert elsewhere(shade, BETWEEN_BROWS, NOSE_ROOT) < 0.01
    torch.testing.assert_close(shade, shade.flip(1), atol=2e-3, rtol=0)


def test_more_of_a_frown_adds_what_it_adds() -> None:
    half, whole = (drawn(change(AU4=v))[BETWEEN_BROWS].min() for v in (0.5, 1.0))
    rest = drawn(change(AU4=1.0), own=change(AU4=0.5))[BETWEEN_BROWS].min()
    assert 0 > half > whole
    assert float(rest) == pytest.approx(float(whole - half), rel=0.1)


def test_a_frown_of_one_side_folds_that_side() -> None:
    left, right = (drawn(change(AU4=v))[BETWEEN_BROWS] for v in ((1.0, 0.0), (0.0, 1.0)))
    # a person's left is on the picture's right
    assert left[:, 13:].min() < -0.2 and left[:, :11].min() > -0.1
    assert right[:, :12].min() < -0.2 and right[:, 14:].min() > -0.1


def test_raised_brows_draw_three_lines_across_the_forehead_with_lit_banks() -> None:
    shade = drawn(change(AU1=1.0, AU2=1.0))
    middle, troughs = shade[:, 128], troughs_of(shade[:, 128])
    assert len(troughs) == 3
    assert all(middle[t : t + 6].max() > 0.0 for t in troughs)  # and not a shadow as a whole
    assert shade[66:].abs().max() < 0.02
    # both halves alike, and less where brows are drawn together besides
    torch.testing.assert_close(shade, shade.flip(1), atol=2e-3, rtol=0)
    assert drawn(change(AU1=1.0, AU2=1.0, AU4=0.6))[FOREHEAD].min() > shade[FOREHEAD].min() + 0.02


def test_the_inner_brow_folds_the_middle_and_the_outer_the_ends() -> None:
    inner, outer = (drawn(change(**{name: 1.0})) for name in ("AU1", "AU2"))
    assert inner[FOREHEAD][:, 34:42].min() < -0.15 and inner[:64, :85].min() > -0.05
    one = drawn(change(AU2=(0.0, 1.0)))  # the person's right: on the picture's left
    assert outer[:64, 85:100].min() < -0.07
    assert one[:64, 85:100].min() < -0.07 and one[:64, 156:171].min() > -0.02


def test_raised_cheeks_fold_skin_beside_the_eyes() -> None:
    shade = drawn(change(AU6=1.0))
    for part in BESIDE_EYES:
        assert shade[part].min() < -0.1
    assert elsewhere(shade, *BESIDE_EYES, around=6) < 0.01


def test_a_wrinkled_nose_folds_at_its_root() -> None:
    shade = drawn(change(AU9=1.0))
    assert shade[NOSE_ROOT].min() < -0.2
    assert elsewhere(shade, NOSE_ROOT) < 0.03


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


def test_noise_of_a_camera_neither_hides_folds_nor_lets_them_flicker() -> None:
    asked = change(AU1=1.0, AU2=1.0, AU4=0.0, AU6=1.0)
    clean = drawn(asked)
    frames = []
    for seed in range(6):
        noise = torch.randn(1, 3, *HW, generator=torch.Generator().manual_seed(seed)) * 4 / 255
        frames.append(drawn(asked, (plain((0.55, 0.42, 0.35)) + noise).clamp(0, 1)))
    shown = torch.stack(frames)
    for part in (FOREHEAD, *BESIDE_EYES):
        least = torch.stack([f[part].min() for f in shown])
        assert least.mean() < 0.9 * clean[part].min()
        assert least.std() < 0.03 * least.mean().abs()


def test_folds_go_where_the_skin_goes() -> None:
    still, moved = (drawn(change(AU4=1.0), moved_px=d) for d in ((0.0, 0.0), (4.0, 6.0)))
    torch.testing.assert_close(moved[82:104, 60:200], still[76:98, 56:196], atol=2e-3, rtol=0)
    # whether there is skin is asked where it was
    dark = plain()
    dark[:, :, 70 - Y_LOOK : 82 - Y_LOOK, 118 - X_LOOK : 139 - X_LOOK] = 0.05
    hidden = drawn(change(AU4=1.0), dark, moved_px=(4.0, 20.0))
    assert hidden.min() > 0.5 * moved.min()
    # above the look skin is not moved, and what folds there stays
    asked = change(AU1=1.0, AU2=1.0)
    still, moved = (drawn(asked, moved_px=d) for d in ((0.0, 0.0), (0.0, -8.0)))
    top = [troughs_of(shade[:, 128])[0] for shade in (still, moved)]
    assert abs(top[0] - top[1]) <= 2


def test_rows_of_a_batch_are_drawn_apart_and_edges_fade() -> None:
    folds = Folds()
    xy = torch.cat([landmarks(), landmarks() + torch.tensor([3.0, -2.0])])
    own = torch.zeros(2, 2 * NUM_AUS)
    wanted = torch.cat([change(AU4=1.0), change(AU1=1.0, AU2=1.0, AU6=0.7)])
    pictures = torch.cat([plain(), plain((0.4, 0.3, 0.2))])
    both = folds(pictures, xy, xy, own, wanted)
    for i in (0, 1):
        alone = folds(*(t[i : i + 1] for t in (pictures, xy, xy, own, wanted)))
        torch.testing.assert_close(both[i : i + 1], alone)
    high = landmarks() - torch.tensor([0.0, 34.0])
    shade = folds(plain(), high, high, own[:1], wanted[1:])
    assert shade.abs().max() > 0.1 and shade[0, 0, :1].abs().max() < 0.01


def test_half_the_depth_is_half_as_dark() -> None:
    xy, asked = landmarks(), change(AU4=1.0)
    whole, half = (Folds(d)(plain(), xy, xy, change(), asked) for d in (1.0, 0.5))
    torch.testing.assert_close(half.min(), whole.min() / 2, atol=0.005, rtol=0)


def test_generator_shades_folds_into_its_answer_in_use_and_not_in_training() -> None:
    network = get_config("rt-small").network
    assert network.fold_depth == 1.0
    net = build(network).eval()
    plain_net = build(replace(network, fold_depth=0.0)).eval()
    assert set(net.state_dict()) == set(plain_net.state_dict())
    plain_net.load_state_dict(net.state_dict())
    for n in (net, plain_net):
        mesh = n.generator.mesh
        assert mesh is not None
        # a pixel for each of the model's units, and AU4 puts everything 6 px lower
        mesh.pose.bias.data = torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0, 0.0])
        mesh.by_unit.data[2 * AuId.AU4.index : 2 * AuId.AU4.index + 2, :, 1] = -3.0
    calm, frown = (torch.zeros(1, NUM_AUS, 2) for _ in range(2))
    frown[0, AuId.AU4.index] = 1.0
    own, wanted = net.label_tokens(calm), net.label_tokens(frown)
    # tokens say intensities by a map that training finds; here by least squares
    one = torch.eye(2 * NUM_AUS).reshape(2 * NUM_AUS, NUM_AUS, 2)
    tokens = net.label_tokens(one) - own
    for n in (net, plain_net):
        for k in range(NUM_AUS):
            n.generator.get_buffer("tokens_to_aus")[k] = torch.linalg.pinv(
                tokens[2 * k : 2 * k + 2, k]
            )
    picture = torch.tensor(SKIN)[None, :, None, None].expand(1, 3, 256, 256).contiguous()
    features = net.encoder.stem(look(picture))
    with torch.no_grad():
        answer, without, at_rest = (
            n.generator(features, own, t, 256, landmarks())
            for n, t in ((net, wanted), (plain_net, wanted), (net, own))
        )
        half = net.generator(features, own, wanted, 128, landmarks())
        half_without = plain_net.generator(features, own, wanted, 128, landmarks())
    drawn_log2 = torch.log2(answer.shade / without.shade)[0, 0]
    lowest = divmod(int(drawn_log2.argmin()), 256)
    assert drawn_log2.min() < -0.3
    assert 66 <= lowest[0] < 88 and 116 <= lowest[1] < 141  # six pixels below where they are
    torch.testing.assert_close(
        answer.shade_log2_raw - without.shade_log2_raw, drawn_log2[None, None], atol=0.02, rtol=0
    )
    torch.testing.assert_close(at_rest.shade, torch.ones_like(at_rest.shade), atol=0.05, rtol=0)
    assert torch.equal(answer.flow_xy, without.flow_xy)
    shrunk = torch.log2(half.shade / half_without.shade)[0, 0]
    assert shrunk.shape == (128, 128)
    whole = torch.nn.functional.avg_pool2d(drawn_log2[None, None], 2)[0, 0]
    torch.testing.assert_close(shrunk, whole, atol=0.02, rtol=0)
    # training sees none
    net.generator.train()
    plain_net.generator.train()
    trained, same = (n.generator(features, own, wanted, 256, landmarks()) for n in (net, plain_net))
    torch.testing.assert_close(trained.shade, same.shade)


@pytest.mark.parametrize("index", range(len(FOLDS)))
def test_every_line_is_drawn_by_some_unit_and_hangs_on_the_face(index: int) -> None:
    fold = FOLDS[index]
    for anchor in fold.through:
        assert sum(weight for _, weight in anchor) == pytest.approx(1.0)
    folds = Folds()
    start = sum(f.points for f in FOLDS[:index])
    own = slice(start, start + fold.points)
    torch.testing.assert_close(
        folds.get_buffer("along").sum(0), torch.ones(len(folds.get_buffer("along")))
    )
    most = folds.get_buffer("units")[:, own].clamp(min=0).sum(0)
    assert most.min() > 0.3 and fold.depth > 0
    place = folds.get_buffer("place")[own]
    torch.testing.assert_close(place.sum(1), torch.ones(fold.points))
    # on the face, and in order from place to place
    xy = place @ landmarks()[0, folds.get_buffer("used")]
    assert xy[:, 0].min() > 60 and xy[:, 0].max() < 196 and 44 < xy[:, 1].min() < 110
    steps = (xy[1:] - xy[:-1]).norm(dim=1)
    assert steps.max() < 2.5 * fold.width_px and steps.min() > 0.2
