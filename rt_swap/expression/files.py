"""Expression files: ``.safetensors`` with the tokens, and what they were made from in its header.

    tensors   tokens (T, K, D) f32, aus_lr (T, K, 2) f32, times_s (T,) f64, valid (T,) u8
    metadata  "rt_swap": JSON object {"format", "contract_version", "name", "model_sha256",
              "duration_s", "aus"}

The AU names are stored in token order, so a file of another AU list is refused rather than misread.
Nothing in it is code; reading one cannot run anything.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from rt_swap.aus import AU_NAMES, NUM_AUS
from rt_swap.contract import CONTRACT_VERSION, TOKEN_DIM
from rt_swap.errors import ContractError, ExpressionFileError
from rt_swap.frames import Expression

FORMAT: Final = "rt_swap expression 1"
SUFFIX: Final = ".safetensors"
_METADATA_KEY: Final = "rt_swap"


def check_expression(expression: Expression) -> None:
    """Check shapes, dtypes, order of times and finiteness.

    Raises:
        ContractError: Listing everything that is wrong.
    """
    wrong: list[str] = []
    count = int(expression.times_s.shape[0]) if expression.times_s.ndim == 1 else 0
    if count < 1:
        wrong.append(f"times_s must be (T,) with T >= 1, got {expression.times_s.shape}")
    wanted: tuple[tuple[str, Any, tuple[int, ...], Any], ...] = (
        ("tokens", expression.tokens, (count, NUM_AUS, TOKEN_DIM), np.float32),
        ("aus_lr", expression.aus_lr, (count, NUM_AUS, 2), np.float32),
        ("times_s", expression.times_s, (count,), np.float64),
        ("valid", expression.valid, (count,), np.bool_),
    )
    for name, array, shape, dtype in wanted:
        if array.shape != shape or array.dtype != dtype:
            wrong.append(
                f"{name} must be {np.dtype(dtype).name} {shape}, "
                f"got {array.dtype.name} {array.shape}"
            )
        elif not np.isfinite(array).all():
            wrong.append(f"{name} holds values that are not finite")
    if not wrong:
        if (np.diff(expression.times_s) <= 0).any():
            wrong.append("times_s must ascend")
        if not expression.valid.any():
            wrong.append("no entry is valid")
    if not (np.isfinite(expression.duration_s) and expression.duration_s >= 0):
        wrong.append(f"duration_s must be finite and not negative, got {expression.duration_s}")
    if wrong:
        raise ContractError(f"expression {expression.name!r}: {'; '.join(wrong)}")


def save_expression(expression: Expression, path: Path) -> None:
    """Write an expression file; the final name appears only once it is complete.

    Args:
        expression: What to write.
        path: Where to; folders are made, an existing file is replaced.

    Raises:
        ContractError: If the expression's arrays are malformed.
        OSError: If the file cannot be written.
    """
    from safetensors.numpy import save

    check_expression(expression)
    header = {
        "format": FORMAT,
        "contract_version": CONTRACT_VERSION,
        "name": expression.name,
        "model_sha256": expression.model_sha256,
        "duration_s": float(expression.duration_s),
        "aus": list(AU_NAMES),
    }
    blob = save(
        {
            "tokens": np.ascontiguousarray(expression.tokens),
            "aus_lr": np.ascontiguousarray(expression.aus_lr),
            "times_s": np.ascontiguousarray(expression.times_s),
            "valid": expression.valid.astype(np.uint8),
        },
        metadata={_METADATA_KEY: json.dumps(header, sort_keys=True)},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of our own in the same folder, so that the rename is atomic and two writers do not meet
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_expression(path: Path, model_sha256: str | None = None) -> Expression:
    """Read an expression file.

    Args:
        path: The file.
        model_sha256: The encoder in use; a file made by another one is refused. None accepts any.

    Returns:
        The expression; arrays are the caller's own.

    Raises:
        ExpressionFileError: If the file is missing, corrupt, of another format or contract, or of
            another model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    advice = "encode the source again (rt-swap source encode)"
    try:
        blob = path.read_bytes()
    except OSError as exc:
        raise ExpressionFileError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
    try:
        # load() checks the header's length; metadata is only reachable through the raw header
        tensors = load(blob)
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(json.loads(blob[8 : 8 + length])["__metadata__"][_METADATA_KEY])
        if not isinstance(header, dict):
            raise ValueError("the header is not a JSON object")
    except (SafetensorError, ValueError, KeyError, TypeError) as exc:
        raise ExpressionFileError(
            f"{path}: not an expression file, or a damaged one ({exc}); {advice}"
        ) from exc
    for key, expected in (
        ("format", FORMAT),
        ("contract_version", CONTRACT_VERSION),
        ("aus", list(AU_NAMES)),
    ):
        if header.get(key) != expected:
            raise ExpressionFileError(
                f"{path}: made by another version of rt_swap ({key} is {header.get(key)!r}, "
                f"expected {expected!r}); {advice}"
            )
    made_by = header.get("model_sha256")
    if model_sha256 is not None and made_by != model_sha256:
        raise ExpressionFileError(
            f"{path}: made by model {str(made_by)[:12]}, but the model in use is "
            f"{model_sha256[:12]}; {advice}"
        )
    try:
        expression = Expression(
            tokens=tensors["tokens"],
            aus_lr=tensors["aus_lr"],
            times_s=tensors["times_s"],
            duration_s=float(header["duration_s"]),
            name=str(header["name"]),
            model_sha256=str(made_by),
            valid=tensors["valid"].astype(np.bool_),
        )
        check_expression(expression)
    except (KeyError, TypeError, ContractError) as exc:
        raise ExpressionFileError(f"{path}: damaged ({exc}); {advice}") from exc
    return expression
