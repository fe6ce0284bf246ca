"""Whether everything rt_swap needs can be had as a wheel on a Jetson: nothing is installed.

    python docker/check_wheels.py [--write docker/requirements-jetson.txt] [--check FILE]

Resolves rt_swap's dependencies, and theirs, for ARM Linux, Python 3.10 and Ubuntu 22.04's glibc
(JetPack 6), with the versions of constraints.txt, through ``pip install --dry-run --report``.
Markers are evaluated for the Jetson, not for the machine this runs on, which pip alone would not
do. Sources are refused (``--only-binary``), because a Jetson should not have to compile. Left out
is what JetPack brings: OpenCV and TensorRT. PyCUDA, which is an extra, has no wheels and is
compiled there.

Exit code: 0; 1 where something has no wheel or ``--check``'s file is out of date; 2 for mistakes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PYTHON: Final = "3.10"
GLIBC_MINOR: Final = 35
"""Of Ubuntu 22.04, 2.35; the oldest that ARM wheels name is 2.17."""
ENVIRONMENT: Final = {
    "implementation_name": "cpython",
    "implementation_version": "3.10.12",
    "os_name": "posix",
    "platform_machine": "aarch64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": "3.10.12",
    "python_version": PYTHON,
    "sys_platform": "linux",
    "extra": "",
}
FROM_JETPACK: Final = frozenset({"opencv-python", "opencv-contrib-python", "tensorrt"})
_HEADER: Final = (
    "# What rt_swap needs on a Jetson besides what JetPack brings (OpenCV, TensorRT).\n"
    "# Written by: python docker/check_wheels.py --write docker/requirements-jetson.txt\n"
)


class NoWheelError(Exception):
    """Something cannot be had; the message is pip's last word."""


def applies(requirement: Requirement) -> bool:
    """Whether a requirement's marker holds on the Jetson."""
    return requirement.marker is None or requirement.marker.evaluate(dict(ENVIRONMENT))


def constraints(text: str) -> dict[str, str]:
    """Version by name of the lines that hold on the Jetson.

    Args:
        text: Of constraints.txt.
    """
    found = {}
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        requirement = Requirement(line)
        if applies(requirement):
            (version,) = (s.version for s in requirement.specifier if s.operator == "==")
            found[canonicalize_name(requirement.name)] = version
    return found


def direct_requirements(project: str) -> list[Requirement]:
    """The dependencies in a pyproject.toml that hold on the Jetson."""
    block = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.S | re.M)
    if block is None:
        raise ValueError("pyproject.toml has no list of dependencies")
    lines = re.findall(r'^\s*"(.*)",?$', block[1], re.M)
    return [each for each in map(Requirement, lines) if applies(each)]


def report_of(requirements: Sequence[str]) -> list[dict[str, Any]]:
    """What pip would take for some requirements, without theirs.

    Raises:
        NoWheelError: If one has no wheel for the Jetson.
    """
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(GLIBC_MINOR, 16, -1)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
        command += ["--disable-pip-version-check", "--ignore-installed", "--only-binary=:all:"]
        command += ["--target", folder, "--python-version", PYTHON, "--implementation", "cp"]
        for platform in [*platforms, "manylinux2014_aarch64", "linux_aarch64"]:
            command += ["--platform", platform]
        for abi in ("cp310", "abi3", "none"):
            command += ["--abi", abi]
        done = subprocess.run(
            [*command, "--report", str(out), *requirements],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise NoWheelError("; ".join(said) or done.stderr.strip()[-300:])
        installs: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["install"]
        return installs


def resolve(
    wanted: Sequence[Requirement],
    pins: dict[str, str],
    report: Any = report_of,
) -> dict[str, tuple[str, str]]:
    """Everything that has to be installed.

    Args:
        wanted: Direct requirements.
        pins: Versions by name.
        report: Asks pip.

    Returns:
        (version, file name of the wheel) by name.

    Raises:
        NoWheelError: If something has no wheel, or no pin, so that the outcome would not be known.
    """
    found: dict[str, tuple[str, str]] = {}
    waiting = list(wanted)
    while waiting:
        level: dict[str, str] = {}
        for requirement in waiting:
            name = canonicalize_name(requirement.name)
            if name in found or name in FROM_JETPACK:
                continue
            if name not in pins:
                raise NoWheelError(f"{name} is not in constraints.txt for Python {PYTHON} on ARM")
            if pins[name] not in requirement.specifier:
                raise NoWheelError(f"{requirement} and constraints.txt ({pins[name]}) contradict")
            level[name] = pins[name]
        if not level:
            break
        waiting = []
        for item in report([f"{name}=={version}" for name, version in sorted(level.items())]):
            metadata = item["metadata"]
            wheel = item["download_info"]["url"].rpartition("/")[2].partition("#")[0]
            found[canonicalize_name(metadata["name"])] = (metadata["version"], wheel)
            needs = map(Requirement, metadata.get("requires_dist", []))
            waiting += [need for need in needs if applies(need)]
    return found


def requirements_text(found: dict[str, tuple[str, str]]) -> str:
    """The file that the image is made from."""
    return _HEADER + "".join(f"{name}=={version}\n" for name, (version, _) in sorted(found.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write what was found")
    parser.add_argument("--check", type=Path, metavar="FILE", help="fail where it says otherwise")
    args = parser.parse_args(argv)
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    pins = constraints((CHECKOUT / "constraints.txt").read_text(encoding="utf-8"))
    try:
        found = resolve(direct_requirements(project), pins)
    except NoWheelError as exc:
        print(f"check_wheels: {exc}", file=sys.stderr)
        return 1
    for name, (version, wheel) in sorted(found.items()):
        print(f"{name:24}{version:16}{wheel}")
    print(f"{len(found)} wheels; from JetPack: {', '.join(sorted(FROM_JETPACK))}")
    text = requirements_text(found)
    if args.write:
        args.write.write_text(text, encoding="utf-8")
    if args.check and args.check.read_text(encoding="utf-8") != text:
        print(f"check_wheels: {args.check} is out of date; --write it again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
