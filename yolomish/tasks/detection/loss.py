"""The autograd detection loss in the manner of Scaled-YOLOv4: means of CIoU and BCE over positives and cells.

Darknet's own gradient is not the derivative of a loss; it stands in ``darknet_loss``, and its constants mean nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yolomish.config import LossConfig
from yolomish.ops.boxes import ciou
from yolomish.ops.decode import decode_boxes, split_map
from yolomish.ops.distributed import sum_over_ranks, world_size
from yolomish.tasks.detection.assign import ASSIGNMENTS, flat_index
from yolomish.tasks.detection.darknet_loss import darknet_loss
from yolomish.types import HeadSpec, Losses

# Evens out the heads' numbers of cells, by stride: PyTorch_YOLOv4 utils/loss.py, for 128 ultralytics/yolov5 utils/loss.py
OBJECTNESS_BALANCE = {4: 4.0, 8: 4.0, 16: 1.0, 32: 0.4, 64: 0.1, 128: 0.02}
GAINS_AT_CLASSES = 80  # class_gain is stated for COCO and times K/80, as in PyTorch_YOLOv4 train.py


def detection_loss(maps: Sequence[Tensor], heads: Sequence[HeadSpec], targets: Tensor, config: LossConfig) -> Losses:
    """The three weighted losses of a batch by ``config.loss``: ``scaled`` or ``darknet``.

    ``maps`` are the raw maps (B, A·(5+K), H/s, W/s), ``targets`` (T, 6) [index, label, xyxy network px]; the parts are
    float32. Of several processes each returns its share: their sum is the loss of all their images in one process.
    """
    return (darknet_loss if config.loss == "darknet" else scaled_loss)(maps, heads, targets, config)


def scaled_loss(maps: Sequence[Tensor], heads: Sequence[HeadSpec], targets: Tensor, config: LossConfig) -> Losses:
    """Mean CIoU and BCE losses times gains and the batch size (PyTorch_YOLOv4 utils/loss.py, formulas alone).

    Box: mean 1 - CIoU of a head's positives. Objectness: mean BCE over every anchor of a head, balanced by stride, with
    the target max(CIoU, 0) without gradient at positives and 0 elsewhere. Classes: mean BCE over the positives,
    multi-hot where two objects share an anchor, smoothed and focal where the configuration says so. Without positives
    the box and class losses are 0 and still part of the graph.
    """
    batch = maps[0].shape[0]
    targets = targets.to(maps[0].device).float()
    grids = [(m.shape[2], m.shape[3]) for m in maps]
    assigned = ASSIGNMENTS[config.assignment](targets, heads, grids)
    box = objectness = classes = maps[0].new_zeros((), dtype=torch.float32)
    for raw, head, found in zip(maps, heads, assigned, strict=True):
        prediction = split_map(raw, head)
        index = (found.images, found.anchors, found.rows, found.columns)
        anchors = torch.tensor(head.anchors, dtype=torch.float32, device=raw.device)
        cells = torch.stack((found.columns, found.rows), 1).float()
        overlap = ciou(decode_boxes(prediction[index][:, :4], anchors[found.anchors], cells, head), found.boxes)

        # one slot an anchor: where objects share it, the best overlap is the target and the labels are joined
        target = torch.zeros(prediction.shape[:4], device=raw.device)
        slots, slot_of = flat_index(index, target.shape).unique(return_inverse=True)
        best = target.new_zeros(len(slots)).scatter_reduce(0, slot_of, overlap.detach().clamp(0), "amax")
        target.view(-1)[slots] = best
        balance = OBJECTNESS_BALANCE.get(head.stride, 1.0)
        objectness = objectness + balance * _bce(prediction[..., 4], target, config.focal_gamma).mean()

        positives = sum_over_ranks(torch.tensor((len(found), len(slots)), dtype=torch.float32, device=raw.device)).clamp(min=1)
        box = box + (1 - overlap).sum() / positives[0]

        low = config.label_smoothing / 2
        labels = torch.full((len(slots), head.num_classes), low, device=raw.device)
        labels[slot_of, found.labels] = 1 - low
        logits = prediction.reshape(-1, prediction.shape[-1])[slots, 5:]
        classes = classes + _bce(logits, labels, config.focal_gamma).sum() / (positives[1] * head.num_classes)
    share = heads[0].num_classes / GAINS_AT_CLASSES if config.scale_gains else 1.0
    images = batch * world_size()
    return Losses(
        parts={
            "box": box * (config.box_gain * images),
            "objectness": objectness * (config.objectness_gain * batch),  # each process's mean is its share of them all
            "class": classes * (config.class_gain * share * images),
        }
    )


def _bce(logits: Tensor, target: Tensor, focal_gamma: float) -> Tensor:
    if focal_gamma:
        from torchvision.ops import sigmoid_focal_loss  # late: torchvision takes a second to import

        return sigmoid_focal_loss(logits, target, gamma=focal_gamma)  # arXiv:1708.02002, its alpha of 0.25
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
