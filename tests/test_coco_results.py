"""COCO results as arrays: the file is json's own to the byte and pycocotools reads it, and nothing is lost on the way back."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval
from reference.coco_cases import random_case

from yolomish.evaluation import coco_results
from yolomish.evaluation.coco import run_cocoeval
from yolomish.evaluation.coco_results import NOTHING, CocoResults, entries


@pytest.fixture(params=[1, 7, 10_000])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_results, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
def test_the_file_is_that_of_json_and_pycocotools_reads_it(tmp_path: Path) -> None:
    truth, found = random_case(0, crowds=True)
    rows, file = list(found), tmp_path / "results.json"
    found.write(file)
    assert file.read_bytes() == (json.dumps(rows) + "\n").encode() and len(rows) > 100
    assert list(CocoResults.of(entries(file.read_text()))) == rows == list(CocoResults.of(rows))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCOeval(truth, truth.loadRes(str(file)), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    ours = run_cocoeval(truth, found)
    assert ours.stats.tolist() == theirs.stats.tolist() and 0 < ours.stats[0] < 1
    for mine, other in zip(ours.evalImgs, theirs.evalImgs, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or all(np.array_equal(mine[key], other[key]) for key in other)
    found.write(file, decimals=(3, 5))
    rounded = [row | {"bbox": [round(v, 3) for v in row["bbox"]], "score": round(row["score"], 5)} for row in rows]
    assert file.read_text() == json.dumps(rounded) + "\n"


@pytest.mark.usefixtures("block")
def test_no_rows_are_an_empty_list(tmp_path: Path) -> None:
    NOTHING.write(tmp_path / "results.json")
    assert (tmp_path / "results.json").read_text() == "[]\n"
    assert len(CocoResults.of([])) == len(CocoResults.join([])) == 0 and NOTHING.by_image() == {}
    assert CocoResults.of([]).boxes.shape == (0, 4)


def test_an_images_rows_come_best_first_and_equal_ones_in_their_order() -> None:
    rows = [(3, 1, 0.5), (1, 2, 0.5), (3, 3, 0.9), (1, 4, 0.5), (3, 5, 0.5)]
    found = CocoResults.of({"image_id": i, "category_id": k, "bbox": [k, 0, 1, 1], "score": s} for i, k, s in rows)
    assert {i: part.category_ids.tolist() for i, part in found.by_image().items()} == {1: [2, 4], 3: [3, 1, 5]}


@pytest.mark.parametrize("text", ["[]", " [ ]\n", "[1]", '\r\n[ {"a": [1, {}]} ,\t2.5e1,null ] ', '["],["]', "[[]]", "[NaN, 10]"])
def test_entries_are_those_of_json(text: str) -> None:
    assert repr(list(entries(text))) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1] 2", "[1]]", '[{"a": 1}, {"a"]', "{", "[1}"])
def test_what_is_no_json_is_refused_as_json_does(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    with pytest.raises(json.JSONDecodeError):
        list(entries(text))


def test_json_that_is_no_list_is_named() -> None:
    for text, name in (('{"a": []}', "a mapping"), ("3", "a int"), ('"x"', "a str")):
        with pytest.raises(TypeError, match=name):
            list(entries(text))
