"""How long does a data set of COCO's size take to open and to check, and how many pictures a minute are decoded?

python benchmarks/data_scale.py            # 118,000 names of 300 pictures, hard links in a temporary folder
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import report

from yolomish.config import load_data_config
from yolomish.data.check import examine
from yolomish.data.datasets import open_data
from yolomish.data.images import write_image
from yolomish.data.shapes import picture

SIDE, PICTURES, CLASSES = 192, 300, 80


def write(folder: Path, images: int, boxes: int) -> Path:
    """A COCO file of ``images`` names and ``boxes`` boxes, the names being hard links to a few pictures; returns its YAML."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for i in range(min(images, PICTURES)):
        write_image(folder / "images" / f"{i:012}.jpg", picture(np.random.default_rng(i))[0])
    for i in range(PICTURES, images):
        os.link(folder / "images" / f"{i % PICTURES:012}.jpg", folder / "images" / f"{i:012}.jpg")
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
    (folder / "train.json").write_text(json.dumps(content))
    yaml = folder / "data.yaml"
    yaml.write_text("format: coco\ntrain: train.json\ntrain_images: images\nval: ''\n")
    return yaml


def measure(what: str, yaml: str) -> None:
    """Print seconds, CPU seconds and the peak memory in bytes of this process."""
    config = load_data_config(yaml)
    began, cpu = time.perf_counter(), time.process_time()
    if what == "open":
        open_data(config, "train")
    else:
        examine(config, fast=what == "fast")
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps([seconds, used, peak]))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--full", default="", help="data YAML whose pictures are decoded, too")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        yaml = write(Path(name), options.images, options.boxes)
        tasks = [("open", "open", str(yaml)), ("data check --fast", "fast", str(yaml))]
        tasks += [(f"data check {options.full}", "full", options.full)] if options.full else []
        for label, what, path in tasks:
            command = [sys.executable, __file__, "--measure", what, path]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, used, peak = json.loads(answer.splitlines()[-1])
            rows.append((label, f"{seconds:.1f}", f"{used:.1f}", f"{peak / 2**30:.2f}"))
    title = f"{options.images:,} images with {options.boxes:,} boxes"
    columns = ("", "seconds", "of them CPU, all threads", "peak GiB")
    report(title, columns, rows, torch.device("cpu"), "One run each; pictures of 192 px, hard links of 300.")


if __name__ == "__main__":
    main()
