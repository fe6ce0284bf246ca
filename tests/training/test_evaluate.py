"""The held-out evaluation on made-up shards: what is read, which answer belongs to which target,
and the whole table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.backends import get_backend
from rt_swap.contract import CROP_SIZE_PX as S
from rt_swap.contract import TOKEN_DIM, some_landmarks
from rt_swap.errors import ConfigError, ContractError
from rt_swap.frames import TrackedFace
from rt_swap.model import load_bundle
from tests.support.tiny_model import tiny_bundle
from training import evaluate
from training.data.layout import FORMAT
from training.evaluate import MODEL, UNCHANGED, WARP, WARP_BEST, WARP_TOLD
from training.scores import Answer


def picture(seed: int) -> np.ndarray:
    """Smooth random colours, so that a warp of a fraction of a pixel changes little."""
    import cv2

    coarse = np.random.default_rng(seed).integers(40, 216, (8, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (S, S), interpolation=cv2.INTER_CUBIC)


def write_shard(folder: Path, count: int = 2, split: str = "val", **changes: object) -> Path:
    """A shard whose partners differ in a brighter square; picture i's flow is (i + 1, 0) in it."""
    shard = folder / "shard_00000"
    shard.mkdir(parents=True)
    q = count
    rgb = np.empty((q, 4, S, S, 3), np.uint8)
    flow = np.zeros((q, 4, 2, S, S), np.int16)
    for k in range(q):
        for i in range(4):
            rgb[k, i] = picture(10 * k + i // 2)
            if i % 2:
                rgb[k, i, 150:200, 90:170] = np.minimum(rgb[k, i, 150:200, 90:170] + 40, 255)
            flow[k, i, 0, 150:200, 90:170] = 64 * (i + 1)
    region = np.zeros((q, 4, S, S), np.uint8)
    region[:, :, 60:220, 60:200] = 1
    region[:, :, 160:170, 100:150] = 2
    keep = np.full((q, 4, S, S), 255, np.uint8)
    keep[:, 1, 160:170, 100:150] = 0
    aus = np.random.default_rng(0).uniform(0, 1, (q, 4, NUM_AUS, 2)).astype(np.float32)
    gains = np.ones((q, NUM_AUS), np.float32)
    gains[-1, 3:] = 0
    arrays = {
        "rgb": rgb, "flow": flow, "keep": keep, "region": region, "aus_lr": aus, "gains": gains,
        "shade": np.full((q, 4, S, S), 128, np.uint8),
        "people": np.tile(np.array([[0, 1]], np.int32), (q, 1)),
        "real": np.zeros((0, S, S, 3), np.uint8),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(shard / f"{name}.npy", array)
    header = {
        "format": FORMAT, "size_px": S, "quadruples": q, "seed": 0, "split": split,
        "aus": list(AU_NAMES),
        "people": [{"file": "a.jpg", "dataset": "made"}, {"file": "b.jpg", "dataset": "made"}],
    }  # fmt: skip
    (shard / "shard.json").write_text(json.dumps({**header, **changes}))
    return shard


class FixedTracker:
    """Finds the same made-up face in every picture, or none."""

    def __init__(self, found: bool = True) -> None:
        points = np.random.default_rng(2).uniform(90, 290, (478, 2))
        self.face = TrackedFace(points, np.zeros(478), 1.0, 0)
        self.found = found
        self.shapes: set[tuple[int, ...]] = set()

    def detect(self, frame_bgr: np.ndarray) -> list[TrackedFace]:
        self.shapes.add(frame_bgr.shape)
        return [self.face] if self.found else []

    def close(self) -> None: ...


class Knows:
    """A model that answers from the quadruples themselves."""

    def __init__(self, quads: list[evaluate.Quadruple], perfect: bool) -> None:
        self.quads, self.perfect = quads, perfect
        self.asked: list[tuple[int, int]] = []

    def encode(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for k, quad in enumerate(self.quads):
            for i in range(4):
                if np.array_equal(quad.rgb[i], rgb):
                    token = np.full((NUM_AUS, TOKEN_DIM), 4 * k + i, np.float32)
                    return token, quad.aus_lr[i]
        return np.zeros((NUM_AUS, TOKEN_DIM), np.float32), np.zeros((NUM_AUS, 2), np.float32)

    def answer(
        self, target_rgb: np.ndarray, tokens: np.ndarray, gains: np.ndarray, landmarks_xy: object
    ) -> Answer:
        k, source = divmod(int(tokens[0, 0]), 4)
        quad = self.quads[k]
        target = next(i for i in range(4) if np.array_equal(quad.rgb[i], target_rgb))
        self.asked.append((target, source))
        np.testing.assert_array_equal(gains, quad.gains)
        case = quad.case(target)
        if self.perfect:
            return Answer(case.truth_rgb, case.flow_xy, case.keep)
        return Answer(target_rgb, np.zeros_like(case.flow_xy), np.ones_like(case.keep))

    def warped(self, target_rgb: np.ndarray, flow_xy: np.ndarray) -> Answer:
        return Answer(target_rgb, flow_xy[0], np.ones((S, S), np.float32))


def test_read_quadruples_gives_units_and_the_partners_truth(tmp_path: Path) -> None:
    write_shard(tmp_path)
    quads = list(evaluate.read_quadruples(tmp_path))
    assert len(quads) == 2
    assert quads[0].people == ("made/a.jpg", "made/b.jpg")
    for target, truth in ((0, 1), (1, 0), (2, 3), (3, 2)):
        case = quads[0].case(target)
        np.testing.assert_array_equal(case.target_rgb, quads[0].rgb[target])
        np.testing.assert_array_equal(case.truth_rgb, quads[0].rgb[truth])
        # the flow is the truth's own: where *it* fetches from, in pixels
        assert case.flow_xy[0, 160, 100] == truth + 1
    assert quads[0].case(0).keep[165, 120] == 0.0
    assert quads[0].case(1).keep[165, 120] == 1.0


def test_read_quadruples_limit_is_spread_and_one_shard_will_do(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, count=5)
    first_and_last = list(evaluate.read_quadruples(shard, limit=2))
    everything = list(evaluate.read_quadruples(shard))
    assert len(first_and_last) == 2
    np.testing.assert_array_equal(first_and_last[1].rgb, everything[4].rgb)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 1}, "format 1"),
        ({"aus": ["AU1"]}, "the AUs of"),
        ({"quadruples": 3}, "rgb: expected"),
        ({"size_px": 128}, "rgb: expected"),
    ],
)
def test_read_quadruples_other_format_says_which(tmp_path: Path, changes: dict, match: str) -> None:
    write_shard(tmp_path, **changes)
    with pytest.raises((ConfigError, ContractError), match=match):
        list(evaluate.read_quadruples(tmp_path))


