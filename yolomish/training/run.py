"""One optimiser step, and all that it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from yolomish.config import TrainConfig
from yolomish.data.kept import ImageData
from yolomish.networks import Network
from yolomish.ops.distributed import rank, sum_over_ranks, world_size
from yolomish.tasks.base import Task
from yolomish.training.memory import forward_settings
from yolomish.training.optim import set_step
from yolomish.types import Batch, Losses, Metrics


@dataclass(kw_only=True)
class Run:
    """What a training step needs.

    ``forward`` is the network, wrapped for several processes or compiled; ``average`` holds the averaged weights (None
    without); ``steps`` are those of an epoch, of which the first ``burn_in`` of the run warm up; ``frozen`` are the names of
    the parameters that are not trained.
    """

    config: TrainConfig
    task: Task[Any]
    device: torch.device
    train: ImageData
    val: ImageData
    network: Network
    forward: Callable[[Tensor], tuple[Tensor, ...]]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    steps: int
    burn_in: int
    frozen: frozenset[str]

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps * self.config.epochs

    def step(self, batches: Sequence[Batch], number: int) -> tuple[Tensor, float]:
        """Optimiser step ``number`` (from 1) over its mini-batches; returns the task's losses (L,) and the rate.

        Chance inside a step is keyed by the seed and ``number``, so a resumed run draws what the whole one drew.
        """
        torch.manual_seed((self.config.seed * 1_000_003 + number) * world_size() + rank())
        lr = set_step(self.optimizer, number, self.total_steps, self.burn_in, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.zeros(len(self.task.losses), device=self.device)
        scale = self.task.loss_scale(self.config)
        for i, batch in enumerate(batches):
            images = self.images(batch)
            if self.config.adversarial and number % 2 == 0:
                images = self.attacked(images)
            wait = self.forward.no_sync() if world_size() > 1 and i + 1 < len(batches) else nullcontext()  # type: ignore[attr-defined]
            with wait:
                losses = self.losses(images, batch.targets)
                self.scaler.scale(losses.total * (scale * world_size())).backward()  # the wrapper averages, we sum
            values += losses.values() * scale
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update_parameters(self.network)
        return sum_over_ranks(values), lr

    def images(self, batch: Batch) -> Tensor:
        """The batch's images as the network takes them, on the device."""
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        images = batch.images.to(self.device, non_blocking=True)
        return self.network.input.normalise(images).contiguous(memory_format=layout)

    def losses(self, images: Tensor, targets: Tensor) -> Losses:
        """The losses of images as the network takes them, with their targets."""
        with forward_settings(self.config, self.device):
            outputs = self.forward(images)
        return self.task.loss(self.network, outputs, targets.to(self.device, non_blocking=True), self.config)

    def attacked(self, images: Tensor) -> Tensor:
        """Self-adversarial images (arXiv:2004.10934, 3.3): moved by ``adversarial`` against the task's attack loss."""
        images = images.requires_grad_()
        with forward_settings(self.config, self.device):
            outputs = self.network(images)
        (gradient,) = torch.autograd.grad(self.task.attack_loss(self.network, outputs, self.config), images)
        return (images.detach() - self.config.adversarial * gradient.sign()).clamp(0, 1)

    def train_mode(self) -> None:
        """Training mode, with frozen parts' batch norms left as they are."""
        self.network.train()
        for name, module in self.network.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and f"{name}.weight" in self.frozen:
                module.eval()

    def evaluate(self) -> Metrics:
        """Metrics on the validation split with the averaged weights, or the weights themselves without an average."""
        network = self.average.module if self.average else self.network
        assert isinstance(network, Network)
        network.eval()
        with forward_settings(self.config, self.device):
            return self.task.evaluate(network, self.val, self.config, self.device)
