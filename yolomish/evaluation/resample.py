"""COCO's AP on resampled images: match once, then a resample changes only integer weights in cumulative sums.

Detections are ranked once by score, as pycocotools does; an image drawn twice counts twice, one not drawn not at all.
A precision envelope is reached only at hits and a repeated detection only repeats its point, so sums at the hits are
enough: the result is that of pycocotools on the resampled images.
"""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO

from yolomish.evaluation.coco import run_cocoeval
from yolomish.evaluation.coco_results import CocoResults

MAX_DETECTIONS = 100  # an image and category: what pycocotools keeps
RECALLS = np.linspace(0.0, 1.0, 101)  # pycocotools' own thresholds, to the bit
# i/100 >= RECALLS[i] fails for the few i where linspace rounds upwards
REACHED = np.arange(101) / 100 >= RECALLS
AREAS = ("all", "small", "medium", "large")
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COLUMNS = 512  # resamples at once: wide enough for numpy's loops, narrow enough for the cache


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """The D detections of one category and area range, best score first: index of image (D,), and at each IoU whether a
    detection hits an object (T, D) and whether it counts at all (T, D; ignored ones do not)."""

    image: np.ndarray
    hit: np.ndarray
    counted: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Matches:
    """A model's detections matched with the truth: ``truths`` (K, A, I) counts objects of a category, area and image."""

    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    truths: np.ndarray
    ranked: tuple[tuple[Ranked, ...], ...]


def match(truth: COCO, results: CocoResults) -> Matches:
    """Match COCO ``results`` with ``truth`` as pycocotools does, once."""
    evaluation = run_cocoeval(truth, results)
    images, categories = list(evaluation.params.imgIds), list(evaluation.params.catIds)
    truths: np.ndarray = np.zeros((len(categories), len(AREAS), len(images)), np.int32)
    thresholds = len(evaluation.params.iouThrs)
    cells = iter(evaluation.evalImgs)
    ranked = []
    for k in range(len(categories)):
        row = []
        for a in range(len(AREAS)):
            scores: list[np.ndarray] = [np.empty(0)]
            owners: list[np.ndarray] = [np.empty(0, np.int32)]
            hits: list[np.ndarray] = [np.empty((thresholds, 0), bool)]
            ignored: list[np.ndarray] = [np.empty((thresholds, 0), bool)]
            for i in range(len(images)):
                cell = next(cells)
                if cell is None:
                    continue
                truths[k, a, i] = np.count_nonzero(np.asarray(cell["gtIgnore"]) == 0)
                found = np.asarray(cell["dtScores"])
                scores.append(found)
                owners.append(np.full(len(found), i, np.int32))
                hits.append(cell["dtMatches"] > 0)
                ignored.append(cell["dtIgnore"].astype(bool))
            order = np.argsort(-np.concatenate(scores), kind="mergesort")
            counted = ~np.concatenate(ignored, 1)[:, order]
            keep = counted.any(0)  # the rest never counts, and without it the sums are the same
            hit = np.concatenate(hits, 1)[:, order] & counted
            row.append(Ranked(image=np.concatenate(owners)[order][keep], hit=hit[:, keep], counted=counted[:, keep]))
        ranked.append(tuple(row))
    return Matches(image_ids=tuple(images), category_ids=tuple(categories), truths=truths, ranked=tuple(ranked))


def draw_images(images: int, resamples: int, rng: np.random.Generator, groups: np.ndarray | None = None) -> np.ndarray:
    """(resamples, images) int32: how often each image is drawn when ``images`` are drawn with replacement.

    ``groups`` (images,) numbers the cluster of each from 0 (a video, a scene): then whole clusters are drawn, as many as
    there are.
    """
    count = images if groups is None else int(groups.max()) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.int32)
    return drawn if groups is None else drawn[:, groups]


