"""Identity as a figure: distances are from the target, and the recogniser tells people apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rt_swap.errors import BackendUnavailable
from tests.training.test_evaluate import FixedTracker, Knows, write_shard
from training import evaluate, identity
from training.evaluate import MODEL, TRUTH, WARP


def one(value: float) -> np.ndarray:
    return np.array([value, 0.0], np.float32)


def test_distances_are_from_the_target_and_lost_counts_by_the_rule() -> None:
    score = identity.IdentityScore()
    score.add(one(1.0), {"a": one(1.5), "b": one(1.7)})
    score.add(one(0.0), {"a": one(-0.1), "b": one(0.6)})
    score.add_people(one(0.0), one(0.9))
    found = score.result()
    assert found["rows"]["a"] == {"cases": 2, "distance": pytest.approx(0.3), "lost": 0.0}
    assert found["rows"]["b"]["distance"] == pytest.approx(0.65)
    assert found["rows"]["b"]["lost"] == 1.0
    assert found["two_people"] == {"cases": 1, "distance": pytest.approx(0.9), "lost": 1.0}


def test_nothing_counted_is_nan_not_zero() -> None:
    assert np.isnan(identity.IdentityScore().result()["two_people"]["distance"])


class MeanColour:
    """Describes a picture by its mean colour, and remembers where it was told the face is."""

    def __init__(self) -> None:
        self.at: list[np.ndarray] = []

    def describe(self, rgb: np.ndarray, landmarks_xy: np.ndarray) -> np.ndarray:
        self.at.append(landmarks_xy)
        return (rgb.mean((0, 1)) / 255).astype(np.float32)


def test_report_has_model_truth_and_two_people(tmp_path: Path) -> None:
    write_shard(tmp_path)
    quads = list(evaluate.read_quadruples(tmp_path))
    reader = MeanColour()
    report, _ = evaluate.evaluate_held_out(
        Knows(quads, perfect=True),  # type: ignore[arg-type]
        iter(quads), FixedTracker(), identity=reader,
    )  # fmt: skip
    rows = report["identity"]["rows"]
    # a perfect answer is exactly as far from the target as the truth is; the warp did nothing
    assert rows[MODEL]["distance"] == rows[TRUTH]["distance"] > 0
    assert rows[WARP]["distance"] == 0
    assert report["identity"]["two_people"]["cases"] == len(quads)
    means = [quad.rgb.reshape(4, -1, 3).mean(1) for quad in quads]
    want = float(np.mean([np.linalg.norm(m[0] - m[2]) / 255 for m in means]))
    assert report["identity"]["two_people"]["distance"] == pytest.approx(want, rel=1e-4)
    assert "two people" in evaluate.held_out_text(report)


def test_without_a_reader_the_report_says_nothing_of_it(tmp_path: Path) -> None:
    write_shard(tmp_path)
    quads = list(evaluate.read_quadruples(tmp_path))
    report, _ = evaluate.evaluate_held_out(
        Knows(quads, perfect=True),  # type: ignore[arg-type]
        iter(quads), FixedTracker(),
    )  # fmt: skip
    assert "identity" not in report


def test_missing_weights_say_which_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"rt-swap\[identity\]"):
        identity._weights_file()


def test_the_recogniser_knows_the_astronaut_turned_and_darkened_from_another_face() -> None:
    pytest.importorskip("dlib", reason="dlib (the 'identity' extra) is not installed")
    import cv2
    from skimage import data

    from rt_swap.tracking import MediapipeTracker

    reader = identity.DlibIdentity()
    face = np.ascontiguousarray(data.astronaut()[:256, 96:352])
    dark = (face * 0.6).astype(np.uint8)
    turned = cv2.warpAffine(
        face, cv2.getRotationMatrix2D((128, 128), 12, 1.0), (256, 256),
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    # her face made half as long again is nobody's the recogniser knows
    long = cv2.resize(face, (256, 400))
    described = []
    with MediapipeTracker(static=True) as tracker:
        for picture in (face, dark, turned, long):
            faces = tracker.detect(np.ascontiguousarray(picture[..., ::-1]))
            described.append(reader.describe(picture, faces[0].landmarks_xy))
    apart = [float(np.linalg.norm(d - described[0])) for d in described]
    assert apart[0] == 0
    assert max(apart[1:3]) < 0.3
    assert apart[3] > max(apart[1:3])
