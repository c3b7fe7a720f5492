"""Darknet's src/image.c resize_image as loops over pixels in float32."""

import numpy as np

F = np.float32


def resize_image(image: np.ndarray, new_h: int, new_w: int) -> np.ndarray:
    """(H, W, C) -> (new_h, new_w, C): first along the rows, then along the columns, the last row without its second term."""
    h, w, channels = image.shape
    part = np.zeros((h, new_w, channels), F)
    resized = np.zeros((new_h, new_w, channels), F)
    w_scale, h_scale = F(w - 1) / F(new_w - 1), F(h - 1) / F(new_h - 1)
    for k in range(channels):
        for r in range(h):
            for c in range(new_w):
                if c == new_w - 1 or w == 1:
                    part[r, c, k] = image[r, w - 1, k]
                else:
                    sx = F(c) * w_scale
                    ix = int(sx)
                    dx = sx - F(ix)
                    part[r, c, k] = (F(1) - dx) * F(image[r, ix, k]) + dx * F(image[r, ix + 1, k])
        for r in range(new_h):
            sy = F(r) * h_scale
            iy = int(sy)
            dy = sy - F(iy)
            for c in range(new_w):
                resized[r, c, k] = (F(1) - dy) * part[iy, c, k]
            if r == new_h - 1 or h == 1:
                continue
            for c in range(new_w):
                resized[r, c, k] += dy * part[iy + 1, c, k]
    return resized