def resampled_ap(matches: Matches, weights: np.ndarray, *, threads: int = 2) -> np.ndarray:
    """AP (R, K, A, T) of every category, area range and IoU on resampled images; NaN where no object was drawn.

    ``weights`` (R, I) are whole numbers >= 0, an image's count in each of R resamples. Sums are exact: whole numbers in
    float32, or float64 where float32 would round. One row of ones is computed in float64: pycocotools' own numbers.
    """
    k, a, images = matches.truths.shape
    resamples = len(weights)
    objects = weights.astype(np.float64) @ matches.truths.reshape(k * a, images).T.astype(np.float64)
    objects = objects.reshape(resamples, k, a)
    most = int(weights.sum(1).max(initial=0)) * MAX_DETECTIONS
    kind = np.float64 if resamples == 1 or (most * 100 >= 1 << 24 and objects.max() * 100 >= 1 << 24) else np.float32
    columns = np.ascontiguousarray(weights.T, kind)
    ap = np.full((resamples, k, a, matches.ranked[0][0].hit.shape[0] if k else 0), np.nan, kind)

    def fill(index: int) -> None:
        for j in range(a):
            if matches.truths[index, j].any():
                ap[:, index, j] = _average_precision(matches.ranked[index][j], columns, objects[:, index, j])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(k)))
    return ap


def _average_precision(ranked: Ranked, columns: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(R, T) AP of one category and area from weights (I, R) and the number of objects (R,); NaN where that is 0."""
    thresholds, resamples = len(ranked.hit), columns.shape[1]
    ap = np.empty((resamples, thresholds))
    for start in range(0, resamples, COLUMNS):
        part = slice(start, start + COLUMNS)
        weights = columns[:, part][ranked.image]  # (D, R)
        present = objects[part]
        whole: np.ndarray | None = None
        for t in range(thresholds):
            counted, hit = ranked.counted[t], ranked.hit[t]
            if counted.all():
                whole = _scan(np.add, weights.copy()) if whole is None else whole
                seen, hits = whole[hit], weights[hit]
            else:
                kept = np.flatnonzero(counted)
                seen, hits = _scan(np.add, weights[kept])[hit[kept]], weights[hit]
            ap[part, t] = _area(_scan(np.add, hits), seen, present)
    return ap


def _area(hits: np.ndarray, seen: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(R,) mean of the precision envelope at the 101 recalls, from the sums of hits and of detections (H, R) at each hit."""
    missing = objects == 0
    if not len(hits):
        return np.where(missing, np.nan, 0.0)
    precision = hits / np.maximum(seen, 1)
    envelope = _scan(np.maximum, precision[::-1])[::-1]
    place = hits * 100 / np.where(missing, 1, objects).astype(hits.dtype)
    level = np.floor(place)  # of whole numbers, so exact where it falls on a hundredth
    reached = level + ((place > level) | REACHED[level.astype(np.int8)])  # thresholds up to this recall
    reached[1:] -= reached[:-1].copy()
    area = np.einsum("hr,hr->r", envelope, reached, dtype=np.float64) / len(RECALLS)
    return np.where(missing, np.nan, area)


def _scan(operation: np.ufunc, x: np.ndarray) -> np.ndarray:
    """``operation`` accumulated along the first axis of (N, R), in place: blocks of √N rows, several times numpy's speed."""
    size = max(math.isqrt(len(x)), 1)
    count = len(x) // size
    blocks = x[: count * size].reshape(count, size, x.shape[1])
    for i in range(1, size):
        operation(blocks[:, i], blocks[:, i - 1], out=blocks[:, i])
    ends = blocks[:, -1]
    for j in range(1, count):
        operation(ends[j], ends[j - 1], out=ends[j])
    operation(blocks[1:, :-1], ends[:-1, None], out=blocks[1:, :-1])
    for i in range(count * size, len(x)):
        operation(x[i], x[i - 1], out=x[i])
    return x


def summarise(ap: np.ndarray) -> np.ndarray:
    """(R, 6) AP, AP50, AP75, APs, APm, APl from (R, K, A, T): means over the categories that have objects; NaN where none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing is NaN, as said
        means = np.nanmean(ap, axis=1)  # (R, A, T)
    overall = means.mean(2)
    return np.stack((overall[:, 0], means[:, 0, 0], means[:, 0, 5], overall[:, 1], overall[:, 2], overall[:, 3]), 1)
