"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest

from rt_swap.errors import ContractError
from rt_swap.io.sheet import contact_sheet


def _plain(level: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_contact_sheet_puts_rows_and_columns_where_they_belong() -> None:
    rows = [[_plain(10), _plain(60)], [_plain(110), _plain(160)], [_plain(210), _plain(250)]]
    sheet = contact_sheet(rows, ["a", "b"], gap_px=5)
    header_px = sheet.shape[0] - 3 * 25 - 5
    assert sheet.shape[1] == 2 * 35 + 5
    for line, row in enumerate(rows):
        for column, picture in enumerate(row):
            y, x = header_px + 5 + line * 25, 5 + column * 35
            np.testing.assert_array_equal(sheet[y : y + 20, x : x + 30], picture)


def test_contact_sheet_writes_each_name_above_its_column() -> None:
    without = contact_sheet([[_plain(0), _plain(0)]], ["", ""])
    for column, names in enumerate((["I", ""], ["", "I"])):
        y, x = np.nonzero((contact_sheet([[_plain(0), _plain(0)]], names) != without).any(2))
        assert len(x) > 0
        assert y.max() < 32
        assert x.min() >= 4 + column * 34
        assert x.max() < 4 + column * 34 + 30


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[_plain(0)]],
        [[_plain(0), _plain(0, height=21)]],
        [[_plain(0), _plain(0)], [_plain(0)]],
    ],
    ids=["nothing", "a header too many", "two sizes", "a short row"],
)
def test_contact_sheet_refuses_what_is_no_grid(rows: list[list[np.ndarray]]) -> None:
    with pytest.raises(ContractError, match="2 pictures of one size each"):
        contact_sheet(rows, ["a", "b"])
