"""The key: every field decides, and it survives the sidecar."""

from __future__ import annotations

import dataclasses

import pytest

from rt_swap.contract import CONTRACT_VERSION, ENCODER_SPEC
from rt_swap.enginecache.key import ANY_GPU, Device, EngineKey, make_key


def key(**changes: object) -> EngineKey:
    made = make_key(
        "a" * 64,
        ENCODER_SPEC,
        "fp16",
        Device(89, "NVIDIA GeForce RTX 4090"),
        runtime="rtx",
        runtime_version="1.7.1",
        portable=False,
        flags="tf32=0",
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("graph", "target_generator"),
        ("onnx_sha256", "b" * 64),
        ("contract_version", CONTRACT_VERSION + 1),
        ("precision", "fp32"),
        ("shapes", "source_rgb=1x3x128x128"),
        ("runtime", "tensorrt"),
        ("runtime_version", "1.7.2"),
        ("sm", 86),
        ("gpu", "NVIDIA GeForce RTX 4070"),
        ("flags", "tf32=1"),
        ("platform", "Windows-AMD64"),
    ],
)
def test_every_field_decides_and_is_named(field: str, value: object) -> None:
    other = key(**{field: value})
    assert other.sha256 != key().sha256
    assert other.file_name != key().file_name
    (difference,) = key().differences(other)
    assert difference.startswith(f"{field} ")


def test_every_field_has_a_case_above() -> None:
    marks = test_every_field_decides_and_is_named.pytestmark  # type: ignore[attr-defined]
    (cases,) = (mark.args[1] for mark in marks if mark.name == "parametrize")
    assert {name for name, _ in cases} == {f.name for f in dataclasses.fields(EngineKey)}


def test_portable_engines_do_not_ask_for_the_gpus_name() -> None:
    made = [
        make_key(
            "a" * 64, ENCODER_SPEC, "fp16", device, runtime="rtx", runtime_version="1",
            portable=True, flags="",
        )
        for device in (Device(89), Device(89, "NVIDIA GeForce RTX 4090", is_here=True))
    ]  # fmt: skip
    assert made[0] == made[1]
    assert made[0].gpu == ANY_GPU


def test_key_survives_json_and_refuses_anything_else() -> None:
    values = dataclasses.asdict(key())
    assert EngineKey.from_json(values) == key()
    assert key().file_name.startswith("expression_encoder.fp16.rtx.sm89.")
    assert EngineKey.from_json({**values, "more": 1}) is None
    assert EngineKey.from_json({**values, "sm": "89"}) is None
    assert EngineKey.from_json([]) is None
    del values["sm"]
    assert EngineKey.from_json(values) is None
