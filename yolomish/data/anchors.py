"""Anchors for a data set: k-means over box sizes with 1 - IoU as the distance (YOLO9000, arXiv:1612.08242, section 2), then
mutations that are kept where they help (as in YOLOv5 utils/autoanchor.py, with another measure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from yolomish.data.streams import Use, stream
from yolomish.errors import YolomishError
from yolomish.ops.boxes import MAX_RATIO, shape_iou
from yolomish.types import HeadSpec

ITERATIONS = 300
LEARNT_FROM = 20_000  # boxes, drawn where there are more; all are measured
MUTATED, SIGMA = 0.9, 0.1  # share of the numbers that a mutation changes, and by how much (YOLOv5)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Anchors (A, 2) in network px, how many of the boxes one of them comes near (``recall``), and the mean IoU with the best."""

    anchors: np.ndarray
    recall: float
    mean_iou: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model's own anchors, those of k-means and the refined ones, whole px, small to large."""

    own: Fit
    kmeans: Fit
    refined: Fit


def choose_anchors(
    sizes: np.ndarray, heads: Sequence[HeadSpec], count: int = 0, *, generations: int = 1000, seed: int = 0
) -> Choice:
    """Anchors for boxes (N, 2) in network px: ``count`` of them, or as many as the ``heads`` have together.

    The same ``seed`` makes the same anchors. YolomishError where there are fewer different boxes than anchors.
    """
    own = np.array(list(dict.fromkeys(anchor for head in heads for anchor in head.anchors)), np.float64)
    count = count or sum(len(head.mask) for head in heads)
    some = sizes
    if len(sizes) > LEARNT_FROM:
        some = sizes[np.sort(stream(Use.ANCHORS, seed, epoch=2).choice(len(sizes), LEARNT_FROM, replace=False))]
    first = kmeans_anchors(some, count, seed=seed)
    refined = refine(some, first, generations, seed=seed)
    whole = (own, first.round().clip(1), refined.round().clip(1))
    return Choice(**{name: measure(sizes, a) for name, a in zip(("own", "kmeans", "refined"), whole, strict=True)})


def measure(sizes: np.ndarray, anchors: np.ndarray) -> Fit:
    """How well anchors (A, 2) fit boxes (N, 2)."""
    return Fit(anchors=anchors, recall=best_possible_recall(sizes, anchors), mean_iou=mean_best_iou(sizes, anchors))


def best_possible_recall(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """The share of boxes (N, 2) for which an anchor (A, 2) can answer: both sides within ``MAX_RATIO`` times of each other."""
    near: np.ndarray = np.zeros(len(sizes), bool)
    for anchor in anchors:
        ratio = sizes / anchor
        near |= np.maximum(ratio, 1 / ratio).max(1) < MAX_RATIO
    return float(near.mean())


def refine(sizes: np.ndarray, anchors: np.ndarray, generations: int, *, seed: int = 0) -> np.ndarray:
    """Anchors (A, 2) after mutations of which each raised the mean IoU with boxes (N, 2) and lost no recall."""
    rng = stream(Use.ANCHORS, seed, epoch=1)
    best = measure(sizes, anchors)
    for _ in range(generations):
        factors = 1 + (rng.random(anchors.shape) < MUTATED) * rng.random() * rng.normal(0, SIGMA, anchors.shape)
        tried = (best.anchors * factors.clip(0.3, 3)).clip(1)
        if mean_best_iou(sizes, tried) > best.mean_iou:
            fit = measure(sizes, tried)
            best = fit if fit.recall >= best.recall else best
    return best.anchors[np.argsort(best.anchors.prod(1), kind="stable")]


def share_out(heads: Sequence[HeadSpec], count: int) -> list[tuple[HeadSpec, list[int]]]:
    """The mask of each head, in their order, over ``count`` anchors from small to large: the finest stride gets the smallest.

    Each head keeps its number of anchors where they fit together, or else gets an equal share.
    """
    numbers = np.arange(count)
    order = sorted(range(len(heads)), key=lambda i: heads[i].stride)
    own = [len(heads[i].mask) for i in order]
    parts = np.split(numbers, np.cumsum(own)[:-1]) if sum(own) == count else np.array_split(numbers, len(heads))
    masks = dict(zip(order, parts, strict=True))
    return [(head, masks[i].tolist()) for i, head in enumerate(heads)]


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
