"""Is one arm better, by how much, and how sure is that: training chance over seeds and test chance over images together.

Two sources of chance are kept apart. Seeds: the paired differences of the trained models. Images: COCO's AP recomputed
on resampled images (``resample``), the same images for every model. The interval's variance is

    s²/S  +  the mean covariance, over pairs of seeds, of their differences on the same resampled images:

what a seed's own model makes of the images is already in s, so only what all seeds share is added (a two-way layout, seeds
crossed with images). With one seed the images' variance is all there is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from scipy import optimize, special

LEVEL = 0.05  # of all comparisons with the first arm together
POWER = 0.8
EXACT = 16  # seeds up to which all 2^n sign patterns are tried
DRAWS = 100_000
MOST_DEGREES = 1e6  # as good as normal


class Verdict(str, Enum):
    """What a difference says; the value is the fixed vocabulary of reports and of report.json."""

    A_BETTER = "A better"
    B_BETTER = "B better"
    NO_DIFFERENCE = "no difference detected at this power"
    ONE_SEED = "inconclusive (one seed)"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Cohen's d with its 95 % interval."""

    d: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A minus B of one metric; higher is better. None stands where something cannot be had (one seed, no images).

    ``sd`` is the spread over seeds; ``seed_error`` and ``image_error`` are the two parts of ``error``, the standard error
    of ``mean``. ``low``, ``high`` cover the true difference at ``confidence``; with one seed they cover the images' chance
    alone. ``p`` belongs to the interval, ``p_adjusted`` is Holm's over the arms. ``p_t``, ``p_signs`` and ``p_ranks``
    are over seeds alone: paired t, exact sign flips of the mean, exact Wilcoxon. ``above_zero`` is the share of image
    resamples in which A is better; ``bootstrap`` the 95 % percentiles of seeds then images drawn anew. ``detectable``
    is the true difference that would be found in 4 of 5 such comparisons.
    """

    metric: str
    a: str
    b: str
    per_seed: tuple[float, ...]
    mean: float
    sd: float | None
    seed_error: float | None
    image_error: float | None
    error: float | None
    degrees: float | None
    low: float | None
    high: float | None
    confidence: float
    p: float | None
    p_adjusted: float | None
    p_t: float | None
    p_signs: float | None
    p_ranks: float | None
    above_zero: float | None
    bootstrap: tuple[float, float] | None
    effect: Effect | None
    detectable: float | None
    verdict: Verdict


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
    sample interval of Hedges and Olkin (1985, p. 86). None with one value or without any spread."""
    (mean_a, sd_a), (mean_b, sd_b) = mean_sd(a), mean_sd(b)
    if sd_a is None or sd_b is None or sd_a == sd_b == 0:
        return None
    d = (mean_a - mean_b) / math.sqrt((sd_a**2 + sd_b**2) / 2)
    n, m = len(a), len(b)
    half = _point(0.95, None) * math.sqrt((n + m) / (n * m) + d * d / (2 * (n + m)))
    return Effect(d=d, low=d - half, high=d + half)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p, in the order given: their family errs with at most the level that it is held against."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return tuple(adjusted)


def holm_confidences(p_values: Sequence[float]) -> tuple[float, ...]:
    """The confidence at which Holm's procedure looks at each: such an interval leaves out 0 just where it rejects.

    The smallest p is held at 1 - 0.05/n, the next at 1 - 0.05/(n-1), ...; from the first that is not rejected on, all
    stay at its level.
    """
    confidences, level, going = [0.0] * len(p_values), LEVEL, True
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if going:
            level = LEVEL / (len(p_values) - rank)
            going = p_values[i] < level
        confidences[i] = 1 - level
    return tuple(confidences)


def detectable(error: float, degrees: float | None, confidence: float) -> float:
    """The true difference that a t test (normal for ``degrees`` None) with this standard error finds with chance 0.8."""
    critical = _point(confidence, degrees)
    # Conditioning on the estimated error keeps this exact to 1e-3 where scipy's noncentral t gives NaN (1 or 2 degrees).
    spread = 1.0 if degrees is None else np.sqrt(special.chdtri(degrees, (np.arange(2000) + 0.5) / 2000) / degrees)

    def missing(shift: float) -> float:
        found = special.ndtr(shift - critical * spread) + special.ndtr(-shift - critical * spread)
        return float(np.mean(found)) - POWER

    return error * float(optimize.brentq(missing, 0.0, 20 * critical))


