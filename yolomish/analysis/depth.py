"""Accuracy over depth: ever deeper plain networks on a small task (arXiv:1908.08681: MNIST, fully connected, no shortcuts)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolomish.activations import build_activation
from yolomish.config import DataConfig
from yolomish.data.datasets import open_data
from yolomish.data.formats.record import Split
from yolomish.errors import YolomishError


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """The sweep: hidden layers of ``width`` units with batch norm and dropout, SGD with momentum for ``epochs`` passes.

    The paper has 500 units, 15 to 25 layers, dropout 0.25 and batches of 128 on MNIST; the defaults are a smaller task
    for a CPU."""

    depths: tuple[int, ...] = (5, 10, 15, 20, 25)
    seeds: int = 3
    width: int = 64
    epochs: int = 15
    batch: int = 64
    lr: float = 0.05
    dropout: float = 0.25
    side: int = 16


@dataclass(frozen=True, kw_only=True)
class DepthPoint:
    """Accuracy (0..1) on held-out crops of one trained network."""

    activation: str
    depth: int
    seed: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """Inputs (N, D) float32 and classes (N,), to train on and held out."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int


def shape_task(side: int) -> Task:
    """The built-in shapes' objects, cut out and resized to ``side`` px, grey, each with mean 0 and deviation 1.

    About 1,200 to train on and 300 held out, in four classes."""
    parts: dict[Split, tuple[Tensor, Tensor]] = {}
    names: tuple[str, ...] = ()
    for split in ("train", "val"):
        data = open_data(DataConfig(), split)
        names, crops, labels = data.names, [], []
        for index in range(len(data)):
            sample = data.load(index)
            grey = cv2.cvtColor(sample.image, cv2.COLOR_RGB2GRAY)
            for (x0, y0, x1, y1), label in zip(sample.boxes.round().astype(int), sample.labels, strict=True):
                crop = cv2.resize(grey[y0:y1, x0:x1], (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
                crops.append((crop - crop.mean()) / (crop.std() + 1e-3))
                labels.append(int(label))
        parts[split] = torch.from_numpy(np.stack(crops).reshape(len(crops), -1)), torch.tensor(labels)
    (train, train_labels), (test, test_labels) = parts["train"], parts["val"]
    return Task(train=train, train_labels=train_labels, test=test, test_labels=test_labels, classes=len(names))


def plain_network(inputs: int, classes: int, depth: int, activation: str, config: DepthConfig) -> nn.Sequential:
    """``depth`` hidden layers (linear, batch norm, activation, dropout) and a linear output, torch's initial weights."""
    parts: list[nn.Module] = []
    for layer in range(depth):
        parts += [nn.Linear(inputs if layer == 0 else config.width, config.width), nn.BatchNorm1d(config.width)]
        parts += [build_activation(activation), nn.Dropout(config.dropout)]
    return nn.Sequential(*parts, nn.Linear(config.width, classes))


def train_plain(task: Task, depth: int, activation: str, seed: int, config: DepthConfig) -> float:
    """Train one network and return its accuracy on the held-out part. Equal seeds have equal weights, order and dropout."""
    torch.manual_seed(seed)
    model = plain_network(task.train.shape[1], task.classes, depth, activation, config)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
    steps = config.epochs * (len(task.train) // config.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for epoch in range(config.epochs):
        order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed * 1009 + epoch))
        for chosen in order[: len(order) // config.batch * config.batch].split(config.batch):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(task.train[chosen]), task.train_labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return (model(task.test).argmax(1) == task.test_labels).float().mean().item()


def depth_sweep(
    activations: Sequence[str], config: DepthConfig, task: Task | None = None, log: Callable[[str], None] = print
) -> list[DepthPoint]:
    """Every activation at every depth and seed on ``task`` (the built-in shapes' objects)."""
    if min(*config.depths, config.seeds, config.width, config.epochs, config.batch, 1) < 1:
        raise YolomishError("depths, seeds, width, epochs and batch must be at least 1")
    task = task or shape_task(config.side)
    if config.batch > len(task.train):
        raise YolomishError(f"batch {config.batch} is more than the {len(task.train)} training objects")
    points = []
    for depth in config.depths:
        for name in activations:
            found = [train_plain(task, depth, name, seed, config) for seed in range(config.seeds)]
            points += [DepthPoint(activation=name, depth=depth, seed=i, accuracy=a) for i, a in enumerate(found)]
            log(f"{depth} layers, {name}: accuracy " + ", ".join(f"{a:.3f}" for a in found))
    return points
