"""How exact an estimate is whose error has several parts, and which difference it could find.

A part is a standard error with its degrees of freedom: seeds with seeds - 1, images with images - 1. Their squares add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

POWER = 0.8
SURE = 0.85  # the share of reports whose stated power is reached, by design; measured, at least 0.8
MOST_DEGREES = 1e6  # as good as normal
SMALLEST_P = float(np.finfo(float).tiny)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A standard error estimated with ``degrees`` of freedom."""

    error: float
    degrees: float

    def at_most(self, sure: float = SURE) -> Part:
        """The same with the upper confidence limit of its error: the true one is under it in a share ``sure`` of cases."""
        return Part(error=self.error * math.sqrt(self.degrees / _chi2(self.degrees, 1 - sure)), degrees=self.degrees)


def _chi2(degrees: float, below: float) -> float:
    """The point that a chi squared variable stays under with probability ``below``."""
    return float(special.chdtri(degrees, 1 - below))


def point(confidence: float, degrees: float | None) -> float:
    """The t, or for None the normal deviate, that a value's size stays under with this probability."""
    upper = (1 + confidence) / 2
    return float(special.ndtri(upper) if degrees is None else special.stdtrit(degrees, upper))


def two_sided_p(mean: float, error: float | None, degrees: float | None) -> float | None:
    """p of a mean under t (normal for ``degrees`` None), never 0; None without an error to hold it against."""
    return None if not error else min(1.0, 2 * upper_p(abs(mean), error, degrees))


def upper_p(mean: float, error: float, degrees: float | None) -> float:
    """The chance of a mean at least so large where the true one is 0; never 0."""
    below = special.ndtr(-mean / error) if degrees is None else special.stdtr(degrees, -mean / error)
    return max(float(below), SMALLEST_P)


def total(parts: Sequence[Part]) -> Part | None:
    """The whole error, with the degrees at which t's 97.5 % point is midway between Satterthwaite's (1946), too near for few
    degrees, and Cochran's (1964), too far. None where there is no error at all. Measured in ``benchmarks/coverage.py``."""
    parts = [part for part in parts if part.error > 0]
    if not parts:
        return None
    error = math.hypot(*(part.error for part in parts))
    if len(parts) == 1:
        return Part(error=error, degrees=min(parts[0].degrees, MOST_DEGREES))
    satterthwaite = point(0.95, 1 / math.fsum((part.error / error) ** 4 / part.degrees for part in parts))
    cochran = math.hypot(*(part.error * point(0.95, part.degrees) for part in parts)) / error
    wanted = (satterthwaite + cochran) / 2
    if wanted <= point(0.95, MOST_DEGREES):
        return Part(error=error, degrees=MOST_DEGREES)
    fewest = min(part.degrees for part in parts) * (1 - 1e-9)
    return Part(error=error, degrees=float(optimize.brentq(lambda df: point(0.95, df) - wanted, fewest, MOST_DEGREES)))


def power(shift: float, degrees: float | None, confidence: float) -> float:
    """The chance that a t test finds a true difference of ``shift`` true standard errors.

    Conditioning on the estimated error keeps this exact to 1e-3 where scipy's noncentral t gives NaN (1 or 2 degrees).
    """
    critical = point(confidence, degrees)
    spread = 1.0 if degrees is None else np.sqrt(special.chdtri(degrees, (np.arange(500) + 0.5) / 500) / degrees)
    found = special.ndtr(shift - critical * spread) + special.ndtr(-shift - critical * spread)
    return float(np.mean(found))


def detectable(error: float, degrees: float | None, confidence: float) -> float:
    """The true difference that a t test (normal for ``degrees`` None) with this true standard error finds with chance 0.8."""
    most = 20 * point(confidence, degrees)
    return error * float(optimize.brentq(lambda shift: power(shift, degrees, confidence) - POWER, 0.0, most, xtol=1e-4))
