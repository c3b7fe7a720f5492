"""Evaluation protocols: an AP without its protocol means nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from yolomish.data.transforms import resize_image
from yolomish.errors import YolomishError, unknown_name
from yolomish.ops.decode import check_heads
from yolomish.ops.nms import NMS_KINDS, Frame, Selection
from yolomish.tasks.detection.views import VIEWS
from yolomish.types import GREY, HeadSpec, InputSpec, Interpolation, Resize, ResizeMode, SizeHW, size_text

NmsFrame = Literal["network", "image", "relative"]
DARKNET_GREY = 127.5  # Darknet src/image.c letterbox_image fills with 0.5
DARKNET_MOST = 10_000  # Darknet has no limit; an untrained network finds a hundred thousand boxes in every picture


@dataclass(frozen=True, kw_only=True)
class EvalProtocol(Selection):
    """How an image becomes detections: resize and the grey of its letterbox, thresholds, suppression, views.

    Thresholds and suppression are a ``Selection``'s; ``nms`` own takes the kind and the exponent of the network's last head.
    ``nms_frame`` is where boxes suppress one another, which matters to a DIoU: in network px, in image px, or relative to
    the image's width and height. ``max_det`` is the most per image, 0: no limit; COCO itself counts 100 per class.
    ``rect`` (letterbox only) batches images of like shape, padded by ``rect_margin`` strides. ``tta`` names the views of
    test-time augmentation. YolomishError on a value that cannot be.
    """

    KINDS: ClassVar[tuple[str, ...]] = (*NMS_KINDS, "own")

    name: str
    resize: ResizeMode
    nms_frame: NmsFrame = "network"
    rect: bool = False
    rect_margin: float = 0.0
    interpolation: Interpolation = "linear"
    grey: float = GREY
    tta: str = "off"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nms_frame not in get_args(NmsFrame):
            raise unknown_name("NMS frame", self.nms_frame, get_args(NmsFrame))
        if self.tta not in VIEWS:
            raise unknown_name("test-time augmentation", self.tta, VIEWS)
        if self.rect and self.resize != "letterbox":
            raise YolomishError(
                f"rect pads less than a square, protocol {self.name} stretches to one: use --protocol letterbox, or --no-rect"
            )

    def describe(self, images: int, split: str, size_hw: SizeHW) -> str:
        """One line that states the whole protocol."""
        shape = f"{size_text(size_hw)} px" + (" at most, in rectangles" if self.rect else "")
        limit = f"at most {self.max_det} boxes" if self.max_det else "no limit"
        kind = f"{self.nms} (beta {self.beta_nms:g})" if self.nms == "diou" else self.nms
        frame = "relative coordinates" if self.nms_frame == "relative" else f"{self.nms_frame} px"
        views = "" if self.tta == "off" else f", views {self.tta}"
        return (
            f"protocol {self.name}: {self.resize} ({self.interpolation}) to {shape}, confidence {self.conf:g}, "
            f"NMS {kind} at {self.iou:g} in {frame}, {limit} per image, {images} images of {split}{views}"
        )

    def changed(self, **changes: Any) -> EvalProtocol:
        """This protocol with those ``changes`` that are given (not None), which its name then says."""
        given = {key: value for key, value in changes.items() if value is not None and value != getattr(self, key)}
        return dataclasses.replace(self, name=f"{self.name}, changed", **given) if given else self

    def of(self, heads: Sequence[HeadSpec]) -> EvalProtocol:
        """This protocol for a network with ``heads``: where it takes the network's own suppression, that one, by name."""
        check_heads(heads)
        if self.nms != "own":
            return self
        return dataclasses.replace(self, nms=heads[-1].nms, beta_nms=heads[-1].beta_nms)

    def resize_image(self, image: np.ndarray, size_hw: SizeHW, long_side: int = 0) -> tuple[np.ndarray, Resize]:
        """An image (H, W, 3) uint8 RGB at a network size in px, and the map there; see ``transforms.resize_image``."""
        return resize_image(image, size_hw, self.resize, interpolation=self.interpolation, grey=self.grey, long_side=long_side)

    def frame(self, resize: Resize) -> Frame:
        """The factors of x and y from network px to the frame of suppression, of an image resized so."""
        if self.nms_frame == "network":
            return 1.0, 1.0
        height, width = resize.image_size_hw if self.nms_frame == "relative" else (1, 1)
        return 1 / width / resize.scale_x, 1 / height / resize.scale_y


def _darknet(name: str, resize: ResizeMode, **thresholds: Any) -> EvalProtocol:
    return EvalProtocol(
        name=name, resize=resize, nms="own", max_det=DARKNET_MOST, interpolation="darknet", grey=DARKNET_GREY, **thresholds
    )


_VALID = {"conf": 0.001, "iou": 0.6, "nms_frame": "image"}
_TEST = {"conf": 0.25, "iou": 0.45, "nms_frame": "relative"}
_SCALED = {"resize": "letterbox", "conf": 0.001, "nms": "iou", "iou": 0.65, "interpolation": "area"}
PROTOCOLS = {
    p.name: p
    for p in (
        # Darknet `detector valid` (src/detector.c validate_detector), README "How to evaluate AP"; letter_box unset or 1
        _darknet("darknet", "stretch", **_VALID),
        _darknet("darknet-letterbox", "letterbox", **_VALID),
        # Darknet `detector test` (src/detector.c test_detector), without and with -letter_box
        _darknet("darknet-test", "stretch", **_TEST),
        _darknet("darknet-test-letterbox", "letterbox", **_TEST),
        # WongKinYiu/PyTorch_YOLOv4 test.py and utils/datasets.py: in squares, and as its test.py runs it
        EvalProtocol(name="letterbox", **_SCALED),  # type: ignore[arg-type]
        EvalProtocol(name="scaled-yolov4", rect=True, rect_margin=0.5, **_SCALED),  # type: ignore[arg-type]
        # ultralytics cfg/default.yaml (conf of val, iou, max_det) and its val loader's rect with half a stride of padding
        EvalProtocol(name="ultralytics", resize="letterbox", conf=0.001, nms="iou", iou=0.7, rect=True, rect_margin=0.5),
    )
}


def find_protocol(name: str) -> EvalProtocol:
    """The protocol of that name; YolomishError, with the nearest, where there is none."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def training_protocol(spec: InputSpec) -> EvalProtocol:
    """How a network is evaluated while it trains and when trained networks are compared: images as it was trained on."""
    return EvalProtocol(
        name="training", resize=spec.resize, grey=spec.pad_value, conf=0.001, nms="greedy-diou", iou=0.6, max_det=300
    )


def detect_protocol(spec: InputSpec, *, darknet: bool = False) -> EvalProtocol:
    """How objects are shown to a user: images as in training, Darknet's thresholds; for weights from a Darknet file
    (``darknet``) all that `detector test` does."""
    if darknet:
        return PROTOCOLS["darknet-test" if spec.resize == "stretch" else "darknet-test-letterbox"]
    return EvalProtocol(name="detect", conf=0.25, nms="greedy-diou", iou=0.45, resize=spec.resize, grey=spec.pad_value)
