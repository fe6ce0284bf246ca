"""The matrix of single gains, on a made-up model whose faults are known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rt_swap.aus import AU_NAMES, NUM_AUS, AuId
from rt_swap.contract import TOKEN_DIM
from rt_swap.errors import ConfigError
from rt_swap.frames import TrackedFace
from tests.support.tiny_model import tiny_bundle
from tests.training.test_evaluate import S, write_shard
from training import evaluate_gains
from training.data.layout import FIELDS_SIDE
from training.evaluate import Quadruple
from training.evaluate_gains import draw, measure, report_of, text
from training.scores import Answer
from training.unit_motion import UnitFields, moved_alone, taken_apart

K12, K6 = AuId.AU12.index, AuId.AU6.index


BLOCK = 8  # cells along a side of the patch that each unit moves, one patch for each
STEP_PX = np.float32(1 / 128)


def made_fields() -> tuple[np.ndarray, np.ndarray]:
    """One picture's: unit u moves its own patch of cells half a pixel, and nothing else."""
    steps = np.zeros((FIELDS_SIDE, FIELDS_SIDE, NUM_AUS, 2, 2), np.int8)
    for unit in range(2 * NUM_AUS):
        y, x = divmod(unit, FIELDS_SIDE // BLOCK)
        at = (slice(BLOCK * y, BLOCK * (y + 1)), slice(BLOCK * x, BLOCK * (x + 1)))
        steps[(*at, *divmod(unit, 2), unit % 2)] = 64
    return steps, np.full((NUM_AUS, 2), STEP_PX, np.float32)


class Points:
    """A tracker whose landmarks are a picture's first two bytes."""

    def at(self, rgb: np.ndarray) -> np.ndarray:
        return np.tile(rgb[0, 0, :2].astype(np.float64), (478, 1))

    def detect(self, frame_bgr: np.ndarray) -> list[TrackedFace]:
        pad = len(frame_bgr) // 6  # a quarter of the crop's side
        rgb = frame_bgr[pad:, pad:, ::-1]
        return [TrackedFace(self.at(rgb) + pad, np.zeros(478), 1.0, 0)]


class Made:
    """Pictures are numbers: a picture's first two bytes say which intensities it shows.

    A reader that sees ``reads`` of every change; a generator whose flow does what the reader saw,
    and moves AU6 by ``leak`` of what AU12 moves.
    """

    def __init__(self, reads: float = 1.0, leak: float = 0.0) -> None:
        self.reads, self.leak = reads, leak
        self.shown: list[np.ndarray] = []
        self.gains: list[np.ndarray] = []

    def picture(self, aus_lr: np.ndarray) -> np.ndarray:
        self.shown.append(aus_lr.astype(np.float64))
        rgb = np.zeros((S, S, 3), np.uint8)
        rgb[0, 0, :2] = divmod(len(self.shown) - 1, 256)
        return rgb

    def _at(self, rgb: np.ndarray) -> int:
        return int(rgb[0, 0, 0]) * 256 + int(rgb[0, 0, 1])

    def encode(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        number = self._at(rgb)
        read = self.reads * self.shown[number]
        return np.full((NUM_AUS, TOKEN_DIM), number, np.float32), read.astype(np.float32)

    def answer(
        self, target_rgb: np.ndarray, tokens: np.ndarray, gains: np.ndarray, landmarks_xy: object
    ) -> Answer:
        assert np.array_equal(landmarks_xy, Points().at(target_rgb))
        own, source = self.shown[self._at(target_rgb)], self.shown[int(tokens[0, 0])]
        self.gains.append(gains)
        change = gains[:, None] * self.reads * (source - own)
        change[K6] += self.leak * change[K12]
        steps, step_px = made_fields()
        cells = -np.einsum("hwksc,ks->chw", steps * step_px[..., None], change)
        flow = cells.repeat(S // FIELDS_SIDE, 1).repeat(S // FIELDS_SIDE, 2).astype(np.float32)
        return Answer(np.zeros((S, S, 3), np.uint8), flow, np.ones((S, S), np.float32))


def quadruples(model: Made, count: int = 3) -> list[Quadruple]:
    rng = np.random.default_rng(0)
    quads = []
    steps, step_px = (np.stack([one] * 4) for one in made_fields())
    for q in range(count):
        aus = rng.uniform(0, 1, (4, NUM_AUS, 2)).astype(np.float32)
        flow, flat = np.zeros((4, 2, S, S), np.float32), np.zeros((4, S, S), np.float32)
        rgb = np.stack([model.picture(a) for a in aus])
        names = (f"a{q}", f"b{q}")
        quads.append(
            Quadruple(
                rgb, flow, flat, flat.astype(np.uint8), aus, np.ones(NUM_AUS, np.float32), names,
                steps, step_px,
            )
        )  # fmt: skip
    return quads


def test_a_model_that_does_as_told_has_the_identity() -> None:
    model = Made()
    gains = measure(model, quadruples(model), Points(), np.random.default_rng(0), cases=5)
    # patches end abruptly, and what moves takes its patch's edge along: 0.1 of a cell
    np.testing.assert_allclose(gains.response, np.eye(NUM_AUS), atol=0.04)
    np.testing.assert_allclose(gains.reads, 1.0, atol=1e-5)
    assert (gains.beside < 0.2).all()
    assert (gains.cases == 5).all()
    # one gain at a time
    assert all(g.sum() == g.max() == 1 for g in model.gains)


def test_what_moves_besides_and_what_the_reader_misses_are_told_apart() -> None:
    model = Made(reads=0.5, leak=0.4)
    gains = measure(model, quadruples(model), Points(), np.random.default_rng(0), cases=5)
    want = 0.5 * np.eye(NUM_AUS)
    want[K12, K6] += 0.2
    np.testing.assert_allclose(gains.response, want, atol=0.04)
    np.testing.assert_allclose(gains.reads, 0.5, atol=1e-5)
    assert gains.beside[K12] == pytest.approx(0.2, abs=0.05)
    line = next(line for line in text(gains).splitlines() if line.startswith("AU12 "))
    assert "AU12       5   0.50   0." in line
    assert re.search(r"   AU6 \+0\.[12]", line)
    report = report_of(gains)
    assert report["response"]["AU12"]["AU6"] == pytest.approx(0.2, abs=0.04)
    assert report["own_median"] == pytest.approx(0.5, abs=0.02)
    assert report["reads_median"] == pytest.approx(0.5, abs=1e-4)


def test_what_goes_the_other_way_is_negative_and_painted_places_do_not_count() -> None:
    flow = np.zeros((2, S, S), np.float32)
    quad = quadruples(Made(), 1)[0]
    fields = UnitFields.of(quad, 0)
    size = S // FIELDS_SIDE
    y, x = divmod(2 * K6, FIELDS_SIDE // BLOCK)
    patch = (slice(BLOCK * size * y, BLOCK * size * (y + 1)),)
    patch += (slice(BLOCK * size * x, BLOCK * size * (x + 1)),)
    flow[(0, *patch)] = 0.5  # fetched from the right: it goes left, AU6's left side goes right
    keep = np.ones((S, S), np.float32)
    whole = np.array([1.0, 1.0])
    apart = taken_apart(fields, flow, keep, K6, whole)
    assert apart.motion_px[K6] == pytest.approx(-0.5 * apart.asked_px, rel=1e-3)
    assert apart.asked_px == pytest.approx(0.5 * np.sqrt(2 * BLOCK**2 / FIELDS_SIDE**2))
    keep[patch] = 0.0
    apart = taken_apart(fields, flow, keep, K6, whole)
    assert apart.motion_px[K6] == 0 and apart.other_px == 0


def test_a_unit_alone_is_followed_where_it_goes() -> None:
    """A jaw of 14 px, whose field is another where the skin comes to lie than where it came from:
    the fields have to go with the skin, or a fifth of the answer is taken for something else.
    """
    cells = (np.arange(FIELDS_SIDE) + 0.5) * (S / FIELDS_SIDE)
    x, y = np.meshgrid(cells, cells)
    bump = np.exp(-((x - 128) ** 2 + (y - 150) ** 2) / (2 * 30.0**2))
    moved = np.zeros((FIELDS_SIDE, FIELDS_SIDE, 2 * NUM_AUS, 2), np.float32)
    moved[:, :, 2 * K12, 1] = moved[:, :, 2 * K12 + 1, 1] = 10.0 * bump
    moved[:, :, 2 * K6, 0] = 3.0 * np.exp(-((x - 90) ** 2 + (y - 90) ** 2) / 800.0)
    fields = UnitFields(moved, np.ones((FIELDS_SIDE, FIELDS_SIDE), bool), S)
    change = np.array([0.7, 0.7])
    # the true answer, at every pixel: what is here came from y0 with y0 + 14 bump(y0) = y
    at = np.arange(S) + 0.5
    px, py = np.meshgrid(at, at)
    y0 = py.copy()
    for _ in range(60):
        y0 = py - 14.0 * np.exp(-((px - 128) ** 2 + (y0 - 150) ** 2) / (2 * 30.0**2))
    flow = np.stack([np.zeros_like(y0), y0 - py]).astype(np.float32)
    keep = np.ones((S, S), np.float32)
    apart = taken_apart(moved_alone(fields, K12, change), flow, keep, K12, change)
    assert apart.motion_px[K12] == pytest.approx(apart.asked_px, rel=0.01)
    assert apart.other_px < 0.02 * apart.asked_px
    left_behind = taken_apart(fields, flow, keep, K12, change)
    assert left_behind.other_px > 0.1 * left_behind.asked_px


def test_shards_without_fields_are_refused() -> None:
    model = Made()
    quads = [replace(quad, fields=None, step_px=None) for quad in quadruples(model)]
    with pytest.raises(ConfigError, match="without the fields of units"):
        measure(model, quads, Points(), np.random.default_rng(0))


def test_a_side_alone_is_change_enough() -> None:
    model = Made()
    quads = quadruples(model)
    for q, quad in enumerate(quads):
        quad.aus_lr[:, K12] = 0.0
        quad.aus_lr[0, K12, 1] = 0.4
        model.shown[4 * q : 4 * q + 4] = quad.aus_lr.astype(np.float64)
    gains = measure(model, quads, Points(), np.random.default_rng(0), cases=3)
    assert gains.cases[K12] == 3
    assert gains.response[K12, K12] == pytest.approx(1.0, abs=0.04)


def test_an_au_that_no_pair_shows_is_said_and_left_out() -> None:
    model = Made()
    quads = quadruples(model)
    for quad in quads:
        quad.aus_lr[:, K12] = 0.5
    gains = measure(model, quads, Points(), np.random.default_rng(0), cases=3)
    assert gains.cases[K12] == 0
    assert np.isnan(gains.response[K12]).all()
    assert "no pair of pictures" in text(gains)
    assert np.isfinite(report_of(gains)["own_median"])
    grey = draw(gains)[64 + K12 * 26 + 3, 64 + 3]
    assert grey.tolist() == [200, 200, 200]


def test_pairs_are_of_different_people() -> None:
    model = Made()
    quads = quadruples(model, 1)
    alone = [Quadruple(**{**vars(quads[0]), "people": ("a", "a")})]
    with pytest.raises(ConfigError, match="no two pictures of different people"):
        measure(model, alone, Points(), np.random.default_rng(0))


def test_main_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2

    shard = write_shard(tmp_path / "s")
    steps, step_px = made_fields()
    np.save(shard / "fields.npy", np.tile(steps, (2, 4, 1, 1, 1, 1, 1)))
    np.save(shard / "step_px.npy", np.tile(step_px, (2, 4, 1, 1)))
    bundle = tiny_bundle(tmp_path / "bundle")
    out, sheet = tmp_path / "g.json", tmp_path / "g.png"
    options = ["--model", str(bundle), "--val-shards", str(tmp_path / "s"), "--cases", "1"]
    assert evaluate_gains.main([*options, "--json", str(out), "--sheet", str(sheet)]) == 0
    assert "gain of one AU" in capsys.readouterr().out
    assert set(json.loads(out.read_text())["response"]) == set(AU_NAMES)
    assert cv2.imread(str(sheet)).shape == (64 + 26 * NUM_AUS,) * 2 + (3,)
    assert evaluate_gains.main([*options, "--limit", "0"]) == 2
    assert "must be 1 or more" in capsys.readouterr().err
