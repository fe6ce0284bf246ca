"""The notice is said once to a person, and never to a pipe."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from rt_swap.provenance import consent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(tmp_path / "config"))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path / "config"


def test_notice_is_said_once(home: Path) -> None:
    first, second = Terminal(), Terminal()
    assert consent.remind(first)
    assert "people who agreed" in first.getvalue()
    assert "Article 50" in first.getvalue()
    assert not consent.remind(second)
    assert second.getvalue() == ""


@pytest.mark.parametrize("why", ["pipe", "CI", "quiet"])
def test_notice_stays_out_of_the_way_and_is_said_later(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO() if why == "pipe" else Terminal()
    if why == "CI":
        monkeypatch.setenv("CI", "true")
    assert not consent.remind(out, quiet=why == "quiet")
    assert out.getvalue() == ""
    monkeypatch.delenv("CI", raising=False)
    assert consent.remind(Terminal())


def test_folder_that_cannot_be_written_stops_nobody(home: Path) -> None:
    home.write_text("a file where the folder should be")
    assert consent.remind(Terminal())
