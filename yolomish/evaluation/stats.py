"""Is one arm better, by how much, and how sure is that: training chance over seeds and test chance over images together.

Two sources of chance are kept apart. Seeds: the differences of the trained models. Images: COCO's AP recomputed on
resampled images (``resample``), the same images for every model. The interval's variance is

    seeds: s²/S of paired differences, or s_A²/S_A + s_B²/S_B of arms that share no seeds (Welch 1947)
    + images: the mean covariance, over pairs of seeds, of their differences on the same resampled images.

What a seed's own model makes of the images is already in s, so only what all seeds share is added (a two-way layout, seeds
crossed with images). With one seed the images' variance is all there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from scipy import special

from yolomish.evaluation.precision import Part, detectable, point, total, two_sided_p, upper_p
from yolomish.evaluation.seed_tests import Effect, ahead, cohens_d, mean_sd, sign_flip_p, wilcoxon_p

LEVEL = 0.05  # of all comparisons of a family together
FEWEST_IMAGES = 10  # that hold a class: below, its resamples say nothing of other images
FEWEST_SEEDS = 3  # for a statement on what could have been found
OWN_ALIKE, RESIDUALS_ALIKE = 0.25, 0.5  # p of Bartlett's tests from which arms' variances are pooled (``benchmarks/coverage.py``)


class Verdict(str, Enum):
    """What a difference says; the value is the fixed vocabulary of report.json."""

    A_BETTER = "A better"
    B_BETTER = "B better"
    NO_DIFFERENCE = "no difference detected at this power"
    IDENTICAL = "identical detections"
    ONE_SEED = "inconclusive (one seed)"
    NO_SPREAD = "inconclusive (no spread to judge by)"
    FAR_RUNS = "inconclusive (it hangs on runs far from their arm's others)"


class Equality(str, Enum):
    """What two one-sided tests say of a margin."""

    EQUIVALENT = "equivalent"
    A_NOT_WORSE = "A not worse"
    B_NOT_WORSE = "B not worse"
    NOT_SHOWN = "not shown to be equivalent"


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Two one-sided tests (Schuirmann 1987): the p of A being worse than B by ``margin`` or more, of B being so, and the
    finding at the family's level."""

    margin: float
    p_a_worse: float
    p_b_worse: float
    finding: Equality

    @property
    def p(self) -> float:
        """That of equivalence."""
        return max(self.p_a_worse, self.p_b_worse)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A metric of an arm's trainings, and the same (n, R) on R resamples of the images, where there are any.

    ``resampled`` rows belong to ``values``; all samples of a comparison share the resamples.
    """

    values: tuple[float, ...]
    resampled: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A minus B of one metric; higher is better. None stands where something cannot be had (one seed, few images).

    ``per_seed`` are the paired differences, empty where the arms share no seeds; ``counts`` how many trainings each arm
    has. ``seeds`` and ``images`` are the two parts of the ``error`` of ``mean``. ``low``, ``high`` cover the true
    difference at ``confidence``, within [-1, 1]; with one seed they cover the images' chance alone. ``p`` belongs to the
    interval, ``p_adjusted`` is Bonferroni's over the family's pairs and belongs to the verdict. ``p_t`` (paired or Welch's),
    ``p_signs`` and ``p_ranks`` are over seeds alone. ``correlation`` is that of paired arms and ``pairing_gain`` their
    seeds' error over that of unpaired ones. ``pooled``: the seeds' variance is that of all arms. ``a_ahead`` is the share
    of pairs of trainings in which A is ahead, ``above_zero`` that of image resamples; ``bootstrap`` the 95 % percentiles of
    seeds then images drawn anew. ``detectable``: a true difference so large is found in 4 of 5 such comparisons, said with
    80 % confidence.
    """

    metric: str
    a: str
    b: str
    per_seed: tuple[float, ...]
    counts: tuple[int, int]
    mean: float
    sd: float | None
    seeds: Part | None
    images: Part | None
    error: float | None
    degrees: float | None
    pooled: bool
    low: float | None
    high: float | None
    confidence: float
    p: float | None
    p_adjusted: float | None
    p_t: float | None
    p_signs: float | None
    p_ranks: float | None
    correlation: float | None
    pairing_gain: float | None
    a_ahead: float
    above_zero: float | None
    bootstrap: tuple[float, float] | None
    effect: Effect | None
    detectable: float | None
    equivalence: Equivalence | None
    verdict: Verdict

    @property
    def paired(self) -> bool:
        """Whether trainings are held against each other seed by seed."""
        return bool(self.per_seed)


def difference(
    metric: str, a: str, b: str, first: Sample, second: Sample, *, paired: bool = True, units: int | None = None
) -> Difference:
    """A minus B at a confidence of 95 %, alone in its family.

    ``paired``: values are in the order of the same seeds. ``units``: how many images (or clusters of them) hold what the
    metric is of; None: unknown, taken for many. ValueError for an empty sample and for paired ones of unequal size.
    """
    return judged(_estimate(metric, a, b, first, second, paired, units))


