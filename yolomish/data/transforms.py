"""The resize to network pixels and its inverse; boxes change frame here and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from yolomish.types import Detections, Interpolation, Resize, ResizeMode, SizeHW


def darknet_resize(image: np.ndarray, size_hw: SizeHW) -> np.ndarray:
    """``image`` (H, W, C) at (height, width) as float32 in its own range, by Darknet's own bilinear resize.

    Corners fall on corners: column c comes from c·(W-1)/(w-1), rows likewise, all in float32 and never rounded
    (src/image.c resize_image). Its quirk is kept: the last row is nearly black where (h-1)·((H-1)/(h-1)) comes out
    below H-1, as for an image 400 px high at 608.
    """
    height, width = image.shape[:2]
    new_h, new_w = size_hw
    pixels: np.ndarray = image.astype(np.float32)
    if (height, width) == (new_h, new_w):
        return pixels
    left, share = _darknet_positions(width, new_w)
    share = share[:, None]
    wide = (1 - share) * pixels[:, left] + share * pixels[:, np.minimum(left + 1, width - 1)]  # (H, w, C)
    wide[:, -1] = pixels[:, -1]
    top, share = _darknet_positions(height, new_h)
    share = share[:, None, None]
    tall = (1 - share) * wide[top]
    tall[:-1] += share[:-1] * wide[np.minimum(top + 1, height - 1)[:-1]]
    return tall


def _darknet_positions(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """The whole part and the float32 fraction of each new pixel's place in the old axis."""
    scale = np.float32(old - 1) / np.float32(max(new - 1, 1))
    places = np.arange(new, dtype=np.float32) * scale
    whole = places.astype(np.int64)
    return whole, places - whole.astype(np.float32)


def _resample(image: np.ndarray, size_hw: SizeHW, interpolation: Interpolation) -> np.ndarray:
    if interpolation == "darknet":
        return darknet_resize(image, size_hw)
    shrinks = size_hw[0] * size_hw[1] < image.shape[0] * image.shape[1]
    kind = cv2.INTER_AREA if interpolation == "area" and shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size_hw[::-1], interpolation=kind)


def resize_image(
    image: np.ndarray,
    size_hw: SizeHW,
    mode: ResizeMode,
    *,
    grey: float,
    interpolation: Interpolation = "linear",
    long_side: int = 0,
) -> tuple[np.ndarray, Resize]:
    """(H, W, 3) uint8 to ``size_hw`` network px by stretching or letterboxing, and the map there.

    ``mode`` stretch scales each axis by itself, letterbox both alike, with the image centred.
    ``grey`` 0..255 fills what a letterboxed image leaves, as the network saw it in training.
    ``interpolation``: linear (OpenCV's, pixel centres), area (OpenCV's, where the image shrinks; linear elsewhere) or
    darknet (see ``darknet_resize``: float32; its letterbox rounds down and its boxes come back by half pixels of grey, see
    ``_darknet_letterbox``).
    ``long_side``: a letterboxed image's long side is at most that many network px; 0: as large as fits.
    """
    h, w = image.shape[:2]
    net_h, net_w = size_hw
    if mode == "stretch":
        resize = Resize(
            image_size_hw=(h, w), network_size_hw=(net_h, net_w), scale_x=net_w / w, scale_y=net_h / h, pad_x=0.0, pad_y=0.0
        )
        return _resample(image, (net_h, net_w), interpolation), resize
    fit_h, fit_w = (min(side, long_side or side) for side in size_hw)
    if interpolation == "darknet":
        new_h, new_w = _darknet_letterbox((h, w), (fit_h, fit_w))
    else:
        scale = min(fit_w / w, fit_h / h)
        new_h, new_w = max(1, round(h * scale)), max(1, round(w * scale))
    left, top = (net_w - new_w) // 2, (net_h - new_h) // 2
    inner = _resample(image, (new_h, new_w), interpolation)
    canvas: np.ndarray = np.full((net_h, net_w, 3), grey, dtype=inner.dtype)
    canvas[top : top + new_h, left : left + new_w] = inner
    pad_x, pad_y = ((net_w - new_w) / 2, (net_h - new_h) / 2) if interpolation == "darknet" else (left, top)
    resize = Resize(
        image_size_hw=(h, w), network_size_hw=(net_h, net_w), scale_x=new_w / w, scale_y=new_h / h, pad_x=pad_x, pad_y=pad_y
    )
    return canvas, resize


def _darknet_letterbox(size_hw: SizeHW, fit_hw: SizeHW) -> SizeHW:
    """The (height, width) of an image fitted into another by whole numbers, rounded down (src/image.c letterbox_image).

    Darknet puts it at whole pixels, (net - new) / 2 rounded down, but takes boxes back by the exact half
    (src/yolo_layer.c correct_yolo_boxes): half a network pixel aside where the rest is odd.
    """
    (h, w), (fit_h, fit_w) = size_hw, fit_hw
    if np.float32(fit_w) / np.float32(w) < np.float32(fit_h) / np.float32(h):
        return max(1, h * fit_w // w), fit_w
    return fit_h, max(1, w * fit_h // h)


def apply_resize(boxes: np.ndarray, resize: Resize) -> np.ndarray:
    """Boxes (N, 4) xyxy from image px to network px."""
    scale = np.array([resize.scale_x, resize.scale_y] * 2)
    return (boxes * scale + np.array([resize.pad_x, resize.pad_y] * 2)).astype(np.float32)


def undo_resize(detections: Detections, resize: Resize) -> Detections:
    """Detections from network px to image px, clipped to the image."""
    boxes = detections.boxes.float()
    pad = torch.tensor([resize.pad_x, resize.pad_y] * 2, device=boxes.device)
    scale = torch.tensor([resize.scale_x, resize.scale_y] * 2, device=boxes.device)
    h, w = resize.image_size_hw
    boxes = ((boxes - pad) / scale).clamp(min=0).minimum(torch.tensor([w, h, w, h], device=boxes.device, dtype=boxes.dtype))
    return Detections(boxes=boxes, scores=detections.scores, labels=detections.labels)
