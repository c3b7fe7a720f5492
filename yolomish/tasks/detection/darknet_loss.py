"""Darknet's training signal for a [yolo] layer (src/yolo_layer.c process_batch): deltas on the logits, not a loss.

Its box delta leaves out chain factors (no derivative of the sigmoid, of scale_x_y or of the grid), so no autograd
loss has this gradient: an autograd Function hands the deltas to backward as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from yolomish.config import LossConfig
from yolomish.errors import YolomishError
from yolomish.ops.boxes import box_iou_matrix, ciou
from yolomish.ops.decode import decode_map, split_map
from yolomish.tasks.detection.assign import Assignment, assign_shape_iou
from yolomish.types import HeadSpec, Losses

IGNORE_PROBABILITY = 0.25  # src/yolo_layer.c process_batch: compare_yolo_class(..., 0.25f)


class _Delta(torch.autograd.Function):
    """A scalar ``value`` whose gradient towards ``logits`` is minus ``delta``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, delta: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(delta)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (delta,) = ctx.saved_tensors
        return -delta * grad, None, None


def darknet_loss(maps: Sequence[Tensor], heads: Sequence[HeadSpec], targets: Tensor, config: LossConfig) -> Losses:
    """Darknet's deltas as the gradients of three numbers summed over cells, anchors, classes and images.

    The numbers are for reading: box is the positives' 1 - CIoU times the head's ``box``, objectness and classes the squared
    deltas halved (Darknet prints their sum of squares). Classes and objectness have BCE's gradient with targets 1 and 0; a
    prediction overlapping an object by more than the head's ``ignore_iou`` while any class probability exceeds 0.25 has no
    objectness delta; objects on one anchor add their classes, and their box deltas over the number of classes there.
    """
    batch = maps[0].shape[0]
    targets = targets.to(maps[0].device).float()
    grids = [(m.shape[2], m.shape[3]) for m in maps]
    box = objectness = classes = maps[0].new_zeros((), dtype=torch.float32)
    for raw, head, found in zip(maps, heads, assign_shape_iou(targets, heads, grids), strict=True):
        if head.box_form != "exp":
            raise YolomishError("the darknet loss knows box_form exp alone: choose a model with it, or --recipe scaled")
        logits = split_map(raw, head)
        with torch.no_grad():
            delta, overlap = head_deltas(logits, head, found, targets, batch, config.label_smoothing)
        parts = [
            (logits[..., :4], delta[..., :4], head.loss.box * (1 - overlap).sum()),
            (logits[..., 4], delta[..., 4], delta[..., 4].square().sum() / 2),
            (logits[..., 5:], delta[..., 5:], delta[..., 5:].square().sum() / 2),
        ]
        values = [_Delta.apply(*part) for part in parts]
        box, objectness, classes = box + values[0], objectness + values[1], classes + values[2]
    return Losses(parts={"box": box, "objectness": objectness, "class": classes})


