"""Which cells and anchors answer for which ground-truth box: Darknet's rule (src/yolo_layer.c process_batch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolomish.types import HeadSpec

SHAPE_IOU_THRESHOLD = 0.213  # yolov4.cfg iou_thresh


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The P positives of one head: all index tensors (P,) int64, boxes (P, 4) xyxy network px float32.

    Two objects may share a cell and an anchor; they then stand in two rows.
    """

    images: Tensor
    anchors: Tensor
    columns: Tensor
    rows: Tensor
    boxes: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def shape_iou(sizes: Tensor, anchors: Tensor) -> Tensor:
    """IoU of (T, 2) and (A, 2) width,height pairs put on one centre; gives (T, A)."""
    overlap = torch.minimum(sizes[:, None], anchors[None]).prod(2)
    return overlap / (sizes.prod(1)[:, None] + anchors.prod(1)[None] - overlap)


def assign(targets: Tensor, heads: Sequence[HeadSpec], grid_sizes_hw: Sequence[tuple[int, int]]) -> tuple[Assignment, ...]:
    """The positives of every head for targets (T, 6) [index in batch, label, x1, y1, x2, y2] in network px.

    A box is given to the best of all heads' anchors by shape IoU and to every other anchor above 0.213, each on the
    head that holds it and only at the cell that holds the box's centre (floor, clamped into the grid). Boxes without
    area are left out. T = 0 gives empty assignments.
    """
    targets = targets.float()
    targets = targets[((targets[:, 4:6] - targets[:, 2:4]) > 0).all(1)]
    boxes = targets[:, 2:6]
    all_anchors = torch.tensor([a for head in heads for a in head.anchors], dtype=torch.float32, device=targets.device)
    overlaps = shape_iou(boxes[:, 2:] - boxes[:, :2], all_anchors)
    positive = overlaps > SHAPE_IOU_THRESHOLD
    positive = positive.scatter(1, overlaps.argmax(1, keepdim=True), True)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assignments = []
    first = 0
    for head, (height, width) in zip(heads, grid_sizes_hw, strict=True):
        chosen, anchors = positive[:, first : first + len(head.anchors)].nonzero(as_tuple=True)
        first += len(head.anchors)
        cells = (centres[chosen] / head.stride).floor().long()
        assignments.append(
            Assignment(
                images=targets[chosen, 0].long(),
                anchors=anchors,
                columns=cells[:, 0].clamp(0, width - 1),
                rows=cells[:, 1].clamp(0, height - 1),
                boxes=boxes[chosen],
                labels=targets[chosen, 1].long(),
            )
        )
    return tuple(assignments)
