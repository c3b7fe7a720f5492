"""Result files of other tools are put right, said to be odd, or refused with the count and the first example."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from reference.comparison import squares

from yolomish.comparison.clusters import cluster_images
from yolomish.comparison.results import Results, read_results
from yolomish.data.datasets import DetectionData, open_data
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import run_cocoeval
from yolomish.evaluation.coco_results import CocoResults
from yolomish.tasks.registry import find_task

BOX = [4.0, 4.0, 30.0, 30.0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    """Images 1 to 4, called 0.png to 3.png, 64 px, one object of class 1 each; classes 1, 2 and 3."""
    config = dataclasses.replace(squares(tmp_path_factory.mktemp("data") / "data"), names=("square", "b", "c"))
    return open_data(config, "val")


def _row(**other: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5} | other


def _read(data: DetectionData, folder: Path, rows: Any) -> Results:
    file = folder / "r.json"
    file.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return read_results(file, data)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([_row(), _row(score=None)], r"1 of 2 entries are no COCO results \(the first: entry 1: score None is no number\)"),
        ([_row(score="high")], "entry 0: score 'high' is no number"),
        ([_row(score=float("nan")), _row(score=float("nan"))], r"2 of 2 entries .*score nan is not finite"),
        ([_row(bbox=None)], "bbox None is no list of four"),
        ([_row(bbox=[1, 2, 3, int("4" * 400)])], r"bbox 4444\S+ is no number"),
        ([_row(bbox=[1, 2, float("inf"), 3])], "bbox inf is not finite"),
        ([_row(category_id=[1])], r"category_id \[1\] is no number"),
        ([_row(image_id=[1])], r"image_id \[1\] is no id"),
        ([_row(image_id="x"), _row(image_id=99)], r"2 of 2 entries are of images that .* \(the first: entry 0, image_id 'x'\)"),
        ([_row(image_id=99)], "image_id 99"),
        ([_row(category_id=77)], r"none of its category ids are those of .*category_id 77"),
        ([3], "1 of 1 entries are no COCO results .*entry 0: 3"),
        ({"annotations": []}, "holds a mapping"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[1, " + "4" * 5000 + "]", "is not JSON"),
        ([_row(bbox=[40, 40, 60, 60])] * 3, r"3 of 3 boxes leave their image as xywh, none as xyxy \(the first: entry 0"),
        ([_row(bbox=[0.1, 0.1, 0.5, 0.5])], r"all 1 boxes are fractions, not px .*64x64 px"),
        ([_row(), _row(bbox=[10, 10, -4, 5])], r"1 of 2 boxes have a negative width or height \(the first: entry 1"),
    ],
)
def test_what_is_no_result_is_refused(data: DetectionData, tmp_path: Path, rows: Any, words: str) -> None:
    with pytest.raises(YolomishError, match=words) as refused:
        _read(data, tmp_path, rows)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("odd", "note"),
    [
        ({"image_id": "1"}, "4 numbers are text, taken as numbers (the first: entry 0)"),
        ({"score": "0.5", "bbox": ["4", "4.0", 30, "30"]}, "4 numbers are text"),
        ({"image_id": lambda i: f"{i}.png"}, "image ids are file names, translated (4 entries; the first: '0.png' is image 1)"),
        ({"image_id": lambda i: f"{i}" if i % 2 else i}, "image ids are file names"),  # as ultralytics: int("0"), else the stem
        ({"category_id": 0}, "classes are counted from 0, the data's ids from 1"),
    ],
)
def test_other_tools_habits_are_translated_and_said(data: DetectionData, tmp_path: Path, odd: dict[str, Any], note: str) -> None:
    truth = [list(a["bbox"]) for a in data.coco().dataset["annotations"]]
    plain = [_row(image_id=i + 1, bbox=box) for i, box in enumerate(truth)]
    changed = []
    for i, row in enumerate(plain):
        new = {key: value(i) if callable(value) else value for key, value in odd.items()}
        texts = {"image_id": str(row["image_id"])} if odd == {"image_id": "1"} else {}
        changed.append(row | new | texts | ({"bbox": [str(x) for x in row["bbox"]]} if "bbox" in odd else {}))
    found = _read(data, tmp_path, changed)
    assert list(found.detections) == list(_read(data, tmp_path, plain).detections) and any(note in line for line in found.notes)
    assert run_cocoeval(data.coco(), found.detections).stats[0] == pytest.approx(1.0)  # pycocotools: all found


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ([_row()] * 11 + [_row(bbox=[60, 60, 30, 3])], "1 of 12 boxes reach over 2 px beyond their image (the first: entry 11"),
        ([_row(score=55.0)], "1 scores are outside 0..1; only their order counts (the first: entry 0 has score 55)"),
        ([_row(), _row()], "1 entries are there before"),
        ([_row(bbox=[4, 4, 0, 5])], "1 of 1 boxes have no area"),
        ([_row(), _row(category_id=9)], "1 of 2 entries are of classes that the data does not have, left out"),
    ],
)
def test_what_is_odd_is_said_with_its_count(data: DetectionData, tmp_path: Path, rows: Any, note: str) -> None:
    found = _read(data, tmp_path, rows)
    assert any(note in line for line in found.notes), found.notes
    assert all(row["category_id"] in data.category_ids for row in found.detections)


def test_a_plain_file_is_taken_as_it_is(data: DetectionData, tmp_path: Path) -> None:
    rows = [_row(), _row(image_id=2, bbox=[63, 0, 1, 1])]
    found = _read(data, tmp_path, rows)
    assert list(found.detections) == rows and found.notes == ()
    assert len(_read(data, tmp_path, []).detections) == 0
    assert find_task("detect").lacking(data, CocoResults.of(rows)) == 2


def test_images_are_clustered_by_what_is_asked_for(data: DetectionData, tmp_path: Path) -> None:
    assert cluster_images(data, "([0-9])").tolist() == [0, 1, 2, 3]
    for key, words in (
        ("folder", "all 4 images into one cluster"),
        ("(x)", "finds no group in the file name '0.png'"),
        ("(", "is no regular expression"),
        ("video_id", "is no COCO file"),
    ):
        with pytest.raises(YolomishError, match=words):
            cluster_images(data, key)
