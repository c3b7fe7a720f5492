"""What 8 bits leave of each arm, and how fast they are: OpenVINO by NNCF, ranges of training images, judged as the arms are."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from yolomish.comparison.clusters import cluster_images
from yolomish.comparison.evidence import Evidence, Key, data_digest, detections_of, keep, origin_of, weigh
from yolomish.comparison.findings import CHANGE, differences_in
from yolomish.comparison.report import Design, EightBitArm, EightBits
from yolomish.comparison.runs import Run
from yolomish.config import DataConfig
from yolomish.errors import YolomishError
from yolomish.evaluation.coco_results import CocoResults
from yolomish.evaluation.seed_tests import mean_sd
from yolomish.evaluation.stats import Sample, difference
from yolomish.inference.bench import interleaved, quartiles
from yolomish.inference.engines import Engine, build_engine
from yolomish.inference.engines.exported import open_exported
from yolomish.inference.export.int8 import IMAGES, predict_int8, require_int8, versions, write_int8
from yolomish.inference.export.write import ExportOptions
from yolomish.tasks.registry import find_task
from yolomish.weights.load import load_network

FORMAT, CPU = "openvino", torch.device("cpu")
INT8, PREDICTIONS = "int8-last.xml", "predictions-int8"
LEAST_ROUNDS, MOST_ROUNDS, MOST_SECONDS = 5, 30, 30.0

Log = Callable[[str], None]


def require_eight_bits(task: str) -> None:
    """YolomishError, before anything is trained, where ``--int8`` cannot be done here."""
    if task != "detect":
        raise YolomishError("--int8 is of detectors: classifiers have no export yet; leave it out")
    require_int8(FORMAT)


def calibration_images(places: Sequence[DataConfig], names: tuple[str, ...]) -> Any:
    """Training images that set the ranges of 8 bits, from the first place that has them; YolomishError where none has."""
    reasons = []
    for place in places:
        try:
            return find_task("detect").open(place, "train").with_classes(names, "the data of this comparison").first(IMAGES)
        except YolomishError as error:
            reasons.append(str(error))
    raise YolomishError(f"--int8 needs training images, whose values set the ranges of 8 bits: {'; '.join(reasons)}")


def measure_eight_bits(runs: Sequence[Run], data: Any, training: Any, design: Design, evidence: Evidence, log: Log) -> EightBits:
    """Every run's last checkpoint in 8 bits on ``data``, against what ``evidence`` has of it, and the speed of each arm's
    first run in both precisions. Networks and detections stay in the runs' ``home``.

    ``training``: images that set the ranges.
    """
    content, calibrated = data_digest(data), data_digest(training)
    found: dict[Key, CocoResults] = {}
    firsts: dict[str, Run] = {}
    for run in runs:
        log(f"8 bits: {run.arm}, {run.name}")
        found[run.arm, run.seed] = _detections(run, data, training, content, calibrated)
        firsts.setdefault(run.arm, run)
    groups = cluster_images(data, design.judging.cluster) if design.judging.cluster else None
    small = weigh(found, data, "detect", groups=groups)
    seconds = _seconds(firsts)
    changes: dict[str, Sample] = {}
    arms = []
    for arm, run in firsts.items():
        keys = [(other.arm, other.seed) for other in runs if other.arm == arm]
        before, after = evidence.sample("AP", keys), small.sample("AP", keys)
        changes[arm] = _change(before, after)
        fp32, int8 = seconds[arm]
        arms.append(
            EightBitArm(
                arm=arm,
                fp32=mean_sd(before.values)[0],
                int8=mean_sd(after.values)[0],
                change=difference("AP", f"{arm} in 8 bits", arm, after, before, units=evidence.units.get("AP")),
                fp32_ms=quartiles([1000 * s for s in fp32]),
                int8_ms=quartiles([1000 * s for s in int8]),
                speedup=quartiles([a / b for a, b in zip(fp32, int8, strict=True)]),
                int8_bytes=(run.home / INT8).with_suffix(".bin").stat().st_size,
            )
        )
    return EightBits(
        by=versions(FORMAT),
        images=len(training),
        threads=torch.get_num_threads(),
        rounds=len(fp32),
        arms=tuple(arms),
        differences=differences_in(CHANGE, changes, design, units=evidence.units.get("AP")),
    )


def _detections(run: Run, data: Any, training: Any, content: str, calibrated: str) -> CocoResults:
    """COCO results of a run in 8 bits, read from its ``home`` where they are of the same checkpoint, data and versions."""
    origin = origin_of(run, content) | {"int8": {"by": versions(FORMAT), "images": len(training), "data_sha256": calibrated}}
    network = [(run.home / INT8).with_suffix(suffix) for suffix in (".bin", ".xml")]

    def detect() -> CocoResults:
        loaded = load_network(str(run.last))
        size_hw = run.trained().image_size
        run.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=run.home, prefix=".int8-") as folder:
            _, small = write_int8(loaded, Path(folder), FORMAT, training, size_hw=size_hw, options=ExportOptions())
            for path in network:
                os.replace(small.with_suffix(path.suffix), path)
        return detections_of(run, data, lambda named: predict_int8(run.home / INT8, named, size_hw))

    return keep(run, PREDICTIONS, origin, detect, again=not all(path.is_file() for path in network))


def _change(before: Sample, after: Sample) -> Sample:
    values = tuple(b - a for a, b in zip(before.values, after.values, strict=True))
    first, second = before.resampled, after.resampled
    return Sample(values=values, resampled=second - first if first is not None and second is not None else None)


def _seconds(runs: Mapping[str, Run]) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of one image in fp32 and in 8 bits for each arm's run, all in turn in every round."""
    engines: list[Engine] = []
    for run in runs.values():
        network = load_network(str(run.last)).network
        engines += build_engine("openvino", network, device=CPU), open_exported(run.home / INT8, device=CPU)[0]
    images = [torch.rand(1, engine.input.channels, *engine.input.size_hw) for engine in engines]
    calls = [functools.partial(engine, image) for engine, image in zip(engines, images, strict=True)]
    interleaved(calls, 2)  # compiles, warms up
    took = sum(map(sum, interleaved(calls, 1)))
    rounds = int(min(max(MOST_SECONDS / max(took, 1e-9), LEAST_ROUNDS), MOST_ROUNDS))
    seconds = interleaved(calls, rounds)
    return {arm: (seconds[2 * i], seconds[2 * i + 1]) for i, arm in enumerate(runs)}
