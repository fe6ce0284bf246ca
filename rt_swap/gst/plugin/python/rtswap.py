"""What GStreamer's Python loader reads: GST_PLUGIN_PATH names the folder above this one.

The loader runs the *system's* Python. It finds rt_swap in the activated virtual environment
(VIRTUAL_ENV), or beside this file, where that belongs to the same version of Python.
"""

import os
import site
import sys
from pathlib import Path

try:
    import rt_swap.gst
except ImportError:
    # .../site-packages/rt_swap/gst/plugin/python/rtswap.py, or the same in a checkout
    _ROOT = Path(__file__).resolve().parents[4]
    _VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    _ENVIRONMENTS = [Path(os.environ.get("VIRTUAL_ENV") or _ROOT / ".venv"), _ROOT / ".venv"]
    for _environment in _ENVIRONMENTS:
        _packages = _environment / "lib" / _VERSION / "site-packages"
        if _packages.is_dir():
            site.addsitedir(str(_packages))
            break
    sys.path.insert(0, str(_ROOT))
    try:
        import rt_swap.gst
    except ImportError as exc:
        raise ImportError(
            f"rtswap: {_VERSION}, which GStreamer's loader runs, cannot import rt_swap ({exc});"
            " make the virtual environment with that Python and activate it (VIRTUAL_ENV)"
        ) from exc

__gstelementfactory__ = rt_swap.gst.factory()
