"""YOLOv4-tiny (arXiv:2011.08036; Darknet cfg/yolov4-tiny.cfg and yolov4-tiny-3l.cfg): an OSA backbone, heads coarse first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from yolomish.config import ModelConfig
from yolomish.errors import YolomishError
from yolomish.networks.base import Network
from yolomish.networks.cspdarknet import scaled_channels
from yolomish.networks.heads import Head, head_specs, input_spec
from yolomish.nn.blocks import ConvBlock, concatenate, upsample
from yolomish.nn.sections import Pool, Route
from yolomish.types import FLT_MAX, LossConstants

STEM = (32, 64)
STAGES = (64, 128, 256)  # each stage returns twice as many
LAST = 512
LOSS = LossConstants(shape_iou=1.0, max_delta=FLT_MAX)  # cfg/yolov4-tiny.cfg sets neither: src/parser.c parse_yolo


@dataclass(frozen=True, kw_only=True)
class Member:
    """``strides`` and ``masks`` of the heads, coarse first; ``heads`` are the channels before each last convolution."""

    strides: tuple[int, ...]
    masks: tuple[tuple[int, ...], ...]
    heads: tuple[int, ...]


MEMBERS = {
    "yolov4-tiny": Member(strides=(32, 16), masks=((3, 4, 5), (1, 2, 3)), heads=(512, 256)),
    "yolov4-tiny-3l": Member(strides=(32, 16, 8), masks=((6, 7, 8), (3, 4, 5), (0, 1, 2)), heads=(512, 256, 128)),
}


class OSAStage(nn.Module):
    """One-shot aggregation, cross-stage-partial: the second half of the channels goes through two more convolutions.

    (B, C_in, H, W) -> what goes on, (B, 2C, H, W), and what the neck takes, (B, C, H, W).
    """

    def __init__(self, c_in: int, c: int, *, activation: str) -> None:
        super().__init__()
        self.conv = ConvBlock(c_in, c, 3, activation=activation)
        self.second_half = Route((c,), groups=2, group=1)
        self.first = ConvBlock(c // 2, c // 2, 3, activation=activation)
        self.second = ConvBlock(c // 2, c // 2, 3, activation=activation)
        self.merge = ConvBlock(c, c, 1, activation=activation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x)
        first = self.first(self.second_half(x))
        merged = self.merge(concatenate(self.second(first), first))
        return concatenate(x, merged), merged


class TinyBackbone(nn.Module):
    """(B, 3, H, W) -> features at strides 32, 16, 8, coarse first, with ``out_channels`` (512, 256, 128 at width 1)."""

    def __init__(self, *, width: float, activation: str) -> None:
        super().__init__()
        stem = [scaled_channels(c, width) for c in STEM]
        channels = [scaled_channels(c, width) for c in STAGES]
        last = scaled_channels(LAST, width)
        self.stem = nn.Sequential(
            *(ConvBlock(c_in, c_out, 3, stride=2, activation=activation) for c_in, c_out in zip([3, stem[0]], stem, strict=True))
        )
        self.stages = nn.ModuleList(
            OSAStage(c_in, c, activation=activation)
            for c_in, c in zip([stem[1], 2 * channels[0], 2 * channels[1]], channels, strict=True)
        )
        self.halve = Pool(2, (2, 2), 1)
        self.last = ConvBlock(2 * channels[2], last, 3, activation=activation)
        self.out_channels = (last, channels[2], channels[1])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x, features = self.stem(images), []
        for stage in self.stages:
            x, feature = stage(x)
            x = self.halve(x)
            features.append(feature)
        return self.last(x), features[2], features[1]


class YOLOv4Tiny(Network):
    """Images (B, 3, H, W) in 0..1 -> raw maps, coarse first (see ``Network``).

    Each finer head sees the hidden map before it, upsampled, beside a feature; a head's convolution that feeds the next
    one belongs to the neck.
    """

    def __init__(self, backbone: TinyBackbone, member: Member, config: ModelConfig) -> None:
        super().__init__()
        activation = config.neck_activation
        hidden = [scaled_channels(c, config.width) for c in member.heads]
        coarse = hidden[0] // 2
        lateral = backbone.out_channels[1 : len(hidden)]
        up = [c // 2 for c in hidden[1:]]
        self.backbone = backbone
        self.reduce = ConvBlock(backbone.out_channels[0], coarse, 1, activation=activation)
        self.ups = nn.ModuleList(
            ConvBlock(c_in, c_out, 1, activation=activation) for c_in, c_out in zip([coarse, *hidden[1:-1]], up, strict=True)
        )
        into = [coarse, *(a + b for a, b in zip(up, lateral, strict=True))]
        self.head_layers = nn.ModuleList(
            Head(c, h, len(mask), config.num_classes, activation=activation)
            for c, h, mask in zip(into, hidden, member.masks, strict=True)
        )
        self.config = config
        self.heads = head_specs(config, member.strides, member.masks, [LOSS] * len(hidden))
        self.input = input_spec(config, max(member.strides))
        feeding = [f"head_layers.{i}" for i in range(1, len(hidden) - 1)]
        self.parts = {
            "backbone": ("backbone",),
            "neck": ("reduce", "ups", *(f"{name}.conv" for name in feeding)),
            "head": ("head_layers.0", *(f"{name}.out" for name in feeding), f"head_layers.{len(hidden) - 1}"),
        }

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        coarse, *finer = self.backbone(images)
        x = self.reduce(coarse)
        first, *others = cast(list[Head], list(self.head_layers))
        maps = [first(x)]
        for up, head, feature in zip(self.ups, others, finer, strict=False):  # two heads leave the finest feature
            x = head.conv(concatenate(upsample(up(x)), feature))
            maps.append(head.out(x))
        return tuple(maps)


def build_tiny(config: ModelConfig) -> YOLOv4Tiny:
    """The member that ``config.architecture`` names, with initial weights; YolomishError on a bad value."""
    if config.depth != 1:
        raise YolomishError(f"{config.architecture} has no residual units to repeat: leave out depth, not {config.depth:g}")
    backbone = TinyBackbone(width=config.width, activation=config.activation)
    return YOLOv4Tiny(backbone, MEMBERS[config.architecture], config)
