"""From a data set to batches; chance is keyed by (seed, epoch, index), so workers change nothing."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from yolomish.config import TrainConfig
from yolomish.data.augment import augment_one, clip_sample, mosaic
from yolomish.data.datasets import DetectionData
from yolomish.data.transforms import apply_resize, resize_image
from yolomish.types import Batch, Resize, ResizeMode, Sample

Item = tuple[Sample, Resize]


class ResizedData(Dataset):
    """Evaluation: each image resized, its boxes in network px."""

    def __init__(self, data: DetectionData, size: int, mode: ResizeMode) -> None:
        self.data, self.size, self.mode = data, size, mode

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Item:
        sample = self.data.load(index)
        image, resize = resize_image(sample.image, self.size, self.mode)
        boxes = apply_resize(sample.boxes, resize)
        return Sample(image=image, boxes=boxes, labels=sample.labels, image_id=sample.image_id), resize


class AugmentedData(Dataset):
    """Training: mosaic on a share of the images, jitter, flip and HSV, by rng(seed, epoch, index)."""

    def __init__(self, data: DetectionData, config: TrainConfig, epoch: int) -> None:
        self.data, self.config, self.epoch = data, config, epoch
        self.mosaic = 0.0 if epoch >= config.epochs - config.close_mosaic else config.mosaic

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Item:
        rng = np.random.default_rng((self.config.seed, self.epoch, index))
        sample = self.data.load(index)
        size = self.config.image_size
        if rng.random() < self.mosaic:
            sample = mosaic(sample, lambda: self.data.load(int(rng.integers(len(self.data)))), rng, self.config)
        else:
            sample = augment_one(sample, rng, self.config)
        whole = Resize(image_size_hw=(size, size), network_size_hw=(size, size), scale_x=1.0, scale_y=1.0, pad_x=0.0, pad_y=0.0)
        return clip_sample(sample), whole


def collate(items: list[Item]) -> Batch:
    """Samples of one size as a Batch."""
    images = np.stack([sample.image for sample, _ in items]).transpose(0, 3, 1, 2)
    rows = [np.concatenate((np.full((len(s.labels), 1), i), s.labels[:, None], s.boxes), 1) for i, (s, _) in enumerate(items)]
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(images)),
        targets=torch.from_numpy(np.concatenate(rows).astype(np.float32)),
        resizes=tuple(resize for _, resize in items),
        image_ids=tuple(sample.image_id for sample, _ in items),
    )


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)


def make_loader(data: DetectionData, config: TrainConfig, *, epoch: int, training: bool) -> DataLoader:
    """Batches of an epoch: shuffled by rng(seed, epoch) and augmented, or in order and only resized."""
    if not training:
        mode: ResizeMode = "letterbox" if config.resize == "letterbox" else "stretch"
        return eval_loader(data, size=config.image_size, mode=mode, batch=config.batch, workers=config.workers)
    order = np.random.default_rng((config.seed, epoch)).permutation(len(data)).tolist()
    return DataLoader(
        AugmentedData(data, config, epoch),
        batch_size=config.batch,
        sampler=order,
        collate_fn=collate,
        num_workers=config.workers,
        worker_init_fn=_quiet_worker,
        drop_last=len(data) >= config.batch,
        generator=torch.Generator().manual_seed(config.seed),
    )


def eval_loader(data: DetectionData, *, size: int, mode: ResizeMode, batch: int, workers: int = 0) -> DataLoader:
    """Every image once, in order, resized to ``size`` px."""
    return DataLoader(
        ResizedData(data, size, mode),
        batch_size=batch,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        generator=torch.Generator().manual_seed(0),
    )
