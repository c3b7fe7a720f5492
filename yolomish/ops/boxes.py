"""The IoU family. All boxes are xyxy in one common frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7

Planes = tuple[Tensor, ...]  # x0, y0, x1, y1

MAX_RATIO = 4.0  # of sides for which an anchor answers: PyTorch_YOLOv4 data/hyp.scratch.yaml anchor_t


def _overlap(a: Planes, b: Planes) -> tuple[Tensor, Tensor]:
    """IoU and squared enclosing diagonal of broadcast boxes."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    inter = width * height
    union = _area(a) + _area(b) - inter
    enclosing_w, enclosing_h = (
        torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0),
        torch.maximum(ay1, by1) - torch.minimum(ay0, by0),
    )
    return inter / (union + EPSILON), enclosing_w.square() + enclosing_h.square()


def _area(box: Planes) -> Tensor:
    x0, y0, x1, y1 = box
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def _centre_distance(a: Planes, b: Planes) -> Tensor:
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    return ((ax0 + ax1) / 2 - (bx0 + bx1) / 2).square() + ((ay0 + ay1) / 2 - (by0 + by1) / 2).square()


def _pairs(a: Tensor, b: Tensor) -> tuple[Planes, Planes]:
    """Planes that broadcast to every pair; coordinates come first, so that the inner axis is long and vectorises."""
    return a.T.contiguous()[:, :, None].unbind(), b.T.contiguous()[:, None].unbind()


def box_iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of ``a`` (N, 4) with every box of ``b`` (M, 4), returns (N, M) in 0..1."""
    return _overlap(*_pairs(a, b))[0]


def ciou(boxes: Tensor, targets: Tensor) -> Tensor:
    """Complete IoU of matching boxes: overlap, centre distance and aspect ratio (arXiv:1911.08287).

    ``boxes`` and ``targets`` are (N, 4) xyxy in the same frame; returns (N,) in [-1.5, 1], 1 for equal boxes.
    The aspect weight is taken as a constant in backward, as in the paper.
    """
    planes = boxes.unbind(-1), targets.unbind(-1)
    overlap, diagonal = _overlap(*planes)
    distance = overlap - _centre_distance(*planes) / (diagonal + EPSILON)
    w, h = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    tw, th = (targets[..., 2:] - targets[..., :2]).unbind(-1)
    aspect = (4 / math.pi**2) * (torch.atan(tw / (th + EPSILON)) - torch.atan(w / (h + EPSILON))).square()
    with torch.no_grad():
        weight = aspect / (1 - overlap + aspect + EPSILON)
    return distance - weight * aspect


def shape_iou(sizes: Tensor, anchors: Tensor) -> Tensor:
    """IoU of (T, 2) and (A, 2) width,height pairs put on one centre; returns (T, A)."""
    overlap = torch.minimum(sizes[:, None], anchors[None]).prod(2)
    return overlap / (sizes.prod(1)[:, None] + anchors.prod(1)[None] - overlap)
