"""What a comparison found: one frozen ``Report`` holds every number and decision; ``render`` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from yolomish.comparison.layers import LayerStatistics
from yolomish.comparison.runs import Run
from yolomish.comparison.speed import SpeedResult
from yolomish.errors import YolomishError
from yolomish.evaluation.mcnemar import McNemar
from yolomish.evaluation.planning import Advice
from yolomish.evaluation.stats import LEVEL, Difference
from yolomish.tasks.registry import find_task


class Pairing(str, Enum):
    """By what a run of one arm is held against a run of another."""

    BY_SEED = "by seed"
    NONE = "not paired"


class InitialWeights(str, Enum):
    """What the arms were trained from, as far as it is recorded."""

    RANDOM = "random"
    ONE_FILE = "one file for all"
    OWN = "own per arm"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How differences are judged: ``margin`` (AP, 0..1; 0: none) for equivalence, ``all_pairs`` instead of each arm against
    the first, by what images are drawn together (``cluster``), the difference ``resolve`` that is planned for, and whether
    an arm's files may lack images that another's have."""

    margin: float = 0.0
    all_pairs: bool = False
    cluster: str = ""
    resolve: float = 0.01
    allow_missing: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise YolomishError(f"--margin must be an AP from 0 to 1, such as 0.005, not {self.margin:g}")
        if not 0 < self.resolve < 1:
            raise YolomishError(f"--resolve must be an AP between 0 and 1, such as 0.01, not {self.resolve:g}")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One time that a growing comparison was looked at: with how many seeds, the level of its tests (0.05 where no other look
    was declared), and the declared end of one that trains until it is decided (0: none)."""

    seeds: int
    level: float = LEVEL
    most_seeds: int = 0


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The peak rate that each arm trains with, and how it was chosen: ``trials`` holds an arm's AP by rate, one for each of
    ``seeds``, on ``held_out`` training images, the ``share`` of them that was held out for it."""

    rates: Mapping[str, float]
    trials: Mapping[str, Mapping[str, tuple[float, ...]]]
    seeds: tuple[int, ...]
    share: float
    held_out: int

    @property
    def at_edge(self) -> tuple[str, ...]:
        """The arms whose rate is the lowest or the highest that was tried: a better one may lie beyond."""
        tried = [f"{rate:g}" for rate in sorted(map(float, next(iter(self.trials.values()))))]
        return tuple(arm for arm, rate in self.rates.items() if f"{rate:g}" in (tried[0], tried[-1]))


@dataclass(frozen=True, kw_only=True)
class Design:
    """How runs were chosen and paired. ``scope`` is where the activation changes, ``environment`` what the report was made
    on, ``command`` what repeats it.

    ``own_seeds``: a repeated activation has seeds of its own (A/A). ``chosen_starts``: what the arms start from was asked
    for, so that different starts are no fault. ``left_out`` are an arm's seeds that another arm lacks. ``trained_on`` says
    what each arm was trained on where that differs. ``looks`` are all so far, this one included; none for finished runs.
    ``tuned``: where every arm has a peak rate of its own, chosen before.
    """

    scope: str = "backbone"
    pairing: Pairing = Pairing.BY_SEED
    own_seeds: bool = False
    chosen_starts: bool = False
    left_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    trained_on: Mapping[str, str] = field(default_factory=dict)
    looks: tuple[Look, ...] = ()
    tuned: Tuned | None = None
    judging: Judging = Judging()
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def level(self) -> float:
        """The error that this look's tests may spend together."""
        return self.looks[-1].level if self.looks else LEVEL


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
    """An arm over its ``trainings``: its activations (empty where not known), the weights that it starts from (empty: random;
    None: not recorded), its metrics. ``best_ap`` is the mean of the best epochs'; costs are None where not recorded.

    ``far`` are the names of trainings far from the others (see ``far_runs``). ``lacking`` is the mean number of images
    with objects on which nothing is detected. ``ranks`` are the places that the comparison of all pairs leaves open,
    from 1; None for two arms and for single trainings.
    """

    label: str
    trainings: int
    activation: str
    neck_activation: str
    weights: str | None
    levels: Mapping[str, Level]
    class_levels: Mapping[str, Level]
    best_ap: float | None
    step_ms: float | None
    peak_memory_bytes: int | None
    far: tuple[str, ...]
    lacking: float | None
    ranks: tuple[int, int] | None

    @property
    def mean(self) -> dict[str, float]:
        """The means by metric."""
        return {name: level.mean for name, level in self.levels.items()}


