"""What a network is shown: samples as they are, and batches as training makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from yolomish.config import TrainConfig
from yolomish.data.datasets import DetectionData
from yolomish.data.loader import ResizedData, collate, train_loader
from yolomish.data.transforms import resize_image
from yolomish.drawing.boxes import draw_batch
from yolomish.errors import YolomishError
from yolomish.types import GREY, Batch, InputSpec, Resize, SizeHW


def draw_samples(data: DetectionData, path: Path, count: int, *, size_hw: SizeHW) -> None:
    """Write a grid of ``count`` images from all over a split, each letterboxed to ``size_hw`` px, with their boxes."""
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int).tolist()

    def letterbox(image: np.ndarray, size_hw: SizeHW) -> tuple[np.ndarray, Resize]:
        return resize_image(image, size_hw, "letterbox", grey=GREY, interpolation="area")

    resized = ResizedData(data, letterbox)
    batch = collate([resized[index, size_hw] for index in chosen])
    if isinstance(batch, YolomishError):
        raise batch
    draw_batch(batch, data.names, path, most=count)


def training_batches(data: DetectionData, config: TrainConfig, spec: InputSpec, *, epoch: int, count: int) -> Iterator[Batch]:
    """The first ``count`` mini-batches of an epoch, counted from 0, as a training by ``config`` gets them."""
    yield from islice(train_loader(data, replace(config, workers=0), spec, epoch=epoch), count)
