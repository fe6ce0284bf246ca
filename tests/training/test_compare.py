"""One table from several evaluations: same cases or none, best figures starred."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from training import compare
from training.evaluate import MODEL, TRUTH, UNCHANGED, WARP, WARP_BEST


def report(image: float, unchanged: float = 0.04, **more: object) -> dict[str, object]:
    def row(value: float, iou: float) -> dict[str, float]:
        return {
            "image": value, "flow_px": value * 20, "ssim": 1 - value, "mouth_interior": value,
            "eyes": value, "hole_iou": iou, "spill": value / 10,
        }  # fmt: skip

    plain = row(unchanged, 0.0) | {"spill": 0.0}
    return {
        "kind": "held_out", "cases": 8, "people": 4,
        "rows": {
            UNCHANGED: plain, MODEL: row(image, 0.5), WARP: row(0.06, 0.0),
            WARP_BEST: row(0.035, 0.0),
        },
        "aus": {"overall": {"unchanged_mae": 0.09, "output_mae": image * 2, "warp_mae": 0.1}},
        **more,
    }  # fmt: skip


def write(folder: Path, name: str, value: object) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(value))
    return f"{name}={path}"


def test_table_has_both_and_stars_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {"identity": {"rows": {MODEL: {"distance": 0.2}, TRUTH: {"distance": 0.3}}}}
    given = [
        write(tmp_path, "rt", report(0.02, **seen)),
        write(tmp_path, "eft", report(0.05)),
    ]
    out = tmp_path / "table.json"
    assert compare.main([*given, "--json", str(out)]) == 0
    lines = {
        line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines() if "  " in line
    }
    assert "0.0200*" in lines["rt"]
    assert "0.0500*" not in lines["eft"]
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == [UNCHANGED, WARP, WARP_BEST, TRUTH, "rt", "eft"]
    assert rows[TRUTH]["identity"] == 0.3
    assert rows[TRUTH]["image"] is None
    assert rows["rt"]["au_mae"] == pytest.approx(0.04)
    assert rows["rt"]["identity"] == 0.2
    assert rows["eft"]["identity"] is None


def test_more_is_better_for_ssim_and_doing_nothing_does_not_compete(tmp_path: Path) -> None:
    rows = compare.table(compare.read_reports([write(tmp_path, "a", report(0.05))]))
    stars = compare.best(rows)
    assert stars["ssim"] == {WARP_BEST}
    assert stars["hole_iou"] == {"a"}
    assert UNCHANGED not in stars["spill"]
    assert "identity" not in stars  # nearer is not better than the truth


def test_figures_that_were_not_measured_are_dashes(tmp_path: Path) -> None:
    value = report(0.02)
    value["rows"][MODEL]["eyes"] = None  # type: ignore[index]
    value["rows"][UNCHANGED]["flow_px"] = None  # type: ignore[index]
    rows = compare.table(compare.read_reports([write(tmp_path, "a", value)]))
    assert rows["a"]["eyes"] is None
    assert " - " in compare.text(rows)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (report(0.02, unchanged=0.05), "same cases"),
        ({"kind": "real"}, "is no report"),
        ({"kind": "held_out", "rows": {}}, "lacks figures"),
        ([], "is no report"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, second: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [write(tmp_path, "a", report(0.02)), write(tmp_path, "b", second)]
    assert compare.main(given) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "NAME=FILE"),
        (["unchanged=a.json"], "names a row already"),
        (["a=nowhere.json"], "cannot be read"),
    ],
)
def test_wrong_arguments_say_so(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(given) == 2
    assert message in capsys.readouterr().err


def test_plot_draws_what_is_left_over_what_it_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        write(tmp_path, "small", report(0.02, model={"gmac": 1.2})),
        write(tmp_path, "nano", report(0.03, model={"gmac": 0.5})),
    ]
    reports = compare.read_reports(given)
    assert compare.sizes(reports) == {
        "nano": {"gmac": 0.5, "image": pytest.approx(0.75), "flow_px": pytest.approx(0.75)},
        "small": {"gmac": 1.2, "image": pytest.approx(0.5), "flow_px": pytest.approx(0.5)},
    }
    assert list(compare.sizes(reports)) == ["nano", "small"]
    picture = tmp_path / "sizes.png"
    assert compare.main([*given, "--plot", str(picture)]) == 0
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.shape == (600, 960, 3)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10  # not a blank sheet
    assert compare.main([*given, "--plot", str(tmp_path / "sizes.txt")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    empty = report(0.03, model={"gmac": 0.5})
    empty["rows"][MODEL]["flow_px"] = None  # type: ignore[index]
    assert compare.main([write(tmp_path, "x", empty), "--plot", str(picture)]) == 2
    assert "the report of x has no image or flow error" in capsys.readouterr().err
    given.append(write(tmp_path, "eft", report(0.05)))  # scored as a checkpoint
    assert compare.main([*given, "--plot", str(picture)]) == 2
    assert "the report of eft does not say what a frame costs" in capsys.readouterr().err
