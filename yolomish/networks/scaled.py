"""Scaled-YOLOv4 (arXiv:2011.08036): cross-stage-partial in backbone and neck, in the sizes that were published.

yolov4-csp is pacsp with squared box sides (Darknet's new_coords), yolov4x-mish likewise pacsp-x.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from yolomish.config import ModelConfig
from yolomish.networks.cspdarknet import STEM_CHANNELS, CSPDarknet, scaled_channels
from yolomish.networks.heads import Head, consecutive_masks, head_specs
from yolomish.networks.panet import CSPPAN
from yolomish.networks.yolov4 import YOLOv4
from yolomish.nn.blocks import ConvBlock, CSPStage, Residual
from yolomish.types import FLT_MAX, LossConstants


def _new_coords(objectness: float, max_delta: float, *, smooth: bool = True) -> LossConstants:
    """A [yolo] of the cfgs with new_coords=1."""
    return LossConstants(
        shape_iou=0.2, box=0.05, classes=0.5, objectness=objectness, max_delta=max_delta, objectness_smooth=smooth
    )


@dataclass(frozen=True, kw_only=True)
class Member:
    """``channels`` and ``residuals`` of each stage, from stride 2 on. The first is a plain residual with ``first_hidden``
    channels inside (0: a cross-stage-partial one like the others). ``before`` and ``after`` are convolutions around the
    pools, ``pairs`` of 1x1 and 3x3 stand in each merge of the neck. Each head has ``anchors``; ``loss`` are its constants
    with squared sides."""

    channels: tuple[int, ...]
    residuals: tuple[int, ...]
    first_hidden: int = 0
    before: int = 3
    after: int = 2
    pairs: int = 3
    anchors: int = 3
    loss: tuple[LossConstants, ...] = (_new_coords(4.0, 5.0, smooth=False), _new_coords(1.0, 5.0), _new_coords(0.4, 2.0))


MEMBERS = {
    "pacsp-s": Member(channels=(32, 64, 128, 256, 512), residuals=(1, 1, 1, 1, 1), first_hidden=32, before=1, after=2, pairs=1),
    "pacsp": Member(channels=(64, 128, 256, 512, 1024), residuals=(1, 2, 8, 8, 4), first_hidden=32, pairs=2),
    "pacsp-x": Member(channels=(80, 160, 320, 640, 1280), residuals=(1, 3, 10, 10, 5), first_hidden=40, after=4),
    "yolov4-p5": Member(
        channels=(64, 128, 256, 512, 1024), residuals=(1, 3, 15, 15, 7), anchors=4, loss=(_new_coords(1.0, 2.0),) * 3
    ),
    "yolov4-p6": Member(
        channels=(64, 128, 256, 512, 1024, 1024),
        residuals=(1, 3, 15, 15, 7, 7),
        anchors=4,
        loss=(_new_coords(1.0, 2.0),) * 4,
    ),
}


def build_scaled(config: ModelConfig) -> YOLOv4:
    """The member that ``config.architecture`` names, with initial weights; YolomishError on a bad value.

    ``width`` multiplies all channels, ``depth`` the residual units of the backbone.
    """
    member = MEMBERS[config.architecture]
    strides = [8 * 2**i for i in range(len(member.channels) - 2)]
    plain = [LossConstants(max_delta=FLT_MAX)] * len(strides)
    losses, nms = (member.loss, "diou") if config.box_form == "squared" else (plain, "greedy-diou")
    specs = head_specs(config, strides, consecutive_masks(len(strides), member.anchors), losses, nms)
    backbone = _backbone(member, config)
    activation = config.neck_activation
    neck = CSPPAN(backbone.out_channels, before=member.before, after=member.after, pairs=member.pairs, activation=activation)
    layers = nn.ModuleList(Head(c, 2 * c, member.anchors, config.num_classes, activation=activation) for c in neck.out_channels)
    return YOLOv4(backbone, neck, layers, specs, config)


def _backbone(member: Member, config: ModelConfig) -> CSPDarknet:
    activation = config.activation
    stem = scaled_channels(STEM_CHANNELS, config.width)
    channels = [scaled_channels(c, config.width) for c in member.channels]
    residuals = [max(1, round(n * config.depth)) for n in member.residuals]
    stages: list[nn.Module] = []
    for c_in, c_out, n in zip([stem, *channels[:-1]], channels, residuals, strict=True):
        if stages or not member.first_hidden:
            stages.append(CSPStage(c_in, c_out, n, full=False, activation=activation))
        else:
            hidden = scaled_channels(member.first_hidden, config.width)
            down = ConvBlock(c_in, c_out, 3, stride=2, activation=activation)
            units = (Residual(c_out, hidden, activation=activation) for _ in range(n))
            stages.append(nn.Sequential(down, *units))
    return CSPDarknet(ConvBlock(3, stem, 3, activation=activation), stages, channels)
