"""Boxes and readable labels on a picture."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from yolomish.types import Detections


def class_colour(label: int) -> tuple[int, int, int]:
    """A stable RGB colour of a class; neighbouring labels lie far apart on the hue circle (golden ratio)."""
    r, g, b = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.85, 0.95)
    return int(r * 255), int(g * 255), int(b * 255)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], texts: Sequence[str]) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with boxes (N, 4) xyxy in its px, each under its text on a filled box."""
    canvas = np.ascontiguousarray(image.copy())
    h, w = canvas.shape[:2]
    thickness = max(1, round((h + w) / 700))
    scale = max(0.35, (h + w) / 2800)
    for (x0, y0, x1, y1), label, text in zip(np.round(boxes).astype(int).tolist(), labels, texts, strict=True):
        colour = class_colour(label)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, thickness, cv2.LINE_AA)
        (text_w, text_h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, thickness // 2))
        left = max(0, min(x0, w - text_w - 4))
        top = y0 - text_h - base - 2 if y0 - text_h - base - 2 >= 0 else min(y0, max(0, h - text_h - base - 2))
        cv2.rectangle(canvas, (left, top), (left + text_w + 4, top + text_h + base + 2), colour, -1)
        ink = (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 130 else (255, 255, 255)
        origin = (left + 2, top + text_h + 1)
        cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, max(1, thickness // 2), cv2.LINE_AA)
    return canvas


def draw_detections(image: np.ndarray, detections: Detections, names: Sequence[str]) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with detections in its px; the best is drawn last, on top."""
    labels = detections.labels.tolist()[::-1]
    texts = [f"{names[k]} {s:.2f}" for k, s in zip(labels, detections.scores.tolist()[::-1], strict=True)]
    return draw_boxes(image, detections.boxes.numpy()[::-1], labels, texts)
