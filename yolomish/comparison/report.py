"""From runs to findings: one frozen ``Report`` holds every number and decision; ``render`` puts them into words and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.comparison.arms import ACTIVATION_KEYS, difference_table
from yolomish.comparison.evidence import Evidence
from yolomish.comparison.layers import LayerStatistics
from yolomish.comparison.runs import Run
from yolomish.comparison.speed import SpeedResult
from yolomish.config import ModelConfig, to_dict
from yolomish.evaluation.mcnemar import McNemar, mcnemar
from yolomish.evaluation.stats import PairedDifference, Verdict, corrected, mean_sd, paired_difference
from yolomish.networks.registry import outline
from yolomish.tasks.registry import find_task


class Pairing(str, Enum):
    """By what a run of one arm is held against a run of another."""

    BY_SEED = "by seed"
    IN_ORDER = "in the order given"


class InitialWeights(str, Enum):
    """What the arms were trained from, as far as it is recorded."""

    RANDOM = "random"
    ONE_FILE = "one file for all"
    OWN = "own per arm"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Design:
    """How runs were chosen and paired. ``scope`` is where the activation changes, ``environment`` what the report was made
    on, ``command`` what repeats it.

    ``own_seeds``: a repeated activation has seeds of its own (A/A). ``chosen_starts``: what the arms start from was asked
    for, so that different starts are no fault. ``left_out`` are an arm's seeds that another arm lacks; ``surplus`` is how
    many of an arm's runs were left out because another arm has no more.
    """

    scope: str = "backbone"
    pairing: Pairing = Pairing.BY_SEED
    own_seeds: bool = False
    chosen_starts: bool = False
    left_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    surplus: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


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
    """An arm over its seeds: its activations (``?`` where not known), the weights that it starts from (empty: random; None:
    not recorded), its metrics. ``best_ap`` is the mean of the best epochs'; costs are None where not recorded."""

    label: str
    activation: str
    neck_activation: str
    weights: str | None
    levels: Mapping[str, Level]
    class_levels: Mapping[str, Level]
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

    rates: Mapping[str, float]
    trials: Mapping[str, Mapping[str, float]]
    differences: tuple[PairedDifference, ...]
    images: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a comparison found; ``folder`` is where it is written.

    ``differences`` are arm A (the first) minus each other arm, for every metric. ``config`` is the first arm's as plain
    values, empty unless every arm was trained; ``config_difference`` holds one value per arm for each key that differs.
    ``other_settings`` (keys) and ``other_starts`` (seeds) are what differs though it should not: the comparison is
    controlled where both are empty. ``missing`` says why a part of the report could not be made, by its name. ``mcnemar`` are
    a classifier's exact tests over the images, a pair and seed each.
    """

    folder: Path
    design: Design
    initial_weights: InitialWeights
    other_settings: tuple[str, ...]
    other_starts: tuple[int, ...]
    seeds: tuple[int, ...]
    images: int | None
    objects: int | None
    resamples: int
    arms: tuple[ArmSummary, ...]
    differences: tuple[PairedDifference, ...]
    class_differences: tuple[PairedDifference, ...]
    best_differences: tuple[PairedDifference, ...]
    runs: tuple[Run, ...]
    speed: tuple[SpeedResult, ...]
    layers: tuple[LayerStatistics, ...]
    tuned: Tuned | None
    config_difference: Mapping[str, tuple[Any, ...]]
    config: Mapping[str, Any]
    missing: Mapping[str, str]
    mcnemar: tuple[McNemar, ...] = ()

    @property
    def controlled(self) -> bool:
        """Whether the arms differ in nothing but their activation, as far as it is known."""
        return not self.other_settings and not self.other_starts

    @property
    def metric(self) -> str:
        """What decides: AP, or a classifier's top-1 accuracy."""
        return find_task(self.runs[0].task).primary

    @property
    def primary(self) -> tuple[PairedDifference, ...]:
        """The deciding metric's difference for every pair of arms."""
        return tuple(d for d in self.differences if d.metric == self.metric)

    @property
    def verdict(self) -> Verdict:
        """What AP says of the first two arms."""
        return self.primary[0].verdict

    @property
    def bare(self) -> bool:
        """Whether some arm is bare detections, of which no training is known."""
        return any(run.config is None for run in self.runs)

    @property
    def mixed_machines(self) -> bool:
        """Whether the runs record different software or devices."""
        return len({tuple(sorted(run.ran_on.items())) for run in self.runs if run.ran_on}) > 1


