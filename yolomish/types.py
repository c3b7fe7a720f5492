"""The values that cross module borders, each with its frame. Boxes are xyxy float32 tensors unless a name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

ResizeMode = Literal["stretch", "letterbox"]
BoxForm = Literal["exp", "squared"]
Interpolation = Literal["linear", "area", "darknet"]


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """How one raw map becomes boxes (Darknet ``[yolo]``, src/yolo_layer.c get_yolo_box).

    ``anchors`` are (width, height) in network pixels; a raw map is (B, A·(5+K), H/stride, W/stride), its channels
    ordered anchor-major as tx, ty, tw, th, objectness, K classes, all logits.
    x = (column + scale_xy·σ(tx) - (scale_xy-1)/2)·stride; w = anchor·e^tw (``box_form`` exp) or anchor·(2σ(tw))²
    (squared: Darknet's new_coords, Scaled-YOLOv4), likewise y and h.
    """

    anchors: tuple[tuple[float, float], ...]
    stride: int
    num_classes: int
    scale_xy: float = 1.0
    box_form: BoxForm = "exp"


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

    image_size_hw: tuple[int, int]
    network_size_hw: tuple[int, int]
    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a loader gives: images (B, 3, H, W) RGB in 0..255, uint8, or float32 where the resize does not round (the
    model's input is images/255 as float);
    targets (T, 6) float32 rows [index in batch, label, x1, y1, x2, y2] in network px."""

    images: Tensor
    targets: Tensor
    resizes: tuple[Resize, ...]
    image_ids: tuple[int, ...]


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
class LossParts:
    """The three losses of a batch as scalars with gradient, already weighted: their sum is what is minimised."""

    box: Tensor
    objectness: Tensor
    classes: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of the parts."""
        return self.box + self.objectness + self.classes


@dataclass(frozen=True, kw_only=True)
class CocoMetrics:
    """COCO's twelve numbers from pycocotools, 0..1 (-1 where there is no such ground truth), and AP per class name."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class_ap: dict[str, float] = field(default_factory=dict)
