"""What a comparison will take before it is trained: seeds, images and hours, from finished runs or from given spreads."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolomish.comparison.compare import measure
from yolomish.comparison.findings import build_report, pairs_of
from yolomish.comparison.given import prepare
from yolomish.comparison.report import Judging
from yolomish.config import DataConfig
from yolomish.errors import YolomishError
from yolomish.evaluation.planning import Range, Spreads, findable, image_range, seed_range, spreads_of
from yolomish.evaluation.stats import LEVEL

SEEDS = (2, 3, 4, 5, 7, 10, 15, 20)
SURE = 0.8


@dataclass(frozen=True, kw_only=True)
class Row:
    """So many seeds per arm find a true difference of ``finds`` with chance 0.8, of ``finds_surely`` where the spreads are at
    their upper limit; all arms together train ``hours`` (None: not known)."""

    seeds: int
    finds: float
    finds_surely: float
    hours: float | None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A plan for finding a true difference of ``target``: the ``seeds`` per arm that it takes, and how many times the images
    at the ``most`` seeds of ``rows``. ``basis`` says where ``spreads`` come from; ``images`` is how many images these are of
    (None: not known)."""

    basis: str
    target: float
    arms: int
    confidence: float
    spreads: Spreads
    images: int | None
    hours_each: float | None
    rows: tuple[Row, ...]
    seeds: Range
    more_images: Range

    @property
    def most(self) -> int:
        """The most seeds of the table."""
        return self.rows[-1].seeds


def _budget(basis: str, arms: int, judging: Judging, spreads: Spreads, hours: float | None, images: int | None) -> Budget:
    if not 0 <= (hours or 0) < math.inf:
        raise YolomishError(f"--hours must be a number from 0 on, not {hours}")
    confidence = 1 - LEVEL / len(pairs_of(list(map(str, range(arms))), judging.all_pairs))
    upper = spreads.moved(SURE)
    rows = tuple(
        Row(
            seeds=n,
            finds=findable(spreads, n, confidence=confidence),
            finds_surely=findable(upper, n, confidence=confidence),
            hours=n * arms * hours if hours else None,
        )
        for n in SEEDS
    )
    return Budget(
        basis=basis,
        target=judging.resolve,
        arms=arms,
        confidence=confidence,
        spreads=spreads,
        images=images,
        hours_each=hours,
        rows=rows,
        seeds=seed_range(judging.resolve, spreads, confidence=confidence),
        more_images=image_range(judging.resolve, spreads, SEEDS[-1], confidence=confidence),
    )


def plan_from_spreads(arms: int, judging: Judging, *, spread: float, image_error: float = 0.0, hours: float = 0.0) -> Budget:
    """A plan for ``arms`` from the deviation of one seed's AP difference and the images' standard error of it, 0..1, and the
    ``hours`` of one training (0: not known). YolomishError without a spread, or beyond these."""
    if not 0 < spread <= 1 or not 0 <= image_error <= 1:
        raise YolomishError(
            "--plan needs what seeds differ by: finished runs (yolomish compare RUN... --plan), or --spread 0.006, the deviation "
            "of one seed's AP difference, with --image-error, both from 0 to 1"
        )
    spreads = Spreads(seed_sd=spread, image_error=image_error)
    return _budget("spreads as given, taken as known", arms, judging, spreads, hours or None, None)


def plan_from_runs(
    texts: Sequence[str],
    out_dir: Path,
    judging: Judging,
    *,
    data: DataConfig | None = None,
    hours: float = 0.0,
    device: str = "auto",
    log: Callable[[str], None] = print,
) -> Budget:
    """A plan from finished runs (a pilot): the widest spread of its pairs of arms, and the hours that they took, unless given.

    Detections are kept in ``out_dir``. YolomishError where an arm has a single training, which shows no spread.
    """
    runs, truth, design = prepare(texts, out_dir, data, judging, log)
    measured, _, evidence = measure(runs, truth, design, device, log)
    report = build_report(measured, design, out_dir, evidence=evidence)
    found = [spreads for d in report.primary if (spreads := spreads_of(d))]
    if not found:
        raise YolomishError("a plan needs two trainings of each arm at least: from one, no spread of seeds can be seen")
    widest = max(found, key=lambda spreads: spreads.seed_sd)
    took = [run.seconds / 3600 for run in measured if run.seconds]
    basis = f"{len(measured)} finished trainings of {len(report.arms)} arms"
    return _budget(basis, len(report.arms), judging, widest, hours or (statistics.fmean(took) if took else None), report.images)
