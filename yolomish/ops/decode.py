"""From raw maps to boxes in network pixels; the only place where Darknet's box formula stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolomish.errors import YolomishError
from yolomish.types import HeadSpec

MAX_LOG_SIZE = 10.0  # e^10 x the largest anchor is beyond any image; keeps exp finite in fp32 and its gradient too


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """All candidates of a batch: boxes (B, M, 4) xyxy network px, objectness (B, M), classes (B, M, K), both 0..1."""

    boxes: Tensor
    objectness: Tensor
    classes: Tensor


def decode_boxes(raw: Tensor, anchors: Tensor, cells_xy: Tensor, head: HeadSpec) -> Tensor:
    """Boxes (..., 4) xyxy in network px from logits ``raw`` (..., 4) tx, ty, tw, th by ``head``'s stride and form.

    ``anchors`` (..., 2) in network px, ``cells_xy`` (..., 2) column and row.
    Darknet src/yolo_layer.c get_yolo_box with scale_x_y applied in forward_yolo_layer.
    """
    centre = (cells_xy + head.scale_xy * raw[..., :2].sigmoid() - (head.scale_xy - 1) / 2) * head.stride
    if head.box_form == "squared":
        half = anchors * (2 * raw[..., 2:4].sigmoid()).square() / 2
    else:
        half = anchors * raw[..., 2:4].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp() / 2
    return torch.cat((centre - half, centre + half), dim=-1)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What passed the objectness threshold, of all images: image (M,) index in the batch, ascending; boxes (M, 4) xyxy
    network px; objectness (M,) and classes (M, K), both 0..1."""

    image: Tensor
    boxes: Tensor
    objectness: Tensor
    classes: Tensor


def split_map(raw_map: Tensor, head: HeadSpec) -> Tensor:
    """A raw map (B, A·(5+K), H, W) as (B, A, H, W, 5+K), float32."""
    b, _, h, w = raw_map.shape
    return raw_map.float().reshape(b, len(head.anchors), 5 + head.num_classes, h, w).permute(0, 1, 3, 4, 2)


def decode_map(raw: Tensor, head: HeadSpec) -> Tensor:
    """Boxes (B, A, H, W, 4) xyxy network px of a whole split map's logits (B, A, H, W, 4)."""
    _, a, h, w, _ = raw.shape
    rows, columns = torch.meshgrid(torch.arange(h, device=raw.device), torch.arange(w, device=raw.device), indexing="ij")
    anchors = torch.tensor(head.anchors, device=raw.device, dtype=torch.float32).view(1, a, 1, 1, 2)
    return decode_boxes(raw, anchors, torch.stack((columns, rows), dim=-1).float(), head)


def decode(maps: Sequence[Tensor], heads: Sequence[HeadSpec]) -> Decoded:
    """Every anchor of every cell as a candidate, head by head, anchor-major then row-major."""
    boxes, objectness, classes = [], [], []
    for raw_map, head in zip(maps, heads, strict=True):
        raw = split_map(raw_map, head)  # (B, A, H, W, 5+K)
        b = len(raw)
        xyxy = decode_map(raw[..., :4], head)
        boxes.append(xyxy.reshape(b, -1, 4))
        objectness.append(raw[..., 4].sigmoid().reshape(b, -1))
        classes.append(raw[..., 5:].sigmoid().reshape(b, -1, head.num_classes))
    return Decoded(boxes=torch.cat(boxes, 1), objectness=torch.cat(objectness, 1), classes=torch.cat(classes, 1))


def check_heads(heads: Sequence[HeadSpec]) -> None:
    """YolomishError for a classifier, which has no heads."""
    if not heads:
        raise YolomishError("a classifier finds no boxes: choose weights or a cfg with [yolo] heads")


def decode_above(maps: Sequence[Tensor], heads: Sequence[HeadSpec], conf: float) -> Candidates:
    """``decode``, but only of the anchors whose objectness is above ``conf``: most of the boxes and classes go uncomputed.

    An image's candidates come head by head, then cell by cell.
    """
    check_heads(heads)
    found = []
    for raw_map, head in zip(maps, heads, strict=True):
        _, _, h, w = raw_map.shape
        a = len(head.anchors)
        raw = raw_map.permute(0, 2, 3, 1).reshape(-1, 5 + head.num_classes)  # (B·H·W·A, 5+K), a view if channels_last
        objectness = raw[:, 4].float().sigmoid()
        index = (objectness > conf).nonzero()[:, 0]
        logits = raw[index].float()  # (M, 5+K)
        anchors = torch.tensor(head.anchors, device=raw.device, dtype=torch.float32)[index % a]
        cells = torch.stack((index // a % w, index // (a * w) % h), dim=-1).float()
        boxes = decode_boxes(logits[:, :4], anchors, cells, head)
        found.append((index // (a * w * h), boxes, objectness[index], logits[:, 5:].sigmoid()))
    image, boxes, objectness, classes = (torch.cat(parts) for parts in zip(*found, strict=True))
    if len(maps[0]) > 1:
        order = torch.argsort(image, stable=True)
        image, boxes, objectness, classes = image[order], boxes[order], objectness[order], classes[order]
    return Candidates(image=image, boxes=boxes, objectness=objectness, classes=classes)
