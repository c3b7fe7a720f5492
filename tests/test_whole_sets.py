"""Whole data sets, unchanged, through check, training steps and evaluation: AP is what pycocotools alone makes of the files."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from reference.comparison import MODEL
from reference.detections import simulate_results

from yolomish.config import DataConfig, TrainConfig, load_data_config
from yolomish.data.check import check_data, counts
from yolomish.data.datasets import open_data
from yolomish.data.shapes import shapes_root
from yolomish.evaluation.coco import NAMES, run_cocoeval
from yolomish.evaluation.coco_results import CocoResults
from yolomish.inference.evaluate import evaluate_weights
from yolomish.tasks.detection.protocol import find_protocol
from yolomish.training.build import prepare
from yolomish.weights.load import load_network


def pycocotools_alone(truth: COCO, results: Iterable[dict]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(list(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def two_steps(data: DataConfig) -> tuple[int, int]:
    """Takes two steps; returns the numbers of training and validation images."""
    config = TrainConfig(model=MODEL, data=data, image_size=96, batch=4, burn_in=1, workers=0, device="cpu")
    run = prepare(config, lambda _: None)
    batches = iter(run.task.loader(run.train, config, run.network, epoch=0))
    run.train_mode()
    for number in (1, 2):
        losses, _ = run.step([next(batches)], number)
        assert torch.isfinite(losses).all() and losses.sum() > 0
    return len(run.train), len(run.val)


def test_coco_mini_is_read_as_its_folder(shared_data: Path, tmp_path: Path) -> None:
    """Official COCO JSON with crowds and without ``info`` in a file, with the official yolov4-tiny."""
    root = shared_data / "coco-mini"
    data = load_data_config(str(root))
    assert counts(check_data(data, fast=True))["error"] == 0
    assert two_steps(data) == (80, 79)
    weights, cfg = shared_data / "weights" / "yolov4-tiny.weights", shared_data / "darknet-cfg" / "yolov4-tiny.cfg"
    loaded = load_network(str(weights), cfg=str(cfg))
    settings = {"size_hw": (128, 128), "plots": False, "device": "cpu", "log": lambda _: None}
    done = evaluate_weights(str(weights), loaded, data, find_protocol("darknet").changed(conf=0.05), tmp_path / "out", **settings)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(root / "annotations" / "instances_val2017.json"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [done.metrics[name] for name in NAMES] == pycocotools_alone(theirs, results) and done.metrics["AP"] > 0.05
    assert (
        sum(a["iscrowd"] for a in theirs.dataset["annotations"])
        == 5
        == sum(r.crowd.sum() for r in open_data(data, "val").listing.records)
    )


def test_bccd_is_read_as_its_folder(shared_data: Path) -> None:
    """VOC with two boxes without area, against a ground truth made of the XML here."""
    root = shared_data / "bccd"
    config = load_data_config(str(root))
    found = check_data(config, fast=True)
    assert [(f.check, f.severity) for f in found] == [("box-degenerate", "warning")] * 2
    assert two_steps(config) == (205, 87)
    data = open_data(config, "val")
    results = simulate_results(data.coco())
    theirs, names = COCO(), {"Platelets": 1, "RBC": 2, "WBC": 3}
    annotations = []
    stems = (root / "ImageSets" / "val.txt").read_text().split()
    for image_id, stem in enumerate(stems, 1):
        for item in ElementTree.parse(root / "Annotations" / f"{stem}.xml").iter("object"):
            x0, y0, x1, y1 = (int(item.find("bndbox").findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax"))  # type: ignore
            w, h = x1 - x0 + 1, y1 - y0 + 1
            if x1 > x0 and y1 > y0:
                box = {"bbox": [x0 - 1, y0 - 1, w, h], "area": w * h, "iscrowd": 0, "image_id": image_id}
                annotations.append({"id": len(annotations) + 1, "category_id": names[item.findtext("name") or ""], **box})
    images = [{"id": i} for i in range(1, len(stems) + 1)]
    theirs.dataset = {"images": images, "annotations": annotations, "categories": [{"id": i} for i in names.values()]}
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.createIndex()
    ours = run_cocoeval(data.coco(), results).stats.tolist()
    assert ours == pycocotools_alone(theirs, results) and 0.1 < ours[0] < 1


def test_objects_that_voc_calls_difficult_are_left_out_of_the_demos_ap(tmp_path: Path) -> None:
    """The demo weights on 30 pictures, the objects under 32 x 32 px being difficult: AP 0.677, and 0.620 where they count."""
    shapes = open_data(load_data_config("shapes"), "val").first(30)
    for name in ("Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "JPEGImages").symlink_to(shapes_root() / "val")
    for record in shapes.listing.records:
        text = ""
        for label, area, (x0, y0, x1, y1) in zip(record.labels, record.areas, record.boxes, strict=True):
            box = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            hard = f"<difficult>{int(area < 32**2)}</difficult>"
            text += f"<object><name>{shapes.names[label]}</name>{hard}<bndbox>{box}</bndbox></object>"
        (tmp_path / "Annotations" / f"{record.path.stem}.xml").write_text(f"<annotation>{text}</annotation>")
    lines = "".join(f"{record.path.stem}\n" for record in shapes.listing.records)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text(lines)
    data = load_data_config(str(tmp_path))
    done = evaluate_weights(
        "demo",
        load_network("demo"),
        data,
        find_protocol("darknet"),
        tmp_path / "out",
        plots=False,
        device="cpu",
        log=lambda _: None,
    )
    assert done.metrics["AP"] == pytest.approx(0.6774, abs=0.002)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    truth = open_data(data, "val").with_classes(shapes.names, "demo")
    counting = [replace(record, ignore=np.zeros_like(record.ignore)) for record in truth.listing.records]
    truth = type(truth)(replace(truth.listing, records=tuple(counting)))
    assert run_cocoeval(truth.coco(), CocoResults.of(results)).stats[0] == pytest.approx(0.6196, abs=0.002)
