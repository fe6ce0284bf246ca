"""How fast each stage could be at best: its bytes and operations against what a device can do.

    python -m benchmarks.roofline [--html FILE] [--json FILE] [--model BUNDLE] [--bench RESULT.json]

For each stage and size the least memory traffic and the operations are counted: of the network from
the shipped ONNX file (benchmarks/graphs.py), of crop and composition from the formula of one pixel
(:func:`warp_costs`). Divided by a device's copy bandwidth and matrix rate (Williams, Waterman and
Patterson, "Roofline", CACM 52(4), 2009) they give a time that nothing can beat. For the device at
hand both are measured: the processor through NumPy, and an NVIDIA GPU through PyTorch where it sees
one.

For devices that are not here (Jetson Orin Nano, RTX 4060, RTX 5090) the figures are the vendor's,
and what comes out is a **PREDICTION**, never a measurement: a range from the roofline itself to one
with DERATING applied (shares of the published figures that such small pictures rarely exceed, and a
cost for each kernel's start). Face tracking, which runs on the processor, is in none of the times.

With ``--bench`` (a result of ``rt-swap bench --json`` on this machine) the stages' real times stand
beside what is possible.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import common
from benchmarks.graphs import Cost, cost_of
from rt_swap.bench.html import html_page, table
from rt_swap.bench.schema import read_result
from rt_swap.bench.svg import Plot
from rt_swap.contract import CROP_SIZE_PX
from rt_swap.errors import ConfigError, RtSwapError
from rt_swap.model import load_bundle

SIZES: Final[dict[str, tuple[int, int]]] = {
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "4K": (3840, 2160),
}
CROP_SHARE: Final = 0.6
"""Side of the face's crop, of the frame's height: a head and shoulders in a video call."""

_MAPS: Final = 8
"""Flow x and y, keep, fill's three, shade, feather: interpolated for each pixel of the frame."""
_OPERATIONS: Final[dict[str, int]] = {
    # of a crop's value: three linear interpolations of two operations each
    "crop value": 6,
    # of a crop's pixel: where it lies (2 x 2 multiply-adds), its four weights
    "crop pixel": 8 + 6,
    # of a frame's pixel: where it lies, weights of the maps, the maps, the flow turned into the
    # frame, weights of the fetch; then three colours: fetch 6, shade and clamp 3, keep and fill 3,
    # feather 3, rounding 3
    "frame pixel": 8 + 6 + 6 * _MAPS + 8 + 6 + 3 * (6 + 3 + 3 + 3 + 3),
}


@dataclass(frozen=True)
class Work:
    """What a stage must at least do.

    Attributes:
        stage: Its name.
        bytes: Read and written, each byte once.
        matrix_operations: Multiplications and additions of matrix products and convolutions.
        other_operations: The rest.
        kernels: Kernels started on a GPU.
    """

    stage: str
    bytes: int
    matrix_operations: int
    other_operations: int
    kernels: int

    @property
    def operations(self) -> int:
        """All of them."""
        return self.matrix_operations + self.other_operations


@dataclass(frozen=True)
class Device:
    """What a device can do.

    Attributes:
        name: Its name.
        bytes_per_s: Copy bandwidth, bytes read plus bytes written.
        matrix_per_s: Operations per second of matrix products in the precision used.
        other_per_s: Operations per second of ordinary arithmetic, fp32.
        value_bytes: Of a value of the network: 2 in fp16, 4 in fp32.
        origin: "measured", or the vendor's sheet.
        link_bytes_per_s: Of the bus to the frame's memory; None where the memory is shared.
        derate: (share of the bandwidth, share of the rates, seconds a kernel), or None where the
            figures are measured.
    """

    name: str
    bytes_per_s: float
    matrix_per_s: float
    other_per_s: float
    value_bytes: int
    origin: str
    link_bytes_per_s: float | None = None
    derate: tuple[float, float, float] | None = None

    @property
    def is_prediction(self) -> bool:
        """Whether its figures are the vendor's."""
        return self.derate is not None


DERATING: Final = (0.7, 0.25, 3e-6)
"""Assumed, not measured: 70 % of the bandwidth (DESIGN asks the kernels for as much), a quarter of
the matrix rate (convolutions of few channels do not fill the units), 3 microseconds a kernel."""

