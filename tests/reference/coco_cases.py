"""Ground truth and detections in COCO's form, by hand or by chance."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO

from yolomish.evaluation.coco_results import CocoResults

NAMES, IDS = ("cat", "dog", "bird"), (2, 5, 11)


def coco(objects: list[tuple], images: int = 1) -> COCO:
    """Ground truth of (image, label, xywh[, crowd])."""
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "width": 400, "height": 400} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": n} for i, n in zip(IDS, NAMES, strict=True)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": IDS[label],
                "bbox": list(map(float, box)),
                "area": float(box[2] * box[3]),
                "iscrowd": int(any(crowd)),
            }
            for number, (image, label, box, *crowd) in enumerate(objects, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def detections(found: list[tuple]) -> CocoResults:
    """COCO results of (image, label, xywh, score)."""
    return CocoResults.of({"image_id": i, "category_id": IDS[k], "bbox": b, "score": s} for i, k, b, s in found)


def random_case(seed: int, *, crowds: bool = False) -> tuple[COCO, CocoResults]:
    """Thirty images with objects, and a detector that makes every kind of error."""
    rng = np.random.default_rng(seed)
    objects, found = [], []
    for image in range(1, 31):
        for _ in range(int(rng.integers(0, 6))):
            label, box = int(rng.integers(3)), [*rng.uniform(0, 250, 2), *rng.uniform(20, 120, 2)]
            objects.append((image, label, box, crowds and rng.random() < 0.15))
            for _ in range(int(rng.integers(0, 4))):
                noise = rng.normal(0, rng.choice([2.0, 15.0, 40.0]), 4)
                guess = label if rng.random() < 0.7 else int(rng.integers(3))
                moved = [*(np.array(box[:2]) + noise[:2]), *np.maximum(np.array(box[2:]) + noise[2:], 5)]
                found.append((image, guess, moved, rng.random()))
        for _ in range(int(rng.integers(0, 3))):
            found.append((image, int(rng.integers(3)), [*rng.uniform(0, 300, 2), *rng.uniform(10, 90, 2)], rng.random()))
    return coco(objects, 31), detections(found)
