"""rt_swap: gives the person in a video somebody else's facial expression and leaves everything else
alone.

``source`` is who gives the expression, ``target`` is who is shown. ``Swapper`` is the Python API;
it is imported on first use, so that ``import rt_swap`` (and with it ``rt-swap --help``) stays
light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rt_swap.swapper import Swapper

__version__ = "0.1.0"

__all__ = ["Swapper", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Swapper":
        from rt_swap.swapper import Swapper

        return Swapper
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
