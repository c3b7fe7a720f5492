"""Darknet's mosaic pixel by pixel (src/data.c load_data_detection and blend_truth_mosaic with mosaic_bound=0)."""

from __future__ import annotations

import numpy as np


def darknet_mosaic(tiles: list[tuple], cut_x: int, cut_y: int) -> tuple[np.ndarray, list[tuple]]:
    """(image, boxes) of four tiles (image (S, S), boxes, inner padding (x, y)); a box is (label, left, top, right, bottom)."""
    side = tiles[0][0].shape[0]
    image, boxes = np.zeros((side, side), int), []
    for number, (pixels, tile_boxes, (pad_x, pad_y)) in enumerate(tiles):
        left_shift, top_shift = min(cut_x, pad_x), min(cut_y, pad_y)
        right_shift, bottom_shift = min(side - cut_x, pad_x), min(side - cut_y, pad_y)
        for y in range(side):
            for x in range(side):
                if (number in (0, 2)) != (x < cut_x) or (number in (0, 1)) != (y < cut_y):
                    continue
                source_x = x + side - cut_x - right_shift if number in (0, 2) else x - cut_x + left_shift
                source_y = y + side - cut_y - bottom_shift if number in (0, 1) else y - cut_y + top_shift
                image[y, x] = pixels[source_y, source_x]
        move_x = -(side - cut_x - right_shift) if number in (0, 2) else cut_x - left_shift
        move_y = -(side - cut_y - bottom_shift) if number in (0, 1) else cut_y - top_shift
        for label, x1, y1, x2, y2 in tile_boxes:
            x1, x2 = max(x1 + move_x, 0), min(x2 + move_x, side)
            y1, y2 = max(y1 + move_y, 0), min(y2 + move_y, side)
            if x2 - x1 >= 1 and y2 - y1 >= 1:
                boxes.append((label, x1, y1, x2, y2))
    return image, boxes
