"""The data doctor finds each planted fault, and anchors fit the boxes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.ops import box_iou
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import DataConfig, load_data_config
from yolomish.data.anchors import kmeans_anchors, mean_best_iou, shape_ious
from yolomish.data.check import CHECKS, check_data, counts
from yolomish.data.datasets import open_data
from yolomish.data.formats import read_listing
from yolomish.errors import YolomishError


def picture(path: Path, seed: int, *, size_wh: tuple[int, int] = (60, 40), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def coco_set(root: Path, faults: bool) -> DataConfig:
    """Three training pictures and two for validation; with ``faults``, one of every kind."""
    for split, numbers in (("train", (1, 2, 3)), ("val", (11, 12))):
        for n in numbers:
            picture(root / split / f"{n}.jpg", n, orientation=6 if faults and n == 2 else 1)
        images = [{"id": n, "file_name": f"{n}.jpg", "width": 60, "height": 40} for n in numbers]
        annotations = [
            {"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0} for n in numbers
        ]
        content = {"images": images, "annotations": annotations, "categories": [{"id": i, "name": f"c{i}"} for i in (1, 2)]}
        if faults and split == "train":
            boxes = [[5, 5, 0, 10], [30, 20, 50, 10], [100, 5, 10, 10], [5, 5, 20, 20]]
            annotations += [{"id": 50 + i, "image_id": 1, "category_id": 2, "bbox": b} for i, b in enumerate(boxes)]
            annotations += [{"id": 60, "image_id": 1, "category_id": 9, "bbox": [1, 1, 5, 5]}]
            annotations += [{"id": 61, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5]}]
            images += [{"id": i, "file_name": f"{i}.jpg", "width": 60, "height": 40} for i in (4, 5, 6)]
            (root / "train" / "5.jpg").write_bytes((root / "train" / "1.jpg").read_bytes()[:400])
            shutil.copy(root / "train" / "3.jpg", root / "train" / "6.jpg")
            content["categories"].append({"id": 3, "name": "never"})
        if faults and split == "val":
            images += [{"id": 3, "file_name": "3.jpg"}]
            shutil.copy(root / "train" / "3.jpg", root / "val" / "3.jpg")
        (root / f"{split}.json").write_text(json.dumps(content))
    lines = "format: coco\ntrain: train.json\ntrain_images: train\nval: val.json\nval_images: val\n"
    (root / "data.yaml").write_text(lines)
    return load_data_config(str(root / "data.yaml"))


def test_a_sound_data_set_has_no_findings(tmp_path: Path) -> None:
    assert check_data(coco_set(tmp_path, faults=False)) == []


def test_every_planted_fault_is_found_and_nothing_else(tmp_path: Path) -> None:
    findings = check_data(coco_set(tmp_path, faults=True))
    found = {check: [f.message for f in findings if f.check == check] for check in CHECKS}
    expected = {
        "annotation-malformed": ["annotation 61"],
        "image-missing": ["4.jpg"],
        "image-unreadable": ["5.jpg"],
        "size-differs": ["2.jpg"],
        "label-unknown": ["annotation 60"],
        "box-outside": ["annotation 52"],
        "classes-reordered": ["val.json does not number its classes as"],
        "train-val-overlap-content": ["3.jpg"],
        "box-degenerate": ["annotation 50"],
        "box-clipped": ["annotation 51"],
        "box-duplicate": ["1.jpg: 2 times"],
        "image-duplicate": ["6.jpg equals"],
        "exif-rotated": ["2.jpg"],
        "class-empty": ["never"],
    }
    for check, parts in expected.items():
        assert len(found[check]) == len(parts), (check, found[check])
        assert all(part in message for part, message in zip(parts, found[check], strict=True)), (check, found[check])
    assert "swapped" in found["size-differs"][0] and not found["split-unreadable"] and len(found["image-empty"]) == 2
    assert [f.check for f in findings] == sorted((f.check for f in findings), key=list(CHECKS).index)
    assert counts(findings)["error"] == 7


def test_equal_ids_in_two_files_are_no_overlap(tmp_path: Path) -> None:
    config = coco_set(tmp_path, faults=False)
    content = json.loads((tmp_path / "val.json").read_text())
    for key, field in (("images", "id"), ("annotations", "image_id")):
        for item in content[key]:
            item[field] -= 10
    (tmp_path / "val.json").write_text(json.dumps(content))
    assert open_data(config, "val").image_ids == (1, 2) and check_data(config) == []


def test_opening_raises_the_first_error_that_check_lists(tmp_path: Path) -> None:
    config = coco_set(tmp_path, faults=True)
    for split in ("train", "val"):
        errors = [f.message for f in read_listing(config, split).findings if f.severity == "error"]
        assert errors == [f.message for f in check_data(config) if f.severity == "error" and f.message in errors]
        if errors:
            with pytest.raises(YolomishError, match=re.escape(errors[0])):
                open_data(config, split)
        else:
            assert len(open_data(config, split)) == 3


def test_fast_reads_no_pixels_but_finds_sizes(tmp_path: Path) -> None:
    checks = {f.check for f in check_data(coco_set(tmp_path, faults=True), fast=True)}
    assert "size-differs" in checks and "image-duplicate" not in checks and "train-val-overlap-content" not in checks


def test_yolo_lines_are_named(tmp_path: Path) -> None:
    for n in (1, 2):
        picture(tmp_path / "images" / f"{n}.png", n)
        (tmp_path / "labels").mkdir(exist_ok=True)
    (tmp_path / "labels" / "1.txt").write_text("0 .5 .5 .2 .2\n7 .5 .5 .2 .2\nzero .5 .5 .2 .2\n0 .9 .5 .4 .2\n")
    findings = check_data(DataConfig(format="yolo", root=str(tmp_path), train="images", val="images", names=("a",)))
    train = {f.check: f.message for f in findings if f.split == "train"}
    assert "1.txt:2: class '7'" in train["label-unknown"] and "1.txt:3" in train["annotation-malformed"]
    assert "1.txt:4" in train["box-clipped"]
    assert [f.message[:10] for f in findings if f.check == "train-val-overlap-file"] == ["all 2 imag"] and not any(
        "equals" in f.message for f in findings
    )


def test_bccds_two_degenerate_boxes_are_found(shared_data: Path) -> None:
    findings = check_data(DataConfig(format="voc", root=str(shared_data / "bccd")), fast=True)
    assert sorted((f.check, f.split) for f in findings) == [("box-degenerate", "train"), ("box-degenerate", "val")]


def test_check_exits_by_severity(tmp_path: Path) -> None:
    coco_set(tmp_path / "bad", faults=True)
    coco_set(tmp_path / "good", faults=False)
    run = lambda *options: CliRunner().invoke(app, ["check", *options])  # noqa: E731
    bad = str(tmp_path / "bad" / "data.yaml")
    assert run(str(tmp_path / "good" / "data.yaml"), "--strict").exit_code == 0
    assert run(bad).exit_code == 1
    assert run(bad, "--only", "exif-rotated").exit_code == 0 and run(bad, "--only", "exif-rotated", "--strict").exit_code == 1
    content = json.loads(run(bad, "--json").output)
    assert content["counts"]["error"] == 7 and content["findings"][0]["severity"] == "error"
    assert "did you mean" in str(run(bad, "--only", "exif-rotate").exception)


def test_planted_box_sizes_are_recovered() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[20, 30], [60, 40], [50, 120], [200, 180]])
    sizes = np.concatenate([c * rng.normal(1, 0.03, (80, 2)) for c in centres])
    np.testing.assert_allclose(kmeans_anchors(sizes, 4), centres, rtol=0.03)
    assert np.array_equal(kmeans_anchors(sizes, 4, seed=3), kmeans_anchors(sizes, 4, seed=3))


def test_iou_means_beat_euclids() -> None:
    cluster = pytest.importorskip("scipy.cluster.vq")
    sizes = np.exp(np.random.default_rng(1).normal(3.5, 0.8, (600, 2)))
    euclid, _ = cluster.kmeans2(sizes, 9, seed=0, minit="++")
    assert mean_best_iou(sizes, kmeans_anchors(sizes, 9)) > mean_best_iou(sizes, euclid) + 0.01


def test_shape_ious_equal_torchvisions_and_few_sizes_are_refused() -> None:
    sizes, anchors = np.random.default_rng(2).uniform(1, 50, (2, 7, 2))
    boxes = [torch.from_numpy(np.concatenate((-s / 2, s / 2), 1)) for s in (sizes, anchors)]
    np.testing.assert_allclose(shape_ious(sizes, anchors), box_iou(*boxes).numpy(), rtol=1e-9)
    with pytest.raises(YolomishError, match="3 different"):
        kmeans_anchors(np.array([[1.0, 2], [3, 4], [5, 6], [1, 2]]), 4)


def test_anchors_prints_yaml_and_both_ious() -> None:
    result = CliRunner().invoke(app, ["anchors", "shapes", "-n", "9", "--imgsz", "192"], catch_exceptions=False)
    values = yaml.safe_load(result.output)["anchors"]
    assert len(values) == 9 and values == sorted(values, key=lambda a: a[0] * a[1])
    numbers = [float(w) for w in result.output.splitlines()[1].replace(",", "").split() if w.startswith("0.")]
    assert len(numbers) == 2 and numbers[1] > numbers[0]
