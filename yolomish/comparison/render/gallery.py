"""The validation images on which two arms disagree most, side by side with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from yolomish.data.datasets import DetectionData
from yolomish.drawing.boxes import draw_boxes
from yolomish.drawing.page import jpeg
from yolomish.evaluation.coco import counts_as_object
from yolomish.evaluation.coco_results import NOTHING, CocoResults
from yolomish.ops.boxes import box_iou_matrix

SHOWN_SCORE, MATCH_IOU = 0.25, 0.5
EACH = 2  # images in which A does better, and as many in which B does
WIDTH = 360  # px of a shown picture
MOST_BOXES, MOST_LETTERS = 12, 16  # of a picture, of a class


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One image: a JPEG of the truth and one per arm, and each arm's count of right and wrong boxes and missed objects."""

    name: str
    truth: bytes
    arms: tuple[str, ...]
    pictures: tuple[bytes, ...]
    counts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class _Found:
    boxes: np.ndarray
    labels: list[int]
    scores: list[float]
    right: list[bool]
    missed: int

    @property
    def net(self) -> int:
        return 2 * sum(self.right) - len(self.right) - self.missed


def _match(rows: CocoResults, boxes: np.ndarray, labels: np.ndarray, label_of: Mapping[int, int]) -> _Found:
    """An image's detections over the shown score, best first as they came, each right where it takes a free object of its class
    at IoU 0.5."""
    rows = rows[(rows.scores >= SHOWN_SCORE) & np.isin(rows.category_ids, list(label_of))]
    found, theirs = rows.boxes.copy(), [label_of[category] for category in rows.category_ids.tolist()]
    found[:, 2:] += found[:, :2]
    free = np.ones(len(boxes), bool)
    right = []
    for overlaps, label in zip(box_iou_matrix(torch.from_numpy(found), torch.from_numpy(boxes)).numpy(), theirs, strict=True):
        iou = np.where(free & (labels == label), overlaps, 0)
        best = int(iou.argmax()) if len(iou) else -1
        right.append(bool(best >= 0 and iou[best] >= MATCH_IOU))
        if right[-1]:
            free[best] = False
    return _Found(
        boxes=found,
        labels=theirs,
        scores=rows.scores.tolist(),
        right=right,
        missed=int(free.sum()),
    )


def disagreements(results: Mapping[str, CocoResults], data: DetectionData, *, each: int = EACH) -> tuple[Disagreement, ...]:
    """Up to ``each`` images that the first arm does better on and ``each`` that the second does, worst first.

    ``results`` holds COCO results of one run per arm. Better is more right boxes less wrong ones and missed objects, over
    score 0.25 at IoU 0.5. Both directions are shown, whatever the verdict.
    """
    label_of = {c: i for i, c in enumerate(data.category_ids)}
    by_image = {arm: found.by_image() for arm, found in results.items()}
    truth = data.coco()
    first, second = list(results)[:2]
    scored = []
    for index, image_id in enumerate(data.image_ids):
        wanted = [a for a in truth.imgToAnns[image_id] if counts_as_object(a)]
        boxes = np.array([a["bbox"] for a in wanted], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([label_of[a["category_id"]] for a in wanted], np.int64)
        net = [_match(by_image[arm].get(image_id, NOTHING), boxes, labels, label_of).net for arm in (first, second)]
        scored.append((net[0] - net[1], index))
    better = [i for gap, i in sorted(scored, key=lambda s: (-s[0], s[1]))[:each] if gap > 0]
    worse = [i for gap, i in sorted(scored)[:each] if gap < 0]
    return tuple(_show(index, data, by_image, label_of) for index in (*better, *worse))


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


def _show(
    index: int, data: DetectionData, by_image: Mapping[str, Mapping[int, CocoResults]], label_of: Mapping[int, int]
) -> Disagreement:
    sample = data.load(index)
    scale = WIDTH / sample.image.shape[1]
    size = (WIDTH, max(1, round(sample.image.shape[0] * scale)))
    small = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    names = [_short(name) for name in data.names]
    pictures, counts = [], []
    for rows in by_image.values():
        found = _match(rows.get(sample.image_id, NOTHING), sample.boxes.astype(np.float64), sample.labels, label_of)
        texts = [
            f"{'' if right else 'x '}{names[label]} {score:.2f}"
            for label, score, right in zip(found.labels, found.scores, found.right, strict=True)
        ]
        shown = sorted(range(len(texts)), key=lambda i: (not found.right[i], i))[:MOST_BOXES][::-1]  # the best on top
        labels = [found.labels[i] for i in shown]
        pictures.append(jpeg(draw_boxes(small, found.boxes[shown] * scale, labels, [texts[i] for i in shown])))
        counts.append((sum(found.right), len(found.right) - sum(found.right), found.missed))
    return Disagreement(
        name=data.path(index).name,
        truth=jpeg(draw_boxes(small, sample.boxes * scale, sample.labels.tolist(), [names[k] for k in sample.labels])),
        arms=tuple(by_image),
        pictures=tuple(pictures),
        counts=tuple(counts),
    )
