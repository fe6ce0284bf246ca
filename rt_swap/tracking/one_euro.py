"""The One-Euro filter.

Casiez, Roussel, Vogel: "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012. With rate 1/dt, the paper's equations are

    alpha(fc, dt) = 1 / (1 + tau / dt), tau = 1 / (2 pi fc)   smoothing factor of a cut-off
    x_hat_i = alpha x_i + (1 - alpha) x_hat_{i-1}             exponential smoothing
    fc      = fc_min + beta |dx_hat_i|                        slow: smooth; fast: no lag

where dx_hat is the derivative, itself smoothed with the fixed cut-off fc_d.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from rt_swap.errors import ConfigError
from rt_swap.frames import F64

T = TypeVar("T", float, F64)


def smoothing_factor(cutoff_hz: T, dt_s: float) -> T:
    """The factor alpha of a first-order low pass, in (0, 1).

    Args:
        cutoff_hz: Cut-off frequency, > 0; one, or an array of them.
        dt_s: Time since the last sample in seconds, > 0.

    Returns:
        One for each cut-off.
    """
    tau_s = 1.0 / (2.0 * math.pi * cutoff_hz)
    return 1.0 / (1.0 + tau_s / dt_s)


class OneEuroFilter:
    """Filters a vector whose components belong together: one speed, hence one cut-off, for all of
    them. Of a matrix each row is such a vector.

    The speed is a norm, so the answer does not depend on how the axes lie.
    """

    def __init__(
        self, *, min_cutoff_hz: float = 1.0, beta: float = 0.0, derivative_cutoff_hz: float = 1.0
    ) -> None:
        """Start without a sample.

        Args:
            min_cutoff_hz: Cut-off at rest, > 0. Lower: less jitter.
            beta: Hertz of cut-off per unit of speed, >= 0. Higher: less lag.
            derivative_cutoff_hz: Cut-off of the derivative, > 0.

        Raises:
            ConfigError: If one is out of range.
        """
        for name, value, ok in (
            ("min_cutoff_hz", min_cutoff_hz, min_cutoff_hz > 0),
            ("beta", beta, beta >= 0),
            ("derivative_cutoff_hz", derivative_cutoff_hz, derivative_cutoff_hz > 0),
        ):
            if not (ok and math.isfinite(value)):
                raise ConfigError(f"OneEuroFilter: {name} is out of range: {value}")
        self._min_cutoff_hz = min_cutoff_hz
        self._beta = beta
        self._derivative_cutoff_hz = derivative_cutoff_hz
        self._raw: F64 | None = None
        self._value: F64 | None = None
        self._derivative: F64 | None = None

    @property
    def value(self) -> F64 | None:
        """The last filtered value; None before the first and after a reset."""
        return self._value

    def reset(self) -> None:
        """Forget everything; the next sample comes out as it goes in."""
        self._raw = self._value = self._derivative = None

    def update(self, raw: F64, dt_s: float, unit: float = 1.0) -> F64:
        """Filter one sample.

        Args:
            raw: (N,) the sample, or (M, N) samples of M vectors.
            dt_s: Seconds since the last one, > 0; ignored for the first.
            unit: Length of the unit in which speed counts for ``beta``; speed is |derivative| /
                unit.

        Returns:
            The filtered sample, of the same shape.
        """
        raw = np.array(raw, np.float64)
        if self._raw is None or self._value is None or self._derivative is None:
            self._raw, self._value, self._derivative = raw, raw, np.zeros_like(raw)
            return raw
        # the derivative of the raw signal, as in the paper's algorithm 1
        share = smoothing_factor(self._derivative_cutoff_hz, dt_s)
        self._derivative = share * (raw - self._raw) / dt_s + (1 - share) * self._derivative
        speed = np.linalg.norm(self._derivative, axis=-1, keepdims=True) / unit
        alpha = smoothing_factor(self._min_cutoff_hz + self._beta * speed, dt_s)
        self._raw, self._value = raw, alpha * raw + (1 - alpha) * self._value
        return self._value
