"""Paired Student t intervals over seeds, with the t quantile computed here so that nothing but ``math`` is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

A_BETTER = "A better"
B_BETTER = "B better"
NO_DIFFERENCE = "no difference detected at this power"
ONE_SEED = "inconclusive (one seed)"
VERDICTS = (A_BETTER, B_BETTER, NO_DIFFERENCE, ONE_SEED)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A minus B of one metric: for every seed, their mean, sd and interval (None with one seed), and what it means."""

    metric: str
    a: str
    b: str
    per_seed: tuple[float, ...]
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    confidence: float
    verdict: str


def _beta_fraction(a: float, b: float, x: float) -> float:
    # Lentz's method on the continued fraction of the incomplete beta function (Numerical Recipes 6.4, DLMF 8.17.22).
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1.0), tiny)
    h = d
    for m in range(1, 400):
        for top in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + top * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + top / c
            c = c if abs(c) > tiny else tiny
            h *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return h


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b


def t_quantile(confidence: float, degrees: int) -> float:
    """The t with P(|T| <= t) = ``confidence`` for Student's T of ``degrees`` >= 1: 12.706 at 0.95 and 1 degree."""
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(f"needs degrees >= 1 and 0 < confidence < 1, not {degrees} and {confidence}")
    low, high = 0.0, 1.0

    def outside(t: float) -> float:
        return _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))

    while outside(high) > 1 - confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if outside(middle) > 1 - confidence else (low, middle)
    return (low + high) / 2


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); the latter None for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def paired_difference(
    metric: str, a: str, b: str, a_values: Sequence[float], b_values: Sequence[float], *, confidence: float = 0.95
) -> PairedDifference:
    """A minus B over seeds in equal order; higher values are better. The verdict is one of ``VERDICTS``."""
    if len(a_values) != len(b_values) or not a_values:
        raise ValueError(f"needs as many values of {a} as of {b}, at least one: {len(a_values)} and {len(b_values)}")
    per_seed = tuple(x - y for x, y in zip(a_values, b_values, strict=True))
    mean, sd = mean_sd(per_seed)
    low = high = None
    verdict = ONE_SEED
    if sd is not None:
        half = t_quantile(confidence, len(per_seed) - 1) * sd / math.sqrt(len(per_seed))
        low, high = mean - half, mean + half
        verdict = A_BETTER if low > 0 else B_BETTER if high < 0 else NO_DIFFERENCE
    return PairedDifference(
        metric=metric,
        a=a,
        b=b,
        per_seed=per_seed,
        mean=mean,
        sd=sd,
        low=low,
        high=high,
        confidence=confidence,
        verdict=verdict,
    )
