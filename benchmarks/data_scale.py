"""How do time and memory grow with the data: opened, checked, evaluated, resampled, reported, written and read?

    python benchmarks/data_scale.py                       # 1,000, 10,000 and 118,000 images of 80 classes: ten minutes
    python benchmarks/data_scale.py --stage check         # or a part of it
    python benchmarks/data_scale.py --full my.yaml        # and data of one's own, every picture decoded

Every stage of every size is a process of its own, and its peak is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import report

from yolomish.comparison import compare_finished
from yolomish.config import load_data_config
from yolomish.data.check import examine
from yolomish.data.datasets import open_data
from yolomish.data.images import write_image
from yolomish.data.shapes import picture
from yolomish.evaluation.coco import run_cocoeval
from yolomish.evaluation.coco_results import CocoResults
from yolomish.evaluation.resample import draw_images, match, resampled_ap
from yolomish.tasks.registry import find_task

SIDE, PICTURES, CLASSES, OBJECTS, DETECTIONS = 192, 300, 80, 7.3, 100
RESAMPLES, REPORTED = 1000, 20  # draws of the images; images of a report's files


def write(folder: Path, images: int) -> Path:
    """A COCO file of so many ``images``, the names being hard links to a few pictures; returns a YAML that has it as val."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for i in range(min(images, PICTURES)):
        write_image(folder / "images" / f"{i:012}.jpg", picture(np.random.default_rng(i))[0])
    for i in range(PICTURES, images):
        os.link(folder / "images" / f"{i % PICTURES:012}.jpg", folder / "images" / f"{i:012}.jpg")
    boxes = round(images * OBJECTS)
    owner = np.sort(rng.integers(0, images, boxes)).tolist()
    corners, sides = rng.uniform(0, 90, (boxes, 2)).round(2).tolist(), rng.uniform(1, 90, (boxes, 2)).round(2).tolist()
    labels = rng.integers(1, CLASSES + 1, boxes).tolist()
    rows = [
        {"id": i + 1, "image_id": o, "category_id": k, "bbox": [*c, *s], "area": s[0] * s[1], "iscrowd": 0}
        for i, (o, k, c, s) in enumerate(zip(owner, labels, corners, sides, strict=True))
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "width": SIDE, "height": SIDE} for i in range(images)],
        "annotations": rows,
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)],
    }
    (folder / "val.json").write_text(json.dumps(content))
    yaml = folder / "data.yaml"
    yaml.write_text("format: coco\ntrain: ''\nval: val.json\nval_images: images\n")
    return yaml


def detections(truth: Path, seed: int) -> CocoResults:
    """100 detections of every image of a COCO file: its objects with moved boxes, and false ones of any class."""
    rng, content = np.random.default_rng(seed), json.loads(truth.read_text())
    images, objects = len(content["images"]), content["annotations"]
    owners = np.array([row["image_id"] for row in objects])
    boxes = np.array([row["bbox"] for row in objects]) * np.exp(rng.normal(0, 0.07, (len(objects), 4)))
    rest = np.repeat(np.arange(images), np.maximum(DETECTIONS - np.bincount(owners, minlength=images), 0))
    false = np.concatenate((rng.uniform(0, 90, (len(rest), 2)), rng.uniform(1, 90, (len(rest), 2))), 1)
    labels = np.concatenate(([row["category_id"] for row in objects], rng.integers(1, CLASSES + 1, len(rest))))
    scores = np.concatenate((rng.beta(5, 2, len(owners)), rng.beta(2, 5, len(rest))))
    return CocoResults(np.concatenate((owners, rest)), labels, np.concatenate((boxes, false)), scores)


def opening(yaml: Path, size: int) -> Callable[[], object]:
    """``open_data`` with its faults."""
    return lambda: open_data(load_data_config(str(yaml)), "val")


def checking(yaml: Path, size: int) -> Callable[[], object]:
    """``data check --fast``: headers alone."""
    return lambda: examine(load_data_config(str(yaml)), fast=True)


def decoding(yaml: Path, size: int) -> Callable[[], object]:
    """``data check``: every picture decoded and hashed."""
    return lambda: examine(load_data_config(str(yaml)))


def evaluating(yaml: Path, size: int) -> Callable[[], object]:
    """COCO's twelve numbers by pycocotools."""
    truth = find_task("detect").open(load_data_config(str(yaml)), "val").coco()
    results = detections(yaml.parent / "val.json", 0)
    return lambda: run_cocoeval(truth, results)


def resampling(yaml: Path, size: int) -> Callable[[], object]:
    """AP on 1,000 draws of the images, after one evaluation that is not timed."""
    matches = match(find_task("detect").open(load_data_config(str(yaml)), "val").coco(), detections(yaml.parent / "val.json", 0))
    return lambda: resampled_ap(matches, draw_images(size, RESAMPLES, np.random.default_rng(0)))


