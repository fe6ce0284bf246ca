"""What README.md and CONTRIBUTING.md promise: commands, links and the program work as printed."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import rt_swap
from rt_swap import cli
from tests.support.tiny_model import tiny_bundle
from tests.support.videos import write_video

CHECKOUT = Path(__file__).resolve().parents[1]
TEXTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "THIRD_PARTY.md",
    "benchmarks/README.md",
    "docs/training.md",
)
COMMAND_TEXTS = ("README.md", "CONTRIBUTING.md", "docs/training.md")
MAX_PROGRAM_LINES = 15


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks_of(markdown: str) -> list[Block]:
    """Fenced blocks in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", markdown, flags=re.M | re.S)
    return [Block(language, text) for language, text in found]


def commands_of(markdown: str) -> list[list[str]]:
    """Commands of the ``sh`` blocks in words, without comments and leading VARIABLE=value."""
    commands = []
    for block in blocks_of(markdown):
        if block.language != "sh":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                commands.append(words)
    return commands


def _read(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def _make_targets() -> set[str]:
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", _read("Makefile"), flags=re.M)
    return {target for rule in rules for target in rule.split()}


def wrong_with(words: list[str]) -> Iterator[str]:
    """What would not work about a command."""
    program, *arguments = words
    if program == "make":
        targets = [a for a in arguments if "=" not in a and not a.startswith("-")]
        yield from (f"no make target {t}" for t in targets if t not in _make_targets())
    elif program == ".venv/bin/rt-swap":
        try:
            cli.build_parser().parse_args(arguments)
        except SystemExit as leaving:
            if leaving.code != 0:
                yield f"rt-swap refuses {arguments}"
    elif program == ".venv/bin/python" and arguments[:1] == ["-m"]:
        module = importlib.util.find_spec(arguments[1])
        if module is None or module.origin is None:
            yield f"no module {arguments[1]}"
            return
        source = Path(module.origin).read_text(encoding="utf-8")
        options = [a.partition("=")[0] for a in arguments[2:] if a.startswith("--")]
        yield from (f"{arguments[1]} has no {o}" for o in options if f'"{o}"' not in source)
    else:
        yield f"{program} is not known to this test"


@pytest.mark.parametrize(
    "words",
    [pytest.param(w, id=" ".join(w)) for name in COMMAND_TEXTS for w in commands_of(_read(name))],
)
def test_commands_exist_with_their_options(words: list[str]) -> None:
    assert not list(wrong_with(words))


def test_readme_shows_the_two_commands_first() -> None:
    assert commands_of(_read("README.md"))[:2] == [["make", "demo"], ["make", "test"]]


def test_readme_says_first_what_source_and_target_mean() -> None:
    _, paragraph = _read("README.md").split("\n\n")[:2]
    assert "**target**" in paragraph
    assert "**source**" in paragraph


def _anchors(markdown: str) -> set[str]:
    """Anchors of the headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", markdown, flags=re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_relative_links_lead_somewhere(name: str) -> None:
    markdown = _read(name)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", markdown):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        there = (CHECKOUT / name).parent / path if path else CHECKOUT / name
        if not there.exists() or CHECKOUT not in there.resolve().parents:
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in _anchors(there.read_text(encoding="utf-8")):
            wrong.append(f"{link}: no such heading")
    assert not wrong


def test_readme_has_no_figure_left_to_measure() -> None:
    assert "TBM" not in _read("README.md"), "README.md: a figure is still to be measured (TBM)"


def _program() -> str:
    (program,) = [b.text for b in blocks_of(_read("README.md")) if b.language == "python"]
    return program


def test_program_is_short_and_uses_public_names() -> None:
    program = _program()
    lines = [line for line in program.splitlines() if line.strip()]
    assert len(lines) <= MAX_PROGRAM_LINES
    imported = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert imported
    for module, name in imported:
        assert module == "rt_swap"
        assert name in rt_swap.__all__


def test_program_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny model, a real face, and a camera of two frames."""
    import cv2
    from skimage.data import astronaut

    face_bgr = np.ascontiguousarray(astronaut()[:256, 100:356, ::-1])
    cv2.imwrite(str(tmp_path / "smile.jpg"), face_bgr)
    write_video(tmp_path / "target.mp4", [np.roll(face_bgr, i, axis=1) for i in range(4)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RT_SWAP_MODEL", str(tiny_bundle(tmp_path / "model")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shown = []
    names = {
        "camera": [face_bgr, face_bgr],
        "show": lambda picture_bgr, status: shown.append((picture_bgr, status.value)),
    }
    exec(compile(_program(), "README.md", "exec"), names)
    assert (tmp_path / "out.mp4").stat().st_size > 0
    assert [status for _, status in shown] == ["swapped", "swapped"]
    assert shown[0][0].shape == face_bgr.shape
    assert np.any(shown[0][0] != face_bgr)


# --- the checks themselves -----------------------------------------------------------------------
def test_commands_of_reads_continuations_comments_and_variables() -> None:
    markdown = (
        "x\n```sh\nA=b make demo  # c\nrt-swap \\\n  go 'a b'\n\n# d\n```\n```python\nno\n```\n"
    )
    assert commands_of(markdown) == [["make", "demo"], ["rt-swap", "go", "a b"]]


@pytest.mark.parametrize(
    "words",
    [
        ["make", "coffee"],
        [".venv/bin/rt-swap", "reenact", "a.mp4", "--preset", "smile", "--no-such", "-o", "b.mp4"],
        [".venv/bin/python", "-m", "training.nowhere"],
        [".venv/bin/python", "-m", "training.train", "--no-such-option", "x"],
        ["curl", "x"],
    ],
)
def test_wrong_with_sees(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(wrong_with(words))) == 1
