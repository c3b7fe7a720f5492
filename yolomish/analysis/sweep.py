"""Accuracy of small plain networks over one of their settings (arXiv:1908.08681, 4: MNIST, fully connected, no shortcuts)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolomish.activations import build_activation
from yolomish.config import DataConfig
from yolomish.config.schema import MOST_PX
from yolomish.data.classification import open_classes
from yolomish.data.datasets import open_data
from yolomish.data.formats.record import Split
from yolomish.errors import YolomishError, shown, unknown_name
from yolomish.networks.registry import MOST_PARAMETERS

OPTIMIZERS = {  # SGD has momentum and the sweep's rate, the others torch's own rates
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}
INITIALISERS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "torch": None,
    "kaiming_normal": nn.init.kaiming_normal_,
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
}
MOST_LAYERS = 10_000
MOST_EPOCHS = 1_000_000
Value = int | float | str
VALUES: dict[str, tuple[Value, ...]] = {  # the experiments by name: what is swept and over what
    "depth": (5, 10, 15, 20, 25),
    "width": (16, 32, 64, 128, 256),
    "batch": (16, 32, 64, 128, 256),
    "lr": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "dropout": (0.0, 0.2, 0.4, 0.6),
    "optimizer": tuple(OPTIMIZERS),
    "initialiser": tuple(INITIALISERS),
}


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """Hidden layers of ``width`` units with batch norm and dropout, trained for ``epochs`` passes along a cosine.

    The paper has 500 units, 15 to 25 layers, dropout 0.25 and batches of 128 on MNIST; the defaults are a smaller task
    for a CPU. ``side`` is that of the pictures in px."""

    depth: int = 5
    width: int = 64
    epochs: int = 15
    batch: int = 64
    lr: float = 0.05
    dropout: float = 0.25
    optimizer: str = "sgd"
    initialiser: str = "torch"
    side: int = 16

    def __post_init__(self) -> None:
        for name in ("depth", "width", "epochs", "batch", "side"):
            least = 2 if name == "batch" else 1  # batch norm takes a deviation over the batch
            if getattr(self, name) < least:
                raise YolomishError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.epochs > MOST_EPOCHS:
            raise YolomishError(f"epochs must be at most {MOST_EPOCHS:,}, not {shown(self.epochs)}")
        if self.depth > MOST_LAYERS or self.side > MOST_PX:
            got = f"{shown(self.depth)} and {shown(self.side)}"
            raise YolomishError(f"depth must be at most {MOST_LAYERS} and side {MOST_PX} px, not {got}")
        if (count := self.width * (self.side**2 + (self.depth - 1) * self.width)) > MOST_PARAMETERS:
            raise YolomishError(
                f"a network of depth {self.depth} and width {shown(self.width)} on pictures of side {self.side} has some "
                f"{shown(count // 10**6)} million parameters, over the {MOST_PARAMETERS // 10**6:,} million that are built"
            )
        if not 0 < self.lr < math.inf or not 0 <= self.dropout < 1:
            raise YolomishError(
                f"lr must be positive and finite, dropout at least 0 and under 1, not {self.lr:g} and {self.dropout:g}"
            )
        for name, known in (("optimizer", OPTIMIZERS), ("initialiser", INITIALISERS)):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """Accuracy (0..1) on held-out pictures of one network, trained with ``value`` of what is swept."""

    activation: str
    value: Value
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


_Labelled = Iterable[tuple[np.ndarray, int]]  # RGB pictures and their classes


def shape_task(side: int) -> Task:
    """The built-in shapes' objects, cut out: about 1,200 to train on and 300 held out, in four classes."""

    def read(split: Split) -> _Labelled:
        data = open_data(DataConfig(), split)
        for sample in map(data.load, range(len(data))):
            for (x0, y0, x1, y1), label in zip(sample.boxes.round().astype(int), sample.labels, strict=True):
                yield sample.image[y0:y1, x0:x1], int(label)

    return _task(read, side, len(open_data(DataConfig(), "train").names))


