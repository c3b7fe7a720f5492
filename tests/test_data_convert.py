"""Conversions keep every box, or say how many of what are lost; torchvision and pycocotools read what is written."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import VOCDetection
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import DataConfig, load_data_config
from yolomish.data import convert as module
from yolomish.data.convert import convert, writable
from yolomish.data.datasets import DetectionData, open_data
from yolomish.errors import YolomishError

FORMATS = ("coco", "voc", "yolo", "darknet", "openimages")


@pytest.fixture
def source(tmp_path: Path) -> DataConfig:
    """COCO JSON: pictures of equal names in two splits, fractional boxes, a crowd, an outline, boxes over the border, of half
    a pixel and without area, a class without boxes, ids of its own."""
    root = tmp_path / "source"
    rng = np.random.default_rng(0)
    for split, count, first in (("train", 5, 100), ("val", 3, 40)):
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for i in range(count):
            name = f"{i} é.jpg" if i == 1 else f"{i}.jpg"
            Image.fromarray(rng.integers(0, 255, (96, 128, 3), np.uint8)).save(root / split / name)
            images.append({"id": first + i, "file_name": name, "width": 128, "height": 96})
            for k in range(i):
                x, y, w, h = np.round(rng.uniform((0, 0, 2, 2), (64, 48, 60, 40)), 2).tolist()
                annotations.append({"image_id": first + i, "category_id": (3, 8)[k % 2], "bbox": [x, y, w, h]})
        if split == "train":
            annotations += [
                {"image_id": 100, "category_id": 3, "bbox": [4, 4, 50, 50], "area": 900, "iscrowd": 1},
                {"image_id": 100, "category_id": 8, "bbox": [4, 4, 50, 50], "area": 900, "segmentation": [[4, 4, 54, 4, 30, 54]]},
                {"image_id": 101, "category_id": 8, "bbox": [100, 80, 28.5, 16]},
                {"image_id": 101, "category_id": 8, "bbox": [9, 9, 0.5, 20]},
                {"image_id": 101, "category_id": 8, "bbox": [9, 9, 0, 20]},
            ]
        annotations = [a | {"id": i} for i, a in enumerate(annotations)]
        categories = [{"id": i, "name": n} for i, n in ((3, "zebra, grey"), (5, "never"), (8, "<ape>"))]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return load_data_config(str(root))


def boxes(data: DetectionData) -> list[tuple]:
    """Class name, box, crowd and difficult of each picture, told apart by its pixels."""
    found = []
    for i, record in enumerate(data.listing.records):
        columns = (record.labels.tolist(), record.boxes.round(6).tolist(), record.crowd.tolist(), record.ignore.tolist())
        rows = sorted((data.names[label], *rest) for label, *rest in zip(*columns, strict=True))
        found.append((data.load(i).image.tobytes(), rows))
    return sorted(found)


LOST = {
    "coco": {"outlines (boxes are kept)": 1, "names of pictures (numbered)": 3},
    "voc": {
        **{"outlines (boxes are kept)": 1, "names of pictures (numbered)": 3, "image ids": 8, "category ids": 3},
        **{"crowds (left out)": 1, "areas of outlines": 1, "boxes of one pixel or less": 2, "classes without a box": 1},
        "places of classes (they go by alphabet)": 2,
    },
    "yolo": {
        **{"outlines (boxes are kept)": 1, "names of pictures (numbered)": 3, "image ids": 8, "category ids": 3},
        **{"crowds (left out)": 1, "areas of outlines": 1, "boxes without area": 1, "parts of boxes beyond their picture": 1},
    },
}
LOST["darknet"] = LOST["yolo"]
LOST["openimages"] = {k: v for k, v in LOST["yolo"].items() if k != "crowds (left out)"} | {"classes without a box": 1}
LOST["openimages"]["areas of outlines"] = 2  # that of the crowd, which is kept, too


@pytest.mark.parametrize("form", FORMATS)
def test_every_box_is_kept_but_those_that_are_said(source: DataConfig, tmp_path: Path, form: str) -> None:
    done = convert(source, tmp_path / "new", form)
    assert done.lost == LOST[form] and done.images == {"train": 5, "val": 3}
    config = load_data_config(str(tmp_path / "new"))
    for split in ("train", "val"):
        old, new = open_data(source, split), open_data(config, split)  # type: ignore[arg-type]
        left_out = {"coco": 0, "voc": 3, "yolo": 2, "darknet": 2, "openimages": 1}[form] if split == "train" else 0
        assert sum(len(r.labels) for r in new.listing.records) == sum(len(r.labels) for r in old.listing.records) - left_out
        for (pixels, before), (same, after) in zip(boxes(old), boxes(new), strict=True):
            assert pixels == same
            kept = [row for row in before if row in after or row[1][2] > 128]  # the one over the border is clipped
            assert len(kept) == len(after)
        if form == "coco":
            assert boxes(old) == boxes(new) and old.image_ids == new.image_ids and old.category_ids == new.category_ids


@pytest.mark.parametrize(("one", "other"), itertools.permutations(FORMATS, 2))
def test_there_and_back_is_the_same(source: DataConfig, tmp_path: Path, one: str, other: str) -> None:
    first = load_data_config(str(convert(source, tmp_path / "a", one) and tmp_path / "a"))
    second = load_data_config(str(convert(first, tmp_path / "b", other) and tmp_path / "b"))
    convert(second, tmp_path / "c", one)
    third = load_data_config(str(tmp_path / "c"))
    for split in ("train", "val"):
        for (pixels, start), (same, end) in zip(boxes(open_data(first, split)), boxes(open_data(third, split)), strict=True):  # type: ignore[arg-type]
            assert pixels == same
            assert list(filter(plain, start)) == list(filter(plain, end)) and len(end) <= len(start)


def plain(row: tuple) -> bool:
    """Whether every format holds this box as it is: no crowd, over a pixel wide, within the picture."""
    _, (x0, _, x1, _), crowd, _ = row
    return not crowd and x1 - x0 > 1 and x1 < 128


def test_difficult_marks_live_in_voc_alone(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (128, 96)).save(root / "JPEGImages" / "a.jpg")
    item = "<object><name>x</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>60</xmax><ymax>50</ymax>"
    text = "".join(item.format(d, 1 + d) + "</bndbox></object>" for d in (0, 1))
    (root / "Annotations" / "a.xml").write_text(f"<annotation>{text}</annotation>")
    (root / "ImageSets" / "Main" / "default.txt").write_text("a")
    voc = load_data_config(str(root))
    assert convert(voc, tmp_path / "again", "voc").lost == {}
    assert boxes(open_data(voc, "val")) == boxes(open_data(load_data_config(str(tmp_path / "again")), "val"))
    for form in ("coco", "yolo", "openimages"):
        assert convert(voc, tmp_path / form, form).lost == {"difficult marks (boxes are kept)": 1}


def test_others_read_what_is_written(source: DataConfig, tmp_path: Path) -> None:
    for form in ("coco", "voc", "yolo"):
        convert(source, tmp_path / form, form)
    truth = open_data(source, "train")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "coco" / "annotations" / "instances_train.json"))
    expected = truth.coco().dataset["annotations"]
    for a, b in zip(coco.dataset["annotations"], expected, strict=True):
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-9)
        assert all(a[key] == b[key] for key in ("image_id", "category_id", "area", "iscrowd"))
    parsed = ElementTree.parse(tmp_path / "voc" / "Annotations" / "4.xml").getroot()
    described = VOCDetection.parse_voc_xml(parsed)["annotation"]
    assert described["size"] == {"width": "128", "height": "96", "depth": "3"} and described["filename"] == "4.jpg"
    first = truth.listing.records[4].boxes[0]
    box = {key: float(value) for key, value in described["object"][0]["bndbox"].items()}
    assert [box["xmin"] - 1, box["ymin"] - 1, box["xmax"], box["ymax"]] == pytest.approx(first.tolist(), abs=1e-9)
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert content == {"train": "images/train", "val": "images/val", "names": {0: "zebra, grey", 1: "never", 2: "<ape>"}}
    line = (tmp_path / "yolo" / "labels" / "train" / "4.txt").read_text().splitlines()[0].split()
    cx, cy, w, h = (float(value) * side for value, side in zip(line[1:], (128, 96, 128, 96), strict=True))
    assert [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2] == pytest.approx(first.tolist(), abs=1e-8)


def test_nothing_is_overwritten_but_an_earlier_conversion(source: DataConfig, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    for force in (False, True):
        with pytest.raises(YolomishError, match="is there already" if not force else "was not written by a conversion"):
            convert(source, mine, "yolo", force=force)
    for target in (Path(source.root), Path(source.root).parent):
        with pytest.raises(YolomishError, match="was not written by a conversion"):
            convert(source, target, "yolo", force=True)
    new = tmp_path / "new"
    convert(source, new, "yolo")
    with pytest.raises(YolomishError, match="--force to replace an earlier conversion"):
        convert(source, new, "voc")
    with pytest.raises(YolomishError, match="holds the data that is to be converted"):
        convert(load_data_config(str(new)), new, "voc", force=True)
    convert(source, new, "voc", force=True, link=True)
    assert (new / "Annotations").is_dir() and not (new / "labels").exists()
    assert (new / "JPEGImages" / "0.jpg").is_symlink() and len(open_data(load_data_config(str(new)), "val")) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "new", "source"]


def test_of_two_conversions_at_once_the_second_is_refused(
    source: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, read_back = tmp_path / "new", module._read_back

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(module, "_read_back", read_back)
        convert(source, new, "voc")
        read_back(*args)

    monkeypatch.setattr(module, "_read_back", meanwhile)
    with pytest.raises(YolomishError, match="new cannot be written: Directory not empty; what was there is intact"):
        convert(source, new, "yolo")
    assert (new / "Annotations").is_dir() and not (new / "labels").exists() and not list(tmp_path.glob(".*"))


def test_a_conversion_that_fails_leaves_what_was_there(
    source: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    convert(source, new, "yolo")
    before = sorted(new.rglob("*"))
    monkeypatch.setattr(module.shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(YolomishError, match="new cannot be written: No space left on device; what was there is intact"):
        convert(source, new, "voc", force=True)
    assert sorted(new.rglob("*")) == before and not list(tmp_path.glob(".*"))


def test_names_that_a_format_cannot_hold_are_refused(source: DataConfig, tmp_path: Path) -> None:
    for name, form in (("two\nlines", "darknet"), ("bell\a", "voc")):
        for split in ("train", "val"):
            file = Path(source.root) / f"{split}.json"
            content = json.loads(file.read_text())
            content["categories"][2]["name"] = name
            file.write_text(json.dumps(content))
        with pytest.raises(YolomishError):
            convert(source, tmp_path / "new", form)
        assert not (tmp_path / "new").exists()


def test_a_picture_of_a_name_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "old" / "images").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    try:
        (tmp_path / "a.png").rename(tmp_path / "old" / "images" / b"\xff.png".decode(errors="surrogateescape"))
    except OSError:
        pytest.skip("this file system has Unicode names alone")
    (tmp_path / "old" / "images" / b"\xff.txt".decode(errors="surrogateescape")).write_text("0 .5 .5 .5 .5")
    config = DataConfig(format="yolo", root=str(tmp_path / "old"), train="images", val="images", names=("x",))
    with pytest.raises(YolomishError, match="is no Unicode text"):
        convert(config, tmp_path / "new", "darknet")
    assert not (tmp_path / "new").exists()


def test_data_that_cannot_be_opened_is_not_converted(source: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match="unknown format to write 'yollo'; did you mean 'yolo'"):
        convert(source, tmp_path / "new", "yollo")
    shutil.copyfile(Path(source.root) / "val" / "0.jpg", tmp_path / "x.jpg")
    Image.new("RGB", (96, 128)).save(Path(source.root) / "val" / "0.jpg")
    with pytest.raises(YolomishError, match=r"0\.jpg: its annotation is for another size than its own, 96x128 px"):
        convert(source, tmp_path / "new", "yolo")
    (Path(source.root) / "val" / "0.jpg").unlink()
    with pytest.raises(YolomishError, match=r"0\.jpg does not exist"):
        convert(source, tmp_path / "new", "yolo")
    assert set(writable()) == set(FORMATS)


def test_the_command_says_what_is_lost(source: DataConfig, tmp_path: Path) -> None:
    run = lambda *options: CliRunner().invoke(app, ["data", "convert", source.root, *options], catch_exceptions=False)  # noqa: E731
    text = run(str(tmp_path / "a"), "--to", "voc").output
    assert "train  5 images, 12 boxes" in text and re.search("lost +1 crowds", text) and "wrote" in text
    told = json.loads(run(str(tmp_path / "b"), "--to", "coco", "--json").output)
    assert told == json.loads((tmp_path / "b" / "convert.json").read_text()) and told["lost"] == LOST["coco"]


def test_bccd_survives_there_and_back(shared_data: Path, tmp_path: Path) -> None:
    bccd = load_data_config(str(shared_data / "bccd"))
    config = bccd
    for form in ("coco", "darknet", "voc"):
        done = convert(config, tmp_path / form, form, link=True)
        assert sum(done.boxes.values()) == 3941  # 3,943 but the two without area
        assert done.lost.get("boxes without area") == (2 if config is bccd else None)
        config = load_data_config(str(tmp_path / form))
    for split in ("train", "val"):
        old, new = open_data(bccd, split), open_data(config, split)  # type: ignore[arg-type]
        assert old.names == new.names and len(old) == len(new)
        for a, b in zip(old.listing.records, new.listing.records, strict=True):
            assert a.path.name == b.path.name and np.array_equal(a.labels, b.labels)
            np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-8)
