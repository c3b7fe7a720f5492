"""What the activations do inside a trained network, layer by layer, on one batch of training images that all arms share.

The Mish paper claims self-regularisation: no dead units, small negative values kept, smoother gradients. These are the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from yolomish.comparison.runs import Run
from yolomish.config import TrainConfig
from yolomish.data.kept import ImageData
from yolomish.networks.registry import outline
from yolomish.nn.blocks import ConvBlock
from yolomish.tasks.registry import find_task
from yolomish.types import Batch
from yolomish.weights.load import load_network

FLAT = 0.01  # of the identity's slope: below it an input hardly moves the output
MOST_IMAGES = 16
PIXELS = 1 << 20  # of a batch: a network of 64 M parameters then needs some 8 GiB


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """One layer of one arm, in a part of the network: mean and variance of the activation's outputs, the share of inputs
    where its slope is under 0.01 (``saturated``) and of channels where it is so for every input (``dead``), and the loss
    gradient's norm over the kernel's own."""

    arm: str
    layer: str
    part: str
    activation: str
    mean: float
    variance: float
    saturated: float
    dead: float
    gradient: float


def shared_batch(data: ImageData, config: TrainConfig) -> Batch:
    """The first training batch that a run of ``config`` saw, at most 16 images, with its mosaics and flips."""
    size = min(config.batch, MOST_IMAGES, len(data), max(1, PIXELS // math.prod(config.image_size)))
    plain = replace(config, batch=size, mini_batch=0, workers=0, multi_scale=0.0, device="cpu", cache="off")
    return next(iter(find_task(config.task).loader(data, plain, outline(config.model), epoch=0)))


def layer_statistics(arm: str, checkpoint: Path, config: TrainConfig, batch: Batch) -> tuple[LayerStatistics, ...]:
    """Statistics of every activated layer of a run of ``config``, in network order: averaged weights, BatchNorm as in
    inference, on the CPU."""
    network = load_network(str(checkpoint)).network
    found: dict[str, dict[str, float]] = {}

    def watch(name: str, block: ConvBlock) -> RemovableHandle:
        def hook(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach().requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(module.forward(x).sum(), x)  # not module(x): that would come back here
            flat = slope.abs() < FLAT
            found[name] = {
                "mean": output.detach().mean().item(),
                "variance": output.detach().var().item(),
                "saturated": flat.float().mean().item(),
                "dead": flat.all(dim=3).all(dim=2).all(dim=0).float().mean().item(),
            }

        return block.act.register_forward_hook(hook)

    blocks = [
        (part, name, block)
        for part in network.parts
        for name, block in network.slots(part).items()
        if isinstance(block, ConvBlock)
    ]
    handles = [watch(name, block) for _, name, block in blocks]
    maps = network(network.input.normalise(batch.images))
    for handle in handles:
        handle.remove()
    find_task(config.task).loss(network, maps, batch.targets, config).total.backward()
    rows = []
    for part, name, block in blocks:
        kernel, activation = block.conv.weight, block.activation_name
        gradient = kernel.grad.norm().item() / kernel.norm().item() if kernel.grad is not None else 0.0
        rows.append(LayerStatistics(arm=arm, layer=name, part=part, activation=activation, gradient=gradient, **found[name]))
    return tuple(rows)


def all_layers(runs: Mapping[str, Run], batch: Batch) -> tuple[LayerStatistics, ...]:
    """``layer_statistics`` of a run of each arm, arm after arm, on one batch."""
    return tuple(row for arm, run in runs.items() for row in layer_statistics(arm, run.last, run.trained(), batch))
