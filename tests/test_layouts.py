"""Data sets as the tools write them, named by their file or folder and not converted: each holds the same pictures and boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolomish.config import DataConfig, from_dict, load_data_config, to_dict
from yolomish.data.check import check_data
from yolomish.data.datasets import open_data
from yolomish.data.formats import read_listing
from yolomish.errors import YolomishError

SIZE = (128, 96)  # width, height
NAMES = ("red", "blue car")
# picture: rows of label and box xyxy; each split's, as whole pixels that fractions of 128 and 96 state exactly
BOXES = {
    "train": {"a": [(0, (16, 12, 48, 36)), (1, (64, 24, 112, 72))], "b 1": [(1, (8, 6, 40, 66))]},
    "val": {"c": [(1, (32, 48, 96, 84)), (0, (0, 0, 16, 12))]},
}
TRAIN, BOTH = ("train",), ("train", "val")


def pictures(folder: Path, split: str, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem in BOXES[split]:
        pixels = np.random.default_rng(sum(stem.encode())).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
        kind = "PNG" if suffix.lower() == ".png" else "JPEG"
        Image.fromarray(pixels).save(folder / f"{stem}{suffix}", format=kind)


def yolo_labels(folder: Path, split: str, *, polygons: bool = False, encoding: str = "utf-8") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    w, h = SIZE
    for stem, rows in BOXES[split].items():
        text = ""
        for label, (x0, y0, x1, y1) in rows:
            corners = (x0, y0, x1, y0, x1, y1, x0, y1)
            sides = [v / (w, h)[i % 2] for i, v in enumerate(corners)]
            box = ((x0 + x1) / 2 / w, (y0 + y1) / 2 / h, (x1 - x0) / w, (y1 - y0) / h)
            text += " ".join(map(str, (label, *(sides if polygons else box)))) + "\r\n"
        (folder / f"{stem}.txt").write_bytes(text.encode(encoding))


def coco_json(file: Path, split: str, *, name: Callable[[str], str] = "{}.jpg".format, parent: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name(s), "width": SIZE[0], "height": SIZE[1]} for i, s in enumerate(BOXES[split])]
    rows = [(i, row) for i, stem in enumerate(BOXES[split]) for row in BOXES[split][stem]]
    boxes = [
        {"id": k, "image_id": i, "category_id": 1 + label, "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": []}
        for k, (i, (label, (x0, y0, x1, y1))) in enumerate(rows)
    ]
    categories = [{"id": 1 + i, "name": n, "supercategory": "cars" if parent else ""} for i, n in enumerate(NAMES)]
    categories += [{"id": 0, "name": "cars", "supercategory": "none"}] if parent else []
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))


def voc_xml(folder: Path, split: str, *, filename: str = "{}.jpg", size: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, rows in BOXES[split].items():
        text = f"<annotation><filename>{filename.format(stem)}</filename>"
        text += "<size><width>128</width><height>96</height><depth>3</depth></size>" if size else "<size><width></width></size>"
        for label, (x0, y0, x1, y1) in rows:
            box = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            text += f"<object><name>{NAMES[label]}</name><bndbox>{box}</bndbox></object>"
        (folder / f"{stem}.xml").write_text(text + "</annotation>")


def ultralytics(root: Path) -> Path:
    for split in BOTH:
        pictures(root / "images" / split, split)
        yolo_labels(root / "labels" / split, split, polygons=True)
    (root / "my.yaml").write_text(
        "path: ../somewhere/cars\ntrain: images/train\nval: [images/val]\ntest:\nnc: 2\nnames:\n  0: red\n  1: blue car\n"
    )
    return root / "my.yaml"


def ultralytics_in_datasets(root: Path) -> Path:
    ultralytics(root / "datasets" / "cars")
    (root / "work").mkdir()
    (root / "work" / "cars.yaml").write_text("path: cars\ntrain: images/train\nval: images/val\nnames: [red, blue car]\n")
    return root / "work" / "cars.yaml"


def roboflow_yolo(root: Path) -> Path:
    for split, folder in (("train", "train"), ("val", "valid")):
        pictures(root / folder / "images", split)
        yolo_labels(root / folder / "labels", split)
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['red', 'blue car']\n\n"
        "roboflow:\n  workspace: w\n  version: 1\n  license: CC BY 4.0\n"
    )
    return root


def roboflow_coco(root: Path) -> Path:
    for split, folder in (("train", "train"), ("val", "valid")):
        pictures(root / folder, split)
        coco_json(root / folder / "_annotations.coco.json", split, parent=True)
    return root


def roboflow_voc(root: Path) -> Path:
    for split, folder in (("train", "train"), ("val", "valid")):
        pictures(root / folder, split)
        voc_xml(root / folder, split)
    return root


def roboflow_darknet(root: Path) -> Path:
    for split, folder in (("train", "train"), ("val", "valid")):
        pictures(root / folder, split)
        yolo_labels(root / folder, split)
        (root / folder / "_darknet.labels").write_text("red\nblue car")
    return root


def cvat_coco(root: Path) -> Path:
    for split, subset in (("train", "Train"), ("val", "Validation")):
        pictures(root / "images" / subset, split, ".PNG")
        coco_json(root / "annotations" / f"instances_{subset}.json", split, name="{}.PNG".format)
    return root


def cvat_coco_default(root: Path) -> Path:
    pictures(root / "images", "train")
    coco_json(root / "annotations" / "instances_default.json", "train")
    return root


def cvat_yolo(root: Path) -> Path:
    pictures(root / "obj_train_data" / "sub", "train", ".PNG")
    yolo_labels(root / "obj_train_data" / "sub", "train")
    (root / "train.txt").write_text("".join(f"data/obj_train_data/sub/{stem}.PNG\n" for stem in BOXES["train"]))
    (root / "obj.names").write_text("red\nblue car\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    return root


def cvat_voc(root: Path) -> Path:
    for split in BOTH:
        pictures(root / "JPEGImages", split, ".JPG")
        voc_xml(root / "Annotations", split)
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split.title()}.txt").write_text("\n".join(BOXES[split]))
    (root / "ImageSets" / "Main" / "red_train.txt").write_text("a  1\n")
    return root


def darknet(root: Path) -> Path:
    """As the AlexeyAB README has it: run in the folder above ``data``."""
    for split in BOTH:
        pictures(root / "data" / "obj" / split, split)
        yolo_labels(root / "data" / "obj" / split, split)
        (root / "data" / f"{split}.txt").write_bytes(
            "".join(f"data/obj/{split}/{stem}.jpg\r\n" for stem in BOXES[split]).encode("utf-16")
        )
    (root / "data" / "obj.names").write_text("red\nblue car\n\n")
    lines = "# of my cars\nclasses= 2\ntrain  = data/train.txt\nvalid  = data/val.txt\nnames = data/obj.names\n"
    (root / "data" / "obj.data").write_text(lines)
    return root / "data" / "obj.data"


def label_img_yolo(root: Path) -> Path:
    pictures(root, "train")
    yolo_labels(root, "train")
    (root / "classes.txt").write_text("red\nblue car\n")
    return root


def label_img_voc(root: Path) -> Path:
    pictures(root, "train")
    voc_xml(root, "train", size=False)
    return root


def label_studio_coco(root: Path) -> Path:
    pictures(root / "images", "train")
    coco_json(root / "result.json", "train", name="images\\{}.jpg".format)
    return root


def label_studio_coco_server(root: Path) -> Path:
    pictures(root / "images", "train")
    coco_json(root / "result.json", "train", name="/data/upload/1/{}.jpg".format)
    return root / "result.json"


def label_studio_yolo(root: Path) -> Path:
    pictures(root / "images", "train")
    yolo_labels(root / "labels", "train", encoding="utf-8-sig")
    (root / "classes.txt").write_text("red\nblue car\n")
    (root / "notes.json").write_text("{}")
    return root


def fiftyone_coco(root: Path) -> Path:
    pictures(root / "data", "train")
    coco_json(root / "labels.json", "train")
    return root


def fiftyone_coco_file(root: Path) -> Path:
    return fiftyone_coco(root) / "labels.json"


def fiftyone_yolov5(root: Path) -> Path:
    for split in BOTH:
        pictures(root / "images" / split, split)
        yolo_labels(root / "labels" / split, split)
    names = "names:\n  0: red\n  1: blue car\n"
    (root / "dataset.yaml").write_text(f"{names}path: /home/else/where\ntrain: ./images/train/\nval: ./images/val/\n")
    return root


def fiftyone_yolov4(root: Path) -> Path:
    pictures(root / "data", "train")
    yolo_labels(root / "data", "train")
    (root / "obj.names").write_text("red\nblue car\n")
    (root / "images.txt").write_text("".join(f"data/{stem}.jpg\n" for stem in BOXES["train"]))
    return root


def fiftyone_voc(root: Path) -> Path:
    pictures(root / "data", "train", ".png")
    voc_xml(root / "labels", "train", filename="{}.png")
    return root


def open_images_csv(file: Path, split: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    for stem, rows in BOXES[split].items():
        for label, (x0, y0, x1, y1) in rows:
            lines += f"{stem},xclick,/m/0{label},1,{x0 / 128},{x1 / 128},{y0 / 96},{y1 / 96},0,0,0,0,0\n"
    file.write_text(lines)


def open_images(root: Path) -> Path:
    for split, word in (("train", "train"), ("val", "validation")):
        pictures(root / word, split)
        open_images_csv(root / f"oidv6-{word}-annotations-bbox.csv", split)
    (root / "class-descriptions-boxable.csv").write_text("/m/0x,Zebra\n/m/00,red\n/m/01,blue car\n")
    return root


def fiftyone_open_images(root: Path) -> Path:
    for split, word in (("train", "train"), ("val", "validation")):
        pictures(root / word / "data", split)
        open_images_csv(root / word / "labels" / "detections.csv", split)
        (root / word / "metadata").mkdir()
        (root / word / "metadata" / "classes.csv").write_text("/m/00,red\n/m/01,blue car\n")
    return root


TWO_SPLITS = [ultralytics, ultralytics_in_datasets, roboflow_yolo, roboflow_coco, roboflow_voc, roboflow_darknet, cvat_coco]
TWO_SPLITS += [cvat_voc, darknet, fiftyone_yolov5, open_images, fiftyone_open_images]
ONE_SPLIT = [cvat_coco_default, cvat_yolo, label_img_yolo, label_img_voc, label_studio_coco, label_studio_coco_server]
ONE_SPLIT += [label_studio_yolo, fiftyone_coco, fiftyone_coco_file, fiftyone_yolov4, fiftyone_voc]


@pytest.mark.parametrize(("write", "splits"), [*((w, BOTH) for w in TWO_SPLITS), *((w, TRAIN) for w in ONE_SPLIT)])
def test_a_tools_export_is_read_as_it_is(tmp_path: Path, write: Callable[[Path], Path], splits: tuple[str, ...]) -> None:
    config = load_data_config(str(write(tmp_path / "set")))
    for split in ("train", "val"):
        data = open_data(config, split)  # type: ignore[arg-type]
        named = data.with_classes(NAMES, "the test")
        expected = BOXES[split if split in splits else "train"]
        assert [data.path(i).stem for i in range(len(data))] == list(expected)
        for i, rows in enumerate(expected.values()):
            sample = named.load(i)
            assert sample.labels.tolist() == [label for label, _ in rows]
            np.testing.assert_allclose(sample.boxes, [box for _, box in rows], atol=1e-4)
            assert sample.image.shape == (96, 128, 3)
    findings = check_data(config)
    expected_checks = [] if splits == BOTH else ["split-overlap-file"]
    assert [f.check for f in findings if f.check not in ("box-clipped", "test-unreadable")] == expected_checks, findings


def test_what_is_no_data_set_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pictures(tmp_path / "bare" / "images", "train")
    yolo_labels(tmp_path / "bare" / "labels", "train")
    for name in ("empty", "bare"):
        with pytest.raises(YolomishError, match=f"{name} is no data set that is known: name its .yaml, .data, .json or .csv"):
            open_data(load_data_config(str(tmp_path / name)), "train")
    with pytest.raises(YolomishError, match=r"no such file or folder: .*gone\.data"):
        load_data_config(str(tmp_path / "gone.data"))
    with pytest.raises(YolomishError, match="unknown data set 'shape'; did you mean 'shapes'"):
        load_data_config("shape")
    for name in ("a\0b", "x/" + "y" * 5000):
        with pytest.raises(YolomishError) as error:
            load_data_config(name)
        assert len(str(error.value)) < 6000


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("nc: 3\nnames: [red, blue]", "nc is 3, but there are 2 names"),
        ("nc: x\nnames: [red, blue]", "nc must be the number of classes, not 'x'"),
        ("names: {0: red, 2: blue}", "names must be numbered 0, 1, 2, ... without a gap"),
        ("names: {a: red}", "names must be numbered"),
        ("kpt_shape: [17, 3]\nnames: [person]", "kpt_shape: its label lines hold keypoints"),
        ("path: .\nroot: .\nnames: [red]", "both path and root"),
        ("names: [red, blue]\nnameses: [a]", "unknown key in .* 'nameses'; did you mean 'names'"),
        ("names: [red, true]", "YAML reads a class name among yes, no"),
    ],
)
def test_a_data_yaml_that_contradicts_itself_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "d.yaml").write_text(f"train: images\nval: images\n{lines}\n")
    with pytest.raises(YolomishError, match=message):
        load_data_config(str(tmp_path / "d.yaml"))


def test_a_folder_whose_yaml_is_of_this_package_is_read_by_it(tmp_path: Path) -> None:
    for split in BOTH:
        pictures(tmp_path / "pics" / split, split)
        coco_json(tmp_path / "notes" / f"{split}.json", split)
    lines = "".join(f"{split}: notes/{split}.json\n{split}_images: pics/{split}\n" for split in BOTH)
    (tmp_path / "data.yaml").write_text(f"format: coco\n{lines}")
    assert len(open_data(load_data_config(str(tmp_path)), "train")) == 2
    (tmp_path / "data.yaml").write_text("root: .\n")  # which says nothing
    with pytest.raises(YolomishError, match="is no data set that is known"):
        open_data(load_data_config(str(tmp_path)), "train")


def test_linked_folders_are_read_once_and_lists_of_folders_survive_a_checkpoint(tmp_path: Path) -> None:
    yaml = ultralytics(tmp_path / "a")
    (tmp_path / "a" / "images" / "more").mkdir()
    (tmp_path / "a" / "images" / "more" / "linked").symlink_to(tmp_path / "a" / "images" / "val")
    (tmp_path / "a" / "images" / "more" / "round").symlink_to(tmp_path / "a" / "images" / "more")
    (tmp_path / "a" / "labels" / "more").mkdir()
    (tmp_path / "a" / "labels" / "more" / "linked").symlink_to(tmp_path / "a" / "labels" / "val")
    yaml.write_text("train: [images/train, images/more]\nval: images/val\nnames: [red, blue car]\n")
    config = load_data_config(str(yaml))
    data = open_data(config, "train")
    assert [data.path(i).stem for i in range(len(data))] == ["a", "b 1", "c"] and len(data.load(2).labels) == 2
    assert from_dict(DataConfig, json.loads(json.dumps(to_dict(config)))) == config and config.train == (
        "images/train",
        "images/more",
    )


def test_names_twice_and_missing_splits_are_named(tmp_path: Path) -> None:
    yaml = ultralytics(tmp_path)
    yaml.write_text("train: images/train\nnc: 2\n")
    assert open_data(load_data_config(str(yaml)), "train").names == ("class_0", "class_1")
    with pytest.raises(YolomishError, match="names no val split: add val: "):
        open_data(load_data_config(str(yaml)), "val")
    yaml.write_text("train: images/train\nnames: [red, red]\n")
    with pytest.raises(YolomishError, match="has the class 'red' twice"):
        open_data(load_data_config(str(yaml)), "train")
    yaml.write_text("format: coco\ntrain: [a.json, b.json]\n")
    with pytest.raises(YolomishError, match="train names 2 paths, and format coco takes one"):
        open_data(load_data_config(str(yaml)), "train")


def test_labels_and_pictures_that_have_no_partner_are_counted(tmp_path: Path) -> None:
    config = load_data_config(str(ultralytics(tmp_path / "a")))
    for stem in ("x", "y"):
        (tmp_path / "a" / "labels" / "train" / f"{stem}.txt").write_text("0 .5 .5 .1 .1")
    (found,) = [f for f in read_listing(config, "train").findings if f.severity != "info"]
    assert found.check == "label-passed-over" and "2 label files have no picture" in found.message
    root = label_img_voc(tmp_path / "b")
    pictures(root, "val")
    (found,) = read_listing(load_data_config(str(root)), "train").findings
    assert found.check == "image-passed-over" and "1 pictures have no XML" in found.message
    root = open_images(tmp_path / "c")
    (root / "train" / "a.jpg").unlink()
    found = read_listing(load_data_config(str(root)), "train").findings[0]
    assert found.check == "label-passed-over" and "2 boxes of 1 images have no picture" in found.message


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        (b"a,b\n1,2\n", "has no column ImageID"),
        (b"ImageID,LabelName,XMin,XMax,YMin,YMax\na,x,0,2,0,1\n", r"train\.csv:2: coordinates must be fractions"),
        (b"ImageID,LabelName,XMin,XMax,YMin,YMax\na,x,0,nan,0,1\n", r"train\.csv:2: 'nan' is not finite"),
        (b"ImageID,LabelName,XMin,XMax,YMin,YMax\na,x,0\n", r"train\.csv:2: 3 values for 6 columns"),
        (
            b"ImageID,LabelName,XMin,XMax,YMin,YMax\n\xe9,x,0,1,0,1\n",
            r"train\.csv is not a UTF-8 text file \(byte 0xe9 in line 2\)",
        ),
        (b"ImageID,LabelName,XMin,XMax,YMin,YMax\n", "not one box in 2 images"),
    ],
)
def test_a_bad_open_images_csv_is_named(tmp_path: Path, csv: bytes, message: str) -> None:
    pictures(tmp_path / "train", "train")
    (tmp_path / "train.csv").write_bytes(csv)
    with pytest.raises(YolomishError, match=message):
        open_data(load_data_config(str(tmp_path / "train.csv")), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train = a.txt\n", "names no file of class names"),
        ("train = a.txt\nnames = gone.names\n", "names gone.names, which is not there"),
        ("classes = 3\ntrain = a.txt\nnames = obj.names\n", r"classes is 3, but .*obj\.names has 2 names"),
        ("classes = x\ntrain = a.txt\nnames = obj.names\n", "classes 'x' is no number"),
        ("names = obj.names\n", "names no train split"),
    ],
)
def test_a_bad_data_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "obj.names").write_text("red\nblue\n")
    (tmp_path / "obj.data").write_text(text)
    with pytest.raises(YolomishError, match=message):
        open_data(load_data_config(str(tmp_path / "obj.data")), "train")
