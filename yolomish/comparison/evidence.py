"""Detections of every run on the same validation images, kept beside the run, and AP on the same resampled images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from yolomish.comparison.clusters import cluster_images
from yolomish.comparison.results import read_results, require_alike
from yolomish.comparison.runs import Run, State
from yolomish.config import TrainConfig
from yolomish.data.kept import ImageData
from yolomish.errors import YolomishError
from yolomish.evaluation.resample import draw_images
from yolomish.evaluation.stats import Sample
from yolomish.files import digest, write_json
from yolomish.ops.device import choose_device
from yolomish.tasks.registry import find_task
from yolomish.weights.checkpoint import read_checkpoint
from yolomish.weights.load import load_network

PREDICTIONS = "predictions-last"
RESAMPLES = 1000

Key = tuple[str, int]  # arm's label, seed


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The task's statistics of every run on the images as they are, (S + K,), and on R resamples of them, (R, S + K), those
    of the whole before those of each class.

    NaN where there are no such objects. The resamples are the same for all runs. ``units`` counts, for each column, the
    images that hold such objects, or the ``clusters`` of them (None: images are drawn one by one). ``prints`` tell equal
    detections; ``lacking`` counts the images with objects on which a run has no detection; ``notes`` is what was odd in
    files that were given. ``right`` (I,) says on which images a classifier is.
    """

    images: int
    objects: int
    clusters: int | None
    units: Mapping[str, int]
    prints: Mapping[Key, str]
    lacking: Mapping[Key, int]
    notes: tuple[str, ...]
    statistics: tuple[str, ...]
    classes: tuple[str, ...]
    values: Mapping[Key, np.ndarray]
    resampled: Mapping[Key, np.ndarray]
    right: Mapping[Key, np.ndarray] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (*self.statistics, *self.classes)

    def sample(self, metric: str, keys: Sequence[Key]) -> Sample:
        """A metric of the runs ``keys``, on the images and on each resample of them."""
        column = self.metrics.index(metric)
        values = tuple(float(self.values[key][column]) for key in keys)
        return Sample(values=values, resampled=np.stack([self.resampled[key][:, column] for key in keys]))

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


def require_classes(runs: Sequence[Run], data: Any) -> None:
    """YolomishError, naming the first run, where a run was trained on other classes than ``data`` has boxes of."""
    for run in runs:
        if run.config is not None:
            data.with_classes(tuple(read_checkpoint(run.last)["names"]), run.path)


def gather(
    runs: Sequence[Run],
    data: Any,
    *,
    device: str,
    log: Callable[[str], None],
    cluster: str = "",
    allow_missing: bool = False,
) -> tuple[dict[Key, Any], Evidence]:
    """Detections of every run on ``data``, read where they are, else made on ``device``, and what they weigh.

    Files are read first, so that a wrong one is refused before any detection. ``cluster``: by what images are drawn
    together (see ``cluster_images``). ``allow_missing``: whether one arm's files may lack images that another's have.
    """
    groups, judge = cluster_images(data, cluster) if cluster else None, find_task(runs[0].task)
    given = [run for run in runs if run.state is State.DETECTIONS]
    read = {(run.arm, run.seed): read_results(run.path, data) for run in given}
    results = {key: found.detections for key, found in read.items()}
    notes = tuple(note for found in read.values() for note in found.notes)
    for note in notes:
        log(f"warning: {note}")
    if given and not allow_missing:
        lacking: dict[str, list[int]] = {}
        for (arm, _), found in results.items():
            lacking.setdefault(arm, []).append(judge.lacking(data, found))
        require_alike(lacking, len(data))
    content = data_digest(data) if len(given) < len(runs) else ""
    results |= {(run.arm, run.seed): predictions(run, data, content=content, device=device) for run in runs if run not in given}
    log(f"resampling {len(data)} images for {len(results)} runs")
    return results, weigh(results, data, runs[0].task, groups=groups, notes=notes)


