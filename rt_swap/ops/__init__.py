"""Crop and compose: checked functions over the native module; ``rt_swap.ops.reference`` has the
same in NumPy.
"""

from rt_swap.ops.compose import compose_bgr, feather
from rt_swap.ops.crop import crop_rgb

__all__ = ["compose_bgr", "crop_rgb", "feather"]
