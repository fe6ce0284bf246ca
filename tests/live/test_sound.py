"""The delayed microphone, on a pactl that keeps book."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rt_swap.errors import ConfigError, SinkError
from rt_swap.live.sound import DelayedMicrophone, SoundKeeper, run_pactl


class FakePactl:
    """Loads and unloads modules as PulseAudio does."""

    def __init__(self, fail_at: str | None = None, default: str = "usb_mic") -> None:
        self.loaded: dict[str, list[str]] = {}
        self.calls: list[list[str]] = []
        self._fail_at, self._default, self._next = fail_at, default, 20

    def __call__(self, arguments: Sequence[str]) -> str:
        self.calls.append(list(arguments))
        verb, *rest = arguments
        if verb == "get-default-source":
            return f"{self._default}\n"
        if verb == "load-module":
            if rest[0] == self._fail_at:
                raise SinkError(f"{rest[0]} failed")
            self._next += 1
            self.loaded[str(self._next)] = rest
            return f"{self._next}\n"
        assert verb == "unload-module"
        del self.loaded[rest[0]]
        return ""

    def delay(self) -> str:
        (loopback,) = [m for m in self.loaded.values() if m[0] == "module-loopback"]
        return next(a for a in loopback if a.startswith("latency_msec="))


def test_microphone_is_chained_and_removed() -> None:
    pactl = FakePactl()
    with DelayedMicrophone(42.4, pactl=pactl):
        names = [m[0] for m in pactl.loaded.values()]
        assert names == ["module-null-sink", "module-loopback", "module-remap-source"]
        null, loopback, remap = pactl.loaded.values()
        assert "sink_name=rt_swap_delay" in null
        assert "source=usb_mic" in loopback
        assert "sink=rt_swap_delay" in loopback
        assert pactl.delay() == "latency_msec=42"
        assert "master=rt_swap_delay.monitor" in remap
        assert "source_name=rt_swap_microphone" in remap
    assert pactl.loaded == {}


def test_a_named_microphone_is_taken() -> None:
    pactl = FakePactl()
    with DelayedMicrophone(10.0, "headset", pactl=pactl) as microphone:
        assert microphone.microphone == "headset"
        assert any("source=headset" in m for m in pactl.loaded.values())


def test_delay_follows_where_it_is_noticed() -> None:
    pactl = FakePactl()
    with DelayedMicrophone(40.0, pactl=pactl) as microphone:
        calls = len(pactl.calls)
        assert not microphone.set_delay_ms(55.0)
        assert len(pactl.calls) == calls
        assert microphone.set_delay_ms(90.0)
        assert pactl.delay() == "latency_msec=90"
        assert len(pactl.loaded) == 3
        assert microphone.delay_ms == 90.0
    assert pactl.loaded == {}
    assert not microphone.set_delay_ms(500.0)


@pytest.mark.parametrize("fail_at", ["module-null-sink", "module-loopback", "module-remap-source"])
def test_error_leaves_no_module_behind(fail_at: str) -> None:
    pactl = FakePactl(fail_at=fail_at)
    with pytest.raises(SinkError, match=fail_at):
        DelayedMicrophone(40.0, pactl=pactl)
    assert pactl.loaded == {}


def test_error_own_microphone_as_the_default_and_delays_out_of_range() -> None:
    with pytest.raises(SinkError, match="name one"):
        DelayedMicrophone(40.0, pactl=FakePactl(default="rt_swap_microphone"))
    with pytest.raises(ConfigError, match="0 to 5000 ms"):
        DelayedMicrophone(-1.0, pactl=FakePactl())


def test_keeper_follows_the_measured_delay_and_outlives_failures() -> None:
    pactl = FakePactl()
    measured: list[float | None] = [None, 80.0, 80.0, 150.0]
    reached = threading.Event()

    def delay_ms() -> float | None:
        value = measured.pop(0) if len(measured) > 1 else measured[0]
        if len(measured) == 1 and pactl.delay() == "latency_msec=160":
            reached.set()
        return value

    with (
        DelayedMicrophone(30.0, pactl=pactl) as microphone,
        SoundKeeper(microphone, delay_ms, offset_ms=10.0, first_s=0.01, every_s=0.01),
    ):
        assert reached.wait(5.0)
    delays = [a for call in pactl.calls for a in call if a.startswith("latency_msec=")]
    assert delays == ["latency_msec=30", "latency_msec=90", "latency_msec=160"]
    assert pactl.loaded == {}


def test_a_failed_change_of_delay_is_tried_again() -> None:
    """Else one call that failed would leave the microphone silent for the rest of the day."""
    pactl = FakePactl()
    with DelayedMicrophone(30.0, pactl=pactl) as microphone:
        pactl._fail_at = "module-loopback"
        with pytest.raises(SinkError):
            microphone.set_delay_ms(90.0)
        pactl._fail_at = None
        assert microphone.set_delay_ms(90.0)
        assert pactl.delay() == "latency_msec=90"
        # its module went by itself, as with an unplugged microphone
        gone = next(k for k, m in pactl.loaded.items() if m[0] == "module-loopback")
        del pactl.loaded[gone]

        def refuse(arguments: Sequence[str]) -> str:
            if list(arguments) == ["unload-module", gone]:
                raise SinkError("no such module")
            return pactl(arguments)

        microphone._pactl = refuse
        assert microphone.set_delay_ms(200.0)
        assert pactl.delay() == "latency_msec=200"
        microphone._pactl = pactl


@pytest.fixture
def pactl_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called pactl that writes down how it was called."""
    path = tmp_path / "pactl"
    path.write_text(
        '#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n'
        'case "$1" in load-module) echo 7;; get-default-source) echo mic;;'
        ' fail) echo "Connection refused" >&2; exit 1;; esac\n',
        encoding="utf-8",
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    return tmp_path / "calls"


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_the_real_program_is_called(pactl_program: Path) -> None:
    with DelayedMicrophone(50.0) as microphone:
        assert microphone.microphone == "mic"
    lines = pactl_program.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "get-default-source"
    assert lines[1].startswith("load-module module-null-sink sink_name=rt_swap_delay")
    assert lines[-3:] == ["unload-module 7"] * 3
    with pytest.raises(SinkError, match="Connection refused"):
        run_pactl(["fail"])


def test_error_without_pactl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    begin = time.monotonic()
    with pytest.raises(SinkError, match="pactl is not installed"):
        DelayedMicrophone(50.0)
    assert time.monotonic() - begin < 5
