"""The command line starts light, documents its exit codes, and gives each failure its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rt_swap import cli, errors
from rt_swap.cli import EXIT_CODES, build_parser, exit_code_of, main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "numpy",
    "cv2",
    "av",
    "mediapipe",
    "onnxruntime",
    "onnx",
    "torch",
    "tqdm",
    "PIL",
    "safetensors",
    "platformdirs",
    "skimage",
    "tomllib",
}
PROGRAM = """
import sys
from rt_swap.cli import main
code = main(sys.argv[1:])
print("MODULES", code, *sorted({name.split(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([v, "--help"] for v in ("reenact", "bench", "doctor", "devices")),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    code, *modules = done.stdout.splitlines()[-1].removeprefix("MODULES ").split()
    assert code == "0"
    assert HEAVY.isdisjoint(modules)
    assert done.stderr == ""


def test_importing_rt_swap_imports_nothing_heavy() -> None:
    program = "import sys, rt_swap, rt_swap.cli; print(*{n.split('.')[0] for n in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert HEAVY.isdisjoint(done.stdout.split())


def test_exit_codes_are_distinct_and_documented(capsys: pytest.CaptureFixture[str]) -> None:
    own = (cli.TARGET_WITHOUT_FACE, cli.TARGET_CUT_SHORT, cli.BENCH_SLOWER, cli.DOCTOR_PROBLEM)
    codes = [*EXIT_CODES.values(), *own, cli.OK, 70, 143]
    assert len(set(codes)) == len(codes)
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.split("exit codes:")[1]
    general = {errors.RtSwapError, errors.BackendError, errors.ExpressionError, errors.StreamError}
    for kind, code in EXIT_CODES.items():
        if kind not in general:
            assert f"\n  {code:>3}  " in listed, kind
    for code in (0, *own, 70, 143):
        assert f"\n  {code:>3}  " in listed


def test_every_error_class_has_an_exit_code() -> None:
    def all_below(kind: type) -> list[type]:
        return [kind, *(k for child in kind.__subclasses__() for k in all_below(child))]

    for kind in all_below(errors.RtSwapError):
        if kind.__module__ == errors.__name__:
            assert kind in EXIT_CODES, kind
    assert exit_code_of(errors.NoFaceError("x")) == EXIT_CODES[errors.NoFaceError]
    assert exit_code_of(RuntimeError("x")) == 70
    assert exit_code_of(PermissionError("x")) == 70


def test_help_lists_what_the_code_knows() -> None:
    from rt_swap.aus import REGIONS
    from rt_swap.expression import PRESETS
    from rt_swap.expression.gains import MAX_GAIN

    text = _help_of("reenact")
    assert "fear, wink" in text.replace("\n", " ")
    for name in PRESETS:
        assert name in text
    assert ", ".join(REGIONS) in " ".join(text.split())
    assert f"0 to {MAX_GAIN:g}" in " ".join(text.split())


def _help_of(verb: str) -> str:
    actions = build_parser()._subparsers._group_actions  # type: ignore[union-attr]
    return str(actions[0].choices[verb].format_help())  # type: ignore[index, call-overload]


def test_usage_mistake_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reenact", "a.mp4", "-o", "b.mp4"]) == EXIT_CODES[errors.ConfigError] == 2
    assert "one of the arguments --source --preset is required" in capsys.readouterr().err
    assert main(["reenact"]) == 2
    assert main(["dance"]) == 2


def test_bug_is_told_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("rt_swap.cli.source.run_list", broken)
    monkeypatch.delenv("RT_SWAP_DEBUG", raising=False)
    assert main(["source", "list"]) == 70
    said = capsys.readouterr().err
    assert "this is a bug: ZeroDivisionError: division by zero" in said
    assert "Traceback" not in said
    monkeypatch.setenv("RT_SWAP_DEBUG", "1")
    assert main(["source", "list"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_reader_of_stdout_may_leave() -> None:
    program = (
        "from rt_swap.cli import main; import sys; sys.exit(main(['source', 'list', '--json']))"
    )
    script = f'{sys.executable} -c "{program}" | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode in (0, 141)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
