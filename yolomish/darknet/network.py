"""Any cfg as a network: one module per section, wired as Darknet wires them (src/parser.c parse_network_cfg_custom)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from yolomish.activations import darknet_activations
from yolomish.config import ModelConfig, check_model
from yolomish.darknet.cfg import NMS_KINDS, Section, cfg_text, load_cfg, parse_cfg
from yolomish.errors import YolomishError, unknown_name
from yolomish.networks.base import Network
from yolomish.networks.heads import scales_per_head
from yolomish.nn import sections as parts
from yolomish.nn.blocks import Activated, ConvBlock, head_convolution, set_activation
from yolomish.types import FLT_MAX, LETTERBOX_GREY, HeadSpec, InputSpec, IouKind, LossConstants, ResizeMode

MOST_PARAMETERS = 2_000_000_000  # 8 GB; the largest of Darknet's own has 276 million
STRUCTURAL = ("linear", "sigmoid")  # a bottleneck, a gate: they stay what they are when activations are swapped
STRIDED = ("net", "convolutional", "maxpool", "local_avgpool", "reorg", "reorg3d")
AFTER_CLASSES = ("avgpool", "dropout", "batchnorm", "activation", "empty", "softmax", "cost")
Shape = tuple[int, int, int]


@dataclass
class _Plan:
    """What has been built so far: modules with the shapes (C, H, W) and the sources of their results; -1 is the image."""

    sections: tuple[Section, ...]
    image: Shape
    modules: list[nn.Module] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def index(self) -> int:
        return len(self.modules)

    def shape(self, source: int) -> Shape:
        return self.image if source < 0 else self.shapes[source]

    def named(self, section: Section, key: str) -> tuple[int, ...]:
        """The sections that an option names, counted from 0 after [net]; negative ones from here back."""
        found = []
        for number in section.integers(key):
            source = self.index + number if number < 0 else number
            if not 0 <= source < self.index:
                raise section.fault(
                    key, f"names section {source}: this is section {self.index}, name one from 0 to {self.index - 1}"
                )
            found.append(source)
        return tuple(found)

    def add(self, module: nn.Module, shape: Shape, sources: tuple[int, ...] | None = None) -> None:
        self.modules.append(module)
        self.shapes.append(shape)
        self.sources.append((self.index - 2,) if sources is None else sources)


def _activation(section: Section, default: str) -> str:
    """Our name of a section's activation."""
    name, known = section.text("activation", default), darknet_activations()
    if name not in known:
        raise section.fault("activation", f"is not understood: {unknown_name('activation', name, known)}")
    return known[name].name


def _fixed(block: nn.Module) -> bool:
    return isinstance(block, Activated) and block.activation_name in STRUCTURAL


def _strides(section: Section) -> tuple[int, int]:
    """(y, x)."""
    stride = section.integer("stride", 1, 1)
    return section.integer("stride_y", stride, 1), section.integer("stride_x", stride, 1)


def _slide(section: Section, shape: Shape, size: int, stride: tuple[int, int], padding: int, channels: int) -> Shape:
    """The shape after a window of ``size`` px with ``padding`` px on both sides together."""
    _, h, w = shape
    if min(h, w) + padding < size:
        raise section.fault("size", f"is larger than the map of {h}x{w} with its padding")
    return channels, (h + padding - size) // stride[0] + 1, (w + padding - size) // stride[1] + 1


def _blurred(plan: _Plan, section: Section, module: nn.Module, shape: Shape, stride: tuple[int, int]) -> None:
    """Add a section of stride 1 with the blur that ``antialiasing`` puts in its stride's place."""
    size = 2 if section.integer("antialiasing", 0) == 2 else 3
    c = shape[0]
    block = nn.Sequential(module, parts.Blur(c, size, stride))
    plan.add(block, _slide(section, shape, size, stride, 2 if size == 3 else 0, c))


