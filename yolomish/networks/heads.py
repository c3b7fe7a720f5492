"""The end that the YOLOv4 family shares: a head for each scale, and what its raw maps mean."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from yolomish.config import ModelConfig
from yolomish.errors import YolomishError
from yolomish.nn.blocks import ConvBlock, head_convolution
from yolomish.types import GREY, LETTERBOX_GREY, HeadSpec, InputSpec, LossConstants


class Head(nn.Module):
    """3x3 to ``hidden`` channels, then a linear 1x1 with bias to A·(5+K) logits per cell."""

    def __init__(self, channels: int, hidden: int, anchors: int, num_classes: int, *, activation: str) -> None:
        super().__init__()
        self.conv = ConvBlock(channels, hidden, 3, activation=activation)
        self.out = head_convolution(hidden, anchors, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x))


def scales_per_head(config: ModelConfig, heads: int) -> tuple[float, ...]:
    """``scale_xy`` of each head: one number, such as a recipe's 2 for box_form squared, is every head's; else as it is."""
    return config.scale_xy[:1] * heads if len(set(config.scale_xy)) == 1 else config.scale_xy


def head_specs(
    config: ModelConfig,
    strides: Sequence[int],
    masks: Sequence[tuple[int, ...]],
    losses: Sequence[LossConstants] = (),
    nms: str = "greedy-diou",
) -> tuple[HeadSpec, ...]:
    """One specification per stride with the anchors of its mask and its loss constants (empty: cfg/yolov4.cfg's); ``nms`` is
    Darknet's suppression.

    YolomishError where the configuration's anchors or scales are not as many as the masks and heads need.
    """
    heads, needed, scales = len(strides), 1 + max(max(mask) for mask in masks), scales_per_head(config, len(strides))
    if len(config.anchors) != needed or len(scales) != heads:
        raise YolomishError(
            f"{config.architecture} has {heads} heads of {len(masks[0])} anchors: it needs {needed} anchors and {heads} "
            f"scale_xy, not {len(config.anchors)} and {len(scales)}"
        )
    return tuple(
        HeadSpec(
            all_anchors=config.anchors,
            mask=mask,
            stride=stride,
            num_classes=config.num_classes,
            scale_xy=scale,
            box_form=config.box_form,
            loss=loss,
            nms=nms,
        )
        for stride, mask, scale, loss in zip(strides, masks, scales, losses or [LossConstants()] * heads, strict=True)
    )


def consecutive_masks(heads: int, anchors: int) -> tuple[tuple[int, ...], ...]:
    """The first ``anchors`` for the first head, the next for the second, ..."""
    return tuple(tuple(range(anchors * i, anchors * (i + 1))) for i in range(heads))


def input_spec(config: ModelConfig, stride: int) -> InputSpec:
    """What a network of ``config`` takes; a model that asks for a letterbox itself is Darknet's and has Darknet's grey."""
    grey = LETTERBOX_GREY if config.resize == "letterbox" else GREY
    return InputSpec(size_hw=config.image_size, stride=stride, resize=config.resize, pad_value=grey)
