"""An evaluation's files: metrics, results, curves, confusion and errors, or a submission for COCO's server."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from pathlib import Path
from typing import Any

from yolomish.data.datasets import DetectionData
from yolomish.evaluation.coco import evaluate
from yolomish.evaluation.coco_results import CocoResults
from yolomish.evaluation.confusion import confusion_matrix
from yolomish.evaluation.curves import best_threshold, class_curves
from yolomish.evaluation.error_types import error_breakdown
from yolomish.evaluation.matching import match
from yolomish.evaluation.plots import plot_confusion, plot_errors, plot_f1, plot_precision_recall
from yolomish.files import write_json
from yolomish.tasks.detection.protocol import EvalProtocol
from yolomish.types import SizeHW


def write_evaluation(
    folder: Path, data: DetectionData, results: CocoResults, *, setting: dict[str, Any], backend: str = "pycocotools", plots: bool
) -> dict[str, Any]:
    """Score COCO ``results`` and write metrics.json and results.json to ``folder``; returns what metrics.json holds.

    ``setting`` (protocol, size) is stated beside the metrics. ``plots`` adds pr_curves.png, f1_curves.png,
    confusion_matrix.png and .json, errors.png and errors.json, all at IoU 0.5.
    """
    truth = data.coco()
    metrics = evaluate(truth, results, data.names, data.category_ids, backend=backend)
    content = {**setting, "backend": backend, "images": len(data), **metrics.values, "per_class": metrics.per_class}
    if plots:
        matched = match(truth, results, data.category_ids)
        curves, errors = class_curves(matched, data.names), error_breakdown(matched)
        threshold, f1 = best_threshold(curves)
        content["best_f1"] = {"mean": [threshold, f1], **{curve.name: list(curve.best()) for curve in curves}}
        confusion = confusion_matrix(truth, results, data.names, data.category_ids)
        plot_precision_recall(curves, matched.iou, folder / "pr_curves.png")
        plot_f1(curves, matched.iou, folder / "f1_curves.png")
        plot_confusion(confusion, folder / "confusion_matrix.png")
        plot_errors(errors, folder / "errors.png")
        write_json(folder / "errors.json", dataclasses.asdict(errors))
        write_json(folder / "confusion_matrix.json", {**dataclasses.asdict(confusion), "counts": confusion.counts.tolist()})
    write_json(folder / "metrics.json", content)
    results.write(folder / "results.json")
    return content


def describe_setting(protocol: EvalProtocol, size_hw: SizeHW) -> dict[str, Any]:
    """What an AP depends on, as plain values."""
    return {"protocol": dataclasses.asdict(protocol), "image_size_hw": list(size_hw)}


def write_submission(folder: Path, data: DetectionData, results: CocoResults, name: str) -> Path:
    """Write ``detections_SET_NAME_results.json`` and the zip of it that COCO's server takes; returns the zip.

    SET is the annotation file's without ``image_info_`` (test-dev2017). Boxes have 3 decimals and scores 5, as
    PyTorch_YOLOv4 test.py writes them.
    """
    subset = data.source.stem.removeprefix("image_info_").removeprefix("instances_")
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-") or "yolomish"
    path = folder / f"detections_{subset}_{plain}_results.json"
    results.write(path, decimals=(3, 5))
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(path, path.name)
    return archive
