"""Optimisers with decay on convolution kernels alone, Darknet's burn-in before a schedule, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from yolomish.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW in three groups: ``kernels`` (4 dimensions) decay; ``biases`` and ``rest`` do not.

    The rest are norms and whatever an activation learns, for decay would pull a slope to 0 (arXiv:1502.01852, 2). SGD is
    heavy-ball as Darknet's unless ``nesterov``. Frozen parameters are left out.
    """
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    learned = [p for n, p in trained if ".act." in n]
    others = [(n, p) for n, p in trained if ".act." not in n]
    kernels = [p for _, p in others if p.ndim == 4]
    biases = [p for n, p in others if p.ndim != 4 and n.endswith(".bias")]
    rest = [p for n, p in others if p.ndim != 4 and not n.endswith(".bias")] + learned
    groups = [
        {"params": kernels, "weight_decay": config.weight_decay, "name": "kernels"},
        {"params": biases, "weight_decay": 0.0, "name": "biases"},
        {"params": rest, "weight_decay": 0.0, "name": "rest"},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.peak_lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=config.nesterov)


def set_step(optimizer: torch.optim.Optimizer, step: int, total_steps: int, burn_in: int, config: OptimConfig) -> float:
    """Set every group's rate and momentum for a step, counted from 1; returns the kernels' rate.

    During the burn-in biases fall from ``burn_in_bias_lr`` (if any) and momentum rises from ``burn_in_momentum`` (if any),
    both linearly, as WongKinYiu's Scaled-YOLO train.py does.
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


def burn_in_steps(total_steps: int, steps_per_epoch: int, config: OptimConfig) -> int:
    """The burn-in in optimiser steps: the configured steps or epochs, whichever is more, at most a fifth of the run."""
    return min(max(config.burn_in, round(config.burn_in_epochs * steps_per_epoch)), total_steps // 5)


def learning_rate(step: int, total_steps: int, burn_in: int, config: OptimConfig) -> float:
    """The rate of a step, counted from 1 as Darknet does (src/network.c get_current_rate).

    ``peak_lr`` times (step/burn_in)^power up to the burn-in, then the schedule: half a cosine or a line down to
    ``final_lr_fraction`` at the last step, ``lr_step_factor`` at each of ``lr_steps`` (shares of the whole run), or Darknet's
    poly: (1 - step/total)^``poly_power``.
    """
    if step < burn_in:
        return config.peak_lr * (step / burn_in) ** config.burn_in_power
    if config.schedule == "steps":
        return config.peak_lr * config.lr_step_factor ** sum(step > share * total_steps for share in config.lr_steps)
    if config.schedule == "poly":
        return config.peak_lr * max(1 - step / total_steps, 0.0) ** config.poly_power
    progress = min((step - burn_in) / max(total_steps - burn_in, 1), 1.0)
    down = (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - progress
    return config.peak_lr * (config.final_lr_fraction + (1 - config.final_lr_fraction) * down)


def build_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model's parameters and buffers in float32, in eval mode; integer buffers are copied.

    The decay rises as decay·(1 - e^(-t/200)) with the number t of updates, so that short runs follow their weights.
    ``n_averaged`` is t + 1: the start counts as the first.
    """

    @torch.no_grad()
    def mix(averages: Sequence[Tensor], present: Sequence[Tensor], count: int | Tensor) -> None:
        share = 1 - decay * (1 - math.exp(-int(count) / 200))
        for average, value in zip(averages, present, strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), share)
            else:
                average.copy_(value)

    average = AveragedModel(model, multi_avg_fn=mix, use_buffers=True)
    average.module.float().eval().requires_grad_(False)
    average.n_averaged.fill_(1)
    return average
