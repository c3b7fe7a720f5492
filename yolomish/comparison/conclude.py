"""From finished trainings or bare detections to the written report: one way, wherever the runs came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolomish.comparison.evidence import Evidence, Key, named, predictions, weigh
from yolomish.comparison.findings import ArmNames, Report, Tuned, build_report
from yolomish.comparison.gallery import disagreements
from yolomish.comparison.layers import all_layers
from yolomish.comparison.runs import FinishedRun, RunResult
from yolomish.comparison.speed import measure_speed
from yolomish.comparison.writing import write_report
from yolomish.data.datasets import DetectionData
from yolomish.evaluation.resample import METRICS


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run on its way into the report: a trained folder or the detections of one (``results``), and where its own
    files are kept (``home``). ``start`` is the hash of what it started from, empty where unknown."""

    arm: str
    seed: int
    home: Path
    run: FinishedRun | None = None
    results: list[dict] | None = None
    start: str = ""
    source: str = ""


def conclude(
    entries: Sequence[Entry],
    arms: tuple[ArmNames, ...],
    data: DetectionData,
    out_dir: Path,
    *,
    scope: str,
    config: dict[str, Any],
    config_difference: dict[str, tuple[Any, ...]],
    environment: dict[str, str],
    command: str,
    declared: tuple[str, ...] = (),
    equal_start: bool = True,
    tuned: Tuned | None = None,
    device: str = "auto",
    log: Callable[[str], None] = print,
) -> Report:
    """Detect with every run's last checkpoint, weigh the evidence, measure speed and layers, and write the report."""
    results, evidence = gather(entries, data, device, log)
    runs = tuple(_result(entry, evidence, out_dir) for entry in entries)
    first = {arm.label: next(e for e in entries if e.arm == arm.label) for arm in arms}
    trained = {label: entry.run for label, entry in first.items() if entry.run}
    complete = len(trained) == len(arms)
    checkpoints = {label: run.last for label, run in trained.items()}
    if complete:
        log("measuring inference side by side, and activations layer by layer")
    report = build_report(
        arms=arms,
        runs=runs,
        scope=scope,
        config=config,
        config_difference=config_difference,
        environment=environment,
        command=command,
        evidence=evidence,
        declared=declared,
        equal_start=equal_start,
        speed=measure_speed(checkpoints, device) if complete else (),
        layers=all_layers(checkpoints, seed=next(iter(trained.values())).config.seed) if complete else (),
        tuned=tuned,
    )
    found = {label: results[label, entry.seed] for label, entry in first.items()}
    write_report(report, out_dir, disagreements(found, data))
    log(report.headline)
    return report


def gather(
    entries: Sequence[Entry], data: DetectionData, device: str, log: Callable[[str], None]
) -> tuple[Mapping[Key, list[dict]], Evidence]:
    """Detections of every entry on ``data`` and what they weigh."""
    results: dict[Key, list[dict]] = {}
    for entry in entries:
        if entry.results is not None:
            results[entry.arm, entry.seed] = entry.results
        elif entry.run is not None:
            run = entry.run
            results[entry.arm, entry.seed] = predictions(
                run.last,
                entry.home,
                data,
                batch=run.config.mini_batch if run.config.mini_batch > 0 else run.config.batch,
                device=device,
            )
    log(f"resampling {len(data)} images for {len(results)} runs")
    return results, weigh(results, data)


def _result(entry: Entry, evidence: Evidence, out_dir: Path) -> RunResult:
    row, run = evidence.values[entry.arm, entry.seed], entry.run
    best = run.best_point() if run else None
    return RunResult(
        arm=entry.arm,
        seed=entry.seed,
        metrics=named(row[: len(METRICS)], METRICS),
        per_class=named(row[len(METRICS) :], evidence.classes),
        best_ap=best.ap if best else None,
        best_epoch=best.epoch if best else None,
        step_ms=run.step_ms if run else None,
        peak_memory_bytes=run.peak_memory_bytes if run else None,
        initial_kernels=entry.start,
        folder=_shown(run.folder, out_dir) if run else entry.source,
        best=_shown(run.best, out_dir) if run else "",
        epochs=run.epochs if run else (),
    )


def _shown(path: Path, out_dir: Path) -> str:
    """The path from the comparison's folder where it lies in it, else as it is."""
    try:
        return str(path.resolve().relative_to(out_dir.resolve()))
    except ValueError:
        return str(path)