def data_digest(data: ImageData) -> str:
    """SHA-256 of what results depend on: classes, annotations, and every image's file name, size in bytes and time of change."""
    marks: list[Any] = [data.names]
    marks += [(data.path(index).name, *data.stamp(index), data.truth(index)) for index in range(len(data))]
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()


def predictions(run: Run, data: Any, *, content: str, device: str) -> Any:
    """The task's results of a run's last checkpoint on ``data``, read from its ``home`` where they are of the same checkpoint,
    data and protocol, else made and kept there. ``content`` is the data's digest (see ``data_digest``)."""
    config = run.trained()

    def predict(named: Any) -> Any:
        place = choose_device(device)
        return find_task(config.task).predict(load_network(str(run.last)).network.to(place), named, config, place)

    return keep(run, PREDICTIONS, origin_of(run, content), lambda: detections_of(run, data, predict))


def origin_of(run: Run, content: str) -> dict[str, Any]:
    """What a run's detections on the data of digest ``content`` depend on."""
    protocol = asdict(protocol_of(run.trained()))
    return {
        "checkpoint_sha256": digest(run.last).sha256,
        "data_sha256": content,
        "image_size": list(run.trained().image_size),
        "protocol": {key: list(v) if isinstance(v, tuple) else v for key, v in protocol.items()},  # as JSON reads it
    }


def detections_of(run: Run, data: Any, predict: Callable[[Any], Any]) -> Any:
    """What ``predict`` finds on ``data`` with the run's classes, of those that the data has."""
    results = predict(data.with_classes(tuple(read_checkpoint(run.last)["names"]), run.path))
    if run.task == "detect":
        results = results[np.isin(results.category_ids, data.category_ids)]
    return results


def keep(run: Run, stem: str, origin: dict[str, Any], make: Callable[[], Any], *, again: bool = False) -> Any:
    """The task's results that a run's ``home`` holds as ``stem``.json where they are of ``origin``, else (or ``again``) those of
    ``make``, kept there."""
    task, file, note = find_task(run.task), run.home / f"{stem}.json", run.home / f"{stem}.origin.json"
    try:
        if not again and json.loads(note.read_text(encoding="utf-8")) == origin:
            return task.read_results(file)
    except (OSError, ValueError, TypeError, KeyError):
        pass  # none yet, or cut off: detected again
    results = make()
    run.home.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)  # a run that is cut off between the two files must not pair old and new
    task.write_results(results, file)
    write_json(note, origin)
    return results


def weigh(
    results: Mapping[Key, Any],
    data: Any,
    task: str,
    *,
    resamples: int = RESAMPLES,
    groups: np.ndarray | None = None,
    notes: tuple[str, ...] = (),
) -> Evidence:
    """Statistics of all ``results`` on ``data`` as it is and on the same ``resamples`` draws of its images (seed 0).

    ``groups``: the cluster of each image, in the order of ascending ids; then clusters are drawn.
    """
    judge, images = find_task(task), len(data)
    draws = (np.ones((1, images), np.int32), draw_images(images, resamples, np.random.default_rng(0), groups))
    found = {key: judge.resampled(data, rows, draws) for key, rows in results.items()}
    right = {key: judge.right(rows) for key, rows in results.items()}
    return Evidence(
        images=images,
        objects=judge.objects(data),
        clusters=int(groups.max()) + 1 if groups is not None else None,
        units=judge.units(data, groups),
        prints={key: judge.fingerprint(rows) for key, rows in results.items()},
        lacking={key: judge.lacking(data, rows) for key, rows in results.items()},
        notes=notes,
        statistics=judge.statistics,
        classes=judge.class_names(data),
        values={key: whole[0] for key, (whole, _) in found.items()},
        resampled={key: drawn for key, (_, drawn) in found.items()},
        right={key: found for key, found in right.items() if found is not None},
    )
