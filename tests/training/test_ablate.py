"""The ablation: each variant is what its name says, all get the same, and it can be stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training import ablate
from training.ablate import VARIANTS, Budget, train_arguments
from training.config import get_config, to_dict
from training.train import build_parser, resolve

BUDGET = Budget(minutes=0.05, threads=1, seed=3, init_from=None)


def config_of(name: str) -> dict[str, object]:
    words = train_arguments(VARIANTS[name], BUDGET, Path("s"), Path("v"), Path("nowhere"))
    return to_dict(resolve(build_parser().parse_args(words)))


@pytest.mark.parametrize("name", [n for n in VARIANTS if n.startswith("rt_")])
def test_a_variant_switches_off_what_it_says_and_nothing_else(name: str) -> None:
    full, less = config_of("rt"), config_of(name)
    different = {
        f"{part}.{key}"
        for part in ("network", "losses", "samples", "augment", "optim")
        for key, value in full[part].items()  # type: ignore[attr-defined]
        if less[part][key] != value  # type: ignore[index]
    }
    assert different == set(VARIANTS[name].changes)
    for option in different:
        part, key = option.split(".")
        assert full[part][key] > 0  # type: ignore[index]
        assert less[part][key] == 0  # type: ignore[index]


def test_every_published_term_is_switched_off_once() -> None:
    published = {
        "au_bce", "au_adversary", "self_reconstruction", "cross_cycle", "swap_consistency",
        "image_adversary", "feature_related", "feature_free", "donor_labels",
    }  # fmt: skip
    off = {key.split(".")[1] for v in VARIANTS.values() for key in v.changes}
    assert published <= off


def test_all_are_trained_in_the_same_phases_and_rate() -> None:
    for part in ("phases", "optim", "augment", "samples", "steps", "seed", "precision"):
        assert all(config_of(name)[part] == config_of("rt")[part] for name in VARIANTS), part


def test_all_start_alike_and_go_on_where_they_were(tmp_path: Path) -> None:
    given = Budget(5.0, 2, 7, tmp_path / "given")
    words = train_arguments(VARIANTS["eft"], given, Path("s"), Path("v"), tmp_path / "eft")
    assert words[words.index("--init-parts") + 1 :][:2] == ["encoder", "label_tokens"]
    assert words[words.index("--time-budget-min") + 1] == "5.0"
    (tmp_path / "eft" / "checkpoints" / "step_00000010").mkdir(parents=True)
    words = train_arguments(VARIANTS["eft"], given, Path("s"), Path("v"), tmp_path / "eft")
    assert "--resume" in words
    assert "--init-from" not in words


REPORT = {
    "rows": {
        "model": {
            "image": 0.02, "flow_px": 0.5, "ssim": 0.9, "mouth_interior": 0.1, "eyes": 0.05,
            "hole_iou": 0.3, "image_reduction": 0.5,
        },
        "unchanged": {"image": 0.04},
    },
    "aus": {"overall": {"output_mae": 0.06}},
}  # fmt: skip


def test_commands_run_in_order_and_finished_rows_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []

    def train(words: list[str]) -> int:
        called.append("train")
        folder = Path(words[words.index("--out") + 1]) / "checkpoints" / "step_00000004"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": 4, "cursor": 8, "elapsed_s": 60.0}))
        name = words[words.index("--config") + 1]
        (folder / "config.json").write_text(json.dumps(to_dict(get_config(name))))
        return 0

    def score(words: list[str]) -> int:
        called.append("evaluate")
        Path(words[words.index("--json") + 1]).write_text(json.dumps(REPORT))
        return 0

    def leak(words: list[str]) -> int:
        called.append("leakage")
        said = {"mean": {"stem": 0.8, "au_free": 0.6, "tokens": 0.9}}
        Path(words[words.index("--json") + 1]).write_text(json.dumps(said))
        return 0

    monkeypatch.setattr(ablate, "train_main", train)
    monkeypatch.setattr(ablate.evaluate, "main", score)
    monkeypatch.setattr(ablate.leakage, "main", leak)
    words = ["--shards", "s", "--val-shards", "v", "--test-shards", "t", "--minutes", "1"]
    words += ["--out", str(tmp_path / "out"), "--only", "rt", "ganimation"]
    assert ablate.main(words) == 0
    assert called == ["train", "evaluate", "leakage", "train", "evaluate"]
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["rows"]["rt"]["au_free_auc"] == 0.6
    assert table["rows"]["ganimation"]["au_free_auc"] is None
    assert "0.0200" in capsys.readouterr().out
    assert ablate.main(words) == 0
    assert len(called) == 5  # nothing twice
    assert ablate.main([*words, "--seed", "5"]) == 2  # not mixed with another budget
    assert "another budget" in capsys.readouterr().err


def test_a_failed_step_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablate, "train_main", lambda words: 2)
    words = ["--shards", "s", "--val-shards", "v", "--test-shards", "t", "--minutes", "1"]
    assert ablate.main([*words, "--out", str(tmp_path / "o"), "--only", "rt"]) == 2
    assert "train failed" in capsys.readouterr().err