def test_read_quadruples_people_that_trained_are_refused_unless_asked_for(tmp_path: Path) -> None:
    write_shard(tmp_path, split="train")
    with pytest.raises(ConfigError, match="may have seen"):
        list(evaluate.read_quadruples(tmp_path))
    assert len(list(evaluate.read_quadruples(tmp_path, any_split=True))) == 2


def test_read_quadruples_nothing_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shard_"):
        list(evaluate.read_quadruples(tmp_path))
    shard = write_shard(tmp_path)
    (shard / "flow.npy").write_bytes(b"no array")
    with pytest.raises(ConfigError, match="cannot be read"):
        list(evaluate.read_quadruples(tmp_path))


def test_evaluate_held_out_perfect_model_has_no_error_and_meets_every_aim(tmp_path: Path) -> None:
    write_shard(tmp_path)
    quads = list(evaluate.read_quadruples(tmp_path))
    model = Knows(quads, perfect=True)
    report, worst = evaluate.evaluate_held_out(model, iter(quads), FixedTracker(), worst=3)
    row = report["rows"][MODEL]
    assert row["image"] == row["flow_px"] == 0.0
    assert row["hole_iou"] == 1.0
    assert row["image_reduction"] == row["flow_reduction"] == 1.0
    assert all(report["aims"].values())
    # the source is the other person's picture that has the expression
    assert model.asked == [(0, 2), (1, 3), (2, 0), (3, 1)] * 2
    assert report["cases"] == 8
    assert report["people"] == 2
    assert len(worst) == 3
    by_portraits = [g for g in report["groups"] if g["kind"] == "portraits"]
    assert (
        sum(g["cases"] for g in by_portraits) == 8 and sum(g["people"] for g in by_portraits) == 2
    )
    assert all(g["image"] == 0.0 for g in by_portraits)
    text = evaluate.held_out_text(report)
    assert all(f"{g['kind']}: {g['group']}" in text for g in report["groups"])
    # this reader reads every rendered picture's own label
    assert report["aus"]["overall"]["source_mae"] == report["aus"]["overall"]["output_mae"] == 0.0
    assert report["aus"]["overall"]["unchanged_mae"] > 0.1
    assert report["all_aus"][MODEL]["cases"] == report["some_aus"][MODEL]["cases"] == 4


