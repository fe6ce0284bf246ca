"""Settings: file < environment < flags, and nothing unknown passes in silence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rt_swap.config import MODES, ON_LOST, SOURCE_TIMINGS, Settings, load_settings
from rt_swap.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(tmp_path / "user"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_defaults() -> None:
    assert load_settings(environ={}) == Settings()
    assert Settings().source_timing == "hold"


def test_flags_win_over_environment_wins_over_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'backend = "file"\nthreads = 1\ncrf = 20\non-lost = "hold"\n')
    environ = {"RT_SWAP_THREADS": "2", "RT_SWAP_CRF": "21", "HOME": "/"}
    settings = load_settings({"crf": 22, "threads": None}, config_file=file, environ=environ)
    assert (settings.backend, settings.threads, settings.crf, settings.on_lost) == (
        "file",
        2,
        22,
        "hold",
    )


def test_user_file_is_found_and_a_named_one_replaces_it(tmp_path: Path) -> None:
    write(tmp_path / "user" / "config.toml", "threads = 3")
    assert load_settings(environ={}).threads == 3
    other = write(tmp_path / "other.toml", "crf = 30")
    assert load_settings(environ={"RT_SWAP_CONFIG": str(other)}) == Settings(crf=30)


def test_gains_may_be_a_table_and_faces_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "face = 2\ntarget_face = 0\n[gains]\nbrows = 0.5\nAU12 = 1\n")
    settings = load_settings(config_file=file, environ={})
    assert settings.gains == "brows=0.5,AU12=1"
    assert (settings.face, settings.target_face) == ("2", "0")


@pytest.mark.parametrize(("text", "value"), [("0", False), ("no", False), ("true", True)])
def test_environment_booleans(text: str, value: bool) -> None:
    assert load_settings(environ={"RT_SWAP_AUDIO": text}).audio is value


def test_empty_variable_counts_as_unset() -> None:
    assert load_settings(environ={"RT_SWAP_THREADS": ""}) == Settings()


def test_other_variables_of_ours_are_no_settings() -> None:
    names = ("RT_SWAP_DATA", "RT_SWAP_DEBUG", "RT_SWAP_NATIVE", "RT_SWAP_TEST_X")
    environ = dict.fromkeys(names, "1")
    assert load_settings(environ=environ) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bakcend = 'x'", r"there is no setting 'bakcend'; did you mean 'backend'"),
        ("qqq = 1", "there is no setting 'qqq'; there are model"),
        ("threads = 'two'", r"--threads: must be a whole number from 0 to 256, got 'two' \(from "),
        ("threads = true", "--threads: must be a whole number"),
        ("threads = -1", "--threads: must be a whole number"),
        ("mode = 'both'", "--mode: must be one of absolute, relative, got 'both'"),
        ("on_lost = 1", "--on-lost: must be one of"),
        ("face = 'tallest'", "--face: must be 'largest' or a number"),
        ("audio = 'yes'", "--audio: must be true or false"),
        ("backend = ''", "--backend: must be text"),
        ("threads = ", "is not a TOML file"),
        ("on-lost = 'hold'\non_lost = 'blur'", "is set twice"),
    ],
)
def test_error_in_file_says_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "a.toml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(config_file=file, environ={})
    assert str(file) in str(caught.value)


def test_error_in_environment_says_what_and_where() -> None:
    with pytest.raises(ConfigError, match=r"got 'x' \(from RT_SWAP_CRF\)"):
        load_settings(environ={"RT_SWAP_CRF": "x"})
    with pytest.raises(
        ConfigError, match="RT_SWAP_BAKCEND: there is no such setting; did you mean"
    ):
        load_settings(environ={"RT_SWAP_BAKCEND": "x"})


def test_error_missing_file_and_unknown_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_settings(config_file=tmp_path / "none.toml", environ={})
    with pytest.raises(ConfigError, match="there is no setting 'speed'"):
        load_settings({"speed": 3}, environ={})


def test_all_mistakes_are_listed_at_once() -> None:
    with pytest.raises(ConfigError, match=r"--mode.*; --crf"):
        load_settings({"mode": "x", "crf": 99}, environ={})
    with pytest.raises(ConfigError, match=r"--threads.*--crf"):
        Settings(crf=-1, threads=-1)


def test_choices_are_those_of_the_code_behind_them() -> None:
    from rt_swap.expression import TIMINGS
    from rt_swap.pipeline import Pipeline

    assert SOURCE_TIMINGS == TIMINGS
    assert Pipeline.__init__.__kwdefaults__["on_lost"] in ON_LOST
    assert MODES == ("absolute", "relative")


def test_every_field_has_a_docstring_and_a_default() -> None:
    text = Path(load_settings.__globals__["__file__"]).read_text()
    for field in dataclasses.fields(Settings):
        assert field.default is not dataclasses.MISSING
        declared = text.index(f"\n    {field.name}: ")
        assert text[declared:].split("\n")[2].startswith('    """'), field.name
