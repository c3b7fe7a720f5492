"""Darknet's training signal for a [yolo] layer (src/yolo_layer.c process_batch): deltas on the logits, not a loss.

Its box delta leaves out chain factors (no derivative of the sigmoid, of scale_x_y or of the grid), so no autograd
loss has this gradient: an autograd Function hands the deltas to backward as they are.

With ``new_coords`` (box_form squared) the deltas are on the values that the last convolution's logistic activation leaves,
without the e^t of w and h or any factor of the square; backward takes them through that activation, so that on the logits
every delta, of boxes, objectness and classes, is times sigma(1 - sigma) (src/convolutional_kernels.cu, gradient_array).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from yolomish.config import LossConfig
from yolomish.ops.boxes import box_iou_matrix, ciou
from yolomish.ops.decode import decode_map, split_map
from yolomish.tasks.detection.assign import Assignment, assign_shape_iou, flat_index
from yolomish.types import HeadSpec, IouKind, Losses

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
    deltas halved (Darknet prints their sum of squares). Each head's constants are in its ``loss``; the configuration's
    ``label_smoothing`` goes before the head's where it is not 0.
    """
    targets = targets.to(maps[0].device).float()
    grids = [(m.shape[2], m.shape[3]) for m in maps]
    box = objectness = classes = maps[0].new_zeros((), dtype=torch.float32)
    for raw, head, found in zip(maps, heads, assign_shape_iou(targets, heads, grids), strict=True):
        logits = split_map(raw, head)
        with torch.no_grad():
            delta, overlap = head_deltas(logits, head, found, targets, config.label_smoothing or head.loss.label_smoothing)
        parts = [
            (logits[..., :4], delta[..., :4], head.loss.box * (1 - overlap).sum()),
            (logits[..., 4], delta[..., 4], delta[..., 4].square().sum() / 2),
            (logits[..., 5:], delta[..., 5:], delta[..., 5:].square().sum() / 2),
        ]
        values = [_Delta.apply(*part) for part in parts]
        box, objectness, classes = box + values[0], objectness + values[1], classes + values[2]
    return Losses(parts={"box": box, "objectness": objectness, "class": classes})


