"""AP over the strength of Gaussian noise added to the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolomish.data.datasets import DetectionData
from yolomish.evaluation.coco import evaluate
from yolomish.networks import YOLOv4
from yolomish.tasks.detection.predict import predict
from yolomish.types import HeadSpec, ResizeMode


@dataclass(frozen=True, kw_only=True)
class NoisePoint:
    """Metrics at a noise of standard deviation ``sigma``, in units of the images' range 0..1."""

    sigma: float
    ap: float
    ap50: float
    ap75: float


class Noisy(nn.Module):
    """``model`` behind additive Gaussian noise, clipped to 0..1; the n-th batch draws from seed and n alone."""

    def __init__(self, model: YOLOv4, sigma: float, seed: int = 0) -> None:
        super().__init__()
        self.model, self.sigma, self.seed, self.calls = model, sigma, seed, 0

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        return self.model.heads

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.calls)
        self.calls += 1
        noise = torch.randn(images.shape, generator=generator).to(images)
        return self.model((images + self.sigma * noise).clamp(0, 1) if self.sigma else images)


def noise_curve(
    model: YOLOv4,
    data: DetectionData,
    sigmas: Sequence[float],
    *,
    image_size: int,
    resize: ResizeMode,
    batch: int = 8,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[NoisePoint]:
    """AP, AP50 and AP75 of ``data`` at each sigma (confidence 0.001, greedy DIoU NMS 0.6), 0 being the plain evaluation.

    Networks of equal size see the same noise.
    """
    points = []
    for sigma in sigmas:
        results = predict(
            Noisy(model, sigma, seed),  # type: ignore[arg-type]
            data,
            image_size=image_size,
            resize=resize,
            conf=0.001,
            iou=0.6,
            nms="greedy-diou",
            batch=batch,
            device=device,
            progress=True,
        )
        metrics = evaluate(data.coco(), results, data.names, data.category_ids)
        points.append(NoisePoint(sigma=sigma, ap=metrics.ap, ap50=metrics.ap50, ap75=metrics.ap75))
    return points