def _convolutional(plan: _Plan, section: Section) -> None:
    shape = plan.shape(plan.index - 1)
    c, filters, size = shape[0], section.integer("filters", 1, 1), section.integer("size", 1, 1)
    groups, stride = section.integer("groups", 1, 1), _strides(section)
    dilation = 1 if size == 1 else section.integer("dilation", 1, 1)
    padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    if c % groups or filters % groups:
        raise section.fault("groups", f"does not divide the input's {c} channels and {filters} filters")
    if dilation > 1 and (size % 2 == 0 or padding != size // 2):
        raise section.fault("dilation", "needs an odd size and pad=1: Darknet's own sizes do not fit otherwise")
    norm = section.integer("batch_normalize", 0, 0, 1) == 1
    blur = section.integer("antialiasing", 0, 0, 2)
    result = _slide(section, shape, size, (1, 1) if blur else stride, 2 * padding, filters)
    block = ConvBlock(
        c,
        filters,
        size,
        stride=(1, 1) if blur else stride,
        padding=padding * dilation,
        dilation=dilation,
        groups=groups,
        norm=norm,
        activation=_activation(section, "logistic"),
    )
    block.fixed = _fixed(block)
    if "share_index" in section.options:
        _share(plan, section, block)
    if blur:
        _blurred(plan, section, block, result, stride)
    else:
        plan.add(block, result)


def _share(plan: _Plan, section: Section, block: ConvBlock) -> None:
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


def _connected(plan: _Plan, section: Section) -> None:
    inputs, outputs = math.prod(plan.shape(plan.index - 1)), section.integer("output", 1, 1)
    norm = section.integer("batch_normalize", 0, 0, 1) == 1
    block = parts.Connected(inputs, outputs, norm=norm, activation=_activation(section, "logistic"))
    block.fixed = _fixed(block)
    plan.add(block, (outputs, 1, 1))


def _shortcut(plan: _Plan, section: Section) -> None:
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
        activation=_activation(section, "linear"),
        weighted=weighted,
        normalisation=normalisation,
    )
    block.fixed = _fixed(block)
    plan.add(block, shapes[0], sources)


def _sizes(sources: Sequence[int], shapes: Sequence[Shape]) -> str:
    return ", ".join(f"section {i} has {h}x{w}" for i, (_, h, w) in zip(sources, shapes, strict=True))


