"""Named expressions that come with a model."""

from __future__ import annotations

from typing import Final

from rt_swap.errors import ConfigError
from rt_swap.expression.files import load_expression
from rt_swap.expression.recipes import RECIPES
from rt_swap.frames import Expression
from rt_swap.model import ModelBundle

PRESETS: Final[tuple[str, ...]] = tuple(RECIPES)
"""Names of the presets."""


def preset(name: str, bundle: ModelBundle) -> Expression:
    """A preset's tokens.

    Args:
        name: One of PRESETS.
        bundle: The model in use, which ships them.

    Returns:
        A still expression.

    Raises:
        ConfigError: If there is no such preset.
        ModelFileError: If this model does not ship it.
        ExpressionFileError: If its file is damaged or was made by another encoder.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return load_expression(bundle.preset_path(name), bundle.sha256)
