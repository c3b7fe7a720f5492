"""A comparison from what it is asked for to its written report: activations trained from one configuration, or finished runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolomish.activations import build_activation
from yolomish.comparison.arms import ACTIVATION_KEYS, NO_RESULT, build_arms, difference_table, scope_of, slug_of
from yolomish.comparison.environment import environment
from yolomish.comparison.evidence import gather, require_classes, require_objects
from yolomish.comparison.layers import all_layers, shared_batch
from yolomish.comparison.rates import tune
from yolomish.comparison.render import headline, left_out, write_report
from yolomish.comparison.render.gallery import disagreements
from yolomish.comparison.report import Design, Pairing, Report, Tuned, build_report
from yolomish.comparison.runs import Run, State, initial_kernels, is_run, read_run
from yolomish.comparison.speed import measure_speed
from yolomish.comparison.train import plan, train
from yolomish.config import DataConfig, TrainConfig, check_train, to_dict
from yolomish.errors import YolomishError
from yolomish.networks.registry import outline
from yolomish.networks.scope import split_swap
from yolomish.tasks.registry import find_task
from yolomish.types import Batch

Log = Callable[[str], None]


def compare_activations(
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
    """Train every arm at seeds ``base.seed`` … ``base.seed + seeds - 1``, write the report and return it.

    A run in ``out_dir`` with the same configuration, weights, activation file, torch and device is kept if finished and
    resumed if not. YolomishError for what can be refused before training, and for a folder that holds another run.

    base: the configuration of all arms; its activations are replaced and its number of classes is the data's
    acts: two or more activations, the first of which is held against the others
    seeds: trainings per arm
    out_dir: holds the runs and report.html, report.md, report.tex and report.json
    scope: where the activation changes: ``backbone``, ``neck`` (with the heads), ``all``, or what ``find_slots`` takes
    weights: the file that each activation starts from; None: random weights
    other_seeds: whether a repeated activation trains at seeds of its own (A/A)
    devices: several train at once, one run per device; empty: one after the other on ``base.device``
    lr_grid: peak rates to try for each arm, for a second comparison at each arm's best
    command: what the report says reproduces it; empty: the equal command line
    log: takes a line of progress
    """
    if seeds < 1:
        raise YolomishError(f"seeds must be at least 1, not {seeds}")
    for act in acts:
        build_activation(act)
    task = find_task(base.task)
    data = task.open(base.data, "val")
    require_objects(data, base.task)
    base = replace(base, model=replace(base.model, num_classes=len(task.open(base.data, "train").names)))
    check_train(base)
    arms = build_arms(base, acts, scope=scope, weights=weights, seed_step=seeds if other_seeds else 0)
    planned = plan(arms, range(base.seed, base.seed + seeds), out_dir)
    device = devices[0] if devices else base.device
    ran_on = environment(device)
    runs = train(planned, ran_on, devices, log)
    tuned = None
    if lr_grid:
        tuned = tune(arms, runs, data, lr_grid, out_dir / "lr-grid", environment=ran_on, devices=devices, log=log)
    if len(devices) > 1:
        ran_on = {**ran_on, "trained on": ", ".join(devices) + " at once: step times include what they share"}
    own_seeds = any(arm.seed_offset for arm in arms)
    design = Design(
        scope=scope,
        pairing=Pairing.IN_ORDER if own_seeds else Pairing.BY_SEED,
        own_seeds=own_seeds,
        chosen_starts=True,
        environment=ran_on,
        command=command or f"yolomish compare --acts {','.join(acts)} --seeds {seeds} --scope {scope}",
    )
    return _conclude(runs, data, design, out_dir, training_data=[base.data], tuned=tuned, device=device, log=log)


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
    out and said. Files are paired in the order given. YolomishError, before any detection, for what cannot be compared.

    texts: folders of runs, folders that hold them, and result files, each ``PATH`` or ``NAME=PATH``
    out_dir: holds the detections and report.html, report.md, report.tex and report.json
    data: the truth of files, or in place of the data that the runs were trained with
    command: what the report says reproduces it; empty: the equal command line
    device: where runs detect
    log: takes a line of progress
    """
    arms = split_repeats(group(read_given(texts)))
    firsts = [run.config for run in (of_arm[0] for of_arm in arms.values()) if run.config is not None]
    if not firsts and data is None:
        raise YolomishError("result files need the truth that they are held against: --data my.yaml")
    task, *others = dict.fromkeys(run.task for of_arm in arms.values() for run in of_arm)
    if others:
        raise YolomishError(f"runs that {task} and runs that {others[0]} have no common measure: compare them apart")
    truth = find_task(task).open(data or firsts[0].data, "val")
    require_objects(truth, task)
    arms, design = pair(arms)
    for line in left_out(design):
        log(line)
    runs = _at_home(arms, out_dir)
    require_classes(runs, truth)
    difference = difference_table(firsts) if len(firsts) == len(arms) else {}
    if other := [key for key in difference if key not in ACTIVATION_KEYS]:
        log(f"NOT CONTROLLED: the arms also differ in {', '.join(other)}")
    design = replace(
        design,
        scope=scope_of(difference),
        environment=environment(device),
        command=command or "yolomish compare " + " ".join(texts),
    )
    places = [config.data for config in firsts[:1]] + ([data] if data else [])
    return _conclude(runs, truth, design, out_dir, training_data=places, tuned=None, device=device, log=log)


