"""Accuracy, confusion and calibration from each image's row (see ``predict``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolomish.types import Metrics

BINS = 15  # arXiv:1706.04599, 4
STATISTICS = ("top1", "top5")


def hits(rows: Sequence[dict]) -> np.ndarray:
    """(I, 2) whether each image's label is its likeliest class, and among the likeliest five, float64 in 0..1."""
    ranks = np.array([row["rank"] for row in rows])
    return np.stack((ranks < 1, ranks < 5), 1).astype(np.float64)


def resampled_accuracy(rows: Sequence[dict], classes: int, weights: np.ndarray) -> np.ndarray:
    """(R, 2 + K) top-1, top-5 and each class's top-1 where image i counts ``weights`` (R, I) times; NaN without images."""
    found, labels = hits(rows), np.array([row["label"] for row in rows])
    counts = weights.astype(np.float64)
    of_class = labels[:, None] == np.arange(classes)  # (I, K)
    sums = np.concatenate((counts @ found, counts @ (of_class * found[:, :1])), 1)
    totals = np.concatenate((np.repeat(counts.sum(1, keepdims=True), 2, 1), counts @ of_class), 1)
    return np.divide(sums, totals, out=np.full(sums.shape, np.nan), where=totals > 0)


def confusion_counts(rows: Sequence[dict], classes: int) -> np.ndarray:
    """(K, K) images of each class (rows) by what they were taken for (columns)."""
    counts: np.ndarray = np.zeros((classes, classes), np.int64)
    np.add.at(counts, ([row["label"] for row in rows], [row["classes"][0] for row in rows]), 1)
    return counts


def calibration(rows: Sequence[dict]) -> np.ndarray:
    """(15, 3) images, mean score of the likeliest class and accuracy, by equal ranges of that score; NaN in empty ones."""
    scores, right = np.array([row["scores"][0] for row in rows]), hits(rows)[:, 0]
    place = np.minimum(np.ceil(scores * BINS).astype(int) - 1, BINS - 1).clip(0)  # (0, 1/15], (1/15, 2/15], ...
    counts, sums, correct = (np.bincount(place, weight, BINS) for weight in (None, scores, right))
    with np.errstate(invalid="ignore"):
        return np.stack((counts, sums / counts, correct / counts), 1)


def expected_calibration_error(rows: Sequence[dict]) -> float:
    """The gap between score and accuracy, mean over images of their range's (arXiv:1706.04599, 2)."""
    counts, scores, accuracy = calibration(rows).T
    return float(np.nansum(counts * np.abs(scores - accuracy)) / len(rows))


def class_metrics(rows: Sequence[dict], names: tuple[str, ...]) -> Metrics:
    """top1, top5, nll and ece of all images, and each class's top1 (its recall); -1 for a class without images."""
    values = np.nan_to_num(resampled_accuracy(rows, len(names), np.ones((1, len(rows))))[0], nan=-1.0).tolist()
    return Metrics(
        primary="top1",
        values={
            **dict(zip(STATISTICS, values, strict=False)),
            "nll": float(np.mean([row["nll"] for row in rows])),
            "ece": expected_calibration_error(rows),
        },
        per_class=dict(zip(names, values[len(STATISTICS) :], strict=True)),
    )
