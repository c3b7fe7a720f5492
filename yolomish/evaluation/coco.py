"""COCO's twelve numbers, from pycocotools, or from a faster alternative backend with the same ones."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolomish.errors import YolomishError, unknown_name
from yolomish.evaluation.coco_results import CocoResults
from yolomish.types import Metrics

# COCOeval.stats, in its order
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# name -> package, class of the annotations, class of the evaluation; both have pycocotools' interface
BACKENDS = {
    "pycocotools": ("pycocotools", "COCO", "COCOeval"),
    "faster": ("faster_coco_eval", "COCO", "COCOeval_faster"),
    "hotcoco": ("hotcoco", "COCO", "COCOeval"),
}


def counts_as_object(annotation: dict) -> bool:
    """Whether a ground-truth annotation counts as found or missed: no crowd, and not one that VOC calls difficult."""
    return not annotation.get("iscrowd") and not annotation.get("difficult")


class _Evaluation(COCOeval):
    """pycocotools' evaluation in which an object with ``difficult`` 1 counts neither as missed nor, found any number of
    times, as found or as a false alarm (VOC development kit, VOCevaldet.m). Without such objects nothing differs.

    The ground truth's ``ignore`` cannot say so: ``_prepare`` overwrites it by ``iscrowd``. Nor can ``iscrowd``, since a
    crowd's overlap is divided by the detection's area alone, so that any small box inside it would be excused. Hence a
    difficult object is matched as a crowd is, with an object's IoU. Detections become the dicts that pycocotools reads when
    they are asked for.
    """

    def __init__(self, truth: COCO, results: CocoResults) -> None:
        super().__init__(truth, COCO(), "bbox")
        self._results = results

    def _prepare(self) -> None:
        super()._prepare()
        self._dts = _Cells(self._results, self.params.imgIds, self.params.catIds)
        for objects in self._gts.values():
            objects[:] = [{**a, "iscrowd": 1, "ignore": 1} if a.get("difficult") else a for a in objects]

    def computeIoU(self, imgId: int, catId: int) -> Any:
        difficult = [a for a in self._gts[imgId, catId] if a.get("difficult")]
        for annotation in difficult:
            annotation["iscrowd"] = 0
        ious = super().computeIoU(imgId, catId)
        for annotation in difficult:
            annotation["iscrowd"] = 1
        return ious


class _Cells:
    """The detections of an image and a category, as COCO.loadRes makes them and in its order, made anew for each question."""

    def __init__(self, results: CocoResults, image_ids: Sequence[int], category_ids: Sequence[int]) -> None:
        self._categories = {category: k for k, category in enumerate(category_ids)}
        self._images = {image_id: i * len(category_ids) for i, image_id in enumerate(image_ids)}
        known = np.flatnonzero(np.isin(results.image_ids, image_ids) & np.isin(results.category_ids, category_ids))
        owners = np.searchsorted(image_ids, results.image_ids[known]) * len(category_ids)  # both are in ascending order
        owners += np.searchsorted(category_ids, results.category_ids[known])
        order = np.argsort(owners, kind="stable")
        self._rows = known[order]
        self._found = results[self._rows]
        self._starts = np.searchsorted(owners[order], np.arange(len(image_ids) * len(category_ids) + 1)).tolist()

    def __getitem__(self, key: tuple[int, int]) -> list[dict[str, Any]]:
        cell = self._images[key[0]] + self._categories[key[1]]
        first, last = self._starts[cell], self._starts[cell + 1]
        if first == last:
            return []
        part = self._found[first:last]
        return [
            {"id": row + 1, "bbox": box, "area": box[2] * box[3], "score": score}
            for row, box, score in zip(self._rows[first:last].tolist(), part.boxes.tolist(), part.scores.tolist(), strict=True)
        ]


def run_cocoeval(truth: COCO, results: CocoResults) -> COCOeval:
    """An accumulated and summarised COCOeval of bbox results, silent; no rows are a detector that finds nothing."""
    _check_images(truth, results)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _Evaluation(truth, results)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _check_images(truth: COCO, results: CocoResults) -> None:
    foreign = set(np.unique(results.image_ids).tolist()) - set(truth.getImgIds())
    if foreign:
        raise YolomishError(
            f"{len(foreign)} image ids of the results (such as {min(foreign)}) are not in the annotation file: "
            "were they made on another data set?"
        )


def check_backend(name: str) -> None:
    """YolomishError where an evaluation backend is unknown or not installed."""
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    try:
        importlib.import_module(BACKENDS[name][0])
    except ImportError:
        package = BACKENDS[name][0].replace("_", "-")
        raise YolomishError(f"--backend {name} needs {package}: pip install {package}, or leave the option off") from None


def _run_backend(truth: COCO, results: CocoResults, backend: str) -> Any:
    check_backend(backend)
    if backend == "pycocotools" or not len(results):
        return run_cocoeval(truth, results)
    _check_images(truth, results)
    if any(annotation.get("difficult") for annotation in truth.dataset["annotations"]):
        raise YolomishError(f"--backend {backend} does not leave out VOC's difficult objects: leave the option off")
    package, annotations, evaluator = BACKENDS[backend]
    module = importlib.import_module(package)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = getattr(module, annotations)(copy.deepcopy(truth.dataset))
        evaluation = getattr(module, evaluator)(theirs, theirs.loadRes(list(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def evaluate(
    truth: COCO, results: CocoResults, names: Sequence[str], category_ids: Sequence[int], *, backend: str = "pycocotools"
) -> Metrics:
    """The twelve numbers and AP per class of COCO results against ``truth``, by a backend of ``BACKENDS``."""
    evaluation = _run_backend(truth, results, backend)
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, 2]  # (IoU, recall, class), all areas, 100 detections
    per_class = {}
    order = list(evaluation.params.catIds)
    for name, category in zip(names, category_ids, strict=True):
        values = precision[:, :, order.index(category)]
        per_class[name] = float(values[values > -1].mean()) if (values > -1).any() else -1.0
    numbers = [float(v) for v in np.asarray(evaluation.stats)[: len(NAMES)]]
    return Metrics(primary="AP", values=dict(zip(NAMES, numbers, strict=True)), per_class=per_class)
