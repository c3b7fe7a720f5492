"""An equal budget of learning rates for every arm: one rate for all silently favours the arm it was tuned on.

Rates are chosen on training images that are held out for it, at seeds of their own, never on what judges.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from yolomish.comparison.arms import Arm
from yolomish.comparison.evidence import require_objects
from yolomish.comparison.report import Tuned
from yolomish.comparison.train import Log, Trainer, plan, train
from yolomish.errors import YolomishError
from yolomish.tasks.registry import find_task

HELD_OUT = 0.2  # of the training images


def choose_rates(
    arms: Sequence[Arm],
    rates: Sequence[float],
    seeds: Sequence[int],
    out_dir: Path,
    environment: Mapping[str, str],
    trainer: Trainer,
    log: Log,
) -> tuple[tuple[Arm, ...], Tuned]:
    """The arms, each at the peak rate of ``rates`` with the highest mean AP, and how it was chosen.

    Every arm trains every rate at every one of ``seeds``, which the comparison must not use, on all training images but
    HELD_OUT of them, and its AP is the last epoch's on those. These runs go to ``out_dir``; ``environment`` and ``trainer``
    are as in ``train``. YolomishError where the images held out hold no objects.
    """
    task, data = find_task(arms[0].config.task), replace(arms[0].config.data, held_out=HELD_OUT)
    held_out = task.open(data, "val")
    require_objects(held_out, arms[0].config.task)
    log(f"choosing peak rates on {len(held_out)} training images held out, {len(rates)} rates x {len(seeds)} seeds for each arm")
    tried = {
        f"{arm.label} at {rate:g}": replace(
            arm,
            label=f"{arm.label} at {rate:g}",
            slug=f"{arm.slug}-lr{rate:g}",
            config=replace(arm.config, peak_lr=rate, data=data),
            seed_offset=0,
        )
        for arm in arms
        for rate in rates
    }
    runs = train(plan(list(tried.values()), seeds, out_dir), environment, trainer, log)
    found: dict[str, list[float]] = {label: [] for label in tried}
    for run in runs:
        ap = run.epochs[-1].ap
        if ap is None:
            raise YolomishError(f"{run.path} holds no {task.primary} of its last epoch: delete it, and it trains anew")
        found[run.arm].append(ap)
    trials = {arm.label: {rate: tuple(found[f"{arm.label} at {rate:g}"]) for rate in rates} for arm in arms}
    best = {label: max(rates, key=lambda rate: statistics.fmean(aps[rate])) for label, aps in trials.items()}
    for label, rate in best.items():
        log(f"{label}: peak rate {rate:g} of {', '.join(f'{other:g}' for other in rates)}")
    chosen = tuple(replace(arm, config=replace(arm.config, peak_lr=best[arm.label])) for arm in arms)
    tuned = Tuned(
        rates=best,
        trials={label: {f"{rate:g}": aps[rate] for rate in rates} for label, aps in trials.items()},
        seeds=tuple(seeds),
        share=HELD_OUT,
        held_out=len(held_out),
    )
    return chosen, tuned
