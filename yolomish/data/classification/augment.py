"""Training samples by torchvision's transforms: ImageNet's usual ones, then at most one mixing with other images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from yolomish.config import TrainConfig
from yolomish.types import GREY, SizeHW

LEAST_TILE = 0.2  # of a side: Darknet src/data.c load_data_augment, min_offset
Draw = Callable[[], tuple[np.ndarray, int]]


class Augmenter:
    """Images (H, W, 3) uint8 RGB -> (3, h, w) uint8 at a network size in px. All chance comes from torch's global RNG."""

    def __init__(self, config: TrainConfig, size_hw: SizeHW, num_classes: int) -> None:
        self.config, self.num_classes = config, num_classes
        aspect, exposure, saturation = config.crop_aspect, config.exposure, config.saturation
        steps: list[v2.Transform] = []
        if config.degrees:
            steps.append(v2.RandomRotation(config.degrees, v2.InterpolationMode.BILINEAR, fill=GREY))
        if config.crop_area < 1:
            steps.append(v2.RandomResizedCrop(size_hw, (config.crop_area, 1.0), (1 / aspect, aspect), antialias=True))
        else:
            steps.append(v2.Resize(size_hw, antialias=True))
        steps.append(v2.RandomHorizontalFlip(config.flip))
        if config.hue or exposure > 1 or saturation > 1:
            light, colour = (1 / exposure, exposure), (1 / saturation, saturation)
            steps.append(v2.ColorJitter(brightness=light, saturation=colour, hue=config.hue))
        if config.randaugment:
            steps.append(v2.RandAugment(magnitude=config.randaugment, fill=GREY))
        self.one = v2.Compose(steps)
        self.mixup = v2.MixUp(alpha=config.mixup_alpha, num_classes=num_classes)
        self.cutmix = v2.CutMix(alpha=config.cutmix_alpha, num_classes=num_classes)

    def single(self, image: np.ndarray) -> Tensor:
        """One image, not mixed."""
        own = np.require(image, requirements="W")  # a copy of pixels kept on disk: torch has no tensor that is only read
        transformed: Tensor = self.one(torch.from_numpy(own).permute(2, 0, 1))
        return transformed.contiguous()

    def __call__(self, image: np.ndarray, label: int, draw: Draw, *, mixing: bool) -> tuple[Tensor, Tensor]:
        """An image and its classes' shares (K,); where ``mixing``, perhaps with others that ``draw`` returns with labels."""
        config, chance = self.config, float(torch.rand(()))
        steps = np.cumsum((config.mosaic, config.mixup, config.cutmix)) if mixing else (0.0, 0.0, 0.0)
        if chance < steps[0]:
            return self._mosaic([(image, label), *(draw() for _ in range(3))])
        mixture = self.mixup if chance < steps[1] else self.cutmix if chance < steps[2] else None
        if mixture is None:
            return self.single(image), self._shares(label)
        other, other_label = draw()
        images = torch.stack((self.single(image), self.single(other)))
        if mixture is self.mixup:
            images = images.float()
        mixed, shares = mixture(images, torch.tensor((label, other_label)))
        return mixed[0].round().to(torch.uint8), shares[0].float()

    def _mosaic(self, parts: list[tuple[np.ndarray, int]]) -> tuple[Tensor, Tensor]:
        """Four images, each whole, of which each quarter shows its own part (src/data.c load_data_augment, mixup 3)."""
        images = [self.single(image) for image, _ in parts]
        canvas = images[0].clone()
        height, width = canvas.shape[1:]
        y, x = (int(side * (LEAST_TILE + (1 - 2 * LEAST_TILE) * float(torch.rand(())))) for side in (height, width))
        shares = torch.zeros(self.num_classes)
        quarters = ((0, y, 0, x), (0, y, x, width), (y, height, 0, x), (y, height, x, width))
        for image, (_, label), (top, bottom, left, right) in zip(images, parts, quarters, strict=True):
            canvas[:, top:bottom, left:right] = image[:, top:bottom, left:right]
            shares[label] += (bottom - top) * (right - left) / (height * width)
        return canvas, shares

    def _shares(self, label: int) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(label), self.num_classes).float()
