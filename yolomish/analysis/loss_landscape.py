"""The loss around trained weights in two random, filter-normalised directions (Li et al. 2018, arXiv:1712.09913)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from yolomish.config import TrainConfig, load_data_config
from yolomish.data.datasets import open_data
from yolomish.data.loader import eval_loader
from yolomish.errors import YolomishError, unknown_name
from yolomish.networks import Network
from yolomish.tasks.detection.loss import detection_loss
from yolomish.tasks.detection.protocol import training_protocol
from yolomish.types import Batch
from yolomish.weights.load import load_network

Direction = dict[str, Tensor]
BATCH_NORMS = ("running", "batch")


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """``loss`` (P, P) at ``steps`` (P,) along the second (rows) and first (columns) direction; a step of 1 moves every
    filter by its own norm. ``batch_norm`` says whose statistics were used."""

    label: str
    steps: np.ndarray
    loss: np.ndarray
    batch_norm: str
    images: int


def filter_normalised_direction(model: nn.Module, seed: int) -> Direction:
    """A Gaussian direction whose every filter has the norm of the weights' filter; biases and batch norms stay (zero).

    A filter is a row of a linear layer or an output channel of a convolution. The draw follows from ``seed`` and the
    shapes alone, so that two networks of one structure go the same way, each by its own measure.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = {}
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        draw = torch.randn(weight.shape, generator=generator).to(weight)
        rows, filters = draw.flatten(1), weight.detach().flatten(1)
        scale = filters.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)
        direction[name] = (rows * scale).view_as(weight)
    return direction


@torch.no_grad()
def loss_surface(
    model: nn.Module, loss: Callable[[], float], first: Direction, second: Direction, steps: Sequence[float], progress: str = ""
) -> np.ndarray:
    """``loss()`` (P, P) with the model's weights at w + a·first + b·second; row b, column a. The model is left as it was."""
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    surface = np.empty((len(steps), len(steps)))
    points = [(i, j) for i in range(len(steps)) for j in range(len(steps))]
    try:
        for i, j in tqdm(points, desc=progress, disable=None if progress else True, leave=False):
            for name, weight in model.named_parameters():
                weight.copy_(start[name] + steps[j] * first[name] + steps[i] * second[name])
            surface[i, j] = loss()
    finally:
        for name, weight in model.named_parameters():
            weight.copy_(start[name])
    return surface


@torch.no_grad()
def batch_loss(model: Network, batches: Sequence[Batch], config: TrainConfig, device: torch.device) -> float:
    """The mean detection loss per image over ``batches``, by ``config``'s gains, in the mode the model is in."""
    total = 0.0
    for batch in batches:
        maps = model(model.input.normalise(batch.images.to(device)))
        total += detection_loss(maps, model.heads, batch.targets.to(device), config).total.item()
    return total / sum(len(b.images) for b in batches)


def checkpoint_landscape(
    weights: str,
    *,
    data: str = "",
    images: int = 16,
    points: int = 11,
    radius: float = 1.0,
    batch_norm: str = "running",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Landscape:
    """The landscape of a ``.pt`` checkpoint on the first ``images`` of its validation split (or of ``data``'s).

    ``batch_norm``: ``running`` keeps the trained statistics, as Li et al. do, so the centre is the evaluated network;
    ``batch`` takes each point's own, from all the images at once, which undoes a mere change of scale. Darknet's box
    signal is no loss: such a run is measured by the scaled loss.
    """
    if batch_norm not in BATCH_NORMS:
        raise unknown_name("batch norm", batch_norm, BATCH_NORMS)
    if points < 3 or points % 2 == 0 or radius <= 0:
        raise YolomishError(f"points must be odd and at least 3 and radius positive, not {points} and {radius}")
    if not weights.endswith(".pt"):
        raise YolomishError(f"{weights}: a landscape needs a .pt checkpoint, which knows its loss and data")
    loaded = load_network(weights)
    network, config = loaded.network, loaded.training
    assert config is not None
    if config.loss == "darknet":
        config = replace(config, loss="scaled", assignment="ratio")
    source = open_data(load_data_config(data) if data else config.data, "val").first(images)
    source = source.with_classes(loaded.names, weights)
    whole = len(source) if batch_norm == "batch" else 8
    protocol, size_hw = training_protocol(network.input), network.input.size_hw
    batches = list(eval_loader(source, size_hw=size_hw, resize=protocol.resize_image, batch=whole))
    model, place = network.to(device), torch.device(device)
    if batch_norm == "batch":
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0  # the running statistics stay
    steps = np.linspace(-radius, radius, points)
    first, second = (filter_normalised_direction(model, 2 * seed + i) for i in (0, 1))
    surface = loss_surface(
        model, lambda: batch_loss(model, batches, config, place), first, second, steps.tolist(), f"landscape of {weights}"
    )
    return Landscape(label=network.activation_label(), steps=steps, loss=surface, batch_norm=batch_norm, images=len(source))
