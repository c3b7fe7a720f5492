"""COCO's twelve numbers, from pycocotools and nowhere else."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolomish.errors import YolomishError
from yolomish.types import CocoMetrics


def run_cocoeval(truth: COCO, results: list[dict]) -> COCOeval:
    """An accumulated and summarised COCOeval of bbox results, silent; an empty list is a detector that finds nothing."""
    known = set(truth.getImgIds())
    foreign = {r["image_id"] for r in results} - known
    if foreign:
        raise YolomishError(
            f"{len(foreign)} image ids of the results (such as {min(foreign)}) are not in the annotation file: "
            "were they made on another data set?"
        )
    with contextlib.redirect_stdout(io.StringIO()):
        if results:
            found = truth.loadRes(copy.deepcopy(results))
        else:
            found = COCO()
            found.dataset = {"images": truth.dataset["images"], "categories": truth.dataset["categories"], "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def evaluate(truth: COCO, results: list[dict], names: Sequence[str], category_ids: Sequence[int]) -> CocoMetrics:
    """The twelve numbers and AP per class of COCO results against ``truth``."""
    evaluation = run_cocoeval(truth, results)
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # (IoU, recall, class), all areas, 100 detections
    per_class = {}
    order = list(evaluation.params.catIds)
    for name, category in zip(names, category_ids, strict=True):
        values = precision[:, :, order.index(category)]
        per_class[name] = float(values[values > -1].mean()) if (values > -1).any() else -1.0
    numbers = [float(v) for v in np.asarray(evaluation.stats)]
    keys = [field.name for field in dataclasses.fields(CocoMetrics)][:12]
    return CocoMetrics(**dict(zip(keys, numbers, strict=True)), per_class_ap=per_class)
