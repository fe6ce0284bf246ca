"""The memory benchmark: what it reads of a child, its verdict, and the whole program on a few
frames."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_memory, schema
from benchmarks.bench_memory import measure, verdict
from rt_swap.errors import ConfigError
from tests.support.tiny_model import tiny_bundle

_CHILD = (
    "import time; x = bytearray(%d * 2**20); time.sleep(1.5); print('said'); raise SystemExit(%d)"
)


def test_measure_sees_what_the_child_took_and_not_what_this_process_has() -> None:
    ballast = np.ones(300 * 2**20, np.uint8)  # more than the child ever has
    small = measure([sys.executable, "-c", _CHILD % (8, 0)])
    large = measure([sys.executable, "-c", _CHILD % (108, 3)])
    assert ballast[-1] == 1
    assert large.peak_mib - small.peak_mib == pytest.approx(100, abs=8)
    assert small.peak_mib < 200
    assert (small.code, large.code) == (0, 3)
    assert large.stdout == "said\n"
    assert 1 <= len(large.curve_mib) <= 20
    assert max(large.curve_mib) <= large.peak_mib


def test_measure_sees_a_peak_that_is_over_before_the_end() -> None:
    code = "import time; x = bytearray(120 * 2**20); del x; time.sleep(1.5)"
    done = measure([sys.executable, "-c", code])
    assert done.peak_mib > 120
    assert min(done.curve_mib) < 100


def test_measure_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot be started"):
        measure(["no-such-program-here"])


@pytest.mark.parametrize(
    ("peaks", "ratio", "met"),
    [
        ((200.0, 209.9), 1.0495, True),
        ((200.0, 211.0), 1.055, False),
        ((211.0, 200.0), 0.9479, False),
    ],
)
def test_verdict_five_percent_either_way(
    peaks: tuple[float, float], ratio: float, met: bool
) -> None:
    runs = [
        {"frames": n, "frames_out": n, "peak_mib": p} for n, p in zip((5, 50), peaks, strict=True)
    ]
    got, bounds = verdict(runs, 5.0)
    assert got == pytest.approx(ratio, abs=1e-4)
    assert [b["met"] for b in bounds] == [met, True]


def test_verdict_lost_frame_is_a_miss() -> None:
    runs = [{"frames": 5, "frames_out": n, "peak_mib": 1.0} for n in (5, 4)]
    assert [b["met"] for b in verdict(runs, 5.0)[1]] == [True, False]


def test_write_video_has_every_frame(tmp_path: Path) -> None:
    import av

    path = tmp_path / "v.mp4"
    bench_memory.write_video(path, [np.full((32, 48, 3), 90, np.uint8)], 17)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 17


@pytest.mark.slow
def test_main_runs_and_writes_a_good_file(tmp_path: Path) -> None:
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out.json"
    arguments = ["--model", str(bundle), "--frames", "5", "9", "--size", "320", "180"]
    code = bench_memory.main([*arguments, "--json", str(out), "--limit", "50"])
    made = schema.loads(out.read_text())
    assert code == (0 if made["passed"] else 1)
    assert [r["frames_out"] for r in made["results"]["runs"]] == [5, 9]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--frames", "1", "9"], "--frames must be"),
        (["--size", "33", "32"], "--size must be even"),
        (["--model", "nowhere"], "no such model folder"),
    ],
)
def test_main_wrong_options_one_sentence_and_code_2(
    arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_memory.main(arguments) == 2
    assert match in capsys.readouterr().err
