"""The IoU family. All boxes are xyxy in one common frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7


def areas(boxes: Tensor) -> Tensor:
    """Areas of boxes (..., 4) xyxy, gives (...)."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and squared enclosing diagonal of broadcast boxes."""
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = areas(a) + areas(b) - inter
    enclosing = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return inter / (union + EPSILON), enclosing.square().sum(-1)


def _centre_distance(a: Tensor, b: Tensor) -> Tensor:
    return ((a[..., :2] + a[..., 2:]) / 2 - (b[..., :2] + b[..., 2:]) / 2).square().sum(-1)


def box_iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of ``a`` (N, 4) with every box of ``b`` (M, 4), gives (N, M) in 0..1."""
    return _overlap(a[:, None], b[None])[0]


def diou_matrix(a: Tensor, b: Tensor, exponent: float = 1.0) -> Tensor:
    """IoU minus (centre distance² / enclosing diagonal²)^exponent, (N, M).

    Darknet's greedy NMS uses the exponent 0.6 (src/box.c box_diou); the paper's DIoU has 1 (arXiv:1911.08287).
    """
    iou_, diagonal = _overlap(a[:, None], b[None])
    return iou_ - (_centre_distance(a[:, None], b[None]) / (diagonal + EPSILON)).pow(exponent)


def iou(boxes: Tensor, targets: Tensor) -> Tensor:
    """IoU of matching boxes (N, 4), gives (N,) in 0..1."""
    return _overlap(boxes, targets)[0]


def diou(boxes: Tensor, targets: Tensor) -> Tensor:
    """Distance IoU of matching boxes (N, 4), gives (N,) in [-1, 1] (arXiv:1911.08287)."""
    overlap, diagonal = _overlap(boxes, targets)
    return overlap - _centre_distance(boxes, targets) / (diagonal + EPSILON)


def ciou(boxes: Tensor, targets: Tensor) -> Tensor:
    """Complete IoU of matching boxes: overlap, centre distance and aspect ratio (arXiv:1911.08287).

    ``boxes`` and ``targets`` are (N, 4) xyxy in the same frame; gives (N,) in [-1.5, 1], 1 for equal boxes.
    The aspect weight is taken as a constant in backward, as in the paper.
    """
    overlap, diagonal = _overlap(boxes, targets)
    distance = overlap - _centre_distance(boxes, targets) / (diagonal + EPSILON)
    w, h = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    tw, th = (targets[..., 2:] - targets[..., :2]).unbind(-1)
    aspect = (4 / math.pi**2) * (torch.atan(tw / (th + EPSILON)) - torch.atan(w / (h + EPSILON))).square()
    with torch.no_grad():
        weight = aspect / (1 - overlap + aspect + EPSILON)
    return distance - weight * aspect
