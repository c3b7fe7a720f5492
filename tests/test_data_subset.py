"""A part of a data set follows from the images' names: not from their order, nor from where the set lies."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from conftest import noise_data
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.commands.options import read_data
from yolomish.config import DataConfig, TrainConfig, from_dict
from yolomish.config.text import load_yaml
from yolomish.data.classification.dataset import open_classes
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.images import read_image
from yolomish.errors import YolomishError
from yolomish.inference.evaluate import evaluate_weights
from yolomish.tasks.detection.protocol import find_protocol
from yolomish.weights.load import load_network

pytestmark = pytest.mark.usefixtures("undrawn")


def names(data: DetectionData) -> list[str]:
    return [data.path(i).name for i in range(len(data))]


def test_a_split_divides_the_train_images_whatever_their_order(tmp_path: Path) -> None:
    config = dataclasses.replace(noise_data(tmp_path / "a", train=20, val=2), split=0.8)
    train, val = names(open_data(config, "train")), names(open_data(config, "val"))
    assert (len(train), len(val)) == (16, 4) and sorted(train + val) == sorted(f"{i}.png" for i in range(20))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    files = [f"images/train/{i}.png" for i in reversed(range(20))]
    (tmp_path / "b" / "list.txt").write_text("\n".join(files))
    moved = dataclasses.replace(config, root=str(tmp_path / "b"), train="list.txt")
    assert set(names(open_data(moved, "train"))) == set(train)
    assert set(names(open_data(moved, "val"))) == set(val)
    one = dataclasses.replace(noise_data(tmp_path / "c", train=1, val=1), split=0.5)
    with pytest.raises(YolomishError, match=r"has 1 image, which split 0.5 cannot divide"):
        open_data(one, "val")


def test_what_is_held_out_is_a_part_of_what_trains_and_never_of_val(tmp_path: Path) -> None:
    for part in ({}, {"split": 0.8}, {"fraction": 0.5}):
        config = dataclasses.replace(noise_data(tmp_path / f"a{len(part) and min(part)}", train=20, val=2), **part)
        apart = dataclasses.replace(config, held_out=0.25)
        train, judging = names(open_data(config, "train")), open_data(config, "val").paths
        kept, held_out = open_data(apart, "train").paths, open_data(apart, "val").paths
        assert {path.name for path in (*kept, *held_out)} == set(train) and len(kept) + len(held_out) == len(train)
        assert len(held_out) == round(len(train) / 4) and not {*kept, *held_out} & set(judging)
    for i in range(8):
        folder = tmp_path / "classes" / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(b"")
    classes = DataConfig(format="imagefolder", root=str(tmp_path / "classes"), held_out=0.25)
    kept, held_out = open_classes(classes, "train"), open_classes(classes, "val")
    assert len(kept) == 6 and len(held_out) == 2 and not {*kept.paths} & {*held_out.paths}
    assert all(kept.names[label] == path.parent.name for path, label in zip(kept.paths, kept.labels, strict=True))


def test_a_smaller_fraction_is_part_of_a_larger_one(tmp_path: Path) -> None:
    config = noise_data(tmp_path, train=20, val=4)
    parts = [set(names(open_data(dataclasses.replace(config, fraction=f), "train"))) for f in (0.1, 0.5, 1.0)]
    assert parts[0] < parts[1] < parts[2] and [len(part) for part in parts] == [2, 10, 20]
    assert len(open_data(dataclasses.replace(config, fraction=0.01), "val")) == 1


def test_classes_keep_their_ids_and_their_boxes(shared_data: Path) -> None:
    root = shared_data / "coco-mini"
    config = DataConfig(root=str(root), format="coco", val="annotations/instances_val2017.json", val_images="val2017")
    data = open_data(dataclasses.replace(config, classes=("car", "person")), "val")
    content = json.loads((root / config.val).read_text())
    wanted = sorted((a["category_id"], a["image_id"], a["bbox"]) for a in content["annotations"] if a["category_id"] in (1, 3))
    found = sorted((a["category_id"], a["image_id"], a["bbox"]) for a in data.coco().dataset["annotations"])
    assert data.names == ("car", "person") and data.category_ids == (3, 1) and len(data) == 79
    assert [f[:2] for f in found] == [w[:2] for w in wanted]
    assert all(abs(x - y) < 1e-6 for f, w in zip(found, wanted, strict=True) for x, y in zip(f[2], w[2], strict=True))
    with pytest.raises(YolomishError, match="unknown class 'persom'; did you mean 'person'"):
        open_data(dataclasses.replace(config, classes=("persom",)), "val")


def test_options_win_over_the_yaml_and_are_checked(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("format: yolo\nnames: [a, b]\nfraction: 0.5\n")
    config = read_data(str(tmp_path / "d.yaml"), None, "a,b", 0.9)
    assert (config.fraction, config.classes, config.split) == (0.5, ("a", "b"), 0.9)
    with pytest.raises(YolomishError, match="fraction must be positive and at most 1"):
        read_data(str(tmp_path / "d.yaml"), 0.0, "", None)


def test_weights_of_more_classes_are_evaluated_on_some(tmp_path: Path) -> None:
    """A class's AP is that of the whole evaluation, whose other classes' detections are left out."""
    protocol = find_protocol("darknet")
    config, demo = DataConfig(fraction=0.1), load_network("demo")
    runs = [
        evaluate_weights("demo", demo, dataclasses.replace(config, classes=c), protocol, tmp_path / "run", plots=False, log=print)
        for c in ((), ("star", "circle"))
    ]
    whole, some = (run.metrics["per_class"] for run in runs)
    assert some == {name: whole[name] for name in ("star", "circle")} and 0 < some["star"] < 1
    assert "fraction 0.1, classes star and circle" in runs[1].protocol
    assert runs[1].metrics["data"]["classes"] == ["star", "circle"] and runs[1].metrics["images"] == 10


def test_show_train_and_compare_take_a_part(tmp_path: Path) -> None:
    data = noise_data(tmp_path, train=10, val=4)
    yaml = tmp_path / "my.yaml"
    yaml.write_text(f"format: yolo\ntrain: {data.train}\nval: {data.val}\nnames: [a, b]\n")
    part = ["--fraction", "0.5", "--classes", "a"]
    small = ["--imgsz", "64", "--epochs", "1", "--batch", "2", "--workers", "0", "--device", "cpu"]
    show = ["data", "show", str(yaml), *part, "-n", "3", "--batches", "1", "--imgsz", "64", "--output", str(tmp_path / "s")]
    train = [
        "train",
        "--model",
        "yolov4-n",
        "--recipe",
        "small",
        "--data",
        str(yaml),
        *part,
        *small,
        "--output",
        str(tmp_path),
        "--name",
        "t",
    ]
    compare = ["compare", "--data", str(yaml), *part, *small, "--seeds", "1", "--output", str(tmp_path), "--name", "c"]
    for words in (show, train, compare):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    samples, batch = (read_image(tmp_path / "s" / name) for name in ("samples.png", "batch-1.png"))
    assert samples.std() > 10 and batch.std() > 10 and min(batch.shape[:2]) >= 64
    for run in ("t", "c/mish-seed0"):
        config = from_dict(TrainConfig, load_yaml(tmp_path / run / "config.yaml"))
        assert (config.data.fraction, config.data.classes, config.model.num_classes) == (0.5, ("a",), 1)
    report = (tmp_path / "c" / "report.md").read_text()
    assert "--fraction 0.5" in report and "--classes a" in report and "{" not in report
