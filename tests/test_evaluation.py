"""Evaluation is pycocotools': the ends of the scale, ids with gaps, and equality with a direct call."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate

NAMES, IDS = ("a", "b"), (3, 90)


def truth() -> COCO:
    rng = np.random.default_rng(0)
    images = [{"id": 7 * i + 1, "width": 200, "height": 200} for i in range(12)]
    annotations = []
    for image in images[:-1]:  # the last has no objects
        for _ in range(3):
            x, y, w, h = (float(v) for v in rng.uniform(5, 90, 4))
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "category_id": int(rng.choice(IDS))}
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], **box})
    coco = COCO()
    categories = [{"id": i, "name": n} for i, n in zip(IDS, NAMES, strict=True)]
    coco.dataset = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def results(coco: COCO, noise: float) -> list[dict]:
    rng = np.random.default_rng(1)
    return [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": [float(v + rng.normal(0, noise)) for v in a["bbox"]],
            "score": float(rng.random()),
        }
        for a in coco.dataset["annotations"]
    ]


def test_perfect_detections_have_ap_one_and_none_have_zero() -> None:
    coco = truth()
    assert evaluate(coco, results(coco, 0), NAMES, IDS).ap == pytest.approx(1)
    nothing = evaluate(coco, [], NAMES, IDS)
    assert nothing.ap == 0 and nothing.per_class_ap == {"a": 0.0, "b": 0.0}


def test_a_false_alarm_on_an_empty_image_costs() -> None:
    coco = truth()
    extra = {"image_id": 78, "category_id": 3, "bbox": [1.0, 1, 50, 50], "score": 2.0}
    assert evaluate(coco, [*results(coco, 0), extra], NAMES, IDS).ap < 1


def test_twelve_numbers_equal_a_direct_call() -> None:
    coco = truth()
    found = results(coco, 4)
    with contextlib.redirect_stdout(io.StringIO()):
        direct = COCOeval(coco, coco.loadRes([dict(r) for r in found]), "bbox")
        direct.evaluate()
        direct.accumulate()
        direct.summarize()
    ours = evaluate(coco, found, NAMES, IDS)
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    keys += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")
    assert [getattr(ours, k) for k in keys] == list(direct.stats)
    assert 0 < ours.ap < 1
    assert np.mean(list(ours.per_class_ap.values())) == pytest.approx(ours.ap)


def test_results_of_another_data_set_are_refused() -> None:
    with pytest.raises(YolomishError, match="not in the annotation file"):
        evaluate(truth(), [{"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}], NAMES, IDS)
