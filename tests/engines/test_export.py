"""Export: a checkpoint becomes a bundle that the runtime takes and that answers as PyTorch does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import annotate, export, verify
from engines.bundle import staged, write_manifest
from rt_swap.aus import NUM_AUS
from rt_swap.backends import get_backend
from rt_swap.contract import GENERATOR_SPEC, GRAPHS, TOKEN_DIM
from rt_swap.errors import ConfigError, EngineBuildError, ModelFileError
from rt_swap.model import load_bundle, sha256_of
from tests.engines.conftest import write_checkpoint
from tests.support.tiny_model import tiny_bundle

torch = pytest.importorskip("torch", reason="needs torch (pip install rt-swap[train])")


# --- the command ---
@pytest.mark.parity
def test_parity_torch_onnx_of_the_exported_bundle(exported: Path, checkpoint: Path) -> None:
    report = json.loads((exported / "parity.json").read_text())
    assert report["ok"]
    assert report["not_compared"] == []
    flow = report["graphs"]["target_generator"]["flow_xy"]
    assert flow["range"][1] - flow["range"][0] > 1  # something was at stake
    assert set(report["gmac"]) == set(GRAPHS)
    assert report["gmac"]["target_generator"] > report["gmac"]["expression_encoder"] > 0
    half = report["fp16"]
    assert half["ok"]
    assert half["composed"]["p99"] <= 1
    for name in GRAPHS:
        path = load_bundle(exported).graph_path(name, "fp16")
        assert path.stat().st_size < 0.75 * load_bundle(exported).graph_path(name).stat().st_size
    assert verify.main(["--bundle", str(exported), "--checkpoint", str(checkpoint)]) == 0


def test_exported_manifest_says_what_the_model_is(exported: Path) -> None:
    manifest = load_bundle(exported).manifest
    assert manifest["name"] == "smoke"
    assert manifest["steps"] == 12
    assert manifest["config"]["network"]["token_dim"] == TOKEN_DIM
    assert manifest["validation"] == {"training": {"image": 0.5}}
    assert manifest["data"] == {
        "shards": 1, "quadruples": 7, "quadruples_only_read": 0, "people": 3,
        "datasets": {"a": 2, "b": 1},
    }  # fmt: skip
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["created"].endswith("Z")
    for path in exported.iterdir():
        assert str(Path.cwd()).encode() not in path.read_bytes(), path.name


def test_exported_graphs_run_in_the_runtime(exported: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = {t.name: rng.uniform(size=t.shape).astype(np.float32) for t in GENERATOR_SPEC.inputs}
    backend = get_backend("onnxruntime")
    with backend.load(exported / "target_generator.onnx", GENERATOR_SPEC, 1) as session:
        outputs = session.run(inputs)
        assert outputs["keep"].min() >= 0
        assert outputs["keep"].max() <= 1
        assert outputs["shade"].min() > 0


def test_exporting_again_gives_the_same_files_and_keeps_presets_and_card(
    exported: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    with staged(out) as stage:
        for path in exported.iterdir():
            (stage / path.name).write_bytes(path.read_bytes())
        (stage / "presets").mkdir()
        (stage / "presets" / "smile.safetensors").write_bytes(b"tokens")
        (stage / "MODEL_CARD.md").write_text("what it is bad at")
        write_manifest(stage)
    assert export.main(["--checkpoint", str(checkpoint), "--out", str(out), "--name", "x"]) == 0
    for name in ("expression_encoder.onnx", "target_generator.onnx"):
        assert sha256_of(out / name) == sha256_of(exported / name)
    bundle = load_bundle(out)
    assert bundle.name == "x"
    assert bundle.preset_names == ("smile",)
    assert (out / "MODEL_CARD.md").read_text() == "what it is bad at"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_presets_of_another_encoder_are_dropped(checkpoint: Path, tmp_path: Path) -> None:
    out = tiny_bundle(tmp_path / "bundle")
    assert load_bundle(out).preset_names
    assert export.main(["--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    assert load_bundle(out).preset_names == ()
    assert not (out / "presets").exists()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("no checkpoint", "there is no such folder"),
        ("no weights", "missing or corrupt"),
        ("other files", "no model bundle; name another folder"),
        ("a file", "a file is in the way"),
    ],
)
def test_wrong_arguments_end_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, complaint: str
) -> None:
    checkpoint, out = tmp_path / "step_00000012", tmp_path / "out"
    if damage != "no checkpoint":
        write_checkpoint(checkpoint)
    if damage == "no weights":
        (checkpoint / "ema.safetensors").write_bytes(b"nothing")
    if damage == "other files":
        out.mkdir()
        (out / "thesis.tex").write_text("do not delete")
    if damage == "a file":
        out.write_text("in the way")
    assert export.main(["--checkpoint", str(checkpoint), "--out", str(out)]) == 2
    assert complaint in capsys.readouterr().err
    if damage == "other files":
        assert [p.name for p in out.iterdir()] == ["thesis.tex"]


# --- modules that do not fit ---
class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined]
    """The smallest thing with the encoder's inputs and outputs; ``kind`` makes it faulty."""

    def __init__(self, kind: str = "good") -> None:
        super().__init__()
        self.kind = kind
        self.weight = torch.nn.Parameter(torch.full((3, NUM_AUS * TOKEN_DIM), 0.1))

    def forward(self, source_rgb: Any) -> Any:
        flat = source_rgb.mean(dim=(2, 3)) @ self.weight
        if self.kind == "training noise":
            flat = torch.nn.functional.dropout(flat, 0.5, self.training)
        tokens = flat.reshape(1, NUM_AUS, TOKEN_DIM)
        if self.kind == "operator":
            tokens = torch.cumsum(tokens, dim=1)
        if self.kind == "rank":
            tokens = tokens.reshape(1, 1, NUM_AUS, 4, 4).transpose(3, 4).reshape(tokens.shape)
        if self.kind == "shape":
            tokens = tokens[:, 1:]
        return tokens, torch.sigmoid(tokens[:, :, :2])


