"""How long do the evaluation backends that are installed take for the same twelve numbers?

python benchmarks/coco_backends.py --images 500
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util

import numpy as np
import torch
from common import interleaved, ratio, report, spread
from pycocotools.coco import COCO

from yolomish.evaluation.coco import BACKENDS, evaluate
from yolomish.evaluation.coco_results import CocoResults

CLASSES, OBJECTS, DETECTIONS = 80, 7, 100  # an image of COCO has 7.3 objects


def made_up(images: int) -> tuple[COCO, CocoResults]:
    """Ground truth and detections of COCO's proportions: every object found with noise, the rest false alarms."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, images + 1):
        for _ in range(OBJECTS):
            box, label = (
                [*rng.uniform(0, 400, 2).tolist(), *np.exp(rng.uniform(2.5, 5.5, 2)).tolist()],
                int(rng.integers(CLASSES)),
            )
            area = box[2] * box[3]
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": label, "bbox": box, "area": area})
            moved = (np.array(box) * rng.normal(1, 0.08, 4)).tolist()
            results.append({"image_id": image, "category_id": label, "bbox": moved, "score": float(rng.beta(3, 2))})
        for _ in range(DETECTIONS - OBJECTS):
            box = [*rng.uniform(0, 400, 2).tolist(), *rng.uniform(10, 200, 2).tolist()]
            label, score = int(rng.integers(CLASSES)), float(rng.beta(1, 8))
            results.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "width": 640, "height": 640} for i in range(1, images + 1)],
        "categories": [{"id": k, "name": str(k)} for k in range(CLASSES)],
        "annotations": [a | {"iscrowd": 0} for a in annotations],
    }
    truth.createIndex()
    return truth, CocoResults.of(results)


def main() -> None:
    """Time every backend on the same results and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    truth, results = made_up(options.images)
    names, ids = [str(k) for k in range(CLASSES)], list(range(CLASSES))
    packages = {b: package.replace("_", "-") for b, (package, *_) in BACKENDS.items() if importlib.util.find_spec(package)}
    metrics = {b: evaluate(truth, results, names, ids, backend=b).values for b in packages}
    apart = {b: max(abs(m[k] - metrics["pycocotools"][k]) for k in m) for b, m in metrics.items()}
    device = torch.device("cpu")
    times = interleaved(
        {b: lambda b=b: evaluate(truth, results, names, ids, backend=b) for b in packages}, options.rounds, device
    )
    rows = []
    for backend, package in packages.items():
        seconds = times[backend]
        faster = ratio(times["pycocotools"], seconds)
        rows.append((f"{package} {importlib.metadata.version(package)}", spread(seconds), faster, f"{apart[backend]:.1e}"))
    title = f"Evaluation backends, {options.images} images, {CLASSES} classes, {DETECTIONS} detections an image"
    report(title, ("backend", "seconds", "times as fast", "largest difference of the twelve numbers"), rows, device)


if __name__ == "__main__":
    main()
