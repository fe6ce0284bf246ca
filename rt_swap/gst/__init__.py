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


__all__ = ["load", "plugin_path", "register"]
