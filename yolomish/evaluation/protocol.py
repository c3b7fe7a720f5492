"""Named evaluation protocols: an AP without its protocol means nothing."""

from __future__ import annotations

from dataclasses import dataclass

from yolomish.types import ResizeMode


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How detections are made for scoring."""

    name: str
    resize: ResizeMode
    conf: float
    nms: str
    iou: float
    max_det: int = 300
    rect: bool = False

    def describe(self, images: int, split: str, image_size: int) -> str:
        """One line that states the whole protocol."""
        shape = f"{image_size} px at most, in rectangles" if self.rect else f"{image_size} px"
        return (
            f"protocol {self.name}: {self.resize} to {shape}, confidence {self.conf:g}, "
            f"NMS {self.nms} at {self.iou:g}, {images} images of {split}"
        )


PROTOCOLS = {
    # Darknet `detector valid`, examples in its README "How to evaluate AP"
    "darknet": Protocol(name="darknet", resize="stretch", conf=0.001, nms="greedy-diou", iou=0.6),
    # Scaled-YOLOv4 and later PyTorch repositories
    "letterbox": Protocol(name="letterbox", resize="letterbox", conf=0.001, nms="iou", iou=0.65),
}
