"""Evaluation is pycocotools': the ends of the scale, ids with gaps, and equality with a direct call."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from reference.builders import pipeline_of

from yolomish.config import ModelConfig, load_data_config
from yolomish.data.datasets import open_data
from yolomish.data.loader import rectangles
from yolomish.data.transforms import resize_image
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate
from yolomish.evaluation.coco_results import NOTHING, CocoResults
from yolomish.networks import build_network
from yolomish.tasks.detection.predict import predict

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


def results(coco: COCO, noise: float) -> CocoResults:
    rng = np.random.default_rng(1)
    return CocoResults.of(
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": [float(v + rng.normal(0, noise)) for v in a["bbox"]],
            "score": float(rng.random()),
        }
        for a in coco.dataset["annotations"]
    )


def test_perfect_detections_have_ap_one_and_none_have_zero() -> None:
    coco = truth()
    assert evaluate(coco, results(coco, 0), NAMES, IDS).score == pytest.approx(1)
    nothing = evaluate(coco, NOTHING, NAMES, IDS)
    assert nothing.score == 0 and nothing.per_class == {"a": 0.0, "b": 0.0}


def test_a_false_alarm_on_an_empty_image_costs() -> None:
    coco = truth()
    extra = {"image_id": 78, "category_id": 3, "bbox": [1.0, 1, 50, 50], "score": 2.0}
    assert evaluate(coco, CocoResults.of([*results(coco, 0), extra]), NAMES, IDS).score < 1


def test_twelve_numbers_equal_a_direct_call() -> None:
    coco = truth()
    found = results(coco, 4)
    with contextlib.redirect_stdout(io.StringIO()):
        direct = COCOeval(coco, coco.loadRes(list(found)), "bbox")
        direct.evaluate()
        direct.accumulate()
        direct.summarize()
    ours = evaluate(coco, found, NAMES, IDS)
    assert tuple(ours.values) == ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    assert list(ours.values.values()) == list(direct.stats)
    assert 0 < ours.score < 1
    assert np.mean(list(ours.per_class.values())) == pytest.approx(ours.score)


def test_results_of_another_data_set_are_refused() -> None:
    with pytest.raises(YolomishError, match="not in the annotation file"):
        evaluate(truth(), CocoResults.of([{"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}]), NAMES, IDS)


def test_rectangles_hold_every_image_once_at_full_scale() -> None:
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(40, 900, (37, 2))]
    groups = rectangles(sizes, (416, 416), 5, 32)
    assert sorted(i for chosen, _ in groups for i in chosen) == list(range(37))
    for chosen, (height, width) in groups:
        assert height % 32 == width % 32 == 0 and max(height, width) == 416
        for i in chosen:
            _, resize = resize_image(np.zeros((*sizes[i], 3), np.uint8), (height, width), "letterbox", grey=114)
            assert resize.scale_x == pytest.approx(416 / max(sizes[i]), rel=0.02)  # rounded to whole px
    square = sum(416 * 416 * len(chosen) for chosen, _ in groups)
    assert sum(h * w * len(chosen) for chosen, (h, w) in groups) < 0.8 * square


def test_rectangular_batches_find_what_squares_find() -> None:
    data = open_data(load_data_config("shapes"), "val")
    model = build_network(ModelConfig(name="n", width=0.125, depth=0.25, num_classes=4))
    options = {"resize": "letterbox", "conf": 0.0, "iou": 1.0, "nms": "iou", "max_det": 5}
    square = predict(pipeline_of(model, 64, **options), data)
    assert {r["image_id"] for r in square} == set(data.image_ids)
    key = lambda r: (r["image_id"], r["category_id"], r["score"])  # noqa: E731
    both = zip(
        sorted(square, key=key),
        sorted(predict(pipeline_of(model, 64, rect=True, **options), data, batch=7), key=key),
        strict=True,
    )
    for a, b in both:  # the shapes are square pictures: the same network input in another order
        assert a["image_id"] == b["image_id"] and a["bbox"] == pytest.approx(b["bbox"], abs=1e-2)
