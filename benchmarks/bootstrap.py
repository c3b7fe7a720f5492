"""How long do the resamples of a COCO-sized comparison take? 5,000 images, 80 classes, 36,000 objects, 30 detections an image.

PYTHONPATH=tests python benchmarks/bootstrap.py
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch
from common import report, spread
from reference.detections import simulate_results, simulate_truth

from yolomish.evaluation.coco import run_cocoeval
from yolomish.evaluation.resample import draw_images, match, resampled_ap, summarise


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    truth = simulate_truth(options.images, 80, objects=7.2)
    results = simulate_results(truth, clutter=24)
    began = time.perf_counter()
    numbers = run_cocoeval(truth, results).stats[:6]
    evaluated = time.perf_counter() - began
    matches = match(truth, results)
    ours = summarise(resampled_ap(matches, np.ones((1, options.images), np.int32)))[0]
    weights = draw_images(options.images, options.resamples, np.random.default_rng(0))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        resampled_ap(matches, weights, threads=options.threads)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [
        ("objects / detections", f"{len(truth.anns):,} / {len(results):,}"),
        ("pycocotools, once", f"{evaluated:.1f} s"),
        (f"{options.resamples} resamples of one detector, {options.threads} threads", f"{spread(seconds)} s"),
        ("largest difference to pycocotools, unit weights", f"{np.abs(ours - numbers).max():.1e}"),
        ("peak memory of the whole process", f"{peak:.2f} GiB"),
    ]
    report("Resampling AP over images", ("what", "value"), rows, torch.device("cpu"))


if __name__ == "__main__":
    main()
