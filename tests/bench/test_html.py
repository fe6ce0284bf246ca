"""The report opens without a network, shows what the document says, and is well-formed."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import pytest

from rt_swap.bench.html import page
from rt_swap.bench.svg import Plot, ticks
from rt_swap.bench.table import lines_of

VOID = {"meta", "br", "link", "img"}


class Checker(HTMLParser):
    """Counts elements, and finds tags left open and attributes that load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag in VOID:
            return
        self.open.append(tag)
        self.loads += [f"{tag} {n}={v}" for n, v in attrs if n in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] == "p" and tag != "p":
            self.open.pop()  # a paragraph may be left open
        assert self.open.pop() == tag


def test_page_is_closed_and_loads_nothing(document: dict[str, Any]) -> None:
    text = page(document)
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert not checker.loads
    assert "script" not in checker.count
    assert checker.count["svg"] == 4
    # an address in the words of a message loads nothing; one in an attribute or a style would
    assert not re.search(r"=\s*[\"']?https?://|@import|url\(", text)
    assert "default-src 'none'" in text


def test_page_every_plot_is_well_formed(document: dict[str, Any]) -> None:
    plots = re.findall(r"<svg.*?</svg>", page(document), re.S)
    assert len(plots) == 4
    for plot in plots:
        ET.fromstring(plot)


def test_page_and_table_show_the_figures(document: dict[str, Any]) -> None:
    timing = document["main"]["capture_to_emit_ms"]
    text, lines = page(document), "\n".join(lines_of(document))
    for shown in (text, lines):
        assert f"{timing['p99']:.2f}" in shown
        assert document["power"]["why_absent"].split(";")[0] in shown
        assert all(w in shown for w in document["warnings"] if "'" not in w)
    assert "none of the work was timed on a GPU" in lines


def test_page_text_from_outside_is_escaped(document: dict[str, Any]) -> None:
    bad = copy.deepcopy(document)
    bad["parameters"]["shown"] = "<script>alert(1)</script>.mp4"
    bad["about"]["cpu"] = 'A "fast" & <b>bold</b> one'
    text = page(bad)
    assert "<script>" not in text
    assert "<b>bold" not in text


def test_page_of_many_frames_keeps_the_slowest(document: dict[str, Any]) -> None:
    long = copy.deepcopy(document)
    samples = [10.0] * 50_000
    samples[31_234] = 99.0
    long["samples_ms"]["capture to emit"] = samples
    (dots,) = re.findall(r'class="dots s0" d="([^"]*)"', page(long).split("How the times")[0])
    heights = {point.split()[1] for point in dots.split("M")[1:]}
    assert dots.count("M") <= 4100
    assert len(heights) == 2


def test_page_without_optional_parts(document: dict[str, Any]) -> None:
    bare = copy.deepcopy(document)
    bare |= {"live": None, "overlapped": None, "ladder": [], "models": [], "backends": []}
    checker = Checker()
    checker.feed(page(bare))
    assert not checker.open
    assert "\n".join(lines_of(bare))


def test_ticks_are_round_and_inside() -> None:
    assert list(ticks(0, 10)) == [0, 2, 4, 6, 8, 10]
    assert list(ticks(0.13, 0.42, 3)) == pytest.approx([0.2, 0.3, 0.4])


def test_plot_y_grows_upwards_and_a_flat_range_is_no_error() -> None:
    plot = Plot("t", (0, 1), (5, 5), "x", "y")
    plot.line([0, 1], [4.8, 5.2], 0)
    points = re.search(r'points="(\S+) (\S+)"', plot.text())
    assert points is not None
    assert float(points[1].split(",")[1]) > float(points[2].split(",")[1])
