"""Device profiles: all load, each mistake is named, and prebuild makes what they ask for."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from engines import prebuild
from engines.device_profiles import PROFILES_DIR, load_profile, load_profiles, rtx_targets
from rt_swap.enginecache import State, entries
from rt_swap.errors import ConfigError
from tests.support.engines import half_bundle

DEVICES = {
    "rtx20", "rtx30", "rtx40", "rtx50", "jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin",
    "jetson-thor", "datacentre", "cpu",
}  # fmt: skip


def test_every_profile_loads() -> None:
    profiles = load_profiles()
    assert set(profiles) == DEVICES
    assert rtx_targets(profiles) == [(75, "fp16"), (86, "fp16"), (89, "fp16"), (120, "fp16")]
    for profile in profiles.values():
        assert profile.clocks
        assert profile.clocks_undo
        if profile.measured:  # the file it names is there
            (named,) = re.findall(r"benchmarks/results/[\w.]+", profile.expect)
            assert (PROFILES_DIR.parents[1] / named.rstrip(":")).is_file()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "rtx40"', 'name = "rtx41"', "name is 'rtx41', the file's is 'rtx40'"),
        ("sm = [89]", 'sm = ["89"]', "sm must be numbers such as 89"),
        ("sm = [89]", "sm = []", "sm must name GPUs"),
        ("sm = [89]", "sm = [90]", r"does not build for sm \[90\]"),
        ("streams = 1", "streams = 0", "streams must be 1 to 64"),
        ("streams = 1", "", "streams is missing"),
        ("streams = 1", "streams = true", "streams must be int, got bool"),
        ('precision = "fp16"', 'precision = "int8"', "precision must be one of fp32, fp16"),
        (
            'runtime = "rtx"',
            'runtime = "cuda"',
            "runtime must be one of tensorrt, rtx, onnxruntime",
        ),
        ("measured = false", "measured = true", "must name the result file"),
        ('text = "Not measured', 'text = "2.5 ms. Not measured', "a figure that nobody measured"),
        ("undo = ", "undone = ", "unknown key clocks.undone; clocks.undo is missing"),
        ("sm = [89]", "sm = [89", "cannot be read as TOML"),
    ],
)
def test_a_wrong_profile_is_named_for_what_is_wrong(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    text = (PROFILES_DIR / "rtx40.toml").read_text()
    assert text.count(old) == 1
    path = tmp_path / "rtx40.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=complaint):
        load_profile(path)
    with pytest.raises(ConfigError, match="no profiles here"):
        load_profiles(tmp_path / "none")


@pytest.mark.trt
@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="needs tensorrt_rtx (pip install rt-swap[rtx])",
)
def test_prebuild_makes_what_a_profile_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = half_bundle(tmp_path / "bundle")
    report = tmp_path / "report.json"
    arguments = ["--bundle", str(bundle), "--home", str(tmp_path / "home")]
    assert prebuild.main([*arguments, "--profile", "rtx20", "--json", str(report)]) == 0
    rows = json.loads(report.read_text())["engines"]
    assert [(r["graph"], r["sm"], r["error"]) for r in rows] == [
        ("expression_encoder", 75, None),
        ("target_generator", 75, None),
    ]
    found = entries(tmp_path / "home" / "engines")
    assert {e.path.name for e in found} == {r["file"] for r in rows}
    assert all(e.state is State.GOOD for e in found)
    assert "expression_encoder" in capsys.readouterr().out
    assert prebuild.main([*arguments, "--profile", "cpu"]) == 2
    assert "nothing to build" in capsys.readouterr().err
    assert prebuild.main([*arguments, "--profile", "abacus"]) == 2
    assert "there is no abacus" in capsys.readouterr().err
