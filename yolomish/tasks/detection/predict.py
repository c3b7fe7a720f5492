"""From a pipeline and a data set to COCO results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from yolomish.data.datasets import DetectionData
from yolomish.data.loader import BatchLoader, eval_loader, lost_workers
from yolomish.evaluation.coco_results import CocoResults
from yolomish.ops.distributed import gather, rank, world_size
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.types import Batch, Detections

REPORT_EVERY = 10.0  # seconds between two lines where there is no terminal


def coco_results(found: Detections, image_id: int, category_ids: tuple[int, ...]) -> CocoResults:
    """An image's detections as COCO results: boxes xywh in image px, category ids of the annotation file."""
    found = found.to("cpu")
    boxes = found.boxes.double().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    labels = np.asarray(category_ids, np.int64)[found.labels.numpy()]
    return CocoResults(np.full(len(found), image_id, np.int64), labels, boxes, found.scores.double().numpy())


@torch.no_grad()
def predict(pipeline: Pipeline, data: DetectionData, *, batch: int = 8, workers: int = 0, progress: bool = False) -> CocoResults:
    """COCO results of every image.

    ``batch`` images go through the network at once, ``workers`` processes decode. A network is left in the mode it came
    in. Several processes share the images, and each returns all results. ``progress`` goes to stderr, as a bar or, where
    that is no terminal, a line every ten seconds.
    """
    protocol = pipeline.protocol
    network = pipeline.runner if isinstance(pipeline.runner, nn.Module) else None
    was_training = network is not None and network.training
    if network is not None:
        network.eval()
    loader = eval_loader(
        data,
        size_hw=pipeline.size_hw,
        resize=protocol.resize_image,
        rectangles_of=(pipeline.runner.input.stride, protocol.rect_margin) if protocol.rect else None,
        batch=batch,
        workers=workers,
        rank=rank(),
        world_size=world_size(),
    )
    results = []
    with lost_workers():
        for group in _reported(loader, len(data)) if progress else loader:
            candidates = pipeline.run(pipeline.normalise(group.images))
            for found, image_id in zip(pipeline.finish(candidates, group.resizes), group.image_ids, strict=True):
                results.append(coco_results(found, image_id, data.category_ids))
    if network is not None:
        network.train(was_training)
    return CocoResults.join(gather(CocoResults.join(results)))


def _reported(loader: BatchLoader, images: int) -> Iterator[Batch]:
    """The loader's batches; stderr is told how far their user has come with so many ``images`` of all processes."""
    if sys.stderr.isatty():
        yield from tqdm(loader, desc="evaluate", leave=False)
        return
    done, start = 0, time.monotonic()
    told = start
    for batch in loader:
        yield batch
        done, now = done + len(batch.image_ids) * world_size(), time.monotonic()
        if now - told >= REPORT_EVERY:
            told = now
            print(
                f"evaluate: {min(done, images)} of {images} images, {done / (now - start):.3g} a second",
                file=sys.stderr,
                flush=True,
            )
