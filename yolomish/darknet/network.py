"""Any cfg as a network: one module per section, wired as Darknet wires them (src/parser.c parse_network_cfg_custom)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from yolomish.config import ModelConfig, check_model
from yolomish.darknet.cfg import Section, cfg_text, load_cfg, parse_cfg
from yolomish.darknet.heads import head_spec
from yolomish.darknet.layers import BUILDERS
from yolomish.darknet.parts import find_parts
from yolomish.darknet.plan import Plan, Shape, strides_yx
from yolomish.errors import YolomishError
from yolomish.networks.base import Network
from yolomish.networks.heads import scales_per_head
from yolomish.nn.blocks import set_activation
from yolomish.types import LETTERBOX_GREY, InputSpec, ResizeMode

MOST_PARAMETERS = 2_000_000_000  # 8 GB; the largest of Darknet's own has 276 million
STRIDED = ("net", "convolutional", "maxpool", "local_avgpool", "reorg", "reorg3d")
AFTER_CLASSES = ("avgpool", "dropout", "batchnorm", "activation", "empty", "softmax", "cost")


class DarknetNetwork(Network):
    """The network of a cfg's sections: ``layers.N`` is the N-th after [net]. Images (B, C, H, W) -> a raw map per [yolo].

    A classifier has no heads and returns its logits, a tuple of one (B, K). Heads stand in the file's order. Raw maps are
    always logits: where Darknet's new_coords has the last convolution apply the logistic function, the decoding does.
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
        plan = Plan(sections=self.sections, image=image)
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
            head_spec(layers[i], _stride(layers[i], image, plan.shapes[i])) for i in self.results if layers[i].kind == "yolo"
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
        self.parts = find_parts(layers, plan)
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
        y, x = (math.prod(side) for side in zip(*(strides_yx(s) for s in sections if s.kind in STRIDED), strict=True))
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