def head_deltas(
    logits: Tensor, head: HeadSpec, found: Assignment, targets: Tensor, batch: int, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Deltas (B, A, H, W, 5+K), minus the gradient on the logits, and the positives' CIoU (P,)."""
    _, anchors, height, width, _ = logits.shape
    probabilities = logits[..., 4:].sigmoid()
    boxes = decode_map(logits[..., :4], head)
    delta = torch.zeros_like(logits)
    delta[..., 4] = -probabilities[..., 0] * head.loss.objectness
    confident = (probabilities[..., 1:] > IGNORE_PROBABILITY).any(-1)
    for image in range(batch):
        objects = targets[targets[:, 0] == image, 2:6]
        if len(objects):
            near = (
                (box_iou_matrix(boxes[image].reshape(-1, 4), objects) > head.loss.ignore_iou).any(1).view(anchors, height, width)
            )
            delta[image, ..., 4].masked_fill_(near & confident[image], 0.0)

    index = (found.images, found.anchors, found.rows, found.columns)
    objectness = delta[..., 4]
    objectness[index] = (1 - probabilities[index][:, 0]) * head.loss.objectness

    low = smoothing / 2
    wanted = torch.full_like(probabilities[..., 1:], low)
    wanted[found.images, found.anchors, found.rows, found.columns, found.labels] = 1 - low
    positive = torch.zeros(logits.shape[:4], dtype=torch.bool, device=logits.device)
    positive[index] = True
    delta[..., 5:] = torch.where(positive[..., None], wanted - probabilities[..., 1:], 0.0)

    size = torch.tensor((width, height), device=logits.device) * head.stride
    predicted, truth = boxes[index], found.boxes
    step = ciou_deltas(predicted / size.repeat(2), truth / size.repeat(2))
    step[:, 2:] *= logits[index][:, 2:4].exp()
    step = torch.nan_to_num(step * head.loss.box, nan=0.0, posinf=0.0, neginf=0.0)
    step = step.clamp(-head.loss.max_delta, head.loss.max_delta)
    delta[..., :4].index_put_(index, step, accumulate=True)
    shared = (delta[..., 5:] > 0).sum(-1, keepdim=True).clamp(min=1)  # averages_yolo_deltas
    delta[..., :4] /= shared
    return delta, ciou(predicted, truth)


def ciou_deltas(boxes: Tensor, truth: Tensor) -> Tensor:
    """Darknet's minus gradient of the CIoU loss to (x, y, w, h), (P, 4) for matching xyxy boxes (P, 4) in 0..1.

    src/box.c dx_box_iou, whose differences from calculus stay: the overlap's part of dw and dh is not halved though
    x1 = x - w/2; in dx and dy the enclosing diagonal's growth has the other sign; the aspect term lacks the divisor
    w² + h² (as arXiv:1911.08287 section 3.3 recommends) and its weight counts as constant. Where boxes do not overlap
    only the distance and the aspect count.
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    tx1, ty1, tx2, ty2 = truth.unbind(1)
    w, h, tw, th = x2 - x1, y2 - y1, tx2 - tx1, ty2 - ty1
    iw, ih = torch.minimum(x2, tx2) - torch.maximum(x1, tx1), torch.minimum(y2, ty2) - torch.maximum(y1, ty1)
    inter = iw * ih
    union = w * h + tw * th - inter

    def side(inter_step: Tensor, area_step: Tensor) -> Tensor:  # of inter/union, as one side of the box moves
        return (union * inter_step - inter * (area_step - inter_step)) / union.square()

    left = side(torch.where(x1 > tx1, -ih, 0.0), -h)
    right = side(torch.where(x2 < tx2, ih, 0.0), h)
    top = side(torch.where(y1 > ty1, -iw, 0.0), -w)
    bottom = side(torch.where(y2 < ty2, iw, 0.0), w)
    overlap = torch.stack((left + right, top + bottom, right - left, bottom - top), 1)
    overlap = torch.where(((iw > 0) & (ih > 0) & (union > 0))[:, None], overlap, 0.0)

    cw, ch = torch.maximum(x2, tx2) - torch.minimum(x1, tx1), torch.maximum(y2, ty2) - torch.minimum(y1, ty1)
    diagonal = cw.square() + ch.square()
    dx, dy = (tx1 + tx2 - x1 - x2) / 2, (ty1 + ty2 - y1 - y2) / 2
    apart = dx.square() + dy.square()
    moves_left, moves_right = (x1 < tx1).float(), (x2 > tx2).float()
    moves_top, moves_bottom = (y1 < ty1).float(), (y2 > ty2).float()
    grown = (
        cw * (moves_right - moves_left),
        ch * (moves_bottom - moves_top),
        cw * (moves_right + moves_left) / 2,
        ch * (moves_bottom + moves_top) / 2,
    )
    zero = torch.zeros_like(dx)
    drawn = (dx, dy, zero, zero)
    signs = (-1, -1, 1, 1)
    distance = torch.stack(
        [2 * (d * diagonal + s * g * apart) / diagonal.square() for d, s, g in zip(drawn, signs, grown, strict=True)], 1
    )

    bend = torch.atan(tw / th) - torch.atan(w / h)
    unlike = 4 / math.pi**2 * bend.square()
    weight = unlike / (1 - inter / union + unlike + 1e-6)
    pull = 8 / math.pi**2 * bend * weight
    return overlap + distance + torch.stack((zero, zero, pull * h, -pull * w), 1)
