"""The list of packages for a Jetson: its own markers, pins, and (slowly) the wheels themselves."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("packaging", reason="needs packaging")

DOCKER = Path(__file__).resolve().parents[2] / "docker"
LIST = DOCKER / "requirements-jetson.txt"


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_wheels", DOCKER / "check_wheels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_wheels"] = module
    spec.loader.exec_module(module)
    return module


check_wheels = _loaded()


def test_constraints_are_the_jetsons_own() -> None:
    text = """
    mediapipe==0.10.21 ; platform_machine != "aarch64" or sys_platform != "linux"
    mediapipe==0.10.18 ; platform_machine == "aarch64" and sys_platform == "linux"  # why
    av==18.1.0 ; python_version >= "3.11"
    av==17.1.0 ; python_version < "3.11"
    """
    assert check_wheels.constraints(text) == {"mediapipe": "0.10.18", "av": "17.1.0"}


def test_direct_requirements_are_the_projects() -> None:
    project = (DOCKER.parent / "pyproject.toml").read_text()
    names = {requirement.name for requirement in check_wheels.direct_requirements(project)}
    # the standard library of Python 3.10 has no TOML
    assert {"numpy", "mediapipe", "onnxruntime", "tomli", "opencv-python"} <= names


def fake_report(requires: dict[str, list[str]]) -> Any:
    def report(requirements: list[str]) -> list[dict[str, Any]]:
        made = []
        for requirement in requirements:
            name, _, version = requirement.partition("==")
            made.append(
                {
                    "metadata": {
                        "name": name,
                        "version": version,
                        "requires_dist": requires.get(name, []),
                    },
                    "download_info": {"url": f"file:///x/{name}-{version}-py3-none-any.whl#h"},
                }
            )
        return made

    return report


def test_resolve_follows_what_applies_to_the_jetson_only() -> None:
    requires = {
        "a": ["b>=1", "c; platform_machine == 'x86_64'", "d; extra == 'more'", "opencv-python"],
        "b": ["a", "e; python_version < '3.11'"],
    }
    pins = {"a": "1.0", "b": "2.0", "e": "3.0"}
    wanted = [check_wheels.Requirement("a")]
    got = check_wheels.resolve(wanted, pins, fake_report(requires))
    assert got == {
        "a": ("1.0", "a-1.0-py3-none-any.whl"),
        "b": ("2.0", "b-2.0-py3-none-any.whl"),
        "e": ("3.0", "e-3.0-py3-none-any.whl"),
    }


@pytest.mark.parametrize(
    ("pins", "match"), [({}, "a is not in constraints"), ({"a": "0.9"}, "contradict")]
)
def test_resolve_without_a_pin_or_against_it_is_an_error(pins: dict[str, str], match: str) -> None:
    with pytest.raises(check_wheels.NoWheelError, match=match):
        check_wheels.resolve([check_wheels.Requirement("a>=1")], pins, fake_report({}))


def test_list_is_of_pins_that_hold() -> None:
    pins = check_wheels.constraints((DOCKER.parent / "constraints.txt").read_text())
    lines = [line for line in LIST.read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(lines)
    for line in lines:
        name, _, version = line.partition("==")
        assert pins[name] == version, f"{line}: write the list again (see its first lines)"
        assert name not in check_wheels.FROM_JETPACK


def test_dockerfile_copies_what_is_there_and_keeps_pips_opencv_out() -> None:
    text = (DOCKER / "Dockerfile.jetson").read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.M):
        assert (DOCKER.parent / source).exists(), source
    installs = [
        line for line in text.splitlines() if "pip install" in line and "upgrade" not in line
    ]
    assert installs
    assert all("--no-deps" in line for line in installs)
    assert "--system-site-packages" in text
    assert text.startswith("#")
    assert "ARG BASE=" in text


@pytest.mark.slow
def test_every_package_has_a_wheel_for_the_jetson() -> None:
    probe = ["numpy==1.26.4"]
    try:
        check_wheels.report_of(probe)
    except check_wheels.NoWheelError as exc:
        pytest.skip(f"needs a package index: {exc}")
    assert check_wheels.main(["--check", str(LIST)]) == 0


@pytest.mark.slow
def test_package_without_a_wheel_is_an_error() -> None:
    # x86 only, as everybody who has a Jetson knows
    with pytest.raises(check_wheels.NoWheelError):
        check_wheels.report_of(["mediapipe==0.10.21"])
