"""Fitting and re-rendering a real face (the public-domain astronaut), with the truth the renderer
claims.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.errors import ConfigError
from training.data.dataset import ShardSet
from training.data.denture import draw_denture
from training.data.layout import FIELDS_SIDE, FLOW_UNITS_PER_PX, FORMAT, NOTHING
from training.data.nudge import added, way_back
from training.data.portraits import Portrait, crop_jitter, list_portraits
from training.data.preview import main as preview_main
from training.data.preview import warped
from training.data.render import REGIONS, Person, Picture, trusted
from training.data.sequences import render as render_sequence
from training.data.shards import FOLD_DEPTHS, in_steps, write_shard
from training.data.shards import main as shards_main
from training.evaluate import Quadruple
from training.networks.mouth import DENTURE_HW
from training.unit_motion import UnitFields, moved_alone, taken_apart


def expression(engine, **units: float):
    aus = np.zeros((NUM_AUS, 2), np.float32)
    for name, value in units.items():
        aus[AuId[name].index] = value
    return engine.model.coefficients_from_aus(aus)


def descriptor(engine, rgb) -> dict[str, float]:
    """Openings read by mediapipe off a rendered crop, in outer canthal distances."""
    faces = engine._tracker.detect(np.ascontiguousarray(rgb[..., ::-1]))
    assert faces, "the re-rendered face is no face to mediapipe"
    p = faces[0].landmarks_xy
    unit = np.linalg.norm(p[33] - p[263])
    return {
        "mouth": float(np.linalg.norm(p[13] - p[14]) / unit),
        "width": float(np.linalg.norm(p[61] - p[291]) / unit),
        "eyes": float(
            (np.linalg.norm(p[159] - p[145]) + np.linalg.norm(p[386] - p[374])) / 2 / unit
        ),
        "brows": float((p[[159, 386], 1] - p[[105, 334], 1]).mean() / unit),
    }


def test_fit_meets_the_landmarks(engine, astronaut_file: Path) -> None:
    picture = cv2.imread(str(astronaut_file))
    fit, xy = engine.fit(picture)
    pairs = engine.fitter.pairs
    vertices = engine.fitter.shape(engine.fitter.identity_shape(fit.identity), fit.expression)
    projected = engine.fitter.project(fit, vertices)[pairs.vertices, :2]
    inner = ~pairs.is_contour
    unit = np.linalg.norm(xy[33] - xy[263])
    miss = np.linalg.norm(projected - xy[pairs.landmarks], axis=1)[inner] / unit
    assert fit.error < 0.05 and np.sqrt((miss**2).mean()) < 0.4 * fit.error
    assert fit.expression.min() >= 0 and fit.expression.max() <= 1
    # she smiles
    assert fit.expression[engine.model.shape_index["mouthSmile_L"]] > 0.3


def test_fit_recovers_what_it_projected(engine) -> None:
    """Landmarks made by the model itself: pose and the clear shapes come back."""
    fitter = engine.fitter
    rng = np.random.default_rng(0)
    identity = rng.normal(0, 0.6, 60).astype(np.float32)
    truth = expression(engine, AU26=0.7, AU12=0.5)
    vertices = fitter.shape(fitter.identity_shape(identity), truth)
    c, s = np.cos(0.25), np.sin(0.25)
    rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    seen = vertices @ rotation.T * 20
    landmarks, depth = np.zeros((478, 2)), np.zeros(478)
    landmarks[fitter.pairs.landmarks] = seen[fitter.pairs.vertices, :2] * [1, -1] + 300
    depth[fitter.pairs.landmarks] = -seen[fitter.pairs.vertices, 2]
    for (_, pupil), landmark in zip(fitter._pupil.items(), (473, 468), strict=True):
        landmarks[landmark] = (seen[pupil, :2] * [1, -1] + 300).mean(0)
    fit = fitter.fit(landmarks, depth)
    index = engine.model.shape_index
    assert fit.yaw_deg == pytest.approx(np.degrees(0.25), abs=2)
    assert fit.scale == pytest.approx(20, rel=0.06)
    assert fit.expression[index["jawOpen"]] == pytest.approx(0.7, abs=0.2)
    assert fit.expression[index["mouthSmile_L"]] == pytest.approx(0.5, abs=0.25)


def test_render_own_expression_gives_the_portrait_back(engine, astronaut) -> None:
    person, untouched = astronaut
    picture, _ = person.render_pair(person.expression, person.expression)
    difference = np.abs(picture.rgb.astype(int) - untouched)
    assert np.quantile(difference, 0.99) <= 6
    assert np.abs(picture.flow_xy).max() < 0.02
    assert (picture.keep > 0.95).mean() > 0.98
    np.testing.assert_allclose(picture.shade, 1, atol=1e-3)


@pytest.mark.parametrize(
    ("units", "key", "sign"),
    [
        ({"AU26": 0.8}, "mouth", 1),
        ({"AU12": 0.9}, "width", 1),
        ({"AU18": 0.9}, "width", -1),
        ({"AU45": 1.0}, "eyes", -1),
        ({"AU1": 1.0, "AU2": 1.0}, "brows", 1),
        ({"AU4": 1.0}, "brows", -1),
    ],
)
def test_render_shows_the_au_asked_for(engine, astronaut, units, key: str, sign: int) -> None:
    person, _ = astronaut
    shown, rest = person.render_pair(expression(engine, **units), expression(engine))
    change = descriptor(engine, shown.rgb)[key] - descriptor(engine, rest.rgb)[key]
    assert sign * change > 0.02, f"{key} changed by {change:.3f}"


def test_render_truth_carries_one_picture_onto_the_other(engine, astronaut) -> None:
    person, _ = astronaut
    laugh = expression(engine, AU12=0.9, AU6=0.7, AU26=0.4, AU10=0.4)
    shown, rest = person.render_pair(laugh, expression(engine))
    for picture, partner in ((shown, rest), (rest, shown)):
        trusted = picture.keep > 0.95
        unchanged = np.abs(partner.rgb.astype(float) - picture.rgb)[trusted].mean()
        carried = np.abs(warped(partner.rgb, picture).astype(float) - picture.rgb)[trusted].mean()
        assert carried < 0.35 * unchanged
    # the opened mouth cannot be fetched from the closed one
    interior = shown.region == REGIONS.index("mouth_interior")
    assert interior.sum() > 150 and (shown.keep[interior] < 0.5).mean() > 0.8


@pytest.mark.parametrize("mixed", [False, True])
def test_fields_of_units_add_up_to_the_flow(engine, astronaut, stretched, mixed: bool) -> None:
    """Unit by unit and for a crowd of them: a face is linear in its units, but for eyeballs, which
    turn. Compared around the middle of each cell, where a batch takes them to be.
    """
    person = astronaut[0].mixed(stretched, 0.6, 0.0) if mixed else astronaut[0]
    rest = np.zeros((NUM_AUS, 2), np.float32)
    asked = [{k: 0.8} for k in ("AU45", "AU17", "AU61", "AU26")] + [
        {"AU12": 0.9, "AU26": 0.5, "AU45": 0.6, "AU30": 0.4}
    ]
    for units in asked[3:] if mixed else asked:
        a = rest.copy()
        for name, value in units.items():
            a[AuId[name].index] = value
        a[AuId.AU2.index] = 0.7, 0.1
        pair = person.render_pair(*(engine.model.coefficients_from_aus(x) for x in (a, rest)))
        for picture, change in zip(pair, (rest - a, a - rest), strict=True):
            added = (picture.unit_fields * change.reshape(-1, 1)).sum(2)
            flow = picture.flow_xy.reshape(2, 64, 4, 64, 4)[:, :, 1:3, :, 1:3].mean((2, 4))
            keep = picture.keep.reshape(64, 4, 64, 4).min((1, 3))
            seen = (keep > 0.9) & ~np.isnan(added[..., 0])
            off = np.linalg.norm(added - flow.transpose(1, 2, 0), axis=-1)
            region = picture.region[2::4, 2::4]
            for name, limit in (("skin", 0.1), ("lids", 0.3), ("lips", 0.2), ("eyeball", 0.8)):
                of = seen & (region == REGIONS.index(name))
                if of.sum() > 5:
                    assert np.median(off[of]) < limit, (units, name)
            assert seen.sum() > 800


@pytest.mark.parametrize(
    ("name", "change_lr"),
    [("AU1", (0.8, 0.8)), ("AU12", (0.8, 0.8)), ("AU12", (0.0, 0.7)), ("AU20", (0.7, 0.4))]
    + [("AU26", (0.8, 0.8)), ("AU30", (0.0, 0.7)), ("AU62", (0.7, 0.7))],
)
def test_a_rendered_unit_alone_is_taken_apart_as_itself(
    engine, astronaut, name: str, change_lr: tuple[float, float]
) -> None:
    """The judge of training.evaluate_gains, on a picture whose answer the engine renders."""
    au = AuId[name].index
    rest = np.zeros((NUM_AUS, 2), np.float32)
    alone = rest.copy()
    alone[au] = change_lr
    before, after = astronaut[0].render_pair(
        *(engine.model.coefficients_from_aus(x) for x in (rest, alone))
    )
    steps, step_px = in_steps(before.unit_fields)
    quad = Quadruple(
        before.rgb[None], before.flow_xy[None], before.keep[None], before.region[None],
        rest[None], rest[:, 0], ("a", "b"), steps[None], step_px[None],
    )  # fmt: skip
    fields = moved_alone(UnitFields.of(quad, 0), au, alone[au])
    apart = taken_apart(fields, after.flow_xy, after.keep, au, alone[au])
    share = apart.motion_px / apart.asked_px
    assert share[au] == pytest.approx(1.0, abs=0.1)
    assert np.abs(np.delete(share, au)).max() < 0.15
    assert apart.other_px < 0.25 * apart.asked_px
    # told of another unit, it finds little of that one and much else
    other = AuId.AU33.index
    wrong = taken_apart(fields, after.flow_xy, after.keep, other, alone[au])
    assert abs(wrong.motion_px[other]) < 0.5 * apart.asked_px
    assert wrong.other_px > 0.8 * apart.asked_px


@pytest.mark.parametrize("units", [{"AU12": 0.4}, {"AU1": 0.5, "AU2": 0.5, "AU17": 0.4}])
def test_a_nudged_picture_is_nearly_the_rendered_one(engine, astronaut, units) -> None:
    rest = np.zeros((NUM_AUS, 2), np.float32)
    change = rest.copy()
    for name, value in units.items():
        change[AuId[name].index] = value
    before, after = astronaut[0].render_pair(
        *(engine.model.coefficients_from_aus(x) for x in (rest, change))
    )
    back, made = way_back(*in_steps(before.unit_fields), change, 256)
    np.testing.assert_array_equal(made, change)
    at = np.arange(256, dtype=np.float32)
    x, y = added((np.tile(at, (256, 1)), np.tile(at[:, None], 256)), back, 256)
    nudged = cv2.remap(before.rgb, x, y, cv2.INTER_LINEAR)
    moved = (np.linalg.norm(after.flow_xy, axis=0) > 0.5) & (after.keep > 0.9)
    assert moved.sum() > 2000
    off = [np.abs(p.astype(float) - after.rgb)[moved].mean() for p in (before.rgb, nudged)]
    assert off[1] < 0.45 * off[0]


def test_fields_of_units_survive_eight_bits() -> None:
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(FIELDS_SIDE, FIELDS_SIDE, 2 * NUM_AUS, 2)).astype(np.float32)
    fields[..., 3, :] *= 20
    fields[..., 5, :] = 0
    fields[:4] = np.nan
    steps, step_px = in_steps(fields)
    assert (steps[:4] == NOTHING).all() and (steps[4:] > NOTHING).all()
    back = steps[4:].reshape(-1, 2 * NUM_AUS, 2) * step_px.reshape(-1, 1)
    largest = np.abs(fields[4:]).max((0, 1, 3))[:, None]
    assert (np.abs(back - fields[4:].reshape(back.shape)) <= largest / 253).all()


def test_lids_out_of_a_dark_fold_are_lit_like_the_skin_below(engine, astronaut) -> None:
    """Skin that is stretched where none was seen is no pit; what is bright enough stays."""
    person, _ = astronaut
    closed = person._position(expression(engine, AU45=1.0))
    part = np.zeros((512, 512), np.int8)  # all of it face
    surface = replace(person._state.every(1), part=part)
    lid = np.ones((512, 512), np.float32)
    skin = np.full((512, 512, 3), (150.0, 120.0, 100.0), np.float32)
    np.testing.assert_allclose(person._lift_lids(skin, lid, surface, closed), skin, rtol=1e-5)
    rim = person._fitter.lids["L"][0]
    x, y = (closed[rim, :2].mean(0) * 2).astype(int)
    pit = skin.copy()
    pit[y - 20 : y, x - 15 : x + 15] *= 0.35
    lifted = person._lift_lids(pit, lid, surface, closed)
    inside = (slice(y - 12, y - 8), slice(x - 4, x + 4))
    assert 1.4 * pit[inside].mean() < lifted[inside].mean() < skin[inside].mean()
    untouched = person._lift_lids(pit, 0 * lid, surface, closed)
    np.testing.assert_array_equal(untouched, pit)


def test_opened_eyes_cannot_be_fetched_from_closed_ones(engine, astronaut) -> None:
    person, _ = astronaut
    _, opened = person.render_pair(expression(engine, AU45=1.0), expression(engine))
    eyes = opened.region == REGIONS.index("eyeball")
    assert eyes.sum() > 150 and (opened.keep[eyes] < 0.5).mean() > 0.9
    # eyes that are open in both, gaze turned: most can
    aside, _ = person.render_pair(expression(engine, AU61=0.8), expression(engine))
    eyes = aside.region == REGIONS.index("eyeball")
    assert (aside.keep[eyes] > 0.5).mean() > 0.6


def test_trusted_is_less_where_what_is_fetched_looks_otherwise() -> None:
    size = 64
    grey = np.full((size, size, 3), 100, np.uint8)
    region = np.full((size, size), REGIONS.index("skin"), np.uint8)
    region[:, 32:] = REGIONS.index("lids")
    shown = grey.copy()
    shown[:16] += 40  # nothing like it
    shown[16:32] += 18  # half
    shown[32:48] += 5  # as good as it
    shown[48:] = 200  # explained by the shade
    shade = np.ones((size, size), np.float32)
    shade[48:] = 2.0
    picture = Picture(
        rgb=shown,
        flow_xy=np.zeros((2, size, size), np.float32),
        keep=np.ones((size, size), np.float32),
        shade=shade,
        region=region,
        unit_fields=np.zeros((FIELDS_SIDE, FIELDS_SIDE, 2 * NUM_AUS, 2), np.float32),
    )
    keep = trusted(picture, grey)
    assert (keep[:, :32] == 1).all()  # elsewhere the light may differ
    rows = [8, 24, 40, 56]
    np.testing.assert_allclose(keep[rows, 48], [0.0, 0.5, 1.0, 1.0], atol=1e-5)
    assert (trusted(replace(picture, keep=0 * picture.keep), grey) == 0).all()


def test_render_leaves_the_surroundings_alone(engine, astronaut) -> None:
    person, untouched = astronaut
    shown, _ = person.render_pair(expression(engine, AU12=0.9, AU26=0.5), person.expression)
    border = np.ones((256, 256), bool)
    border[12:-4, 16:-16] = False
    difference = np.abs(shown.rgb.astype(int) - untouched)[border]
    assert np.quantile(difference, 0.98) <= 3 and difference.mean() < 0.6


@pytest.fixture(scope="session")
def stretched(engine, astronaut_file: Path):
    """The astronaut with a longer face and another tint: somebody else, for the engine."""
    picture = cv2.imread(str(astronaut_file))
    picture = cv2.resize(picture, None, fx=1.0, fy=1.25)
    picture = (picture * np.array([1.0, 0.85, 0.7])).astype(np.uint8)
    path = astronaut_file.with_name("stretched.png")
    cv2.imwrite(str(path), picture)
    made = engine.person(Portrait(path, "test", "stretched"), 256)
    assert not isinstance(made, str), made
    return made[0]


def test_mixed_with_nobody_is_the_same_person(engine, astronaut, stretched) -> None:
    person, _ = astronaut
    pair = expression(engine, AU12=0.8), expression(engine)
    for plain, mixed in zip(
        person.render_pair(*pair), person.mixed(stretched, 0.0, 0.0).render_pair(*pair), strict=True
    ):
        for name in ("rgb", "flow_xy", "keep", "shade", "region", "unit_fields"):
            np.testing.assert_array_equal(getattr(plain, name), getattr(mixed, name), err_msg=name)


def test_mixed_shape_lies_between_and_its_truth_holds(engine, astronaut, stretched) -> None:
    person, _ = astronaut
    rest, smile = expression(engine), expression(engine, AU12=0.8, AU26=0.3)

    def length(someone) -> float:
        """Of the face, from brows to chin, by its width."""
        xy = engine._tracker.detect(
            np.ascontiguousarray(someone.render_pair(rest, rest)[0].rgb[..., ::-1])
        )[0].landmarks_xy
        return float(np.linalg.norm(xy[9] - xy[152]) / np.linalg.norm(xy[234] - xy[454]))

    new = person.mixed(stretched, 0.5, 0.0)
    one, middle, other = length(person), length(new), length(stretched)
    assert one + 0.02 < middle < other - 0.02
    shown, still = new.render_pair(smile, rest)
    seen = shown.keep > 0.95
    unchanged = np.abs(still.rgb.astype(float) - shown.rgb)[seen].mean()
    carried = np.abs(warped(still.rgb, shown).astype(float) - shown.rgb)[seen].mean()
    assert carried < 0.35 * unchanged
    # the other's skin beside mouth and eyes goes along with the skin it is on
    both = person.mixed(stretched, 0.5, 0.6)
    pairs = ((expression(engine, AU26=0.8), rest), (rest, expression(engine, AU45=1.0)))
    for shown, still in (both.render_pair(*pair) for pair in pairs):
        near = cv2.dilate(
            np.isin(shown.region, [REGIONS.index(n) for n in ("mouth_interior", "eyeball")])
            .astype(np.uint8), np.ones((25, 25))
        )  # fmt: skip
        skin = (near > 0) & (shown.keep > 0.95) & (shown.region == REGIONS.index("skin"))
        off = np.abs(warped(still.rgb, shown).astype(float) - shown.rgb)[skin].mean()
        assert skin.sum() > 100 and off < 3.0
    # blinking still closes the eyes of a face that nobody has
    shut, opened = new.render_pair(expression(engine, AU45=1.0), rest)
    eyeball = REGIONS.index("eyeball")
    assert (shut.region == eyeball).sum() < 0.15 * (opened.region == eyeball).sum()


def test_mixed_skin_is_new_inside_the_face_only(engine, astronaut, stretched) -> None:
    person, _ = astronaut
    rest = expression(engine)
    plain = person.render_pair(rest, rest)[0]
    mixed = person.mixed(stretched, 0.0, 0.5).render_pair(rest, rest)[0]
    changed = np.abs(plain.rgb.astype(int) - mixed.rgb).mean(2)
    skin = plain.region == REGIONS.index("skin")
    assert (changed[skin] > 2).mean() > 0.2
    around = changed[plain.region == REGIONS.index("background")]
    assert (around == 0).mean() > 0.98 and around.max() < 3  # at the face's very edge
    assert changed[plain.region == REGIONS.index("eyeball")].mean() < 1.5  # at the rims
    # brought to her own colour, so the tint of the other does not come along
    difference = mixed.rgb[skin].astype(float).mean(0) - plain.rgb[skin].mean(0)
    assert np.abs(difference).max() < 8


def test_mixed_shard_names_both_people_and_repeats(
    engine, astronaut_file: Path, stretched, tmp_path: Path
) -> None:
    mirrored = astronaut_file.with_name("mirrored2.png")
    cv2.imwrite(str(mirrored), cv2.imread(str(astronaut_file))[:, ::-1])
    portraits = [
        Portrait(astronaut_file, "test", "a"),
        Portrait(astronaut_file.with_name("stretched.png"), "test", "b"),
        Portrait(mirrored, "test", "c"),
    ]
    for name in "ab":
        said = write_shard(
            engine, portraits, tmp_path / name, 0, split="train", quadruples=5, seed=7, mixed=1.0
        )
    assert said["mixed"] == 1.0
    mixtures = [p for p in said["people"] if "mixed_with" in p]
    assert mixtures
    pairs = [said["people"][i : i + 2] for i in range(0, len(said["people"]), 2)]
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            # neither with oneself nor with whom one swaps
            taken = {f"test/{one['person']}", f"test/{other['person']}"}
            assert one.get("mixed_with") not in taken
            assert one.get("mixed_with") is None or one["mixed_with"] != other.get("mixed_with")
    folders = [tmp_path / n / "shard_00000" for n in "ab"]
    np.testing.assert_array_equal(*(np.load(f / "rgb.npy") for f in folders))


def test_reshaped_by_nothing_is_the_same_person(engine, astronaut, stretched) -> None:
    pair = expression(engine, AU12=0.8), expression(engine)
    plain = astronaut[0].render_pair(*pair)
    same = astronaut[0].reshaped([stretched], 1.0, np.zeros(1, np.float32)).render_pair(*pair)
    for one, other in zip(plain, same, strict=True):
        # a mean and the way from it add up to a float's last digit
        np.testing.assert_allclose(one.flow_xy, other.flow_xy, atol=0.02)
        assert np.abs(one.rgb.astype(int) - other.rgb).mean() < 0.05


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_reshaped_face_is_nobodys_and_its_truth_holds(engine, astronaut, stretched, share) -> None:
    person, _ = astronaut
    if share:  # a mixture's shape may be changed once more, and its skin stays mixed
        person = person.mixed(stretched, share, 0.3)
    rest, smile = expression(engine), expression(engine, AU12=0.8, AU26=0.3)
    before = person.render_pair(smile, rest)
    # away from the other: in the span of the two, and beyond this one
    new = person.reshaped([stretched], 0.9, np.array([-0.8], np.float32))
    mine, theirs, made = person._drawn, stretched._drawn, new._drawn
    for name, scale in (("identity", 1.0), ("residual_xy", mine.scale / theirs.scale)):
        one, other = getattr(mine, name), getattr(theirs, name) * scale
        mean = (one + other) / 2
        want = mean + 0.9 * (one - mean) - 0.8 * (other - mean)
        np.testing.assert_allclose(getattr(made, name), want, atol=1e-3)
    assert (new._other, new._other_share) == (person._other, person._other_share)
    shown, still = new.render_pair(smile, rest)
    assert np.abs(still.rgb.astype(int) - before[1].rgb).mean() > 1.5
    seen = shown.keep > 0.95
    unchanged = np.abs(still.rgb.astype(float) - shown.rgb)[seen].mean()
    carried = np.abs(warped(still.rgb, shown).astype(float) - shown.rgb)[seen].mean()
    assert carried < 0.35 * unchanged
    shut, opened = new.render_pair(expression(engine, AU45=1.0), rest)
    eyeball = REGIONS.index("eyeball")
    assert (shut.region == eyeball).sum() < 0.15 * (opened.region == eyeball).sum()
    # she herself is as she was
    np.testing.assert_array_equal(person.render_pair(smile, rest)[0].rgb, before[0].rgb)


def test_reshaped_shard_says_so_and_repeats(
    engine, astronaut_file: Path, stretched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = astronaut_file.with_name("mirrored3.png")
    cv2.imwrite(str(mirrored), cv2.imread(str(astronaut_file))[:, ::-1])
    files = (astronaut_file, astronaut_file.with_name("stretched.png"), mirrored)
    portraits = [Portrait(file, "test", name) for file, name in zip(files, "abc", strict=True)] + [
        Portrait(astronaut_file, "test", name) for name in "de"
    ]

    def written(name: str, part: float) -> tuple[list[bool], np.ndarray]:
        said = write_shard(
            engine, portraits, tmp_path / name, 0, split="train", quadruples=20, seed=7,
            reshaped=part, pictures_only=True,
        )  # fmt: skip
        assert said["reshaped"] == part
        told = [p.get("reshaped", False) for p in said["people"]]
        return told, np.load(tmp_path / name / "shard_00000" / "rgb.npy")

    def drawn(person, expression):  # a picture of nothing but the shape, at no cost
        said = np.abs(person._drawn.identity).sum() * 1e3 + np.abs(expression).sum() * 1e4
        return np.full((256, 256, 3), int(said) % 251, np.uint8)

    monkeypatch.setattr(Person, "render", drawn)
    told, rgb = written("a", 1.0)
    # neither oneself nor whom one swaps with lends a shape, and one other alone does not either
    assert told[:2] == [False, False] and any(told)
    again, same = written("b", 1.0)
    assert again == told
    np.testing.assert_array_equal(rgb, same)
    assert not any(written("plain", 0.0)[0])
    given = []

    def watched(person, others, own, weights):
        given.append((len(others), own, weights))
        return person

    monkeypatch.setattr(Person, "reshaped", watched)
    _, unshaped = written("c", 1.0)
    assert len(given) == sum(told)
    for lenders, own, weights in given:
        assert lenders == len(weights) > 1 and 0 <= own < 1 and np.abs(weights).max() > 0.01
    # of four quadruples, two pictures each
    differ = (rgb != unshaped).any((2, 3, 4)).reshape(len(told) // 2, 4, 2, 2).any((1, 3))
    assert differ.ravel().tolist() == told


def test_skin_that_folds_shows_it_and_its_truth_says_so(
    engine, astronaut, astronaut_file: Path
) -> None:
    person, _ = astronaut
    rest, frown = expression(engine), expression(engine, AU4=1.0)
    plain, folded = (p.render_pair(frown, rest) for p in (person, person.folding(1.0)))
    for one, other in zip(plain, person.folding(0.0).render_pair(frown, rest), strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
    darker = (folded[0].rgb.mean(2) + 20) / (plain[0].rgb.mean(2) + 20)
    assert 0.6 < darker[56:84, 112:144].min() < 0.9
    # between the brows alone, and skin alone
    assert np.abs(darker[110:] - 1).max() < 0.02
    np.testing.assert_allclose(folded[1].rgb.astype(int), plain[1].rgb, atol=1)
    # what is carried over and shaded by the truth is what is shown
    line = np.zeros((256, 256), bool)
    line[56:84, 112:144] = darker[56:84, 112:144] < 0.92
    assert line.sum() > 15
    off, without = (
        np.abs(warped(folded[1].rgb, said).astype(float) - folded[0].rgb)[line].mean()
        for said in (folded[0], plain[0])
    )
    assert off < 0.4 * without
    # back to rest the same line is brighter by as much
    again = folded[1].shade / plain[1].shade
    assert again.max() > 1.08 and again[110:].max() < 1.02
    np.testing.assert_allclose(person.folding(1.0).render(frown), folded[0].rgb, atol=1)
    small, _ = engine.person(Portrait(astronaut_file, "test", "astronaut"), 128)
    lines = [small.folding(d).render(frown).astype(float).mean(2) for d in (0.0, 1.0)]
    assert (lines[1] - lines[0])[28:42, 56:72].min() < -10
    with pytest.raises(ValueError, match="0 or more"):
        person.folding(-0.5)
    deeper = person.folding(1.8).render(frown).mean(2)
    assert (deeper[line] < folded[0].rgb.mean(2)[line]).mean() > 0.9


def test_folding_shard_says_so_and_repeats(
    engine, astronaut_file: Path, stretched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portraits = [
        Portrait(astronaut_file, "test", "a"),
        Portrait(astronaut_file.with_name("stretched.png"), "test", "b"),
    ]
    given: list[float] = []
    real = Person.folding

    def watched(person, depth):
        given.append(depth)
        return real(person, depth)

    monkeypatch.setattr(Person, "folding", watched)
    arrays = []
    for name, part in (("a", 1.0), ("b", 1.0), ("c", 0.0)):
        said = write_shard(
            engine, portraits, tmp_path / name, 0, split="train", quadruples=1, seed=3,
            folding=part, pictures_only=True,
        )  # fmt: skip
        assert said["folding"] == part
        depths = [person.get("fold_depth") for person in said["people"]]
        assert depths == ([None] * 2 if part == 0 else [round(d, 3) for d in given[-2:]])
        arrays.append(np.load(tmp_path / name / "shard_00000" / "rgb.npy"))
    assert len(given) == 6 and given[:2] == given[2:4] and given[0] != given[1]
    assert given[4:] == [0.0, 0.0]
    assert all(FOLD_DEPTHS[0] <= depth <= FOLD_DEPTHS[1] for depth in given[:4])
    np.testing.assert_array_equal(arrays[0], arrays[1])


def test_crop_jitter_is_small_and_repeats() -> None:
    a, b = (crop_jitter(np.random.default_rng(5), 256) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    middle = a @ np.array([128, 128, 1.0])
    assert np.abs(middle - 128).max() < 25 and abs(np.linalg.det(a[:, :2]) - 1) < 0.4


def test_write_shard_is_deterministic_and_complete(
    engine, astronaut_file: Path, tmp_path: Path
) -> None:
    other = astronaut_file.with_name("mirrored.png")
    cv2.imwrite(str(other), cv2.imread(str(astronaut_file))[:, ::-1])
    broken = astronaut_file.with_name("broken.png")
    broken.write_bytes(b"no picture")
    portraits = [Portrait(p, "test", p.name) for p in (astronaut_file, other, broken)]
    for name in "ab":
        said = write_shard(
            engine, portraits, tmp_path / name, 0, split="train", quadruples=2, seed=7
        )
    assert said["rejected"].get("unreadable", ["test/broken.png"])[0] == "test/broken.png"
    folders = [tmp_path / n / "shard_00000" for n in "ab"]
    for file in sorted(p.name for p in folders[0].glob("*.npy")):
        np.testing.assert_array_equal(
            np.load(folders[0] / file), np.load(folders[1] / file), err_msg=file
        )
    flow = np.load(folders[0] / "flow.npy")
    assert flow.shape == (2, 4, 2, 256, 256) and np.abs(flow).max() > 2 * FLOW_UNITS_PER_PX
    assert json.loads((folders[0] / "shard.json").read_text())["format"] == 3
    assert not list((tmp_path / "a").glob(".partial*"))


def test_pictures_only_are_the_pictures_of_whole_shards_and_nothing_else(
    engine, astronaut_file: Path, tmp_path: Path
) -> None:
    other = astronaut_file.with_name("other.png")
    cv2.imwrite(str(other), cv2.imread(str(astronaut_file))[:, ::-1])
    portraits = [Portrait(p, "test", p.name) for p in (astronaut_file, other)]
    for name, only in (("whole", False), ("only", True)):
        write_shard(
            engine, portraits, tmp_path / name, 0, split="train", quadruples=2, seed=7, mixed=1.0,
            pictures_only=only,
        )  # fmt: skip
    whole, only = (tmp_path / n / "shard_00000" for n in ("whole", "only"))
    assert {p.name for p in only.glob("*.npy")} == {
        "rgb.npy", "aus_lr.npy", "gains.npy", "people.npy", "real.npy"
    }  # fmt: skip
    for name in ("rgb.npy", "aus_lr.npy"):
        np.testing.assert_array_equal(np.load(whole / name), np.load(only / name), err_msg=name)
    read = ShardSet([only])
    assert read.pictures_only == [only] and len(read) == 2


def test_upper_teeth_hang_from_the_skull_and_lower_ones_from_the_jaw(engine, astronaut) -> None:
    denture = draw_denture(engine.model, [astronaut[0]])
    assert denture.layers.shape == (2, 4, *DENTURE_HW)
    assert denture.layers.min() >= 0 and denture.layers.max() <= 1
    heights = []
    for rgb, alpha in ((d[:3], d[3]) for d in denture.layers):
        assert 0.1 < alpha.mean() < 0.5
        white = (rgb.min(0) > 0.45) & (alpha > 0.9)  # teeth, and no gums
        assert white.sum() > 300
        heights.append(np.flatnonzero(white.any(1)).mean())
    assert heights[0] + 6 < heights[1]
    assert not denture.by_unit[0].any()
    np.testing.assert_array_equal(denture.layers, denture.layers[..., ::-1])
    down = denture.by_unit[1, 2 * AuId.AU26.index :][:2, 1, 2].sum()
    assert 25 < down < 45
    aside = denture.by_unit[1, 2 * AuId.AU30.index :][:2, 0, 2]
    assert aside[0] > 4 and aside[1] < -4  # a person's left is on the picture's right


@pytest.mark.parametrize(
    ("name", "value"),
    [("--mixed", "0.5"), ("--reshaped", "0.5"), ("--folding", "0.5"), ("--seed", "3")],
)
def test_shards_cli_refuses_to_go_on_from_shards_made_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    (tmp_path / "p").mkdir()
    cv2.imwrite(str(tmp_path / "p" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    folder = tmp_path / "o" / "shard_00000"
    folder.mkdir(parents=True)
    said = {"format": FORMAT, "seed": 0, "split": "train", "quadruples": 4, "mixed": 0.0}
    (folder / "shard.json").write_text(json.dumps(said))
    code = shards_main(
        ["--portraits", str(tmp_path / "p"), "--ict", str(tmp_path), "--out", str(tmp_path / "o"),
         "--shards", "1", "--quadruples", "4", "--workers", "1", name, value]
    )  # fmt: skip
    assert code == 2
    assert f"with {name[2:]} 0" in capsys.readouterr().err


def test_sequence_answers_are_the_target_with_the_sources_units(
    engine, astronaut, stretched
) -> None:
    made = [
        render_sequence(np.random.default_rng(5), engine, stretched, astronaut[0], 14)
        for _ in range(2)
    ]
    for name, array in vars(made[0]).items():
        np.testing.assert_array_equal(array, getattr(made[1], name), err_msg=name)
    said = made[0]
    # at rest the answer stands still, and what a camera saw of it trembles
    np.testing.assert_array_equal(said.truth[3], said.truth[4])
    assert 0.5 < np.abs(said.target[3].astype(int) - said.target[4]).mean() < 3
    to_shape = engine.model.coefficients_from_aus
    own, truth = astronaut[0].render_pair(
        to_shape(said.target_aus[12]), to_shape(said.source_aus[12])
    )
    np.testing.assert_array_equal(said.truth[12], truth.rgb)
    assert np.abs(said.target[12].astype(int) - own.rgb).mean() < 2
    np.testing.assert_allclose(said.flow[12] / 64.0, truth.flow_xy, atol=0.01)


def test_shards_cli_without_portraits_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = shards_main(
        [
            "--portraits",
            str(tmp_path / "none"),
            "--ict",
            str(tmp_path),
            "--out",
            str(tmp_path / "o"),
        ]
    )
    assert code == 2 and "no folder of portraits" in capsys.readouterr().err


def test_list_portraits_reads_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(
        '{"name": "set", "pictures": [{"file": "b.jpg", "person": "1"}]}'
    )
    assert list_portraits([tmp_path]) == [Portrait(tmp_path / "b.jpg", "set", "1")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no pictures"):
        list_portraits([tmp_path / "empty"])


def test_preview_writes_a_sheet_and_counts_rejects(
    engine, astronaut_file: Path, ict_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sheets = []
    for depth in ("0", "1"):
        out = tmp_path / f"sheet_{depth}.png"
        code = preview_main(
            ["--portraits", str(astronaut_file.parent), "--ict", str(ict_dir), "--out", str(out),
             "--people", "1", "--folding", depth]
        )  # fmt: skip
        assert code == 0
        sheets.append(cv2.imread(str(out)).astype(int))
        assert sheets[-1].shape == (256, 256 * 13, 3)
    assert "1 portraits fitted" in caplog.text
    # the frown of anger, the fifth of the presets, folds the skin between the brows
    darker = (sheets[1] - sheets[0])[60:80, 256 * 5 + 116 : 256 * 5 + 140]
    assert darker.min() < -15
