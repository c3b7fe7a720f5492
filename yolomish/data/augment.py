"""Darknet's augmentations (src/data.c load_data_detection): jitter, flip, HSV, mosaic. All chance comes from ``rng``."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from yolomish.config import TrainConfig
from yolomish.types import Sample

MIN_SIDE = 2.0  # px
MIN_VISIBLE = 0.1


def clip_sample(sample: Sample, full_areas: np.ndarray | None = None) -> Sample:
    """Boxes clipped to the image; those under 2 px a side, or with under a tenth of ``full_areas`` (N,) left, dropped."""
    h, w = sample.image.shape[:2]
    boxes = sample.boxes.clip(0, [w, h, w, h]).astype(np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides >= MIN_SIDE).all(1)
    if full_areas is not None:
        keep &= sides.prod(1) >= MIN_VISIBLE * full_areas
    return Sample(image=sample.image, boxes=boxes[keep], labels=sample.labels[keep], image_id=sample.image_id)


def jitter(sample: Sample, rng: np.random.Generator, size: int, amount: float, keep_aspect: bool = False) -> Sample:
    """Each side moved by U(-amount, amount) of the image, outside filled with its mean colour, then size x size.

    ``keep_aspect`` scales both axes alike and centres the crop, as a letterboxed network wants.
    """
    h, w = sample.image.shape[:2]
    left, right, top, bottom = rng.uniform(-amount, amount, 4) * (w, w, h, h)
    x0, y0, x1, y1 = left, top, w - right, h - bottom
    if keep_aspect:
        side = max(x1 - x0, y1 - y0)
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        x0, y0, x1, y1 = cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2
    sx, sy = size / (x1 - x0), size / (y1 - y0)
    matrix = np.array([[sx, 0, -x0 * sx + (sx - 1) / 2], [0, sy, -y0 * sy + (sy - 1) / 2]])
    fill = tuple(float(v) for v in sample.image.mean((0, 1)))
    image = cv2.warpAffine(sample.image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=fill)
    boxes = (sample.boxes - [x0, y0, x0, y0]) * [sx, sy, sx, sy]
    moved = Sample(image=image, boxes=boxes, labels=sample.labels, image_id=sample.image_id)
    return clip_sample(moved, (boxes[:, 2:] - boxes[:, :2]).prod(1))


def flip(sample: Sample) -> Sample:
    """Left to right."""
    w = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = w - boxes[:, [2, 0]]
    return Sample(image=sample.image[:, ::-1].copy(), boxes=boxes, labels=sample.labels, image_id=sample.image_id)


def hsv(sample: Sample, rng: np.random.Generator, hue: float, saturation: float, exposure: float) -> Sample:
    """Hue moved by U(-hue, hue) of the circle; S and V times U(1, limit) or its inverse (src/utils.c rand_scale)."""
    gains = [g if rng.random() < 0.5 else 1 / g for g in (rng.uniform(1, saturation), rng.uniform(1, exposure))]
    shift = rng.uniform(-hue, hue) * 180
    steps = np.arange(256)
    h, s, v = cv2.split(cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV))
    h = cv2.LUT(h, ((steps + shift) % 180).astype(np.uint8))
    s, v = (cv2.LUT(x, (steps * g).clip(0, 255).astype(np.uint8)) for x, g in zip((s, v), gains, strict=True))
    image = cv2.cvtColor(cv2.merge((h, s, v)), cv2.COLOR_HSV2RGB)
    return Sample(image=image, boxes=sample.boxes, labels=sample.labels, image_id=sample.image_id)


def augment_one(sample: Sample, rng: np.random.Generator, config: TrainConfig) -> Sample:
    """Jitter, flip and HSV: image px -> network px."""
    sample = jitter(sample, rng, config.image_size, config.jitter, config.resize == "letterbox")
    if rng.random() < config.flip:
        sample = flip(sample)
    return hsv(sample, rng, config.hue, config.saturation, config.exposure)


def mosaic(first: Sample, draw: Callable[[], Sample], rng: np.random.Generator, config: TrainConfig) -> Sample:
    """Four jittered images, a corner window of each, cut at U(0.2, 0.8) an axis; ``draw`` gives the other three."""
    size = config.image_size
    cut_x, cut_y = (int(v) for v in rng.uniform(0.2, 0.8, 2) * size)
    windows = ((0, 0, cut_x, cut_y), (cut_x, 0, size, cut_y), (0, cut_y, cut_x, size), (cut_x, cut_y, size, size))
    canvas: np.ndarray = np.empty((size, size, 3), np.uint8)
    boxes, labels = [], []
    for i, (x0, y0, x1, y1) in enumerate(windows):
        tile = augment_one(first if i == 0 else draw(), rng, config)
        canvas[y0:y1, x0:x1] = tile.image[y0:y1, x0:x1]
        full = (tile.boxes[:, 2:] - tile.boxes[:, :2]).prod(1)
        clipped = tile.boxes.clip([x0, y0, x0, y0], [x1, y1, x1, y1])
        sides = clipped[:, 2:] - clipped[:, :2]
        keep = (sides >= MIN_SIDE).all(1) & (sides.prod(1) >= MIN_VISIBLE * full)
        boxes.append(clipped[keep])
        labels.append(tile.labels[keep])
    return Sample(
        image=canvas, boxes=np.concatenate(boxes).astype(np.float32), labels=np.concatenate(labels), image_id=first.image_id
    )
