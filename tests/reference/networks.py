"""Small random networks that behave like trained ones."""

from __future__ import annotations

import re

import torch
from conftest import randomise

from yolomish.config import ModelConfig
from yolomish.networks import Network, build_network


def calibrated(activation: str = "mish", seed: int = 0) -> Network:
    """A small random network whose batch norms hold its own statistics, so that its maps neither vanish nor explode."""
    torch.manual_seed(seed)
    model = build_network(ModelConfig(num_classes=3, width=0.25, depth=0.1, image_size=128, activation=activation))
    randomise(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.9
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 64, 64))
        for head in model.head_layers:
            head.out.weight *= 3
            head.out.bias.view(3, -1)[:, 4] = -2
    return model.eval()


def narrower(cfg: str, by: int) -> str:
    """A cfg whose convolutions have a fraction of their filters and groups, those before [yolo] apart."""

    def divided(number: re.Match[str]) -> str:
        name, value = number.groups()
        return f"{name}={int(value) // by if int(value) >= by else int(value)}"

    sections = re.split(r"(?m)^(?=\[)", cfg)
    return "".join(
        re.sub(r"(?m)^(filters|groups) *= *(\d+)", divided, section)
        if re.search(r"(?m)^batch_normalize *= *1", section)
        else section
        for section in sections
    )
