"""A comparison from its options to its report: arms that start equal, trained at every seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from yolomish.activations import build_activation
from yolomish.comparison.arms import Arm, build_arms, difference_table
from yolomish.comparison.conclude import conclude
from yolomish.comparison.environment import environment, file_hash, initial_kernels
from yolomish.comparison.findings import ArmNames, Report
from yolomish.comparison.schedule import Log, Task, entries_of, plan, train
from yolomish.comparison.tuning import tune
from yolomish.config import TrainConfig, check_train, to_dict
from yolomish.data.datasets import open_data
from yolomish.errors import YolomishError


def require_equal_start(tasks: Sequence[Task]) -> dict[tuple[str, int], str]:
    """The hash of what each task starts from; YolomishError where arms of a seed differ though no weights were given."""
    starts = {(t.arm.label, t.seed): initial_kernels(t.config, t.arm.weights) for t in tasks}
    for task in tasks:
        first = next(t for t in tasks if t.seed == task.seed)
        designed = task.arm.seed_offset != first.arm.seed_offset or task.arm.weights != first.arm.weights
        if not designed and starts[task.arm.label, task.seed] != starts[first.arm.label, first.seed]:
            raise YolomishError(
                f"NOT CONTROLLED: {task.arm.label!r} starts from other kernels than {first.arm.label!r} at seed {task.seed}: "
                "an activation must not draw random numbers when it is built"
            )
    return starts


def run_comparison(
    base: TrainConfig,
    acts: Sequence[str],
    seeds: int,
    out_dir: Path,
    *,
    scope: str = "backbone",
    weights: Mapping[str, str] | None = None,
    other_seeds: bool = False,
    devices: Sequence[str] = (),
    lr_grid: Sequence[float] = (),
    command: str = "",
    log: Log = print,
) -> Report:
    """Train every arm at seeds ``base.seed`` … ``base.seed + seeds - 1`` and write the report; gives its numbers.

    The number of classes is the data's. A run in ``out_dir`` with the same configuration, weights, activation file, torch
    and device is kept if finished and resumed if not. ``weights`` gives an activation the file it starts from;
    ``other_seeds`` lets a repeated activation train at seeds of its own (A/A); several ``devices`` train at once;
    ``lr_grid`` adds a comparison in which each arm has the best of these peak rates. YolomishError for what can be
    refused before training, and for a folder that holds a run with other settings.
    """
    if seeds < 1:
        raise YolomishError(f"seeds must be at least 1, not {seeds}")
    for act in acts:
        build_activation(act)
    names = open_data(base.data, "train").names
    base = dataclasses.replace(base, model=dataclasses.replace(base.model, num_classes=len(names)))
    check_train(base)
    arms = build_arms(base, acts, scope=scope, weights=weights, seed_step=seeds if other_seeds else 0)
    tasks = plan(arms, range(base.seed, base.seed + seeds), out_dir)
    starts = require_equal_start(tasks)
    surroundings = environment(devices[0] if devices else base.device)
    train(tasks, surroundings, devices, log)
    entries = entries_of(tasks, starts)
    tuned = tune(arms, tasks, entries, surroundings, out_dir, rates=lr_grid, devices=devices, log=log) if lr_grid else None
    if len(devices) > 1:
        surroundings = {**surroundings, "trained on": ", ".join(devices) + " at once: step times include what they share"}
    return conclude(
        entries,
        tuple(names_of(arm) for arm in arms),
        open_data(base.data, "val"),
        out_dir,
        scope=scope,
        config=to_dict(arms[0].config),
        config_difference=difference_table([arm.config for arm in arms]),
        environment=surroundings,
        command=command or f"yolomish compare --acts {','.join(acts)} --seeds {seeds} --scope {scope}",
        declared=_declared(arms),
        equal_start=not _declared(arms),
        tuned=tuned,
        device=devices[0] if devices else base.device,
        log=log,
    )


def names_of(arm: Arm) -> ArmNames:
    """The arm as a report names it."""
    model = arm.config.model
    weights = f"{arm.weights} ({file_hash(arm.weights)[:12]})" if arm.weights else ""
    return ArmNames(label=arm.label, activation=model.activation, neck_activation=model.neck_activation, weights=weights)


def _declared(arms: Sequence[Arm]) -> tuple[str, ...]:
    lines = []
    if any(arm.seed_offset for arm in arms):
        lines.append("A/A: the arms are one activation at different seeds, so any difference is chance.")
    files = {arm.weights for arm in arms}
    if len(files) > 1:
        listed = ", ".join(f"{arm.label} from {arm.weights or 'random weights'}" for arm in arms)
        lines.append(f"The arms start from weights of their own: {listed}.")
    elif files != {""}:
        lines.append(
            f"All arms start from {arms[0].weights}: the activation that it was trained with has an advantage over the others."
        )
    return tuple(lines)