def _conclude(
    runs: Sequence[Run],
    data: Any,
    design: Design,
    out_dir: Path,
    *,
    training_data: Sequence[DataConfig],
    tuned: Tuned | None,
    device: str,
    log: Log,
) -> Report:
    """Detect with every run's last checkpoint, weigh the evidence, measure speed and layers, and write the report.

    ``training_data``: where a batch of training images may be found, the best place first.
    """
    firsts: dict[str, Run] = {}
    for run in runs:
        firsts.setdefault(run.arm, run)
    complete = all(run.config for run in runs)
    batch, missing = None, {}
    if complete:
        batch, reason = _training_batch(runs[0].trained(), training_data, data.names)
        if batch is None:
            missing["layers"] = reason
            log(f"activations are not measured layer by layer: {reason}")
    results, evidence = gather(runs, data, device=device, log=log)
    measured = []
    for run in runs:
        metrics, per_class = evidence.named((run.arm, run.seed))
        measured.append(replace(run, metrics=metrics, per_class=per_class))
    if complete:
        log("measuring inference side by side" + (", and activations layer by layer" if batch is not None else ""))
    report = build_report(
        measured,
        design,
        out_dir,
        evidence=evidence,
        speed=measure_speed({label: run.last for label, run in firsts.items()}, device) if complete else (),
        layers=all_layers(firsts, batch) if batch is not None else (),
        tuned=tuned,
        missing=missing,
    )
    shown = {label: results[label, run.seed] for label, run in firsts.items()}
    write_report(report, disagreements(shown, data) if runs[0].task == "detect" else ())
    log(headline(report))
    return report


def _training_batch(config: TrainConfig, places: Sequence[DataConfig], names: tuple[str, ...]) -> tuple[Batch | None, str]:
    """A batch as a run of ``config`` saw it first, from the first place that has it; else None and why not."""
    reasons = []
    for place in places:
        try:
            data = find_task(config.task).open(place, "train")
            if data.names == names:
                return shared_batch(data, config), ""
            reasons.append(f"{data.source} has other classes than the data of this comparison")
        except YolomishError as error:
            reasons.append(str(error))
    return None, "no training images are here (" + "; ".join(reasons) + ")"


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


def split_repeats(arms: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """A single arm of several runs as two halves: an A/A comparison of what is there."""
    if len(arms) != 1:
        return arms
    ((label, runs),) = arms.items()
    half = len(runs) // 2
    return {label: runs[:half], f"{label} (2)": [replace(run, arm=f"{label} (2)") for run in runs[half : 2 * half]]}


def pair(arms: Mapping[str, Sequence[Run]]) -> tuple[dict[str, list[Run]], Design]:
    """Arms cut to what can be paired, in the order of its seeds, and how they were: by seed where the arms share any, else in
    the order given, with seeds 0, 1, ..."""
    by_seed = {label: {run.seed: run for run in runs if run.config is not None} for label, runs in arms.items()}
    common = sorted(set.intersection(*(set(found) for found in by_seed.values())))
    if common and all(len(by_seed[label]) == len(runs) for label, runs in arms.items()):
        rest = {label: tuple(sorted(found.keys() - set(common))) for label, found in by_seed.items()}
        paired = {label: [found[seed] for seed in common] for label, found in by_seed.items()}
        return paired, Design(left_out={label: seeds for label, seeds in rest.items() if seeds})
    count = min(len(runs) for runs in arms.values())
    surplus = {label: len(runs) - count for label, runs in arms.items() if len(runs) > count}
    paired = {label: [replace(run, seed=i) for i, run in enumerate(runs[:count])] for label, runs in arms.items()}
    return paired, Design(pairing=Pairing.IN_ORDER, surplus=surplus)


def _at_home(arms: Mapping[str, Sequence[Run]], out_dir: Path) -> list[Run]:
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
