"""Each format is read as its tools write it, or refused by file, place and value; AP is pycocotools' own."""

import contextlib
import copy
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from reference.detections import simulate_results, simulate_truth

from yolomish.config import DataConfig
from yolomish.data.check import check_data
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.formats import FORMATS, read_listing
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import BACKENDS, evaluate, run_cocoeval
from yolomish.evaluation.coco_results import NOTHING, CocoResults
from yolomish.evaluation.confusion import confusion_matrix
from yolomish.evaluation.error_types import classify
from yolomish.evaluation.matching import match
from yolomish.evaluation.provenance import is_val2017

COCO_CONFIG = DataConfig(format="coco", train="a.json", val="a.json", train_images="im", val_images="im")
HEADER = {"height": 96, "width": 128}


def picture(path: Path, *, size_hw: tuple[int, int] = (96, 128), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((*size_hw, 3), len(path.name), np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def coco_content() -> dict[str, Any]:
    """Two images with two boxes each, and one without."""
    boxes = [[6, 6, 30, 19], [40, 30, 31, 28], [10, 20, 40, 50], [60, 8, 20, 33]]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", **HEADER} for i in (7, 9, 20)],
        "categories": [{"id": 3, "name": "red"}, {"id": 5, "name": "blue"}],
        "annotations": [
            {"id": k + 1, "image_id": (7, 7, 9, 9)[k], "category_id": (3, 5)[k % 2], "bbox": box, "area": 100 + k, "iscrowd": 0}
            for k, box in enumerate(boxes)
        ],
    }


def coco_config(root: Path, content: Any, *, encoding: str = "utf-8", files: tuple[str, ...] = ("7", "9", "20")) -> DataConfig:
    for name in files:
        picture(root / "im" / f"{name}.png")
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "a.json").write_bytes(text.encode(encoding))
    return dataclasses.replace(COCO_CONFIG, root=str(root))


def perfect(data: DetectionData, boxes: list[list[float]], labels: list[int], image_ids: list[int]) -> float:
    results = [
        {"image_id": i, "category_id": data.category_ids[label], "bbox": box, "score": 0.9}
        for i, label, box in zip(image_ids, labels, boxes, strict=True)
    ]
    return float(run_cocoeval(data.coco(), CocoResults.of(results)).stats[0])


def test_a_new_format_is_one_entry_and_an_unknown_one_is_named() -> None:
    assert set(FORMATS) == {"coco", "voc", "yolo", "darknet", "openimages", "shapes"} and all(
        name == kind.name for name, kind in FORMATS.items()
    )
    with pytest.raises(YolomishError, match="unknown data format 'cocoo'; did you mean 'coco'"):
        open_data(DataConfig(format="cocoo"), "val")
    with pytest.raises(YolomishError, match="names no test split"):
        open_data(DataConfig(format="coco"), "test")


# COCO JSON


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [1, 2, 1, 2], ["a", "b", "c", "d"], [[1], [2], [3], [4]], [10**400] * 4, None])
def test_perfect_detections_have_ap_1_whatever_the_annotations_ids(tmp_path: Path, ids: list[Any] | None) -> None:
    content = coco_content()
    for k, annotation in enumerate(content["annotations"]):
        annotation.pop("id")
        annotation |= {"id": ids[k]} if ids else {}
    data = open_data(coco_config(tmp_path, content), "val")
    boxes = [a["bbox"] for a in content["annotations"]]
    assert perfect(data, boxes, [0, 1, 0, 1], [7, 7, 9, 9]) == pytest.approx(1.0)
    assert data.image_ids == (7, 9, 20) and data.category_ids == (3, 5) and data.names == ("red", "blue") and data.own_ids


