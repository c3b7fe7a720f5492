"""From a data set to batches; chance is keyed by (use, seed, epoch, index), so workers change nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache, partial
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from yolomish.config import TrainConfig
from yolomish.data.augment import augment_one, clip_sample, cutmix, mixup, mosaic
from yolomish.data.datasets import DetectionData
from yolomish.data.streams import Use, stream
from yolomish.data.transforms import apply_resize
from yolomish.errors import YolomishError, first_line
from yolomish.types import Batch, InputSpec, Resize, Sample, SizeHW, size_text

Item = tuple[Sample, Resize]
T = TypeVar("T")
Collate = Callable[[list[Any]], Batch | YolomishError]


class Items(Dataset, Generic[T]):
    """Items by key. A YolomishError is an item too: a worker's exception would reach the trainer as a whole traceback."""

    def __getitem__(self, key: tuple[int, SizeHW]) -> T | YolomishError:
        try:
            return self.item(*key)
        except YolomishError as error:
            return error

    def __len__(self) -> int:
        raise NotImplementedError

    def item(self, index: int, size_hw: SizeHW) -> T:
        raise NotImplementedError


class ResizedData(Items[Item]):
    """Evaluation by (index, size_hw): each image by ``resize(image, size_hw)``, its boxes in network px."""

    def __init__(self, data: DetectionData, resize: Callable[..., tuple[np.ndarray, Resize]]) -> None:
        self.data, self.resize = data, resize

    def __len__(self) -> int:
        return len(self.data)

    def item(self, index: int, size_hw: SizeHW) -> Item:
        sample = self.data.load(index)
        image, resize = self.resize(sample.image, size_hw)
        boxes = apply_resize(sample.boxes, resize)
        return Sample(image=image, boxes=boxes, labels=sample.labels, image_id=sample.image_id), resize


class AugmentedData(Items[Item]):
    """Training samples by (index, size_hw): everything random in one follows from the stream of (seed, epoch, index)."""

    def __init__(self, data: DetectionData, config: TrainConfig, epoch: int, grey: int) -> None:
        self.data, self.config, self.epoch, self.grey = data, config, epoch, grey
        self.load: Callable[[int], Sample] = data.load
        self.partners: Sequence[int] = range(len(data))
        self.closing = epoch >= config.epochs - config.close_mosaic

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, keys: Sequence[tuple[int, SizeHW]]) -> list[Item | YolomishError]:
        """A mini-batch, as torch asks for it; where its images are one another's partners, each is loaded once."""
        batch = self
        if self.config.partners == "batch":
            batch = copy(self)
            batch.load, batch.partners = cache(self.data.load), [index for index, _ in keys]
        return [batch[key] for key in keys]

    def item(self, index: int, size_hw: SizeHW) -> Item:
        rng = stream(Use.AUGMENT, self.config.seed, self.epoch, index)
        sample = self._augmented(self.load(index), rng, size_hw)
        if not self.closing:
            if rng.random() < self.config.mixup:
                sample = mixup(sample, self._augmented(self._draw(rng), rng, size_hw), rng)
            if rng.random() < self.config.cutmix:
                sample = cutmix(sample, self._augmented(self._draw(rng), rng, size_hw), rng)
        whole = Resize(image_size_hw=size_hw, network_size_hw=size_hw, scale_x=1.0, scale_y=1.0, pad_x=0.0, pad_y=0.0)
        return clip_sample(sample, size_hw), whole

    def _draw(self, rng: np.random.Generator) -> Sample:
        return self.load(self.partners[int(rng.integers(len(self.partners)))])

    def _augmented(self, sample: Sample, rng: np.random.Generator, size_hw: SizeHW) -> Sample:
        if rng.random() < self.config.mosaic and not self.closing:
            return mosaic(sample, lambda: self._draw(rng), rng, size_hw, self.config, grey=self.grey)
        return augment_one(sample, rng, size_hw, self.config, grey=self.grey)


def collate(items: list[Item | YolomishError]) -> Batch | YolomishError:
    """Samples of one size as a Batch, or the first error."""
    samples = []
    for item in items:
        if isinstance(item, YolomishError):
            return item
        samples.append(item)
    images = torch.from_numpy(np.stack([sample.image for sample, _ in samples])).permute(0, 3, 1, 2)  # channels last in memory
    rows = [np.concatenate((np.full((len(s.labels), 1), i), s.labels[:, None], s.boxes), 1) for i, (s, _) in enumerate(samples)]
    return Batch(
        images=images,
        targets=torch.from_numpy(np.concatenate(rows).astype(np.float32)),
        resizes=tuple(resize for _, resize in samples),
        image_ids=tuple(sample.image_id for sample, _ in samples),
    )


