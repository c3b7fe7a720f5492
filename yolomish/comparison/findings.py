"""From measured runs to a report: levels, differences, runs that lie far, what was not controlled, and what to do next."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from yolomish.comparison.arms import ACTIVATION_KEYS, difference_table
from yolomish.comparison.evidence import Evidence
from yolomish.comparison.layers import LayerStatistics
from yolomish.comparison.report import ArmSummary, Design, EightBits, InitialWeights, Level, Pairing, Report
from yolomish.comparison.runs import Run
from yolomish.comparison.speed import SpeedResult
from yolomish.config import ModelConfig, to_dict
from yolomish.evaluation.mcnemar import McNemar, mcnemar
from yolomish.evaluation.planning import advise
from yolomish.evaluation.seed_tests import far_runs, mean_sd
from yolomish.evaluation.stats import FEWEST_IMAGES, Difference, Sample, Verdict, difference, family, judged, without_interval
from yolomish.networks.registry import outline
from yolomish.tasks.registry import find_task

CHANGE = "change of AP by 8 bits"
WHOLE = ("AP", "AP50", "AP75", "top1", "top5", CHANGE)  # of all objects: the rest are parts, which few images may hold


def pairs_of(labels: Sequence[str], all_pairs: bool) -> list[tuple[str, str]]:
    """Each label after the first held against it, or all against all."""
    return list(itertools.combinations(labels, 2)) if all_pairs else [(labels[0], other) for other in labels[1:]]


def differences_in(
    metric: str,
    samples: Mapping[str, Sample],
    design: Design,
    *,
    units: int | None = None,
    all_pairs: bool | None = None,
    margin: float = 0.0,
) -> tuple[Difference, ...]:
    """One metric's differences as a family, judged as ``design`` says, for equivalence within ``margin``; without intervals where
    fewer than ten ``units`` hold what a part of AP is of, and none where some arm has no value."""
    if not all(sample.values for sample in samples.values()):
        return ()
    pairs = pairs_of(list(samples), design.judging.all_pairs if all_pairs is None else all_pairs)
    paired = design.pairing is Pairing.BY_SEED
    found = family(metric, samples, pairs, paired=paired, units=units, level=design.level, margin=margin)
    few = units is not None and units < FEWEST_IMAGES and metric not in WHOLE
    return tuple(map(without_interval, found)) if few else found


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


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """The runs by arm and what they detected."""

    arms: Mapping[str, Sequence[Run]]
    evidence: Evidence | None
    design: Design

    @property
    def primary(self) -> str:
        """What decides."""
        return find_task(next(iter(self.arms.values()))[0].task).primary

    def sample(self, label: str, metric: str) -> Sample:
        """An arm's values, none where one is missing."""
        runs, evidence = self.arms[label], self.evidence
        of_class = evidence is not None and metric in evidence.classes
        values = [(run.per_class if of_class else run.metrics).get(metric) for run in runs]
        known = tuple(v for v in values if v is not None)
        if len(known) < len(values):
            return Sample(values=())
        if evidence is None:
            return Sample(values=known)
        return evidence.sample(metric, [(label, run.seed) for run in runs])

    def judge(self, metric: str, *, all_pairs: bool | None = None) -> tuple[Difference, ...]:
        """A metric's differences."""
        units = self.evidence.units.get(metric) if self.evidence else None
        samples = {label: self.sample(label, metric) for label in self.arms}
        margin = self.design.judging.margin if metric == self.primary else 0.0
        return differences_in(metric, samples, self.design, units=units, all_pairs=all_pairs, margin=margin)

    def far(self, label: str) -> tuple[int, ...]:
        """The places of an arm's runs far from its others."""
        return far_runs(self.sample(label, self.primary).values)

    def without_far(self) -> _Measured:
        """The same without runs far from their arm's others; where arms are paired, without those seeds in any arm."""
        gone = {label: {self.arms[label][i].seed for i in self.far(label)} for label in self.arms}
        if self.design.pairing is Pairing.BY_SEED:
            gone = dict.fromkeys(gone, set().union(*gone.values()))
        kept = {label: [run for run in runs if run.seed not in gone[label]] for label, runs in self.arms.items()}
        return replace(self, arms=kept)

    def identical(self, a: str, b: str) -> bool:
        """Whether two arms detected the same, run by run where they are paired."""
        if self.evidence is None:
            return False
        first, second = ([self.evidence.prints[label, run.seed] for run in self.arms[label]] for label in (a, b))
        return first == second if self.design.pairing is Pairing.BY_SEED else sorted(first) == sorted(second)

    def level(self, label: str, metric: str) -> Level | None:
        """A metric of an arm with its interval, at 95 % alone."""
        sample = self.sample(label, metric)
        if not sample.values:
            return None
        units = self.evidence.units.get(metric) if self.evidence else None
        mean, sd = mean_sd(sample.values)
        nothing = Sample(
            values=(0.0,) * len(sample.values),
            resampled=np.zeros_like(sample.resampled) if sample.resampled is not None else None,
        )
        d = difference("", "", "", sample, nothing, units=units)
        few = units is not None and units < FEWEST_IMAGES and metric not in WHOLE
        known = d.low is not None and d.high is not None and not few
        return Level(mean=mean, sd=sd, low=max(d.low or 0.0, 0.0) if known else None, high=d.high if known else None)

    def ranks(self) -> dict[str, tuple[int, int]]:
        """The best and worst place of each of several arms that the comparison of all pairs leaves open."""
        found = self.judge(self.primary, all_pairs=True) if len(self.arms) > 2 else ()
        if not found or any(min(d.counts) < 2 for d in found):
            return {}
        beats = {(d.a, d.b) for d in found if d.verdict is Verdict.A_BETTER}
        beats |= {(d.b, d.a) for d in found if d.verdict is Verdict.B_BETTER}
        labels = list(self.arms)
        return {
            label: (
                1 + sum((other, label) in beats for other in labels),
                len(labels) - sum((label, other) in beats for other in labels),
            )
            for label in labels
        }


