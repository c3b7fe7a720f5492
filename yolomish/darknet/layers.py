"""One module per kind of section, as Darknet's parser reads it (src/parser.c parse_*)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn

from yolomish.darknet.cfg import Section
from yolomish.darknet.heads import add_yolo
from yolomish.darknet.plan import Plan, Shape, activation_of, is_fixed, slide, strides_yx
from yolomish.nn import sections as parts
from yolomish.nn.blocks import ConvBlock


def _blurred(plan: Plan, section: Section, module: nn.Module, shape: Shape, stride: tuple[int, int]) -> None:
    """Add a section of stride 1 with the blur that ``antialiasing`` puts in its stride's place."""
    size = 2 if section.integer("antialiasing", 0) == 2 else 3
    c = shape[0]
    block = nn.Sequential(module, parts.Blur(c, size, stride))
    plan.add(block, slide(section, shape, size, stride, 2 if size == 3 else 0, c))


def _convolutional(plan: Plan, section: Section) -> None:
    shape = plan.shape(plan.index - 1)
    c, filters, size = shape[0], section.integer("filters", 1, 1), section.integer("size", 1, 1)
    groups, stride = section.integer("groups", 1, 1), strides_yx(section)
    dilation = 1 if size == 1 else section.integer("dilation", 1, 1)
    padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    if c % groups or filters % groups:
        raise section.fault("groups", f"does not divide the input's {c} channels and {filters} filters")
    if dilation > 1 and (size % 2 == 0 or padding != size // 2):
        raise section.fault("dilation", "needs an odd size and pad=1: Darknet's own sizes do not fit otherwise")
    norm = section.integer("batch_normalize", 0, 0, 1) == 1
    blur = section.integer("antialiasing", 0, 0, 2)
    result = slide(section, shape, size, (1, 1) if blur else stride, 2 * padding, filters)
    block = ConvBlock(
        c,
        filters,
        size,
        stride=(1, 1) if blur else stride,
        padding=padding * dilation,
        dilation=dilation,
        groups=groups,
        norm=norm,
        activation=activation_of(section, "logistic"),
    )
    block.fixed = is_fixed(block)
    if "share_index" in section.options:
        _share(plan, section, block)
    if blur:
        _blurred(plan, section, block, result, stride)
    else:
        plan.add(block, result)


def _share(plan: Plan, section: Section, block: ConvBlock) -> None:
    """Give ``block`` the weights, batch norm and bias of an earlier section (src/convolutional_layer.c, share_layer)."""
    (source,) = plan.named(section, "share_index")
    other = plan.modules[source]
    if (
        not isinstance(other, ConvBlock)
        or other.conv.weight.shape != block.conv.weight.shape
        or (other.bn is None) != (block.bn is None)
    ):
        raise section.fault("share_index", "names no convolution with as many channels, filters and as large kernels")
    block.conv.weight, block.conv.bias, block.bn = other.conv.weight, other.conv.bias, other.bn


def _connected(plan: Plan, section: Section) -> None:
    inputs, outputs = math.prod(plan.shape(plan.index - 1)), section.integer("output", 1, 1)
    norm = section.integer("batch_normalize", 0, 0, 1) == 1
    block = parts.Connected(inputs, outputs, norm=norm, activation=activation_of(section, "logistic"))
    block.fixed = is_fixed(block)
    plan.add(block, (outputs, 1, 1))


def _shortcut(plan: Plan, section: Section) -> None:
    sources = (plan.index - 1, *plan.named(section, "from"))
    shapes = [plan.shape(source) for source in sources]
    _, h, w = shapes[0]
    if any(y % h or x % w or y // h != x // w for _, y, x in shapes):
        raise section.fault("from", f"adds maps of different sizes: {_sizes(sources, shapes)}")
    weighted = section.text("weights_type", "none").replace("per_layer", "per_feature")
    normalisation = section.text("weights_normalization", "none").replace("avg_relu", "relu")
    block = parts.Shortcut(
        tuple(shape[0] for shape in shapes),
        tuple(shape[1] // h for shape in shapes),
        activation=activation_of(section, "linear"),
        weighted=weighted,
        normalisation=normalisation,
    )
    block.fixed = is_fixed(block)
    plan.add(block, shapes[0], sources)


def _sizes(sources: Sequence[int], shapes: Sequence[Shape]) -> str:
    return ", ".join(f"section {i} has {h}x{w}" for i, (_, h, w) in zip(sources, shapes, strict=True))


def _route(plan: Plan, section: Section) -> None:
    sources, groups = plan.named(section, "layers"), section.integer("groups", 1, 1)
    shapes = [plan.shape(source) for source in sources]
    if len({shape[1:] for shape in shapes}) > 1:
        raise section.fault("layers", f"joins maps of different sizes: {_sizes(sources, shapes)}")
    if any(c % groups for c, _, _ in shapes):
        raise section.fault("groups", f"does not divide the channels of sections {sources}")
    group = section.integer("group_id", 0, 0, groups - 1)
    channels = tuple(c for c, _, _ in shapes)
    plan.add(parts.Route(channels, groups, group), (sum(channels) // groups, *shapes[0][1:]), sources)


def _maxpool(plan: Plan, section: Section) -> None:
    shape, stride = plan.shape(plan.index - 1), strides_yx(section)
    c, h, w = shape
    if section.integer("maxpool_depth", 0, 0, 1):
        channels = section.integer("out_channels", 1, 1, c)
        plan.add(parts.DepthPool(c, channels), (channels, h, w))
        return
    size = section.integer("size", section.integer("stride", 1, 1), 1)
    padding, blur = section.integer("padding", size - 1), section.integer("antialiasing", 0, 0, 2)
    step = (1, 1) if blur else stride
    pool, result = parts.Pool(size, step, padding), slide(section, shape, size, step, padding, c)
    if blur:
        _blurred(plan, section, pool, result, stride)
    else:
        plan.add(pool, result)


def _local_avgpool(plan: Plan, section: Section) -> None:
    shape, stride = plan.shape(plan.index - 1), strides_yx(section)
    size = section.integer("size", section.integer("stride", 1, 1), 1)
    padding = section.integer("padding", size - 1)
    plan.add(parts.LocalAverage(size, stride, padding), slide(section, shape, size, stride, padding, shape[0]))


def _avgpool(plan: Plan, section: Section) -> None:
    plan.add(parts.Average(), (plan.shape(plan.index - 1)[0], 1, 1))


def _upsample(plan: Plan, section: Section) -> None:
    c, h, w = plan.shape(plan.index - 1)
    stride, scale = section.integer("stride", 2, -64, 64), section.number("scale", 1.0)
    if stride < 0:
        _whole(section, h, w, -stride)
        plan.add(parts.Downsample(-stride, scale), (c, h // -stride, w // -stride))
    else:
        plan.add(parts.Upsample(max(1, stride), scale), (c, h * max(1, stride), w * max(1, stride)))


def _whole(section: Section, h: int, w: int, stride: int) -> None:
    if h % stride or w % stride:
        raise section.fault("stride", f"does not divide the map of {h}x{w}")


def _reorg(plan: Plan, section: Section) -> None:
    c, h, w = plan.shape(plan.index - 1)
    stride, flat = section.integer("stride", 1, 1), section.kind == "reorg"
    _whole(section, h, w, stride)
    if flat and c % stride**2:
        raise section.fault("stride", f"does not fit {c} channels")
    plan.add(parts.Reorg(stride, flat=flat), (c * stride**2, h // stride, w // stride))


def _product(plan: Plan, section: Section) -> None:
    """[scale_channels]: the section before has one value for each channel (or, scale_wh, each cell) of ``from``; [sam]: all."""
    before, (source, *more) = plan.index - 1, plan.named(section, "from")
    (c, h, w), (own_c, own_h, own_w) = plan.shape(source), plan.shape(before)
    wanted = (c, h, w)
    if section.kind == "scale_channels":
        wanted = (1, h, w) if section.integer("scale_wh", 0, 0, 1) else (c, 1, 1)
    if more or (own_c, own_h, own_w) != wanted:
        raise section.fault("from", f"{(c, h, w)} needs {wanted} in the section before, not {(own_c, own_h, own_w)}")
    block = parts.Product(c, activation=activation_of(section, "linear"))
    block.fixed = True
    plan.add(block, (c, h, w), (before, source))


def _dropout(plan: Plan, section: Section) -> None:
    probability = section.number("probability", 0.2)
    if not 0 <= probability < 1:
        raise section.fault("probability", "must be at least 0 and under 1")
    plan.add(nn.Dropout(probability), plan.shape(plan.index - 1))


def _batchnorm(plan: Plan, section: Section) -> None:
    shape = plan.shape(plan.index - 1)
    plan.add(nn.BatchNorm2d(shape[0], eps=parts.BN_EPSILON), shape)


def _applied(plan: Plan, section: Section) -> None:
    shape = plan.shape(plan.index - 1)
    block = parts.Applied(shape[0], activation=activation_of(section, "linear"))
    block.fixed = is_fixed(block)
    plan.add(block, shape)


def _nothing(plan: Plan, section: Section) -> None:
    plan.add(nn.Identity(), plan.shape(plan.index - 1))


def _softmax(plan: Plan, section: Section) -> None:
    section.integer("groups", 1, 1, 1)
    temperature = section.number("temperature", 1.0)
    if temperature <= 0:
        raise section.fault("temperature", "must be positive")
    shape = plan.shape(plan.index - 1)
    if shape[1:] != (1, 1):
        raise section.fault(
            "", f"over a map of {shape[1]}x{shape[2]}: a classifier has one value per class, put [avgpool] before it"
        )
    plan.add(parts.Logits(temperature), shape)


BUILDERS: dict[str, Callable[[Plan, Section], None]] = {
    "convolutional": _convolutional,
    "connected": _connected,
    "shortcut": _shortcut,
    "route": _route,
    "maxpool": _maxpool,
    "local_avgpool": _local_avgpool,
    "avgpool": _avgpool,
    "upsample": _upsample,
    "reorg": _reorg,
    "reorg3d": _reorg,
    "scale_channels": _product,
    "sam": _product,
    "dropout": _dropout,
    "batchnorm": _batchnorm,
    "activation": _applied,
    "empty": _nothing,
    "cost": _nothing,
    "softmax": _softmax,
    "yolo": add_yolo,
}
