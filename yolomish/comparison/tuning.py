"""An equal budget of learning rates for every arm: one rate for all silently favours the arm it was tuned on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from yolomish.comparison.arms import Arm
from yolomish.comparison.conclude import Entry, gather
from yolomish.comparison.findings import PRIMARY, Tuned, differences_in
from yolomish.comparison.schedule import Task, entries_of, plan, train
from yolomish.comparison.wording import headline_of
from yolomish.data.datasets import open_data


def tune(
    arms: Sequence[Arm],
    tasks: Sequence[Task],
    entries: Sequence[Entry],
    surroundings: Mapping[str, str],
    out_dir: Path,
    *,
    rates: Sequence[float],
    devices: Sequence[str],
    log: Callable[[str], None],
) -> Tuned:
    """Try every rate once an arm, at a seed that the comparison does not use, then train each arm's best at all its seeds.

    The best is that of the last checkpoint's AP on the validation images. Runs at the shared rate are taken over.
    """
    device = devices[0] if devices else arms[0].config.device
    data = open_data(arms[0].config.data, "val")
    seeds = sorted({task.seed for task in tasks})
    trial_seed = max(task.config.seed for task in tasks) + 1
    trials: dict[str, dict[str, float]] = {}
    best: list[Arm] = []
    tried = {
        (arm.label, rate): dataclasses.replace(
            arm, config=dataclasses.replace(arm.config, peak_lr=rate), slug=f"{arm.slug}-lr{rate:g}", seed_offset=0
        )
        for arm in arms
        for rate in rates
    }
    trial_tasks = plan(list(tried.values()), [trial_seed], out_dir / "lr-grid")
    train(trial_tasks, surroundings, devices, log)
    for arm in arms:
        trials[arm.label] = {}
        for rate in rates:
            task = next(t for t in trial_tasks if t.arm is tried[arm.label, rate])
            _, found = gather(entries_of([task], {}), data, device, lambda _: None)
            trials[arm.label][f"{rate:g}"] = float(found.values[arm.label, trial_seed][0])
        chosen = max(rates, key=lambda rate: trials[arm.label][f"{rate:g}"])
        log(f"{arm.label}: best peak rate {chosen:g} of {', '.join(f'{rate:g}' for rate in rates)}")
        best.append(dataclasses.replace(tried[arm.label, chosen], seed_offset=arm.seed_offset))
    moved = [arm for arm, old in zip(best, arms, strict=True) if arm.config.peak_lr != old.config.peak_lr]
    more = plan(moved, seeds, out_dir / "lr-grid") if moved else []
    train(more, surroundings, devices, log)
    labels = [arm.label for arm in arms]
    kept = [e for e in entries if e.arm not in {arm.label for arm in moved}]
    _, evidence = gather([*kept, *(entries_of(more, {}) if more else [])], data, device, log)
    values: dict[str, list[float | None]] = {
        label: [float(evidence.values[label, seed][0]) for seed in seeds] for label in labels
    }
    drawn: dict[str, np.ndarray | None] = {
        label: np.stack([evidence.resampled[label, seed][:, 0] for seed in seeds]) for label in labels
    }
    differences = differences_in(PRIMARY, labels, values, drawn)
    return Tuned(
        rates={arm.label: arm.config.peak_lr for arm in best},
        trials=trials,
        differences=differences,
        headline=headline_of(differences, len(seeds), evidence.images, (), max(max(t.values()) for t in trials.values())),
    )