def test_areas_and_crowds_are_the_files_and_have_defaults(tmp_path: Path) -> None:
    content = coco_content()
    first, second, third, _ = content["annotations"]
    del first["area"], second["iscrowd"]
    third |= {"iscrowd": 1, "area": 12.5}
    truth = open_data(coco_config(tmp_path, content), "val").coco()
    assert [(a["area"], a["iscrowd"]) for a in truth.dataset["annotations"]] == [(30 * 19, 0), (101, 0), (12.5, 1), (103, 0)]
    assert len(run_cocoeval(truth, NOTHING).stats) == 12


def test_numbers_as_text_are_numbers(tmp_path: Path) -> None:
    def as_text(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_text(item) for key, item in value.items()}
        return [as_text(item) for item in value] if isinstance(value, list) else str(value)

    plain = open_data(coco_config(tmp_path / "plain", coco_content()), "val")
    text = open_data(coco_config(tmp_path / "text", as_text(coco_content())), "val")
    assert text.coco().dataset == plain.coco().dataset
    assert text.load(0).boxes.tolist() == [[6, 6, 36, 25], [40, 30, 71, 58]]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("annotations", 1, "bbox"), "1234", r"annotation 2: bbox must be \[x, y, width, height\], not '1234'"),
        (("annotations", 1, "bbox"), None, "annotation 2: bbox .* not None"),
        (("annotations", 1, "bbox"), [], r"annotation 2: bbox .* not \[\]"),
        (("annotations", 1, "bbox"), [1, 2, 3, float("nan")], "annotation 2: bbox .*nan is not finite"),
        (("annotations", 1, "bbox"), [1, float("inf"), 3, 4], "annotation 2: bbox .*inf is not finite"),
        (("annotations", 1, "bbox"), [1, "Infinity", 3, 4], "annotation 2: bbox .*is not finite"),
        (("annotations", 1, "bbox"), [1, 2, 3, 10**400], "annotation 2: bbox .* is no number"),
        (("annotations", 1, "bbox"), [1, 2, -3, 4], "annotation 2: bbox .*: width and height must not be negative"),
        (("annotations", 1, "bbox"), [1, 2, 1e200, 1e200], "annotation 2: bbox .* nothing over 1e.09 px"),
        (("annotations", 1, "bbox"), [1, 2, "1_0", 4], "annotation 2: bbox .*'1_0' is no number"),
        (("annotations", 1, "bbox"), [1, 2, 3, True], "annotation 2: bbox .*True is no number"),
        (("annotations", 1, "iscrowd"), -1, "annotation 2: iscrowd must be 0 or 1, not -1"),
        (("annotations", 1, "iscrowd"), "no", "annotation 2: iscrowd must be 0 or 1, not 'no'"),
        (("annotations", 1, "area"), "x", "annotation 2: area 'x' is no number"),
        (("annotations", 1, "area"), float("nan"), "annotation 2: area nan is not finite"),
        (("annotations", 1, "category_id"), [3], r"annotation 2: category_id \[3\] is no number"),
        (("annotations", 1, "category_id"), 4, "annotation 2: class '4' is not one"),
        (("annotations", 1, "image_id"), "img-7", "annotation 2: image_id 'img-7' is no number"),
        (("annotations", 1, "image_id"), 8, "1 annotations of image 8, which is not listed"),
        (("annotations", 1), 5, r"annotations\[1\]: 5 is no mapping"),
        (("images", 1, "id"), 7, r"images\[1\]: image id 7 is 7.png and 9.png"),
        (("images", 1, "id"), "7", r"images\[1\]: image id 7 is 7.png and 9.png"),
        (("images", 1, "file_name"), "7.png", r"images\[1\]: 7.png is image 7 and 9"),
        (("images", 1, "id"), [9], r"images\[1\]: id \[9\] is no number"),
        (("images", 1, "id"), 10**30, r"images\[1\]: id 10+ is no whole number"),
        (("images", 1, "id"), 9.5, r"images\[1\]: id 9.5 is no whole number"),
        (("images", 1, "file_name"), "a\0.png", r"images\[1\]: file_name"),
        (("images", 1, "file_name"), "x" * 300, "x{300} does not exist"),
        (("images", 1, "file_name"), "a\nb" + "x" * 100_000, r"a\\nbx.*\.\.\.x+ does not exist"),
        (("images", 1, "width"), "wide", r"images\[1\]: 'wide' is no number"),
        (("images", 1, "width"), -128, r"images\[1\]: width -128"),
        (("categories", 1, "name"), None, r"categories\[1\]: the name must be a text, not None"),
        (("categories", 1, "name"), ["a"], r"categories\[1\]: the name must be a text, not \['a'\]"),
        (("categories", 1, "name"), "red", r"categories\[1\]: 'red' has another id"),
        (("categories", 1, "id"), 3, r"categories\[1\]: id 3 is 'red' already"),
        (("annotations",), None, "its annotations must be a list, not None"),
        (("images",), {}, "its images must be a list, not {}"),
    ],
)
def test_what_is_no_coco_is_refused_by_place_and_value(tmp_path: Path, place: tuple, value: Any, message: str) -> None:
    content = coco_content()
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    config = coco_config(tmp_path, content)
    with pytest.raises(YolomishError, match=message) as error:
        open_data(config, "val")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert any(finding.message == str(error.value) for finding in check_data(config, fast=True))


