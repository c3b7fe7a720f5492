"""Darknet's augmentations (src/data.c load_data_detection) and Scaled-YOLOv4's. All chance comes from ``rng``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from yolomish.config import TrainConfig
from yolomish.types import Sample, SizeHW

MIN_SIDE = 1.0  # px; Darknet src/data.c fill_truth_detection and blend_truth_mosaic
MIN_PASTED_SIDE, MIN_VISIBLE = 2.0, 0.1  # px, and share of the area: PyTorch_YOLOv4 utils/datasets.py
LEAST_LEFT = 0.1  # of each side that jitter leaves, so that no crop is empty or turned over
VECTOR = 64  # px: OpenCV rounds the columns after the last whole vector otherwise, in warpAffine (5) and HSV2RGB (4, 5)
Window = tuple[int, int, int, int]  # left, top, right, bottom in px


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a mosaic's tile lies: its frame's ``offset`` (x, y) in the whole, and the ``quarter`` of the whole that shows it.

    ``needed`` of the tile, in its own frame, is what is seen and the columns left and right of it up to whole ``VECTOR``.
    """

    offset: np.ndarray
    quarter: Window
    needed: Window


def clip_sample(sample: Sample, size_hw: SizeHW, full_areas: np.ndarray | None = None) -> Sample:
    """Boxes clipped to an image of ``size_hw`` px, those under 1 px a side dropped: Darknet's rule.

    With the boxes' areas before, ``full_areas`` (N,), Scaled-YOLOv4's: under 2 px a side or a tenth of the area left.
    """
    h, w = size_hw
    boxes = sample.boxes.clip(0, [w, h, w, h]).astype(np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides >= MIN_SIDE).all(1)
    if full_areas is not None:
        keep = (sides >= MIN_PASTED_SIDE).all(1) & (sides.prod(1) >= MIN_VISIBLE * full_areas)
    return Sample(image=sample.image, boxes=boxes[keep], labels=sample.labels[keep], image_id=sample.image_id)


def random_margins(sample: Sample, rng: np.random.Generator, size_hw: SizeHW, config: TrainConfig) -> np.ndarray:
    """(4,) left, right, top, bottom in image px to cut off, or below 0 to add: each U(-jitter, jitter) of the image.

    With ``zoom`` z (Darknet's [yolo] resize) left and top move by one more share of U((1-z)/2, (1-1/z)/2), right and bottom
    by another; with z < 1 of U((1-1/z)/2, 0).
    Where two would leave less than a tenth of a side, both are moved out alike until a tenth is left. A letterboxed
    network's grow about the centre until the rest has the shape of ``size_hw``, so that both axes scale alike.
    """
    sides = np.array(sample.image.shape[1::-1], np.float64)  # width, height
    margins = rng.uniform(-config.jitter, config.jitter, (2, 2)) * sides[:, None]
    if config.zoom != 1:
        factor = max(config.zoom, 1 / config.zoom)
        low, high = (1 - factor) / 2, (1 - 1 / factor) / 2 if config.zoom > 1 else 0.0
        margins += rng.uniform(low, high, 2) * sides[:, None]
    margins -= ((margins.sum(1) - (1 - LEAST_LEFT) * sides).clip(0) / 2)[:, None]
    if config.resize == "letterbox":
        left = sides - margins.sum(1)
        shape = np.array(size_hw[::-1])
        margins -= ((shape * (left / shape).max() - left) / 2)[:, None]
    return margins.ravel()


def crop(sample: Sample, margins: np.ndarray, size_hw: SizeHW, window: Window | None = None) -> Sample:
    """What ``margins`` (4,) leave of an image, at ``size_hw`` network px; added margins have the image's mean colour.

    With a ``window``, the image is that part of it alone, to the bit where it is of whole ``VECTOR``; the boxes stay.
    """
    h, w = sample.image.shape[:2]
    left, right, top, bottom = margins
    sx, sy = size_hw[1] / (w - left - right), size_hw[0] / (h - top - bottom)
    matrix = np.array([[sx, 0, -left * sx + (sx - 1) / 2], [0, sy, -top * sy + (sy - 1) / 2]])
    fill = [total / (h * w) for total in cv2.sumElems(sample.image)]  # numpy's mean to the bit, which cv2.mean is not
    x0, y0, x1, y1 = window or (0, 0, *size_hw[::-1])
    image = cv2.warpAffine(sample.image, matrix, (x1, y1), flags=cv2.INTER_LINEAR, borderValue=fill)[y0:y1, x0:x1]
    boxes = (sample.boxes - [left, top, left, top]) * [sx, sy, sx, sy]
    return clip_sample(Sample(image=image, boxes=boxes, labels=sample.labels, image_id=sample.image_id), size_hw)


def flip(sample: Sample) -> Sample:
    """Left to right."""
    w = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = w - boxes[:, [2, 0]]
    return Sample(image=cv2.flip(sample.image, 1), boxes=boxes, labels=sample.labels, image_id=sample.image_id)