def _route(plan: _Plan, section: Section) -> None:
    sources, groups = plan.named(section, "layers"), section.integer("groups", 1, 1)
    shapes = [plan.shape(source) for source in sources]
    if len({shape[1:] for shape in shapes}) > 1:
        raise section.fault("layers", f"joins maps of different sizes: {_sizes(sources, shapes)}")
    if any(c % groups for c, _, _ in shapes):
        raise section.fault("groups", f"does not divide the channels of sections {sources}")
    group = section.integer("group_id", 0, 0, groups - 1)
    channels = tuple(c for c, _, _ in shapes)
    plan.add(parts.Route(channels, groups, group), (sum(channels) // groups, *shapes[0][1:]), sources)


def _maxpool(plan: _Plan, section: Section) -> None:
    shape, stride = plan.shape(plan.index - 1), _strides(section)
    c, h, w = shape
    if section.integer("maxpool_depth", 0, 0, 1):
        channels = section.integer("out_channels", 1, 1, c)
        plan.add(parts.DepthPool(c, channels), (channels, h, w))
        return
    size = section.integer("size", section.integer("stride", 1, 1), 1)
    padding, blur = section.integer("padding", size - 1), section.integer("antialiasing", 0, 0, 2)
    step = (1, 1) if blur else stride
    pool, result = parts.Pool(size, step, padding), _slide(section, shape, size, step, padding, c)
    if blur:
        _blurred(plan, section, pool, result, stride)
    else:
        plan.add(pool, result)


def _local_avgpool(plan: _Plan, section: Section) -> None:
    shape, stride = plan.shape(plan.index - 1), _strides(section)
    size = section.integer("size", section.integer("stride", 1, 1), 1)
    padding = section.integer("padding", size - 1)
    plan.add(parts.LocalAverage(size, stride, padding), _slide(section, shape, size, stride, padding, shape[0]))


def _avgpool(plan: _Plan, section: Section) -> None:
    plan.add(parts.Average(), (plan.shape(plan.index - 1)[0], 1, 1))


def _upsample(plan: _Plan, section: Section) -> None:
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


def _reorg(plan: _Plan, section: Section) -> None:
    c, h, w = plan.shape(plan.index - 1)
    stride, flat = section.integer("stride", 1, 1), section.kind == "reorg"
    _whole(section, h, w, stride)
    if flat and c % stride**2:
        raise section.fault("stride", f"does not fit {c} channels")
    plan.add(parts.Reorg(stride, flat=flat), (c * stride**2, h // stride, w // stride))


def _product(plan: _Plan, section: Section) -> None:
    """[scale_channels]: the section before has one value for each channel (or, scale_wh, each cell) of ``from``; [sam]: all."""
    before, (source, *more) = plan.index - 1, plan.named(section, "from")
    (c, h, w), (own_c, own_h, own_w) = plan.shape(source), plan.shape(before)
    wanted = (c, h, w)
    if section.kind == "scale_channels":
        wanted = (1, h, w) if section.integer("scale_wh", 0, 0, 1) else (c, 1, 1)
    if more or (own_c, own_h, own_w) != wanted:
        raise section.fault("from", f"{(c, h, w)} needs {wanted} in the section before, not {(own_c, own_h, own_w)}")
    block = parts.Product(activation=_activation(section, "linear"))
    block.fixed = True
    plan.add(block, (c, h, w), (before, source))


def _dropout(plan: _Plan, section: Section) -> None:
    probability = section.number("probability", 0.2)
    if not 0 <= probability < 1:
        raise section.fault("probability", "must be at least 0 and under 1")
    plan.add(nn.Dropout(probability), plan.shape(plan.index - 1))


def _batchnorm(plan: _Plan, section: Section) -> None:
    shape = plan.shape(plan.index - 1)
    plan.add(nn.BatchNorm2d(shape[0], eps=parts.BN_EPSILON), shape)


def _applied(plan: _Plan, section: Section) -> None:
    block = parts.Applied(activation=_activation(section, "linear"))
    block.fixed = _fixed(block)
    plan.add(block, plan.shape(plan.index - 1))


def _nothing(plan: _Plan, section: Section) -> None:
    plan.add(nn.Identity(), plan.shape(plan.index - 1))


def _softmax(plan: _Plan, section: Section) -> None:
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


def _yolo(plan: _Plan, section: Section) -> None:
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
    if _activation(before, "logistic") != ("sigmoid" if squared else "linear"):
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


BUILDERS: dict[str, Callable[[_Plan, Section], None]] = {
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
    "yolo": _yolo,
}


def _head(section: Section, stride: int) -> HeadSpec:
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


class DarknetNetwork(Network):
    """The network of a cfg's sections: ``layers.N`` is the N-th after [net]. Images (B, C, H, W) -> a raw map per [yolo].

    A classifier has no heads and returns its logits (B, K). Heads stand in the file's order. Raw maps are always logits:
    where Darknet's new_coords has the last convolution apply the logistic function, the decoding does.
    """

    def __init__(self, sections: Sequence[Section], config: ModelConfig) -> None:
        super().__init__()
        self.sections, self.config = tuple(sections), config
        net, layers = self.sections[0], self.sections[1:]
        if not layers:
            raise net.fault("", "stands alone: there is no network")
        kinds = {s.kind for s in layers}
        if not kinds & {"yolo", "softmax"}:
            last = layers[-1]
            raise last.fault(
                "", "is the last section and there is no [yolo] or [softmax]: nothing would be detected or classified"
            )
        image = _image(self.sections)
        plan = _Plan(sections=self.sections, image=image)
        for section in layers:
            BUILDERS[section.kind](plan, section)
        self.layers = nn.ModuleList(plan.modules)
        self.sources = tuple(plan.sources)
        results = [i for i, s in enumerate(layers) if s.kind == "yolo"] or [
            max(i for i, s in enumerate(layers) if s.kind == "softmax")
        ]
        self.results = tuple(results)
        for index, sources in enumerate(self.sources):
            for source in set(sources) & set(self.results):
                if layers[index].kind != "cost":
                    raise layers[index].fault(
                        "", f"takes what [{layers[source].kind}] of line {layers[source].line} finds: route around it"
                    )
        self.spent = _spent(self.sources, self.results)
        self.heads = tuple(
            _head(layers[i], _stride(layers[i], image, plan.shapes[i])) for i in self.results if layers[i].kind == "yolo"
        )
        self.num_classes = self.heads[0].num_classes if self.heads else plan.shapes[self.results[0]][0]
        for i, head in zip(self.results, self.heads, strict=False):
            if head.num_classes != self.num_classes:
                raise layers[i].fault("classes", f"differs from the first [yolo], which has {self.num_classes}")
            if head.box_form != self.heads[0].box_form:
                raise layers[i].fault("", "has another new_coords than the first [yolo]: all heads need one form of boxes")
        strides = [image[2] // w for _, h, w in plan.shapes if min(h, w) > 1 and image[2] % w == 0]
        letterbox = net.integer("letter_box", 0, 0, 1) == 1
        self.input = InputSpec(
            size_hw=config.image_size,
            stride=max(strides, default=1) if self.heads else 1,
            channels=image[0],
            resize="letterbox" if letterbox else "stretch",
            pad_value=LETTERBOX_GREY,
        )
        self.parts = _parts(layers, plan)
        _swap(self, config)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        kept = {-1: images}
        for index, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            kept[index] = layer(*(kept[source] for source in sources))
            for source in self.spent[index]:
                del kept[source]
        return tuple(kept[index] for index in self.results)


def _image(sections: Sequence[Section]) -> Shape:
    """The image with which sizes are followed: the cfg's own, or with heads one that every stride divides."""
    net = sections[0]
    size = net.integer("height", 0, 1), net.integer("width", 0, 1)
    if any(section.kind == "yolo" for section in sections):
        y, x = (math.prod(side) for side in zip(*(_strides(s) for s in sections if s.kind in STRIDED), strict=True))
        size = (64 * math.lcm(y, x),) * 2
    return net.integer("channels", 3, 1, 64), *size


def _stride(section: Section, image: Shape, shape: Shape) -> int:
    """Pixels per cell of a head."""
    (_, height, width), (_, h, w) = image, shape
    if width % w or height % h or width // w != height // h:
        raise section.fault("", f"has a map of {h}x{w} cells for {height}x{width} px, no whole stride: convolutions need pad=1")
    return width // w


def _spent(sources: Sequence[tuple[int, ...]], results: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For each section the results that nobody needs after it."""
    last = {source: index for index, used in enumerate(sources) for source in used}
    last |= {index: index for index in range(len(sources)) if index not in last}  # results that nobody takes
    return tuple(
        tuple(source for source, index in last.items() if index == i and source not in results) for i in range(len(sources))
    )


def _parts(layers: Sequence[Section], plan: _Plan) -> dict[str, tuple[str, ...]]:
    """Which sections are backbone, neck and head; everything as ``all`` where that cannot be known, see ``backbone_end``."""
    weighted = [i for i, s in enumerate(layers) if s.kind in ("convolutional", "connected")]
    head: set[int] = set()
    end = None
    if any(s.kind == "yolo" for s in layers):
        end = backbone_end(layers, plan.sources, [shape[1] for shape in plan.shapes])
        users = [source for sources in plan.sources for source in sources]
        for i in (i for i, s in enumerate(layers) if s.kind == "yolo"):
            head |= {i, i - 1}
            if i > 1 and layers[i - 2].kind == "convolutional" and users.count(i - 2) == 1 and plan.sources[i - 1] == (i - 2,):
                head.add(i - 2)
    elif len(weighted) > 1:
        end, head = weighted[-1] - 1, set(range(weighted[-1], len(layers)))
    if end is None:
        return {"all": ("layers",)}
    names = {
        "backbone": range(end + 1),
        "neck": [i for i in range(end + 1, len(layers)) if i not in head],
        "head": sorted(head),
    }
    return {part: tuple(f"layers.{i}" for i in indices) for part, indices in names.items() if indices}


def backbone_end(layers: Sequence[Section], sources: Sequence[tuple[int, ...]], heights: Sequence[int]) -> int | None:
    """The last section of a detector's backbone, None where the sections do not tell.

    Residual and cross-stage stages end in a merge. The backbone ends with the last one before the first pyramid pooling,
    upsampling or head (where that merge is a concatenation or a scaling, with the convolution behind it), provided that its map
    is the smallest and that later sections take no other map of that size from before. So yolov4 ends with section 104, as
    csdarknet53's own file does, and yolov3 with 74. Plain chains such as yolov3-tiny have no merge.
    """
    first = next(
        i
        for i, s in enumerate(layers)
        if s.kind in ("yolo", "upsample") or (s.kind == "maxpool" and s.integer("size", 1) > 2 and _strides(s) == (1, 1))
    )
    for merge in range(first - 1, -1, -1):
        if len(sources[merge]) < 2:
            continue
        end = merge
        if layers[merge].kind != "shortcut":
            end = next((i for i in range(merge + 1, first) if layers[i].kind == "convolutional"), merge)
        later = {source for used in sources[end + 1 :] for source in used if 0 <= source < end}
        if heights[end] == min(h for h in heights[: end + 1] if h > 1) and all(heights[i] > heights[end] for i in later):
            return end
    return None


def _swap(network: DarknetNetwork, config: ModelConfig) -> None:
    """Put the configuration's activations in place of the cfg's where it names any."""
    if config.activation != config.neck_activation:
        network.part("backbone")  # whose end must be known to treat them apart
    backbone = set(network.slots("backbone")) if "backbone" in network.parts else set()
    for name, block in network.slots().items():
        wanted = config.activation if name in backbone else config.neck_activation
        if wanted:
            set_activation(block, wanted)


def adapted(sections: Sequence[Section], config: ModelConfig) -> tuple[Section, ...]:
    """Sections with the configuration's size, resize, classes, anchors and box forms, in [yolo] and the convolutions before.

    Anchors stay as they are where the configuration has none; a classifier's last weights take the number of classes.
    """
    height, width = config.image_size
    found = [letterboxed(sections[0].changed(width=width, height=height), config.resize), *sections[1:]]
    yolos = [i for i, s in enumerate(found) if s.kind == "yolo"]
    scales = scales_per_head(config, len(yolos))
    if yolos and len(scales) != len(yolos):
        raise YolomishError(f"{config.name} has {len(yolos)} heads: scale_xy needs as many numbers or one, not {len(scales)}")
    for i, scale in zip(yolos, scales, strict=False):
        mask, squared = found[i].integers("mask"), config.box_form == "squared"
        found[i] = found[i].changed(classes=config.num_classes, scale_x_y=f"{scale:g}", new_coords=int(squared))
        if config.anchors:
            if max(mask) >= len(config.anchors):
                raise YolomishError(f"{config.name} uses anchors up to number {max(mask)}: {len(config.anchors)} are too few")
            found[i] = found[i].changed(anchors=", ".join(f"{w:g},{h:g}" for w, h in config.anchors), num=len(config.anchors))
        if found[i - 1].kind == "convolutional":
            outputs, activation = len(mask) * (5 + config.num_classes), "logistic" if squared else "linear"
            found[i - 1] = found[i - 1].changed(filters=outputs, activation=activation)
    if not yolos:
        last = next((i for i in range(len(found) - 1, 0, -1) if found[i].kind not in AFTER_CLASSES), 0)
        key = {"convolutional": "filters", "connected": "output"}.get(found[last].kind)
        if key:
            found[last] = found[last].changed(**{key: config.num_classes})
    return tuple(found)


def letterboxed(net: Section, resize: ResizeMode) -> Section:
    """[net] that asks for a letterbox or not, as it is where it says so already."""
    letterbox = int(resize == "letterbox")
    return net if net.integer("letter_box", 0, 0, 1) == letterbox else net.changed(letter_box=letterbox)


def config_of(sections: Sequence[Section], name: str) -> ModelConfig:
    """The configuration of a network of these sections as they are; YolomishError with file and line where there is none.

    Activations are empty: as in the cfg. ``anchors`` are empty where the heads' lists differ: each head's own.
    """
    net = sections[0]
    size = net.integer("height", 0, 1), net.integer("width", 0, 1)
    config = ModelConfig(
        name=name,
        architecture="darknet",
        cfg=cfg_text(sections),
        activation="",
        neck_activation="",
        image_size=size,
        anchors=(),
        scale_xy=(),
    )
    with torch.device("meta"):
        network = DarknetNetwork(sections, config)
    count = sum(p.numel() for p in network.parameters())
    if count > MOST_PARAMETERS:
        raise YolomishError(
            f"{net.where} makes a network of {count / 1e9:.1f} billion parameters: correct its filters= and classes="
        )
    lists = {head.all_anchors for head in network.heads}
    return replace(
        config,
        num_classes=network.num_classes,
        resize=network.input.resize,
        anchors=lists.pop() if len(lists) == 1 else (),
        scale_xy=tuple(head.scale_xy for head in network.heads),
        box_form=network.heads[0].box_form if network.heads else "exp",
    )


def read_cfg(path: str | Path) -> ModelConfig:
    """The ModelConfig of a cfg, whose text it holds; YolomishError with file and line where it cannot be built."""
    config = config_of(load_cfg(path).sections, Path(path).stem)
    check_model(config)
    return config


def build_darknet(config: ModelConfig) -> DarknetNetwork:
    """The network of ``config.cfg`` with the configuration's classes, anchors and activations and initial weights."""
    if config.width != 1 or config.depth != 1:
        raise YolomishError(f"{config.name} is made of a cfg, which has its own channels: leave out width and depth")
    sections = parse_cfg(config.cfg, f"{config.name}.cfg").sections
    network = DarknetNetwork(adapted(sections, config), config)
    if network.num_classes != config.num_classes:
        raise YolomishError(
            f"{config.name} has {network.num_classes} classes by its sections, which cannot become {config.num_classes}"
        )
    return network
