"""Batches of images with their classes' shares; chance is keyed by (seed, epoch, index), so workers change nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from yolomish.config import TrainConfig
from yolomish.data.classification.augment import Augmenter
from yolomish.data.classification.dataset import ClassData
from yolomish.data.loader import BatchLoader, Items, ordered_loader, shuffled_loader
from yolomish.data.streams import Use, stream
from yolomish.errors import YolomishError
from yolomish.types import Batch, SizeHW

Item = tuple[int, Tensor, Tensor]  # number, image (3, H, W) in 0..255, shares (K,)


class AugmentedClasses(Items[Item]):
    """Training samples by (index, size_hw)."""

    def __init__(self, data: ClassData, config: TrainConfig, epoch: int) -> None:
        self.data, self.config, self.epoch = data, config, epoch
        self.mixing = epoch < config.epochs - config.close_mosaic
        self.augmenters: dict[SizeHW, Augmenter] = {}

    def __len__(self) -> int:
        return len(self.data)

    def item(self, index: int, size_hw: SizeHW) -> Item:
        if size_hw not in self.augmenters:
            self.augmenters[size_hw] = Augmenter(self.config, size_hw, len(self.data.names))
        rng = stream(Use.AUGMENT, self.config.seed, self.epoch, index)

        def draw() -> tuple[np.ndarray, int]:
            other = int(rng.integers(len(self.data)))
            return self.data.image(other), self.data.labels[other]

        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global one
            # not torch.manual_seed: without CUDA it queues a seed, with the stack, for when there will be some
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            augment = self.augmenters[size_hw]
            image, shares = augment(self.data.image(index), self.data.labels[index], draw, mixing=self.mixing)
        return index, image, shares


class PreparedClasses(Items[Item]):
    """Evaluation by (index, size_hw): each image by ``prepare(image, size_hw)``, (h, w, 3) in 0..255."""

    def __init__(self, data: ClassData, prepare: Callable[[np.ndarray, SizeHW], np.ndarray]) -> None:
        self.data, self.prepare = data, prepare

    def __len__(self) -> int:
        return len(self.data)

    def item(self, index: int, size_hw: SizeHW) -> Item:
        image = torch.from_numpy(np.ascontiguousarray(self.prepare(self.data.image(index), size_hw))).permute(2, 0, 1)
        label = torch.tensor(self.data.labels[index])
        return index, image, torch.nn.functional.one_hot(label, len(self.data.names)).float()


def collate(items: list[Item | YolomishError]) -> Batch | YolomishError:
    """Images of one size as a Batch, or the first error."""
    found = []
    for item in items:
        if isinstance(item, YolomishError):
            return item
        found.append(item)
    numbers, images, shares = zip(*found, strict=True)
    return Batch(images=torch.stack(images), targets=torch.stack(shares), image_ids=numbers)


def train_loader(
    data: ClassData, config: TrainConfig, stride: int, *, epoch: int, first_step: int = 0, rank: int = 0, world_size: int = 1
) -> BatchLoader:
    """An epoch's mini-batches from its optimiser step ``first_step`` on, as ``data.loader.train_loader`` returns them."""
    items, where = AugmentedClasses(data, config, epoch), {"rank": rank, "world_size": world_size}
    return shuffled_loader(items, collate, config, stride, epoch=epoch, first_step=first_step, **where)


def eval_loader(
    data: ClassData,
    prepare: Callable[[np.ndarray, SizeHW], np.ndarray],
    size_hw: SizeHW,
    *,
    batch: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """Every image once, by ``prepare(image, size_hw)``; of several processes each gets its share."""
    mine = range(rank, len(data), world_size)
    keys = [[(index, size_hw) for index in mine[start : start + batch]] for start in range(0, len(mine), batch)]
    return ordered_loader(PreparedClasses(data, prepare), keys, collate, workers)
