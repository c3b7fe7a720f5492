"""Detections of every run on the same validation images, kept beside the run, and AP on the same resampled images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.comparison.runs import Run, State
from yolomish.config import TrainConfig
from yolomish.data.datasets import DetectionData
from yolomish.data.formats.record import number, whole
from yolomish.data.kept import ImageData
from yolomish.errors import YolomishError
from yolomish.evaluation.resample import draw_images
from yolomish.files import digest, write_json
from yolomish.ops.device import choose_device
from yolomish.tasks.registry import find_task
from yolomish.weights.load import load_network

PREDICTIONS = "predictions-last.json"
ORIGIN = "predictions-last.origin.json"
RESAMPLES = 1000

Key = tuple[str, int]  # arm's label, seed
Detections = list[dict]  # COCO results


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The task's statistics of every run on the images as they are, (S + K,), and on R resamples of them, (R, S + K), those
    of the whole before those of each class.

    NaN where there are no such objects. The resamples are the same for all runs. ``right`` (I,) says on which images a
    classifier is.
    """

    images: int
    objects: int
    statistics: tuple[str, ...]
    classes: tuple[str, ...]
    values: Mapping[Key, np.ndarray]
    resampled: Mapping[Key, np.ndarray]
    right: Mapping[Key, np.ndarray] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (*self.statistics, *self.classes)

    def named(self, key: Key) -> tuple[dict[str, float | None], dict[str, float | None]]:
        """A run's metrics and its AP by class, None for NaN."""
        plain = [None if np.isnan(v) else float(v) for v in self.values[key]]
        count = len(self.statistics)
        return dict(zip(self.statistics, plain, strict=False)), dict(zip(self.classes, plain[count:], strict=True))


def protocol_of(config: TrainConfig) -> Any:
    """How a run's checkpoints are judged: as its training evaluated them."""
    return find_task(config.task).protocol(config)


def require_objects(data: ImageData, task: str) -> None:
    """YolomishError where ``data`` holds no boxes."""
    if not find_task(task).objects(data):
        raise YolomishError(f"{data.source} holds no boxes, so AP is undefined: nothing can be compared")


def require_classes(runs: Sequence[Run], data: ImageData) -> None:
    """YolomishError, naming the first run, where a run was trained on another number of classes than ``data`` has."""
    for run in runs:
        if run.config is not None:
            data.check_classes(run.config.model.num_classes, run.path)


def gather(runs: Sequence[Run], data: Any, *, device: str, log: Callable[[str], None]) -> tuple[dict[Key, Detections], Evidence]:
    """Detections of every run on ``data``, read where they are, else made on ``device``, and what they weigh.

    Files are read first, so that a wrong one is refused before any detection.
    """
    given = [run for run in runs if run.state is State.DETECTIONS]
    results = {(run.arm, run.seed): read_results(run.path, data) for run in given}
    content = data_digest(data) if len(given) < len(runs) else ""
    results |= {(run.arm, run.seed): predictions(run, data, content=content, device=device) for run in runs if run not in given}
    log(f"resampling {len(data)} images for {len(results)} runs")
    return results, weigh(results, data, runs[0].task)


def data_digest(data: ImageData) -> str:
    """SHA-256 of what results depend on: classes, annotations, and every image's file name, size in bytes and time of change."""
    marks: list[Any] = [data.names]
    for index in range(len(data)):
        path = data.path(index)
        try:
            status = path.stat()
        except OSError as error:
            raise YolomishError(f"{path} cannot be read: {error.strerror}") from None
        marks.append((path.name, status.st_size, status.st_mtime_ns, data.truth(index)))
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()


def predictions(run: Run, data: ImageData, *, content: str, device: str) -> Detections:
    """COCO results of a run's last checkpoint on ``data``, read from its ``home`` where they are of the same checkpoint,
    data and protocol, else made and kept there. ``content`` is the data's digest (see ``data_digest``)."""
    config = run.trained()
    protocol = protocol_of(config)
    origin = {
        "checkpoint_sha256": digest(run.last).sha256,
        "data_sha256": content,
        "image_size": list(config.image_size),
        "protocol": {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(protocol).items()},  # as JSON reads it
    }
    file, note = run.home / PREDICTIONS, run.home / ORIGIN
    try:
        if json.loads(note.read_text(encoding="utf-8")) == origin:
            return list(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass  # none yet, or cut off: detected again
    place = choose_device(device)
    network = load_network(str(run.last)).network.to(place)
    results = find_task(config.task).predict(network, data, config, place)
    run.home.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)  # a run that is cut off between the two files must not pair old and new
    write_json(file, results)
    write_json(note, origin)
    return results


def read_results(file: Path, data: DetectionData) -> Detections:
    """A COCO result file of any tool; YolomishError unless it lists image_id, category_id, bbox xywh and score, and some
    category is one of ``data``."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise YolomishError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise YolomishError(f"{file} is not JSON: {error}") from None
    if not isinstance(results, list):
        raise YolomishError(f"{file} holds a {type(results).__name__}, not a list of COCO results")
    for i, row in enumerate(results):
        if not _is_result(row):
            raise YolomishError(f"{file}: entry {i} is no COCO result (image_id, category_id, bbox of four, score)")
    if results and not {row["category_id"] for row in results} & set(data.category_ids):
        raise YolomishError(f"{file}: none of its category ids are those of {data.source}: are they of another data set?")
    return results


def _is_result(row: Any) -> bool:
    try:
        ids, values = [row["image_id"], row["category_id"]], [*row["bbox"], row["score"]]
        for value in ids:
            whole(value)
        for value in values:
            number(value)
    except (KeyError, TypeError, ValueError):
        return False
    return len(values) == 5 and not any(isinstance(value, str) for value in (*ids, *values))


def weigh(results: Mapping[Key, Detections], data: Any, task: str, *, resamples: int = RESAMPLES) -> Evidence:
    """Statistics of all ``results`` on ``data`` as it is and on the same ``resamples`` draws of its images (seed 0)."""
    judge, images = find_task(task), len(data)
    draws = (np.ones((1, images), np.int32), draw_images(images, resamples, np.random.default_rng(0)))
    found = {key: judge.resampled(data, rows, draws) for key, rows in results.items()}
    right = {key: judge.right(rows) for key, rows in results.items()}
    return Evidence(
        images=images,
        objects=judge.objects(data),
        statistics=judge.statistics,
        classes=judge.class_names(data),
        values={key: whole[0] for key, (whole, _) in found.items()},
        resampled={key: drawn for key, (_, drawn) in found.items()},
        right={key: found for key, found in right.items() if found is not None},
    )
