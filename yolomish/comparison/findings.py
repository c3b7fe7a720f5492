"""From runs to findings: one frozen ``Report`` holds every number, and every page and table only prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolomish.comparison.arms import ACTIVATION_KEYS
from yolomish.comparison.evidence import Evidence
from yolomish.comparison.layers import LayerStatistics
from yolomish.comparison.runs import RunResult
from yolomish.comparison.speed import SpeedResult
from yolomish.comparison.wording import headline_of, limits_of
from yolomish.evaluation.resample import METRICS
from yolomish.evaluation.stats import PairedDifference, corrected, mean_sd, paired_difference

PRIMARY = "AP"


@dataclass(frozen=True, kw_only=True)
class ArmNames:
    """What an arm is called, what it holds and what it starts from (empty: random weights)."""

    label: str
    activation: str
    neck_activation: str
    weights: str = ""


@dataclass(frozen=True, kw_only=True)
class Level:
    """A metric of one arm: mean and sd over seeds, and the 95 % interval of seeds and images together (None with one seed
    and no images)."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """An arm over its seeds. ``best_ap`` is the mean of the best epochs'; costs are None where not recorded."""

    label: str
    activation: str
    neck_activation: str
    weights: str
    levels: dict[str, Level]
    class_levels: dict[str, Level]
    best_ap: float | None
    step_ms: float | None
    peak_memory_bytes: int | None

    @property
    def mean(self) -> dict[str, float]:
        """The means by metric."""
        return {name: level.mean for name, level in self.levels.items()}


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The learning rate each arm did best with in an equal budget of trials (AP by rate), and AP's differences at those."""

    rates: dict[str, float]
    trials: dict[str, dict[str, float]]
    differences: tuple[PairedDifference, ...]
    headline: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a comparison found. ``differences`` are arm A (the first) minus each other arm, for every metric."""

    headline: str
    verdict: str
    controlled: bool
    not_controlled: tuple[str, ...]
    declared: tuple[str, ...]
    scope: str
    seeds: tuple[int, ...]
    images: int | None
    objects: int | None
    resamples: int
    arms: tuple[ArmSummary, ...]
    differences: tuple[PairedDifference, ...]
    class_differences: tuple[PairedDifference, ...]
    best_differences: tuple[PairedDifference, ...]
    runs: tuple[RunResult, ...]
    speed: tuple[SpeedResult, ...]
    layers: tuple[LayerStatistics, ...]
    tuned: Tuned | None
    config_difference: dict[str, tuple[Any, ...]]
    config: dict[str, Any]
    environment: dict[str, str]
    command: str
    limits: tuple[str, ...]

    def difference(self, metric: str, b: str) -> PairedDifference:
        """The first arm minus arm ``b`` in a metric."""
        return next(d for d in self.differences if d.metric == metric and d.b == b)


def differences_in(
    metric: str, labels: Sequence[str], values: dict[str, list[float | None]], resampled: dict[str, np.ndarray | None]
) -> tuple[PairedDifference, ...]:
    """The first label's values minus each other's, as one family under Holm; none where a value is missing."""
    family = []
    for other in labels[1:]:
        a, b = values[labels[0]], values[other]
        if any(v is None for v in (*a, *b)):
            return ()
        first, second = resampled[labels[0]], resampled[other]
        drawn = first - second if first is not None and second is not None else None
        family.append(paired_difference(metric, labels[0], other, [v or 0.0 for v in a], [v or 0.0 for v in b], resampled=drawn))
    return corrected(family)


def _level(values: Sequence[float | None], drawn: np.ndarray | None) -> Level | None:
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return None
    mean, sd = mean_sd(known)
    d = paired_difference("", "", "", known, [0.0] * len(known), resampled=drawn)
    return Level(mean=mean, sd=sd, low=max(d.low, 0.0) if d.low is not None else None, high=d.high)


def build_report(
    *,
    arms: tuple[ArmNames, ...],
    runs: tuple[RunResult, ...],
    scope: str,
    config: dict[str, Any],
    config_difference: dict[str, tuple[Any, ...]],
    environment: dict[str, str],
    command: str,
    evidence: Evidence | None = None,
    declared: tuple[str, ...] = (),
    equal_start: bool = True,
    speed: tuple[SpeedResult, ...] = (),
    layers: tuple[LayerStatistics, ...] = (),
    tuned: Tuned | None = None,
) -> Report:
    """The report of complete ``runs``: every arm at every seed, once. The first arm is A.

    ``config`` is the first arm's as plain values; ``config_difference`` gives a value an arm for each key that differs.
    Arms that differ in more than activations, or start from other kernels though ``equal_start``, make it NOT CONTROLLED;
    ``declared`` says what differs by design. Without ``evidence`` only the chance of seeds is known. ValueError for
    missing runs.
    """
    seeds = tuple(sorted({run.seed for run in runs}))
    table = {(run.arm, run.seed): run for run in runs}
    if len(table) != len(runs) or set(table) != {(arm.label, seed) for arm in arms for seed in seeds} or len(arms) < 2:
        raise ValueError("a report needs two arms or more, and every arm at every seed exactly once")
    labels = [arm.label for arm in arms]
    by_arm = {label: [table[label, seed] for seed in seeds] for label in labels}
    classes = evidence.classes if evidence else ()

    def drawn(label: str, metric: str) -> np.ndarray | None:
        if evidence is None:
            return None
        column = evidence.metrics.index(metric)
        return np.stack([evidence.resampled[label, seed][:, column] for seed in seeds])

    def family(metric: str, values: dict[str, list[float | None]]) -> tuple[PairedDifference, ...]:
        return differences_in(metric, labels, values, {label: drawn(label, metric) for label in labels})

    differences = [d for m in METRICS for d in family(m, {k: [r.metrics.get(m) for r in v] for k, v in by_arm.items()})]
    by_class = [d for c in classes for d in family(c, {k: [r.per_class.get(c) for r in v] for k, v in by_arm.items()})]
    best = differences_in("best AP", labels, {k: [r.best_ap for r in v] for k, v in by_arm.items()}, dict.fromkeys(labels))
    summaries = []
    for arm in arms:
        of_arm = by_arm[arm.label]
        levels = {m: _level([r.metrics.get(m) for r in of_arm], drawn(arm.label, m)) for m in METRICS}
        class_levels = {c: _level([r.per_class.get(c) for r in of_arm], drawn(arm.label, c)) for c in classes}
        best_ap = [r.best_ap for r in of_arm if r.best_ap is not None]
        steps = [r.step_ms for r in of_arm if r.step_ms is not None]
        peaks = [r.peak_memory_bytes for r in of_arm if r.peak_memory_bytes is not None]
        summaries.append(
            ArmSummary(
                label=arm.label,
                activation=arm.activation,
                neck_activation=arm.neck_activation,
                weights=arm.weights,
                levels={m: v for m, v in levels.items() if v is not None},
                class_levels={c: v for c, v in class_levels.items() if v is not None},
                best_ap=mean_sd(best_ap)[0] if best_ap else None,
                step_ms=mean_sd(steps)[0] if steps else None,
                peak_memory_bytes=max(peaks) if peaks else None,
            )
        )
    not_controlled = [key for key in config_difference if key not in ACTIVATION_KEYS]
    if equal_start:
        starts = {seed: {table[label, seed].initial_kernels for label in labels} for seed in seeds}
        not_controlled += [f"initial kernels at seed {seed}" for seed, found in starts.items() if len(found) > 1]
    primary = [d for d in differences if d.metric == PRIMARY]
    epochs = max((len(run.epochs) for run in runs), default=0)
    return Report(
        headline=headline_of(
            primary, len(seeds), evidence.images if evidence else None, not_controlled, max(a.mean["AP"] for a in summaries)
        ),
        verdict=primary[0].verdict,
        controlled=not not_controlled,
        not_controlled=tuple(not_controlled),
        declared=declared,
        scope=scope,
        seeds=seeds,
        images=evidence.images if evidence else None,
        objects=evidence.objects if evidence else None,
        resamples=len(next(iter(evidence.resampled.values()))) if evidence else 0,
        arms=tuple(summaries),
        differences=tuple(differences),
        class_differences=correct_over_classes(by_class, len(labels) - 1),
        best_differences=best,
        runs=runs,
        speed=speed,
        layers=layers,
        tuned=tuned,
        config_difference=config_difference,
        config=config,
        environment=environment,
        command=command,
        limits=limits_of(config, scope, len(seeds), len(labels) - 1, epochs, evidence is not None, arms_start(arms)),
    )


def arms_start(arms: Sequence[ArmNames]) -> str:
    """What the arms were trained from, in words."""
    return "given weights" if any(arm.weights for arm in arms) else "random weights"


def correct_over_classes(differences: Sequence[PairedDifference], others: int) -> tuple[PairedDifference, ...]:
    """Class differences with Holm's correction over all classes of each pair, in the order given."""
    done: list[PairedDifference] = list(differences)
    for i in range(others):
        places = list(range(i, len(differences), others))
        for place, d in zip(places, corrected([differences[p] for p in places]), strict=True):
            done[place] = d
    return tuple(done)