def differences_in(
    metric: str,
    labels: Sequence[str],
    values: Mapping[str, Sequence[float | None]],
    resampled: Mapping[str, np.ndarray | None],
) -> tuple[PairedDifference, ...]:
    """The first label's values minus each other's, as one family under Holm; none where a value is missing."""
    family = []
    for other in labels[1:]:
        a, b = ([v for v in values[label] if v is not None] for label in (labels[0], other))
        if len(a) < len(values[labels[0]]) or len(b) < len(values[other]):
            return ()
        first, second = resampled[labels[0]], resampled[other]
        drawn = first - second if first is not None and second is not None else None
        family.append(paired_difference(metric, labels[0], other, a, b, resampled=drawn))
    return corrected(family)


def initial_weights_of(runs: Sequence[Run]) -> InitialWeights:
    """What ``runs`` started from together; UNKNOWN where one does not say."""
    if any(run.start.weights is None for run in runs):
        return InitialWeights.UNKNOWN
    if not any(run.start.weights for run in runs):
        return InitialWeights.RANDOM
    return InitialWeights.ONE_FILE if len({run.start.sha256 for run in runs}) == 1 else InitialWeights.OWN


def shown_activations(model: ModelConfig) -> tuple[str, str]:
    """What stands in a network's first part (the backbone) and in the others, several joined by a plus."""
    if model.activation and model.neck_activation and not model.swap:
        return model.activation, model.neck_activation
    network = outline(model)
    first, *others = network.parts
    rest = dict.fromkeys(name for part in others or [first] for name in network.activations(part))
    return "+".join(network.activations(first)), "+".join(rest)