@pytest.mark.parametrize("text", ["[" * 5000, '{"images": 1e', "[]", "5", '{"images": [' + "9" * 5000 + "]}", ""])
def test_what_is_no_json_mapping_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(YolomishError, match=r"a\.json is not a COCO annotation file") as error:
        open_data(coco_config(tmp_path, text), "val")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [{}, {"width": 0, "height": 0}, {"width": "", "height": "96"}, {"width": None, "height": 96}])
def test_sizes_that_are_not_stated_are_the_headers(tmp_path: Path, size: dict) -> None:
    content = coco_content()
    content["images"][0] = {"id": 7, "file_name": "7.png", **size}
    data = open_data(coco_config(tmp_path, content), "val")
    assert data.size_hw(0) == (96, 128) and data.boxes_at((96, 64), keep_aspect=False)[1][0].tolist() == [15, 19]
    assert data.boxes_at((192, 128), keep_aspect=True)[1][0].tolist() == [30, 19]


def test_roboflows_parent_of_all_classes_is_no_class(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"] = [
        {"id": 0, "name": "things", "supercategory": "none"},
        {"id": 3, "name": "red", "supercategory": "things"},
        {"id": 5, "name": "blue", "supercategory": "things"},
    ]
    data = open_data(coco_config(tmp_path, content), "val")
    assert data.names == ("red", "blue") and data.category_ids == (3, 5)
    for supercategory in ("none", "red"):  # of LabelMe, and of COCO, where person is in person
        content["categories"][1]["supercategory"] = content["categories"][2]["supercategory"] = supercategory
        assert len(open_data(coco_config(tmp_path, content), "val").names) == 3


