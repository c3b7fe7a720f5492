"""YOLOv4 (arXiv:2004.10934, Darknet cfg/yolov4.cfg): CSPDarknet53, SPP + PANet, three heads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from yolomish.config import ModelConfig, check_model
from yolomish.networks.cspdarknet import CSPDarknet53
from yolomish.networks.panet import PANet
from yolomish.nn.blocks import ConvBlock
from yolomish.types import BoxForm, HeadSpec

STRIDES = (8, 16, 32)
ANCHORS = 3  # a head
OBJECTNESS_PRIOR = 0.01


class Head(nn.Module):
    """3x3 doubling the channels, then a linear 1x1 with bias to 3·(5+K) logits a cell."""

    def __init__(self, channels: int, num_classes: int, *, activation: str) -> None:
        super().__init__()
        self.conv = ConvBlock(channels, 2 * channels, 3, activation=activation)
        self.out = nn.Conv2d(2 * channels, ANCHORS * (5 + num_classes), 1)
        bound = math.sqrt(2 / (2 * channels))
        nn.init.uniform_(self.out.weight, -bound, bound)
        bias = torch.zeros(ANCHORS, 5 + num_classes)
        bias[:, 4] = math.log(OBJECTNESS_PRIOR / (1 - OBJECTNESS_PRIOR))
        self.out.bias = nn.Parameter(bias.flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x))


class YOLOv4(nn.Module):
    """Images (B, 3, H, W) RGB in 0..1, H and W multiples of 32 -> raw maps at strides 8, 16, 32.

    The same return in training and evaluation: three (B, A·(5+K), H/s, W/s) maps of logits, described by ``heads``.
    """

    def __init__(
        self,
        backbone: CSPDarknet53,
        neck: PANet,
        heads: nn.ModuleList,
        specs: tuple[HeadSpec, ...],
        config: ModelConfig,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head_layers = heads
        self.heads = specs
        self.config = config

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.neck(*self.backbone(images))
        return tuple(head(x) for head, x in zip(self.head_layers, features, strict=True))

    def darknet_order(self) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]]:
        """(name, convolution, BN or None) in the order of cfg/yolov4.cfg.

        Darknet stores the P3 head before the bottom-up path and the P4 head before the last step down.
        """
        neck = self.neck
        parts: list[tuple[str, nn.Module]] = [("backbone", self.backbone)]
        top_down = ("before_spp", "after_spp", "up5", "lateral4", "top_down4", "up4", "lateral3", "top_down3")
        parts += [(f"neck.{n}", getattr(neck, n)) for n in top_down]
        parts += [("head_layers.0", self.head_layers[0])]
        parts += [(f"neck.{n}", getattr(neck, n)) for n in ("down3", "bottom_up4")]
        parts += [("head_layers.1", self.head_layers[1])]
        parts += [(f"neck.{n}", getattr(neck, n)) for n in ("down4", "bottom_up5")]
        parts += [("head_layers.2", self.head_layers[2])]
        for prefix, part in parts:
            blocks = {id(m.conv): m.bn for m in part.modules() if isinstance(m, ConvBlock)}
            for name, module in part.named_modules():
                if isinstance(module, nn.Conv2d):
                    yield f"{prefix}.{name}", module, blocks.get(id(module))


def build_network(config: ModelConfig) -> YOLOv4:
    """A YOLOv4 of ``config`` with Darknet's initial weights from torch's global RNG; YolomishError on a bad value.

    Activations draw nothing, so one seed gives the same kernels whatever the activation. Objectness biases start at a
    prior of 0.01 (arXiv:1708.02002, 4.1), for early steadiness; Darknet starts at 0.5.
    """
    check_model(config)
    backbone = CSPDarknet53(width=config.width, depth=config.depth, activation=config.activation)
    neck = PANet(*backbone.out_channels, activation=config.neck_activation)
    heads = nn.ModuleList(Head(c, config.num_classes, activation=config.neck_activation) for c in neck.out_channels)
    for module in (*backbone.modules(), *neck.modules(), *heads.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = config.bn_momentum
    specs = tuple(
        HeadSpec(
            anchors=tuple(config.anchors[ANCHORS * i : ANCHORS * (i + 1)]),
            stride=stride,
            num_classes=config.num_classes,
            scale_xy=config.scale_xy[i],
            box_form=cast(BoxForm, config.box_form),
        )
        for i, stride in enumerate(STRIDES)
    )
    return YOLOv4(backbone, neck, heads, specs, config)
