"""Detections against Darknet's own: what `detector valid` and `detector test` found with the official yolov4-tiny.weights."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from reference.stb_jpeg import read_jpeg

from yolomish import Detector
from yolomish.config import DataConfig
from yolomish.data.datasets import DetectionData, open_data
from yolomish.evaluation.coco import evaluate
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import PROTOCOLS
from yolomish.weights.load import LoadedNetwork, load_network

AP = {"AP": 0.27934, "AP50": 0.49131, "AP75": 0.28225}  # pycocotools on Darknet's file
Rows = dict[int, list[dict]]


@pytest.fixture
def official(shared_data: Path) -> LoadedNetwork:
    """yolov4-tiny as released, by Darknet's cfg."""
    weights, cfg = shared_data / "weights" / "yolov4-tiny.weights", shared_data / "darknet-cfg" / "yolov4-tiny.cfg"
    return load_network(str(weights), cfg=str(cfg))


@pytest.fixture
def coco_mini(shared_data: Path) -> DetectionData:
    """79 images of val2017."""
    root = shared_data / "coco-mini"
    annotations = str(root / "annotations" / "instances_val2017.json")
    return open_data(DataConfig(format="coco", root=str(root), val=annotations, val_images=str(root / "val2017")), "val")


@pytest.fixture
def darknets(shared_data: Path) -> Rows:
    """What `detector valid` wrote, by image."""
    with gzip.open(shared_data / "oracle" / "yolov4-tiny-416-coco-mini-darknet.json.gz") as file:
        return by_image(json.load(file))


def by_image(rows: list[dict]) -> Rows:
    found = defaultdict(list)
    for row in rows:
        found[row["image_id"]].append(row)
    return found


def unmatched(wanted: Rows, found: Rows, *, px: float, score: float, above: float = 0.01) -> tuple[int, int]:
    """How many of the ``wanted`` boxes scored ``above`` have none among ``found`` within so many px and so much score, each
    of which serves once; and how many were wanted."""
    lost = count = 0
    for image_id, rows in wanted.items():
        theirs = {k: [r for r in found.get(image_id, []) if r["category_id"] == k] for k in {r["category_id"] for r in rows}}
        for row in (r for r in rows if r["score"] > above):
            count += 1
            near = [
                (np.abs(np.subtract(corners(other), corners(row))).max(), other)
                for other in theirs[row["category_id"]]
                if abs(other["score"] - row["score"]) <= score
            ]
            distance, nearest = min(near, key=lambda pair: pair[0], default=(np.inf, row))
            if distance > px:
                lost += 1
            else:
                theirs[row["category_id"]].remove(nearest)
    return lost, count


def corners(row: dict) -> list[float]:
    x, y, w, h = row["bbox"]
    return [x, y, x + w, y + h]


def test_with_darknets_pixels_valid_finds_the_same_boxes_and_ap(
    official: LoadedNetwork, coco_mini: DetectionData, darknets: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolomish.data.kept.read_image", read_jpeg)
    pipeline = Pipeline(runner=official.network, protocol=PROTOCOLS["darknet"], size_hw=(416, 416))
    rows = predict(pipeline, coco_mini)
    found = by_image(rows)
    for wanted, given in ((darknets, found), (found, darknets)):
        lost, count = unmatched(wanted, given, px=0.5, score=1e-3)
        assert count == 4999 and lost <= 4  # 99.9 %
    assert len(rows) == pytest.approx(25025, abs=3)  # a score of 0.001 may fall on either side
    metrics = evaluate(coco_mini.coco(), rows, coco_mini.names, coco_mini.category_ids)
    assert {key: metrics.values[key] for key in AP} == pytest.approx(AP, abs=5e-5)


def test_what_is_left_is_the_jpeg_decoder(official: LoadedNetwork, coco_mini: DetectionData, darknets: Rows) -> None:
    some = coco_mini.first(16)
    pipeline = Pipeline(runner=official.network, protocol=PROTOCOLS["darknet"], size_hw=(416, 416))
    lost, count = unmatched({i: darknets[i] for i in some.image_ids}, by_image(predict(pipeline, some)), px=1.0, score=0.01)
    assert count > 900 and lost <= 0.01 * count
    apart = np.abs(some.load(0).image.astype(int) - read_jpeg(some.path(0)))
    assert apart.max() <= 2 and 0 < apart.mean() < 0.02


def test_detect_shows_what_darknets_test_shows(official: LoadedNetwork, shared_data: Path) -> None:
    detector = Detector(official, engine="torch", device="cpu")
    protocol = detector.pipeline.protocol
    assert (protocol.name, protocol.nms_frame, protocol.conf, protocol.iou) == ("darknet-test", "relative", 0.25, 0.45)
    frames = json.loads((shared_data / "oracle" / "yolov4-tiny-416-photos-darknet.json").read_text())
    assert len(frames) == 5
    for frame in frames:
        path = shared_data / "photos" / Path(frame["filename"]).name
        pixels = read_jpeg(path)
        size = np.tile(pixels.shape[1::-1], 2)
        objects = sorted(frame["objects"], key=lambda row: -row["confidence"])
        places = np.array(
            [[row["relative_coordinates"][k] for k in ("center_x", "center_y", "width", "height")] for row in objects]
        )
        boxes = np.concatenate((places[:, :2] - places[:, 2:] / 2, places[:, :2] + places[:, 2:] / 2), 1) * size
        for image, px, score in ((pixels, 0.01, 1e-5), (path, 1.0, 0.015)):
            found = detector.detect(image)
            assert [detector.names[label] for label in found.labels] == [row["name"] for row in objects]
            np.testing.assert_allclose(found.boxes, boxes.clip(0, size), atol=px)
            np.testing.assert_allclose(found.scores, [row["confidence"] for row in objects], atol=score)