def reporting(yaml: Path, size: int) -> Callable[[], object]:
    """``compare`` of result files of two arms."""
    names = []
    for i in range(size):
        file = yaml.parent / f"{i}.json"
        detections(yaml.parent / "val.json", i).write(file)
        names.append(f"{'ab'[i % 2]}={file}")
    config = load_data_config(str(yaml))
    return lambda: compare_finished(names, yaml.parent / "out", data=config, device="cpu", log=lambda _: None)


def storing(yaml: Path, size: int) -> Callable[[], object]:
    """COCO results written as results.json and read again."""
    results, file = detections(yaml.parent / "val.json", 0), yaml.parent / "results.json"

    def again() -> None:
        results.write(file)
        find_task("detect").read_results(file)

    return again


# name -> what is measured, its unit, its sizes, how many images hold a size, what prepares it
STAGES: dict[str, tuple[str, str, tuple[int, ...], Callable[[int], int], Callable[[Path, int], Callable[[], object]]]] = {
    "open": ("open", "images", (1000, 10_000, 118_000), lambda size: size, opening),
    "check": ("data check --fast", "images", (1000, 10_000, 118_000), lambda size: size, checking),
    "evaluate": ("evaluation, 100 detections each", "images", (1000, 5000), lambda size: size, evaluating),
    "resample": (f"{RESAMPLES:,} resamples of the same", "images", (1000, 5000), lambda size: size, resampling),
    "report": (f"compare and its report, {REPORTED} images", "files", (10, 100), lambda size: REPORTED, reporting),
    "results": (
        "COCO results written and read",
        "rows",
        (200_000, 1_250_000),
        lambda size: size // DETECTIONS,
        storing,
    ),
    "full": ("data check, every picture decoded", "images", (), lambda size: size, decoding),
}


def peak_bytes() -> int:
    """This process's largest resident memory. Linux's ``ru_maxrss`` begins at that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(stage: str, yaml: str, size: str) -> None:
    """Print seconds, CPU seconds, and the peak memory in bytes of this process in all and beyond what its imports took."""
    start = peak_bytes()
    run = STAGES[stage][4](Path(yaml), int(size))
    began, cpu = time.perf_counter(), time.process_time()
    run()
    seconds, used, peak = time.perf_counter() - began, time.process_time() - cpu, peak_bytes()
    print(json.dumps([seconds, used, peak, peak - start]))


def measured(stage: str, yaml: Path, size: int) -> list[float]:
    """What ``measure`` prints of a stage, in a process of its own."""
    command = [sys.executable, __file__, "--measure", stage, str(yaml), str(size)]
    return list(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--stage", choices=sorted(STAGES.keys() - {"full"}), action="append", help="of all stages, this one; repeatable"
    )
    parser.add_argument("--most", type=int, default=118_000, help="leave out sizes of more images")
    parser.add_argument("--full", type=Path, help="data YAML whose pictures are decoded, too")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure)
    rows = []
    for stage in options.stage or [name for name in STAGES if name != "full"]:
        what, unit, sizes, images, _ = STAGES[stage]
        before: tuple[int, float, float] | None = None
        for size in (size for size in sizes if images(size) <= options.most):
            with tempfile.TemporaryDirectory() as name:
                seconds, used, peak, beyond = measured(stage, write(Path(name), images(size)), size)
            growth = ("", "")
            if before:
                step = math.log(size / before[0])
                growth = (f"{math.log(used / before[1]) / step:.2f}", f"{math.log(beyond / before[2]) / step:.2f}")
            rows.append((what, f"{size:,} {unit}", f"{seconds:.1f}", f"{used:.1f}", growth[0], f"{peak / 2**30:.2f}", growth[1]))
            print(*rows[-1], file=sys.stderr, sep="  ", flush=True)
            before = size, used, beyond
    if options.full:
        seconds, used, peak, _ = measured("full", options.full, 0)
        rows.append((STAGES["full"][0], str(options.full), f"{seconds:.1f}", f"{used:.1f}", "", f"{peak / 2**30:.2f}", ""))
    columns = ("", "size", "seconds", "of them CPU, all threads", "its growth", "peak GiB", "its growth")
    note = (
        "Growth: the exponent of the size from the row above, of CPU seconds and of the memory beyond what the imports take; 1 "
        "is linear. One run each; pictures of 192 px, hard links of 300."
    )
    report("How time and memory grow with the data", columns, rows, torch.device("cpu"), note)


if __name__ == "__main__":
    main()
