"""``rt-swap engine``: build ahead of time, list, verify, prune; each failure has its own code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from rt_swap.cli import main
from tests.conftest import has_nvidia_gpu
from tests.support.engines import half_bundle

pytestmark = [
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="needs tensorrt_rtx (pip install rt-swap[rtx])",
    ),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="needs onnx (pip install rt-swap[train])")
    return half_bundle(tmp_path_factory.mktemp("bundle"))


def engine(action: str, home: Path, bundle: Path, *more: str) -> int:
    return main(["engine", action, "--home", str(home), "--model", str(bundle), *more])


def test_build_list_verify_spoil_and_prune(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = ("build", tmp_path, bundle, "--runtime", "rtx", "--sm", "86,89")
    assert engine(*build) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(paths) == 4
    assert all(p.suffix == ".engine" and p.parent == tmp_path / "engines" for p in paths)

    assert engine(*build, "--json") == 0
    said = capsys.readouterr()
    assert "building" not in said.err
    rows = json.loads(said.out)
    assert [Path(row["path"]) for row in rows] == paths
    assert {(row["sm"], row["precision"], row["state"]) for row in rows} == {
        (86, "fp16", "good"),
        (89, "fp16", "good"),
    }

    assert engine("list", tmp_path, bundle, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    assert engine("verify", tmp_path, bundle) == 0
    assert capsys.readouterr().out.count("good ") == 4

    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    assert engine("verify", tmp_path, bundle, "--json") == 13
    said = capsys.readouterr()
    assert "1 of 4 engines" in said.err
    assert [r["state"] for r in json.loads(said.out)].count("truncated") == 1

    assert engine("prune", tmp_path, bundle) == 0
    assert capsys.readouterr().out.split() == [str(paths[0])]
    assert engine("prune", tmp_path, bundle, "--all", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert engine("verify", tmp_path, bundle) == 13
    assert "there are no engines to verify" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        (("--sm", "90"), 2, "rtx cannot build for 90 here; it builds for 75, 80, 86"),
        (("--sm", "ada"), 2, "--sm: must be numbers such as 75,86,89,120"),
        (("--runtime", "abacus"), 2, "invalid choice"),
    ],
)
def test_wrong_options(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    assert engine("build", tmp_path, bundle, *options) == code
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "engines").exists()


@pytest.mark.skipif(has_nvidia_gpu(), reason="tells what happens without a GPU")
def test_without_a_gpu_it_says_how_to_build_ahead(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert engine("build", tmp_path, bundle) == 11
    assert "--runtime rtx --sm 75,80,86,89,120,121" in capsys.readouterr().err


def test_a_model_without_half_precision_says_how_to_make_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.tiny_model import tiny_bundle

    bundle = tiny_bundle(tmp_path / "bundle")
    assert engine("build", tmp_path, bundle, "--sm", "89") == 14
    assert "python -m engines.export --fp16-of" in capsys.readouterr().err
