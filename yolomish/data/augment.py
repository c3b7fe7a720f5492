"""Darknet's augmentations (src/data.c load_data_detection) and Scaled-YOLOv4's. All chance comes from ``rng``."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from yolomish.config import TrainConfig
from yolomish.types import Sample

MIN_SIDE = 2.0  # px
MIN_VISIBLE = 0.1
GREY = 114  # PyTorch_YOLOv4 utils/datasets.py


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


def affine(samples: list[Sample], rng: np.random.Generator, size: int, config: TrainConfig) -> Sample:
    """One image, or four round a random point of a canvas twice as large, turned, scaled, sheared and shifted to size x size.

    PyTorch_YOLOv4 utils/datasets.py load_mosaic and random_perspective, formulas alone: the scale is U(1 - s, 1 + s), the
    centre moves by U(-t, t) of the size, outside is grey. ``resize`` says whether a tile keeps its aspect.
    """
    side = size if len(samples) == 1 else 2 * size
    canvas: np.ndarray = np.full((side, side, 3), GREY, np.uint8)
    cut = np.array([size / 2, size / 2] if len(samples) == 1 else rng.uniform(0.5, 1.5, 2) * size).round().astype(int)
    boxes, labels = [], []
    for i, sample in enumerate(samples):
        h, w = sample.image.shape[:2]
        ratio = size / max(h, w)
        new_w, new_h = (size, size) if config.resize == "stretch" else (max(1, round(w * ratio)), max(1, round(h * ratio)))
        tile = cv2.resize(sample.image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
        if len(samples) == 1:
            x, y = (size - new_w) // 2, (size - new_h) // 2
        else:
            x, y = int(cut[0] - new_w * (i % 2 == 0)), int(cut[1] - new_h * (i < 2))
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + new_w, side), min(y + new_h, side)
        canvas[y0:y1, x0:x1] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        boxes.append(sample.boxes * ([new_w / w, new_h / h] * 2) + [x, y, x, y])
        labels.append(sample.labels)
    matrix = _random_matrix(rng, side, size, config)
    fill = (float(GREY),) * 3
    image = cv2.warpPerspective(canvas, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=fill)
    whole = np.concatenate(boxes).astype(np.float64)
    kept = whole.clip(0, side)  # what lies outside the canvas was never drawn
    moved = _move_boxes(kept, matrix)
    full = (whole[:, 2:] - whole[:, :2]).prod(1) * np.abs(np.linalg.det(matrix[:2, :2]))
    joined = Sample(image=image, boxes=moved.astype(np.float32), labels=np.concatenate(labels), image_id=samples[0].image_id)
    return clip_sample(joined, full)


def _random_matrix(rng: np.random.Generator, side: int, size: int, config: TrainConfig) -> np.ndarray:
    px, py = rng.uniform(-1, 1, 2) * config.perspective
    angle = rng.uniform(-1, 1) * config.degrees
    factor = 1 + rng.uniform(-1, 1) * config.scale
    sx, sy = np.tan(np.radians(rng.uniform(-1, 1, 2) * config.shear))
    tx, ty = (0.5 + rng.uniform(-1, 1, 2) * config.translate) * size
    to_centre = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1]])
    bent = np.array([[1, 0, 0], [0, 1, 0], [px, py, 1]])
    turned = np.vstack((cv2.getRotationMatrix2D((0, 0), angle, factor), [0, 0, 1]))
    sheared = np.array([[1, sx, 0], [sy, 1, 0], [0, 0, 1]])
    shifted = np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    return shifted @ sheared @ turned @ bent @ to_centre


def _move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    moved = np.column_stack((corners, np.ones(len(corners)))) @ matrix.T
    points = (moved[:, :2] / moved[:, 2:]).reshape(-1, 4, 2)
    return np.concatenate((points.min(1), points.max(1)), 1)


def augment_one(sample: Sample, rng: np.random.Generator, size: int, config: TrainConfig) -> Sample:
    """The configured geometry, flip and HSV: image px -> network px of a ``size`` x ``size`` input."""
    if config.geometry == "affine":
        sample = affine([sample], rng, size, config)
    else:
        sample = jitter(sample, rng, size, config.jitter, config.resize == "letterbox")
    return _finish(sample, rng, config)


def _finish(sample: Sample, rng: np.random.Generator, config: TrainConfig) -> Sample:
    if rng.random() < config.flip:
        sample = flip(sample)
    return hsv(sample, rng, config.hue, config.saturation, config.exposure)


def mosaic(first: Sample, draw: Callable[[], Sample], rng: np.random.Generator, size: int, config: TrainConfig) -> Sample:
    """Four images in one, ``draw`` gives the other three: by ``affine``, or jittered ones of which a corner window shows.

    The jittered kind is Darknet's: cut at U(0.2, 0.8) an axis.
    """
    if config.geometry == "affine":
        return _finish(affine([first, draw(), draw(), draw()], rng, size, config), rng, config)
    cut_x, cut_y = (int(v) for v in rng.uniform(0.2, 0.8, 2) * size)
    windows = ((0, 0, cut_x, cut_y), (cut_x, 0, size, cut_y), (0, cut_y, cut_x, size), (cut_x, cut_y, size, size))
    canvas: np.ndarray = np.empty((size, size, 3), np.uint8)
    boxes, labels = [], []
    for i, window in enumerate(windows):
        tile = augment_one(first if i == 0 else draw(), rng, size, config)
        x0, y0, x1, y1 = window
        canvas[y0:y1, x0:x1] = tile.image[y0:y1, x0:x1]
        clipped, keep = _within(tile.boxes, window)
        boxes.append(clipped[keep])
        labels.append(tile.labels[keep])
    return Sample(
        image=canvas, boxes=np.concatenate(boxes).astype(np.float32), labels=np.concatenate(labels), image_id=first.image_id
    )


def _within(boxes: np.ndarray, window: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped to a window and whether enough of each is left."""
    x0, y0, x1, y1 = window
    clipped = boxes.clip([x0, y0, x0, y0], [x1, y1, x1, y1])
    sides = clipped[:, 2:] - clipped[:, :2]
    full = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return clipped, (sides >= MIN_SIDE).all(1) & (sides.prod(1) >= MIN_VISIBLE * full)


