"""A network as a Darknet ``.cfg``: one made of a cfg writes its own sections, another's follow from its graph and file order."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn import functional as F

from yolomish.activations import darknet_activations, find_activation
from yolomish.darknet.cfg import NMS_KINDS, Option, Section, cfg_text
from yolomish.darknet.network import DarknetNetwork, letterboxed
from yolomish.darknet.order import file_order
from yolomish.errors import YolomishError
from yolomish.files import write_text
from yolomish.networks import Network
from yolomish.nn.blocks import Activated, ConvBlock
from yolomish.nn.sections import Average, Logits, Pool, Route, Shortcut
from yolomish.types import FLT_MAX, HeadSpec, SizeHW

# cfg/yolov4.cfg's training settings, for a network that was not made of a cfg
TRAINING = (
    "batch=64 subdivisions=8 momentum=0.949 decay=0.0005 angle=0 saturation=1.5 exposure=1.5 hue=.1 learning_rate=0.0013 "
    "burn_in=1000 max_batches=500500 policy=steps steps=400000,450000 scales=.1,.1 mosaic=1"
)
# cfg/csdarknet53-omega.cfg's, for a classifier
CLASSIFIER_TRAINING = (
    "batch=128 subdivisions=4 label_smooth_eps=0.1 min_crop=128 max_crop=448 mosaic=1 cutmix=1 burn_in=1000 learning_rate=0.1 "
    "policy=poly power=4 max_batches=1200000 momentum=0.9 decay=0.0005 angle=7 hue=.1 saturation=.75 exposure=.75 aspect=.75"
)
OPENCV_READS = ("linear", "leaky", "relu", "mish", "swish", "logistic", "tanh")  # 4.14, dnn/src/darknet/darknet_io.cpp
LEAVES = (ConvBlock, nn.Conv2d, Route, Pool, Shortcut, Average, Logits)
DERIVED = (F.interpolate, F.max_pool2d)  # of one map and without weights: their sections follow that map's


def _section(kind: str, **values: object) -> Section:
    options = {key.rstrip("_"): Option(value=str(value), line=0) for key, value in values.items()}
    return Section(kind=kind, where="", line=0, options=options)


def _darknet_name(activation: str) -> str:
    name = find_activation(activation).darknet
    if not name:
        known = ", ".join(sorted(record.name for record in darknet_activations().values()))
        raise YolomishError(f"Darknet has no activation {activation!r}; it has {known}")
    return name


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES)


class _Writer:
    """Sections in order, and where each value of the graph stands: numbers count from 0 after [net], as routes do."""

    def __init__(self, network: Network, name_of: Callable[[str], str]) -> None:
        self.network, self.name_of = network, name_of
        self.sections: list[Section] = []
        self.places: dict[fx.Node, int] = {}

    def add(self, section: Section) -> int:
        self.sections.append(section)
        return len(self.sections) - 1

    def after(self, *values: fx.Node) -> list[int]:
        """The places of values, of which the last section is one: a [route] leads back where none is."""
        places = [self.write(value) for value in values]
        if self.sections and len(self.sections) - 1 not in places and -1 not in places:
            places[0] = self.add(_section("route", layers=places[0]))
        return places

    def write(self, node: fx.Node) -> int:
        """The place of a value, written with all it is made of where it does not stand yet."""
        if node not in self.places:
            self.places[node] = -1 if node.op == "placeholder" else self._write(node)
            for user in node.users if node.op == "call_module" else ():
                if user.target in DERIVED:
                    self.write(user)
        return self.places[node]

    def _write(self, node: fx.Node) -> int:
        arguments: Any = node.args
        if node.op == "call_module":
            module = self.network.get_submodule(str(node.target))
            if isinstance(module, Route):
                layers = ",".join(str(self.write(value)) for value in arguments)
                return self.add(_section("route", layers=layers, groups=module.groups, group_id=module.group))
            if isinstance(module, Shortcut):
                return self.sum(arguments, self.name_of(module.activation_name))
            self.after(arguments[0])
            if isinstance(module, Average | Logits):
                return self.add(_section("avgpool") if isinstance(module, Average) else _section("softmax", groups=1))
            if isinstance(module, Pool):
                padding = module.before + module.after
                return self.add(_section("maxpool", size=module.size, stride=module.stride[0], padding=padding))
            return self.convolution(module)
        if node.target is torch.cat:
            return self.add(_section("route", layers=",".join(str(self.write(value)) for value in arguments[0])))
        if node.target in (torch.add, operator.add):
            return self.sum(arguments, "linear")
        self.after(arguments[0])
        if node.target is F.interpolate:
            return self.add(_section("upsample", stride=int(cast(float, node.kwargs["scale_factor"]))))
        if node.target is F.max_pool2d:
            return self.add(_section("maxpool", stride=1, size=arguments[1]))
        raise NotImplementedError(f"{node.op} {node.target} has no section here")

    def sum(self, arguments: Any, activation: str) -> int:
        places = self.after(*arguments[:2])
        here = len(self.sections)
        other = next(place for place in places if place != here - 1)
        return self.add(_section("shortcut", from_=other - here, activation=activation))

    def convolution(self, module: nn.Module) -> int:
        block = module if isinstance(module, ConvBlock) else None
        conv: Any = module if block is None else block.conv
        activation = "linear" if block is None else self.name_of(block.activation_name)
        norm = {} if block is None or block.bn is None else {"batch_normalize": 1}
        shape = {"filters": conv.out_channels, "size": conv.kernel_size[0], "stride": conv.stride[0], "pad": 1}
        groups = {"groups": conv.groups} if conv.groups > 1 else {}
        return self.add(_section("convolutional", **norm, **shape, **groups, activation=activation))


def sections_of(network: Network) -> tuple[Section, ...]:
    """The sections of any network, [net] first; YolomishError where Darknet lacks one of its activations."""
    if isinstance(network, DarknetNetwork):
        sections = list(network.sections)
        for name, block in network.slots().items():
            index = int(name.split(".")[1]) + 1
            sections[index] = sections[index].changed(activation=_darknet_name(block.activation_name))
        return tuple(sections)
    return _traced(network, _darknet_name)


def section_numbers(network: Network) -> dict[str, int]:
    """The number of each block's section by the block's name, counted from 0 after [net] as routes do."""
    if isinstance(network, DarknetNetwork):
        names = (*network.slots(), *(stored.name.removesuffix(".conv") for stored in file_order(network)))
        return {name: int(name.split(".")[1]) for name in names}
    _, *sections = _traced(network, str)
    places = [i for i, section in enumerate(sections) if section.kind == "convolutional"]
    return dict(zip((stored.name.removesuffix(".conv") for stored in file_order(network)), places, strict=True))


def _traced(network: Network, name_of: Callable[[str], str]) -> tuple[Section, ...]:
    """The sections of a network that was not made of a cfg, activations called by ``name_of``."""
    graph = _Tracer().trace(network)
    nodes = {str(node.target): node for node in graph.nodes if node.op == "call_module"}
    results: list[fx.Node] = list(next(node for node in graph.nodes if node.op == "output").args[0])
    writer = _Writer(network, name_of)
    for stored in file_order(network):
        node = nodes[stored.name.removesuffix(".conv") if stored.name not in nodes else stored.name]
        writer.write(node)
        if network.heads and node in results:
            index = results.index(node)
            head = network.heads[index]
            if head.box_form == "squared":  # Darknet lets the convolution apply the logistic function to all channels
                writer.sections[-1] = writer.sections[-1].changed(activation="logistic")
            writer.add(_yolo(head, last=index == len(results) - 1))
    for node in results:  # a classifier's, behind its last convolution
        writer.write(node)
    training = TRAINING if network.heads else CLASSIFIER_TRAINING
    net = _section("net", **dict(pair.split("=", 1) for pair in training.split()), channels=network.input.channels)
    return net, *writer.sections


def _yolo(head: HeadSpec, *, last: bool) -> Section:
    """A head with cfg/yolov4.cfg's training settings; ``random`` stands in the last alone, where Darknet reads it."""
    return _section(
        "yolo",
        mask=",".join(map(str, head.mask)),
        anchors=", ".join(f"{w:g},{h:g}" for w, h in head.all_anchors),
        classes=head.num_classes,
        num=len(head.all_anchors),
        scale_x_y=f"{head.scale_xy:g}",
        **({"new_coords": 1} if head.box_form == "squared" else {}),
        jitter=".3",
        ignore_thresh=f"{head.loss.ignore_iou:g}".removeprefix("0"),
        truth_thresh=1,
        **({"random": 1} if last else {}),
        iou_thresh=f"{head.loss.shape_iou:g}",
        cls_normalizer="1.0" if head.loss.classes == 1 else f"{head.loss.classes:g}",
        iou_normalizer=f"{head.loss.box:g}",
        **({"obj_normalizer": f"{head.loss.objectness:g}"} if head.loss.objectness != 1 else {}),
        **({"objectness_smooth": 1} if head.loss.objectness_smooth else {}),
        iou_loss="ciou",
        nms_kind=next(name for name, kind in NMS_KINDS.items() if kind == head.nms),
        beta_nms=f"{head.beta_nms:g}",
        **({"max_delta": f"{head.loss.max_delta:g}"} if head.loss.max_delta < FLT_MAX else {}),
    )


def network_cfg(network: Network, size_hw: SizeHW | None = None) -> str:
    """The cfg of a network at a size in px (None: its own); YolomishError where Darknet has no such input or activation."""
    if network.input.mean or network.input.std:
        raise YolomishError(f"{network.name} takes images less a mean and over a deviation, Darknet's are in 0..1: it has no cfg")
    net, *rest = sections_of(network)
    height, width = size_hw or network.input.size_hw
    return cfg_text([letterboxed(net.changed(width=width, height=height), network.input.resize), *rest])


def opencv_lacks(network: Network) -> str:
    """Why OpenCV cannot read a network's cfg though Darknet can: the activations that it lacks; empty where it can."""
    used = {_darknet_name(module.activation_name) for module in network.modules() if isinstance(module, Activated)}
    lacking = sorted(used - set(OPENCV_READS))
    return f"the files are for Darknet alone: OpenCV has no activation {', '.join(lacking)}" if lacking else ""


def write_cfg(path: str | Path, network: Network, size_hw: SizeHW | None = None) -> None:
    """Write ``network_cfg`` to ``path``, whole or not at all."""
    write_text(path, network_cfg(network, size_hw))