def test_the_twelve_numbers_are_pycocotools_own_of_the_file(tmp_path: Path) -> None:
    truth = simulate_truth(20, 4)
    results = simulate_results(truth)
    (tmp_path / "im").mkdir()
    for image in truth.dataset["images"]:
        (tmp_path / "im" / image["file_name"]).touch()  # sizes are stated: pictures are not looked into
    (tmp_path / "a.json").write_text(json.dumps(truth.dataset))
    data = open_data(dataclasses.replace(COCO_CONFIG, root=str(tmp_path)), "val")
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(tmp_path / "a.json"))
        evaluation = COCOeval(theirs, theirs.loadRes(list(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert run_cocoeval(data.coco(), results).stats.tolist() == evaluation.stats.tolist()
    assert sum(a["iscrowd"] for a in data.coco().dataset["annotations"]) > 0


# YOLO txt


def yolo_config(root: Path, labels: str | bytes = "0 .5 .5 .25 .5\n", **kind: Any) -> DataConfig:
    picture(root / "images" / "a.jpg", **kind)
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / "a.txt").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    return DataConfig(format="yolo", root=str(root), train="images", val="images", names=("red", "blue"))


def test_opening_reads_headers_and_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = yolo_config(tmp_path, size_hw=(96, 128), orientation=6)
    for name in ("yolomish.data.images.decode_image", "PIL.ImageFile.ImageFile.load", "cv2.imdecode"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("decoded"))
    data = open_data(config, "val")
    assert data.size_hw(0) == (128, 96) and data.coco().dataset["annotations"][0]["bbox"] == [36, 32, 24, 64]
    monkeypatch.undo()
    assert data.load(0).image.shape == (128, 96, 3)


def test_only_the_last_images_of_a_path_is_labels_and_subfolders_are_read(tmp_path: Path) -> None:
    root = tmp_path / "images" / "set"
    for name in ("a.jpg", "video/b.JPG", "video/deep/c.png"):
        picture(root / "images" / name)
        label = (root / "labels" / name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{len(name) % 2} .5 .5 .2 .2\n")
    picture(root / "images" / "video" / "background.jpg")
    data = open_data(DataConfig(format="yolo", root=str(root), train="images", val="images", names=("a", "b")), "train")
    assert [data.path(i).name for i in range(4)] == ["a.jpg", "b.JPG", "background.jpg", "c.png"]
    assert [len(data.load(i).labels) for i in range(4)] == [1, 1, 0, 1] and data.image_ids == (1, 2, 3, 4)


def test_a_split_without_one_box_is_an_error(tmp_path: Path) -> None:
    config = yolo_config(tmp_path, "")
    with pytest.raises(YolomishError, match="not one box in 1 images: are the labels where they should be"):
        open_data(config, "train")
    picture(tmp_path / "plain" / "a.jpg")
    (tmp_path / "plain" / "a.txt").write_text("1 .5 .5 .2 .2")
    assert open_data(dataclasses.replace(config, train="plain"), "train").load(0).labels.tolist() == [1]


def test_a_polygon_is_the_box_around_it(tmp_path: Path) -> None:
    data = open_data(yolo_config(tmp_path, "0 .25 .5 .5 .25 .375 .75\n1 .5 .5 .25 .5"), "val")
    np.testing.assert_allclose(data.load(0).boxes, [[32, 24, 64, 72], [48, 24, 80, 72]])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    config = yolo_config(tmp_path, "1 .5 .5 .25 .5\n0 .5 .5 .5 .5\n".encode(encoding))
    (tmp_path / "list.txt").write_bytes("images/a.jpg\n".encode(encoding))
    data = open_data(dataclasses.replace(config, val="list.txt"), "val")
    assert data.load(0).labels.tolist() == [1, 0] == open_data(config, "train").load(0).labels.tolist()
    assert len(open_data(coco_config(tmp_path, coco_content(), encoding=encoding), "val")) == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (b"0 .5 .5 .1 .1\n\xff\n", r"a\.txt is not a UTF-8 text file \(byte 0xff in line 2\)"),
        (b"0 .5 .5 .1\n", r"a\.txt:1: not 'class cx cy w h'"),
        (b"0 .5 .5 .1 .1 .9\n", r"a\.txt:1: not 'class cx cy w h'"),
        (b"0 .5 .5 nan .1\n", r"a\.txt:1: 'nan' is not finite"),
        (b"0 .5 .5 1.2 .1\n", r"a\.txt:1: coordinates must be fractions"),
        (b"\n0 64 48 20 20\n", r"a\.txt:2: coordinates must be fractions"),
        (b"0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n", r"a\.txt:2: class '2' is not in 0\.\.1"),
        (b"1.5 .5 .5 .1 .1\n", r"a\.txt:1: class '1\.5'"),
        (b"red .5 .5 .1 .1\n", r"a\.txt:1: 'red' is no number"),
    ],
)
def test_a_bad_label_line_is_named(tmp_path: Path, labels: bytes, message: str) -> None:
    config = yolo_config(tmp_path, labels)
    with pytest.raises(YolomishError, match=message) as error:
        open_data(config, "val")
    assert str(error.value) in [f.message for f in check_data(config)]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (b"images/a.jpg\nimages/gone.jpg\n", r"images/gone\.jpg does not exist"),
        (b"images/a.jpg\n\nimages/a.jpg\n", r"list\.txt:3: 'images/a\.jpg' stands in line 1 already"),
        (b"a\0.jpg\n", r"list\.txt:1: 'a.*jpg' is no image's name"),
        (b"/\n", r"list\.txt:1: '/' is no image's name"),
        (b"images/\xe9.jpg\n", r"list\.txt is not a UTF-8 text file \(byte 0xe9 in line 1\)"),
        (b"", r"list\.txt names no images"),
        (b"x" * 300 + b".jpg", "does not exist"),
    ],
)
def test_a_bad_list_is_named_before_anything_runs(tmp_path: Path, listed: bytes, message: str) -> None:
    config = dataclasses.replace(yolo_config(tmp_path), val="list.txt")
    (tmp_path / "list.txt").write_bytes(listed)
    with pytest.raises(YolomishError, match=message):
        open_data(config, "val")


