"""Public names: what ``__all__`` promises is there, and what is there is promised."""

from __future__ import annotations

import importlib
import pkgutil
import types

import pytest

import rt_swap

# packages whose namespace is an interface: everything public that is imported into it is listed
INTERFACES = ("rt_swap.backends", "rt_swap.expression", "rt_swap.ops", "rt_swap.tracking")
OPTIONAL = ("gi", "tensorrt", "pycuda", "pyvirtualcam")


def _module_names() -> list[str]:
    found = (m.name for m in pkgutil.walk_packages(rt_swap.__path__, "rt_swap."))
    return sorted(n for n in found if n != "rt_swap.__main__")


def _imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        if (exc.name or "").startswith(OPTIONAL):
            pytest.skip(f"{name} needs {exc.name}")
        raise


@pytest.mark.parametrize("name", ["rt_swap", *_module_names()])
def test_all_names_what_is_there_once(name: str) -> None:
    module = _imported(name)
    promised = list(getattr(module, "__all__", []))
    assert len(promised) == len(set(promised))
    missing = [each for each in promised if not hasattr(module, each)]
    assert not missing


@pytest.mark.parametrize("name", INTERFACES)
def test_interface_lists_every_public_name(name: str) -> None:
    module = _imported(name)
    public = {
        each
        for each, value in vars(module).items()
        if not each.startswith("_") and not isinstance(value, types.ModuleType)
    }
    public.discard("annotations")
    assert public == set(module.__all__)


def test_package_offers_the_swapper_on_first_use() -> None:
    from rt_swap.swapper import Swapper

    assert rt_swap.Swapper is Swapper
    assert "Swapper" in dir(rt_swap)
    namespace: dict[str, object] = {}
    exec("from rt_swap import *", namespace)
    assert namespace["Swapper"] is Swapper


def test_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="'rt_swap' has no attribute 'swopper'"):
        _ = rt_swap.swopper  # type: ignore[attr-defined]


def test_version_is_the_metadatas() -> None:
    from importlib.metadata import version

    assert rt_swap.__version__ == version("rt-swap")
