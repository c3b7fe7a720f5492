"""The autograd detection loss: Darknet's assignment, mean-reduced CIoU and BCE in the manner of Scaled-YOLOv4.

Darknet's own gradient is not the derivative of a loss (src/yolo_layer.c delta_yolo_box leaves out chain factors), so
its iou_normalizer 0.07 has no meaning here: the gains come from the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yolomish.config import TrainConfig
from yolomish.ops.boxes import box_iou_matrix, ciou
from yolomish.ops.decode import decode_boxes
from yolomish.training.assign import assign
from yolomish.types import HeadSpec, LossParts

OBJECTNESS_BALANCE = (4.0, 1.0, 0.4)  # strides 8, 16, 32: evens out the heads' numbers of cells
CLASSES_OF_GAIN = 80  # class_gain is stated for COCO; fewer classes weigh less, as in Scaled-YOLOv4's train.py
IGNORE_IOU = 0.7  # yolov4.cfg ignore_thresh
MAX_LOG_SIZE = 8.0  # e^8 = 2981 anchors wide; keeps exp far from overflow


def detection_loss(maps: Sequence[Tensor], heads: Sequence[HeadSpec], targets: Tensor, config: TrainConfig) -> LossParts:
    """The three weighted losses of a batch, computed in float32 and multiplied by the batch size.

    ``maps`` are the raw maps (B, A·(5+K), H/s, W/s), ``targets`` (T, 6) [index, label, xyxy network px].
    Box: mean 1 - CIoU of a head's positives. Objectness: mean BCE over every anchor of a head, balanced 4/1/0.4, with
    the target max(CIoU, 0) without gradient at positives and 0 elsewhere; other predictions that overlap an object of
    their image by IoU > 0.7 have weight 0 (Darknet's ignore rule without its class-probability condition).
    Classes: mean BCE over the positives, multi-hot where two objects share an anchor. Without positives the box and
    class losses are 0 and still part of the graph.
    """
    batch = maps[0].shape[0]
    targets = targets.to(maps[0].device).float()
    grids = [(m.shape[2], m.shape[3]) for m in maps]
    box = objectness = classes = maps[0].new_zeros((), dtype=torch.float32)
    balances = OBJECTNESS_BALANCE if len(heads) == 3 else (1.0,) * len(heads)
    for raw, head, found, balance in zip(maps, heads, assign(targets, heads, grids), balances, strict=True):
        prediction = _split(raw, head)
        index = (found.images, found.anchors, found.rows, found.columns)
        chosen = prediction[index]
        anchors = torch.tensor(head.anchors, dtype=torch.float32, device=raw.device)
        cells = torch.stack((found.columns, found.rows), 1).float()
        boxes = _decode(chosen[:, :4], anchors[found.anchors], cells, head)
        overlap = ciou(boxes, found.boxes)
        box = box + (1 - overlap).sum() / max(len(found), 1)

        target = torch.zeros(prediction.shape[:4], device=raw.device)
        weight = _ignore_weights(prediction.detach(), anchors, head, targets)
        # one slot an anchor: where objects share it, the best overlap is the target and the labels are joined
        flat = _flat_index(index, target.shape)
        slots, slot_of = flat.unique(return_inverse=True)
        best = target.new_zeros(len(slots)).scatter_reduce(0, slot_of, overlap.detach().clamp(0), "amax")
        target.view(-1)[slots] = best
        weight.view(-1)[slots] = 1.0
        bce = F.binary_cross_entropy_with_logits(prediction[..., 4], target, weight=weight)
        objectness = objectness + balance * bce

        labels = torch.zeros((len(slots), head.num_classes), device=raw.device)
        labels[slot_of, found.labels] = 1.0
        logits = prediction.reshape(-1, prediction.shape[-1])[slots, 5:]
        bce = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        classes = classes + bce / max(labels.numel(), 1)
    return LossParts(
        box=box * (config.box_gain * batch),
        objectness=objectness * (config.objectness_gain * batch),
        classes=classes * (config.class_gain * heads[0].num_classes / CLASSES_OF_GAIN * batch),
    )


def _split(raw: Tensor, head: HeadSpec) -> Tensor:
    """(B, A·(5+K), H, W) of any float type to (B, A, H, W, 5+K) float32."""
    batch, _, height, width = raw.shape
    return raw.float().reshape(batch, len(head.anchors), 5 + head.num_classes, height, width).permute(0, 1, 3, 4, 2)


def _decode(logits: Tensor, anchors: Tensor, cells: Tensor, head: HeadSpec) -> Tensor:
    safe = torch.cat((logits[..., :2], logits[..., 2:4].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE)), -1)
    return decode_boxes(safe, anchors, cells, head.stride, head.scale_xy)


def _flat_index(index: tuple[Tensor, Tensor, Tensor, Tensor], shape: torch.Size) -> Tensor:
    image, anchor, row, column = index
    return ((image * shape[1] + anchor) * shape[2] + row) * shape[3] + column


@torch.no_grad()
def _ignore_weights(prediction: Tensor, anchors: Tensor, head: HeadSpec, targets: Tensor) -> Tensor:
    """(B, A, H, W) weights: 0 where the predicted box overlaps an object of its image by more than 0.7, else 1."""
    batch, _, height, width = prediction.shape[:4]
    weights = torch.ones(prediction.shape[:4], device=prediction.device)
    rows, columns = torch.meshgrid(
        torch.arange(height, device=prediction.device), torch.arange(width, device=prediction.device), indexing="ij"
    )
    cells = torch.stack((columns, rows), -1).float().expand(len(anchors), height, width, 2)
    shapes = anchors[:, None, None].expand(len(anchors), height, width, 2)
    for image in range(batch):
        objects = targets[targets[:, 0] == image, 2:6]
        if len(objects):
            boxes = _decode(prediction[image, ..., :4], shapes, cells, head).reshape(-1, 4)
            near = (box_iou_matrix(boxes, objects) > IGNORE_IOU).any(1)
            weights[image] = (~near).float().view(weights[image].shape)
    return weights
