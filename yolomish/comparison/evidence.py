"""Detections of every run on the same validation images, kept beside the run, and AP on the same resampled images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.data.datasets import DetectionData
from yolomish.errors import YolomishError
from yolomish.evaluation.resample import METRICS, draw_images, match, resampled_ap, summarise
from yolomish.files import write_json
from yolomish.ops.device import choose_device
from yolomish.tasks.detection.predict import predict
from yolomish.weights.load import load_network

PREDICTIONS = "predictions-last.json"
ORIGIN = "predictions-last.origin.json"
RESAMPLES = 1000
CONF, IOU, NMS, MAX_DET = 0.001, 0.6, "greedy-diou", 300  # as fit evaluates

Key = tuple[str, int]  # arm's label, seed


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """AP of every run on the images as they are, (6 + K,), and on R resamples of them, (R, 6 + K): ``METRICS``, then classes.

    NaN where there are no such objects. The resamples are the same for all runs.
    """

    images: int
    objects: int
    classes: tuple[str, ...]
    values: Mapping[Key, np.ndarray]
    resampled: Mapping[Key, np.ndarray]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (*METRICS, *self.classes)


def predictions(checkpoint: Path, folder: Path, data: DetectionData, *, image_size: int, batch: int, device: str) -> list[dict]:
    """COCO results of a checkpoint on ``data``, read from ``folder`` where they were made of these two, else made and kept."""
    status = checkpoint.stat()
    origin: dict[str, Any] = {
        "checkpoint": str(checkpoint.resolve()),
        "size": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "data": str(data.source),
        "images": len(data),
        "image_size": image_size,
    }
    file, note = folder / PREDICTIONS, folder / ORIGIN
    try:
        if json.loads(note.read_text(encoding="utf-8")) == origin:
            return list(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass  # none yet, or cut off: made anew
    network = load_network(str(checkpoint))
    if len(network.names) != len(data.names):
        raise YolomishError(f"{checkpoint} has {len(network.names)} classes, the data {len(data.names)}: wrong --data?")
    results = predict(
        network.model,
        data,
        image_size=image_size,
        resize=network.resize,
        conf=CONF,
        iou=IOU,
        nms=NMS,
        batch=batch,
        device=choose_device(device),
        max_det=MAX_DET,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, results)
    write_json(note, origin)
    return results


def read_results(file: Path) -> list[dict]:
    """A COCO result file of any tool; YolomishError unless it is a list of image_id, category_id, bbox xywh and score."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise YolomishError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise YolomishError(f"{file} is not JSON: {error}") from None
    if not isinstance(results, list):
        raise YolomishError(f"{file} holds a {type(results).__name__}, not a list of COCO results")
    for i, row in enumerate(results):
        if not isinstance(row, dict) or not {"image_id", "category_id", "bbox", "score"} <= row.keys() or len(row["bbox"]) != 4:
            raise YolomishError(f"{file}: entry {i} is no COCO result (image_id, category_id, bbox of four, score)")
    return results


def weigh(results: Mapping[Key, list[dict]], data: DetectionData, *, resamples: int = RESAMPLES, threads: int = 2) -> Evidence:
    """AP of all ``results`` on ``data`` as it is and on the same ``resamples`` draws of its images (seed 0)."""
    truth = data.coco()
    order = sorted(truth.getImgIds())
    categories = sorted(truth.getCatIds())
    weights = draw_images(len(order), resamples, np.random.default_rng(0))
    names = dict(zip(data.category_ids, data.names, strict=True))
    values, resampled = {}, {}
    for key, found in results.items():
        matches = match(truth, found)
        values[key] = _columns(resampled_ap(matches, np.ones((1, len(order)), np.int32)))[0]
        resampled[key] = _columns(resampled_ap(matches, weights, threads=threads))
    if values and np.isnan(next(iter(values.values()))[0]):
        raise YolomishError("the validation images hold no boxes, so AP is undefined: nothing can be compared")
    return Evidence(
        images=len(order),
        objects=sum(not a.get("iscrowd") for a in truth.dataset["annotations"]),
        classes=tuple(names[c] for c in categories),
        values=values,
        resampled=resampled,
    )


def _columns(ap: np.ndarray) -> np.ndarray:
    """(R, 6 + K) from (R, K, A, T): the six metrics, then each category's AP."""
    return np.concatenate((summarise(ap), ap[:, :, 0].mean(2)), 1).astype(np.float64)


def named(row: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    """Values by name, None for NaN."""
    return {name: None if np.isnan(v) else float(v) for name, v in zip(names, row, strict=True)}
