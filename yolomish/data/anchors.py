"""Anchors for a data set: k-means over box sizes with 1 - IoU as the distance (YOLO9000, arXiv:1612.08242, section 2)."""

from __future__ import annotations

import numpy as np
import torch

from yolomish.data.streams import Use, stream
from yolomish.errors import YolomishError
from yolomish.ops.boxes import shape_iou

ITERATIONS = 300


def shape_ious(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """``ops.boxes.shape_iou`` of (N, 2) and (A, 2) arrays, (N, A)."""
    ious: np.ndarray = shape_iou(torch.from_numpy(sizes), torch.from_numpy(anchors)).numpy()
    return ious


def mean_best_iou(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """The mean over boxes (N, 2) of the IoU with the best of the anchors (A, 2), 0..1."""
    return float(shape_ious(sizes, anchors).max(1).mean())


def kmeans_anchors(sizes: np.ndarray, count: int, *, seed: int = 0, restarts: int = 5) -> np.ndarray:
    """The best of some runs: (count, 2) widths and heights, small to large by area, for boxes (N, 2) in the same px.

    Each run starts from k-means++ draws by ``seed`` and keeps the best mean IoU on its way, since means need not raise
    it. YolomishError where there are fewer different boxes than anchors.
    """
    different = len(np.unique(sizes, axis=0))
    if count < 1 or different < count:
        raise YolomishError(f"{count} anchors cannot be found from {different} different box sizes: take fewer")
    best, best_score = np.empty((0, 2)), -1.0
    for run in range(restarts):
        anchors = _first_guess(sizes, count, stream(Use.ANCHORS, seed, index=run))
        nearest = np.full(len(sizes), -1)
        for _ in range(ITERATIONS):
            ious = shape_ious(sizes, anchors)
            score = float(ious.max(1).mean())
            if score > best_score:
                best, best_score = anchors.copy(), score
            new = ious.argmax(1)
            if np.array_equal(new, nearest):
                break
            nearest = new
            for k in range(count):
                if (nearest == k).any():
                    anchors[k] = sizes[nearest == k].mean(0)
    return best[np.argsort(best.prod(1), kind="stable")]


def _first_guess(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next one drawn by its squared distance 1 - IoU from those chosen."""
    chosen = [int(rng.integers(len(sizes)))]
    while len(chosen) < count:
        weights = (1 - shape_ious(sizes, sizes[chosen]).max(1)).clip(0) ** 2
        chosen.append(int(rng.choice(len(sizes), p=weights / weights.sum())))
    return sizes[chosen].astype(np.float64)
