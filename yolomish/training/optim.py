"""Optimisers with decay on convolution kernels alone, Darknet's burn-in before a schedule, and averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from yolomish.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW in three groups: ``kernels`` (4 dimensions) decay; ``biases`` and ``rest`` (norms, slopes) do not.

    SGD is heavy-ball as Darknet's unless ``nesterov``. Frozen parameters are left out.
    """
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    kernels = [p for _, p in trained if p.ndim == 4]
    biases = [p for n, p in trained if p.ndim != 4 and n.endswith(".bias")]
    rest = [p for n, p in trained if p.ndim != 4 and not n.endswith(".bias")]
    groups = [
        {"params": kernels, "weight_decay": config.weight_decay, "name": "kernels"},
        {"params": biases, "weight_decay": 0.0, "name": "biases"},
        {"params": rest, "weight_decay": 0.0, "name": "rest"},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.peak_lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=config.nesterov)


def set_step(optimizer: torch.optim.Optimizer, step: int, total_steps: int, burn_in: int, config: TrainConfig) -> float:
    """Set every group's rate and momentum for a step, counted from 1; gives the kernels' rate.

    During the burn-in biases fall from ``burn_in_bias_lr`` (if any) and momentum rises from ``burn_in_momentum`` (if any),
    both linearly, as in PyTorch_YOLOv4 train.py.
    """
    lr = learning_rate(step, total_steps, burn_in, config)
    progress = min(step / burn_in, 1.0) if burn_in else 1.0
    momentum = config.momentum
    if config.burn_in_momentum:
        momentum = config.burn_in_momentum + (config.momentum - config.burn_in_momentum) * progress
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["name"] == "biases" and config.burn_in_bias_lr and progress < 1:
            group["lr"] = config.burn_in_bias_lr + (config.peak_lr - config.burn_in_bias_lr) * progress
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum
    return lr


def burn_in_steps(total_steps: int, steps_per_epoch: int, config: TrainConfig) -> int:
    """The burn-in in optimiser steps: the configured steps or epochs, whichever is more, at most a fifth of the run."""
    return min(max(config.burn_in, round(config.burn_in_epochs * steps_per_epoch)), total_steps // 5)


def learning_rate(step: int, total_steps: int, burn_in: int, config: TrainConfig) -> float:
    """The rate of a step, counted from 1 as Darknet does (src/network.c get_current_rate).

    ``peak_lr`` times (step/burn_in)^power up to the burn-in, then the schedule: half a cosine or a line down to
    ``final_lr_fraction`` at the last step, or ``lr_step_factor`` at each of ``lr_steps`` (shares of the whole run).
    """
    if step < burn_in:
        return config.peak_lr * (step / burn_in) ** config.burn_in_power
    if config.schedule == "steps":
        return config.peak_lr * config.lr_step_factor ** sum(step > share * total_steps for share in config.lr_steps)
    progress = min((step - burn_in) / max(total_steps - burn_in, 1), 1.0)
    down = (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - progress
    return config.peak_lr * (config.final_lr_fraction + (1 - config.final_lr_fraction) * down)


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
