"""What the training loop, the records and the comparison ask of a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from yolomish.config import DataConfig, TrainConfig
from yolomish.data.formats.record import Split
from yolomish.data.kept import ImageData
from yolomish.networks import Network
from yolomish.types import Batch, Losses, Metrics

D = TypeVar("D", bound=ImageData)


class Task(Protocol[D]):
    """A task's data ``D``, losses, evaluation and statistics.

    ``losses`` name what ``loss`` returns, ``metrics`` the columns of results.csv, of which ``primary`` decides; the
    statistics resample ``statistics``, then each class.
    """

    losses: tuple[str, ...]
    metrics: tuple[str, ...]
    primary: str
    statistics: tuple[str, ...]

    def open(self, config: DataConfig, split: Split) -> D:
        """A split of a data set."""
        ...

    def check(self, config: TrainConfig, network: Network) -> None:
        """YolomishError where ``config`` asks of ``network`` what this task cannot do."""
        ...

    def loader(self, data: D, config: TrainConfig, network: Network, *, epoch: int, first_step: int = 0) -> DataLoader:
        """An epoch's mini-batches from its optimiser step ``first_step`` on; of several processes each gets its share."""
        ...

    def loss(self, network: Network, outputs: Sequence[Tensor], targets: Tensor, config: TrainConfig) -> Losses:
        """The losses of a mini-batch from the network's outputs."""
        ...

    def attack_loss(self, network: Network, outputs: Sequence[Tensor], config: TrainConfig) -> Tensor:
        """What self-adversarial images are moved against."""
        ...

    def loss_scale(self, config: TrainConfig) -> float:
        """What the sum over a step's images is multiplied by before backward."""
        ...

    def trial_targets(self, config: TrainConfig, images: int) -> Tensor:
        """Targets for a trial of memory with so many images."""
        ...

    def protocol(self, config: TrainConfig) -> Any:
        """How a run's checkpoints are judged, a dataclass: as its training evaluated them."""
        ...

    def predict(self, network: Network, data: D, config: TrainConfig, device: torch.device) -> Any:
        """Results on every image by ``protocol``; over all processes."""
        ...

    def evaluate(self, network: Network, data: D, config: TrainConfig, device: torch.device) -> Metrics:
        """Metrics of a split, images as they are trained on; over all processes."""
        ...

    def describe_protocol(self, network: Network, data: D, config: TrainConfig) -> str:
        """One line that states how ``evaluate`` measures."""
        ...

    def describe_data(self, data: D, config: TrainConfig, network: Network) -> list[str]:
        """Lines for the log: what the labels look like to the network."""
        ...

    def draw(self, batch: Batch, names: Sequence[str], path: Path) -> None:
        """Write a picture of a mini-batch with its labels."""
        ...

    def resampled(self, data: D, results: Any, draws: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(R, statistics + classes) numbers of results for each of ``draws`` (R, I), which say how often each image counts."""
        ...

    def class_names(self, data: D) -> tuple[str, ...]:
        """The classes in the order of ``resampled``'s columns."""
        ...

    def objects(self, data: D) -> int:
        """How many objects of a split count; without any, nothing can be compared."""
        ...

    def right(self, results: Any) -> np.ndarray | None:
        """(I,) whether each image's result is right; None where a result is not simply right or wrong."""
        ...

    def write_results(self, results: Any, path: Path) -> None:
        """Write what ``predict`` returned as JSON, whole or not at all."""
        ...

    def read_results(self, path: Path) -> Any:
        """What ``write_results`` wrote; OSError or ValueError where it cannot be read."""
        ...

    def units(self, data: D, groups: np.ndarray | None) -> dict[str, int]:
        """For each of the statistics and classes, how many images, or ``groups`` (I,) of them, hold what it is measured on."""
        ...

    def fingerprint(self, results: Any) -> str:
        """A digest that equal results share."""
        ...

    def lacking(self, data: D, results: Any) -> int:
        """On how many images with objects there is no result."""
        ...
