"""From pixels to detections in image px."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from yolomish.data.transforms import resize_image, undo_resize
from yolomish.models import YOLOv4
from yolomish.ops.nms import postprocess
from yolomish.types import Detections, ResizeMode


class Detector:
    """A network with its class names, size and thresholds. It writes nothing."""

    def __init__(
        self,
        model: YOLOv4,
        names: Sequence[str],
        *,
        image_size: int,
        resize: ResizeMode = "stretch",
        conf: float = 0.25,
        iou: float = 0.45,
        nms: str = "greedy-diou",
        max_det: int = 300,
        agnostic: bool = False,
        device: torch.device | str = "cpu",
        half: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = torch.float16 if half and self.device.type == "cuda" else torch.bfloat16 if half else torch.float32
        self.model = model.eval().to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.names = tuple(names)
        self.image_size, self.resize = image_size, resize
        self.conf, self.iou, self.nms, self.max_det, self.agnostic = conf, iou, nms, max_det, agnostic

    def detect(self, image: np.ndarray) -> Detections:
        """Detections of one image (H, W, 3) uint8 RGB, in its px, clipped, best first."""
        return self.detect_batch([image])[0]

    @torch.no_grad()
    def detect_batch(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of several images of any sizes, on the CPU."""
        pairs = [resize_image(image, self.image_size, self.resize) for image in images]
        stacked = torch.from_numpy(np.stack([image for image, _ in pairs])).to(self.device).permute(0, 3, 1, 2)
        maps = self.model(stacked.to(self.dtype) / 255)
        found = postprocess(
            maps, self.model.heads, conf=self.conf, iou=self.iou, kind=self.nms, max_det=self.max_det, agnostic=self.agnostic
        )
        return [undo_resize(d, resize).to("cpu") for d, (_, resize) in zip(found, pairs, strict=True)]