def paired_difference(
    metric: str,
    a: str,
    b: str,
    a_values: Sequence[float],
    b_values: Sequence[float],
    *,
    resampled: np.ndarray | None = None,
    confidence: float = 1 - LEVEL,
) -> PairedDifference:
    """A minus B over S seeds in equal order. ``resampled`` (S, R): each seed's difference on the same R sets of images.

    ValueError unless there are as many values of A as of B, at least one.
    """
    if len(a_values) != len(b_values) or not len(a_values):
        raise ValueError(f"needs as many values of {a} as of {b}, at least one: {len(a_values)} and {len(b_values)}")
    per_seed = tuple(x - y for x, y in zip(a_values, b_values, strict=True))
    seeds = len(per_seed)
    mean, sd = mean_sd(per_seed)
    seed_error = sd / math.sqrt(seeds) if sd is not None else None
    usable = resampled[:, np.isfinite(resampled).all(0)] if resampled is not None else np.empty((seeds, 0))
    image_error, above, bootstrap = None, None, None
    if usable.shape[1] > 1:
        image_error = math.sqrt(max(_shared_variance(usable), 0.0))
        of_mean = usable.mean(0)
        above = float((of_mean > 0).mean() + (of_mean == 0).mean() / 2)
        bootstrap = _percentiles(usable)
    parts = [e for e in (seed_error, image_error) if e is not None]
    error = math.hypot(*parts) if parts else None
    degrees = _degrees(seed_error, image_error or 0.0, seeds - 1) if seed_error else None
    raw = PairedDifference(
        metric=metric,
        a=a,
        b=b,
        per_seed=per_seed,
        mean=mean,
        sd=sd,
        seed_error=seed_error,
        image_error=image_error,
        error=error,
        degrees=degrees,
        low=None,
        high=None,
        confidence=confidence,
        p=_p(mean, error, degrees),
        p_adjusted=_p(mean, error, degrees),
        p_t=_p(mean, seed_error, seeds - 1),
        p_signs=sign_flip_p(per_seed) if seeds > 1 else None,
        p_ranks=wilcoxon_p(per_seed) if seeds > 1 else None,
        above_zero=above,
        bootstrap=bootstrap,
        effect=cohens_d(a_values, b_values),
        detectable=None,
        verdict=Verdict.ONE_SEED,
    )
    return _at(raw, confidence)


def _degrees(seed_error: float, image_error: float, degrees: int) -> float:
    """Where t's 97.5 % point is midway between Satterthwaite's (1946), too near for 2 or 3 seeds, and Cochran's (1964), too far.

    Measured over all shares of the two parts: 94 to 97 % from 3 seeds on, 94 to 98 % with 2 (``benchmarks/coverage.py``).
    """
    error = math.hypot(seed_error, image_error)
    satterthwaite = _point(0.95, degrees * (error / seed_error) ** 4)
    cochran = math.hypot(seed_error * _point(0.95, degrees), image_error * _point(0.95, None)) / error
    point = (satterthwaite + cochran) / 2
    if point <= _point(0.95, MOST_DEGREES):
        return MOST_DEGREES
    return float(optimize.brentq(lambda df: _point(0.95, df) - point, degrees * (1 - 1e-9), MOST_DEGREES))


def _point(confidence: float, degrees: float | None) -> float:
    """The t, or for None the normal deviate, that a value's size stays under with this probability."""
    upper = (1 + confidence) / 2
    return float(special.ndtri(upper) if degrees is None else special.stdtrit(degrees, upper))


def _p(mean: float, error: float | None, degrees: float | None) -> float | None:
    if error is None:
        return None
    if not error:
        return float(mean == 0)
    below = special.ndtr(-abs(mean) / error) if degrees is None else special.stdtr(degrees, -abs(mean) / error)
    return float(2 * below)


def _at(d: PairedDifference, confidence: float) -> PairedDifference:
    """The same difference with its interval, verdict and detectable difference at another confidence."""
    error = d.error
    if error is None:
        return d
    half = _point(confidence, d.degrees) * error
    low, high = d.mean - half, d.mean + half
    d = replace(d, low=low, high=high, confidence=confidence)
    if len(d.per_seed) == 1:
        return d
    verdict = Verdict.A_BETTER if low > 0 else Verdict.B_BETTER if high < 0 else Verdict.NO_DIFFERENCE
    return replace(d, verdict=verdict, detectable=detectable(error, d.degrees, confidence))


def _shared_variance(resampled: np.ndarray) -> float:
    """What all seeds share of the images' variance: mean covariance of pairs of rows, or the variance of a single row."""
    covariance = np.cov(resampled)
    seeds = len(resampled)
    return float(covariance if seeds == 1 else (covariance.sum() - covariance.trace()) / (seeds * (seeds - 1)))


def _percentiles(resampled: np.ndarray) -> tuple[float, float]:
    """The hierarchical bootstrap: seeds drawn with replacement, then images; too narrow for few seeds, shown beside."""
    seeds, resamples = resampled.shape
    rows = np.random.default_rng(0).integers(0, seeds, (seeds, resamples))
    low, high = np.percentile(np.take_along_axis(resampled, rows, 0).mean(0), (2.5, 97.5))
    return float(low), float(high)


def corrected(differences: Sequence[PairedDifference]) -> tuple[PairedDifference, ...]:
    """A family of differences, one per arm held against the first, with Holm's p and the intervals and verdicts of his levels."""
    if any(d.p is None for d in differences):
        return tuple(differences)
    p_values = [float(d.p or 0) for d in differences]
    levels = zip(differences, holm(p_values), holm_confidences(p_values), strict=True)
    return tuple(replace(_at(d, level), p_adjusted=p) for d, p, level in levels)
