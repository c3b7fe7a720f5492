"""The autograd detection loss in the manner of Scaled-YOLOv4: means of CIoU and BCE over positives and cells.

Darknet's own gradient is not the derivative of a loss; it stands in ``darknet_loss``, and its constants mean nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yolomish.config import TrainConfig
from yolomish.ops.boxes import ciou
from yolomish.ops.decode import decode_boxes, split_map
from yolomish.ops.distributed import sum_over_ranks, world_size
from yolomish.tasks.detection.assign import ASSIGNMENTS
from yolomish.tasks.detection.darknet_loss import darknet_loss
from yolomish.types import HeadSpec, LossParts

OBJECTNESS_BALANCE = (4.0, 1.0, 0.4)  # strides 8, 16, 32: evens out the heads' numbers of cells
GAINS_AT_CLASSES = 80  # class_gain is stated for COCO and times K/80, as in PyTorch_YOLOv4 train.py
FOCAL_ALPHA = 0.25  # arXiv:1708.02002, 4.1


def detection_loss(maps: Sequence[Tensor], heads: Sequence[HeadSpec], targets: Tensor, config: TrainConfig) -> LossParts:
    """The three weighted losses of a batch by ``config.loss``: ``scaled`` or ``darknet``.

    ``maps`` are the raw maps (B, A·(5+K), H/s, W/s), ``targets`` (T, 6) [index, label, xyxy network px]; the parts are
    float32. Of several processes each gives its share: their sum is the loss of all their images in one process.
    """
    return (darknet_loss if config.loss == "darknet" else scaled_loss)(maps, heads, targets, config)


def gradient_scale(config: TrainConfig) -> float:
    """What the sum over a step's images is multiplied by before backward.

    Darknet averages over the batch (src/convolutional_kernels.cu update: learning_rate/batch). The scaled loss keeps the
    sum (PyTorch_YOLOv4 train.py, tuned at 64 images), so that a smaller batch takes proportionally smaller steps.
    """
    return 1 / config.batch if config.loss == "darknet" else 1.0


def scaled_loss(maps: Sequence[Tensor], heads: Sequence[HeadSpec], targets: Tensor, config: TrainConfig) -> LossParts:
    """Mean CIoU and BCE losses times gains and the batch size (PyTorch_YOLOv4 utils/loss.py, formulas alone).

    Box: mean 1 - CIoU of a head's positives. Objectness: mean BCE over every anchor of a head, balanced 4/1/0.4, with
    the target max(CIoU, 0) without gradient at positives and 0 elsewhere. Classes: mean BCE over the positives,
    multi-hot where two objects share an anchor, smoothed and focal where the configuration says so. Without positives
    the box and class losses are 0 and still part of the graph.
    """
    batch = maps[0].shape[0]
    targets = targets.to(maps[0].device).float()
    grids = [(m.shape[2], m.shape[3]) for m in maps]
    assigned = ASSIGNMENTS[config.assignment](targets, heads, grids)
    box = objectness = classes = maps[0].new_zeros((), dtype=torch.float32)
    balances = OBJECTNESS_BALANCE if len(heads) == 3 else (1.0,) * len(heads)
    for raw, head, found, balance in zip(maps, heads, assigned, balances, strict=True):
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
    return LossParts(
        box=box * (config.box_gain * images),
        objectness=objectness * (config.objectness_gain * batch),  # each process's mean is its share of them all
        classes=classes * (config.class_gain * share * images),
    )


def flat_index(index: tuple[Tensor, Tensor, Tensor, Tensor], shape: torch.Size) -> Tensor:
    """Positions (P,) in a flattened (B, A, H, W) map of index tensors (image, anchor, row, column)."""
    image, anchor, row, column = index
    return ((image * shape[1] + anchor) * shape[2] + row) * shape[3] + column


def _bce(logits: Tensor, target: Tensor, focal_gamma: float) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if focal_gamma:
        probability = logits.sigmoid()
        agreement = target * probability + (1 - target) * (1 - probability)
        weight = target * FOCAL_ALPHA + (1 - target) * (1 - FOCAL_ALPHA)
        loss = loss * weight * (1 - agreement).pow(focal_gamma)
    return loss
