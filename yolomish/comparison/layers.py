"""What the activations do inside a trained network, layer by layer, on one batch of training images that all arms share.

The Mish paper claims self-regularisation: no dead units, small negative values kept, smoother gradients. These are the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from yolomish.config import TrainConfig, from_dict
from yolomish.data.datasets import DetectionData
from yolomish.data.loader import train_loader
from yolomish.networks import build_network
from yolomish.nn.blocks import ConvBlock
from yolomish.tasks.detection.loss import detection_loss
from yolomish.types import Batch
from yolomish.weights.checkpoint import read_checkpoint

FLAT = 0.01  # of the identity's slope: below it an input hardly moves the output
MOST_IMAGES = 16
PIXELS = 1 << 20  # of a batch: a full YOLOv4 then needs some 8 GiB


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """One layer of one arm: mean and variance of the activation's outputs, the share of inputs where its slope is under
    0.01 (``saturated``) and of channels where it is so for every input (``dead``), and the loss gradient's norm over the
    kernel's own."""

    arm: str
    layer: str
    activation: str
    mean: float
    variance: float
    saturated: float
    dead: float
    gradient: float

    @property
    def in_backbone(self) -> bool:
        """Whether the layer is one of the backbone's."""
        return self.layer.partition(".")[0] == "backbone"


def shared_batch(data: DetectionData, config: TrainConfig) -> Batch:
    """The first training batch that a run of ``config`` saw, at most 16 images, with its mosaics and flips."""
    size = min(config.batch, MOST_IMAGES, len(data), max(1, PIXELS // config.image_size**2))
    plain = replace(config, batch=size, mini_batch=0, workers=0, multi_scale=0.0, device="cpu", cache="off")
    return next(iter(train_loader(data, plain, epoch=0)))


def layer_statistics(arm: str, checkpoint: Path, batch: Batch) -> tuple[LayerStatistics, ...]:
    """Statistics of every activated layer in network order, averaged weights, BatchNorm as in inference, on the CPU."""
    content = read_checkpoint(checkpoint)
    config = from_dict(TrainConfig, content["config"], f"configuration in {checkpoint}")
    model = build_network(config.model).eval()
    model.load_state_dict(content["ema"] or content["model"])
    found: dict[str, tuple[float, float, float, float]] = {}

    def watch(name: str, block: ConvBlock) -> RemovableHandle:
        def hook(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach().requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(module.forward(x).sum(), x)  # not module(x): that would come back here
            flat = slope.abs() < FLAT
            found[name] = (
                output.detach().mean().item(),
                output.detach().var().item(),
                flat.float().mean().item(),
                flat.all(dim=3).all(dim=2).all(dim=0).float().mean().item(),
            )

        return block.act.register_forward_hook(hook)

    blocks = [(name, module) for name, module in model.named_modules() if isinstance(module, ConvBlock)]
    handles = [watch(name, block) for name, block in blocks]
    maps = model(batch.images.float() / 255)
    for handle in handles:
        handle.remove()
    detection_loss(maps, model.heads, batch.targets, config).total.backward()
    rows = []
    for name, block in blocks:
        kernel = block.conv.weight
        gradient = kernel.grad.norm().item() / kernel.norm().item() if kernel.grad is not None else 0.0
        mean, variance, saturated, dead = found[name]
        rows.append(
            LayerStatistics(
                arm=arm,
                layer=name,
                activation=block.activation_name,
                mean=mean,
                variance=variance,
                saturated=saturated,
                dead=dead,
                gradient=gradient,
            )
        )
    return tuple(rows)


def all_layers(checkpoints: Mapping[str, Path], batch: Batch) -> tuple[LayerStatistics, ...]:
    """``layer_statistics`` of every arm, arm after arm, on one batch."""
    return tuple(row for arm, path in checkpoints.items() for row in layer_statistics(arm, path, batch))
