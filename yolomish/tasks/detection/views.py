"""Test-time augmentation: the candidates of several views of a batch, in one frame, for one NMS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from yolomish.ops.decode import Candidates, decode_above
from yolomish.types import HeadSpec, InputSpec


class Runner(Protocol):
    """A network or an engine: images as ``input`` says -> raw maps, described by ``heads``."""

    input: InputSpec
    heads: tuple[HeadSpec, ...]

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True, kw_only=True)
class View:
    """A batch at ``scale`` times its size, mirrored left to right where ``flip``."""

    scale: float = 1.0
    flip: bool = False


VIEWS: dict[str, tuple[View, ...]] = {
    "off": (View(),),
    "flip": (View(), View(flip=True)),
    "multi-scale": (View(), View(scale=0.83), View(scale=0.67)),
    # ultralytics/yolov5 models/yolo.py _forward_augment: these scales and this flip
    "all": (View(), View(scale=0.83, flip=True), View(scale=0.67)),
}


def decode_views(model: Runner, images: Tensor, views: str, conf: float) -> Candidates:
    """Every view's candidates above ``conf`` of ``images`` (B, 3, H, W) as the network takes them, in the batch's own network px.

    ``views`` is a name of ``VIEWS``. A scaled view's sides are whole multiples of the network's stride.
    """
    parts = [_decode_view(model, images, view, conf) for view in VIEWS[views]]
    if len(parts) == 1:
        return parts[0]
    order = torch.argsort(torch.cat([p.image for p in parts]), stable=True)
    return Candidates(
        image=torch.cat([p.image for p in parts])[order],
        boxes=torch.cat([p.boxes for p in parts])[order],
        objectness=torch.cat([p.objectness for p in parts])[order],
        classes=torch.cat([p.classes for p in parts])[order],
    )


def _decode_view(model: Runner, images: Tensor, view: View, conf: float) -> Candidates:
    height, width = images.shape[2:]
    stride = model.input.stride
    new_h, new_w = (max(stride, round(side * view.scale / stride) * stride) for side in (height, width))
    seen = images
    if (new_h, new_w) != (height, width):
        seen = F.interpolate(images, size=(new_h, new_w), mode="bilinear", align_corners=False, antialias=True)
    if view.flip:
        seen = seen.flip(3)
    found = decode_above(model(seen), model.heads, conf)
    x0, y0, x1, y1 = (found.boxes * found.boxes.new_tensor([width / new_w, height / new_h] * 2)).unbind(-1)
    if view.flip:
        x0, x1 = width - x1, width - x0
    return replace(found, boxes=torch.stack((x0, y0, x1, y1), -1))