def build_report(
    runs: Sequence[Run],
    design: Design,
    folder: Path,
    *,
    evidence: Evidence | None = None,
    speed: Sequence[SpeedResult] = (),
    layers: Sequence[LayerStatistics] = (),
    tuned: Tuned | None = None,
    missing: Mapping[str, str] | None = None,
) -> Report:
    """The report of measured ``runs``, arm after arm: every arm at every seed, once. The first arm is A.

    ``folder``: where it will be written. ``evidence``: what all runs detected, resampled; without it only the chance of
    seeds is known. ``speed``, ``layers``: measured side by side, where there are networks. ``tuned``: the comparison at
    each arm's best rate. ``missing``: why a part is left out, by its name. ValueError for missing runs.
    """
    seeds = tuple(sorted({run.seed for run in runs}))
    labels = list(dict.fromkeys(run.arm for run in runs))
    table = {(run.arm, run.seed): run for run in runs}
    if len(table) != len(runs) or set(table) != {(arm, seed) for arm in labels for seed in seeds} or len(labels) < 2:
        raise ValueError("a report needs two arms or more, and every arm at every seed exactly once")
    by_arm = {label: [table[label, seed] for seed in seeds] for label in labels}
    names, classes = tuple(runs[0].metrics), evidence.classes if evidence else ()

    def drawn(label: str, metric: str) -> np.ndarray | None:
        if evidence is None:
            return None
        column = evidence.metrics.index(metric)
        return np.stack([evidence.resampled[label, seed][:, column] for seed in seeds])

    def family(metric: str, values: Mapping[str, list[float | None]]) -> tuple[PairedDifference, ...]:
        return differences_in(metric, labels, values, {label: drawn(label, metric) for label in labels})

    def summary(label: str) -> ArmSummary:
        of_arm = by_arm[label]
        shown = shown_activations(of_arm[0].config.model) if of_arm[0].config else ("?", "?")
        levels = {m: _level([r.metrics.get(m) for r in of_arm], drawn(label, m)) for m in names}
        class_levels = {c: _level([r.per_class.get(c) for r in of_arm], drawn(label, c)) for c in classes}
        best_ap = [r.best_ap for r in of_arm if r.best_ap is not None]
        steps = [r.step_ms for r in of_arm if r.step_ms is not None]
        files = dict.fromkeys(r.start.weights for r in of_arm)
        return ArmSummary(
            label=label,
            activation=shown[0],
            neck_activation=shown[1],
            weights=None if None in files else ", ".join(file for file in files if file),
            levels={m: v for m, v in levels.items() if v is not None},
            class_levels={c: v for c, v in class_levels.items() if v is not None},
            best_ap=mean_sd(best_ap)[0] if best_ap else None,
            step_ms=mean_sd(steps)[0] if steps else None,
            peak_memory_bytes=max((r.peak_memory_bytes for r in of_arm if r.peak_memory_bytes is not None), default=None),
        )

    by_class = [d for c in classes for d in family(c, {k: [r.per_class.get(c) for r in v] for k, v in by_arm.items()})]
    configs = [run.config for run in (of_arm[0] for of_arm in by_arm.values()) if run.config is not None]
    complete = len(configs) == len(labels)
    changed = difference_table(configs) if complete else {}
    return Report(
        folder=folder,
        design=design,
        initial_weights=initial_weights_of(runs),
        other_settings=tuple(key for key in changed if key not in ACTIVATION_KEYS),
        other_starts=_other_starts(runs, design),
        seeds=seeds,
        images=evidence.images if evidence else None,
        objects=evidence.objects if evidence else None,
        resamples=len(next(iter(evidence.resampled.values()))) if evidence else 0,
        arms=tuple(summary(label) for label in labels),
        differences=tuple(d for m in names for d in family(m, {k: [r.metrics.get(m) for r in v] for k, v in by_arm.items()})),
        class_differences=_correct_over_classes(by_class, len(labels) - 1),
        best_differences=differences_in(
            f"best {find_task(runs[0].task).primary}",
            labels,
            {k: [r.best_ap for r in v] for k, v in by_arm.items()},
            dict.fromkeys(labels),
        ),
        runs=tuple(runs),
        speed=tuple(speed),
        layers=tuple(layers),
        tuned=tuned,
        config_difference=changed,
        config=to_dict(configs[0]) if complete else {},
        missing=missing or {},
        mcnemar=tuple(
            mcnemar(labels[0], other, seed, evidence.right[labels[0], seed], evidence.right[other, seed])
            for other in labels[1:]
            for seed in seeds
            if evidence and evidence.right
        ),
    )


def _other_starts(runs: Sequence[Run], design: Design) -> tuple[int, ...]:
    """The seeds at which arms are known to start from different kernels though they should not."""
    if design.chosen_starts or design.pairing is not Pairing.BY_SEED:
        return ()
    found: dict[int, set[str]] = {}
    for run in runs:
        if run.start.kernels:
            found.setdefault(run.seed, set()).add(run.start.kernels)
    return tuple(sorted(seed for seed, kernels in found.items() if len(kernels) > 1))


def _level(values: Sequence[float | None], drawn: np.ndarray | None) -> Level | None:
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return None
    mean, sd = mean_sd(known)
    d = paired_difference("", "", "", known, [0.0] * len(known), resampled=drawn)
    return Level(mean=mean, sd=sd, low=max(d.low, 0.0) if d.low is not None else None, high=d.high)


def _correct_over_classes(differences: Sequence[PairedDifference], others: int) -> tuple[PairedDifference, ...]:
    """Class differences with Holm's correction over all classes of each pair, in the order given."""
    done: list[PairedDifference] = list(differences)
    for i in range(others):
        places = list(range(i, len(differences), others))
        for place, d in zip(places, corrected([differences[p] for p in places]), strict=True):
            done[place] = d
    return tuple(done)
