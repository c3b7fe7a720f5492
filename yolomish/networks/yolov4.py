"""YOLOv4 (arXiv:2004.10934, Darknet cfg/yolov4.cfg): CSPDarknet53, SPP + PANet, three heads."""

from __future__ import annotations

from torch import Tensor, nn

from yolomish.config import ModelConfig
from yolomish.errors import YolomishError
from yolomish.networks.base import Network
from yolomish.networks.cspdarknet import CSPDarknet53
from yolomish.networks.panet import PANet
from yolomish.nn.blocks import ConvBlock, head_convolution
from yolomish.types import HeadSpec, InputSpec

STRIDES = (8, 16, 32)
ANCHORS = 3  # per head


class Head(nn.Module):
    """3x3 doubling the channels, then a linear 1x1 with bias to 3·(5+K) logits per cell."""

    def __init__(self, channels: int, num_classes: int, *, activation: str) -> None:
        super().__init__()
        self.conv = ConvBlock(channels, 2 * channels, 3, activation=activation)
        self.out = head_convolution(2 * channels, ANCHORS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x))


class YOLOv4(Network):
    """Images (B, 3, H, W) in 0..1 -> raw maps at strides 8, 16, 32 (see ``Network``)."""

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
        self.parts = {"backbone": ("backbone",), "neck": ("neck",), "head": ("head_layers",)}
        self.input = InputSpec(size_hw=config.image_size, stride=max(STRIDES))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.neck(*self.backbone(images))
        return tuple(head(x) for head, x in zip(self.head_layers, features, strict=True))


def build_yolov4(config: ModelConfig) -> YOLOv4:
    """A YOLOv4 of ``config`` with Darknet's initial weights from torch's global RNG; YolomishError on a bad value."""
    heads, anchors = len(STRIDES), config.anchors
    if len(anchors) != heads * ANCHORS or len(config.scale_xy) != heads:
        raise YolomishError(
            f"{config.architecture} has {heads} heads of {ANCHORS} anchors: it needs {heads * ANCHORS} anchors and {heads} "
            f"scale_xy, not {len(anchors)} and {len(config.scale_xy)}"
        )
    backbone = CSPDarknet53(width=config.width, depth=config.depth, activation=config.activation)
    neck = PANet(*backbone.out_channels, activation=config.neck_activation)
    layers = nn.ModuleList(Head(c, config.num_classes, activation=config.neck_activation) for c in neck.out_channels)
    specs = tuple(
        HeadSpec(
            all_anchors=anchors,
            mask=tuple(range(ANCHORS * i, ANCHORS * (i + 1))),
            stride=stride,
            num_classes=config.num_classes,
            scale_xy=config.scale_xy[i],
            box_form=config.box_form,
        )
        for i, stride in enumerate(STRIDES)
    )
    return YOLOv4(backbone, neck, layers, specs, config)
