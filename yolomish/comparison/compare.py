"""A comparison from what it is asked for to its written report: activations trained from one configuration, or finished runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolomish.activations import build_activation
from yolomish.comparison.arms import build_arms
from yolomish.comparison.eight_bits import calibration_images, measure_eight_bits, require_eight_bits
from yolomish.comparison.environment import environment
from yolomish.comparison.evidence import Evidence, Key, gather, require_objects
from yolomish.comparison.findings import build_report
from yolomish.comparison.given import prepare
from yolomish.comparison.layers import all_layers, shared_batch
from yolomish.comparison.looks import decided, declared_looks, take_look
from yolomish.comparison.rates import choose_rates
from yolomish.comparison.render import check_report, headline, write_report
from yolomish.comparison.render.gallery import disagreements
from yolomish.comparison.report import Design, Judging, Pairing, Report
from yolomish.comparison.runs import Run
from yolomish.comparison.speed import measure_speed
from yolomish.comparison.train import Here, Trainer, plan, train
from yolomish.config import DataConfig, TrainConfig, check_train
from yolomish.errors import YolomishError
from yolomish.tasks.registry import find_task
from yolomish.types import Batch

Log = Callable[[str], None]
DEFAULT = Judging()


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
    trainer: Trainer | None = None,
    lr_grid: Sequence[float] = (),
    lr_seeds: int = 2,
    most_seeds: int = 0,
    judging: Judging = DEFAULT,
    int8: bool = False,
    command: str = "",
    force: bool = False,
    log: Log = print,
) -> Report:
    """Train every arm at seeds ``base.seed`` … ``base.seed + seeds - 1``, write the report and return it.

    With ``most_seeds`` the arms train seed after seed until AP's differences are decided or so many are there; the looks
    on the way spend one error together (``evaluation.sequential``). Every look that is taken is recorded in ``out_dir``.

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
    trainer: trains the runs, on other machines for one (``jobs.Jobs``); None: this machine, on ``devices``
    lr_grid: peak rates to choose each arm's from (see ``choose_rates``); empty: all arms have ``base.peak_lr``
    lr_seeds: trials of each rate, at seeds after those that judge
    most_seeds: train until decided, at most so many seeds; 0: ``seeds``, looked at once
    judging: margin of equivalence, pairs, clusters of images
    int8: also what 8 bits leave of each arm, by OpenVINO
    command: what the report says reproduces it; empty: the equal command line
    force: overwrite a report.html, .md, .tex or .json that is not as a comparison left it
    log: takes a line of progress
    """
    check_report(out_dir, force)
    if seeds < 1:
        raise YolomishError(f"seeds must be at least 1, not {seeds}")
    if lr_seeds < 1:
        raise YolomishError(f"the seeds of each learning rate must be at least 1, not {lr_seeds}")
    for act in acts:
        build_activation(act)
    if int8:
        require_eight_bits(base.task)
    task = find_task(base.task)
    data = task.open(base.data, "val")
    require_objects(data, base.task)
    base = replace(base, model=replace(base.model, num_classes=len(task.open(base.data, "train").names)))
    check_train(base)
    looks = declared_looks(seeds, most_seeds)
    arms = build_arms(base, acts, scope=scope, weights=weights, seed_step=looks[-1].seeds if other_seeds else 0)
    device = devices[0] if devices else base.device
    ran_on = environment(device)
    own_seeds = any(arm.seed_offset for arm in arms)
    design = Design(
        scope=scope,
        pairing=Pairing.NONE if own_seeds else Pairing.BY_SEED,
        own_seeds=own_seeds,
        chosen_starts=True,
        judging=judging,
        environment=ran_on,
        command=command or f"yolomish compare --acts {','.join(acts)} --seeds {seeds} --scope {scope}",
    )
    trainer = trainer or Here(devices=devices, log=log)
    if lr_grid:
        first = base.seed + looks[-1].seeds + max(arm.seed_offset for arm in arms)
        trial_seeds = range(first, first + lr_seeds)
        arms, tuned = choose_rates(arms, lr_grid, trial_seeds, out_dir / "lr-grid", ran_on, trainer, log)
        design = replace(design, tuned=tuned)
    runs: list[Run] = []
    for look in looks:
        runs = train(plan(arms, range(base.seed, base.seed + look.seeds), out_dir), ran_on, trainer, log)
        design = replace(design, looks=take_look(out_dir, look))
        if look is not looks[-1] and _decided(runs, data, design, out_dir, device, log):
            break
    if len(devices) > 1:
        ran_on = {**ran_on, "trained on": ", ".join(devices) + " at once: step times include what they share"}
    design = replace(design, environment=ran_on)
    return _conclude(runs, data, design, out_dir, training_data=[base.data], device=device, int8=int8, force=force, log=log)


def _decided(runs: Sequence[Run], data: Any, design: Design, out_dir: Path, device: str, log: Log) -> bool:
    """Whether a look at ``runs`` decides, as said in the log."""
    measured, _, evidence = measure(runs, data, design, device, log)
    report = build_report(measured, design, out_dir, evidence=evidence)
    found = decided(report)
    said = "decided" if found else "not decided, on to the next seed"
    log(f"look at {design.looks[-1].seeds} seeds: {said}. {headline(report)}")
    return found


def measure(runs: Sequence[Run], data: Any, design: Design, device: str, log: Log) -> tuple[list[Run], dict[Key, Any], Evidence]:
    """The runs with their metrics, their detections and what those weigh."""
    judging = design.judging
    results, evidence = gather(runs, data, device=device, log=log, cluster=judging.cluster, allow_missing=judging.allow_missing)
    measured = []
    for run in runs:
        metrics, per_class = evidence.named((run.arm, run.seed))
        measured.append(replace(run, metrics=metrics, per_class=per_class))
    return measured, results, evidence


def compare_finished(
    texts: Sequence[str],
    out_dir: Path,
    *,
    data: DataConfig | None = None,
    judging: Judging = DEFAULT,
    int8: bool = False,
    command: str = "",
    device: str = "auto",
    force: bool = False,
    log: Log = print,
) -> Report:
    """Compare run folders or COCO result files; nothing is trained and nothing is written outside ``out_dir``.

    Runs of one configuration but for the seed are an arm, and arms are paired by seed; seeds that an arm lacks are left
    out and said. Arms that share no seeds, and files, are not paired. YolomishError, before any detection, for what cannot
    be compared: a training given twice, an arm of several configurations, arms trained on different data without ``data``.

    texts: folders of runs, folders that hold them, and result files, each ``PATH`` or ``NAME=PATH``
    out_dir: holds the detections and report.html, report.md, report.tex and report.json
    data: the truth of files, or in place of the data that the runs were trained with
    judging: margin of equivalence, pairs, clusters of images
    int8: also what 8 bits leave of each arm, by OpenVINO
    command: what the report says reproduces it; empty: the equal command line
    device: where runs detect
    force: overwrite a report.html, .md, .tex or .json that is not as a comparison left it
    log: takes a line of progress
    """
    check_report(out_dir, force)
    runs, truth, design = prepare(texts, out_dir, data, judging, log)
    design = replace(design, environment=environment(device), command=command or "yolomish compare " + " ".join(texts))
    if int8:
        require_eight_bits(runs[0].task)
        if not all(run.config for run in runs):
            raise YolomishError("--int8 needs networks, which result files are not: give run folders, or leave it out")
    firsts = [run.config for run in runs if run.config is not None]
    places = [config.data for config in firsts[:1]] + ([data] if data else [])
    return _conclude(runs, truth, design, out_dir, training_data=places, device=device, int8=int8, force=force, log=log)


def _conclude(
    runs: Sequence[Run],
    data: Any,
    design: Design,
    out_dir: Path,
    *,
    training_data: Sequence[DataConfig],
    device: str,
    int8: bool,
    force: bool,
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
    training = calibration_images(training_data, data.names) if int8 else None
    measured, results, evidence = measure(runs, data, design, device, log)
    if complete:
        log("measuring inference side by side" + (", and activations layer by layer" if batch is not None else ""))
    report = build_report(
        measured,
        design,
        out_dir,
        evidence=evidence,
        speed=measure_speed({label: run.last for label, run in firsts.items()}, device) if complete else (),
        layers=all_layers(firsts, batch) if batch is not None else (),
        missing=missing,
        eight_bits=measure_eight_bits(runs, data, training, design, evidence, log) if int8 else None,
    )
    shown = {label: results[label, run.seed] for label, run in firsts.items()}
    write_report(report, disagreements(shown, data) if runs[0].task == "detect" else (), force=force)
    log(headline(report))
    return report


def _training_batch(config: TrainConfig, places: Sequence[DataConfig], names: tuple[str, ...]) -> tuple[Batch | None, str]:
    """A batch as a run of ``config`` saw it first, from the first place that has it; else None and why not."""
    reasons = []
    for place in places:
        try:
            data = find_task(config.task).open(place, "train")
            return shared_batch(data.with_classes(names, "the data of this comparison"), config), ""
        except YolomishError as error:
            reasons.append(str(error))
    return None, "no training images are here (" + "; ".join(reasons) + ")"
