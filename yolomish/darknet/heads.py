"""[yolo] sections: the map that each reads, and all that it says of boxes, suppression and the loss."""

from __future__ import annotations

from typing import cast

from torch import nn

from yolomish.darknet.cfg import NMS_KINDS, Section
from yolomish.darknet.plan import Plan, activation_of
from yolomish.nn.blocks import ConvBlock, head_convolution
from yolomish.types import FLT_MAX, HeadSpec, IouKind, LossConstants


def add_yolo(plan: Plan, section: Section) -> None:
    """The head's map is the result of the convolution before, as logits, whatever that applies for Darknet's new_coords."""
    before = plan.sections[plan.index]  # [net] stands first
    if plan.index == 0 or before.kind != "convolutional":
        raise section.fault("", "must follow a [convolutional] section")
    filters, mask, classes = before.integer("filters", 1), section.integers("mask"), section.integer("classes", 20, 1)
    if filters != len(mask) * (5 + classes):
        raise before.fault(
            "filters",
            f"does not fit the [yolo] of line {section.line}: {len(mask)} anchors and {classes} classes need "
            f"{len(mask)}·(5+{classes}) = {len(mask) * (5 + classes)}",
        )
    squared = section.integer("new_coords", 0, 0, 1) == 1
    if activation_of(before, "logistic") != ("sigmoid" if squared else "linear"):
        raise before.fault(
            "activation",
            f"does not fit the [yolo] of line {section.line}: new_coords={int(squared)} needs "
            f"{'logistic' if squared else 'linear'}, or boxes are decoded wrongly",
        )
    block = plan.modules[-1]
    if (
        not isinstance(block, ConvBlock)
        or block.bn is not None
        or block.conv.groups > 1
        or block.conv.stride != (1, 1)
        or block.conv.padding != tuple(k // 2 for k in block.conv.kernel_size)
    ):
        raise before.fault("size", "the convolution before [yolo] must be plain: no batch norm, groups, stride or antialiasing")
    plan.modules[-1] = head_convolution(block.conv.in_channels, len(mask), classes, block.conv.kernel_size[0])
    plan.add(nn.Identity(), plan.shape(plan.index - 1))


def head_spec(section: Section, stride: int) -> HeadSpec:
    values, mask = section.numbers("anchors"), section.integers("mask")
    pairs = tuple(zip(values[::2], values[1::2], strict=False))
    if len(values) % 2 or any(w <= 0 or h <= 0 for w, h in pairs):
        raise section.fault("anchors", "must be pairs of positive width,height")
    if min(mask) < 0 or max(mask) >= len(pairs) or len(set(mask)) < len(mask):
        raise section.fault("mask", f"must name some of the anchors 0 to {len(pairs) - 1}, each once")
    scale, classes = section.number("scale_x_y", 1.0), section.integer("classes", 20, 1)
    if scale <= 0:
        raise section.fault("scale_x_y", "must be positive")
    beta = section.number("beta_nms", 0.6)
    if beta <= 0:
        raise section.fault("beta_nms", "must be positive")
    return HeadSpec(
        all_anchors=pairs,
        mask=mask,
        stride=stride,
        num_classes=classes,
        scale_xy=scale,
        box_form="squared" if section.integer("new_coords", 0) else "exp",
        nms=NMS_KINDS[section.text("nms_kind", "default")],
        beta_nms=beta,
        loss=_loss(section, classes),
    )


def _loss(section: Section, classes: int) -> LossConstants:
    """What a [yolo] says of its loss, with the defaults of src/parser.c parse_yolo."""
    max_delta = section.number("max_delta", FLT_MAX)
    if max_delta <= 0:
        raise section.fault("max_delta", "must be positive")
    counts: tuple[float, ...] = ()
    if "counters_per_class" in section.options:
        counts = tuple(max(1, count) for count in section.integers("counters_per_class"))
        if len(counts) != classes:
            raise section.fault("counters_per_class", f"has {len(counts)} numbers for {classes} classes: one for each, or none")
    return LossConstants(
        ignore_iou=section.number("ignore_thresh", 0.5),
        truth_iou=section.number("truth_thresh", 1.0),
        shape_iou=section.number("iou_thresh", 1.0),
        shape_kind=cast(IouKind, section.text("iou_thresh_kind", "iou")),
        box_loss=cast(IouKind, section.text("iou_loss", "mse")),
        box=section.number("iou_normalizer", 0.75),
        objectness=section.number("obj_normalizer", 1.0),
        classes=section.number("cls_normalizer", 1.0),
        all=section.number("delta_normalizer", 1.0),
        max_delta=max_delta,
        objectness_smooth=section.number("objectness_smooth", 0) != 0,
        label_smoothing=section.number("label_smooth_eps", 0.0),
        focal=section.number("focal_loss", 0) != 0,
        class_weights=tuple(min(max(counts) / count, max_delta) for count in counts),
    )
