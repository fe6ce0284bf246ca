"""LivePortrait re-stated: the layers come to the quoted cost; a checkout is run as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_peers, peers, schema
from benchmarks.peers import Layer
from rt_swap.errors import ConfigError
from tests.support.tiny_model import tiny_bundle


def test_layers_come_to_the_quoted_cost() -> None:
    by_network = peers.gmac_by_network()
    assert sum(by_network.values()) == pytest.approx(peers.LIVEPORTRAIT_GMAC, rel=0.01)
    assert set(by_network) == {"motion extractor", "warping module", "generator", "stitching"}


def test_macs_of_a_layer() -> None:
    assert Layer("n", "conv", 3, 4, 3, (5, 6)).macs == 4 * 30 * 27
    assert Layer("n", "conv", 8, 8, 7, (5, 6), groups=8, times=2).macs == 2 * 8 * 30 * 49
    assert Layer("n", "linear", 10, 20, 1, ()).macs == 200
    assert Layer("n", "sample", 4, 4, 1, (2, 3, 5)).macs == 4 * 30 * 8


def test_restated_runs_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    layers = [
        Layer("a", "conv", 3, 4, 4, (8, 8), stride=4),
        Layer("a", "conv", 4, 4, 7, (8, 8), groups=4, times=3),
        Layer("b", "conv", 4, 2, 3, (4, 8, 8)),
        Layer("b", "sample", 2, 2, 1, (4, 8, 8)),
        Layer("b", "linear", 5, 6, 1, ()),
    ]
    monkeypatch.setattr(peers, "liveportrait", lambda: iter(layers))
    shapes: list[tuple[int, ...]] = []
    for name in ("conv2d", "conv3d", "linear", "grid_sample"):
        own = getattr(torch.nn.functional, name)

        def spy(*arguments: object, own: object = own, **named: object) -> object:
            result = own(*arguments, **named)  # type: ignore[operator]
            shapes.append(tuple(result.shape))
            return result

        monkeypatch.setattr(torch.nn.functional, name, spy)
    functions = peers.restated("cpu", half=False)
    assert list(functions) == ["a", "b"]
    for function in functions.values():
        function()
    assert shapes == [
        (1, 4, 8, 8),
        *[(1, 4, 8, 8)] * 3,
        (1, 2, 4, 8, 8),
        (1, 2, 4, 8, 8),
        (1, 6),
    ]


def test_checkout_that_is_none_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    with pytest.raises(ConfigError, match=r"has no src/config/models\.yaml"):
        peers.from_checkout(tmp_path, "cpu", half=False)


def test_main_counts_and_writes_a_good_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    out = tmp_path / "out.json"
    arguments = ["--model", str(tiny_bundle(tmp_path / "b")), "--runs", "2", "--count-only"]
    try:
        assert bench_peers.main([*arguments, "--json", str(out)]) == 0
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
    made = schema.loads(out.read_text())
    assert made["results"]["times_fewer"] > 100
    assert list(made["results"]["ms"]) == ["rt_swap, generator"]
    assert "times" in capsys.readouterr().out
