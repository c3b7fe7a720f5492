"""The smallest runs, data that changes under a run, and classes in another order: the right numbers or one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import noise_data
from reference.comparison import MODEL
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison.evidence import predictions, require_classes
from yolomish.comparison.runs import read_run
from yolomish.config import DataConfig, TrainConfig, load_data_config
from yolomish.data.check import check_data
from yolomish.data.classes import class_places
from yolomish.data.datasets import open_data
from yolomish.data.loader import smallest_step
from yolomish.data.shapes import shapes_root
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import run_cocoeval
from yolomish.evaluation.coco_results import CocoResults
from yolomish.training.build import prepare
from yolomish.training.loop import fit


def tiny(data: DataConfig, **settings: object) -> TrainConfig:
    base = TrainConfig(model=MODEL, data=data, image_size=64, epochs=2, batch=4, burn_in=2, workers=0, device="cpu", mosaic=0)
    return dataclasses.replace(base, **settings)  # type: ignore[arg-type]


# smallest runs


@pytest.mark.parametrize(
    ("images", "batch", "mini_batch", "size", "values"),
    [(1, 1, 0, 64, 4), (1, 16, 0, 64, 4), (2, 2, 0, 32, 2), (5, 5, 2, 64, 4), (8, 4, 2, (32, 64), 4), (1, 1, 0, (32, 64), 2)],
)
def test_batch_norms_values_of_the_smallest_mini_batch(images: int, batch: int, mini_batch: int, size: int, values: int) -> None:
    config = tiny(DataConfig(), batch=batch, mini_batch=mini_batch, image_size=size)
    assert smallest_step(images, config, 32) == values


@pytest.mark.parametrize(("images", "batch", "mini_batch"), [(1, 1, 0), (1, 16, 0), (3, 4, 2)])
def test_one_value_for_batch_norm_is_refused_before_anything_is_written(
    tmp_path: Path, images: int, batch: int, mini_batch: int
) -> None:
    config = tiny(noise_data(tmp_path / "data", train=images, val=1), batch=batch, mini_batch=mini_batch, image_size=32)
    with pytest.raises(YolomishError, match="batch norm cannot learn from one value: a mini-batch of 1 image at 32 px"):
        fit(config, tmp_path / "run", log=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_one_image_trains_at_64_px(tmp_path: Path) -> None:
    config = tiny(noise_data(tmp_path / "data", train=1, val=1), batch=1, epochs=1)
    assert fit(config, tmp_path / "run", log=lambda _: None).history[-1]["epoch"] == 1


# data that changes


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    config = tiny(noise_data(tmp_path / "data", train=5, val=2), epochs=1)
    fit(config, tmp_path / "run", log=lambda _: None)
    shutil.copytree(tmp_path / "data", tmp_path / "before")
    images, labels = tmp_path / "data" / "images", tmp_path / "data" / "labels"
    changes: dict[str, Callable[[], object]] = {
        "train data has changed, 5 images then, 6 now": lambda: shutil.copy(images / "train/0.png", images / "train/9.png"),
        "train data has changed, 5 images then, 4 now": lambda: (images / "train/4.png").unlink(),
        "train data has changed, 5 images then, 5 now": lambda: (labels / "train/4.txt").write_text("0 .5 .5 .3 .3\n"),
        "val data has changed, 2 images then, 2 now": lambda: (labels / "val/1.txt").write_text("0 .5 .5 .3 .3\n"),
    }
    for message, change in changes.items():
        change()
        with pytest.raises(YolomishError, match=f"cannot resume .*last.pt: its {message}"):
            fit(dataclasses.replace(config, epochs=2), tmp_path / "run", resume=True, log=lambda _: None)
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "before", tmp_path / "data")


def test_a_picture_that_goes_missing_in_a_run_is_one_line(tmp_path: Path) -> None:
    config = tiny(noise_data(tmp_path / "data", train=8, val=2), workers=2, epochs=3)
    gone = tmp_path / "data" / "images" / "train" / "3.png"

    def log(line: str) -> None:
        if line.startswith("epoch 1/3"):
            gone.unlink()

    with pytest.raises(YolomishError, match=r"3\.png cannot be read: No such file"):
        fit(config, tmp_path / "run", log=log)
    assert (tmp_path / "run" / "last.pt").exists()
    with pytest.raises(YolomishError, match="train data has changed, 8 images then, 7 now"):
        fit(config, tmp_path / "run", resume=True, log=lambda _: None)


def test_validation_on_training_images_is_said(tmp_path: Path) -> None:
    data = dataclasses.replace(noise_data(tmp_path / "data", train=4, val=1), val="images/train")
    lines: list[str] = []
    prepare(tiny(data), lines.append)
    assert any(line.startswith("warning: 4 of 4 validation images are in train") for line in lines)
    assert [f.message[:12] for f in check_data(data, fast=True) if f.severity == "error"] == ["all 4 images"]


# classes by name


def test_classes_have_their_place_by_name() -> None:
    def places(own: tuple[str, ...], wanted: tuple[str, ...], counts: tuple[int, ...] = ()) -> tuple[int | None, ...]:
        return class_places(own, wanted, np.array(counts or [1] * len(own)), source=Path("val.json"), whose="w.pt")

    assert places(("b", "a"), ("a", "b")) == (1, 0) and places(("b",), ("a", "b")) == (1,)
    assert places(("things", "b", "a"), ("a", "b"), (0, 1, 1)) == (None, 1, 0)
    assert places(("Traffic Light", "motorcycle"), ("motorbike", "traffic_light")) == (1, 0)
    assert places(("Car", "car"), ("car", "Car")) == (1, 0)  # told apart by case alone
    assert places(("red", "blue"), ("0", "1")) == (0, 1) and places(("red", "bleu"), ("red", "blue")) == (0, 1)
    with pytest.raises(YolomishError, match=r"val\.json has boxes of bleu, and w\.pt has no such class but blue, red"):
        places(("red", "bleu"), ("blue", "red"))
    with pytest.raises(YolomishError, match=r"val\.json has boxes of rot, blau, and w\.pt has no such class but red, blue"):
        places(("rot", "blau"), ("red", "blue"))
    with pytest.raises(YolomishError, match=r"w\.pt has 2 classes, the data 3: wrong --data\?"):
        places(("a", "b", "c"), ("0", "1"))


def reordered_shapes(root: Path) -> DataConfig:
    """The first 30 validation shapes with their categories numbered anew, backwards, under a parent without boxes."""
    content = json.loads((shapes_root() / "val.json").read_text())
    keep = {image["id"] for image in content["images"][:30]}
    content["images"] = [image for image in content["images"] if image["id"] in keep]
    content["annotations"] = [a | {"category_id": 20 - a["category_id"]} for a in content["annotations"] if a["image_id"] in keep]
    content["categories"] = [c | {"id": 20 - c["id"], "supercategory": "all"} for c in content["categories"]]
    content["categories"].append({"id": 0, "name": "all", "supercategory": "none"})
    root.mkdir()
    (root / "a.json").write_text(json.dumps(content))
    folder = str(shapes_root() / "val")
    return DataConfig(format="coco", root=str(root), train="a.json", val="a.json", train_images=folder, val_images=folder)


def test_classes_in_another_order_have_the_same_ap(tmp_path: Path) -> None:
    shapes, reordered = open_data(load_data_config("shapes"), "val").first(30), open_data(reordered_shapes(tmp_path / "b"), "val")
    assert reordered.names == shapes.names[::-1]
    mapped = reordered.with_classes(shapes.names, "demo")
    assert mapped.names == shapes.names and mapped.category_ids == tuple(20 - i for i in shapes.category_ids)
    for i in range(30):
        assert np.array_equal(mapped.load(i).labels, shapes.load(i).labels)
    out = str(tmp_path / "out")
    options = ["--weights", "demo", "--no-plots", "--json", "--output", out]
    (tmp_path / "b.yaml").write_text(f"format: coco\nroot: {tmp_path / 'b'}\nval: a.json\nval_images: {shapes_root() / 'val'}\n")
    result = CliRunner().invoke(app, ["eval", "--data", str(tmp_path / "b.yaml"), *options], catch_exceptions=False)
    found = json.loads(result.stdout.splitlines()[-1])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    back = [row | {"category_id": 20 - row["category_id"]} for row in results]
    assert found["AP"] == run_cocoeval(shapes.coco(), CocoResults.of(back)).stats[0] == pytest.approx(0.6196, abs=0.002)
    assert "compared by name" in result.stderr


def test_category_ids_swapped_between_train_and_val_are_mapped_and_said(tmp_path: Path) -> None:
    data = noise_data(tmp_path / "data", train=4, val=2)
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(2)]
    boxes = [{"id": i, "image_id": i, "category_id": 1 + i, "bbox": [9 + i, 9, 20, 20]} for i in range(2)]
    for split, names in (("train", ("a", "b")), ("val", ("b", "a"))):
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1 + i, "name": n} for i, n in enumerate(names)]}
        (Path(data.root) / f"{split}.json").write_text(json.dumps(content))
    config = DataConfig(format="coco", root=data.root, train="train.json", val="val.json")
    config = dataclasses.replace(config, train_images="images/train", val_images="images/val")
    run = prepare(tiny(config), lambda _: None)
    assert run.val.names == ("a", "b") == run.train.names and run.val.category_ids == (2, 1)
    assert run.train.load(0).labels.tolist() == [0] and run.val.load(0).labels.tolist() == [1]
    assert [(f.check, f.severity) for f in check_data(config)] == [("classes-reordered", "info")]


def test_a_comparison_detects_by_name(tmp_path: Path) -> None:
    data = noise_data(tmp_path / "data", train=4, val=2)
    fit(tiny(data, epochs=1), tmp_path / "run", log=lambda _: None)
    run = read_run(tmp_path / "run")
    found = []
    for i, names in enumerate((("a", "b"), ("b", "a"))):
        labels = Path(data.root) / "labels" / "val"
        if i:  # the same boxes, the classes numbered otherwise
            (labels / "0.txt").write_text((labels / "0.txt").read_text().replace("0 ", "1 ", 1))
            (labels / "1.txt").write_text((labels / "1.txt").read_text().replace("1 ", "0 ", 1))
        opened = open_data(dataclasses.replace(data, names=names), "val")
        require_classes([run], opened)
        results = predictions(dataclasses.replace(run, home=tmp_path / f"home{i}"), opened, content=str(i), device="cpu")
        found.append([(r["image_id"], names[r["category_id"] - 1], r["bbox"], r["score"]) for r in results])
    assert found[0] == found[1] and {name for _, name, _, _ in found[0]} == {"a", "b"}
    with pytest.raises(YolomishError, match=r"has boxes of c, d, and .*run has no such class but a, b"):
        require_classes([run], open_data(dataclasses.replace(data, names=("c", "d")), "val"))