def test_broken_pictures_are_named_by_header(tmp_path: Path) -> None:
    config = yolo_config(tmp_path)
    (tmp_path / "images" / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(YolomishError, match=r"b\.jpg is not an image"):
        open_data(config, "val")
    assert [f.check for f in check_data(config) if f.severity == "error" and f.split == "val"] == ["image-unreadable"]


# VOC


def voc_object(name: str, box: tuple[int, int, int, int], difficult: int = 0) -> str:
    sides = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


def voc_config(root: Path, images: dict[str, str], *, suffix: str = ".jpg", listed: str = "") -> DataConfig:
    """``images``: the XML between the annotation tags of each stem."""
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "Annotations").mkdir()
    for stem, xml in images.items():
        picture(root / "JPEGImages" / f"{stem}{suffix}")
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{xml}</annotation>")
    for split in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(listed or "\n".join(images))
    return DataConfig(format="voc", root=str(root))


def test_voc_names_may_hold_spaces_and_suffixes_any_case(tmp_path: Path) -> None:
    xml = voc_object(" red\n", (11, 21, 50, 60)) + voc_object("blue", (5, 5, 5, 9))
    config = voc_config(tmp_path, {"IMG val (1)": xml, "a.b": xml, "c -1": xml}, suffix=".JPG")
    data = open_data(config, "val")
    assert [data.path(i).name for i in range(3)] == ["IMG val (1).JPG", "a.b.JPG", "c -1.JPG"]
    assert data.names == ("blue", "red") and data.load(0).boxes.tolist() == [[10, 20, 50, 60]]
    assert [f.check for f in read_listing(config, "val").findings if f.severity == "warning"][:3] == ["box-degenerate"] * 3
    assert data.left_out == "warning: val.txt: 3 box-degenerate: `yolomish check` says where"


def test_voc_class_lists_have_a_second_column(tmp_path: Path) -> None:
    xml = voc_object("red", (11, 21, 50, 60))
    config = voc_config(tmp_path, {"a 1": xml, "b": xml, "c": xml}, listed="a 1  1\nb -1\nc 0\n")
    assert [open_data(config, "val").path(i).stem for i in range(3)] == ["a 1", "b", "c"]


