"""A training batch of a classifier as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yolomish.drawing.boxes import draw_boxes, save_sheet
from yolomish.types import Batch

MOST_NAMED = 4  # classes of a mixed image


def draw_classes(batch: Batch, names: Sequence[str], path: Path, *, most: int = 16) -> None:
    """Write the first ``most`` images of a training batch in a square grid, framed and named by their classes, those of a mixed
    image with their shares."""
    images = batch.images[:most].permute(0, 2, 3, 1).cpu().numpy()
    drawn = []
    for image, shares in zip(images, batch.targets.numpy(), strict=False):
        order = [label for label in np.argsort(-shares, kind="stable")[:MOST_NAMED] if shares[label] > 0]
        text = names[order[0]] if len(order) == 1 else ", ".join(f"{names[k]} {shares[k]:.0%}" for k in order)
        whole = np.array([[0, 0, image.shape[1], image.shape[0]]])
        drawn.append(draw_boxes(image, whole, [int(order[0])], [text], line_width=1))
    save_sheet(drawn, path)
