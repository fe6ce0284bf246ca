"""Prints the folder for GST_PLUGIN_PATH."""

import sys

from rt_swap.gst.bindings import plugin_path

sys.stdout.write(f"{plugin_path()}\n")