# Rates of fp16 matrix products are dense and with fp32 accumulation, which engines use. The sheets
# of GeForce cards give what fp16 accumulation reaches or sparse figures of other formats, so the
# arithmetic from them stands beside each.
PREDICTED: Final = (
    Device(
        "Jetson Orin Nano 8 GB, MAXN SUPER",
        102e9,
        # 67 sparse INT8 TOPS = 33.5 dense; fp16 runs at half of it
        16.7e12,
        # 1024 CUDA cores, 1.02 GHz, a multiply-add each
        2.09e12,
        2,
        "NVIDIA Jetson Orin Nano Super Developer Kit, data sheet: 102 GB/s, 67 TOPS (sparse INT8),"
        " 1024 CUDA cores at 1.02 GHz",
        None,
        DERATING,
    ),
    Device(
        "Jetson Orin Nano 8 GB, 15 W",
        68e9,
        # 40 sparse INT8 TOPS = 20 dense
        10.0e12,
        1.28e12,
        2,
        "NVIDIA Jetson Orin Nano Series Modules, data sheet: 68 GB/s, 40 TOPS (sparse INT8), 1024"
        " CUDA cores at 625 MHz",
        None,
        DERATING,
    ),
    Device(
        "GeForce RTX 4060",
        272e9,
        # 24 multiprocessors, 2.46 GHz, 512 operations a clock each
        30.2e12,
        15.1e12,
        2,
        "NVIDIA GeForce RTX 4060, specifications, and NVIDIA Ada GPU Architecture, whitepaper:"
        " 272 GB/s, 3072 CUDA cores at 2.46 GHz, PCIe 4.0 x8",
        16e9,
        DERATING,
    ),
    Device(
        "GeForce RTX 5090",
        1792e9,
        209.5e12,
        104.8e12,
        2,
        "NVIDIA RTX Blackwell GPU Architecture, whitepaper: 1792 GB/s, 209.5 TFLOPS (fp16, fp32"
        " accumulation), 104.8 TFLOPS fp32, PCIe 5.0 x16",
        63e9,
        DERATING,
    ),
)


# --- what is to be done --------------------------------------------------------------------------
def warp_costs(size_wh: tuple[int, int], value_bytes: int) -> tuple[Work, Work]:
    """Crop and composition at a frame size.

    Args:
        size_wh: Of the frame.
        value_bytes: Of a value of the crop and the maps.

    Returns:
        (crop, compose).
    """
    side = round(CROP_SHARE * size_wh[1])
    region = side * side
    crop_pixels = CROP_SIZE_PX**2
    # shrinking reads at most four pixels for each it makes; enlarging reads the region once
    read = 3 * min(region, 4 * crop_pixels)
    crop = Work(
        "crop",
        read + 3 * crop_pixels * value_bytes,
        0,
        crop_pixels * (3 * _OPERATIONS["crop value"] + _OPERATIONS["crop pixel"]),
        1,
    )
    # the maps once, the region's own pixels (what is fetched lies among them), the region written
    compose = Work(
        "compose",
        _MAPS * crop_pixels * value_bytes + 3 * region + 3 * region,
        0,
        region * _OPERATIONS["frame pixel"],
        1,
    )
    return crop, compose


def network_cost(cost: Cost, value_bytes: int) -> Work:
    """The generator; its weights are read once a frame."""
    return Work(
        "generate",
        (cost.weight_values + cost.fused_values) * value_bytes,
        2 * cost.macs,
        cost.other_operations,
        cost.kernels,
    )


def transfer_cost(size_wh: tuple[int, int]) -> int:
    """Bytes of the region of interest over the bus, up and down."""
    side = round(CROP_SHARE * size_wh[1])
    return 2 * 3 * side * side


