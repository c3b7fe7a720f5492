"""The confusion matrix: what each object was taken for, at the confidence that a user would see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO

from yolomish.evaluation.coco import counts_as_object
from yolomish.evaluation.coco_results import NOTHING, CocoResults


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """``counts`` (K+1, K+1): rows are the true class, columns the detected one; the last row is background (false
    alarms), the last column what was missed."""

    names: tuple[str, ...]
    conf: float
    iou: float
    counts: np.ndarray


def confusion_matrix(
    truth: COCO,
    results: CocoResults,
    names: tuple[str, ...],
    category_ids: tuple[int, ...],
    *,
    conf: float = 0.25,
    iou: float = 0.5,
) -> Confusion:
    """Pair objects and detections of score ``conf`` or more one to one whatever their class, the largest IoU first.

    Pairs have an IoU of ``iou`` or more. Crowds and difficult objects do not count, nor does a detection left over that
    lies in one.
    """
    label_of = {category: label for label, category in enumerate(category_ids)}
    background = len(names)
    counts: np.ndarray = np.zeros((background + 1, background + 1), np.int64)
    of_image = results[results.scores >= conf].by_image()
    for image_id in truth.getImgIds():
        annotations = truth.imgToAnns.get(image_id, [])
        detections = of_image.get(image_id, NOTHING)
        true = np.array([label_of[a["category_id"]] for a in annotations], np.int64)
        seen = np.array([label_of[c] for c in detections.category_ids.tolist()], np.int64)
        crowd = [int(a.get("iscrowd", 0)) for a in annotations]
        ignored = np.array([not counts_as_object(a) for a in annotations], bool)
        overlap = np.zeros((len(annotations), len(detections)))
        if overlap.size:
            boxes = np.array([a["bbox"] for a in annotations], np.float64)
            overlap = np.asarray(mask.iou(detections.boxes, boxes, crowd)).T
        pairs = np.where(ignored[:, None], 0.0, overlap)
        free_objects = ~ignored
        free_detections: np.ndarray = np.ones(len(detections), bool)
        for place in np.argsort(-pairs, axis=None, kind="stable"):
            i, j = np.unravel_index(place, pairs.shape)
            if pairs[i, j] < iou:
                break
            if free_objects[i] and free_detections[j]:
                free_objects[i] = free_detections[j] = False
                counts[true[i], seen[j]] += 1
        np.add.at(counts, (true[free_objects], background), 1)
        inside = (overlap[ignored] >= iou).any(0) if ignored.any() else np.zeros(len(detections), bool)
        np.add.at(counts, (background, seen[free_detections & ~inside]), 1)
    return Confusion(names=names, conf=conf, iou=iou, counts=counts)
