"""Device profiles: what to build and set on which hardware (``engines/profiles/*.toml``).

A profile names the compute capabilities it is for, the runtime, the precision, the size of model,
how many streams are worth running, which clocks to set, and what to expect. What nobody has
measured says so (``measured = false``) and carries no figure.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rt_swap.backends.trt import FLAVOURS, RTX
from rt_swap.errors import ConfigError
from rt_swap.model import PRECISIONS

PROFILES_DIR: Final = Path(__file__).parent / "profiles"
RUNTIMES: Final = (*FLAVOURS, "onnxruntime")
MODEL_SIZES: Final = ("nano", "small", "base")

_TYPES: Final[dict[str, type]] = {
    "name": str,
    "title": str,
    "sm": list,
    "runtime": str,
    "precision": str,
    "model_size": str,
    "streams": int,
    "clocks": dict,
    "expect": dict,
}
_CLOCKS: Final[dict[str, type]] = {"why": str, "commands": list, "undo": list}
_EXPECT: Final[dict[str, type]] = {"measured": bool, "text": str}


@dataclass(frozen=True)
class Profile:
    """One kind of device.

    Attributes:
        name: The file's stem.
        title: For people.
        sm: Compute capabilities as numbers (89 for 8.9); empty for a CPU.
        runtime: "rtx", "tensorrt" or "onnxruntime".
        precision: "fp16" or "fp32".
        model_size: The largest size that should hold 30 frames a second.
        streams: How many people at once are worth trying.
        clocks_why: Why clocks matter there.
        clocks: Commands that set them.
        clocks_undo: Commands that set them back.
        measured: Whether ``expect`` was measured; what it says then names the result file.
        expect: What to expect.
    """

    name: str
    title: str
    sm: tuple[int, ...]
    runtime: str
    precision: str
    model_size: str
    streams: int
    clocks_why: str
    clocks: tuple[str, ...]
    clocks_undo: tuple[str, ...]
    measured: bool
    expect: str


def load_profile(path: Path) -> Profile:
    """Read and check one profile.

    Raises:
        ConfigError: Listing everything that is wrong with it.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read as TOML ({exc})") from exc
    wrong = _wrong(path, values)
    if wrong:
        raise ConfigError(f"{path}: {'; '.join(wrong)}")
    clocks, expect = values["clocks"], values["expect"]
    return Profile(
        name=values["name"],
        title=values["title"],
        sm=tuple(values["sm"]),
        runtime=values["runtime"],
        precision=values["precision"],
        model_size=values["model_size"],
        streams=values["streams"],
        clocks_why=clocks["why"],
        clocks=tuple(clocks["commands"]),
        clocks_undo=tuple(clocks["undo"]),
        measured=expect["measured"],
        expect=expect["text"],
    )


def load_profiles(folder: Path = PROFILES_DIR) -> dict[str, Profile]:
    """Every profile of a folder by name, sorted.

    Raises:
        ConfigError: If one is wrong, or there is none.
    """
    found = {p.stem: load_profile(p) for p in sorted(folder.glob("*.toml"))}
    if not found:
        raise ConfigError(f"{folder}: no profiles here (*.toml)")
    return found


def rtx_targets(profiles: dict[str, Profile]) -> list[tuple[int, str]]:
    """(compute capability, precision) of everything that TensorRT for RTX is to build, sorted."""
    return sorted(
        {(sm, p.precision) for p in profiles.values() if p.runtime == "rtx" for sm in p.sm}
    )


def _wrong(path: Path, values: dict[str, Any]) -> list[str]:
    wrong = _wrong_types("", values, _TYPES)
    for table, types in (("clocks", _CLOCKS), ("expect", _EXPECT)):
        if isinstance(values.get(table), dict):
            wrong += _wrong_types(f"{table}.", values[table], types)
    if wrong:
        return wrong
    if values["name"] != path.stem:
        wrong.append(f"name is {values['name']!r}, the file's is {path.stem!r}")
    for key, allowed in (
        ("runtime", RUNTIMES),
        ("precision", PRECISIONS),
        ("model_size", MODEL_SIZES),
    ):
        if values[key] not in allowed:
            wrong.append(f"{key} must be one of {', '.join(allowed)}, got {values[key]!r}")
    if not 1 <= values["streams"] <= 64:
        wrong.append(f"streams must be 1 to 64, got {values['streams']}")
    sms = values["sm"]
    if any(type(sm) is not int or not 50 <= sm <= 199 for sm in sms):
        wrong.append(f"sm must be numbers such as 89, got {sms}")
    elif bool(sms) is (values["runtime"] == "onnxruntime"):
        wrong.append("sm must name GPUs for a TensorRT runtime, and be empty for onnxruntime")
    elif values["runtime"] == "rtx" and (foreign := [sm for sm in sms if sm not in RTX.sms]):
        wrong.append(f"TensorRT for RTX does not build for sm {foreign}, only for {RTX.sms}")
    texts = [*values["clocks"]["commands"], *values["clocks"]["undo"]]
    if any(not isinstance(text, str) or not text for text in texts):
        wrong.append("clocks.commands and clocks.undo must be lists of commands")
    expect = values["expect"]
    if not expect["measured"] and re.search(r"\d\s*(ms|fps|frames|W\b)", expect["text"]):
        wrong.append("expect.text gives a figure that nobody measured; leave it out")
    if expect["measured"] and "benchmarks/results/" not in expect["text"]:
        wrong.append("expect.text must name the result file it was measured in")
    return wrong


def _wrong_types(prefix: str, values: dict[str, Any], types: dict[str, type]) -> list[str]:
    wrong = [f"unknown key {prefix}{key}" for key in values if key not in types]
    for key, kind in types.items():
        if key not in values:
            wrong.append(f"{prefix}{key} is missing")
        elif type(values[key]) is not kind:
            wrong.append(f"{prefix}{key} must be {kind.__name__}, got {type(values[key]).__name__}")
    return wrong
