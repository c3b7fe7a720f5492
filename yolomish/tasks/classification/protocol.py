"""How an image becomes a network's input when a classifier is evaluated: an accuracy without it means nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from yolomish.config import TrainConfig
from yolomish.data.transforms import darknet_resize
from yolomish.errors import unknown_name
from yolomish.types import Interpolation, SizeHW, size_text


@dataclass(frozen=True, kw_only=True)
class ClassProtocol:
    """An image is resized, aspect kept, until it covers the network's size over ``crop`` (0..1), and its middle is cut out.

    ``interpolation`` is linear (with antialiasing, as torchvision's) or darknet.
    """

    name: str
    crop: float
    interpolation: Interpolation = "linear"

    def describe(self, images: int, split: str, size_hw: SizeHW) -> str:
        """One line that states the whole protocol."""
        resized = tuple(round(side / self.crop) for side in size_hw)
        side = "shorter side" if size_hw[0] == size_hw[1] else "sides at least"
        return (
            f"protocol {self.name}: {side} {size_text(resized)} px ({self.interpolation}), middle {size_text(size_hw)} px, "
            f"one view, {images} images of {split}"
        )

    def prepare(self, image: np.ndarray, size_hw: SizeHW) -> np.ndarray:
        """An image (H, W, 3) uint8 RGB at a network size in px; float32 in 0..255 where the resize does not round."""
        new_hw = covering(image.shape[:2], tuple(round(side / self.crop) for side in size_hw))
        if self.interpolation == "darknet":
            resized = darknet_resize(image, new_hw)
            top, left = ((side - new) // 2 for side, new in zip(new_hw, size_hw, strict=True))
            return resized[top : top + size_hw[0], left : left + size_hw[1]]
        pixels = F.resize(torch.from_numpy(image).permute(2, 0, 1), list(new_hw), antialias=True)
        middle: np.ndarray = F.center_crop(pixels, list(size_hw)).permute(1, 2, 0).numpy()
        return middle


def covering(image_hw: tuple[int, ...], size_hw: tuple[int, ...]) -> SizeHW:
    """(height, width) of an image resized, aspect kept, so that it just covers another size: one side is equal to it, the
    other rounded down (src/image.c resize_min; torchvision's Resize of one number)."""
    (h, w), (net_h, net_w) = image_hw, size_hw
    if net_h * w >= net_w * h:
        return net_h, max(net_w, w * net_h // h)
    return max(net_h, h * net_w // w), net_w


PROTOCOLS = {
    p.name: p
    for p in (
        # Darknet `classifier valid` (src/classifier.c validate_classifier_single, src/image.c resize_min and crop_image)
        ClassProtocol(name="darknet", crop=1.0, interpolation="darknet"),
        # torchvision/transforms/_presets.py ImageClassification: 256 px, middle 224
        ClassProtocol(name="torchvision", crop=0.875),
        ClassProtocol(name="whole", crop=1.0),
    )
}


def find_protocol(name: str) -> ClassProtocol:
    """The protocol of that name; YolomishError, with the nearest, where there is none."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol to classify", name, PROTOCOLS)
    return PROTOCOLS[name]


def training_protocol(config: TrainConfig) -> ClassProtocol:
    """How a network is evaluated while it trains and when trained networks are compared."""
    return ClassProtocol(name="training", crop=config.eval_crop)
