"""How numbers stand in a report: AP times 100, with as many decimals as its interval is worth, p never as zero."""

from __future__ import annotations

import math

from yolomish.comparison.report import Level
from yolomish.evaluation.stats import Difference

NONE = "-"  # where a number cannot be had
MOST_DECIMALS = 4


def count(number: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def number(value: float | None, form: str = ".4f", unit: str = "") -> str:
    """A number, a dash where there is none."""
    return NONE if value is None else format(value, form) + unit


def decimals(half: float | None) -> int:
    """Those of an AP times 100 whose interval reaches ``half`` (0..1) to either side: one, more where it is under 0.1."""
    if not half or half >= 1e-3:
        return 1
    return min(MOST_DECIMALS, -math.floor(math.log10(100 * half)))


def points(value: float | None, places: int = 1) -> str:
    """An AP times 100, a dash where there is none."""
    return number(None if value is None else 100 * value, f".{places}f")


def signed(value: float, places: int = 1) -> str:
    """A difference of AP times 100 with its sign, but for zero."""
    return f"{100 * value:+.{places}f}" if round(100 * value, places) else f"{0:.{places}f}"


def half_width(d: Difference) -> float | None:
    """How far the interval reaches to the nearer side of the mean."""
    return None if d.low is None or d.high is None else min(d.mean - d.low, d.high - d.mean)


def mean_of(d: Difference) -> str:
    """The mean, with the decimals of its interval."""
    return signed(d.mean, decimals(half_width(d) or d.sd))


def span(low: float, high: float, places: int = 1) -> str:
    """Two ends of an interval."""
    return f"[{signed(low, places)}, {signed(high, places)}]"


def interval(d: Difference) -> str:
    """The interval, a dash where there is none."""
    return NONE if d.low is None or d.high is None else span(d.low, d.high, decimals(half_width(d)))


def percent(confidence: float) -> str:
    """``95 %``, ``97.5 %``, ``98.33 %``."""
    return f"{100 * confidence:.4g} %"


def spread(level: Level | None) -> str:
    """Mean ± sd, the mean alone with one training, a dash where there is nothing."""
    if level is None:
        return NONE
    places = decimals(level.sd)
    return points(level.mean, places) + (f" ± {points(level.sd, places)}" if level.sd is not None else "")


def probability(p: float | None) -> str:
    """A p-value to two digits, never as zero."""
    return NONE if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def equals(p: float) -> str:
    """``p = 0.03``, ``p < 0.0001``."""
    return f"p {probability(p)}" if p < 1e-4 else f"p = {probability(p)}"
