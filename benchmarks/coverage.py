"""How often do the comparison's 95 % intervals hold the true difference? Counted over simulated comparisons whose truth is known.

    PYTHONPATH=tests python benchmarks/coverage.py --experiments 1500

Detectors of known quality on drawn images (``tests/reference/detections.py``); the truth is the mean over many more draws.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from common import report
from reference.detections import Images

from yolomish.evaluation.resample import draw_images, resampled_ap, summarise
from yolomish.evaluation.stats import paired_difference

CASES = ((1, 50, 0.0), (1, 100, 0.0), (1, 300, 0.0), (2, 100, 0.1), (3, 100, 0.0), (3, 100, 0.1), (5, 100, 0.1))


def differences(seeds: int, images: int, spread: float, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(S, 1 + R) AP differences of two detectors whose quality has sd ``spread`` over seeds; first the images as drawn."""
    drawn = Images(images, rng)
    weights = np.concatenate((np.ones((1, images), np.int32), draw_images(images, resamples, rng)))
    rows = []
    for _ in range(seeds):
        a, b = (
            summarise(resampled_ap(drawn.detect(quality + rng.normal(0, spread), rng), weights, threads=1))[:, 0]
            for quality in (0.9, 0.7)
        )
        rows.append(a - b)
    return np.stack(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=1500)
    parser.add_argument("--resamples", type=int, default=200)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for seeds, images, spread in CASES:
        truth = float(np.mean([differences(1, images, spread, 1, rng)[0, 0] for _ in range(4 * options.experiments)]))
        covered = percentiles = 0
        for _ in range(options.experiments):
            values = differences(seeds, images, spread, options.resamples, rng)
            d = paired_difference("AP", "a", "b", list(values[:, 0]), [0.0] * seeds, resampled=values[:, 1:])
            covered += bool(d.low <= truth <= d.high)
            percentiles += bool(d.bootstrap[0] <= truth <= d.bootstrap[1])
        share = covered / options.experiments
        error = math.sqrt(share * (1 - share) / options.experiments)
        cells = f"{truth:.4f}", f"{share:.1%} ± {error:.1%}", f"{percentiles / options.experiments:.1%}"
        rows.append((str(seeds), str(images), f"{spread:g}", *cells))
        print(rows[-1], flush=True)
    columns = ("seeds", "images", "spread of seeds", "true AP difference", "95 % interval holds it", "percentiles hold it")
    notes = f"{options.experiments} comparisons a row, {options.resamples} resamples each; ± one standard error of the count."
    report("Coverage of the comparison's intervals", columns, rows, torch.device("cpu"), notes)


if __name__ == "__main__":
    main()