def mixup(a: Sample, b: Sample, rng: np.random.Generator) -> Sample:
    """Two network-size images blended by Beta(8, 8), with the boxes of both (arXiv:1902.04103, 3.1)."""
    share = rng.beta(8, 8)
    image = cv2.addWeighted(a.image, share, b.image, 1 - share, 0)
    return _joined(image, a, b, slice(None), b.boxes, slice(None))


def cutmix(a: Sample, b: Sample, rng: np.random.Generator) -> Sample:
    """A window of ``b``, a share of the area U(0, 1), over ``a`` (arXiv:1905.04899, 3.1); both of one size.

    Boxes of ``a`` that the window hides by nine tenths go; those of ``b`` are clipped to it as in a mosaic.
    """
    size = np.array(a.image.shape[1::-1])
    half = size * np.sqrt(rng.random()) / 2
    centre = rng.random(2) * size
    (x0, y0), (x1, y1) = (centre - half).clip(0).astype(int), np.minimum(centre + half, size).astype(int)
    image = a.image.copy()
    image[y0:y1, x0:x1] = b.image[y0:y1, x0:x1]
    window = (int(x0), int(y0), int(x1), int(y1))
    clipped, keep = _within(b.boxes, window)
    hidden, _ = _within(a.boxes, window)
    lost = (hidden[:, 2:] - hidden[:, :2]).clip(0).prod(1)
    seen = lost < (1 - MIN_VISIBLE) * (a.boxes[:, 2:] - a.boxes[:, :2]).prod(1)
    return _joined(image, a, b, seen, clipped, keep)


def _joined(image: np.ndarray, a: Sample, b: Sample, keep_a: object, boxes_b: np.ndarray, keep_b: object) -> Sample:
    return Sample(
        image=image,
        boxes=np.concatenate((a.boxes[keep_a], boxes_b[keep_b])).astype(np.float32),
        labels=np.concatenate((a.labels[keep_a], b.labels[keep_b])),
        image_id=a.image_id,
    )
