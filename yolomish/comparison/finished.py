"""Compares what is trained already: run folders of this package, or bare COCO result files of any tool."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolomish.comparison.arms import ACTIVATION_KEYS, HARMLESS, difference_table, slug_of
from yolomish.comparison.conclude import Entry, conclude
from yolomish.comparison.environment import environment, initial_kernels
from yolomish.comparison.evidence import read_results
from yolomish.comparison.findings import ArmNames, Report
from yolomish.comparison.runs import FinishedRun, is_run, read_run
from yolomish.comparison.worker import IDENTITY
from yolomish.config import DataConfig, TrainConfig, to_dict
from yolomish.data.datasets import DetectionData, open_data
from yolomish.errors import YolomishError

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Given:
    """One thing to compare, as named on the command line: ``NAME=PATH`` or a path."""

    name: str
    path: Path
    run: FinishedRun | None = None
    results: list[dict] | None = None


def read_given(texts: Sequence[str]) -> list[Given]:
    """Run folders (or a folder of them) and result files; YolomishError for what is neither."""
    found = []
    for text in texts:
        name, _, rest = text.rpartition("=") if "=" in text and not Path(text).exists() else ("", "", text)
        path = Path(rest)
        if path.is_dir():
            folders = [path] if is_run(path) else sorted(p for p in path.iterdir() if p.is_dir() and is_run(p))
            if not folders:
                raise YolomishError(f"{path} is no run folder and holds none: it needs config.yaml and last.pt")
            found += [Given(name=name, path=folder, run=read_run(folder)) for folder in folders]
        elif path.is_file() and path.suffix == ".json":
            found.append(Given(name=name or path.stem, path=path, results=read_results(path)))
        else:
            raise YolomishError(f"{path} is neither a run folder nor a COCO result file (.json)")
    if len(found) < 2:
        raise YolomishError("nothing to compare: give two runs or result files, or --acts to train some")
    return found


def _arm_key(config: TrainConfig) -> str:
    plain = {k: v for k, v in to_dict(config).items() if k not in HARMLESS}
    return json.dumps(plain, sort_keys=True)


def group(given: Sequence[Given]) -> dict[str, list[Given]]:
    """The arms, in the order given: named ones by name, runs by their configuration, labelled by activation.

    Configurations that share an activation are told apart by the setting in which they differ, or a number.
    """
    arms: dict[str, list[Given]] = {}
    keys: dict[str, str] = {}
    for item in given:
        if item.run is None or item.name:
            arms.setdefault(item.name, []).append(item)
            continue
        key = _arm_key(item.run.config)
        if key not in keys:
            model = item.run.config.model
            label = model.activation
            others = [a[0].run.config.model for a in arms.values() if a[0].run is not None]
            if any(other.activation == label for other in others):
                label = f"{model.activation}/{model.neck_activation}"
            plain, number = label, 1
            while label in arms:
                number += 1
                label = f"{plain} ({number})"
            keys[key] = label
        arms.setdefault(keys[key], []).append(item)
    return arms


def split_repeats(arms: dict[str, list[Given]]) -> dict[str, list[Given]]:
    """A single arm of runs at several seeds as two halves: an A/A comparison of what is there."""
    if len(arms) != 1:
        return arms
    ((label, items),) = arms.items()
    half = len(items) // 2
    return {label: items[:half], f"{label} (2)": items[half : 2 * half]}


def compare_finished(
    texts: Sequence[str],
    out_dir: Path,
    *,
    data: DataConfig | None = None,
    command: str = "",
    device: str = "auto",
    log: Log = print,
) -> Report:
    """Compare run folders or COCO result files; nothing is trained and nothing is written outside ``out_dir``.

    Runs of one configuration but for the seed are an arm, and arms are paired by seed; seeds that an arm lacks are left
    out and said. Files are paired in the order given. ``data`` is the truth of files, or replaces the runs' own.
    """
    given = read_given(texts)
    arms = split_repeats(group(given))
    if len(arms) < 2:
        raise YolomishError(f"all that was given is one arm ({next(iter(arms))}): name arms as NAME=PATH to tell them apart")
    configs = [item.run.config for items in arms.values() for item in items if item.run is not None]
    if data is None and not configs:
        raise YolomishError("result files need the truth that they are held against: --data my.yaml")
    truth = open_data(data or configs[0].data, "val")
    seeds, declared = _pair(arms, log)
    entries: list[Entry] = []
    slugs: set[str] = set()
    for label, items in arms.items():
        slug = slug_of(label, slugs)
        for seed, item in zip(seeds, items, strict=True):
            _require_known(item, truth)
            start = ""
            if item.run is not None:
                config = dataclasses.replace(
                    item.run.config, model=dataclasses.replace(item.run.config.model, num_classes=len(truth.names))
                )
                start = _recorded_weights(item.path) or initial_kernels(config)
            home = out_dir / f"{slug}-seed{seed}"
            entries.append(
                Entry(arm=label, seed=seed, home=home, run=item.run, results=item.results, start=start, source=str(item.path))
            )
    runs = {label: items[0].run for label, items in arms.items()}
    complete = [run.config for run in runs.values() if run is not None]
    difference = difference_table(complete) if len(complete) == len(arms) else {}
    if len(complete) < len(arms):
        declared.append("Some arms are bare detections: whether anything but the activation differs between them is not known.")
    elif other := [key for key in difference if key not in ACTIVATION_KEYS]:
        log(f"NOT CONTROLLED: the arms also differ in {', '.join(other)}")
    if len({_ran_on(run) for run in runs.values() if run is not None}) > 1:
        declared.append("The runs were made with different devices or versions: their training times are not comparable.")
    if complete:
        declared.append("Run folders do not say which weights they started from: random initial weights are assumed.")
    paired = not any("paired in the order given" in line for line in declared)
    return conclude(
        entries,
        tuple(_names(label, run) for label, run in runs.items()),
        truth,
        out_dir,
        scope=_scope(difference),
        config=to_dict(complete[0]) if len(complete) == len(arms) else {},
        config_difference=difference,
        environment=environment(device),
        command=command or "yolomish compare " + " ".join(texts),
        declared=tuple(declared),
        equal_start=paired and len(complete) == len(arms),
        device=device,
        log=log,
    )


def _pair(arms: dict[str, list[Given]], log: Log) -> tuple[list[int], list[str]]:
    """The seeds of all arms, and ``arms`` cut to them in that order; and what to declare of it."""
    declared: list[str] = []
    by_seed = {label: {i.run.config.seed: i for i in items if i.run is not None} for label, items in arms.items()}
    if all(len(by_seed[label]) == len(items) for label, items in arms.items()):
        common = sorted(set.intersection(*(set(found) for found in by_seed.values())))
        if common:
            for label, found in by_seed.items():
                if left := sorted(found.keys() - set(common)):
                    declared.append(f"Left out of {label}: seeds {', '.join(map(str, left))}, which another arm lacks.")
                    log(declared[-1])
                arms[label] = [found[seed] for seed in common]
            return common, declared
    count = min(len(items) for items in arms.values())
    if any(len(items) > count for items in arms.values()):
        declared.append(f"Only the first {count} of each arm are compared: another arm has no more.")
        log(declared[-1])
    for label, items in arms.items():
        arms[label] = items[:count]
    declared.append("The arms share no seeds: they are paired in the order given.")
    return list(range(count)), declared


def _require_known(item: Given, truth: DetectionData) -> None:
    if item.results and not {r["category_id"] for r in item.results} & set(truth.category_ids):
        raise YolomishError(f"{item.path}: none of its category ids are those of {truth.source}: are they of another data set?")


def _recorded_weights(folder: Path) -> str:
    try:
        return str(json.loads((folder / IDENTITY).read_text(encoding="utf-8")).get("weights_sha256", ""))
    except (OSError, ValueError):
        return ""


def _ran_on(run: FinishedRun) -> str:
    try:
        return json.dumps(json.loads((run.folder / IDENTITY).read_text(encoding="utf-8"))["ran_on"])
    except (OSError, ValueError, KeyError):
        return ""


def _scope(difference: dict[str, tuple[Any, ...]]) -> str:
    changed = ACTIVATION_KEYS & difference.keys()
    return "all" if len(changed) == 2 else "neck" if changed == {"model.neck_activation"} else "backbone"


def _names(label: str, run: FinishedRun | None) -> ArmNames:
    if run is None:
        return ArmNames(label=label, activation="?", neck_activation="?")
    return ArmNames(label=label, activation=run.config.model.activation, neck_activation=run.config.model.neck_activation)