# --- how long it takes ---------------------------------------------------------------------------
def bound_ms(work: Work, device: Device, *, derated: bool = False) -> float:
    """The least time of a stage.

    Args:
        work: The stage.
        device: Where it runs.
        derated: With the device's derating.

    Returns:
        Milliseconds: the slower of memory and arithmetic, which overlap at best.
    """
    bandwidth, rate, start_s = (1.0, 1.0, 0.0)
    if derated and device.derate is not None:
        bandwidth, rate, start_s = device.derate
    memory_s = work.bytes / (device.bytes_per_s * bandwidth)
    arithmetic_s = work.matrix_operations / (device.matrix_per_s * rate) + work.other_operations / (
        device.other_per_s * rate
    )
    return 1e3 * (max(memory_s, arithmetic_s) + start_s * work.kernels)


def limit_of(work: Work, device: Device) -> str:
    """What limits a stage: "memory" or "arithmetic"."""
    memory_s = work.bytes / device.bytes_per_s
    arithmetic_s = (
        work.matrix_operations / device.matrix_per_s + work.other_operations / device.other_per_s
    )
    return "memory" if memory_s >= arithmetic_s else "arithmetic"


def tabulate(cost: Cost, devices: Sequence[Device]) -> list[dict[str, Any]]:
    """Every stage, size and device."""
    rows: list[dict[str, Any]] = []
    for device in devices:
        for size, size_wh in SIZES.items():
            crop, compose = warp_costs(size_wh, device.value_bytes)
            for work in (crop, network_cost(cost, device.value_bytes), compose):
                rows.append(
                    {
                        "device": device.name,
                        "origin": device.origin,
                        "prediction": device.is_prediction,
                        "size": size,
                        "stage": work.stage,
                        "bytes": work.bytes,
                        "operations": work.operations,
                        "limit": limit_of(work, device),
                        "least_ms": round(bound_ms(work, device), 4),
                        "derated_ms": round(bound_ms(work, device, derated=True), 4)
                        if device.is_prediction
                        else None,
                    }
                )
            if device.link_bytes_per_s is not None:
                count = transfer_cost(size_wh)
                least = 1e3 * count / device.link_bytes_per_s
                share = device.derate[0] if device.derate else 1.0
                rows.append(
                    {
                        "device": device.name,
                        "origin": device.origin,
                        "prediction": device.is_prediction,
                        "size": size,
                        "stage": "upload and download",
                        "bytes": count,
                        "operations": 0,
                        "limit": "bus",
                        "least_ms": round(least, 4),
                        "derated_ms": round(least / share, 4) if device.is_prediction else None,
                    }
                )
    return rows


# --- what the device at hand can do --------------------------------------------------------------
def measure_processor(cores: int, seconds: float = 1.0) -> Device:
    """Copy bandwidth and matrix rate of the processor, through NumPy; the best of many turns.

    NumPy's copies run on one thread, so as many run at once as there are cores.
    """
    from concurrent.futures import ThreadPoolExecutor

    size = 64 * 2**20
    pairs = [(np.ones(size, np.uint8), np.zeros(size, np.uint8)) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as pool:

        def copy() -> None:
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))

        copy_s = _best_s(copy, seconds)
    n = 1024
    a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
    out = np.empty_like(a)
    matrix_s = _best_s(lambda: np.matmul(a, b, out=out), seconds)
    rate = 2 * n**3 / matrix_s
    return Device("this processor", 2 * size * cores / copy_s, rate, rate, 4, "measured (NumPy)")


