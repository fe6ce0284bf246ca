"""Expression files: what goes in comes out, and what is not one is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rt_swap.errors import ContractError, ExpressionFileError
from rt_swap.expression import files, load_expression, save_expression
from rt_swap.frames import Expression
from tests.support.expressions import clip, still

MODEL = "a" * 64


def assert_same(a: Expression, b: Expression) -> None:
    for field in dataclasses.fields(Expression):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


@pytest.mark.parametrize(
    "expression",
    [still(), clip([1, 2, 3], [0, 0.04, 0.08], 0.12, [True, False, True])],
    ids=["still", "clip"],
)
def test_round_trip(tmp_path: Path, expression: Expression) -> None:
    path = tmp_path / "new folder" / "e.safetensors"
    named = dataclasses.replace(expression, name='Gr\u00fc\u00dfe "quoted"')
    save_expression(named, path)
    assert_same(load_expression(path), named)
    assert_same(load_expression(path, MODEL), named)
    assert [p.name for p in path.parent.iterdir()] == ["e.safetensors"]


def test_loaded_arrays_can_be_written(tmp_path: Path) -> None:
    save_expression(still(), tmp_path / "e.safetensors")
    load_expression(tmp_path / "e.safetensors").tokens[:] = 0


def test_saving_replaces_and_a_failure_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.safetensors"
    save_expression(still(1.0), path)
    save_expression(still(2.0), path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_expression(still(3.0), path)
    assert load_expression(path).tokens.max() == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_another_model_s_file_is_refused(tmp_path: Path) -> None:
    save_expression(still(), tmp_path / "e.safetensors")
    with pytest.raises(ExpressionFileError, match=r"made by model a{12}, but .* b{12}"):
        load_expression(tmp_path / "e.safetensors", "b" * 64)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "header", "json", "picture"])
def test_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "e.safetensors"
    save_expression(still(), path)
    blob = path.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    path.write_bytes(
        {
            "empty": b"",
            "cut": blob[:-100],
            "noise": np.random.default_rng(0).bytes(len(blob)),
            "header": (2**60).to_bytes(8, "little") + blob[8:],
            "json": blob[:8] + b"\xff" * length + blob[8 + length :],
            "picture": b"\x89PNG\r\n\x1a\n" + blob,
        }[damage]
    )
    with pytest.raises(ExpressionFileError, match="not an expression file, or a damaged one"):
        load_expression(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpressionFileError, match="cannot be read"):
        load_expression(tmp_path / "no.safetensors")


def test_safetensors_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(ExpressionFileError, match="not an expression file"):
        load_expression(path)
    save_file({"weight": np.zeros(3, np.float32)}, path, metadata={"rt_swap": "[]"})
    with pytest.raises(ExpressionFileError, match="not a JSON object"):
        load_expression(path)


@pytest.mark.parametrize(
    ("key", "value"), [("format", "x 2"), ("contract_version", 0), ("aus", ["AU1"])]
)
def test_file_of_another_version_names_what_differs(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "e.safetensors"
    rewrite(path, header={key: value})
    with pytest.raises(ExpressionFileError, match=f"another version of rt_swap \\({key} is"):
        load_expression(path)


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        ("tokens", np.zeros((1, 3, 16), np.float32)),
        ("tokens", np.full((1, 27, 16), np.nan, np.float32)),
        ("aus_lr", np.zeros((1, 27, 2), np.float64)),
        ("times_s", np.zeros((2,), np.float64)),
        ("valid", np.zeros(1, np.uint8)),
    ],
)
def test_file_with_wrong_arrays_is_refused(tmp_path: Path, tensor: str, value: np.ndarray) -> None:
    path = tmp_path / "e.safetensors"
    rewrite(path, tensors={tensor: value})
    with pytest.raises(ExpressionFileError, match="damaged"):
        load_expression(path)


def rewrite(
    path: Path,
    header: dict[str, object] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
) -> None:
    """A good file with some of its contents exchanged."""
    save_expression(still(), path)
    blob = path.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    old = json.loads(json.loads(blob[8 : 8 + length])["__metadata__"]["rt_swap"])
    arrays = load_file(path) | (tensors or {})
    save_file(arrays, path, metadata={"rt_swap": json.dumps(old | (header or {}))})


def test_malformed_expression_is_not_saved(tmp_path: Path) -> None:
    wrong = dataclasses.replace(
        still(), tokens=np.zeros((1, 2, 3), np.float32), duration_s=float("nan")
    )
    with pytest.raises(ContractError, match=r"tokens must be float32 \(1, 27, 16\).*duration_s"):
        save_expression(wrong, tmp_path / "e.safetensors")
    backwards = clip([1, 2], [1.0, 0.0], 2.0)
    with pytest.raises(ContractError, match="times_s must ascend"):
        save_expression(backwards, tmp_path / "e.safetensors")
    assert not list(tmp_path.iterdir())