def hsv(sample: Sample, rng: np.random.Generator, hue: float, saturation: float, exposure: float) -> Sample:
    """Hue moved by U(-hue, hue) of the circle; S and V times U(1, limit) or its inverse (src/utils.c rand_scale)."""
    gains = [g if rng.random() < 0.5 else 1 / g for g in (rng.uniform(1, saturation), rng.uniform(1, exposure))]
    shift = rng.uniform(-hue, hue) * 179  # src/image_opencv.cpp image_data_augmentation
    if shift == 0 and gains == [1, 1]:
        return sample  # as there: the way to 8-bit HSV and back would change pixels
    steps = np.arange(256)
    h, s, v = cv2.split(cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV))
    h = cv2.LUT(h, ((steps + shift) % 180).astype(np.uint8))
    s, v = (cv2.LUT(x, (steps * g).clip(0, 255).astype(np.uint8)) for x, g in zip((s, v), gains, strict=True))
    image = cv2.cvtColor(cv2.merge((h, s, v)), cv2.COLOR_HSV2RGB)
    return Sample(image=image, boxes=sample.boxes, labels=sample.labels, image_id=sample.image_id)


def affine(samples: list[Sample], rng: np.random.Generator, size_hw: SizeHW, config: TrainConfig, *, grey: int) -> Sample:
    """One image, or four round a random point of a canvas twice as large, turned, scaled, sheared and shifted to network px.

    PyTorch_YOLOv4 utils/datasets.py load_mosaic and random_perspective, formulas alone: the scale is U(1 - s, 1 + s), the
    centre moves by U(-t, t) of the size, outside is ``grey``. ``resize`` says whether a tile keeps its aspect.
    """
    size = np.array(size_hw[::-1])  # width, height
    side_x, side_y = (size if len(samples) == 1 else 2 * size).tolist()
    canvas: np.ndarray = np.full((side_y, side_x, 3), grey, np.uint8)
    cut = (size / 2 if len(samples) == 1 else rng.uniform(0.5, 1.5, 2) * size).round().astype(int)
    boxes, labels = [], []
    for i, sample in enumerate(samples):
        h, w = sample.image.shape[:2]
        scale = size / (w, h)
        if config.resize == "letterbox":
            scale = np.full(2, scale.min())
        new_w, new_h = (max(1, round(side)) for side in (scale * (w, h)).tolist())
        same = (new_w, new_h) == (w, h)
        tile = sample.image if same else cv2.resize(sample.image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
        if len(samples) == 1:
            x, y = (side_x - new_w) // 2, (side_y - new_h) // 2
        else:
            x, y = int(cut[0] - new_w * (i % 2 == 0)), int(cut[1] - new_h * (i < 2))
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + new_w, side_x), min(y + new_h, side_y)
        canvas[y0:y1, x0:x1] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        boxes.append(sample.boxes * ([new_w / w, new_h / h] * 2) + [x, y, x, y])
        labels.append(sample.labels)
    matrix = _random_matrix(rng, (side_y, side_x), size_hw, config)
    fill = (float(grey),) * 3
    if config.perspective:
        image = cv2.warpPerspective(canvas, matrix, size_hw[::-1], flags=cv2.INTER_LINEAR, borderValue=fill)
    else:
        image = cv2.warpAffine(canvas, matrix[:2], size_hw[::-1], flags=cv2.INTER_LINEAR, borderValue=fill)
    whole = np.concatenate(boxes).astype(np.float64)
    kept = whole.clip(0, [side_x, side_y] * 2)  # what lies outside the canvas was never drawn
    moved = _move_boxes(kept, matrix)
    full = (whole[:, 2:] - whole[:, :2]).prod(1) * np.abs(np.linalg.det(matrix[:2, :2]))
    joined = Sample(image=image, boxes=moved.astype(np.float32), labels=np.concatenate(labels), image_id=samples[0].image_id)
    return clip_sample(joined, size_hw, full)


def _random_matrix(rng: np.random.Generator, canvas_hw: SizeHW, size_hw: SizeHW, config: TrainConfig) -> np.ndarray:
    px, py = rng.uniform(-1, 1, 2) * config.perspective
    angle = rng.uniform(-1, 1) * config.degrees
    factor = 1 + rng.uniform(-1, 1) * config.scale
    sx, sy = np.tan(np.radians(rng.uniform(-1, 1, 2) * config.shear))
    tx, ty = (0.5 + rng.uniform(-1, 1, 2) * config.translate) * size_hw[::-1]
    to_centre = np.array([[1, 0, -canvas_hw[1] / 2], [0, 1, -canvas_hw[0] / 2], [0, 0, 1]])
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


def augment_one(sample: Sample, rng: np.random.Generator, size_hw: SizeHW, config: TrainConfig, *, grey: int) -> Sample:
    """The configured geometry, flip and HSV: image px -> network px of an input of ``size_hw`` padded with ``grey``."""
    if config.geometry == "affine":
        sample = affine([sample], rng, size_hw, config, grey=grey)
    else:
        sample = crop(sample, random_margins(sample, rng, size_hw, config), size_hw)
    return _finish(sample, rng, config)


