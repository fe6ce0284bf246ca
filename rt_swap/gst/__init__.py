"""GStreamer element ``rtswap``, in gst-python.

    export GST_PLUGIN_PATH=$(python -m rt_swap.gst)
    gst-launch-1.0 v4l2src ! videoconvert ! rtswap preset=smile ! videoconvert ! autovideosink

In a Python program: ``rt_swap.gst.register()``, then ``Gst.parse_launch("... ! rtswap ! ...")``.
docs/gstreamer.md tells the rest. Importing this package loads neither GStreamer nor PyGObject.
"""

from __future__ import annotations

from rt_swap.gst.bindings import load, plugin_path


def register() -> None:
    """Make the element ``rtswap`` known to GStreamer in this process.

    Raises:
        BackendUnavailable: If PyGObject or GStreamer's introspection data is missing.
    """
    load()
    from rt_swap.gst.element import register_element

    register_element()


def factory() -> tuple[str, int, type]:
    """What GStreamer's Python loader asks a plugin for: the element's name, rank and class.

    Raises:
        BackendUnavailable: If PyGObject or GStreamer's introspection data is missing.
    """
    load()
    from rt_swap.gst.element import ELEMENT_NAME, RtSwap

    return ELEMENT_NAME, 0, RtSwap


__all__ = ["factory", "load", "plugin_path", "register"]
