"""Non-maximum suppression by plain IoU or by Darknet's "greedynms", which is a DIoU test; exact, without a loop over boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from yolomish.errors import unknown_name
from yolomish.ops.boxes import box_iou_matrix, diou_matrix
from yolomish.ops.decode import Candidates, decode_above
from yolomish.types import Detections, HeadSpec

NMS_KINDS = ("greedy-diou", "iou")
DARKNET_EXPONENT = 0.6  # Darknet src/box.c box_diou
MAX_CANDIDATES = 30_000
FIRST_CANDIDATES = 4096
BISECTIONS = 6
CHUNK = 256  # a matrix of 256 x 256 stays in the cache of one core

Overlap = Callable[[Tensor, Tensor], Tensor]


def darknet_overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU - (d²/c²)^0.6 of every pair, (N, M): what Darknet's src/box.c diounms_sort compares with its threshold."""
    return diou_matrix(a, b, DARKNET_EXPONENT)


OVERLAPS: dict[str, Overlap] = {"greedy-diou": darknet_overlap, "iou": box_iou_matrix}


def greedy_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, overlap: Overlap, most: int) -> Tensor:
    """The first ``most`` indices of greedy suppression, best score first: a box goes when its overlap with a kept one of
    its group exceeds ``threshold``.

    ``boxes`` (N, 4) xyxy, ``scores`` (N,), ``groups`` (N,). The order of kept boxes is that of scores over all groups,
    so the walk stops when ``most`` are kept. It goes in chunks: what earlier boxes leave of a chunk is settled inside
    it by repeating "kept = not suppressed by a kept one" until nothing changes, which is the greedy result.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    boxes = boxes.float()
    kept = order[:0]
    size = CHUNK
    while len(order) and len(kept) < most:
        chunk, order = order[:size], order[size:]
        size = min(4 * CHUNK, 2 * size)
        if len(kept):
            covered = _suppresses(kept, chunk, boxes, groups, threshold, overlap).any(0)
            chunk = chunk[~covered]
        over = _suppresses(chunk, chunk, boxes, groups, threshold, overlap).triu(1)
        alive = torch.ones(len(chunk), dtype=torch.bool, device=boxes.device)
        while True:
            survivors = ~(over & alive[:, None]).any(0)
            if torch.equal(survivors, alive):
                break
            alive = survivors
        kept = torch.cat((kept, chunk[alive]))
    return kept[:most]


def _suppresses(a: Tensor, b: Tensor, boxes: Tensor, groups: Tensor, threshold: float, overlap: Overlap) -> Tensor:
    """Whether box i of ``a`` would suppress box j of ``b``, (len(a), len(b)); both are indices."""
    return (groups[a][:, None] == groups[b]) & (overlap(boxes[a], boxes[b]) > threshold)


def _scores(candidates: Candidates, classes: Sequence[int]) -> Tensor:
    """Objectness x class (M, K), 0 for what may not be found."""
    scores = candidates.objectness[:, None] * candidates.classes
    if classes:
        wanted = torch.zeros(scores.shape[1], device=scores.device)
        wanted[list(classes)] = 1
        scores = scores * wanted
    return scores


def _higher_threshold(scores: Tensor, conf: float) -> float:
    """``conf`` or higher, so that at most ``FIRST_CANDIDATES`` scores, or a few more, are above it: bisected by counting."""
    low, high = conf, 1.0
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5 if low > 0 else high / 8
        if int((scores > middle).count_nonzero()) > FIRST_CANDIDATES:
            low = middle
        else:
            high = middle
    return low


def postprocess(
    maps: Sequence[Tensor],
    heads: Sequence[HeadSpec],
    *,
    conf: float,
    iou: float,
    kind: str = "greedy-diou",
    max_det: int = 300,
    agnostic: bool = False,
    classes: Sequence[int] = (),
) -> list[Detections]:
    """Detections of each image in network px, best first: objectness and objectness x class both above ``conf``.

    Multi-label; classes suppress one another only if ``agnostic``. Only the labels in
    ``classes`` take part (empty: all). Returns B Detections of at most ``max_det`` each, on the maps' device.
    """
    return select(
        decode_above(maps, heads, conf),
        len(maps[0]),
        conf=conf,
        iou=iou,
        kind=kind,
        max_det=max_det,
        agnostic=agnostic,
        classes=classes,
    )


def select(
    candidates: Candidates,
    images: int,
    *,
    conf: float,
    iou: float,
    kind: str = "greedy-diou",
    max_det: int = 300,
    agnostic: bool = False,
    classes: Sequence[int] = (),
) -> list[Detections]:
    """``postprocess`` of candidates that are already boxes, of so many ``images``."""
    if kind not in NMS_KINDS:
        raise unknown_name("NMS kind", kind, NMS_KINDS)
    scores = _scores(candidates, classes)
    counts = torch.bincount(candidates.image, minlength=images).tolist()
    return [
        _detections(boxes, image_scores, conf, iou, OVERLAPS[kind], max_det, agnostic)
        for boxes, image_scores in zip(candidates.boxes.split(counts), scores.split(counts), strict=True)
    ]


def _detections(
    boxes: Tensor, scores: Tensor, conf: float, iou: float, overlap: Overlap, max_det: int, agnostic: bool
) -> Detections:
    """One image's detections from boxes (M, 4) and scores (M, K).

    The best scores go first: where they alone give ``max_det`` detections, those below cannot change a thing.
    """
    many = int((scores > conf).count_nonzero()) > 2 * FIRST_CANDIDATES
    for threshold in (_higher_threshold(scores, conf), conf) if many else (conf,):
        rows, labels = (scores > threshold).nonzero(as_tuple=True)
        values = scores[rows, labels]
        if len(values) > MAX_CANDIDATES:
            values, top = values.topk(MAX_CANDIDATES)
            rows, labels = rows[top], labels[top]
        candidates = boxes[rows]
        kept = greedy_nms(candidates, values, torch.zeros_like(labels) if agnostic else labels, iou, overlap, max_det)
        if len(kept) == max_det:
            break
    return Detections(boxes=candidates[kept], scores=values[kept], labels=labels[kept])
