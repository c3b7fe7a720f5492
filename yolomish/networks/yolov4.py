"""YOLOv4 (arXiv:2004.10934, Darknet cfg/yolov4.cfg): CSPDarknet53, SPP + PANet, three heads."""

from __future__ import annotations

from torch import Tensor, nn

from yolomish.config import ModelConfig
from yolomish.networks.base import Network
from yolomish.networks.cspdarknet import cspdarknet53
from yolomish.networks.heads import Head, consecutive_masks, head_specs, input_spec
from yolomish.networks.panet import PANet
from yolomish.types import HeadSpec

STRIDES = (8, 16, 32)
ANCHORS = 3  # per head


class YOLOv4(Network):
    """A backbone, a neck over its features and a head for each: images (B, 3, H, W) in 0..1 -> raw maps (see ``Network``)."""

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
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
        self.parts = {"backbone": ("backbone",), "neck": ("neck",), "head": ("head_layers",)}
        self.input = input_spec(config, max(spec.stride for spec in specs))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.neck(*self.backbone(images))
        return tuple(head(x) for head, x in zip(self.head_layers, features, strict=True))


def build_yolov4(config: ModelConfig) -> YOLOv4:
    """A YOLOv4 of ``config`` with Darknet's initial weights from torch's global RNG; YolomishError on a bad value."""
    specs = head_specs(config, STRIDES, consecutive_masks(len(STRIDES), ANCHORS))
    backbone = cspdarknet53(width=config.width, depth=config.depth, activation=config.activation)
    neck = PANet(*backbone.out_channels, activation=config.neck_activation)
    layers = nn.ModuleList(
        Head(c, 2 * c, ANCHORS, config.num_classes, activation=config.neck_activation) for c in neck.out_channels
    )
    return YOLOv4(backbone, neck, layers, specs, config)
