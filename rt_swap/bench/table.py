"""Results as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rt_swap.bench.compare import Comparison

_COLUMNS: Final = ("p50", "p90", "p95", "p99", "max")
_NAME: Final = 30


def lines_of(document: Mapping[str, Any]) -> Iterator[str]:
    """The whole report, line by line."""
    about, main, options = document["about"], document["main"], document["parameters"]
    yield f"{about['cpu']}, {about['cores_used']} of {about['cores_present']} cores"
    for gpu in about["gpus"]:
        yield f"{gpu['name']}, compute capability {gpu['compute_capability']}"
    if about["jetson"]:
        yield f"{about['jetson']}, Jetson Linux {about['l4t']}, power mode {about['power_mode']}"
    if not about["gpus"] and not about["jetson"]:
        yield "no NVIDIA GPU"
    yield (
        f"model {about['model']['name']}, backend {about['backend']};"
        f" {options['shown']}, face {main['face_px']:.0f} px"
    )
    yield ""
    width, height = options["size_wh"]
    yield _head(f"ms per frame, {width}x{height}")
    yield _line("capture to emit", main["capture_to_emit_ms"])
    yield from (_line(f"  {name}", t) for name, t in main["stage_ms"].items())
    yield from (_line(f"  processor, {name}", t) for name, t in main["cpu_ms"].items())
    yield from (_line(f"  GPU, {name}", t) for name, t in (main["gpu_ms"] or {}).items())
    if main["gpu_ms"] is None:
        yield "  GPU: none of the work was timed on a GPU"
    yield (
        f"first frame {main['first_frame_ms']:.0f} ms; {main['fps_back_to_back']} frames/s one"
        f" after the other; {main['statuses']['swapped']} of {main['frames']} re-expressed"
    )
    yield from _overlapped(document)
    yield from _rest(document)
    if document["warnings"]:
        yield ""
    yield from (f"beware: {text}" for text in document["warnings"])


def _overlapped(document: Mapping[str, Any]) -> Iterator[str]:
    if document["overlapped"]:
        yield f"stages overlapped: {document['overlapped']['fps']} frames/s"
    live = document["live"]
    if live:
        yield ""
        yield _head(f"live at {live['rate']:g} frames/s, {live['seconds']:g} s")
        if live["age_ms"]:
            yield _line("age of a frame when emitted", live["age_ms"])
        yield (
            f"{live['dropped']} of {live['offered']} frames dropped ({live['dropped_percent']} %),"
            f" {live['fps']} frames/s shown"
        )


def _rest(document: Mapping[str, Any]) -> Iterator[str]:
    if document["ladder"]:
        yield ""
        yield _head("ladder, capture to emit")
        for rung in document["ladder"]:
            size = "x".join(str(side) for side in rung["size_wh"])
            yield _line(f"  {rung['name']:6}{size}", rung["capture_to_emit_ms"])
    for what in ("models", "backends"):
        if document[what]:
            yield ""
            yield _head(f"{what}, capture to emit")
        for each in document[what]:
            name = each["name"] if what == "models" else each["backend"]
            if each["why_not"]:
                yield f"  {name}: not run: {each['why_not']}"
            else:
                size = f" ({each['mib']:g} MiB)" if what == "models" else ""
                yield _line(f"  {name}{size}", each["capture_to_emit_ms"])
    yield ""
    starts = document["starts"]
    if starts:
        cold, warm = starts["cold_ms"], starts["warm_ms"]
        yield (
            f"start: new process to first frame {cold['total']:.0f} ms (import"
            f" {cold['import']:.0f}, load {cold['load']:.0f}, first frame"
            f" {cold['first_frame']:.0f}); again in the same process {warm['total']:.0f} ms"
        )
    memory, power = document["memory"], document["power"]
    device = (
        f"{memory['device_peak_mib']:.0f} MiB on the GPU"
        if memory["device_peak_mib"] is not None
        else f"on the GPU: unknown ({memory['why_device_absent']})"
    )
    host = memory["host_peak_mib"]
    yield f"peak memory: {f'{host:.0f} MiB' if host is not None else 'unknown'}; {device}"
    if power["source"]:
        yield (
            f"power ({power['source']}): {power['watts_mean']} W in the mean,"
            f" {power['joules_per_frame']} J a frame"
        )
    else:
        yield f"power: unknown ({power['why_absent']})"
    clocks = [
        f"{name} {power[key]['min']:.0f}-{power[key]['max']:.0f} MHz"
        for name, key in (("processor", "cpu_mhz"), ("GPU", "gpu_mhz"))
        if power[key]
    ]
    yield f"clocks: {', '.join(clocks) or 'unknown'}; throttled: {_throttled(power)}"


def _throttled(power: Mapping[str, Any]) -> str:
    told = list(power["gpu_throttled"])
    events = power["cpu_throttle_events"]
    if events:
        told.append(f"processor, {events} times")
    if not told and events is None and not power["gpu_mhz"]:
        return "unknown (this machine does not tell)"
    return ", ".join(told) or "no"


def lines_of_comparison(comparison: Comparison) -> Iterator[str]:
    """What changed, for a terminal."""
    yield ""
    yield f"{'against the old run':{_NAME}}{'old':>9}{'new':>9}{'ratio':>8}  99 % interval"
    for name, quantile, change in comparison.changes:
        yield (
            f"{f'  {name} {quantile}':{_NAME}}{change.old_ms:>9.2f}{change.new_ms:>9.2f}"
            f"{change.ratio:>8.3f}  {change.low:.3f} to {change.high:.3f}  {change.verdict}"
        )
    yield from (f"  differs: {text}" for text in comparison.differs)
    if not comparison.same_machine:
        yield "  the machines differ, so a change says little about the program"
    yield f"slower beyond the noise: {', '.join(comparison.slower) or 'nothing'}"


def _head(title: str) -> str:
    return f"{title:{_NAME}}" + "".join(f"{name:>9}" for name in _COLUMNS) + f"{'n':>7}"


def _line(name: str, timing: Mapping[str, float]) -> str:
    figures = "".join(f"{timing[column]:>9.2f}" for column in _COLUMNS)
    return f"{name:{_NAME}}{figures}{timing['count']:>7}"
