"""What the seeds alone say: spread, sign flips, signed ranks, Cohen's d, and which runs lie far from their arm's others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

EXACT = 16  # seeds up to which all 2^n sign patterns are tried
DRAWS = 100_000
FEWEST_FOR_EFFECT = 5  # below, d's interval spans everything from nothing to huge
FEWEST_FOR_FAR = 3  # of two runs that differ, neither is the odd one
FAR_SHARE, FAR_SPREADS = 0.5, 3.5  # of the median; median absolute deviations, as normal ones (Iglewicz and Hoaglin 1993)
FAR_LEVEL = 0.01


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Cohen's d with its 95 % interval."""

    d: float
    low: float
    high: float


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); the latter None for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def sign_flip_p(values: Sequence[float]) -> float:
    """Two-sided p of the mean under random signs: all 2^n patterns to n = 16, beyond that 100,000 drawn. 2/2^n at least."""
    x = np.asarray(values, float)
    if len(x) <= EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(x))))
        return float((np.abs(signs @ x) >= abs(x.sum()) * (1 - 1e-12)).mean())
    signs = np.random.default_rng(0).choice((1.0, -1.0), (DRAWS, len(x)))
    return float(((np.abs(signs @ x) >= abs(x.sum()) * (1 - 1e-12)).sum() + 1) / (DRAWS + 1))


def wilcoxon_p(values: Sequence[float]) -> float:
    """Wilcoxon's signed-rank test, two-sided and exact with ties (average ranks); zeros are left out, all zeros give 1."""
    x = np.asarray([v for v in values if v], float)
    return sign_flip_p(np.sign(x) * _ranks(np.abs(x))) if len(x) else 1.0


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def cohens_d(a: Sequence[float], b: Sequence[float]) -> Effect | None:
    """(mean a - mean b) / √((sd a² + sd b²)/2), as the significance tables in the Mish repository give it, with the large
    sample interval of Hedges and Olkin (1985, p. 86). None with fewer than five values or without any spread."""
    (mean_a, sd_a), (mean_b, sd_b) = mean_sd(a), mean_sd(b)
    if min(len(a), len(b)) < FEWEST_FOR_EFFECT or sd_a is None or sd_b is None or sd_a == sd_b == 0:
        return None
    d = (mean_a - mean_b) / math.sqrt((sd_a**2 + sd_b**2) / 2)
    n, m = len(a), len(b)
    half = float(special.ndtri(0.975)) * math.sqrt((n + m) / (n * m) + d * d / (2 * (n + m)))
    return Effect(d=d, low=d - half, high=d + half)


def ahead(a: Sequence[float], b: Sequence[float], *, paired: bool) -> float:
    """P(A > B): the share of pairs of trainings in which A is ahead, ties counting half (arXiv:2103.03098).

    Those of a seed are held against each other where they are ``paired``, else all against all. It describes: as a rule
    it would name a winner in a quarter of all comparisons of equals (``benchmarks/coverage.py``).
    """
    gaps = np.subtract(a, b) if paired else np.subtract.outer(a, b)
    return float((gaps > 0).mean() + (gaps == 0).mean() / 2)


def far_runs(values: Sequence[float]) -> tuple[int, ...]:
    """The places of runs far from their arm's others: collapsed ones, under half the median and 3.5 robust spreads below
    it, or, where there is none, the one that Grubbs' test (1969) rejects at 1 %. None among fewer than three."""
    x = np.asarray(values, float)
    if len(x) < FEWEST_FOR_FAR:
        return ()
    median = float(np.median(x))
    spread = 1.4826 * float(np.median(np.abs(x - median)))
    collapsed = np.flatnonzero((x < FAR_SHARE * median) & (median - x > FAR_SPREADS * spread))
    if len(collapsed):
        return tuple(int(i) for i in collapsed)
    n, sd = len(x), float(x.std(ddof=1))
    if not sd:
        return ()
    t = float(special.stdtrit(n - 2, 1 - FAR_LEVEL / (2 * n)))
    critical = (n - 1) / math.sqrt(n) * math.sqrt(t * t / (n - 2 + t * t))
    gaps = np.abs(x - x.mean()) / sd
    return (int(gaps.argmax()),) if gaps.max() > critical else ()
