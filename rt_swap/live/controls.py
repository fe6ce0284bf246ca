"""What a key does: the expressions on offer, and the switches, for all engines at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rt_swap.config import LIVE_ON_LOST, MODES
from rt_swap.errors import RtSwapError
from rt_swap.expression import MAX_GAIN
from rt_swap.frames import F32, Expression
from rt_swap.live.engine import LiveEngine, TokenSource
from rt_swap.live.run import LiveRun

logger = logging.getLogger(__name__)

_GAIN_STEP: Final = 0.1

HELP: Final = (
    "1-9 expressions   0 own face   n, p next, previous",
    "m mode   s keep speech   b keep blink   - + gains",
    "c calibrate   l what is shown when lost   h hide",
    "? help   q quit",
)
"""The keys, for people."""


@dataclass(frozen=True)
class Offer:
    """An expression on offer.

    Attributes:
        name: For people.
        expressions: One per engine, for tokens belong to their model; empty for a live source.
        live: One live source per engine; empty for an expression.
    """

    name: str
    expressions: tuple[Expression, ...] = ()
    live: tuple[TokenSource, ...] = ()


class Controls:
    """Carries out keys. All methods may be called from any thread, one at a time.

    Args:
        engines: One per model.
        offers: In the order of the keys 1, 2, ...
        gains: At the start, (K,).
    """

    def __init__(
        self, engines: Sequence[LiveEngine], offers: Sequence[Offer], gains: F32 | None = None
    ) -> None:
        self.engines, self.offers = tuple(engines), tuple(offers)
        self._gains = None if gains is None else gains.copy()
        self._factor = 1.0
        self.active: Callable[[], LiveEngine] = lambda: self.engines[0]
        self.chosen: int | None = None
        self.message = ""
        self.show_help = False
        self.hidden = False
        self.quits = False
        self._keys: dict[str, Callable[[], str]] = {
            "0": self.own_face,
            "n": lambda: self.step(1),
            "p": lambda: self.step(-1),
            "m": self.toggle_mode,
            "s": self.toggle_speech,
            "b": self.toggle_blink,
            "c": self.calibrate,
            "l": self.next_on_lost,
            "h": self.toggle_hidden,
            " ": self.toggle_hidden,
            "+": lambda: self.scale_gains(_GAIN_STEP),
            "=": lambda: self.scale_gains(_GAIN_STEP),
            "-": lambda: self.scale_gains(-_GAIN_STEP),
            "?": self.toggle_help,
            "q": self.quit,
            "escape": self.quit,
            "closed": self.quit,
        }

    def press(self, key: str) -> str | None:
        """Do what a key says.

        Returns:
            What was done, for people; None for a key without a meaning.
        """
        key = key.lower() if len(key) == 1 else key
        if key in "123456789" and len(key) == 1:
            number = int(key) - 1
            if number >= len(self.offers):
                return None
            return self._said(lambda: self.choose(number))
        action = self._keys.get(key)
        return None if action is None else self._said(action)

    def _said(self, action: Callable[[], str]) -> str:
        try:
            self.message = action()
        except RtSwapError as error:
            self.message = str(error)
            logger.warning("%s", error)
        return self.message

    def apply(self, run: LiveRun) -> None:
        """Hand hiding and quitting on to a run."""
        if self.quits:
            run.stop.set()
        if self.hidden:
            run.hidden.set()
        else:
            run.hidden.clear()

    # --- what keys do ---
    def choose(self, number: int) -> str:
        """Turn to an offer, counted from 0."""
        offer = self.offers[number]
        for k, engine in enumerate(self.engines):
            if offer.live:
                engine.set_live_source(offer.live[k], name=offer.name)
            else:
                engine.set_expression(offer.expressions[k], name=offer.name)
        self.chosen = number
        return offer.name

    def step(self, by: int) -> str:
        """Turn to the next or previous offer, round and round."""
        if not self.offers:
            return "there are no expressions"
        start = -1 if self.chosen is None and by > 0 else self.chosen or 0
        return self.choose((start + by) % len(self.offers))

    def own_face(self) -> str:
        """Let the target's own expression through."""
        for engine in self.engines:
            engine.set_expression(None, name="")
        self.chosen = None
        return "own face"

    def toggle_mode(self) -> str:
        """Absolute or relative."""
        now = self.engines[0].state.mode
        mode = MODES[(MODES.index(now) + 1) % len(MODES)]
        for engine in self.engines:
            engine.set_mode(mode)
        return f"mode {mode}"

    def toggle_speech(self) -> str:
        """Keep the own mouth opening, or not."""
        keep = not self.engines[0].state.keep_speech
        for engine in self.engines:
            engine.set_keep_speech(keep)
        return f"own speech {'kept' if keep else 'replaced'}"

    def toggle_blink(self) -> str:
        """Keep the own blink, or not."""
        keep = not self.engines[0].state.keep_blink
        for engine in self.engines:
            engine.set_keep_blink(keep)
        return f"own blink {'kept' if keep else 'replaced'}"

    def scale_gains(self, by: float) -> str:
        """More or less of the source, all units together."""
        base = self.engines[0].state.gains if self._gains is None else self._gains
        self._gains = base.copy()
        self._factor = round(min(max(self._factor + by, 0.0), MAX_GAIN), 2)
        gains = np.clip(self._gains * np.float32(self._factor), 0.0, MAX_GAIN).astype(np.float32)
        for engine in self.engines:
            engine.set_gains(gains)
        return f"gains x {self._factor:g}"

    def calibrate(self) -> str:
        """Measure the resting face."""
        self.active().start_calibration()
        return "calibrating: rest your face"

    def next_on_lost(self) -> str:
        """What is shown while the face is lost."""
        now = self.engines[0].on_lost
        on_lost = LIVE_ON_LOST[(LIVE_ON_LOST.index(now) + 1) % len(LIVE_ON_LOST)]
        for engine in self.engines:
            engine.set_on_lost(on_lost)
        return f"when lost: {on_lost}"

    def toggle_hidden(self) -> str:
        """Show the slate instead of the camera, or end that."""
        self.hidden = not self.hidden
        return "hidden" if self.hidden else "shown"

    def toggle_help(self) -> str:
        """Show or hide the keys."""
        self.show_help = not self.show_help
        return self.message if self.show_help else ""

    def quit(self) -> str:
        """End the run."""
        self.quits = True
        return "quitting"

    # --- what people see ---
    def lines(self, run: LiveRun) -> tuple[str, ...]:
        """Lines of text for the preview, ASCII."""
        state = run.engine.state
        name = state.expression or "own face"
        first = (
            f"{name} | {state.mode} | {state.fps:.0f} fps | age {state.age_ms:.0f} ms"
            f" | dropped {run.grabber.report.dropped}"
        )
        lines = [first]
        if state.calibrating_left_s > 0:
            lines.append(f"calibrating: rest your face, {state.calibrating_left_s:.1f} s")
        if self.hidden:
            lines.append("HIDDEN: the slate is shown (h ends it)")
        if run.governor.plan.loss:
            lines.append(f"latency: {run.governor.plan}")
        report = run.grabber.report
        if report.state.value != "running":
            lines.append(f"camera: {report.state.value} {report.last_error}")
        if self.message:
            lines.append(self.message)
        if self.show_help:
            lines.extend(HELP)
        return tuple(line.encode("ascii", "replace").decode()[:110] for line in lines)
