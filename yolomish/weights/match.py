"""Which of another network's weights fit a network: by name, as its backbone, or by their order in Darknet's files."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolomish.config import ModelConfig
from yolomish.darknet.order import file_order
from yolomish.networks import Network
from yolomish.networks.registry import outline
from yolomish.networks.resnet import of_torchvision

WRAPPERS = ("state_dict", "model")  # keys under which programs keep a state dict


def resnet_state(path: str | Path) -> dict[str, Tensor]:
    """The weights of a ResNet that torchvision or timm wrote, by our names; empty where ``path`` holds no such state dict."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, OSError):
        return {}
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or "layer1.0.conv1.weight" not in content:
        return {}
    return of_torchvision({name: value for name, value in content.items() if isinstance(value, Tensor)})


def fitting(network: Network, source: Mapping[str, Tensor], theirs: ModelConfig | None = None) -> dict[str, Tensor]:
    """What of ``source`` goes into ``network``, by its names and of its shapes: the most of three ways.

    By equal names; as the backbone of a detector (a classifier's stem and stages); or, where the ``source`` is known to be of
    ``theirs``, section by section in the order of Darknet's files, as far as they are alike.
    """
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    ways = [source, {f"backbone.{name}": value for name, value in source.items()}]
    if theirs is not None:
        ways.append(_by_order(network, source, theirs))
    found = [{k: v for k, v in way.items() if k in own and own[k].shape == v.shape} for way in ways]
    return max(found, key=len)


def _by_order(network: Network, source: Mapping[str, Tensor], theirs: ModelConfig) -> dict[str, Tensor]:
    other = outline(theirs)
    names, other_names = ({id(tensor): name for name, tensor in n.state_dict(keep_vars=True).items()} for n in (network, other))
    found: dict[str, Tensor] = {}
    for ours, its in zip(file_order(network), file_order(other), strict=False):
        if [t.shape for t in ours.tensors()] != [t.shape for t in its.tensors()]:
            break
        for tensor, its_tensor in zip(ours.tensors(), its.tensors(), strict=True):
            if (name := other_names[id(its_tensor)]) in source:
                found[names[id(tensor)]] = source[name]
    return found
