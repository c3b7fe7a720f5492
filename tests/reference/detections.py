"""Simulated truth and detectors whose quality is known: as COCO files, or matched already for thousands of experiments."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO

from yolomish.evaluation.coco_results import CocoResults
from yolomish.evaluation.resample import Matches, Ranked


def coco(images: list[dict], annotations: list[dict], categories: int) -> COCO:
    """A COCO truth with categories 1, 3, 5, ..."""
    truth = COCO()
    names = [{"id": 2 * k + 1, "name": f"class{k}"} for k in range(categories)]
    truth.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": names}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def simulate_truth(images: int, categories: int, *, objects: float = 6, seed: int = 0, crowds: float = 0.03) -> COCO:
    """Objects of all sizes; a few crowds; image ids with gaps; common and rare categories, the last one without objects."""
    rng = np.random.default_rng(seed)
    files, annotations = [], []
    for i in range(images):
        files.append({"id": 7 * i + 3, "width": 640, "height": 480, "file_name": f"{i}.jpg"})
        for _ in range(rng.poisson(objects)):
            w, h = (float(v) for v in np.exp(rng.uniform(np.log(8), np.log(300), 2)))
            label = min(int(rng.geometric(min(1.0, 3 / categories))), categories - 1) - 1
            box = [float(rng.uniform(0, 640 - w)), float(rng.uniform(0, 480 - h)), w, h]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 7 * i + 3, "category_id": 2 * label + 1, "bbox": box}
                | {"area": 0.7 * w * h, "iscrowd": int(rng.random() < crowds)}
            )
    return coco(files, annotations, categories)


def simulate_results(truth: COCO, *, found: float = 0.75, seed: int = 0, clutter: float = 8) -> CocoResults:
    """A detector that finds a share ``found`` of the objects, jitters their boxes, repeats some, and adds clutter.

    Scores are rounded, so that many are equal. Equal seeds draw the same, whatever ``found``: such arms are paired.
    """
    rng = np.random.default_rng(seed)
    labels = [c["id"] for c in truth.dataset["categories"]]
    results = []
    for image in truth.dataset["images"]:
        for annotation in truth.imgToAnns[image["id"]]:
            x, y, w, h = annotation["bbox"]
            for repeat in range(2):
                dice, jitter, score = rng.random(2), rng.normal(0, 0.07, 4), round(float(rng.beta(5, 2)), 2)
                if dice[0] < (found if repeat == 0 else 0.1):
                    label = annotation["category_id"] if dice[1] < 0.93 else labels[int(dice[1] * 1000) % len(labels)]
                    box = [x + jitter[0] * w, y + jitter[1] * h, w * float(np.exp(jitter[2])), h * float(np.exp(jitter[3]))]
                    results.append({"image_id": image["id"], "category_id": label, "bbox": box, "score": score})
        for _ in range(rng.poisson(clutter)):
            w, h = (float(v) for v in np.exp(rng.uniform(np.log(8), np.log(300), 2)))
            box = [float(rng.uniform(0, 640)), float(rng.uniform(0, 480)), w, h]
            label = labels[int(rng.integers(len(labels)))]
            results.append({"image_id": image["id"], "category_id": label, "bbox": box, "score": round(float(rng.beta(2, 5)), 2)})
    return CocoResults.of(results)


class Images:
    """Drawn images of one category: objects in each, how hard each is, and the dice that every detector is held against."""

    def __init__(self, images: int, rng: np.random.Generator) -> None:
        self.objects = rng.poisson(4, images)
        self.hard = rng.normal(0, 0.7, images)
        self.owner = np.repeat(np.arange(images), self.objects)
        self.luck = rng.normal(0, 0.7, len(self.owner))

    def detect(self, quality: float, rng: np.random.Generator) -> Matches:
        """The matches of a detector; ``quality`` moves the IoUs that it reaches and its scores."""
        reach = quality - self.hard[self.owner] + self.luck + rng.normal(0, 0.7, len(self.owner))
        clutter = np.repeat(np.arange(len(self.objects)), rng.poisson(3, len(self.objects)))
        scores = np.concatenate((0.5 * reach + rng.normal(0, 0.5, len(reach)), rng.normal(-0.8, 0.7, len(clutter))))
        hit = np.concatenate((reach[None] > np.linspace(-0.5, 2.5, 10)[:, None], np.zeros((10, len(clutter)), bool)), 1)
        order = np.argsort(-scores, kind="mergesort")
        owner = np.concatenate((self.owner, clutter))[order].astype(np.int32)
        ranked = Ranked(image=owner, hit=hit[:, order], counted=np.ones_like(hit))
        none = Ranked(image=np.empty(0, np.int32), hit=np.empty((10, 0), bool), counted=np.empty((10, 0), bool))
        truths = np.zeros((1, 4, len(self.objects)), np.int32)
        truths[0, 0] = self.objects
        ids = tuple(range(len(self.objects)))
        return Matches(image_ids=ids, category_ids=(1,), truths=truths, ranked=((ranked, none, none, none),))
