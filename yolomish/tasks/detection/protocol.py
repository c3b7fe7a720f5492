"""Evaluation protocols: an AP without its protocol means nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolomish.data.transforms import resize_image
from yolomish.errors import YolomishError, unknown_name
from yolomish.ops.nms import MAX_CANDIDATES, NMS_KINDS
from yolomish.types import DARKNET_GREY, GREY, InputSpec, Interpolation, Resize, ResizeMode, SizeHW, size_text


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """How an image becomes detections: resize and the grey of its letterbox, thresholds, suppression, views.

    ``conf`` and ``iou`` are 0..1; ``max_det`` is the most per image, of which COCO itself counts 100 per class. ``rect``
    (letterbox only) batches images of like shape, padded by ``rect_margin`` strides. ``agnostic`` lets classes suppress one
    another, only the labels in ``classes`` take part (empty: all), ``tta`` names the views of test-time augmentation.
    YolomishError on a value that cannot be.
    """

    name: str
    resize: ResizeMode
    conf: float
    nms: str
    iou: float
    max_det: int = 300
    rect: bool = False
    rect_margin: float = 0.0
    interpolation: Interpolation = "linear"
    grey: int = GREY
    agnostic: bool = False
    classes: tuple[int, ...] = ()
    tta: str = "off"

    def __post_init__(self) -> None:
        for key in ("conf", "iou"):
            if not 0 <= getattr(self, key) <= 1:
                raise YolomishError(f"{key} must be between 0 and 1, not {getattr(self, key)}")
        if self.max_det < 1:
            raise YolomishError(f"max_det must be at least 1, not {self.max_det}")
        if self.nms not in NMS_KINDS:
            raise unknown_name("NMS kind", self.nms, NMS_KINDS)
        if self.rect and self.resize != "letterbox":
            raise YolomishError(
                f"rect pads less than a square, protocol {self.name} stretches to one: use --protocol letterbox, or --no-rect"
            )

    def describe(self, images: int, split: str, size_hw: SizeHW) -> str:
        """One line that states the whole protocol."""
        shape = f"{size_text(size_hw)} px" + (" at most, in rectangles" if self.rect else "")
        limit = "no limit" if self.max_det >= MAX_CANDIDATES else f"{self.max_det} boxes"
        views = "" if self.tta == "off" else f", views {self.tta}"
        return (
            f"protocol {self.name}: {self.resize} ({self.interpolation}) to {shape}, confidence {self.conf:g}, "
            f"NMS {self.nms} at {self.iou:g}, {limit} per image, {images} images of {split}{views}"
        )

    def resize_image(self, image: np.ndarray, size_hw: SizeHW, long_side: int = 0) -> tuple[np.ndarray, Resize]:
        """An image (H, W, 3) uint8 RGB at a network size in px, and the map there; see ``transforms.resize_image``."""
        return resize_image(image, size_hw, self.resize, interpolation=self.interpolation, grey=self.grey, long_side=long_side)


_DARKNET = {"conf": 0.001, "nms": "greedy-diou", "iou": 0.6, "max_det": MAX_CANDIDATES, "interpolation": "darknet"}
_SCALED = {"resize": "letterbox", "conf": 0.001, "nms": "iou", "iou": 0.65, "interpolation": "area"}
PROTOCOLS = {
    # Darknet `detector valid` (src/detector.c validate_detector), README "How to evaluate AP"; letter_box unset or 1
    "darknet": EvalProtocol(name="darknet", resize="stretch", **_DARKNET),  # type: ignore[arg-type]
    "darknet-letterbox": EvalProtocol(
        name="darknet-letterbox",
        resize="letterbox",
        grey=DARKNET_GREY,
        **_DARKNET,  # type: ignore[arg-type]
    ),
    # WongKinYiu/PyTorch_YOLOv4 test.py and utils/datasets.py: in squares, and as its test.py runs it
    "letterbox": EvalProtocol(name="letterbox", **_SCALED),  # type: ignore[arg-type]
    "scaled-yolov4": EvalProtocol(name="scaled-yolov4", rect=True, rect_margin=0.5, **_SCALED),  # type: ignore[arg-type]
    # ultralytics cfg/default.yaml (conf of val, iou, max_det) and its val loader's rect with half a stride of padding
    "ultralytics": EvalProtocol(
        name="ultralytics", resize="letterbox", conf=0.001, nms="iou", iou=0.7, rect=True, rect_margin=0.5
    ),
}


def training_protocol(spec: InputSpec) -> EvalProtocol:
    """How a network is evaluated while it trains and when trained networks are compared: images as it was trained on."""
    return EvalProtocol(
        name="training", resize=spec.resize, grey=spec.pad_value, conf=0.001, nms="greedy-diou", iou=0.6, max_det=300
    )


def detect_protocol(spec: InputSpec, **changes: object) -> EvalProtocol:
    """How objects are shown to a user: as trained, Darknet's thresholds of `detector test`; ``changes`` are fields."""
    fields = {"conf": 0.25, "nms": "greedy-diou", "iou": 0.45, "resize": spec.resize, "grey": spec.pad_value} | changes
    return EvalProtocol(name="detect", **fields)  # type: ignore[arg-type]
