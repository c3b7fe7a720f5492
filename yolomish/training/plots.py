"""Pictures of a run: its curves, and its first batches as the network sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolomish.files import replace_file
from yolomish.types import Batch

COLOURS_RGB = ((230, 57, 70), (29, 120, 200), (42, 157, 72), (244, 162, 30), (130, 60, 190), (0, 170, 170))


def save_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Losses, AP and learning rate over the epochs of ``history`` (rows as in results.csv) as a PNG."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    for part in ("box", "objectness", "class"):
        axes[0].plot(epochs, [row[f"train/{part}_loss"] for row in history], marker=".", label=part)
    axes[0].set_title("training loss")
    measured = [row for row in history if row["metrics/AP"] is not None]
    for key in ("AP", "AP50", "AP75"):
        values = [row[f"metrics/{key}"] for row in measured]
        axes[1].plot([row["epoch"] for row in measured], values, marker=".", label=key)
    axes[1].set_title("validation (COCO AP, 0..1)")
    axes[2].plot(epochs, [row["lr"] for row in history], marker=".", label="lr")
    axes[2].set_title("learning rate at the epoch's end")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110))


def save_batch(batch: Batch, names: Sequence[str], path: Path, *, most: int = 16) -> None:
    """The first ``most`` images of a training batch in a square grid with their boxes and names, as a JPEG."""
    images = batch.images[:most].permute(0, 2, 3, 1).cpu().numpy()
    side = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / side)
    height, width = images.shape[1:3]
    sheet = np.full((rows * height, side * width, 3), 114, np.uint8)
    for i, image in enumerate(images):
        top, left = i // side * height, i % side * width
        tile = sheet[top : top + height, left : left + width]
        tile[:] = image  # never draw on the batch itself: it is trained on next
        for row in batch.targets[batch.targets[:, 0] == i].tolist():
            label = int(row[1])
            colour = COLOURS_RGB[label % len(COLOURS_RGB)]
            x1, y1, x2, y2 = (round(v) for v in row[2:])
            cv2.rectangle(tile, (x1, y1), (x2, y2), colour, 1)
            cv2.putText(tile, names[label], (x1 + 1, max(y1 - 3, 9)), cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
