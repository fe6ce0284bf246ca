"""The report as one HTML file: plots drawn as SVG, no script, nothing loaded from anywhere."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from rt_swap.bench.compare import Comparison
from rt_swap.bench.svg import Plot

_PERCENTILES: Final = ("p50", "p90", "p95", "p99", "max")
_MOST_DOTS: Final = 4000
STYLE: Final = """
:root{--ink:#1c2024;--soft:#60666d;--paper:#fff;--line:#d9dde1;--c0:#1665c1;--c1:#c2571a;
--c2:#2b8a3e;--c3:#8e44ad;--c4:#b08800;--c5:#0f8b8d;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#9aa1a9;--paper:#15181b;--line:#33393f;
--c0:#6cb0ff;--c1:#ff9d5c;--c2:#69d17f;--c3:#cf9bea;--c4:#e6c34a;--c5:#56d0d2;--bad:#ff8a80}}
*{box-sizing:border-box}body{margin:0 auto;max-width:820px;padding:24px 16px 64px;
font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:36px 0 6px}p{margin:6px 0}
.soft{color:var(--soft)}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:4px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left;white-space:normal}th{font-weight:600}
.beware{border-left:4px solid var(--bad);padding:4px 12px;margin:8px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:16px 0}
.card{border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.card b{display:block;font-size:22px}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--soft)}
svg .grid{stroke:var(--line)}svg .level{stroke:var(--soft);stroke-dasharray:4 4}
svg .line{fill:none;stroke-width:1.6}
svg .dots{fill:none;stroke-width:2.4;stroke-linecap:round;stroke-opacity:.55}
.s0{stroke:var(--c0);fill:var(--c0);background:var(--c0)}
.s1{stroke:var(--c1);fill:var(--c1);background:var(--c1)}
.s2{stroke:var(--c2);fill:var(--c2);background:var(--c2)}
.s3{stroke:var(--c3);fill:var(--c3);background:var(--c3)}
.s4{stroke:var(--c4);fill:var(--c4);background:var(--c4)}
.s5{stroke:var(--c5);fill:var(--c5);background:var(--c5)}
svg .bar{stroke:none}
.legend span{margin-right:14px;white-space:nowrap}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
.slower{color:var(--bad);font-weight:600}
"""


def page(document: Mapping[str, Any], comparison: Comparison | None = None) -> str:
    """The whole report.

    Args:
        document: A result that the schema has passed.
        comparison: With an older one, or None.

    Returns:
        HTML.
    """
    about, main, options = document["about"], document["main"], document["parameters"]
    size = "x".join(str(side) for side in options["size_wh"])
    out = io.StringIO()
    device = ", ".join(gpu["name"] for gpu in about["gpus"]) or about["jetson"] or "no NVIDIA GPU"
    out.write(f"<h1>rt-swap bench</h1><p class=soft>{_t(document['created'])}; {_t(about['cpu'])},")
    out.write(f" {about['cores_used']} of {about['cores_present']} cores; {_t(device)};")
    out.write(f" backend {_t(about['backend'])}; model {_t(about['model']['name'])};")
    out.write(f" {_t(options['shown'])}</p>")
    for text in document["warnings"]:
        out.write(f"<p class=beware>Beware: {_t(text)}.</p>")
    out.write(_cards(document))

    out.write(f"<h2>Capture to emit at {size}, frame by frame</h2>")
    out.write(_over_frames(document["samples_ms"]["capture to emit"]))
    out.write("<h2>How the times are spread</h2>")
    out.write(_distribution(document["samples_ms"]))
    out.write("<h2>Where the time goes</h2>")
    rows = [("capture to emit", main["capture_to_emit_ms"]), *main["stage_ms"].items()]
    rows += [(f"processor time, {name}", t) for name, t in main["cpu_ms"].items()]
    rows += [(f"GPU, {name}", t) for name, t in (main["gpu_ms"] or {}).items()]
    out.write(_timings("ms per frame", rows))
    out.write(
        "<p class=soft>A percentile is a frame that really took that long. Processor time is the"
        " sum over all threads: above the stage's own time, several cores worked on it."
        f" Not timed: {_t(options['not_timed'])}.</p>"
    )
    out.write(_live(document))
    out.write(_ladder(document["ladder"]))
    out.write(_alternatives("Models", "name", document["models"]))
    out.write(_alternatives("Backends", "backend", document["backends"]))
    out.write(_other(document))
    if comparison is not None:
        out.write(_comparison(comparison))
    out.write("<h2>With what</h2>")
    out.write(_with_what(about, options))
    return html_page("rt-swap bench", out.getvalue())


def html_page(title: str, body: str) -> str:
    """A page around a body, with the style of the reports."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">"
        f"<title>{_t(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are HTML already."""
    titles = "".join(f"<th>{_t(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{titles}</tr>{lines}</table></div>'


def _t(text: object) -> str:
    return escape(str(text))


def _cards(document: Mapping[str, Any]) -> str:
    main, live, memory = document["main"], document["live"], document["memory"]
    timing = main["capture_to_emit_ms"]
    cards = [
        (f"{timing['p50']:.1f} ms", "capture to emit, p50"),
        (f"{timing['p99']:.1f} ms", "p99"),
    ]
    if live and live["age_ms"]:
        cards.append((f"{live['age_ms']['p95']:.1f} ms", "age of a live frame, p95"))
        cards.append((f"{live['dropped_percent']} %", f"dropped at {live['rate']:g} frames/s"))
    if document["overlapped"] and document["overlapped"]["fps"]:
        cards.append((f"{document['overlapped']['fps']:.0f} /s", "frames, stages overlapped"))
    if memory["host_peak_mib"] is not None:
        cards.append((f"{memory['host_peak_mib']:.0f} MiB", "peak memory"))
    power = document["power"]
    if power["joules_per_frame"] is not None:
        cards.append((f"{power['joules_per_frame']:.2f} J", f"a frame ({power['source']})"))
    inner = "".join(f'<div class="card"><b>{_t(v)}</b>{_t(what)}</div>' for v, what in cards)
    return f'<div class="cards">{inner}</div>'


def _over_frames(samples_ms: Sequence[float]) -> str:
    samples = np.asarray(samples_ms)
    plot = Plot(
        "Time of each frame",
        (0, len(samples)),
        (0, float(samples.max()) * 1.05),
        "frame",
        "ms, capture to emit",
    )
    # too many dots: the slowest ones are kept, and an even choice of the rest
    kept = np.arange(len(samples))
    if len(samples) > _MOST_DOTS:
        slow = np.argsort(samples)[-_MOST_DOTS // 4 :]
        kept = np.union1d(slow, kept[:: -(-len(samples) // (_MOST_DOTS * 3 // 4))])
    plot.dots(kept.tolist(), samples[kept].tolist(), 0)
    for name in (50, 99):
        at = float(np.percentile(samples, name, method="higher"))
        plot.level(at, f"p{name} {at:.1f} ms")
    return plot.text()


def _distribution(series: Mapping[str, Sequence[float]]) -> str:
    high = max(float(np.percentile(v, 99.9)) for v in series.values() if len(v))
    plot = Plot(
        "Part of the frames that took at most so long", (0, high), (0, 100), "ms", "% of frames"
    )
    for number, (name, values) in enumerate(series.items()):
        at = np.linspace(0, 100, 201)
        plot.line(np.percentile(values, at).clip(max=high).tolist(), at.tolist(), number, name)
    return plot.text()


def _timings(head: str, rows: Iterable[tuple[str, Mapping[str, float]]]) -> str:
    return table(
        [head, *_PERCENTILES, "n"],
        [[_t(name), *(f"{t[p]:.2f}" for p in _PERCENTILES), f"{t['count']}"] for name, t in rows],
    )


def _live(document: Mapping[str, Any]) -> str:
    live = document["live"]
    if not live:
        return ""
    text = (
        f"<h2>Live, {live['rate']:g} frames a second for {live['seconds']:g} s</h2>"
        f"<p>{live['dropped']} of {live['offered']} frames were dropped because a newer one had"
        f" come ({live['dropped_percent']} %); {live['fps']} a second were shown.</p>"
    )
    if not live["age_ms"]:
        return text
    ages = live["samples_ms"]
    plot = Plot(
        "Age of each live frame",
        (live["emitted_pts"][0], live["emitted_pts"][-1]),
        (0, max(ages) * 1.05),
        "frame of the camera",
        "ms old when shown",
        height=220,
    )
    plot.dots(live["emitted_pts"], ages, 1)
    return text + plot.text() + _timings("ms", [("age when shown", live["age_ms"])])


def _ladder(ladder: Sequence[Mapping[str, Any]]) -> str:
    if not ladder:
        return ""
    high = max(rung["capture_to_emit_ms"]["p99"] for rung in ladder) * 1.05
    plot = Plot(
        "Time by resolution",
        (-0.6, len(ladder) - 0.4),
        (0, high),
        "resolution",
        "ms",
        x_names=[rung["name"] for rung in ladder],
    )
    for place, rung in enumerate(ladder):
        bottom = 0.0
        for number, (name, timing) in enumerate(rung["stage_ms"].items()):
            tip = f"{name} p50 {timing['p50']:.2f} ms"
            plot.bar(place, 0.5, bottom, bottom + timing["p50"], number + 1, tip)
            plot.legend(number + 1, f"{name} p50")
            bottom += timing["p50"]
        plot.dots([place], [rung["capture_to_emit_ms"]["p99"]], 0, "all of it, p99")
    rows = [
        (
            f"{r['name']}, {r['size_wh'][0]}x{r['size_wh'][1]}, face {r['face_px']:.0f} px",
            r["capture_to_emit_ms"],
        )
        for r in ladder
    ]
    return "<h2>Resolutions</h2>" + plot.text() + _timings("ms, capture to emit", rows)


def _alternatives(title: str, key: str, entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return ""
    rows = [(each[key], each["capture_to_emit_ms"]) for each in entries if not each["why_not"]]
    text = f"<h2>{title}</h2>"
    if rows:
        text += _timings("ms, capture to emit", rows)
    for each in entries:
        if each["why_not"]:
            text += f"<p>{_t(each[key])} was not run: {_t(each['why_not'])}.</p>"
    return text


def _other(document: Mapping[str, Any]) -> str:
    memory, power, starts = document["memory"], document["power"], document["starts"]
    rows = [["peak memory of the process", _mib(memory["host_peak_mib"])]]
    rows.append(
        ["peak memory on the GPU", _mib(memory["device_peak_mib"], memory["why_device_absent"])]
    )
    if power["source"]:
        rows.append([f"power, {power['source']}", f"{power['watts_mean']} W"])
        rows.append(["energy a frame", f"{power['joules_per_frame']} J"])
    else:
        rows.append(["power", f"unknown: {power['why_absent']}"])
    for name, key in (("processor's clock", "cpu_mhz"), ("GPU's clock", "gpu_mhz")):
        spread = power[key]
        if spread:
            rows.append([name, f"{spread['min']:g} to {spread['max']:g} MHz"])
    if starts:
        cold, warm = starts["cold_ms"], starts["warm_ms"]
        rows.append(
            [
                "new process to first frame",
                f"{cold['total']:.0f} ms, of which import"
                f" {cold['import']:.0f}, load {cold['load']:.0f}, first frame"
                f" {cold['first_frame']:.0f}",
            ]
        )
        rows.append(["again in the same process", f"{warm['total']:.0f} ms"])
    cells = [[_t(name), f'<span style="white-space:normal">{_t(v)}</span>'] for name, v in rows]
    return "<h2>Memory, power, starting</h2>" + table(["what", "figure"], cells)


def _mib(value: float | None, why: str | None = None) -> str:
    return f"{value:.0f} MiB" if value is not None else f"unknown: {why or 'nobody tells'}"


def _comparison(comparison: Comparison) -> str:
    rows = []
    for name, quantile, change in comparison.changes:
        kind = ' class="slower"' if change.verdict == "slower" else ""
        rows.append(
            [
                _t(f"{name} {quantile}"),
                f"{change.old_ms:.2f}",
                f"{change.new_ms:.2f}",
                f"{change.ratio:.3f}",
                f"{change.low:.3f} to {change.high:.3f}",
                f"<span{kind}>{change.verdict}</span>",
            ]
        )
    text = "<h2>Against the old run</h2>" + table(
        ["ms", "old", "new", "ratio", "99 % interval", "verdict"], rows
    )
    for differs in comparison.differs:
        text += f"<p class=soft>differs: {_t(differs)}</p>"
    if not comparison.same_machine:
        text += "<p class=beware>The machines differ: a change says little about the program.</p>"
    return text


def _with_what(about: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    rows = [
        ["system", about["system"]],
        ["memory", _mib(about["memory_mib"])],
        ["load before", about["load_before"]],
        ["governor", about["cpu_governor"] or "unknown"],
        ["Python", about["python"]],
        *([name, version] for name, version in about["packages"].items() if version),
        ["model's generator, SHA-256", about["model"]["generator_sha256"][:16]],
        ["frames, warm-up", f"{options['frames']}, {options['warm_up']}"],
    ]
    return table(["what", "which"], [[_t(name), _t(value)] for name, value in rows])
