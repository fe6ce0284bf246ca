"""Contact sheets: pictures in a grid with a name above each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from rt_swap.errors import ContractError
from rt_swap.frames import U8

_HEADER_PX: Final = 32
_BACKGROUND: Final = 24
_INK: Final = (235, 235, 235)


def contact_sheet(rows: Sequence[Sequence[U8]], headers: Sequence[str], gap_px: int = 4) -> U8:
    """Lay pictures out in a grid.

    Args:
        rows: Pictures row by row, (H, W, 3) uint8 BGR, all of one size, one for each header.
        headers: Names of the columns, in ASCII.
        gap_px: Space around each picture.

    Returns:
        (H', W', 3) uint8, BGR.

    Raises:
        ContractError: If there is nothing to show, a row has another length, or a picture another
            size.
    """
    import cv2

    shapes = {picture.shape for row in rows for picture in row}
    if not rows or len(shapes) != 1 or any(len(row) != len(headers) for row in rows):
        raise ContractError(
            f"contact_sheet: rows must hold {len(headers)} pictures of one size each,"
            f" got rows of {[len(row) for row in rows]} pictures of sizes {sorted(shapes)}"
        )
    height, width, _ = shapes.pop()
    sheet_hw = (
        _HEADER_PX + len(rows) * (height + gap_px) + gap_px,
        len(headers) * (width + gap_px) + gap_px,
    )
    sheet = np.full((*sheet_hw, 3), _BACKGROUND, np.uint8)
    for column, name in enumerate(headers):
        x = gap_px + column * (width + gap_px)
        at = (x + 4, _HEADER_PX - 9)
        cv2.putText(sheet, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.65, _INK, 1, cv2.LINE_AA)
        for line, row in enumerate(rows):
            y = _HEADER_PX + gap_px + line * (height + gap_px)
            sheet[y : y + height, x : x + width] = row[column]
    return sheet
