"""An equal budget of learning rates for every arm: one rate for all silently favours the arm it was tuned on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yolomish.comparison.arms import Arm
from yolomish.comparison.evidence import gather
from yolomish.comparison.findings import differences_in
from yolomish.comparison.report import Design, Tuned
from yolomish.comparison.runs import Run
from yolomish.comparison.train import Log, plan, train
from yolomish.data.kept import ImageData
from yolomish.evaluation.stats import Sample
from yolomish.tasks.registry import find_task


def tune(
    arms: Sequence[Arm],
    runs: Sequence[Run],
    data: ImageData,
    rates: Sequence[float],
    out_dir: Path,
    *,
    design: Design,
    devices: Sequence[str],
    log: Log,
) -> Tuned:
    """Try every rate once per arm, at a seed that the comparison does not use, then train each arm's best at all its seeds.

    ``runs`` are the arms' finished runs at the shared rate, which are taken over where that is an arm's best; ``data`` are
    the images that AP is measured on; ``rates`` the peak rates. New runs go to ``out_dir``, on ``devices`` as in ``train``,
    and are judged as ``design`` says.
    The best rate is that of the last checkpoint's AP.
    """
    device = devices[0] if devices else arms[0].config.device
    seeds = sorted({run.seed for run in runs})
    trial_seed = max(run.trained().seed for run in runs) + 1
    tried = {
        (arm.label, rate): dataclasses.replace(
            arm,
            label=f"{arm.label} at {rate:g}",
            slug=f"{arm.slug}-lr{rate:g}",
            config=dataclasses.replace(arm.config, peak_lr=rate),
            seed_offset=0,
        )
        for arm in arms
        for rate in rates
    }
    _, found = gather(
        train(plan(list(tried.values()), [trial_seed], out_dir), design.environment, devices, log), data, device=device, log=log
    )
    trials: dict[str, dict[str, float]] = {}
    moved: list[Arm] = []
    best: dict[str, float] = {}
    for arm in arms:
        ap = {rate: float(found.values[tried[arm.label, rate].label, trial_seed][0]) for rate in rates}
        trials[arm.label] = {f"{rate:g}": value for rate, value in ap.items()}
        best[arm.label] = max(rates, key=ap.__getitem__)
        log(f"{arm.label}: best peak rate {best[arm.label]:g} of {', '.join(f'{rate:g}' for rate in rates)}")
        if best[arm.label] != arm.config.peak_lr:
            chosen = tried[arm.label, best[arm.label]]
            moved.append(dataclasses.replace(chosen, label=arm.label, seed_offset=arm.seed_offset))
    labels = [arm.label for arm in arms]
    kept = [run for run in runs if run.arm not in {arm.label for arm in moved}]
    more = train(plan(moved, seeds, out_dir), design.environment, devices, log)
    _, evidence = gather([*kept, *more], data, device=device, log=log)
    keys = {label: [(label, seed) for seed in seeds] for label in labels}
    metric = find_task(arms[0].config.task).primary
    samples = {
        label: Sample(
            values=tuple(float(evidence.values[key][0]) for key in keys[label]),
            resampled=np.stack([evidence.resampled[key][:, 0] for key in keys[label]]),
        )
        for label in labels
    }
    differences = differences_in(metric, samples, design, units=evidence.units[metric])
    return Tuned(rates=best, trials=trials, differences=differences, images=evidence.images)