@pytest.mark.parametrize(
    "size",
    [
        "",
        "<size/>",
        "<size><width></width><height></height></size>",
        "<size><width>0</width><height>0</height></size>",
        "<size><width>128.0</width><height>96.0</height></size>",
        "<size><width>wide</width><height>96</height></size>",
        "<size><width>128.5</width><height>96</height></size>",
    ],
)
def test_voc_sizes_are_stated_or_the_headers(tmp_path: Path, size: str) -> None:
    data = open_data(voc_config(tmp_path, {"a": size + voc_object("red", (11, 21, 50, 60))}), "val")
    assert data.size_hw(0) == (96, 128) and data.load(0).image.shape == (96, 128, 3)
    assert len(data.boxes_at((96, 96), keep_aspect=False)[0]) == 1


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<object><name>red</name></object>", r"a\.xml object 1: no complete bndbox"),
        (voc_object("red", (1, 1, int(1e200), int(1e200))), "object 1: .*nothing is over"),
        (voc_object(" ", (1, 1, 50, 60)), r"a\.xml object 1: no name"),
        (voc_object("red", ("x", 1, 5, 6)), r"a\.xml object 1: no complete bndbox: 'x' is no number"),  # type: ignore[arg-type]
        (voc_object("red", (1, 1, 50, 60)) + "<", r"a\.xml: "),
        (voc_object("red", (1, 1, 50, 60)) + voc_object("red", (200, 10, 220, 20)), r"object 2: red .* lies outside the 128x96"),
    ],
)
def test_a_bad_voc_annotation_is_named(tmp_path: Path, xml: str, message: str) -> None:
    config = voc_config(tmp_path, {"a": xml})
    with pytest.raises(YolomishError, match=message):
        open_data(config, "val")


def test_voc_without_its_files_is_named(tmp_path: Path) -> None:
    xml = voc_object("red", (11, 21, 50, 60))
    config = voc_config(tmp_path, {"a": xml, "b": xml}, listed="a\nb\na\n")
    with pytest.raises(YolomishError, match=r"val\.txt: a stand there twice"):
        open_data(config, "val")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("a\nb\n")
    (tmp_path / "Annotations" / "b.xml").unlink()
    with pytest.raises(YolomishError, match=r"b\.xml: No such file"):
        open_data(config, "val")
    with pytest.raises(YolomishError, match="class 'red' is not one"):
        open_data(dataclasses.replace(voc_config(tmp_path / "new", {"a": xml}), names=("blue",)), "val")
    with pytest.raises(YolomishError, match=r"no ImageSets/gone\.txt or ImageSets/Main/gone\.txt"):
        open_data(dataclasses.replace(config, val="gone"), "val")


def difficult_set(root: Path) -> tuple[DetectionData, CocoResults]:
    """Easy and difficult objects of two classes, and detections: all perfect, some twice, some wrong."""
    rng = np.random.default_rng(5)
    images, results = {}, []
    for number in range(1, 13):
        xml = ""
        for column in range(3):
            x, y, w, h = (int(v) for v in (40 * column + 2, rng.integers(2, 30), rng.integers(20, 36), rng.integers(20, 60)))
            label, difficult = int(rng.integers(2)), int(rng.random() < 0.4)
            xml += voc_object(("blue", "red")[label], (x + 1, y + 1, x + w, y + h), difficult)
            for score in rng.uniform(0.1, 1, 1 + int(rng.random() < 0.4)).tolist():
                results.append({"image_id": number, "category_id": label + 1, "bbox": [x, y, w, h], "score": score})
            if rng.random() < 0.3:  # inside the object, but no hit: a crowd would excuse it
                results.append({"image_id": number, "category_id": label + 1, "bbox": [x + 2, y + 2, 9, 9], "score": 0.95})
        images[f"{number:03d}"] = xml
    return open_data(voc_config(root, images), "val"), CocoResults.of(results)