def test_evaluate_held_out_idle_model_equals_unchanged_and_meets_no_aim(tmp_path: Path) -> None:
    write_shard(tmp_path)
    quads = list(evaluate.read_quadruples(tmp_path))
    report, _ = evaluate.evaluate_held_out(Knows(quads, perfect=False), iter(quads), FixedTracker())
    plain, row = report["rows"][UNCHANGED], report["rows"][MODEL]
    assert {k: row[k] for k in plain} == pytest.approx(plain, nan_ok=True)
    assert row["image_reduction"] == 0.0
    assert report["median_case_error_ratio"] == 1.0
    assert not any(report["aims"].values())
    # the tracker finds one and the same face everywhere, so the warp does nothing either
    assert report["rows"][WARP]["image"] == plain["image"]


def test_evaluate_held_out_without_landmarks_the_warp_leaves_the_target_and_it_is_counted(
    tmp_path: Path,
) -> None:
    write_shard(tmp_path, count=1)
    quads = list(evaluate.read_quadruples(tmp_path))
    report, _ = evaluate.evaluate_held_out(
        Knows(quads, True), iter(quads), FixedTracker(found=False)
    )
    assert report["cases_without_landmarks"] == 4
    for name in (WARP, WARP_BEST, WARP_TOLD):
        assert report["rows"][name]["image_reduction"] == 0.0


def test_evaluate_held_out_no_quadruples_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no quadruple"):
        evaluate.evaluate_held_out(Knows([], True), iter([]), FixedTracker())


