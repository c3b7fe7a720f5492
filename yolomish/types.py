"""The values that cross module borders, each with its frame. Boxes are xyxy float32 tensors unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from yolomish.config.settings import BoxForm, ResizeMode
from yolomish.errors import YolomishError

Interpolation = Literal["linear", "area", "darknet"]
IouKind = Literal["mse", "iou", "giou", "diou", "ciou"]
SizeHW = tuple[int, int]  # (height, width) in px
GREY = 114  # what a letterboxed image stands on, 0..255 (PyTorch_YOLOv4 utils/datasets.py)
FLT_MAX = 3.4028234663852886e38  # Darknet's "no bound"; finite, so that descriptions of networks can hold it
LETTERBOX_GREY = 128  # Darknet's, as 8 bits: src/image.c letterbox_image fills with 0.5


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network takes: (B, ``channels``, height, width) float32 RGB, both sides multiples of ``stride`` px.

    ``size_hw`` is its own size, ``resize`` how an image gets there (a letterbox stands on ``pad_value``, 0..255). Values are
    in 0..1, less ``mean`` and over ``std`` per channel where those are given.
    """

    size_hw: SizeHW
    stride: int
    channels: int = 3
    resize: ResizeMode = "stretch"
    pad_value: int = GREY
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def normalise(self, images: Tensor) -> Tensor:
        """The network's input from images (B, C, H, W) in 0..255, uint8 or float; the layout in memory stays."""
        images = images.float() / 255
        for values, operation in ((self.mean, torch.sub), (self.std, torch.div)):
            if values:
                images = operation(images, images.new_tensor(values).view(1, -1, 1, 1))
        return images

    def check_size(self, size_hw: SizeHW) -> None:
        """YolomishError, with the nearest size that fits, where a side is no positive multiple of the stride."""
        if any(side < self.stride or side % self.stride for side in size_hw):
            near = tuple(max(self.stride, round(side / self.stride) * self.stride) for side in size_hw)
            raise YolomishError(
                f"image size must be a multiple of {self.stride} and at least {self.stride}, not {size_text(size_hw)}: "
                f"try {size_text(near)}"
            )


def size_text(size_hw: tuple[int, ...]) -> str:
    """``416`` for a square, else ``416x608``: height x width."""
    height, width = size_hw
    return str(height) if height == width else f"{height}x{width}"


@dataclass(frozen=True, kw_only=True)
class LossConstants:
    """What a Darknet ``[yolo]`` section says of its training; the defaults are cfg/yolov4.cfg's.

    Args:
        ignore_iou: ignore_thresh, above which a confident prediction's objectness is left alone.
        truth_iou: truth_thresh, above which any prediction answers for the object it overlaps most; 1: never.
        shape_iou: iou_thresh, above which further anchors answer for an object; from 1 on the best alone does.
        shape_kind: iou_thresh_kind, how anchors are measured against it.
        box_loss: iou_loss, whose deltas boxes get.
        box: iou_normalizer, times the box deltas.
        objectness: obj_normalizer, times the objectness deltas.
        classes: cls_normalizer, times an object's own class delta where ``class_weights`` are given, as in Darknet.
        all: delta_normalizer, times every delta.
        max_delta: Bounds each box delta of the IoU losses.
        objectness_smooth: Objectness towards the overlap above ``ignore_iou``, instead of none there and 1 at positives.
        label_smoothing: label_smooth_eps.
        focal: focal_loss, with Darknet's own gamma 2 and alpha 0.5.
        class_weights: One number per class from counters_per_class: the most frequent class's count over its own.
    """

    ignore_iou: float = 0.7
    truth_iou: float = 1.0
    shape_iou: float = 0.213
    shape_kind: IouKind = "iou"
    box_loss: IouKind = "ciou"
    box: float = 0.07
    objectness: float = 1.0
    classes: float = 1.0
    all: float = 1.0
    max_delta: float = 5.0
    objectness_smooth: bool = False
    label_smoothing: float = 0.0
    focal: bool = False
    class_weights: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """How one raw map becomes boxes (Darknet ``[yolo]``, src/yolo_layer.c get_yolo_box).

    ``all_anchors`` are those of all heads, (width, height) in network pixels, of which this head has the ones in ``mask``; a
    raw map is (B, A·(5+K), H/stride, W/stride), its channels ordered anchor-major as tx, ty, tw, th, objectness, K classes,
    all logits. x = (column + scale_xy·σ(tx) - (scale_xy-1)/2)·stride; w = anchor·e^tw (``box_form`` exp) or
    anchor·(2σ(tw))² (squared: Darknet's new_coords, Scaled-YOLOv4), likewise y and h. ``nms`` and ``beta_nms`` are the
    suppression that Darknet does after it (see ``ops.nms.Selection``), of several heads that of the last.
    """

    all_anchors: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    stride: int
    num_classes: int
    scale_xy: float = 1.0
    box_form: BoxForm = "exp"
    nms: str = "greedy-diou"
    beta_nms: float = 0.6
    loss: LossConstants = LossConstants()

    @property
    def anchors(self) -> tuple[tuple[float, float], ...]:
        """This head's own anchors, in the order of its channels."""
        return tuple(self.all_anchors[i] for i in self.mask)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its boxes: image (H, W, 3) uint8 RGB; boxes (N, 4) xyxy float32 in the image's pixels; labels (N,) int64."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    image_id: int


@dataclass(frozen=True, kw_only=True)
class Resize:
    """The map from image px to network px: x_net = x_img·scale_x + pad_x, likewise y. Sizes are (height, width)."""

    image_size_hw: SizeHW
    network_size_hw: SizeHW
    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a loader returns: images (B, 3, H, W) RGB in 0..255, uint8, or float32 where the resize does not round (see
    ``InputSpec.normalise``); targets float32: to detect (T, 6) rows [index in batch, label, x1, y1, x2, y2] in network px, to
    classify (B, K) each class's share of an image, which has no ``resizes``."""

    images: Tensor
    targets: Tensor
    image_ids: tuple[int, ...]
    resizes: tuple[Resize, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Detections of one image, best score first: boxes (N, 4) xyxy, scores (N,) in 0..1, labels (N,) int64."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes.shape != (n, 4) or self.labels.shape != (n,):
            raise ValueError(f"boxes {tuple(self.boxes.shape)}, scores ({n},), labels {tuple(self.labels.shape)} do not match")

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: torch.device | str) -> Detections:
        """The same detections on another device."""
        return Detections(boxes=self.boxes.to(device), scores=self.scores.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of a batch by name, scalars with gradient, already weighted: their sum is what is minimised."""

    parts: Mapping[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum of the parts."""
        return reduce(torch.add, self.parts.values())

    def values(self) -> Tensor:
        """The parts (L,) in their order, without gradient."""
        return torch.stack(tuple(self.parts.values())).detach()


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """An evaluation's numbers by name, of which ``primary`` decides; -1 where there is no such ground truth. ``per_class``
    holds the primary one of each class."""

    primary: str
    values: dict[str, float]
    per_class: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The primary number."""
        return self.values[self.primary]
