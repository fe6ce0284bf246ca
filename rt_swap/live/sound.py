"""A microphone that is as late as the picture, through PulseAudio or PipeWire.

    microphone --module-loopback, latency_msec--> null sink --monitor--> module-remap-source

The last one is what a call is given: a microphone called "rt_swap microphone". All of it is done
with ``pactl``, which speaks to PulseAudio and to PipeWire's own server alike.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final

from rt_swap.errors import ConfigError, SinkError

logger = logging.getLogger(__name__)

SINK_NAME: Final = "rt_swap_delay"
MICROPHONE_NAME: Final = "rt_swap_microphone"
DESCRIPTION: Final = "rt_swap\\ microphone"
MAX_DELAY_MS: Final = 5_000
_TIMEOUT_S: Final = 5.0
_NOTICEABLE_MS: Final = 20.0
"""Sound that is off by less is not corrected, for a correction is heard as a click."""
_EVERY_S: Final = 10.0
_FIRST_S: Final = 2.0

Pactl = Callable[[Sequence[str]], str]
"""Runs pactl with arguments; returns what it printed."""


def run_pactl(arguments: Sequence[str]) -> str:
    """Run the real one.

    Raises:
        SinkError: If it is not installed, does not answer, or refuses.
    """
    program = shutil.which("pactl")
    if program is None:
        raise SinkError(
            "--delay-mic: pactl is not installed; install it (Debian, Ubuntu: sudo apt install"
            " pulseaudio-utils), or leave --delay-mic out"
        )
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SinkError(f"--delay-mic: pactl does not answer ({exc})") from exc
    if done.returncode != 0:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise SinkError(
            f"--delay-mic: pactl {' '.join(arguments[:2])} failed ({reason}); is PulseAudio or"
            " PipeWire running for this user?"
        )
    return done.stdout


class DelayedMicrophone:
    """A virtual microphone that gives another one's sound later. A context manager.

    Args:
        delay_ms: By how much, 0 to 5000.
        microphone: PulseAudio's name of the one to delay; None takes the default one.
        pactl: Runs pactl.

    Attributes:
        delay_ms: In use.

    Raises:
        ConfigError: If the delay is out of range.
        SinkError: If it cannot be set up; nothing is left behind then.
    """

    def __init__(
        self, delay_ms: float, microphone: str | None = None, *, pactl: Pactl = run_pactl
    ) -> None:
        self.delay_ms = _checked(delay_ms)
        self._pactl = pactl
        self._modules: list[str] = []
        self._loopback: str | None = None
        self._closed = False
        default = pactl(["get-default-source"]).strip()
        self.microphone = microphone or default
        if self.microphone in (MICROPHONE_NAME, f"{SINK_NAME}.monitor", ""):
            raise SinkError(
                "--delay-mic: the default microphone is rt_swap's own or there is none; name one:"
                " --delay-mic NAME (pactl list short sources)"
            )
        try:
            self._load(
                "module-null-sink",
                f"sink_name={SINK_NAME}",
                f"sink_properties=device.description={DESCRIPTION}",
            )
            self._loopback = self._load_loopback()
            self._load(
                "module-remap-source",
                f"master={SINK_NAME}.monitor",
                f"source_name={MICROPHONE_NAME}",
                f"source_properties=device.description={DESCRIPTION}",
            )
        except BaseException:
            self.close()
            raise

    def set_delay_ms(self, delay_ms: float) -> bool:
        """Follow the picture; heard as a short gap.

        Returns:
            Whether anything was changed: differences that nobody notices are left.

        Raises:
            SinkError: If it fails.
        """
        delay_ms = _checked(delay_ms)
        close = abs(delay_ms - self.delay_ms) < _NOTICEABLE_MS
        if self._closed or (close and self._loopback is not None):
            return False
        old, self._loopback = self._loopback, None
        if old is not None:
            with contextlib.suppress(SinkError):  # it may have gone with its microphone
                self._pactl(["unload-module", old])
        self.delay_ms = delay_ms
        self._loopback = self._load_loopback()  # where this fails, the next call tries again
        return True

    def _load_loopback(self) -> str:
        return self._pactl(
            [
                "load-module",
                "module-loopback",
                f"source={self.microphone}",
                f"sink={SINK_NAME}",
                f"latency_msec={max(round(self.delay_ms), 1)}",
                "source_dont_move=true",
                "sink_dont_move=true",
            ]
        ).strip()

    def _load(self, module: str, *arguments: str) -> None:
        self._modules.append(self._pactl(["load-module", module, *arguments]).strip())

    def close(self) -> None:
        """Remove the virtual microphone; harmless when done twice."""
        if self._closed:
            return
        self._closed = True
        loopback = [] if self._loopback is None else [self._loopback]
        for module in [*self._modules[1:], *loopback, *self._modules[:1]]:
            with contextlib.suppress(SinkError):
                self._pactl(["unload-module", module])

    def __enter__(self) -> DelayedMicrophone:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SoundKeeper:
    """Keeps a delayed microphone in step with the measured age of the pictures, on a thread.

    Args:
        microphone: To keep.
        delay_ms: Tells the age now, or None while it is not known.
        offset_ms: Added to it, for what comes after rt_swap.
        first_s: When to look first.
        every_s: How often after that.
    """

    def __init__(
        self,
        microphone: DelayedMicrophone,
        delay_ms: Callable[[], float | None],
        *,
        offset_ms: float = 0.0,
        first_s: float = _FIRST_S,
        every_s: float = _EVERY_S,
    ) -> None:
        self._microphone, self._delay_ms, self._offset_ms = microphone, delay_ms, offset_ms
        self._first_s, self._every_s = first_s, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, name="rt_swap sound", daemon=True)
        self._thread.start()

    def _go(self) -> None:
        pause_s = self._first_s
        while not self._stop.wait(pause_s):
            measured_ms = self._delay_ms()
            if measured_ms is None:
                continue
            pause_s = self._every_s
            try:
                wanted_ms = min(max(measured_ms + self._offset_ms, 0.0), MAX_DELAY_MS)
                if self._microphone.set_delay_ms(wanted_ms):
                    logger.info("sound: the microphone is now %.0f ms late", wanted_ms)
            except SinkError as error:
                logger.warning("%s", error)

    def close(self) -> None:
        """End the thread; the microphone stays."""
        self._stop.set()
        self._thread.join(timeout=2 * _TIMEOUT_S)

    def __enter__(self) -> SoundKeeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(delay_ms: float) -> float:
    if not 0 <= delay_ms <= MAX_DELAY_MS:
        raise ConfigError(
            f"--delay-mic: the delay must be 0 to {MAX_DELAY_MS} ms, got {delay_ms:g}"
        )
    return float(delay_ms)