def test_difficult_objects_are_neither_missed_nor_found_nor_false_alarms(tmp_path: Path) -> None:
    data, results = difficult_set(tmp_path)
    truth = data.coco()
    difficult = [a for a in truth.dataset["annotations"] if a["difficult"]]
    places = [(a["image_id"], a["bbox"]) for a in difficult]
    kept = [r for r in results if (r["image_id"], r["bbox"]) not in places]
    assert 5 < len(difficult) and len(kept) < len(results) - len(difficult)
    with contextlib.redirect_stdout(io.StringIO()):
        without = COCO()
        without.dataset = copy.deepcopy(
            {**truth.dataset, "annotations": [a for a in truth.dataset["annotations"] if not a["difficult"]]}
        )
        without.createIndex()
        evaluation = COCOeval(without, without.loadRes(copy.deepcopy(kept)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    for _ in range(2):  # an evaluation leaves the truth as it was
        assert run_cocoeval(truth, results).stats.tolist() == evaluation.stats.tolist()
    counting = copy.deepcopy(truth)
    for annotation in counting.dataset["annotations"]:
        annotation["difficult"] = 0
    assert abs(run_cocoeval(counting, results).stats[0] - evaluation.stats[0]) > 0.02


def test_difficult_objects_count_in_no_table(tmp_path: Path) -> None:
    data, results = difficult_set(tmp_path)
    truth = data.coco()
    easy = sum(not a["difficult"] for a in truth.dataset["annotations"])
    matched = match(truth, results, data.category_ids)
    assert len(matched.found) == easy and matched.found.all() and (matched.ignored & matched.true).sum() == 0
    places = [(a["image_id"], a["bbox"]) for a in truth.dataset["annotations"] if a["difficult"]]
    hits = sum((r["image_id"], r["bbox"]) in places for r in results)
    assert matched.ignored.sum() == hits and (classify(matched)[matched.ignored] == -1).all()
    counts = confusion_matrix(truth, results, data.names, data.category_ids, conf=0.0).counts
    assert counts[:2].sum() == easy and counts[2].sum() == len(results) - easy - hits


def test_difficult_objects_are_trained_on_and_other_backends_refuse_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, results = difficult_set(tmp_path)
    assert sum(len(data.load(i).labels) for i in range(len(data))) == 36 == len(data.boxes_at((64, 64), keep_aspect=False)[0])
    monkeypatch.setitem(BACKENDS, "faster", ("json", "COCO", "COCOeval"))  # whether the package is installed or not
    with pytest.raises(YolomishError, match="--backend faster does not leave out VOC's difficult objects"):
        evaluate(data.coco(), results, data.names, data.category_ids, backend="faster")


# what is known of a split


def test_only_coco_val2017s_own_ids_are_val2017(tmp_path: Path) -> None:
    content = coco_content()
    for name, ids, expected in (
        ("the first five", (139, 285, 632, 724, 776, 785), True),
        ("numbers from 1", range(1, 800), False),
        ("others", (139, 285, 632), False),
    ):
        content["images"] = [{"id": i, "file_name": f"{i}.png", **HEADER} for i in ids]
        content["annotations"] = [{"id": 1, "image_id": next(iter(ids)), "category_id": 3, "bbox": [1, 1, 9, 9]}]
        (tmp_path / name / "im").mkdir(parents=True)
        for i in ids:
            (tmp_path / name / "im" / f"{i}.png").touch()
        data = open_data(coco_config(tmp_path / name, content, files=()), "val")
        assert is_val2017(data) == expected, name
        numbered = DetectionData(dataclasses.replace(data.listing, own_ids=False))
        assert not is_val2017(numbered)
        assert is_val2017(DetectionData(dataclasses.replace(numbered.listing, source=Path("instances_val2017.json"))))


def test_the_first_images_have_their_own_annotations_only(tmp_path: Path) -> None:
    data = open_data(coco_config(tmp_path, coco_content()), "val").first(1)
    assert data.image_ids == (7,) and [a["image_id"] for a in data.coco().dataset["annotations"]] == [7, 7]


def test_an_image_of_another_size_than_stated_is_refused_when_loaded_and_by_check(tmp_path: Path) -> None:
    config = coco_config(tmp_path, coco_content())
    cv2.imwrite(str(tmp_path / "im" / "9.png"), np.zeros((128, 96, 3), np.uint8))
    with pytest.raises(YolomishError, match=r"decodes to 96x128 px but .* says 128x96"):
        open_data(config, "val").load(1)
    assert any(f.check == "size-differs" and "swapped" in f.message for f in check_data(config))