def _estimate(metric: str, a: str, b: str, first: Sample, second: Sample, paired: bool, units: int | None) -> Difference:
    n, m = len(first.values), len(second.values)
    if not n or not m or (paired and n != m):
        raise ValueError(f"needs values of {a} and {b}, as many where they are paired: {n} and {m}")
    per_seed = tuple(x - y for x, y in zip(first.values, second.values, strict=True)) if paired else ()
    (mean_a, sd_a), (mean_b, sd_b) = mean_sd(first.values), mean_sd(second.values)
    apart = None
    if sd_a is not None and sd_b is not None:
        apart = _welch(sd_a**2 / n, n - 1, sd_b**2 / m, m - 1)
    sd, seeds = None, apart
    if paired:
        _, sd = mean_sd(per_seed)
        seeds = Part(error=sd / math.sqrt(n), degrees=n - 1) if sd is not None else None
    image_part, above, bootstrap = _over_images(first, second, paired, units)
    mean = math.fsum(per_seed) / n if paired else mean_a - mean_b
    correlated = paired and n >= FEWEST_SEEDS and sd_a and sd_b
    return Difference(
        metric=metric,
        a=a,
        b=b,
        per_seed=per_seed,
        counts=(n, m),
        mean=mean,
        sd=sd,
        seeds=seeds,
        images=image_part,
        error=None,
        degrees=None,
        pooled=False,
        low=None,
        high=None,
        confidence=1 - LEVEL,
        p=None,
        p_adjusted=None,
        p_t=two_sided_p(mean, seeds.error, seeds.degrees) if seeds else None,
        p_signs=sign_flip_p(per_seed) if paired and n > 1 else None,
        p_ranks=wilcoxon_p(per_seed) if paired and n > 1 else None,
        correlation=float(np.corrcoef(first.values, second.values)[0, 1]) if correlated else None,
        pairing_gain=seeds.error / apart.error if correlated and seeds and apart else None,
        a_ahead=ahead(first.values, second.values, paired=paired),
        above_zero=above,
        bootstrap=bootstrap,
        effect=cohens_d(first.values, second.values),
        detectable=None,
        equivalence=None,
        verdict=Verdict.ONE_SEED,
    )


def _welch(first: float, first_degrees: int, second: float, second_degrees: int) -> Part:
    """Two variances of means as one error, with Welch's and Satterthwaite's degrees."""
    variance = first + second
    spread = first**2 / first_degrees + second**2 / second_degrees
    degrees = variance**2 / spread if spread else float(first_degrees + second_degrees)
    return Part(error=math.sqrt(variance), degrees=degrees)


def _over_images(
    first: Sample, second: Sample, paired: bool, units: int | None
) -> tuple[Part | None, float | None, tuple[float, float] | None]:
    """The images' part of the error, the share of resamples with A ahead, and the hierarchical bootstrap's percentiles."""
    if first.resampled is None or second.resampled is None or (units is not None and units < 2):
        return None, None, None
    known = np.isfinite(first.resampled).all(0) & np.isfinite(second.resampled).all(0)
    a, b = first.resampled[:, known], second.resampled[:, known]
    if a.shape[1] < 2:
        return None, None, None
    if paired:
        variance = _shared(np.cov(a - b))
    else:
        whole, n = np.atleast_2d(np.cov(np.concatenate((a, b)))), len(a)
        variance = _shared(whole[:n, :n]) + _shared(whole[n:, n:]) - 2 * float(whole[:n, n:].mean())
    # The variance of resamples is (n - 1)/n of what n images say of the next ones.
    scale = 1.0 if units is None else units / (units - 1)
    part = Part(error=math.sqrt(max(variance * scale, 0.0)), degrees=1e9 if units is None else units - 1)
    gap = a.mean(0) - b.mean(0)
    return part, float((gap > 0).mean() + (gap == 0).mean() / 2), _percentiles(a, b, paired)


def _shared(covariance: np.ndarray) -> float:
    """What all rows share of their variance: the mean covariance of pairs, or the variance of a single one."""
    covariance = np.atleast_2d(covariance)
    rows = len(covariance)
    return float(covariance[0, 0] if rows == 1 else (covariance.sum() - covariance.trace()) / (rows * (rows - 1)))


