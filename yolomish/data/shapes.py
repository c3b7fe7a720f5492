"""The built-in data: generated pictures of four shapes on textured backgrounds, written as real JPEG + COCO JSON."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np

from yolomish.data.images import write_image
from yolomish.errors import YolomishError
from yolomish.files import cache_folder, reason, shown_path, write_text

NAMES = ("circle", "square", "triangle", "star")
CATEGORY_IDS = (1, 3, 7, 9)  # with gaps, as COCO's
COUNTS = {"train": 400, "val": 100}
SIDE = 192
HUES = (0, 45, 90, 135)  # OpenCV's half degrees: red, green, cyan, violet
TYPICAL = 0.8  # the share of objects in their class's hue: colour helps, shape decides


def shapes_root() -> Path:
    """The folder of the generated set, made on first use: shapes-v2 in the cache folder; YolomishError where it cannot be."""
    cache = cache_folder()
    root = cache / "shapes-v2"
    if not (root / "val.json").is_file():
        partial = cache / f"shapes-v2.{os.getpid()}.part"
        try:
            generate(partial)
            os.replace(partial, root)
        except (OSError, YolomishError) as error:
            if not (root / "val.json").is_file():  # else another process was first
                raise YolomishError(
                    f"the generated pictures cannot be written: {reason(error)}; $YOLOMISH_CACHE names another folder than "
                    f"{shown_path(cache)}"
                ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return root


def generate(root: Path) -> None:
    """Write train.json, val.json and the folders train/ and val/ under ``root``; the same bytes at every call."""
    for number, (split, count) in enumerate(COUNTS.items()):
        folder = root / split
        folder.mkdir(parents=True, exist_ok=True)
        images: list[dict] = []
        annotations: list[dict] = []
        for index in range(count):
            drawn, boxes, labels = picture(np.random.default_rng((number, index)))
            name = f"{split}-{index:04d}.jpg"
            write_image(folder / name, drawn)
            image_id = 1000 * (number + 1) + index
            images.append({"id": image_id, "file_name": name, "width": SIDE, "height": SIDE})
            for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
                w, h = float(x1 - x0), float(y1 - y0)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": CATEGORY_IDS[label],
                        "bbox": [float(x0), float(y0), w, h],
                        "area": w * h,
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": i, "name": n} for i, n in zip(CATEGORY_IDS, NAMES, strict=True)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_text(root / f"{split}.json", json.dumps(content))


def _outline(label: int, centre: np.ndarray, radius: float, angle: float) -> np.ndarray:
    corners = (64, 4, 3, 10)[label]
    turns = np.arange(corners) * 2 * np.pi / corners + angle
    radii = np.where(np.arange(corners) % 2, 0.45, 1.0) if label == 3 else np.ones(corners)
    return centre + radius * radii[:, None] * np.stack((np.cos(turns), np.sin(turns)), 1)


def picture(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """A picture (192, 192, 3) uint8 RGB, its boxes (4,) xyxy in px and its labels."""
    low = rng.integers(60, 170, (6, 6, 3)).astype(np.uint8)
    picture = cv2.resize(low, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    picture = (picture + rng.normal(0, 10, picture.shape)).clip(0, 255).astype(np.uint8)
    visible = np.full((SIDE, SIDE), -1)
    placed: list[tuple[np.ndarray, int, int]] = []
    for _ in range(int(rng.integers(1, 6))):
        label = int(rng.integers(4))
        radius = float(rng.uniform(8, 60))
        centre = rng.uniform(radius * 0.8, SIDE - radius * 0.8, 2)
        mask: np.ndarray = np.zeros((SIDE, SIDE), np.uint8)
        outline = _outline(label, centre, radius, float(rng.uniform(0, 2 * np.pi)))
        cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1)
        area = int(mask.sum())
        covered = [(visible == i)[mask > 0].sum() / a for i, (_, _, a) in enumerate(placed)]
        if any(c > 0.35 for c in covered):
            continue
        hue = int((HUES[label] + rng.normal(0, 8)) % 180) if rng.random() < TYPICAL else int(rng.integers(180))
        colour = cv2.cvtColor(np.uint8([[[hue, 220, 250 if rng.random() < 0.7 else 110]]]), cv2.COLOR_HSV2RGB)[0, 0]  # type: ignore[arg-type]
        picture[mask > 0] = (colour + rng.normal(0, 8, (area, 3))).clip(0, 255)
        visible[mask > 0] = len(placed)
        rows, columns = np.nonzero(mask)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        placed.append((box, label, area))
    return picture, [b for b, _, _ in placed], [label for _, label, _ in placed]
