"""Which trainings a comparison needs, in which order, and which of them are done already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolomish.comparison.arms import Arm
from yolomish.comparison.conclude import Entry
from yolomish.comparison.environment import file_hash
from yolomish.comparison.runs import FinishedRun, read_run
from yolomish.comparison.worker import IDENTITY, Job, train_all, train_folder
from yolomish.config import TrainConfig, config_difference, from_dict, to_dict
from yolomish.errors import YolomishError
from yolomish.files import write_json

MAY_CHANGE = frozenset({"device", "workers", "cache"})  # between a run and its resumption
Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training of a comparison: an arm at a seed, its configuration and its folder."""

    arm: Arm
    seed: int
    config: TrainConfig
    folder: Path


def _identity(task: Task, surroundings: Mapping[str, str]) -> dict[str, Any]:
    # What must be equal for a finished run to stand for this one: an activation file can change under an equal name.
    sources = {}
    for name in sorted({task.config.model.activation, task.config.model.neck_activation}):
        path = Path(name.rpartition(":")[0]) if ".py:" in name else None
        if path is not None and path.is_file():
            sources[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    ran_on = {key: surroundings[key].split(" (commit")[0] for key in ("yolomish", "torch", "device")}
    identity: dict[str, Any] = {"config": to_dict(task.config), "activation_sources": sources, "ran_on": ran_on}
    if task.arm.weights:
        identity |= {"weights": task.arm.weights, "weights_sha256": file_hash(task.arm.weights)}
    return identity


def _same_run(folder: Path, identity: dict[str, Any]) -> bool:
    try:
        saved = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
        theirs = from_dict(TrainConfig, saved["config"], IDENTITY)  # settings that came later have their defaults
    except (FileNotFoundError, ValueError, KeyError, TypeError, YolomishError):
        return False
    ours = from_dict(TrainConfig, identity["config"], IDENTITY)
    if config_difference(theirs, ours).keys() - MAY_CHANGE:
        return False
    keys = ("activation_sources", "ran_on", "weights_sha256")
    return bool(all(saved.get(key) == identity.get(key) for key in keys))


def _finished(folder: Path) -> FinishedRun | None:
    try:
        return read_run(folder)
    except YolomishError:
        return None


def train(tasks: Sequence[Task], surroundings: Mapping[str, str], devices: Sequence[str], log: Log) -> None:
    """Train what is not finished: here one after the other, or on several ``devices`` in processes of their own.

    YolomishError where a task's folder holds a run with other settings.
    """
    jobs = []
    for task in tasks:
        identity = _identity(task, surroundings)
        held = (task.folder / "last.pt").exists()
        if held and not _same_run(task.folder, identity):
            raise YolomishError(
                f"{task.folder} holds a run with other settings, activation code, torch or device: "
                "choose another folder for this comparison, or delete that one"
            )
        name = f"{task.arm.label}, seed {task.config.seed}"
        if held and _finished(task.folder):
            log(f"{name}: already trained in {task.folder}")
            continue
        task.folder.mkdir(parents=True, exist_ok=True)
        write_json(task.folder / IDENTITY, identity)
        jobs.append(Job(name=name, folder=task.folder))
    if len(devices) > 1:
        train_all(jobs, devices, log)
        return
    for i, job in enumerate(jobs):
        log(f"[{i + 1}/{len(jobs)}] training {job.name} -> {job.folder}")
        train_folder(job.folder, devices[0] if devices else "", log)


def plan(arms: Sequence[Arm], seeds: Sequence[int], out_dir: Path) -> list[Task]:
    """Every arm at every seed. Each seed's arms come before the next, odd rounds in reverse order, so that a machine that
    slows down does not favour one."""
    tasks = []
    for turn, seed in enumerate(seeds):
        for arm in arms if turn % 2 == 0 else arms[::-1]:
            config = arm.seeded(seed)
            tasks.append(Task(arm=arm, seed=seed, config=config, folder=out_dir / f"{arm.slug}-seed{config.seed}"))
    return tasks


def entries_of(tasks: Sequence[Task], starts: Mapping[tuple[str, int], str]) -> list[Entry]:
    """The finished tasks as the report takes them, arm after arm."""
    done = [
        Entry(arm=t.arm.label, seed=t.seed, home=t.folder, run=read_run(t.folder), start=starts.get((t.arm.label, t.seed), ""))
        for t in tasks
    ]
    order = list(dict.fromkeys(t.arm.label for t in tasks))
    return sorted(done, key=lambda e: (order.index(e.arm), e.seed))