@dataclass(frozen=True, kw_only=True)
class EightBitArm:
    """An arm in 8 bits: mean AP of its runs in fp32 and in 8 bits, the ``change`` from one to the other, paired run by run, with
    its 95 % interval over seeds and images; milliseconds of one image of the first run's network in both, and how many
    times faster 8 bits are, each as (quartile, median, quartile) over rounds; the bytes of the weights in 8 bits."""

    arm: str
    fp32: float
    int8: float
    change: Difference
    fp32_ms: tuple[float, float, float]
    int8_ms: tuple[float, float, float]
    speedup: tuple[float, float, float]
    int8_bytes: int


@dataclass(frozen=True, kw_only=True)
class EightBits:
    """All arms in 8 bits ``by`` what, ranges of so many training ``images``, timed on ``threads``; ``differences`` are those of
    the arms' changes, pair by pair: better is who loses less."""

    by: str
    images: int
    threads: int
    rounds: int
    arms: tuple[EightBitArm, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a comparison found; ``folder`` is where it is written.

    ``differences`` are arm A (the first) minus each other arm, or those of all pairs, for every metric. ``without_far`` are
    AP's without the trainings far from their arm's others, empty where there are none. ``advice`` is what finds a
    difference of ``judging.resolve`` for each of AP's differences. ``config`` is the first arm's as plain values, empty
    unless every arm was trained; ``config_difference`` holds one value per arm for each key that differs.
    ``other_settings`` (keys), ``other_starts`` (seeds) and ``one_start`` (the file that all arms start from though their
    activations differ) are what should not be: the comparison is controlled where all are empty. ``seeds`` are those that
    arms are paired by. ``notes`` are what was odd in given files. ``missing`` says why a part of the report could not be
    made, by its name. ``eight_bits``: where they were asked for.
    """

    folder: Path
    design: Design
    initial_weights: InitialWeights
    other_settings: tuple[str, ...]
    other_starts: tuple[int, ...]
    one_start: str
    seeds: tuple[int, ...]
    images: int | None
    clusters: int | None
    objects: int | None
    resamples: int
    arms: tuple[ArmSummary, ...]
    differences: tuple[Difference, ...]
    without_far: tuple[Difference, ...]
    class_differences: tuple[Difference, ...]
    best_differences: tuple[Difference, ...]
    advice: tuple[Advice, ...]
    runs: tuple[Run, ...]
    speed: tuple[SpeedResult, ...]
    layers: tuple[LayerStatistics, ...]
    config_difference: Mapping[str, tuple[Any, ...]]
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    missing: Mapping[str, str]
    mcnemar: tuple[McNemar, ...] = ()
    eight_bits: EightBits | None = None

    @property
    def controlled(self) -> bool:
        """Whether the arms differ in nothing but their activation, as far as it is known."""
        return not self.other_settings and not self.other_starts and not self.one_start

    @property
    def primary(self) -> tuple[Difference, ...]:
        """The deciding metric's difference for every pair of arms."""
        return tuple(d for d in self.differences if d.metric == self.metric)

    @property
    def metric(self) -> str:
        """What decides: AP, or a classifier's top-1 accuracy."""
        return find_task(self.runs[0].task).primary

    @property
    def fewest(self) -> int:
        """The number of trainings of the arm that has fewest."""
        return min(arm.trainings for arm in self.arms)

    @property
    def paired(self) -> bool:
        """Whether trainings are held against each other seed by seed."""
        return self.design.pairing is Pairing.BY_SEED

    @property
    def bare(self) -> bool:
        """Whether some arm is bare detections, of which no training is known."""
        return any(run.config is None for run in self.runs)

    @property
    def mixed_machines(self) -> bool:
        """Whether the runs record different software or devices."""
        return len({tuple(sorted(run.ran_on.items())) for run in self.runs if run.ran_on}) > 1
