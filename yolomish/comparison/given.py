"""Finished runs and result files that are to be compared: read, put into arms, refused where they could fool, and paired."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolomish.comparison.arms import ACTIVATION_KEYS, NO_RESULT, difference_table, scope_of, slug_of
from yolomish.comparison.evidence import require_classes, require_objects
from yolomish.comparison.report import Design, Judging, Pairing
from yolomish.comparison.runs import Run, State, initial_kernels, is_run, read_run
from yolomish.config import DataConfig, TrainConfig, config_difference, to_dict
from yolomish.errors import YolomishError
from yolomish.files import digest
from yolomish.networks.registry import outline
from yolomish.networks.scope import split_swap
from yolomish.tasks.registry import find_task


def prepare(
    texts: Sequence[str], out_dir: Path, data: DataConfig | None, judging: Judging, log: Callable[[str], None]
) -> tuple[list[Run], Any, Design]:
    """What ``texts`` name, arm after arm and sound, the truth that it is held against, and how it is paired.

    ``data`` is the truth of files, or in place of the data that runs were trained with. YolomishError, before any
    detection, for what cannot be compared.
    """
    arms = group(read_given(texts))
    require_sound(arms)
    arms = split_repeats(arms)
    firsts = [run.config for run in (of_arm[0] for of_arm in arms.values()) if run.config is not None]
    task, *others = dict.fromkeys(run.task for of_arm in arms.values() for run in of_arm)
    if others:
        raise YolomishError(f"runs that {task} and runs that {others[0]} have no common measure: compare them apart")
    if data is None:
        require_one_truth(arms)
    if not firsts and data is None:
        raise YolomishError("result files need the truth that they are held against: --data my.yaml")
    truth = find_task(task).open(data or firsts[0].data, "val")
    require_objects(truth, task)
    arms, design = pair(arms)
    for label, seeds in design.left_out.items():
        log(f"left out of {label}: seeds {', '.join(map(str, seeds))}, which another arm lacks")
    runs = at_home(arms, out_dir)
    require_classes(runs, truth)
    difference = difference_table(firsts) if len(firsts) == len(arms) else {}
    if other := [key for key in difference if key not in ACTIVATION_KEYS]:
        log(f"NOT CONTROLLED: the arms also differ in {', '.join(other)}")
    moved = trained_on(arms) if any(key.startswith("data.") for key in difference) else {}
    return runs, truth, replace(design, scope=scope_of(difference), trained_on=moved, judging=judging)


def read_given(texts: Sequence[str]) -> list[Run]:
    """Run folders (or a folder of them) and result files, each ``PATH`` or ``NAME=PATH``, the arm being the name or empty.

    YolomishError for what is neither, and for fewer than two.
    """
    found = []
    for text in texts:
        name, _, rest = text.rpartition("=") if "=" in text and not Path(text).exists() else ("", "", text)
        path = Path(rest)
        if path.is_dir():
            folders = [path] if is_run(path) else sorted(p for p in path.iterdir() if p.is_dir() and is_run(p))
            if not folders:
                raise YolomishError(f"{path} is no run folder and holds none: it needs config.yaml and last.pt")
            found += [replace(read_run(folder), arm=name) for folder in folders]
        elif path.is_file() and path.suffix == ".json":
            found.append(Run(arm=name or path.stem, seed=0, path=path, home=path.parent, state=State.DETECTIONS))
        else:
            raise YolomishError(f"{path} is neither a run folder nor a COCO result file (.json)")
    if len(found) < 2:
        raise YolomishError("nothing to compare: name two runs or result files, or --acts to train some")
    return found


def group(given: Sequence[Run]) -> dict[str, list[Run]]:
    """The arms, in the order given: named ones by name, others by their configuration, labelled by activation.

    Configurations that share an activation are told apart by their neck's, or a number.
    """
    arms: dict[str, list[Run]] = {}
    labels: dict[str, str] = {}
    for run in given:
        label = run.arm
        if not label:
            config = run.trained()
            key = json.dumps({k: v for k, v in to_dict(config).items() if k not in NO_RESULT | {"seed"}}, sort_keys=True)
            label = labels.setdefault(key, _label(config, arms))
        arms.setdefault(label, []).append(replace(run, arm=label))
    return arms


def _label(config: TrainConfig, arms: Mapping[str, Sequence[Run]]) -> str:
    """A name for an arm of ``config`` that none of ``arms`` has."""
    model = config.model
    label = split_swap(model.swap[-1])[1] if model.swap else model.activation or outline(model).activation_label()
    if any(a[0].config is not None and a[0].config.model.activation == label for a in arms.values()):
        label = f"{model.activation}/{model.neck_activation}"
    plain, number = label, 1
    while label in arms:
        number += 1
        label = f"{plain} ({number})"
    return label


def require_sound(arms: Mapping[str, Sequence[Run]]) -> None:
    """YolomishError where an arm holds one training twice, by path, content or seed, or trainings of several kinds."""
    for label, runs in arms.items():
        _require_distinct(label, runs, lambda run: str(run.path.resolve()), "the path")
        _require_distinct(label, runs, lambda run: digest(run.path if run.config is None else run.last).sha256, "the content")
        _require_distinct(label, [run for run in runs if run.config], lambda run: f"seed {run.seed}", "the seed")
        first = runs[0]
        for run in runs[1:]:
            if (run.config is None) != (first.config is None):
                raise YolomishError(
                    f"arm {label!r} mixes run folders and result files ({first.path}, {run.path}): give each its own name"
                )
            if run.config is None or first.config is None:
                continue
            other = {k: v for k, v in config_difference(first.config, run.config).items() if k not in NO_RESULT | {"seed"}}
            if other:
                what = ", ".join(f"{key} ({a!r} and {b!r})" for key, (a, b) in other.items())
                raise YolomishError(
                    f"arm {label!r} mixes configurations: {first.path} and {run.path} differ in {what}: give each its own name"
                )


def _require_distinct(label: str, runs: Sequence[Run], mark: Callable[[Run], str], what: str) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        if (other := seen.setdefault(mark(run), run)) is not run:
            raise YolomishError(f"arm {label!r} holds one training twice, by {what}: {other.path} and {run.path}: leave one out")


def require_one_truth(arms: Mapping[str, Sequence[Run]]) -> None:
    """YolomishError, saying which arm was trained on what, where runs were trained on different data."""
    if len(set(trained_on(arms).values())) > 1:
        where = ", ".join(f"{label} on {text}" for label, text in trained_on(arms).items())
        raise YolomishError(
            f"the arms were trained on different data ({where}): name the truth that all are held against with --data"
        )


def trained_on(arms: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """The data that each arm was trained on, in words; arms of bare detections are left out."""
    return {label: _data_text(runs[0].config.data) for label, runs in arms.items() if runs[0].config is not None}


def _data_text(data: DataConfig) -> str:
    plain = {key: value for key, value in to_dict(data).items() if value and key not in ("format", "root")}
    rest = ", ".join(f"{key} {value}" for key, value in plain.items() if key in ("train", "val"))
    return f"{data.format} {data.root or '.'}" + (f" ({rest})" if rest else "")


def split_repeats(arms: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """A single arm of several runs as two halves: an A/A comparison of what is there."""
    if len(arms) != 1:
        return arms
    ((label, runs),) = arms.items()
    half = (len(runs) + 1) // 2
    return {label: runs[:half], f"{label} (2)": [replace(run, arm=f"{label} (2)") for run in runs[half:]]}


def pair(arms: Mapping[str, Sequence[Run]]) -> tuple[dict[str, list[Run]], Design]:
    """Arms and how they are held against each other: by seed where they share at least two, or all that they have, and what
    another arm lacks is left out; else unpaired, with all trainings, numbered from 0."""
    by_seed = {label: {run.seed: run for run in runs if run.config is not None} for label, runs in arms.items()}
    common = sorted(set.intersection(*(set(found) for found in by_seed.values())))
    whole = all(len(by_seed[label]) == len(runs) for label, runs in arms.items())
    if whole and common and (len(common) > 1 or any(len(found) == 1 for found in by_seed.values())):
        rest = {label: tuple(sorted(found.keys() - set(common))) for label, found in by_seed.items()}
        paired = {label: [found[seed] for seed in common] for label, found in by_seed.items()}
        return paired, Design(left_out={label: seeds for label, seeds in rest.items() if seeds})
    numbered = {label: [replace(run, seed=i) for i, run in enumerate(runs)] for label, runs in arms.items()}
    return numbered, Design(pairing=Pairing.NONE)


def at_home(arms: Mapping[str, Sequence[Run]], out_dir: Path) -> list[Run]:
    """The arms' runs, arm after arm, each with a folder in ``out_dir`` for its detections and the kernels it started from."""
    slugs: set[str] = set()
    runs = []
    for label, of_arm in arms.items():
        slug = slug_of(label, slugs)
        for run in of_arm:
            start = run.start
            if run.config is not None and start.weights is not None:
                start = replace(start, kernels=initial_kernels(run.config, start.sha256))
            runs.append(replace(run, home=out_dir / f"{slug}-seed{run.seed}", start=start))
    return runs