def picture_task(config: DataConfig, side: int) -> Task:
    """A data set to classify, its train and val pictures; YolomishError where it is none."""

    def read(split: Split) -> _Labelled:
        data = open_classes(config, split)
        return zip(map(data.image, range(len(data))), data.labels, strict=True)

    return _task(read, side, len(open_classes(config, "train").names))


def _prepared(image: np.ndarray, side: int) -> np.ndarray:
    """(side·side,) float32 of an RGB picture: grey, resized, with mean 0 and deviation 1."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    flat: np.ndarray = ((small - small.mean()) / (small.std() + 1e-3)).reshape(-1)
    return flat


def _task(read: Callable[[Split], _Labelled], side: int, classes: int) -> Task:
    tensors: list[Tensor] = []
    for split in ("train", "val"):
        inputs, labels = zip(*((_prepared(image, side), label) for image, label in read(split)), strict=True)
        tensors += torch.from_numpy(np.stack(inputs)), torch.tensor(labels)
    train, train_labels, test, test_labels = tensors
    return Task(train=train, train_labels=train_labels, test=test, test_labels=test_labels, classes=classes)


def plain_network(inputs: int, classes: int, activation: str, config: PlainConfig) -> nn.Sequential:
    """Hidden layers (linear, batch norm, activation, dropout) and a linear output, with initial weights from torch's RNG."""
    parts: list[nn.Module] = []
    for layer in range(config.depth):
        parts += [nn.Linear(inputs if layer == 0 else config.width, config.width), nn.BatchNorm1d(config.width)]
        parts += [build_activation(activation), nn.Dropout(config.dropout)]
    network = nn.Sequential(*parts, nn.Linear(config.width, classes))
    if (draw := INITIALISERS[config.initialiser]) is not None:
        for module in network.modules():
            if isinstance(module, nn.Linear):
                draw(module.weight)
                nn.init.zeros_(module.bias)
    return network


def train_plain(task: Task, activation: str, seed: int, config: PlainConfig) -> float:
    """Train one network and return its accuracy on the held-out part. Equal seeds have equal weights, order and dropout."""
    torch.manual_seed(seed)
    model = plain_network(task.train.shape[1], task.classes, activation, config)
    if config.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
    else:
        optimizer = OPTIMIZERS[config.optimizer](model.parameters())
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


def read_values(over: str, texts: Sequence[str]) -> tuple[Value, ...]:
    """Values of the setting ``over`` from texts; of none those of the experiment of that name. YolomishError for what is not
    swept, or no value of it."""
    if over not in VALUES:
        raise unknown_name("sweep", over, VALUES)
    kind = type(VALUES[over][0])
    try:
        return tuple(kind(text) for text in texts) or VALUES[over]
    except ValueError:
        raise YolomishError(f"{over} takes numbers separated by commas, not {', '.join(texts)[:60]!r}") from None


def sweep(
    activations: Sequence[str],
    over: str,
    values: Sequence[Value],
    seeds: int,
    config: PlainConfig,
    task: Task,
    log: Callable[[str], None] = print,
) -> list[SweepPoint]:
    """Every activation at every one of ``values`` of the setting ``over`` (a field of ``PlainConfig``) and every seed."""
    assert over in {field.name for field in fields(PlainConfig)}
    if seeds < 1:
        raise YolomishError(f"seeds must be at least 1, not {seeds}")
    changes: list[dict[str, Any]] = [{over: value} for value in values]
    settings = [replace(config, **change) for change in changes]  # all are checked before the first is trained
    if (largest := max(setting.batch for setting in settings)) > len(task.train):
        raise YolomishError(f"batch {largest} is more than the {len(task.train)} training pictures")
    points = []
    for value, setting in zip(values, settings, strict=True):
        for name in activations:
            found = [train_plain(task, name, seed, setting) for seed in range(seeds)]
            points += [SweepPoint(activation=name, value=value, seed=i, accuracy=a) for i, a in enumerate(found)]
            log(f"{over} {value}, {name}: accuracy " + ", ".join(f"{a:.3f}" for a in found))
    return points
