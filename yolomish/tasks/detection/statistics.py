"""What the labels and anchors of a data set look like, said before training starts, and how many images hold what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from yolomish.config import TrainConfig
from yolomish.data.datasets import DetectionData
from yolomish.evaluation.coco import counts_as_object
from yolomish.evaluation.resample import METRICS
from yolomish.tasks.detection.assign import shape_overlap, within_ratio
from yolomish.types import HeadSpec, size_text

SIZES = {"APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, 1e10)}  # px², pycocotools' areaRng


def data_lines(data: DetectionData, config: TrainConfig, heads: Sequence[HeadSpec]) -> list[str]:
    """Lines for the log: boxes per class, their sizes in network px, and for how many boxes an anchor answers."""
    labels, sizes = data.boxes_at(config.image_size, keep_aspect=config.resize == "letterbox")
    if not len(labels):
        return [f"labels: none in {len(data)} images"]
    counts = np.bincount(labels, minlength=len(data.names))
    order = counts.argsort()[::-1]
    shown = ", ".join(f"{data.names[i]} {counts[i]}" for i in order[:8])
    rest = f", and {len(order) - 8} more classes" if len(order) > 8 else ""
    empty = [data.names[i] for i in order if not counts[i]]
    lines = [f"labels: {len(labels)} boxes in {len(data)} images: {shown}{rest}"]
    if empty:
        lines.append(f"labels: no box of {', '.join(empty[:8])}{', ...' if len(empty) > 8 else ''}: nothing to learn there")
    sides = np.sqrt(sizes.prod(1))
    low, middle, high = np.percentile(sides, (5, 50, 95))
    anchors = torch.tensor(list(dict.fromkeys(a for head in heads for a in head.anchors)), dtype=torch.float32)
    boxes = torch.from_numpy(sizes.astype(np.float32))
    if config.assignment == "ratio":
        reached = within_ratio(boxes, anchors).sum(1)
    else:
        constants = heads[0].loss
        overlaps = shape_overlap(boxes, anchors, constants.shape_kind)
        reached = (overlaps > constants.shape_iou).sum(1).clamp(min=1)  # the best one always answers
    covered = (reached > 0).float().mean().item()
    lines.append(
        f"boxes: side (root of area) {low:.0f} to {high:.0f} px at {size_text(config.image_size)} px (5th to 95th percentile, "
        f"median {middle:.0f}); anchors answer for {covered:.1%} of them, {reached.float().mean().item():.1f} anchors per box"
    )
    if covered < 0.98:
        lines.append("boxes: anchors miss more than 2 % of the boxes: give the model's YAML anchors of this data's sizes")
    return lines


def held_units(data: DetectionData, groups: np.ndarray | None) -> dict[str, int]:
    """How many images, or ``groups`` (I,) of them, hold objects: of any kind (AP, AP50, AP75), of a size, of a class."""
    truth, names = data.coco(), dict(zip(data.category_ids, data.names, strict=True))
    order = sorted(truth.getImgIds())
    of_image = dict(zip(order, range(len(order)) if groups is None else groups.tolist(), strict=True))
    held: dict[str, set[int]] = {name: set() for name in (*METRICS, *data.names)}
    for annotation in filter(counts_as_object, truth.dataset["annotations"]):
        unit = of_image[annotation["image_id"]]
        for name in ("AP", "AP50", "AP75", names[annotation["category_id"]]):
            held[name].add(unit)
        for name, (low, high) in SIZES.items():
            if low <= annotation["area"] <= high:
                held[name].add(unit)
    return {name: len(units) for name, units in held.items()}