class WorkerLost(YolomishError):
    """A process that loads images has ended though nobody asked it to."""


@contextmanager
def lost_workers() -> Iterator[None]:
    """What torch raises, at any moment, when a loader's process is killed becomes ``WorkerLost``.

    Torch raises it in a handler of SIGCHLD. Where that interrupts cleaning up, as that of a thread's start, another error
    (KeyError) comes out, which has torch's as its context.
    """
    try:
        yield
    except Exception as error:
        lost = next((e for e in _history(error) if isinstance(e, RuntimeError) and "DataLoader worker" in str(e)), None)
        if lost is None:
            raise
        raise WorkerLost(
            f"a process that loads images was killed ({first_line(lost)}): is there enough memory, and shared memory? "
            "Fewer --workers need less"
        ) from None


def _history(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what was being handled when it was raised, from the last to the first."""
    while error is not None:
        yield error
        error = error.__context__


class BatchLoader(DataLoader):
    """A DataLoader of Batches that raises a worker's YolomishError as it was."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, YolomishError):
                raise batch
            yield batch


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    if hasattr(os, "setsid"):  # not on Windows
        os.setsid()  # an interrupt of the terminal's group is for the trainer, which finishes its step first


def steps_per_epoch(count: int, config: TrainConfig) -> int:
    """Optimiser steps in an epoch of ``count`` images: whole batches, or a single smaller one."""
    return max(count // config.batch, min(count, 1))


def _scaled_size(factor: float, config: TrainConfig, stride: int) -> SizeHW:
    height, width = (math.floor(factor * side / stride + 1.5) * stride for side in config.image_size)
    return height, width


def largest_size(config: TrainConfig, stride: int) -> SizeHW:
    """The largest network size in px that a run reaches; ``stride`` is the network's coarsest."""
    return _scaled_size(config.multi_scale, config, stride) if config.multi_scale else config.image_size


def smallest_step(count: int, config: TrainConfig, stride: int, world_size: int = 1) -> int:
    """The values of a channel that batch norm sees at least, in the coarsest map of the smallest mini-batch of ``count`` images.

    ``stride`` is the network's coarsest; norms are synchronised over ``world_size`` processes. YolomishError where that is one
    value, which has no variance, and where there are fewer images than processes.
    """
    if count < world_size:
        raise YolomishError(f"{count} training images cannot be shared by {world_size} processes: start {count} at most")
    images = min(config.batch, count)
    images -= images % world_size
    mini = config.mini_batch if config.mini_batch > 0 else config.batch
    images = min(images, images % mini or mini)
    size_hw = _scaled_size(1 / config.multi_scale, config, stride) if config.multi_scale else config.image_size
    values = images * math.prod(max(side // stride, 1) for side in size_hw)
    if values < 2:
        raise YolomishError(
            f"batch norm cannot learn from one value: a mini-batch of {images} image at {size_text(size_hw)} px is one cell "
            f"after stride {stride}; take a larger --imgsz or --batch, or more images"
        )
    return values


def step_size(step: int, total_steps: int, config: TrainConfig, stride: int) -> SizeHW:
    """The network size in px of an optimiser step, counted from 0 (src/detector.c train_detector, random=1).

    With ``multi_scale`` r one factor u in U(1/r, r) is drawn for both sides every ten steps: round(u·side/stride + 1)·stride,
    ``stride`` being the network's coarsest (Darknet's resize_step); the configured size where u < 1 made a side larger.
    The first step and the last tenth of the run, at most 100 steps, use the largest.
    """
    if not config.multi_scale:
        return config.image_size
    if step == 0 or total_steps - step <= min(100, total_steps // 10):
        return largest_size(config, stride)
    low, high = 1 / config.multi_scale, config.multi_scale
    factor = float(stream(Use.NETWORK_SIZE, config.seed, index=step // 10).uniform(low, high))
    height, width = _scaled_size(factor, config, stride)
    too_large = factor < 1 and (height > config.image_size[0] or width > config.image_size[1])
    return config.image_size if too_large else (height, width)


def train_loader(
    data: DetectionData,
    config: TrainConfig,
    spec: InputSpec,
    *,
    epoch: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """An epoch's mini-batches from its optimiser step ``first_step`` on, shuffled by the epoch's stream and augmented.

    ``config`` holds size, batch, mini-batch, augmentation, workers and seed; of ``spec``, the network's input, come the
    stride for multi-scale and the grey that pads. ``epoch`` counts from 0, as does ``first_step`` within it.
    ``rank`` of ``world_size`` processes gets its share of every mini-batch; images that a short step cannot share out
    evenly wait for another epoch; see ``smallest_step`` for what is too few.
    """
    where = {"rank": rank, "world_size": world_size}
    items = AugmentedData(data, config, epoch, spec.pad_value)
    return shuffled_loader(items, collate, config, spec.stride, epoch=epoch, first_step=first_step, **where)


def shuffled_loader(
    items: Items,
    collate: Collate,
    config: TrainConfig,
    stride: int,
    *,
    epoch: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """``train_loader`` of whatever ``collate`` makes of ``items``; ``stride`` is the network's."""
    count = len(items)
    if count < world_size:
        raise YolomishError(f"{count} training images cannot be shared by {world_size} processes: start {count} at most")
    steps = steps_per_epoch(count, config)
    order = stream(Use.ORDER, config.seed, epoch).permutation(count).tolist()
    mini = config.mini_batch or config.batch
    batches = []
    for step in range(first_step, steps):
        size_hw = step_size(epoch * steps + step, config.epochs * steps, config, stride)
        chosen = order[step * config.batch : (step + 1) * config.batch]
        chosen = chosen[: len(chosen) - len(chosen) % world_size]
        for start in range(0, len(chosen), mini):
            batches.append([(index, size_hw) for index in chosen[start : start + mini][rank::world_size]])
    return BatchLoader(
        items,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=config.workers,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(config.seed),
    )


def rectangles(
    sizes_hw: Sequence[SizeHW], size_hw: SizeHW, batch: int, stride: int, margin: float = 0.0
) -> list[tuple[list[int], SizeHW]]:
    """Images grouped by shape, and each group's (height, width) in network px: the long side is that of ``size_hw``, the other
    the least multiple of ``stride`` that holds all, so that little grey is computed (PyTorch_YOLOv4 utils/datasets.py, rect).
    ``margin`` in strides is added to both before rounding up, as its test.py does with 0.5 (640 becomes 672)."""
    order = sorted(range(len(sizes_hw)), key=lambda i: (sizes_hw[i][0] / sizes_hw[i][1], i))
    groups = []
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        sides = np.array([np.multiply(sizes_hw[i], max(size_hw) / max(sizes_hw[i])) for i in chosen]).max(0)
        height, width = (math.ceil(round(side, 6) / stride + margin) * stride for side in sides)
        groups.append((chosen, (height, width)))
    return groups


def eval_loader(
    data: DetectionData,
    *,
    size_hw: SizeHW,
    resize: Callable[..., tuple[np.ndarray, Resize]],
    batch: int,
    rectangles_of: tuple[int, float] | None = None,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """Every image once, by ``resize(image, size_hw)``; of several processes each gets its share.

    ``size_hw`` is the network's size in px. ``rectangles_of`` (stride, margin) batches images of like shape, padded no
    further than they need (see ``rectangles``): ``resize`` is then told the longest side as ``long_side``. ``workers``
    processes decode ``batch`` images each at a time.
    """
    keys: list[list[tuple[int, SizeHW]]]
    if rectangles_of:
        groups = rectangles([data.size_hw(i) for i in range(len(data))], size_hw, batch, *rectangles_of)
        keys = [[(index, shape) for index in chosen] for chosen, shape in groups[rank::world_size]]
        resize = partial(resize, long_side=max(size_hw))
    else:
        mine = range(rank, len(data), world_size)
        keys = [[(index, size_hw) for index in mine[start : start + batch]] for start in range(0, len(mine), batch)]
    return ordered_loader(ResizedData(data, resize), keys, collate, workers)


def ordered_loader(items: Items, keys: list[list[tuple[int, SizeHW]]], collate: Collate, workers: int) -> BatchLoader:
    """A batch of ``items`` for each list of ``keys``, in their order."""
    return BatchLoader(
        items,
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(0),
    )
