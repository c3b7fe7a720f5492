"""Which detections are right at one IoU, by COCO's rules, and what the wrong ones overlap: the base of curves and errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO

from yolomish.evaluation.coco import counts_as_object
from yolomish.evaluation.coco_results import NOTHING, CocoResults

MAX_DETECTIONS = 100  # per class and image, pycocotools' maxDets


@dataclass(frozen=True, kw_only=True)
class Matched:
    """All detections, best score first, and all objects of a data set, crowds and difficult ones left out, matched at
    IoU ``iou``.

    A detection (D,) has ``labels`` and ``scores``; it is ``true`` where it found an object, ``ignored`` in every count where
    it lies in a crowd or found a difficult object. ``own_iou`` is its largest IoU with an object of its class (-1: none in
    the image) and ``own_object`` that object, ``other_*`` the same among other classes, ``taken_iou`` among found objects of
    its class.
    An object (G,) has ``object_labels`` and is ``found`` or not.
    """

    iou: float
    classes: int
    labels: np.ndarray
    scores: np.ndarray
    true: np.ndarray
    ignored: np.ndarray
    own_iou: np.ndarray
    own_object: np.ndarray
    other_iou: np.ndarray
    other_object: np.ndarray
    taken_iou: np.ndarray
    object_labels: np.ndarray
    found: np.ndarray

    def objects_per_class(self) -> np.ndarray:
        """The number of objects (K,)."""
        return np.bincount(self.object_labels, minlength=self.classes)


def match(truth: COCO, results: CocoResults, category_ids: tuple[int, ...], *, iou: float = 0.5) -> Matched:
    """Match COCO bbox ``results`` as pycocotools does at ``iou``: by score, each to the best free object of its class.

    At most 100 detections per class and image count. Labels are indices into ``category_ids``.
    """
    label_of = {category: label for label, category in enumerate(category_ids)}
    of_image = results.by_image()
    rows: list[tuple[np.ndarray, ...]] = []
    object_labels: list[np.ndarray] = []
    found: list[np.ndarray] = []
    count = 0
    for image_id in sorted(truth.getImgIds()):
        annotations = truth.imgToAnns.get(image_id, [])
        objects = [a for a in annotations if counts_as_object(a)]
        left_out = [a for a in annotations if not counts_as_object(a)]
        their_labels = np.array([label_of[a["category_id"]] for a in objects], np.int64)
        free: np.ndarray = np.ones(len(objects), bool)
        detections = _best(of_image.get(image_id, NOTHING))
        if len(detections):
            labels = np.array([label_of[c] for c in detections.category_ids.tolist()], np.int64)
            overlap = _overlap(detections, objects)  # (d, g)
            own = np.where(labels[:, None] == their_labels, overlap, -1.0)
            true: np.ndarray = np.zeros(len(detections), bool)
            for i in np.nonzero((own >= iou).any(1))[0]:
                row = np.where(free, own[i], -1.0)
                j = len(row) - 1 - int(row[::-1].argmax())  # pycocotools takes the last of equals
                if row[j] >= iou:
                    free[j], true[i] = False, True
            left_out_labels = np.array([label_of[a["category_id"]] for a in left_out], np.int64)
            inside = (_overlap(detections, left_out) >= iou) & (labels[:, None] == left_out_labels)
            own_iou, own_object = _largest(own, count)
            other_iou, other_object = _largest(np.where(labels[:, None] == their_labels, -1.0, overlap), count)
            taken_iou, _ = _largest(np.where(free, -1.0, own), count)
            ignored = inside.any(1) & ~true
            rows.append((labels, detections.scores, true, ignored, own_iou, own_object, other_iou, other_object, taken_iou))
        object_labels.append(their_labels)
        found.append(~free)
        count += len(objects)
    kinds = (np.int64, np.float64, bool, bool, np.float64, np.int64, np.float64, np.int64, np.float64)
    columns = [np.concatenate([r[i] for r in rows]) if rows else np.empty(0, kind) for i, kind in enumerate(kinds)]
    order = np.argsort(-columns[1], kind="stable")
    names = ("labels", "scores", "true", "ignored", "own_iou", "own_object", "other_iou", "other_object", "taken_iou")
    return Matched(
        iou=iou,
        classes=len(category_ids),
        **{name: column[order] for name, column in zip(names, columns, strict=True)},
        object_labels=np.concatenate(object_labels),
        found=np.concatenate(found),
    )


def _best(detections: CocoResults) -> CocoResults:
    """The best 100 of each class, of an image's detections, best first."""
    if len(detections) <= MAX_DETECTIONS:
        return detections
    of_class = (np.flatnonzero(detections.category_ids == category) for category in np.unique(detections.category_ids))
    return detections[np.sort(np.concatenate([rows[:MAX_DETECTIONS] for rows in of_class]))]


def _overlap(detections: CocoResults, annotations: list[dict]) -> np.ndarray:
    if not annotations:
        return np.empty((len(detections), 0))
    boxes = np.array([a["bbox"] for a in annotations], np.float64)
    return np.asarray(mask.iou(detections.boxes, boxes, [int(a.get("iscrowd", 0)) for a in annotations]))


def _largest(values: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of each row and its column plus ``offset``; -1 and -1 without columns."""
    if not values.shape[1]:
        return np.full(len(values), -1.0), np.full(len(values), -1)
    return values.max(1), values.argmax(1) + offset


def average_precision(scores: np.ndarray, true: np.ndarray, objects: int) -> float:
    """COCO's AP of one class at one IoU: precision made falling, at 101 recalls; 0 without objects or detections."""
    order = np.argsort(-scores, kind="stable")
    precision, recall = precision_recall(true[order], objects)
    if not len(precision):
        return 0.0
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.where(places < len(falling), falling[np.minimum(places, len(falling) - 1)], 0.0).mean())


def precision_recall(true: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall (D,) after each detection, best first; empty without objects."""
    if not objects:
        return np.empty(0), np.empty(0)
    hits = np.cumsum(true)
    return hits / np.arange(1, len(true) + 1), hits / objects