def test_crop_landmarks_are_in_the_crop_although_the_tracker_sees_a_margin() -> None:
    tracker = FixedTracker()
    xy = evaluate.crop_landmarks(tracker, picture(1))
    np.testing.assert_array_equal(xy, tracker.face.landmarks_xy - S // 4)
    assert tracker.shapes == {(S + S // 2, S + S // 2, 3)}


def test_crop_model_runs_what_ships(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(tmp_path / "bundle"))
    target, source = picture(1), picture(2)
    with evaluate.CropModel.of_bundle(bundle, get_backend("onnxruntime"), 1) as model:
        own, _ = model.encode(target)
        tokens, aus = model.encode(source)
        assert tokens.shape == (NUM_AUS, TOKEN_DIM)
        assert aus.shape == (NUM_AUS, 2)
        # the target's own expression gives the target back, bit for bit
        points = some_landmarks()[0].astype(np.float64)
        same = model.answer(target, own, np.ones(NUM_AUS, np.float32), points)
        np.testing.assert_array_equal(same.picture_rgb, target)
        swapped = model.answer(target, tokens, np.ones(NUM_AUS, np.float32), points)
        assert np.abs(swapped.flow_xy).max() > 0.1
        assert (swapped.picture_rgb != target).any()
        kept = model.answer(target, tokens, np.zeros(NUM_AUS, np.float32), points)
        np.testing.assert_array_equal(kept.picture_rgb, target)
        # where nobody is found nobody is changed, as in the pipeline
        unseen = model.answer(target, tokens, np.ones(NUM_AUS, np.float32), None)
        np.testing.assert_array_equal(unseen.picture_rgb, target)
        assert not unseen.flow_xy.any() and unseen.keep.min() == 1
        # RGB stays RGB: a warp without flow is the picture itself
        still = model.warped(target, np.zeros((1, 2, S, S), np.float32))
        np.testing.assert_array_equal(still.picture_rgb, target)


def test_convention_crop_model_warp_fetches_from_where_the_flow_points(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(tmp_path / "bundle"))
    target = np.random.default_rng(0).integers(0, 255, (S, S, 3)).astype(np.uint8)
    flow = np.zeros((1, 2, S, S), np.float32)
    flow[0, 0], flow[0, 1] = 3.0, -2.0
    with evaluate.CropModel.of_bundle(bundle, get_backend("onnxruntime"), 1) as model:
        out = model.warped(target, flow).picture_rgb
    np.testing.assert_array_equal(out[100:110, 100:110], target[98:108, 103:113])


def test_main_writes_strict_json_table_and_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "val")
    monkeypatch.setattr(evaluate, "MediapipeTracker", lambda static: _Closing())
    bundle, out, sheet = tiny_bundle(tmp_path / "bundle"), tmp_path / "out.json", tmp_path / "s.png"
    arguments = ["--model", str(bundle), "--val-shards", str(tmp_path / "val"), "--limit", "1"]
    assert (
        evaluate.main([*arguments, "--json", str(out), "--sheet", str(sheet), "--threads", "1"])
        == 0
    )
    text = capsys.readouterr().out
    assert all(name in text for name in (UNCHANGED, MODEL, WARP, WARP_BEST, WARP_TOLD, "AU12"))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not strict JSON")

    report = json.loads(out.read_text(), parse_constant=refuse)
    assert report["cases"] == 4
    assert report["rows"][UNCHANGED]["lips"] is None  # nothing of that region in these shards
    assert set(report["aus"]["per_au"]) == set(AU_NAMES)
    assert report["model"]["encoder_sha256"] == load_bundle(bundle).sha256
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob(".*")) == []
    # an untrained model misses its aims, and --check says so
    assert evaluate.main([*arguments, "--check"]) == 1


class _Closing(FixedTracker):
    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *exc: object) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "either --val-shards DIR or --real"),
        (["--real", "--val-shards", "x"], "either --val-shards DIR or --real"),
        (["--val-shards", "x", "--limit", "0"], "--limit must be"),
        (["--val-shards", "nowhere", "--model", "nowhere"], "no such model folder"),
    ],
)
def test_main_wrong_options_one_sentence_and_code_2(
    arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(arguments) == 2
    err = capsys.readouterr().err
    assert match in err
    assert "Traceback" not in err


def test_a_checkpoint_run_by_pytorch_says_what_its_bundle_says(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch (the 'train' extra) is not installed")
    from dataclasses import replace

    from engines.export import export_bundle
    from engines.torch_graphs import graphs_of_checkpoint
    from tests.support.fake_shards import write_fake_shard
    from training.checkpoint import latest_checkpoint
    from training.config import get_config
    from training.loop import loop

    torch.manual_seed(0)
    write_fake_shard(tmp_path / "train" / "shard_00000", quadruples=2, size_px=64)
    config = replace(get_config("smoke"), steps=2)
    loop(
        config=config, shards=[tmp_path / "train"], val_shards=[], out=tmp_path / "run", threads=1,
        device="cpu",
    )  # fmt: skip
    checkpoint = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    graphs = graphs_of_checkpoint(checkpoint)
    export_bundle(graphs, tmp_path / "bundle", name="t", config={}, data={}, steps=2, validation={})
    bundle = load_bundle(tmp_path / "bundle")
    gains, points = np.ones(NUM_AUS, np.float32), some_landmarks()[0].astype(np.float64)
    with (
        evaluate.CropModel.of_bundle(bundle, get_backend("onnxruntime"), 1) as shipped,
        evaluate.CropModel.of_checkpoint(checkpoint) as trained,
    ):
        a, b = (m.encode(picture(1)) for m in (shipped, trained))
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one, other, atol=5e-3)
        a, b = (m.answer(picture(2), b[0], gains, points) for m in (shipped, trained))
    assert np.abs(a.picture_rgb.astype(int) - b.picture_rgb).max() <= 3
    np.testing.assert_allclose(a.flow_xy, b.flow_xy, atol=0.05)


def test_a_report_says_what_a_frame_costs_where_the_bundle_does(tmp_path: Path) -> None:
    from training.evaluate import _gmac

    bundle = load_bundle(tiny_bundle(tmp_path / "bundle"))
    assert _gmac(bundle) is None
    for text, wanted in (
        ('{"gmac": {"target_generator": 0.25}}', 0.25),
        ('{"gmac": {}}', None),
        ("[", None),
        ("[]", None),
    ):
        (bundle.path / "parity.json").write_text(text)
        assert _gmac(bundle) == wanted
    assert _gmac(load_bundle("default")) == pytest.approx(1.16, abs=0.1)
