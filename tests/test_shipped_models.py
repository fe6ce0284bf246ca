"""The models that come with the package."""

from __future__ import annotations

import json

import pytest

from rt_swap.contract import GENERATOR_SPEC
from rt_swap.model import DEFAULT_BUNDLE, installed_bundles, load_bundle


def gmac(name: str) -> float:
    report = json.loads((load_bundle(name).path / "parity.json").read_text())
    return float(report["gmac"][GENERATOR_SPEC.name])


def test_there_is_a_default_one_and_a_smaller_one() -> None:
    assert list(installed_bundles()) == ["default", "nano"]
    assert load_bundle().path == DEFAULT_BUNDLE
    assert gmac("default") < 1.2
    assert gmac("nano") < 0.5 * gmac("default")


@pytest.mark.parametrize("name", ["default", "nano"])
def test_each_has_its_card_its_figures_and_every_preset(name: str) -> None:
    bundle = load_bundle(name)
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# Model card: rt_swap {name} (`{bundle.name}`)")
    for part in ("| data |", "| energy |", "## Held-out people", "## What it is bad at", "## Use"):
        assert part in card
    evaluation = bundle.manifest["validation"]["evaluation"]
    assert evaluation["model"]["generator_sha256"] == bundle.generator_sha256
    assert bundle.preset_names == load_bundle().preset_names
    assert len(bundle.preset_names) == 9