def _finish(sample: Sample, rng: np.random.Generator, config: TrainConfig) -> Sample:
    if rng.random() < config.flip:
        sample = flip(sample)
    return hsv(sample, rng, config.hue, config.saturation, config.exposure)


def mosaic(
    first: Sample,
    draw: Callable[[], Sample],
    rng: np.random.Generator,
    size_hw: SizeHW,
    config: TrainConfig,
    *,
    grey: int,
) -> Sample:
    """Four images in one, ``draw`` returns the other three: Scaled-YOLOv4's by ``affine``, or Darknet's round a cut.

    Darknet's (src/data.c load_data_detection): cut at U(0.2, 0.8) per axis; four whole jittered images meet there with
    their inner corners, half of them cropped or widened at the inner sides alone.
    """
    samples = [first, draw(), draw(), draw()]
    if config.geometry == "affine":
        return _finish(affine(samples, rng, size_hw, config, grey=grey), rng, config)
    size = size_hw[::-1]
    cut = (rng.uniform(0.2, 0.8, 2) * size).astype(int)
    tiles, places = [], []
    for i, sample in enumerate(samples):
        inner = np.array([1 - i % 2, 2 + (i < 2)])  # margins that lie towards the cut: right or left, bottom or top
        margins = random_margins(sample, rng, size_hw, config)
        if rng.random() < 0.5:
            outer = np.array([i % 2, 2 + (i >= 2)])
            margins[inner] += margins[outer]
            margins[outer] = 0
        h, w = sample.image.shape[:2]
        places.append(tile_place(i, (-margins[inner] * size / (w, h)).clip(0).astype(int), cut, size_hw))
        if rng.random() < config.flip:
            sample = flip(sample)
        tile = crop(sample, margins, size_hw, places[i].needed)
        tiles.append(hsv(tile, rng, config.hue, config.saturation, config.exposure))
    return join_tiles(tiles, places, size_hw)


def tile_place(number: int, padding: np.ndarray, cut: np.ndarray, size_hw: SizeHW) -> Place:
    """Where tile ``number`` of four (upper left, upper right, lower left, lower right), each of ``size_hw`` px, lies.

    Their inner corners meet at ``cut`` (x, y); ``padding`` (2,), px added at a tile's inner sides, is pushed over the cut out
    of sight as far as the tile reaches (src/data.c load_data_detection).
    """
    size = np.array(size_hw[::-1])  # width, height
    second = np.array([number % 2, number // 2])  # whether the tile lies right of the cut, below the cut
    offset = np.where(second, cut - np.minimum(padding, cut), cut - size + np.minimum(padding, size - cut))
    (x0, y0), (x1, y1) = np.where(second, cut, 0).tolist(), np.where(second, size, cut).tolist()
    dx, dy = offset.tolist()
    left, right = (x0 - dx) // VECTOR * VECTOR, min(math.ceil((x1 - dx) / VECTOR) * VECTOR, size_hw[1])
    return Place(offset=offset, quarter=(x0, y0, x1, y1), needed=(left, y0 - dy, right, y1 - dy))


def join_tiles(tiles: Sequence[Sample], places: Sequence[Place], size_hw: SizeHW) -> Sample:
    """Four tiles, the images of which are what is needed of them, as one of ``size_hw`` px.

    Boxes move with their tile and are clipped to the whole alone (src/data.c blend_truth_mosaic, mosaic_bound=0).
    """
    canvas: np.ndarray = np.empty((*size_hw, 3), np.uint8)
    for tile, place in zip(tiles, places, strict=True):
        x0, y0, x1, y1 = place.quarter
        left, top = place.offset + place.needed[:2]
        canvas[y0:y1, x0:x1] = tile.image[y0 - top : y1 - top, x0 - left : x1 - left]
    boxes = np.concatenate([tile.boxes + np.tile(place.offset, 2) for tile, place in zip(tiles, places, strict=True)])
    labels = np.concatenate([tile.labels for tile in tiles])
    return clip_sample(Sample(image=canvas, boxes=boxes, labels=labels, image_id=tiles[0].image_id), size_hw)


def _within(boxes: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Boxes clipped to a window and whether enough of each is left."""
    x0, y0, x1, y1 = window
    clipped = boxes.clip([x0, y0, x0, y0], [x1, y1, x1, y1])
    sides = clipped[:, 2:] - clipped[:, :2]
    full = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return clipped, (sides >= MIN_PASTED_SIDE).all(1) & (sides.prod(1) >= MIN_VISIBLE * full)


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


def _joined(image: np.ndarray, a: Sample, b: Sample, keep_a: Any, boxes_b: np.ndarray, keep_b: Any) -> Sample:
    return Sample(
        image=image,
        boxes=np.concatenate((a.boxes[keep_a], boxes_b[keep_b])).astype(np.float32),
        labels=np.concatenate((a.labels[keep_a], b.labels[keep_b])),
        image_id=a.image_id,
    )