def _percentiles(a: np.ndarray, b: np.ndarray, paired: bool) -> tuple[float, float]:
    """Seeds drawn with replacement, then images; too narrow for few seeds, shown beside."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(a), a.shape)
    others = rows if paired else rng.integers(0, len(b), b.shape)
    gaps = np.take_along_axis(a, rows, 0).mean(0) - np.take_along_axis(b, others, 0).mean(0)
    low, high = np.percentile(gaps, (2.5, 97.5))
    return float(low), float(high)


def judged(d: Difference, *, level: float = LEVEL, pairs: int = 1, margin: float = 0.0) -> Difference:
    """The same difference with interval, p and verdict as one of ``pairs`` in a family that errs in ``level`` of cases, and
    with what is shown of a ``margin``."""
    whole = total([part for part in (d.seeds, d.images) if part])
    if whole is None:
        verdict = d.verdict if min(d.counts) < 2 else Verdict.NO_SPREAD if d.mean else Verdict.NO_DIFFERENCE
        return replace(d, confidence=1 - level / pairs, verdict=verdict)
    error, degrees, confidence = whole.error, whole.degrees, 1 - level / pairs
    p, half = two_sided_p(d.mean, error, degrees) or 1.0, point(confidence, degrees) * error
    low, high = max(d.mean - half, -1.0), min(d.mean + half, 1.0)
    d = replace(d, error=error, degrees=degrees, low=low, high=high, confidence=confidence, p=p, p_adjusted=min(1.0, pairs * p))
    if min(d.counts) < 2:
        return d
    verdict = Verdict.A_BETTER if low > 0 else Verdict.B_BETTER if high < 0 else Verdict.NO_DIFFERENCE
    findable = None
    if min(d.counts) >= FEWEST_SEEDS and (upper := total([part.at_most() for part in (d.seeds, d.images) if part])):
        found = detectable(upper.error, upper.degrees, confidence)
        findable = found if found < 1 else None  # no metric differs by more
    return replace(
        d, verdict=verdict, detectable=findable, equivalence=_equivalence(d, margin, level / pairs) if margin else None
    )


def _equivalence(d: Difference, margin: float, level: float) -> Equivalence:
    error = d.error or 0.0
    p_a, p_b = upper_p(margin + d.mean, error, d.degrees), upper_p(margin - d.mean, error, d.degrees)
    finding = Equality.NOT_SHOWN
    if max(p_a, p_b) < level:
        finding = Equality.EQUIVALENT
    elif min(p_a, p_b) < level:
        finding = Equality.A_NOT_WORSE if p_a < level else Equality.B_NOT_WORSE
    return Equivalence(margin=margin, p_a_worse=p_a, p_b_worse=p_b, finding=finding)


def without_interval(d: Difference) -> Difference:
    """The same without anything that resampled images or a test would say: for what too few images hold."""
    return replace(
        d,
        images=None,
        error=None,
        degrees=None,
        low=None,
        high=None,
        p=None,
        p_adjusted=None,
        above_zero=None,
        bootstrap=None,
        detectable=None,
        equivalence=None,
        verdict=Verdict.NO_SPREAD,
    )


def family(
    metric: str,
    samples: Mapping[str, Sample],
    pairs: Sequence[tuple[str, str]],
    *,
    paired: bool = True,
    units: int | None = None,
    level: float = LEVEL,
    margin: float = 0.0,
) -> tuple[Difference, ...]:
    """The differences of ``pairs`` of arms as one family, which errs in ``level`` of cases together (Bonferroni).

    With three arms or more whose variances may be equal, the seeds' variance is pooled over all arms, which leaves more
    degrees of freedom: 2 seeds of 3 paired arms have 2 instead of 1, t's 97.5 % point is 4.3 instead of 12.7.
    """
    found = [_estimate(metric, a, b, samples[a], samples[b], paired, units) for a, b in pairs]
    if pool := _pooled([sample.values for sample in samples.values()], paired):
        variance, degrees = pool
        for i, d in enumerate(found):
            n, m = d.counts
            means = 2 * variance / n if paired else variance * (1 / n + 1 / m)
            found[i] = replace(d, seeds=Part(error=math.sqrt(means), degrees=degrees), pooled=True)
    return tuple(judged(d, level=level, pairs=len(pairs), margin=margin) for d in found)


def _pooled(values: Sequence[Sequence[float]], paired: bool) -> tuple[float, float] | None:
    """Residual variance over all arms and its degrees; None for two arms, a single seed, or variances that look unequal.

    A single loud arm is in every residual of paired arms, at a third in the others' of three: so the arms' own variances
    are asked too.
    """
    arms = len(values)
    if arms < 3 or min(map(len, values)) < 2:
        return None
    own = [np.asarray(v, float) - np.mean(v) for v in values]
    own_degrees = [float(len(v) - 1) for v in values]
    residuals, degrees = own, own_degrees
    if paired:
        table = np.stack(own)
        residuals = list(table - table.mean(0))
        degrees = [(table.shape[1] - 1) * (arms - 1) / arms] * arms
    if _equal_variances(own, own_degrees) < OWN_ALIKE or _equal_variances(residuals, degrees) < RESIDUALS_ALIKE:
        return None
    return math.fsum(float((r**2).sum()) for r in residuals) / math.fsum(degrees), math.fsum(degrees)


def _equal_variances(residuals: Sequence[np.ndarray], degrees: Sequence[float]) -> float:
    """p of Bartlett's test (1937); 0 where an arm does not vary at all."""
    squares = [float((r**2).sum()) for r in residuals]
    if min(squares) <= 1e-24:
        return 0.0
    groups, whole = len(squares), math.fsum(degrees)
    unlike = whole * math.log(math.fsum(squares) / whole)
    unlike -= math.fsum(f * math.log(s / f) for s, f in zip(squares, degrees, strict=True))
    scale = 1 + (math.fsum(1 / f for f in degrees) - 1 / whole) / (3 * (groups - 1))
    return float(special.chdtrc(groups - 1, unlike / scale))
