"""Classification as a task of the one training loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from yolomish.config import DataConfig, TrainConfig
from yolomish.data.classification import ClassData, open_classes
from yolomish.data.classification.loader import train_loader
from yolomish.data.formats.record import Split
from yolomish.drawing.classes import draw_classes
from yolomish.errors import YolomishError
from yolomish.files import write_json
from yolomish.networks import Network
from yolomish.ops.distributed import rank, world_size
from yolomish.tasks.classification.loss import classification_loss, confidence_loss
from yolomish.tasks.classification.metrics import STATISTICS, class_metrics, hits, resampled_accuracy
from yolomish.tasks.classification.predict import predict
from yolomish.tasks.classification.protocol import ClassProtocol, training_protocol
from yolomish.types import Batch, Losses, Metrics, size_text

MOST_HUE = 0.5  # of the circle: torchvision's ColorJitter turns no further


class ClassificationTask:
    """See ``Task``."""

    losses: tuple[str, ...] = ("class",)
    metrics: tuple[str, ...] = ("top1", "top5", "ece")
    primary: str = "top1"
    statistics: tuple[str, ...] = STATISTICS

    def open(self, config: DataConfig, split: Split) -> ClassData:
        return open_classes(config, split)

    def check(self, config: TrainConfig, network: Network) -> None:
        if network.heads:
            raise YolomishError(f"{network.name} is a detector: --task detect, or a classifier such as --model resnet50")
        network.input.check_size(config.image_size)
        try:
            network(torch.empty(1, network.input.channels, *config.image_size, device="meta"))
        except RuntimeError:  # a [connected] layer has weights for one size alone, and pools need a map as large as they are
            size = size_text(config.image_size)
            raise YolomishError(f"{network.name} does not take images of {size} px: give --imgsz the size of its cfg") from None
        if config.mosaic + config.mixup + config.cutmix > 1 + 1e-9:
            shares = f"{config.mosaic:g}, {config.mixup:g} and {config.cutmix:g}"
            raise YolomishError(f"mosaic, mixup and cutmix are shares of the images, at most 1 together, not {shares}")
        if config.partners != "all":
            raise YolomishError(f"partners {config.partners} is for detectors: a classifier's images are mixed with any others")
        if config.hue > MOST_HUE:
            raise YolomishError(f"hue must be between 0 and {MOST_HUE:g} to classify, not {config.hue:g}")

    def loader(self, data: ClassData, config: TrainConfig, network: Network, *, epoch: int, first_step: int = 0) -> DataLoader:
        where = {"rank": rank(), "world_size": world_size()}
        return train_loader(data, config, network.input.stride, epoch=epoch, first_step=first_step, **where)

    def loss(self, network: Network, outputs: Sequence[Tensor], targets: Tensor, config: TrainConfig) -> Losses:
        return classification_loss(outputs[0], targets, config.label_smoothing)

    def attack_loss(self, network: Network, outputs: Sequence[Tensor], config: TrainConfig) -> Tensor:
        return confidence_loss(outputs[0])

    def loss_scale(self, config: TrainConfig) -> float:
        """The mean over a step's images."""
        return 1 / config.batch

    def trial_targets(self, config: TrainConfig, images: int) -> Tensor:
        return torch.nn.functional.one_hot(torch.arange(images) % config.model.num_classes, config.model.num_classes).float()

    def protocol(self, config: TrainConfig) -> ClassProtocol:
        return training_protocol(config)

    def evaluate(self, network: Network, data: ClassData, config: TrainConfig, device: torch.device) -> Metrics:
        return class_metrics(self.predict(network, data, config, device), data.names)

    def predict(self, network: Network, data: ClassData, config: TrainConfig, device: torch.device) -> list[dict]:
        batch = config.mini_batch if config.mini_batch > 0 else config.batch
        return predict(network, data, training_protocol(config), network.input.size_hw, device=device, batch=batch)

    def describe_protocol(self, network: Network, data: ClassData, config: TrainConfig) -> str:
        return training_protocol(config).describe(len(data), data.source.name, network.input.size_hw)

    def describe_data(self, data: ClassData, config: TrainConfig, network: Network) -> list[str]:
        counts = np.bincount(data.labels, minlength=len(data.names))
        order = counts.argsort()[::-1]
        shown = ", ".join(f"{data.names[i]} {counts[i]}" for i in order[:8])
        rest = f", and {len(order) - 8} more classes, the rarest with {counts.min()}" if len(order) > 8 else ""
        empty = [data.names[i] for i in order if not counts[i]]
        lines = [f"labels: {len(data)} images of {len(data.names)} classes: {shown}{rest}"]
        if empty:
            lines.append(f"labels: no image of {', '.join(empty[:8])}{', ...' if len(empty) > 8 else ''}: nothing to learn there")
        return lines

    def draw(self, batch: Batch, names: Sequence[str], path: Path) -> None:
        draw_classes(batch, names, path)

    def resampled(self, data: ClassData, results: list[dict], draws: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [resampled_accuracy(results, len(data.names), weights) for weights in draws]

    def class_names(self, data: ClassData) -> tuple[str, ...]:
        return data.names

    def objects(self, data: ClassData) -> int:
        return len(data)

    def right(self, results: list[dict]) -> np.ndarray:
        return hits(results)[:, 0] > 0

    def write_results(self, results: list[dict], path: Path) -> None:
        write_json(path, results)

    def read_results(self, path: Path) -> list[dict]:
        return list(json.loads(path.read_text(encoding="utf-8")))

    def units(self, data: ClassData, groups: np.ndarray | None) -> dict[str, int]:
        units = np.arange(len(data)) if groups is None else groups
        of_class = {name: len(np.unique(units[np.array(data.labels) == label])) for label, name in enumerate(data.names)}
        return of_class | dict.fromkeys(self.statistics, len(np.unique(units)))

    def fingerprint(self, results: list[dict]) -> str:
        return hashlib.sha256(json.dumps([(row["classes"], row["scores"]) for row in results]).encode()).hexdigest()

    def lacking(self, data: ClassData, results: list[dict]) -> int:
        return len(data) - len(results)
