"""The source's expression: encoded once, cached, stored in files, timed against the target."""

from rt_swap.expression.cache import (
    CacheEntry,
    ExpressionCache,
    cache_dir,
    cache_key,
    hash_of_picture,
)
from rt_swap.expression.encode import (
    encode_clip,
    encode_face,
    encode_frames,
    encode_picture,
    find_faces,
)
from rt_swap.expression.files import load_expression, save_expression
from rt_swap.expression.gains import MAX_GAIN, parse_gains
from rt_swap.expression.presets import PRESETS, preset
from rt_swap.expression.timing import (
    NEUTRAL_CHOICES,
    TIMINGS,
    at,
    aus_at,
    is_over,
    moment_of,
    neutral_tokens,
)

__all__ = [
    "MAX_GAIN",
    "NEUTRAL_CHOICES",
    "PRESETS",
    "TIMINGS",
    "CacheEntry",
    "ExpressionCache",
    "at",
    "aus_at",
    "cache_dir",
    "cache_key",
    "encode_clip",
    "encode_face",
    "encode_frames",
    "encode_picture",
    "find_faces",
    "hash_of_picture",
    "is_over",
    "load_expression",
    "moment_of",
    "neutral_tokens",
    "parse_gains",
    "preset",
    "save_expression",
]