def head_deltas(logits: Tensor, head: HeadSpec, found: Assignment, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Deltas (B, A, H, W, 5+K), minus the gradient on the logits, and the positives' CIoU (P,).

    src/yolo_layer.c process_batch. Objectness is drawn to 0, to 1 at positives. A prediction that overlaps an object by more
    than ``ignore_iou`` while any class probability exceeds 0.25 is left alone, or with ``objectness_smooth`` drawn to that
    overlap; then a positive is drawn to 1 only where it has no delta at all, hardly ever. A prediction that overlaps an
    object by more than ``truth_iou`` answers for it as a positive does, with the squared overlap in place of 1 if smooth.
    Objects on one anchor add their classes, and their box deltas over the number of classes with a positive delta there,
    unless the best anchors alone are positives.
    """
    constants, sigmas = head.loss, logits.sigmoid()
    boxes = decode_map(logits[..., :4], head)
    best, nearest = _best_overlaps(boxes, targets)

    objectness = -sigmas[..., 4] * constants.objectness
    known = (best > constants.ignore_iou) & (sigmas[..., 5:] > IGNORE_PROBABILITY).any(-1)
    towards = (best - sigmas[..., 4]) * constants.objectness if constants.objectness_smooth else torch.zeros_like(best)
    objectness = torch.where(known, torch.maximum(objectness, towards), objectness)
    reached = ((best > constants.truth_iou) & (constants.truth_iou < 1)).nonzero(as_tuple=True)
    wanted = best[reached].square() if constants.objectness_smooth else torch.ones_like(best[reached])
    objectness[reached] = (wanted - sigmas[reached][:, 4]) * constants.objectness

    # rows in Darknet's order, which decides where several meet: first what overlaps, then object by object
    own = (found.images, found.anchors, found.rows, found.columns)
    index = tuple(torch.cat(pair) for pair in zip(reached, own, strict=True))
    labels = torch.cat((targets[nearest[reached], 1].long(), found.labels))
    truth = torch.cat((targets[nearest[reached], 2:6], found.boxes))
    weights = logits.new_tensor(constants.class_weights or (1.0,) * head.num_classes)[labels]
    slots, slot_of = flat_index(index, best.shape).unique(return_inverse=True)
    rows = torch.arange(len(labels), device=labels.device)
    first = rows.new_zeros(len(slots)).scatter_reduce(0, slot_of, rows, "amin", include_self=False)
    last = rows.new_zeros(len(slots)).scatter_reduce(0, slot_of, rows, "amax", include_self=False)
    places = tuple(i[first] for i in index)
    before, sigma = objectness[places], sigmas[places]

    drawn = last >= len(wanted)  # places that an object's own anchor reaches
    if constants.objectness_smooth:
        drawn &= before == 0
    now = torch.where(drawn, weights[last] * (1 - sigma[:, 4]) * constants.objectness, before)

    classes = _class_deltas(sigma[:, 5:], labels[first], head, smoothing)
    if constants.objectness_smooth:
        early = slot_of[: len(wanted)], labels[: len(wanted)]
        classes[early] = weights[: len(wanted)] * (wanted - sigma[:, 5:][early])
    later = rows != first[slot_of]
    again = slot_of[later], labels[later]
    classes[again] = weights[later] * (1 - smoothing / 2 - sigma[:, 5:][again])

    if constants.box_loss == "mse":
        step = _mse_deltas(truth, logits[index], sigmas[index], index, head, (best.shape[3], best.shape[2]))
        step = step * (constants.box * weights)[:, None]
    else:
        size = torch.tensor((best.shape[3], best.shape[2]), device=logits.device).repeat(2) * head.stride
        step = box_deltas(boxes[index] / size, truth / size, constants.box_loss)
        if head.box_form == "exp":
            step[:, 2:] *= logits[index][:, 2:4].exp()
        step = torch.nan_to_num(step * (constants.box * weights)[:, None], nan=0.0, posinf=0.0, neginf=0.0)
        step = step.clamp(-constants.max_delta, constants.max_delta)
    moved = step.new_zeros(len(slots), 4).index_add_(0, slot_of, step)
    if constants.shape_iou < 1:  # averages_yolo_deltas
        shared = torch.where(now != 0, (classes > 0).sum(1), 1).clamp(min=1)
        moved = moved / shared[:, None]

    delta = torch.zeros_like(logits)
    delta[..., 4] = objectness
    delta[places] = torch.cat((moved, now[:, None], classes), 1)
    delta *= constants.all
    if head.box_form == "squared":
        delta *= sigmas * (1 - sigmas)
    return delta, ciou(boxes[own], found.boxes)


def _best_overlaps(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Each prediction's largest IoU with an object of its image, and that object's row in ``targets``; (B, A, H, W) both."""
    best = boxes.new_zeros(boxes.shape[:-1])
    nearest = torch.zeros_like(best, dtype=torch.int64)
    counts = torch.bincount(targets[:, 0].long(), minlength=len(boxes)).tolist()  # one wait for the device, not one per image
    for image, mine in enumerate(targets[:, 0].argsort(stable=True).split(counts)):
        if len(mine):
            overlap, which = box_iou_matrix(boxes[image].reshape(-1, 4), targets[mine, 2:6]).max(1)
            best[image], nearest[image] = overlap.view(best.shape[1:]), mine[which].view(best.shape[1:])
    return best, nearest


def _class_deltas(probabilities: Tensor, labels: Tensor, head: HeadSpec, smoothing: float) -> Tensor:
    """(S, K) deltas of anchors with one object each of ``labels`` (S,): src/yolo_layer.c delta_yolo_class."""
    one_hot = F.one_hot(labels, head.num_classes).to(probabilities.dtype)
    if head.loss.focal:
        own = probabilities.gather(1, labels[:, None]) + 1e-15
        return (one_hot - probabilities) * 0.5 * (1 - own) * (1 - own - 2 * own * own.log())
    deltas = one_hot * (1 - smoothing) + smoothing / 2 - probabilities
    if head.loss.class_weights:
        weights = probabilities.new_tensor(head.loss.class_weights) * head.loss.classes
        deltas = torch.where(one_hot.bool(), deltas * weights, deltas)
    return deltas


def _mse_deltas(
    truth: Tensor,
    logits: Tensor,
    sigmas: Tensor,
    index: tuple[Tensor, ...],
    head: HeadSpec,
    grid_wh: tuple[int, int],
) -> Tensor:
    """YOLOv3's own deltas (P, 4), of what the layer puts out and times 2 - w·h (src/yolo_layer.c delta_yolo_box, iou_loss=mse).

    Args:
        truth: Boxes (P, 4) xyxy in network px.
        logits: Of the anchors that answer for them, (P, 5+K).
        sigmas: Their logistic function.
        index: Images, anchors, rows and columns, (P,) each.
        head: Whose anchors they are.
        grid_wh: Cells in x and y.
    """
    _, anchors, rows, columns = index
    sizes = truth[:, 2:] - truth[:, :2]
    centre = (truth[:, :2] + truth[:, 2:]) / 2 / head.stride - torch.stack((columns, rows), 1)
    ratio = sizes / logits.new_tensor(head.anchors)[anchors]
    squared = head.box_form == "squared"
    wanted = torch.cat((centre, (ratio / 4).sqrt() if squared else ratio.log()), 1)
    put_out = head.scale_xy * sigmas[:, :2] - (head.scale_xy - 1) / 2
    present = torch.cat((put_out, sigmas[:, 2:4] if squared else logits[:, 2:4]), 1)
    share = (sizes / logits.new_tensor(grid_wh) / head.stride).prod(1)
    return (2 - share)[:, None] * (wanted - present)


def box_deltas(boxes: Tensor, truth: Tensor, kind: IouKind) -> Tensor:
    """Darknet's minus gradient of an IoU loss to (x, y, w, h), (P, 4) for matching xyxy boxes (P, 4) in 0..1.

    src/box.c dx_box_iou, whose differences from calculus stay: the overlap's part of dw and dh is not halved though
    x1 = x - w/2; in dx and dy the enclosing diagonal's growth has the other sign; the aspect term lacks the divisor
    w² + h² (as arXiv:1911.08287 section 3.3 recommends) and its weight counts as constant. Where boxes do not overlap
    only the enclosing box, the distance and the aspect count; with ``iou`` the formula goes on with the negative sides of
    what would be the overlap.
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    tx1, ty1, tx2, ty2 = truth.unbind(1)
    w, h, tw, th = x2 - x1, y2 - y1, tx2 - tx1, ty2 - ty1
    iw, ih = torch.minimum(x2, tx2) - torch.maximum(x1, tx1), torch.minimum(y2, ty2) - torch.maximum(y1, ty1)
    inter = iw * ih
    union = w * h + tw * th - inter
    # what each side adds to the intersection and the union as it moves: left, right, top, bottom
    inter_steps = (
        torch.where(x1 > tx1, -ih, 0.0),
        torch.where(x2 < tx2, ih, 0.0),
        torch.where(y1 > ty1, -iw, 0.0),
        torch.where(y2 < ty2, iw, 0.0),
    )
    union_steps = tuple(area - step for area, step in zip((-h, h, -w, w), inter_steps, strict=True))
    sides = [(union * i - inter * u) / union.square() for i, u in zip(inter_steps, union_steps, strict=True)]
    overlap = torch.where((union > 0)[:, None], _of_sides(sides), 0.0)
    if kind == "iou":
        return overlap
    overlap = torch.where(((iw > 0) & (ih > 0))[:, None], overlap, 0.0)
    cw, ch = torch.maximum(x2, tx2) - torch.minimum(x1, tx1), torch.maximum(y2, ty2) - torch.minimum(y1, ty1)
    if kind == "giou":
        hull = cw * ch
        hull_steps = (
            torch.where(x1 < tx1, -ch, 0.0),
            torch.where(x2 > tx2, ch, 0.0),
            torch.where(y1 < ty1, -cw, 0.0),
            torch.where(y2 > ty2, cw, 0.0),
        )
        sides = [(hull * u - union * c) / hull.square() for u, c in zip(union_steps, hull_steps, strict=True)]
        return overlap + _of_sides(sides)

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
    if kind == "diou":
        return overlap + distance

    bend = torch.atan(tw / th) - torch.atan(w / h)
    unlike = 4 / math.pi**2 * bend.square()
    weight = unlike / (1 - inter / union + unlike + 1e-6)
    pull = 8 / math.pi**2 * bend * weight
    return overlap + distance + torch.stack((zero, zero, pull * h, -pull * w), 1)


def _of_sides(steps: Sequence[Tensor]) -> Tensor:
    """(P, 4) of x, y, w, h from left, right, top and bottom, w and h whole as Darknet has them."""
    left, right, top, bottom = steps
    return torch.stack((left + right, top + bottom, right - left, bottom - top), 1)