def export_encoder(kind: str) -> Any:
    from engines.torch_graphs import TorchGraph, export_onnx
    from rt_swap.contract import ENCODER_SPEC

    return export_onnx(TorchGraph(Encoder(kind), ENCODER_SPEC))


def test_a_good_module_is_exported_in_eval_mode() -> None:
    for kind in ("good", "training noise"):
        assert "Dropout" not in {n.op_type for n in export_encoder(kind).graph.node}


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("operator", "outside the list: CumSum"),
        ("rank", "has rank 5, more than 4"),
        ("shape", r"output tokens is float32 \(1, 26, 16\), expected float32 \(1, 27, 16\)"),
    ],
)
def test_a_module_that_breaks_a_rule_is_refused(kind: str, complaint: str) -> None:
    with pytest.raises(EngineBuildError, match=complaint):
        export_encoder(kind)


def test_answers_that_differ_write_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines.torch_graphs import graphs_of_checkpoint

    graphs = graphs_of_checkpoint(checkpoint)
    real = export.export_onnx

    def wrong(graph: Any) -> Any:
        model = real(graph)
        from onnx import numpy_helper

        for tensor in model.graph.initializer:
            if tensor.name.endswith("head_bias"):
                array = numpy_helper.to_array(tensor) + np.float32(0.1)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return model

    monkeypatch.setattr(export, "export_onnx", wrong)
    with pytest.raises(EngineBuildError, match=r"differ from PyTorch's(.|\n)*aus_lr.*TOO FAR"):
        export.export_bundle(
            graphs, tmp_path / "out", name="x", config={}, data={}, steps=0, validation={}
        )
    assert not list(tmp_path.iterdir())