def measure_gpu(seconds: float = 1.0) -> Device | None:
    """The same of an NVIDIA GPU through PyTorch, fp16; None where it sees none."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    size = 512 * 2**20
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def synchronised(function: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            function()
            torch.cuda.synchronize()

        return run

    copy_s = _best_s(synchronised(lambda: target.copy_(source)), seconds)
    n = 8192
    half = torch.ones(n, n, dtype=torch.float16, device="cuda")
    matrix_s = _best_s(synchronised(lambda: half @ half), seconds)
    single = torch.ones(size // 4, dtype=torch.float32, device="cuda")
    # a chain of multiply-adds in registers cannot be written in eager PyTorch: fp32 matrices
    # without tensor cores stand for ordinary arithmetic
    torch.backends.cuda.matmul.allow_tf32 = False
    m = single[: 4096 * 4096].view(4096, 4096)
    other_s = _best_s(synchronised(lambda: m @ m), seconds)
    return Device(
        torch.cuda.get_device_name(),
        2 * size / copy_s,
        2 * n**3 / matrix_s,
        2 * 4096**3 / other_s,
        2,
        "measured (PyTorch)",
    )


def _best_s(function: Callable[[], object], seconds: float) -> float:
    function()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best


# --- the page ------------------------------------------------------------------------------------
def page(document: dict[str, Any], measured: dict[str, dict[str, float]] | None) -> str:
    """The result as one HTML file that needs no network.

    Args:
        document: Of this benchmark.
        measured: Real medians in milliseconds by size and stage, or None.
    """
    results = document["results"]
    rows, devices = results["rows"], results["devices"]
    body = [
        "<h1>Roofline</h1>",
        f"<p class=soft>{escape(document['created'])}; {escape(document['metadata']['cpu'])}; model"
        f" {escape(document['metadata']['model']['name'])}, {results['gmac']:g} GMAC a frame; the"
        f" crop's side is {CROP_SHARE:g} of the frame's height.</p>",
        "<p>Least times: every byte moved once at the device's bandwidth, every operation at its"
        " rate, overlapping fully. Nothing can be faster; face tracking, which runs on the"
        " processor, is in none of them.</p>",
        "<p class=beware>Rows marked PREDICTION come from the vendor's published figures and were"
        " never measured: from the least time to one with"
        f" {DERATING[0]:.0%} of the bandwidth, {DERATING[1]:.0%} of the matrix rate and"
        f" {DERATING[2] * 1e6:g} &micro;s a kernel, which are assumptions.</p>",
        "<h2>Devices</h2>",
        table(
            ["device", "GB/s", "matrix TFLOP/s", "origin"],
            [
                [
                    _marked(d),
                    f"{d['bytes_per_s'] / 1e9:.1f}",
                    f"{d['matrix_per_s'] / 1e12:.2f}",
                    f'<span style="white-space:normal">{escape(d["origin"])}</span>',
                ]
                for d in devices
            ],
        ),
        "<h2>Operations per byte</h2>",
        _roofs(rows, devices),
        "<h2>Crop, network and composition together</h2>",
        table(
            ["device", *(f"{size}, ms" for size in SIZES)],
            [[_marked(d), *(_range(rows, d["name"], size) for size in SIZES)] for d in devices],
        ),
    ]
    for size in SIZES:
        body.append(f"<h2>{size}</h2>")
        body.append(_stages(rows, size, measured))
    return html_page("rt_swap: roofline", "".join(body))


def _marked(device: dict[str, Any]) -> str:
    mark = " <b>PREDICTION</b>" if device["prediction"] else ""
    return f'<span style="white-space:normal">{escape(device["name"])}{mark}</span>'


def _range(rows: Sequence[dict[str, Any]], device: str, size: str) -> str:
    mine = [r for r in rows if r["device"] == device and r["size"] == size]
    least = sum(r["least_ms"] for r in mine)
    if any(r["derated_ms"] is None for r in mine):
        return f"{least:.3f}"
    return f"{least:.3f} to {sum(r['derated_ms'] for r in mine):.3f}"


def _stages(
    rows: Sequence[dict[str, Any]], size: str, measured: dict[str, dict[str, float]] | None
) -> str:
    lines = []
    for row in rows:
        if row["size"] != size:
            continue
        derated = "" if row["derated_ms"] is None else f" to {row['derated_ms']:.3f}"
        real = ""
        if measured and row["device"] == "this processor":
            ms = measured.get(size, {}).get(row["stage"])
            real = "" if ms is None else f"{ms:.3f}"
        lines.append(
            [
                f"{escape(row['device'])}, {row['stage']}"
                + (" <b>PREDICTION</b>" if row["prediction"] else ""),
                f"{row['bytes'] / 1e6:.2f}",
                f"{row['operations'] / 1e9:.3f}",
                row["limit"],
                f"{row['least_ms']:.3f}{derated}",
                real,
            ]
        )
    head = ["device, stage", "MB", "G operations", "limit", "least ms", "measured p50, ms"]
    return table(head if measured else head[:-1], lines if measured else [x[:-1] for x in lines])


def _roofs(rows: Sequence[dict[str, Any]], devices: Sequence[dict[str, Any]]) -> str:
    """Rate that can be reached by operations per byte, both as powers of ten."""
    at = np.linspace(-1, 4, 101)
    top = max(d["matrix_per_s"] for d in devices)
    plot = Plot(
        "Roofline",
        (-1, 4),
        (9, float(np.ceil(np.log10(top)))),
        "operations per byte, power of ten",
        "operations per second, power of ten",
        height=340,
    )
    for number, device in enumerate(devices):
        reached = np.minimum(10**at * device["bytes_per_s"], device["matrix_per_s"])
        mark = " (PREDICTION)" if device["prediction"] else ""
        plot.line(at.tolist(), np.log10(reached).clip(9).tolist(), number, device["name"] + mark)
        for row in rows:
            if row["device"] == device["name"] and row["operations"] and row["size"] == "1080p":
                intensity = row["operations"] / row["bytes"]
                rate = row["operations"] / (row["least_ms"] / 1e3 or 1e-9)
                x = float(np.log10(intensity))
                plot.dots([x], [max(float(np.log10(rate)), 9)], number)
    return plot.text() + (
        "<p class=soft>Dots: the stages at 1080p, in the order compose, crop, generate from left to"
        " right; those below their line are limited by ordinary arithmetic, whose rate is lower."
        "</p>"
    )


def medians_of(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Medians by size and stage out of a result of ``rt-swap bench``."""
    return {
        rung["name"]: {name: t["p50"] for name, t in rung["stage_ms"].items()}
        for rung in result["ladder"]
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.roofline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the one installed")
    parser.add_argument("--cores", type=int, default=2, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--bench", type=Path, metavar="RESULT", help="of rt-swap bench --json on this machine"
    )
    args = parser.parse_args(argv)
    try:
        if not 0 < args.seconds <= 60:
            raise ConfigError("--seconds must be above 0 and up to 60")
        for option, path in (("--html", args.html), ("--json", args.json)):
            if path is not None and not path.absolute().parent.is_dir():
                raise ConfigError(f"{option} {path}: there is no folder {path.parent}")
        measured = medians_of(read_result(args.bench)) if args.bench else None
        cores = common.use_cores(args.cores)
        bundle = load_bundle(args.model)
        about = common.metadata(bundle, "none", cores)
        cost = cost_of(bundle.generator_path)
        here = [measure_processor(cores, args.seconds)]
        gpu = measure_gpu(args.seconds)
        devices = [*here, *([gpu] if gpu else []), *PREDICTED]
        results = {
            "gmac": round(cost.macs / 1e9, 4),
            "crop_share": CROP_SHARE,
            "derating": list(DERATING),
            "devices": [
                {
                    "name": d.name,
                    "bytes_per_s": d.bytes_per_s,
                    "matrix_per_s": d.matrix_per_s,
                    "other_per_s": d.other_per_s,
                    "value_bytes": d.value_bytes,
                    "origin": d.origin,
                    "prediction": d.is_prediction,
                }
                for d in devices
            ],
            "rows": tabulate(cost, devices),
        }
        bounds = [common.bound("GMAC of the generator", results["gmac"], 4.0)]
        parameters = {"seconds": args.seconds, "threads": cores}
        made = common.document("roofline", about, parameters, results, bounds)
        if args.json:
            common.write_result(args.json, made)
        if args.html:
            args.html.write_text(page(made, measured), encoding="utf-8")
    except RtSwapError as exc:
        print(f"roofline: {exc}", file=sys.stderr)
        return 2
    print(f"{about['cpu']}, {cores} cores; {bundle.name}, {results['gmac']:g} GMAC a frame")
    print("least ms of crop, network and composition (tracking is in none of them)")
    print(f"{'':52}" + "".join(f"{size:>20}" for size in SIZES))
    for device in results["devices"]:
        name = device["name"] + (", PREDICTION" if device["prediction"] else "")
        cells = "".join(f"{_range(results['rows'], device['name'], s):>20}" for s in SIZES)
        print(f"{name:52}{cells}")
    common.print_bounds(bounds)
    return 0 if made["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