def build_report(
    runs: Sequence[Run],
    design: Design,
    folder: Path,
    *,
    evidence: Evidence | None = None,
    speed: Sequence[SpeedResult] = (),
    layers: Sequence[LayerStatistics] = (),
    missing: Mapping[str, str] | None = None,
    eight_bits: EightBits | None = None,
) -> Report:
    """The report of measured ``runs``, arm after arm; where they are paired, every arm at every seed once. The first arm is A.

    ``folder``: where it will be written. ``evidence``: what all runs detected, resampled; without it only the chance of
    seeds is known. ``speed``, ``layers``, ``eight_bits``: measured side by side, where there are networks.
    ``missing``: why a part is left out, by its name. ValueError for missing runs.
    """
    labels = list(dict.fromkeys(run.arm for run in runs))
    arms = {label: sorted((run for run in runs if run.arm == label), key=lambda run: run.seed) for label in labels}
    _require_complete(arms, design)
    measured = _Measured(arms=arms, evidence=evidence, design=design)
    names, classes = tuple(runs[0].metrics), evidence.classes if evidence else ()
    primary = measured.judge(measured.primary)
    without: tuple[Difference, ...] = ()
    if any(measured.far(label) for label in arms):
        without = measured.without_far().judge(measured.primary)
        primary = tuple(_agreed(d, other) for d, other in zip(primary, without or primary, strict=True))
    found = [d for metric in names for d in (primary if metric == measured.primary else measured.judge(metric))]
    same = {(d.a, d.b) for d in primary if measured.identical(d.a, d.b)}
    differences = tuple(replace(without_interval(d), verdict=Verdict.IDENTICAL) if (d.a, d.b) in same else d for d in found)
    configs = [run.config for run in (of_arm[0] for of_arm in arms.values()) if run.config is not None]
    complete = len(configs) == len(labels)
    changed = difference_table(configs) if complete else {}
    starts, ranks = initial_weights_of(runs), measured.ranks()
    best = {label: [run.best_ap for run in of_arm] for label, of_arm in arms.items()}
    chosen = {label: Sample(values=tuple(v for v in values if v is not None)) for label, values in best.items()}
    return Report(
        folder=folder,
        design=design,
        initial_weights=starts,
        other_settings=tuple(key for key in changed if key not in ACTIVATION_KEYS and not (design.tuned and key == "peak_lr")),
        other_starts=_other_starts(runs, design),
        one_start=runs[0].start.weights or "" if starts is InitialWeights.ONE_FILE and (changed or not complete) else "",
        seeds=tuple(run.seed for run in arms[labels[0]]) if design.pairing is Pairing.BY_SEED else (),
        images=evidence.images if evidence else None,
        clusters=evidence.clusters if evidence else None,
        objects=evidence.objects if evidence else None,
        resamples=len(next(iter(evidence.resampled.values()))) if evidence else 0,
        arms=tuple(_summary(measured, label, names, classes, ranks.get(label)) for label in labels),
        differences=differences,
        without_far=without,
        class_differences=_over_classes([d for name in classes for d in measured.judge(name)], design),
        best_differences=()
        if any(None in values for values in best.values())
        else differences_in(f"best {measured.primary}", chosen, design),
        advice=tuple(a for d in primary if (d.a, d.b) not in same and (a := advise(d, design.judging.resolve))),
        runs=tuple(runs),
        speed=tuple(speed),
        layers=tuple(layers),
        config_difference=changed,
        config=to_dict(configs[0]) if complete else {},
        notes=evidence.notes if evidence else (),
        missing=missing or {},
        mcnemar=_exact(measured),
        eight_bits=eight_bits,
    )


