"""From a configuration to a network: an architecture's name is looked up here."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

import yolomish.darknet.network  # not "from": that module imports this package's base
from yolomish.config import ModelConfig, check_model, load_model_config, shipped
from yolomish.errors import YolomishError, unknown_name
from yolomish.networks import resnet, scaled, tiny
from yolomish.networks.base import Network
from yolomish.networks.classifier import build_cspdarknet53
from yolomish.networks.yolov4 import build_yolov4


def _of_cfg(config: ModelConfig) -> Network:
    return yolomish.darknet.network.build_darknet(config)


MOST_PARAMETERS = 1_000_000_000  # 4 GB; the largest shipped has 127 million
ARCHITECTURES: dict[str, Callable[[ModelConfig], Network]] = {
    "yolov4": build_yolov4,
    **dict.fromkeys(tiny.MEMBERS, tiny.build_tiny),
    **dict.fromkeys(scaled.MEMBERS, scaled.build_scaled),
    "cspdarknet53": build_cspdarknet53,
    **dict.fromkeys(resnet.MEMBERS, resnet.build_resnet),
    "darknet": _of_cfg,
}


def cfg_file(name: str) -> str:
    """The Darknet cfg that a model's name or path means; empty for a YAML and for what is unknown."""
    path = str(shipped("models").get(name, name))
    return path if path.lower().endswith(".cfg") else ""


def find_model(name: str) -> ModelConfig:
    """A model by shipped name, or path to a YAML or a Darknet cfg."""
    path = cfg_file(name)
    return yolomish.darknet.network.read_cfg(path) if path else load_model_config(name)


def build_network(config: ModelConfig) -> Network:
    """A network of ``config`` with initial weights from torch's global RNG; YolomishError on a bad value.

    Activations draw nothing, so one seed draws the same kernels whatever the activation.
    """
    check_model(config)
    if config.architecture not in ARCHITECTURES:
        raise unknown_name("architecture", config.architecture, ARCHITECTURES)
    if torch.empty(0).device.type != "meta":
        _refuse_huge(config)
    network = ARCHITECTURES[config.architecture](config)
    if config.swap:
        from yolomish.networks.scope import swap  # late: it traces networks, and most have nothing to swap

        swap(network, config.swap)
    network.input.check_size(config.image_size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = config.bn_momentum
    return network


def _refuse_huge(config: ModelConfig) -> None:
    """YolomishError where a network has more than ``MOST_PARAMETERS``: counted before there is memory for any."""
    count = _parameters(config)
    if count > MOST_PARAMETERS:
        raise YolomishError(
            f"{config.name} with width {config.width:g}, depth {config.depth:g} and {config.num_classes} classes has "
            f"{count / 1e6:,.0f} million parameters, over the {MOST_PARAMETERS / 1e6:,.0f} million that are built"
        )


@lru_cache(maxsize=32)
def _parameters(config: ModelConfig) -> int:
    return sum(parameter.numel() for parameter in outline(config).parameters())


def outline(config: ModelConfig) -> Network:
    """The network of ``config`` on the meta device: its specifications and shapes, without values or memory."""
    with torch.device("meta"):
        return build_network(config).eval()
