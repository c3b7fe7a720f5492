"""SGD with decay on convolution kernels alone, Darknet's quartic burn-in before a cosine, and averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from yolomish.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """Heavy-ball SGD in two groups: kernels (4 dimensions) decay; batch norm, biases and activations' own do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim == 4], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim != 4], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum)


def burn_in_steps(total_steps: int, config: TrainConfig) -> int:
    """The burn-in in optimiser steps: the configured one, at most a fifth of the run."""
    return min(config.burn_in, total_steps // 5)


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """The rate of a step, counted from 1 as Darknet does (src/network.c get_current_rate).

    Quartic up to ``peak_lr`` over the burn-in, then half a cosine down to ``final_lr_fraction`` of it at the last step.
    """
    burn_in = burn_in_steps(total_steps, config)
    if step < burn_in:
        return config.peak_lr * (step / burn_in) ** 4
    progress = min((step - burn_in) / max(total_steps - burn_in, 1), 1.0)
    fraction = config.final_lr_fraction
    return config.peak_lr * (fraction + (1 - fraction) * (1 + math.cos(math.pi * progress)) / 2)


class EMA:
    """An exponential moving average of a model's parameters and buffers in float32, held as a model in eval mode.

    The decay rises as decay·(1 - e^(-t/200)) with the number t of updates, so that short runs follow their weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``'s present state; integer buffers are copied."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / 200))
        present = model.state_dict()
        for name, average in self.model.state_dict().items():
            value = present[name].detach()
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - decay)
            else:
                average.copy_(value)
