"""Named evaluation protocols: an AP without its protocol means nothing."""

from __future__ import annotations

from dataclasses import dataclass

from yolomish.data.transforms import LETTERBOX_GREY
from yolomish.ops.nms import MAX_CANDIDATES
from yolomish.types import Interpolation, ResizeMode


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """How detections are made for scoring. ``max_det`` is the most an image; COCO itself counts 100 a class and image."""

    name: str
    resize: ResizeMode
    conf: float
    nms: str
    iou: float
    max_det: int = 300
    rect: bool = False
    rect_margin: float = 0.0
    interpolation: Interpolation = "linear"
    grey: int = LETTERBOX_GREY

    def describe(self, images: int, split: str, image_size: int) -> str:
        """One line that states the whole protocol."""
        shape = f"{image_size} px at most, in rectangles" if self.rect else f"{image_size} px"
        limit = "no limit" if self.max_det >= MAX_CANDIDATES else f"{self.max_det} boxes"
        return (
            f"protocol {self.name}: {self.resize} ({self.interpolation}) to {shape}, confidence {self.conf:g}, "
            f"NMS {self.nms} at {self.iou:g}, {limit} an image, {images} images of {split}"
        )


_DARKNET = {"conf": 0.001, "nms": "greedy-diou", "iou": 0.6, "max_det": MAX_CANDIDATES, "interpolation": "darknet"}
_SCALED = {"resize": "letterbox", "conf": 0.001, "nms": "iou", "iou": 0.65, "interpolation": "area", "grey": 114}
PROTOCOLS = {
    # Darknet `detector valid` (src/detector.c validate_detector), README "How to evaluate AP"; letter_box unset or 1
    "darknet": EvalProtocol(name="darknet", resize="stretch", **_DARKNET),  # type: ignore[arg-type]
    "darknet-letterbox": EvalProtocol(name="darknet-letterbox", resize="letterbox", **_DARKNET),  # type: ignore[arg-type]
    # WongKinYiu/PyTorch_YOLOv4 test.py and utils/datasets.py: in squares, and as its test.py runs it
    "letterbox": EvalProtocol(name="letterbox", **_SCALED),  # type: ignore[arg-type]
    "scaled-yolov4": EvalProtocol(name="scaled-yolov4", rect=True, rect_margin=0.5, **_SCALED),  # type: ignore[arg-type]
    # ultralytics cfg/default.yaml (conf of val, iou, max_det) and its val loader's rect with half a stride of padding
    "ultralytics": EvalProtocol(
        name="ultralytics", resize="letterbox", conf=0.001, nms="iou", iou=0.7, grey=114, rect=True, rect_margin=0.5
    ),
}
