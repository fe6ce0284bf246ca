"""Presets and their recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rt_swap.aus import NUM_AUS, AuId
from rt_swap.errors import ConfigError, ExpressionFileError, ModelFileError
from rt_swap.expression import PRESETS, preset, save_expression
from rt_swap.expression.recipes import RECIPES, recipe_aus_lr
from rt_swap.model import load_bundle
from tests.support.expressions import still
from tests.support.tiny_model import tiny_bundle, write_manifest


def test_the_nine_presets() -> None:
    assert PRESETS == (
        "neutral", "smile", "laugh", "surprise", "anger", "sadness", "disgust", "fear", "wink",
    )  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_recipe_is_in_range_and_one_sided_only_where_the_face_can_be(name: str) -> None:
    aus_lr = recipe_aus_lr(name)
    assert aus_lr.shape == (NUM_AUS, 2)
    assert aus_lr.dtype == np.float32
    assert aus_lr.min() >= 0
    assert aus_lr.max() <= 1
    from rt_swap.aus import AUS

    for au, (left, right) in zip(AUS, aus_lr, strict=True):
        if au.is_midline:
            assert left == right, au.id.name


def test_recipes_differ_and_only_neutral_is_still() -> None:
    rows = [recipe_aus_lr(name) for name in PRESETS]
    for i, row in enumerate(rows):
        assert (row.max() > 0) == (PRESETS[i] != "neutral")
        for other in rows[:i]:
            assert np.abs(row - other).max() >= 0.3


def test_wink_closes_the_person_s_left_eye_only() -> None:
    left, right = recipe_aus_lr("wink")[AuId.AU45.index]
    assert (left, right) == (1, 0)


def test_recipe_keys_are_known_aus() -> None:
    assert all(isinstance(au, AuId) for recipe in RECIPES.values() for au in recipe)
    with pytest.raises(ConfigError, match="no preset 'grin'"):
        recipe_aus_lr("grin")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_read_from_the_bundle(tmp_path: Path, name: str) -> None:
    bundle = load_bundle(tiny_bundle(tmp_path))
    expression = preset(name, bundle)
    assert expression.name == name
    assert expression.model_sha256 == bundle.sha256
    assert expression.tokens.shape == (1, NUM_AUS, 16)


@pytest.mark.parametrize("model", ["default", "nano"])
@pytest.mark.parametrize("name", PRESETS)
def test_shipped_preset_shows_what_its_recipe_says(name: str, model: str) -> None:
    np.testing.assert_array_equal(preset(name, load_bundle(model)).aus_lr[0], recipe_aus_lr(name))


def test_unknown_preset_lists_them(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle(tmp_path))
    with pytest.raises(ConfigError, match="no preset 'grin'; there are neutral, smile"):
        preset("grin", bundle)


def test_preset_that_the_model_lacks(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path)
    (folder / "presets" / "fear.safetensors").unlink()
    write_manifest(folder)
    with pytest.raises(ModelFileError, match="ships no preset 'fear'"):
        preset("fear", load_bundle(folder))


def test_preset_of_another_encoder_is_refused(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path)
    save_expression(still(), folder / "presets" / "fear.safetensors")
    write_manifest(folder)
    with pytest.raises(ExpressionFileError, match="made by model"):
        preset("fear", load_bundle(folder))
