"""Finds PyGObject and GStreamer, also from inside a virtual environment."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rt_swap.errors import BackendUnavailable

DEBIAN_PACKAGES: Final = (
    "python3-gi python3-gst-1.0 gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0"
    " gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-tools"
    " gstreamer1.0-python3-plugin-loader"
)
SYSTEM_FOLDERS: Final = (
    "/usr/lib/python3/dist-packages",
    f"/usr/lib/python3.{sys.version_info[1]}/site-packages",
    f"/usr/lib64/python3.{sys.version_info[1]}/site-packages",
)
"""Where distributions put PyGObject."""


class _SystemFinder:
    """Finds the system's ``gi`` and nothing else of the system's packages."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of ``gi``; its submodules are found by its own path."""
        if name != "gi":
            return None
        return importlib.machinery.PathFinder.find_spec(name, [self._folder])


def plugin_path() -> Path:
    """The folder for GST_PLUGIN_PATH; the plugin lies in its subfolder ``python``."""
    return Path(__file__).resolve().parent / "plugin"


def load() -> tuple[Any, Any, Any]:
    """GStreamer's modules, initialised.

    A virtual environment does not see the system's PyGObject. Where that was built for this very
    Python, it is used all the same; else ``pip install PyGObject`` builds one.

    Returns:
        Gst, GstBase and GstVideo.

    Raises:
        BackendUnavailable: If something is missing; says what to install.
    """
    if importlib.util.find_spec("gi") is None:
        suffix = sysconfig.get_config_var("EXT_SUFFIX") or ""
        for folder in SYSTEM_FOLDERS:
            if (Path(folder) / "gi" / f"_gi{suffix}").is_file():
                sys.meta_path.append(_SystemFinder(folder))
                importlib.invalidate_caches()
                break
        else:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            raise BackendUnavailable(
                f"rtswap needs PyGObject for Python {version}, and neither this environment nor"
                f" the system has it; on Debian: apt install {DEBIAN_PACKAGES}; where the system's"
                " Python is another one, also: apt install libgirepository1.0-dev libcairo2-dev,"
                " then pip install 'PyGObject<3.52'"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old importers and of overrides, none of it ours
            import gi

            for name in ("Gst", "GstBase", "GstVideo"):
                gi.require_version(name, "1.0")
            from gi.repository import Gst, GstBase, GstVideo
    except (ImportError, ValueError) as exc:
        raise BackendUnavailable(
            f"rtswap needs GStreamer's introspection data ({exc}); on Debian: apt install"
            f" {DEBIAN_PACKAGES}"
        ) from exc
    if not Gst.is_initialized():
        Gst.init(None)
    if not hasattr(Gst.Buffer, "map_range"):
        raise BackendUnavailable("rtswap needs GStreamer 1.20 or later")
    return Gst, GstBase, GstVideo
