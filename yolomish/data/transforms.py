"""The resize to network pixels and its inverse; boxes change frame here and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from yolomish.types import Detections, Resize, ResizeMode

LETTERBOX_GREY = 128  # Darknet src/image.c letterbox_image fills with 0.5


def resize_image(image: np.ndarray, size: int | tuple[int, int], mode: ResizeMode) -> tuple[np.ndarray, Resize]:
    """An image (H, W, 3) at the network's size and the map of coordinates: stretched, or aspect kept and centred on grey.

    ``size`` is the side of a square or (height, width) in network px.
    """
    h, w = image.shape[:2]
    net_h, net_w = (size, size) if isinstance(size, int) else size
    if mode == "stretch":
        resize = Resize(
            image_size_hw=(h, w), network_size_hw=(net_h, net_w), scale_x=net_w / w, scale_y=net_h / h, pad_x=0.0, pad_y=0.0
        )
        return cv2.resize(image, (net_w, net_h), interpolation=cv2.INTER_LINEAR), resize
    scale = min(net_w / w, net_h / h)
    new_w, new_h = max(1, round(w * scale)), max(1, round(h * scale))
    left, top = (net_w - new_w) // 2, (net_h - new_h) // 2
    canvas: np.ndarray = np.full((net_h, net_w, 3), LETTERBOX_GREY, dtype=np.uint8)
    canvas[top : top + new_h, left : left + new_w] = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    resize = Resize(
        image_size_hw=(h, w), network_size_hw=(net_h, net_w), scale_x=new_w / w, scale_y=new_h / h, pad_x=left, pad_y=top
    )
    return canvas, resize


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
