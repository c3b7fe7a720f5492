"""Which cells and anchors answer for which ground-truth box: Darknet's rule and Scaled-YOLOv4's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolomish.ops.boxes import MAX_RATIO, shape_iou
from yolomish.types import HeadSpec, IouKind


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


def assign_shape_iou(
    targets: Tensor, heads: Sequence[HeadSpec], grid_sizes_hw: Sequence[tuple[int, int]]
) -> tuple[Assignment, ...]:
    """Darknet (src/yolo_layer.c process_batch): the positives of every head for targets (T, 6), see ``Batch``.

    A box goes to the best of all anchors by shape IoU and, where the head's ``shape_iou`` is below 1, to every other anchor
    whose overlap of ``shape_kind`` is above it, each on every head whose mask holds it and only at the cell of the box's
    centre (floor, clamped into the grid): an anchor in two masks answers twice, one in none never. Boxes without area are
    left out. T = 0 makes empty assignments. Rows stand in the order of ``targets``.
    """
    targets = _with_area(targets)
    boxes = targets[:, 2:6]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assignments = []
    for head, (height, width) in zip(heads, grid_sizes_hw, strict=True):
        all_anchors = torch.tensor(head.all_anchors, dtype=torch.float32, device=targets.device)
        sizes = boxes[:, 2:] - boxes[:, :2]
        overlaps = shape_iou(sizes, all_anchors)
        positive = shape_overlap(sizes, all_anchors, head.loss.shape_kind) > head.loss.shape_iou
        positive &= head.loss.shape_iou < 1
        positive = positive.scatter(1, overlaps.argmax(1, keepdim=True), True)
        chosen, anchors = positive[:, list(head.mask)].nonzero(as_tuple=True)
        cells = (centres[chosen] / head.stride).floor().long()
        assignments.append(_assignment(targets, chosen, anchors, cells, height, width))
    return tuple(assignments)


def shape_overlap(sizes: Tensor, anchors: Tensor, kind: IouKind) -> Tensor:
    """Overlap (T, A) of (T, 2) and (A, 2) width,height pairs on one centre by Darknet's ``kind`` (src/box.c box_iou_kind).

    On one centre DIoU is IoU; so is mse, which measures nothing.
    """
    overlap = shape_iou(sizes, anchors)
    if kind == "giou":
        areas = sizes.prod(1)[:, None] + anchors.prod(1)[None]
        enclosing = torch.maximum(sizes[:, None], anchors[None]).prod(2)
        return overlap - 1 + areas / (1 + overlap) / enclosing  # the union is areas / (1 + IoU)
    if kind == "ciou":
        bend = torch.atan(sizes[:, 0] / sizes[:, 1])[:, None] - torch.atan(anchors[:, 0] / anchors[:, 1])[None]
        unlike = 4 / math.pi**2 * bend.square()
        return overlap - unlike.square() / (1 - overlap + unlike + 1e-6)
    return overlap


def within_ratio(sizes: Tensor, anchors: Tensor) -> Tensor:
    """(T, A) bool: where widths and heights (T, 2) are both within a factor of 4 of an anchor's (A, 2), in the same px."""
    ratios = sizes[:, None] / anchors
    return torch.maximum(ratios, 1 / ratios).amax(2) < MAX_RATIO


def assign_ratio(targets: Tensor, heads: Sequence[HeadSpec], grid_sizes_hw: Sequence[tuple[int, int]]) -> tuple[Assignment, ...]:
    """Scaled-YOLOv4 (PyTorch_YOLOv4 utils/loss.py): positives by width and height ratio, with neighbouring cells.

    On every head an anchor answers for a box whose width and height are both within a factor of 4 of its own, at the
    cell of the box's centre and at the nearer neighbour in x and in y (a centre within half a cell of that border;
    only neighbours inside the grid). A box may so have no positive at all. Boxes without area are left out.
    """
    targets = _with_area(targets)
    boxes = targets[:, 2:6]
    sizes, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    assignments = []
    for head, (height, width) in zip(heads, grid_sizes_hw, strict=True):
        anchors = torch.tensor(head.anchors, dtype=torch.float32, device=targets.device)
        chosen, anchor = within_ratio(sizes, anchors).nonzero(as_tuple=True)
        last = torch.tensor((width - 1, height - 1), device=targets.device)
        centre = centres[chosen] / head.stride
        cell = centre.floor().long().clamp(min=0).minimum(last)
        within = centre - cell
        groups = [(chosen, anchor, cell)]
        for axis in (0, 1):
            for side, near in ((-1, within[:, axis] < 0.5), (1, within[:, axis] > 0.5)):
                beside = cell.clone()
                beside[:, axis] += side
                take = near & (beside[:, axis] >= 0) & (beside[:, axis] <= last[axis])
                groups.append((chosen[take], anchor[take], beside[take]))
        chosen, anchor, cell = (torch.cat(parts) for parts in zip(*groups, strict=True))
        assignments.append(_assignment(targets, chosen, anchor, cell, height, width))
    return tuple(assignments)


def flat_index(index: tuple[Tensor, ...], shape: torch.Size) -> Tensor:
    """Positions (P,) in a flattened (B, A, H, W) map of index tensors (image, anchor, row, column)."""
    image, anchor, row, column = index
    return ((image * shape[1] + anchor) * shape[2] + row) * shape[3] + column


def _with_area(targets: Tensor) -> Tensor:
    targets = targets.float()
    return targets[((targets[:, 4:6] - targets[:, 2:4]) > 0).all(1)]


def _assignment(targets: Tensor, chosen: Tensor, anchors: Tensor, cells: Tensor, height: int, width: int) -> Assignment:
    return Assignment(
        images=targets[chosen, 0].long(),
        anchors=anchors,
        columns=cells[:, 0].clamp(0, width - 1),
        rows=cells[:, 1].clamp(0, height - 1),
        boxes=targets[chosen, 2:6],
        labels=targets[chosen, 1].long(),
    )


ASSIGNMENTS = {"shape-iou": assign_shape_iou, "ratio": assign_ratio}
