"""Work and memory grow no faster than the data: calls and bytes are counted, since seconds depend on the machine."""

import cProfile
import json
import os
import pstats
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reference.detections import simulate_results, simulate_truth

from yolomish.config import load_data_config
from yolomish.data.check import examine
from yolomish.data.datasets import open_data
from yolomish.data.images import write_image
from yolomish.evaluation.coco import run_cocoeval
from yolomish.evaluation.coco_results import CocoResults
from yolomish.evaluation.resample import draw_images, match, resampled_ap

Make = Callable[[Path, int], Callable[[], object]]


def _folder(folder: Path, images: int) -> str:
    """A data YAML of a COCO file whose ``images`` are hard links to one picture, with three boxes each."""
    (folder / "images").mkdir(parents=True)
    write_image(folder / "images" / "0.png", np.zeros((32, 32, 3), np.uint8))
    for i in range(1, images):
        os.link(folder / "images" / "0.png", folder / "images" / f"{i}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 32, "height": 32} for i in range(images)],
        "annotations": [
            {"id": 3 * i + k + 1, "image_id": i, "category_id": k + 1, "bbox": [k, k, 20, 20], "area": 400, "iscrowd": 0}
            for i in range(images)
            for k in range(3)
        ],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(3)],
    }
    (folder / "val.json").write_text(json.dumps(content))
    (folder / "data.yaml").write_text("format: coco\ntrain: ''\nval: val.json\nval_images: images\n")
    return str(folder / "data.yaml")


def _opening(folder: Path, images: int) -> Callable[[], object]:
    config = load_data_config(_folder(folder, images))
    return lambda: open_data(config, "val")


def _checking(folder: Path, images: int) -> Callable[[], object]:
    config = load_data_config(_folder(folder, images))
    return lambda: examine(config, fast=True)


def _evaluating(folder: Path, images: int) -> Callable[[], object]:
    truth = simulate_truth(images, 2)
    results = simulate_results(truth)
    return lambda: run_cocoeval(truth, results)


def _resampling(folder: Path, images: int) -> Callable[[], object]:
    truth = simulate_truth(images, 2)
    matches = match(truth, simulate_results(truth))
    weights = draw_images(images, 40, np.random.default_rng(0))
    return lambda: resampled_ap(matches, weights, threads=1)


def _storing(folder: Path, images: int) -> Callable[[], object]:
    truth = simulate_truth(images, 2)
    results = simulate_results(truth)
    folder.mkdir()

    def run() -> None:
        results.write(folder / "results.json")
        CocoResults.of(json.loads((folder / "results.json").read_text()))

    return run


@pytest.mark.parametrize("make", [_opening, _checking, _evaluating, _resampling, _storing])
def test_work_and_memory_grow_no_faster_than_the_data(make: Make, tmp_path: Path) -> None:
    sizes = (20, 40, 80, 160)  # the first warms up what is made once
    calls, peaks = [], []
    for size in sizes:
        run = make(tmp_path / str(size), size)
        with cProfile.Profile() as profile:
            run()
        calls.append(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]
        tracemalloc.start()
        run()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    for counts in (
        calls,
        peaks,
    ):  # steps between sizes, so that what does not grow drops out: twice if linear, four times if squared
        assert counts[3] - counts[2] <= 2.5 * (counts[2] - counts[1]) + 1000, (make.__name__, calls, peaks)
