"""Numbers that the writer and the reader of training shards share; imports nothing heavy."""

from __future__ import annotations

from typing import Final

FORMAT: Final = 2
"""2: keep tells eyes behind lids, and what looks otherwise than what is fetched."""
FLOW_UNITS_PER_PX: Final = 64.0
FIELDS_SIDE: Final = 64
"""Cells of a unit's field along a side of the crop."""
NOTHING: Final = -128
"""In a shard's fields: the face's mesh is not there."""
