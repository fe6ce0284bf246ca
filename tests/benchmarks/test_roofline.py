"""The roofline: bytes and operations by hand; predictions are marked wherever they stand."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import roofline, schema
from benchmarks.graphs import Cost
from benchmarks.roofline import PREDICTED, Device, Work, bound_ms, limit_of, warp_costs
from tests.support.tiny_model import tiny_bundle

pytest.importorskip("onnx", reason="needs onnx")

DEVICE = Device("d", 100e9, 10e12, 1e12, 2, "measured")


def test_bound_is_the_slower_of_memory_and_arithmetic() -> None:
    memory = Work("s", 200_000_000, 10**9, 0, 5)
    assert bound_ms(memory, DEVICE) == pytest.approx(2.0)
    assert limit_of(memory, DEVICE) == "memory"
    heavy = Work("s", 1000, 2 * 10**10, 10**9, 5)
    assert bound_ms(heavy, DEVICE) == pytest.approx(2.0 + 1.0)
    assert limit_of(heavy, DEVICE) == "arithmetic"


def test_bound_derated_is_longer_and_counts_kernels() -> None:
    device = replace(DEVICE, derate=(0.5, 0.25, 1e-5))
    work = Work("s", 100_000_000, 0, 0, 10)
    assert bound_ms(work, device) == pytest.approx(1.0)
    assert bound_ms(work, device, derated=True) == pytest.approx(2.0 + 0.1)
    # what is measured is not derated
    assert bound_ms(work, DEVICE, derated=True) == bound_ms(work, DEVICE)


def test_warp_costs_by_hand() -> None:
    crop, compose = warp_costs((1280, 720), 2)
    region, pixels = 432**2, 256**2
    assert crop.bytes == 3 * region + 3 * pixels * 2
    assert compose.bytes == 8 * pixels * 2 + 6 * region
    assert compose.operations > 100 * region
    # at 4K the crop reads four pixels for each of its own, not the whole region
    large, _ = warp_costs((3840, 2160), 2)
    assert large.bytes == 3 * 4 * pixels + 3 * pixels * 2


def test_network_weights_are_read_once_and_macs_are_two_operations() -> None:
    work = roofline.network_cost(Cost(1000, 50, 300, 700, 9999, 4, 9), 2)
    assert (work.bytes, work.matrix_operations, work.other_operations) == (2000, 2000, 50)


def test_predictions_cite_the_vendor_and_measurements_are_none() -> None:
    assert {"Orin Nano", "RTX 4060", "RTX 5090"} == {
        name
        for name in ("Orin Nano", "RTX 4060", "RTX 5090")
        if any(name in d.name for d in PREDICTED)
    }
    for device in PREDICTED:
        assert device.is_prediction
        assert device.origin.startswith("NVIDIA ")
    assert not DEVICE.is_prediction


def test_tabulate_every_row_of_a_prediction_has_a_range() -> None:
    rows = roofline.tabulate(Cost(10**9, 10**6, 10**6, 10**6, 10**7, 50, 90), [DEVICE, *PREDICTED])
    stages = {row["stage"] for row in rows}
    assert stages == {"crop", "generate", "compose", "upload and download"}
    for row in rows:
        assert (row["derated_ms"] is None) == (not row["prediction"])
        if row["prediction"]:
            assert row["derated_ms"] >= row["least_ms"] > 0
    # a Jetson's GPU reads the host's memory: nothing goes over a bus
    assert not [r for r in rows if "Jetson" in r["device"] and r["limit"] == "bus"]


def test_main_writes_a_page_that_marks_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    out, html = tmp_path / "r.json", tmp_path / "r.html"
    arguments = ["--model", str(tiny_bundle(tmp_path / "b")), "--seconds", "0.02"]
    try:
        assert roofline.main([*arguments, "--json", str(out), "--html", str(html)]) == 0
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
    made = schema.loads(out.read_text())
    assert made["results"]["devices"][0]["name"] == "this processor"
    text = html.read_text()
    assert not re.search(r"https?://", text)
    for row in re.findall(r"<tr>.*?</tr>", text):
        if any(device.name in row for device in PREDICTED):
            assert "PREDICTION" in row
        if "this processor" in row:
            assert "PREDICTION" not in row
    said = capsys.readouterr().out
    for line in said.splitlines():
        if "Jetson" in line or "RTX" in line:
            assert "PREDICTION" in line


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--seconds", "0"], "--seconds"),
        (["--html", "no/such/folder/x.html"], "there is no folder"),
        (["--bench", "none.json"], "cannot be read"),
        (["--model", "nowhere"], "no such model folder"),
    ],
)
def test_main_mistakes(
    arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert roofline.main(arguments) == 2
    assert match in capsys.readouterr().err
