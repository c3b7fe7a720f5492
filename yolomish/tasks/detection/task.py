"""Detection as a task of the one training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from yolomish.config import DataConfig, TrainConfig
from yolomish.data.datasets import DetectionData, Split, open_data
from yolomish.data.formats.subset import part_text
from yolomish.data.loader import train_loader
from yolomish.drawing.boxes import draw_batch
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import counts_as_object, evaluate
from yolomish.evaluation.coco_results import CocoResults, entries
from yolomish.evaluation.resample import METRICS, match, resampled_ap, summarise
from yolomish.networks import Network
from yolomish.networks.registry import outline
from yolomish.ops.distributed import rank, share, world_size
from yolomish.tasks.detection.loss import detection_loss
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import EvalProtocol, training_protocol
from yolomish.tasks.detection.statistics import data_lines, held_units
from yolomish.types import Batch, Losses, Metrics

TRIAL_BOXES = 16  # per image


class DetectionTask:
    """See ``Task``."""

    losses: tuple[str, ...] = ("box", "objectness", "class")
    metrics: tuple[str, ...] = ("AP", "AP50", "AP75")
    primary: str = "AP"
    statistics: tuple[str, ...] = METRICS

    def open(self, config: DataConfig, split: Split) -> DetectionData:
        return open_data(config, split)

    def check(self, config: TrainConfig, network: Network) -> None:
        if not network.heads:
            raise YolomishError(f"{network.name} is a classifier, and a classifier finds no boxes: train it by --task classify")
        network.input.check_size(config.image_size)

    def loader(
        self, data: DetectionData, config: TrainConfig, network: Network, *, epoch: int, first_step: int = 0
    ) -> DataLoader:
        where = {"rank": rank(), "world_size": world_size()}
        return train_loader(data, config, network.input, epoch=epoch, first_step=first_step, **where)

    def loss(self, network: Network, outputs: Sequence[Tensor], targets: Tensor, config: TrainConfig) -> Losses:
        return detection_loss(outputs, network.heads, targets, config)

    def attack_loss(self, network: Network, outputs: Sequence[Tensor], config: TrainConfig) -> Tensor:
        """The objectness loss of an image without objects (self-adversarial training, arXiv:2004.10934, 3.3)."""
        return self.loss(network, outputs, outputs[0].new_zeros((0, 6)), config).parts["objectness"]

    def loss_scale(self, config: TrainConfig) -> float:
        """Darknet averages over the batch (src/convolutional_kernels.cu update: learning_rate/batch). The scaled loss keeps
        the sum (PyTorch_YOLOv4 train.py, tuned at 64 images), so that a smaller batch takes proportionally smaller steps.
        """
        return 1 / config.batch if config.loss == "darknet" else 1.0

    def trial_targets(self, config: TrainConfig, images: int) -> Tensor:
        classes = config.model.num_classes
        boxes = range(1, TRIAL_BOXES + 1)
        return torch.tensor([(i, k % classes, 8.0, 8.0, 8.0 + 4 * k, 24.0) for i in range(images) for k in boxes])

    def protocol(self, config: TrainConfig) -> EvalProtocol:
        network = outline(config.model)
        network.resized(config.image_size, config.resize)
        return training_protocol(network.input)

    def predict(self, network: Network, data: DetectionData, config: TrainConfig, device: torch.device) -> CocoResults:
        protocol = training_protocol(network.input)
        pipeline = Pipeline(runner=network, protocol=protocol, size_hw=network.input.size_hw, device=device)
        return predict(pipeline, data, batch=config.mini_batch if config.mini_batch > 0 else config.batch)

    def evaluate(self, network: Network, data: DetectionData, config: TrainConfig, device: torch.device) -> Metrics:
        results = self.predict(network, data, config, device)
        return share(evaluate(data.coco(), results, data.names, data.category_ids) if rank() == 0 else None)

    def describe_protocol(self, network: Network, data: DetectionData, config: TrainConfig) -> str:
        source = data.source.name + part_text(config.data)
        return training_protocol(network.input).describe(len(data), source, network.input.size_hw)

    def describe_data(self, data: DetectionData, config: TrainConfig, network: Network) -> list[str]:
        return data_lines(data, config, network.heads)

    def draw(self, batch: Batch, names: Sequence[str], path: Path) -> None:
        draw_batch(batch, names, path)

    def resampled(self, data: DetectionData, results: CocoResults, draws: Sequence[np.ndarray]) -> list[np.ndarray]:
        matches = match(data.coco(), results)
        found = [resampled_ap(matches, weights) for weights in draws]
        return [np.concatenate((summarise(ap), ap[:, :, 0].mean(2)), 1).astype(np.float64) for ap in found]

    def class_names(self, data: DetectionData) -> tuple[str, ...]:
        names = dict(zip(data.category_ids, data.names, strict=True))
        return tuple(names[category] for category in sorted(names))

    def objects(self, data: DetectionData) -> int:
        return sum(map(counts_as_object, data.coco().dataset["annotations"]))

    def right(self, results: CocoResults) -> None:
        return None

    def write_results(self, results: CocoResults, path: Path) -> None:
        results.write(path)

    def read_results(self, path: Path) -> CocoResults:
        return CocoResults.of(entries(path.read_text(encoding="utf-8")))

    def units(self, data: DetectionData, groups: np.ndarray | None) -> dict[str, int]:
        return held_units(data, groups)

    def fingerprint(self, results: CocoResults) -> str:
        """Also of results in another order."""
        columns = (results.image_ids, results.category_ids, *results.boxes.T, results.scores)
        order, marks = np.lexsort(columns), hashlib.sha256()
        for column in columns:
            marks.update(column[order].tobytes())
        return marks.hexdigest()

    def lacking(self, data: DetectionData, results: CocoResults) -> int:
        found = set(results.image_ids.tolist())
        images = zip(data.image_ids, data.listing.records, strict=True)
        return sum(1 for image_id, record in images if len(record.boxes) and image_id not in found)