def _exact(measured: _Measured) -> tuple[McNemar, ...]:
    """McNemar's exact test of each pair of classifiers, run by run where they are paired; none of detectors."""
    evidence, arms = measured.evidence, measured.arms
    if evidence is None or not evidence.right or measured.design.pairing is not Pairing.BY_SEED:
        return ()
    pairs = pairs_of(list(arms), measured.design.judging.all_pairs)
    runs = [(a, b, run.seed) for a, b in pairs for run in arms[a]]
    return tuple(mcnemar(a, b, seed, evidence.right[a, seed], evidence.right[b, seed]) for a, b, seed in runs)


def _require_complete(arms: Mapping[str, Sequence[Run]], design: Design) -> None:
    seeds = [[run.seed for run in of_arm] for of_arm in arms.values()]
    unequal = design.pairing is Pairing.BY_SEED and any(other != seeds[0] for other in seeds)
    if len(arms) < 2 or unequal or any(len(set(of_arm)) < len(of_arm) for of_arm in seeds):
        raise ValueError("a report needs two arms or more, and every arm at every seed exactly once")


def _agreed(d: Difference, without: Difference) -> Difference:
    """A difference whose verdict stands only where it is the same without runs far from their arm's others."""
    decided = (Verdict.A_BETTER, Verdict.B_BETTER)
    changed = d.verdict is not without.verdict and (d.verdict in decided or without.verdict in decided)
    return replace(d, verdict=Verdict.FAR_RUNS) if changed else d


def _summary(
    measured: _Measured, label: str, names: Sequence[str], classes: Sequence[str], ranks: tuple[int, int] | None
) -> ArmSummary:
    runs, evidence = measured.arms[label], measured.evidence
    activations = shown_activations(runs[0].config.model) if runs[0].config else ("", "")
    best_ap = [r.best_ap for r in runs if r.best_ap is not None]
    steps = [r.step_ms for r in runs if r.step_ms is not None]
    files = dict.fromkeys(r.start.weights for r in runs)
    return ArmSummary(
        label=label,
        trainings=len(runs),
        activation=activations[0],
        neck_activation=activations[1],
        weights=None if None in files else ", ".join(file for file in files if file),
        levels={m: v for m in names if (v := measured.level(label, m)) is not None},
        class_levels={c: v for c in classes if (v := measured.level(label, c)) is not None},
        best_ap=mean_sd(best_ap)[0] if best_ap else None,
        step_ms=mean_sd(steps)[0] if steps else None,
        peak_memory_bytes=max((r.peak_memory_bytes for r in runs if r.peak_memory_bytes is not None), default=None),
        far=tuple(runs[i].name for i in measured.far(label)),
        lacking=mean_sd([evidence.lacking[label, r.seed] for r in runs])[0] if evidence else None,
        ranks=ranks,
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


def _over_classes(differences: Sequence[Difference], design: Design) -> tuple[Difference, ...]:
    """Class differences as one family: all classes of all pairs that have an interval."""
    tested = sum(d.p is not None for d in differences)
    return tuple(judged(d, level=design.level, pairs=tested) if d.p is not None else d for d in differences)