# --- bundles ---
def test_staged_leaves_the_old_bundle_where_the_body_fails(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    before = {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()}

    def spoil(fail: bool) -> None:
        with staged(bundle) as stage:
            (stage / "expression_encoder.onnx").write_bytes(b"half")
            if fail:
                raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        spoil(fail=True)
    with pytest.raises(ModelFileError, match="damaged"):
        spoil(fail=False)
    assert {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_annotate_changes_what_is_said_only(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    (tmp_path / "e.json").write_text('{"image_reduction": 0.7}')
    (tmp_path / "card.md").write_text("# Card")
    before = load_bundle(bundle)
    arguments = ["--bundle", str(bundle), "--evaluation", str(tmp_path / "e.json")]
    assert annotate.main([*arguments, "--model-card", str(tmp_path / "card.md")]) == 0
    after = load_bundle(bundle)
    assert after.manifest["validation"] == {"evaluation": {"image_reduction": 0.7}}
    assert after.manifest["files"] == before.manifest["files"]
    assert after.manifest["name"] == before.name
    assert (bundle / "MODEL_CARD.md").read_text() == "# Card"
    assert annotate.main(["--bundle", str(bundle), "--evaluation", str(tmp_path / "no.json")]) == 2
    assert annotate.main(["--bundle", str(tmp_path / "no")]) == 2


CARD = """# Card

Words.

## People

```
old
## not a heading
```

More words.

```
second
```

## Clips

None.
"""


def test_table_replaces_the_first_block_under_its_heading_and_nothing_else() -> None:
    changed = annotate.with_table(CARD, "People", "a   \nb\n\n")
    assert changed == CARD.replace("old\n## not a heading", "a\nb")
    assert annotate.with_table(changed, "People", "old\n## not a heading") == CARD


@pytest.mark.parametrize(
    ("heading", "message"), [("Nobody", "it has Card, People, "), ("Clips", "no fenced block")]
)
def test_table_without_a_place_is_refused(heading: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        annotate.with_table(CARD, heading, "x")


def test_annotate_puts_what_a_command_printed_into_the_card(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    (tmp_path / "card.md").write_text(CARD)
    (tmp_path / "said.txt").write_text("new\n")
    arguments = ["--bundle", str(bundle), "--model-card", str(tmp_path / "card.md")]
    assert annotate.main([*arguments, "--table", f"People={tmp_path / 'said.txt'}"]) == 0
    assert "\n```\nnew\n```\n" in (bundle / "MODEL_CARD.md").read_text()
    assert annotate.main([*arguments, "--table", f"Nobody={tmp_path / 'said.txt'}"]) == 2
    assert annotate.main([*arguments, "--table", "People"]) == 2
    assert annotate.main([*arguments, "--table", f"People={tmp_path / 'no.txt'}"]) == 2
    assert "\nnew\n" in (bundle / "MODEL_CARD.md").read_text()
    load_bundle(bundle)


# --- verify ---
def test_verify_against_another_checkpoint_fails(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_checkpoint(tmp_path / "step_00000001", seed=1)
    report = tmp_path / "r.json"
    arguments = ["--bundle", str(exported), "--checkpoint", str(other), "--json", str(report)]
    assert verify.main(arguments) == 1
    assert "TOO FAR" in capsys.readouterr().out
    assert json.loads(report.read_text())["reports"][0]["ok"] is False


@pytest.mark.parametrize("arguments", [[], ["--backend", "onnxruntime"]])
def test_verify_of_nothing_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    bundle = tiny_bundle(tmp_path)
    assert verify.main(["--bundle", str(bundle), *arguments]) == 1
    assert "nothing was compared" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="nothing would be compared"):
        verify.verify(load_bundle(bundle), backends=arguments[1:])


def test_verify_of_an_unknown_backend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle(tmp_path)
    assert verify.main(["--bundle", str(bundle), "--backend", "abacus"]) == 2
    assert "no backend 'abacus'" in capsys.readouterr().err
