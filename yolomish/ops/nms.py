"""Non-maximum suppression: torchvision's plain IoU, and Darknet's "greedynms", which is a DIoU test."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from yolomish.errors import unknown_name
from yolomish.ops.boxes import diou_matrix
from yolomish.ops.decode import decode
from yolomish.types import Detections, HeadSpec

NMS_KINDS = ("greedy-diou", "iou")
DARKNET_EXPONENT = 0.6  # Darknet src/box.c box_diou
MAX_CANDIDATES = 30_000


def greedy_diou_nms(boxes: Tensor, scores: Tensor, threshold: float, exponent: float = DARKNET_EXPONENT) -> Tensor:
    """Indices kept, best score first: a box goes when IoU - (d²/c²)^exponent with a kept one exceeds ``threshold``.

    ``boxes`` (N, 4) xyxy of one class, ``scores`` (N,). Darknet src/box.c diounms_sort with GREEDY_NMS.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    kept = []
    boxes = boxes.float()
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        if len(order):
            order = order[diou_matrix(boxes[best][None], boxes[order], exponent)[0] <= threshold]
    return torch.stack(kept) if kept else order


def _suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, kind: str) -> Tensor:
    if kind == "iou":
        return batched_nms(boxes, scores, groups, iou)
    kept = [
        members[greedy_diou_nms(boxes[members], scores[members], iou)]
        for members in ((groups == group).nonzero()[:, 0] for group in groups.unique())
    ]
    if not kept:
        return groups.new_zeros(0)
    indices = torch.cat(kept)
    return indices[torch.argsort(scores[indices], descending=True, stable=True)]


def postprocess(
    maps: Sequence[Tensor],
    heads: Sequence[HeadSpec],
    *,
    conf: float,
    iou: float,
    kind: str = "greedy-diou",
    max_det: int = 300,
    agnostic: bool = False,
    single_label: bool = False,
    classes: Sequence[int] = (),
) -> list[Detections]:
    """Detections of each image in network px, best first: objectness and objectness x class both above ``conf``.

    Multi-label unless ``single_label``; classes suppress one another only if ``agnostic``. Only the labels in
    ``classes`` take part (empty: all). Gives B Detections of at most ``max_det`` each.
    """
    if kind not in NMS_KINDS:
        raise unknown_name("NMS kind", kind, NMS_KINDS)
    decoded = decode(maps, heads)
    found = []
    for boxes, objectness, class_scores in zip(decoded.boxes, decoded.objectness, decoded.classes, strict=True):
        keep = objectness > conf
        boxes, scores = boxes[keep], objectness[keep, None] * class_scores[keep]  # (M, 4), (M, K)
        if single_label and len(scores):
            best = scores.argmax(1, keepdim=True)
            scores = torch.zeros_like(scores).scatter(1, best, scores.gather(1, best))
        if classes:
            wanted = torch.zeros(scores.shape[1], device=scores.device)
            wanted[list(classes)] = 1
            scores = scores * wanted
        rows, labels = (scores > conf).nonzero(as_tuple=True)
        values = scores[rows, labels]
        if len(values) > MAX_CANDIDATES:
            values, top = values.topk(MAX_CANDIDATES)
            rows, labels = rows[top], labels[top]
        boxes = boxes[rows]
        kept = _suppress(boxes, values, torch.zeros_like(labels) if agnostic else labels, iou, kind)[:max_det]
        found.append(Detections(boxes=boxes[kept], scores=values[kept], labels=labels[kept]))
    return found
