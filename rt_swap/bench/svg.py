"""Plots as SVG text: no library, no script, nothing to load. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

WIDTH: Final = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 40
_SERIES: Final = 6
"""Colours that the page's style names: s0 .. s5."""


class Plot:
    """One plot with its axes; add marks, then take :meth:`text`.

    Args:
        title: Read out by screen readers.
        x_range: (low, high) of the horizontal axis.
        y_range: Of the vertical one.
        x_label: What the horizontal axis shows, unit included.
        y_label: The vertical one.
        height: Pixels.
        x_names: Names instead of numbers along the horizontal axis, at 0, 1, 2, ...
    """

    def __init__(
        self,
        title: str,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        x_label: str,
        y_label: str,
        *,
        height: int = 280,
        x_names: Sequence[str] = (),
    ) -> None:
        self._title, self._height = title, height
        self._x0, self._x1 = _widened(*x_range)
        self._y0, self._y1 = _widened(*y_range)
        self._marks: list[str] = []
        self._legend: list[tuple[int, str]] = []
        self._axes(x_label, y_label, x_names)

    def line(self, xs: Sequence[float], ys: Sequence[float], series: int, name: str = "") -> None:
        """A line through points."""
        points = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        self._marks.append(f'<polyline class="line s{series % _SERIES}" points="{points}"/>')
        self._name(series, name)

    def dots(self, xs: Sequence[float], ys: Sequence[float], series: int, name: str = "") -> None:
        """A dot at each point."""
        paths = "".join(
            f"M{self._x(x):.1f} {self._y(y):.1f}h0" for x, y in zip(xs, ys, strict=True)
        )
        self._marks.append(f'<path class="dots s{series % _SERIES}" d="{paths}"/>')
        self._name(series, name)

    def bar(self, x: float, width: float, y0: float, y1: float, series: int, tip: str) -> None:
        """An upright bar from y0 to y1 around x, with a tip when pointed at."""
        left, right = self._x(x - width / 2), self._x(x + width / 2)
        top, bottom = self._y(max(y0, y1)), self._y(min(y0, y1))
        self._marks.append(
            f'<rect class="bar s{series % _SERIES}" x="{left:.1f}" y="{top:.1f}"'
            f' width="{max(right - left, 0.5):.1f}" height="{max(bottom - top, 0):.1f}">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def level(self, y: float, text: str) -> None:
        """A dashed line across, with its name."""
        if not self._y0 <= y <= self._y1:
            return
        at = self._y(y)
        self._marks.append(
            f'<line class="level" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="small" x="{WIDTH - _RIGHT}" y="{at - 3:.1f}" text-anchor="end">'
            f"{escape(text)}</text>"
        )

    def legend(self, series: int, name: str) -> None:
        """Name a colour below the plot."""
        self._name(series, name)

    def text(self) -> str:
        """The plot as an ``svg`` element, its legend as HTML below it."""
        legend = "".join(
            f'<span><i class="s{series % _SERIES}"></i>{escape(name)}</span>'
            for series, name in self._legend
        )
        return (
            f'<svg viewBox="0 0 {WIDTH} {self._height}" role="img"'
            f' aria-label="{escape(self._title)}">{"".join(self._marks)}</svg>'
            + (f'<p class="legend">{legend}</p>' if legend else "")
        )

    # --- helpers ---
    def _name(self, series: int, name: str) -> None:
        if name and (series, name) not in self._legend:
            self._legend.append((series, name))

    def _x(self, value: float) -> float:
        share = (value - self._x0) / (self._x1 - self._x0)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        share = (value - self._y0) / (self._y1 - self._y0)
        return self._height - _BOTTOM - share * (self._height - _TOP - _BOTTOM)

    def _axes(self, x_label: str, y_label: str, x_names: Sequence[str]) -> None:
        bottom = self._height - _BOTTOM
        for value in ticks(self._y0, self._y1):
            y = self._y(value)
            self._marks.append(
                f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
        named = [(float(place), name) for place, name in enumerate(x_names)]
        if not named:
            named = [(value, f"{value:g}") for value in ticks(self._x0, self._x1)]
        for value, name in named:
            self._marks.append(
                f'<text x="{self._x(value):.1f}" y="{bottom + 15}" text-anchor="middle">'
                f"{escape(str(name))}</text>"
            )
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        self._marks.append(
            f'<text class="small" x="{middle:.0f}" y="{self._height - 6}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
            f'<text class="small" transform="translate(12 {(_TOP + bottom) / 2:.0f}) rotate(-90)"'
            f' text-anchor="middle">{escape(y_label)}</text>'
        )


def ticks(low: float, high: float, about: int = 6) -> Iterator[float]:
    """Round numbers between two, about so many."""
    rough = (high - low) / max(about, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)
    number = math.ceil(low / step - 1e-9)
    while number * step <= high + step * 1e-9:
        yield round(number * step, 12)
        number += 1


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, low + 0.5)
