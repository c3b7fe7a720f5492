"""AP over the strength of Gaussian noise added to the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolomish.config import DataConfig
from yolomish.data.datasets import DetectionData, open_data
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate
from yolomish.ops.device import choose_device
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import training_protocol
from yolomish.tasks.detection.views import Runner
from yolomish.types import SizeHW
from yolomish.weights.load import load_network


@dataclass(frozen=True, kw_only=True)
class NoisePoint:
    """Metrics at a noise of standard deviation ``sigma``, in units of the images' range 0..1."""

    sigma: float
    ap: float
    ap50: float
    ap75: float


@dataclass(frozen=True, kw_only=True)
class NoiseCurve:
    """The points of one file's network; ``label`` names its activations, part by part."""

    weights: str
    label: str
    points: tuple[NoisePoint, ...]


class Noisy:
    """``runner`` behind additive Gaussian noise, clipped to 0..1; the n-th batch draws from seed and n alone."""

    def __init__(self, runner: Runner, sigma: float, seed: int = 0) -> None:
        self.runner, self.sigma, self.seed, self.calls = runner, sigma, seed, 0
        self.input, self.heads = runner.input, runner.heads

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.calls)
        self.calls += 1
        noise = torch.randn(images.shape, generator=generator).to(images)
        return self.runner((images + self.sigma * noise).clamp(0, 1) if self.sigma else images)


def noise_points(
    runner: Runner,
    data: DetectionData,
    sigmas: Sequence[float],
    *,
    size_hw: SizeHW,
    batch: int = 8,
    seed: int = 0,
    device: torch.device | None = None,
) -> tuple[NoisePoint, ...]:
    """AP, AP50 and AP75 of ``data`` at each sigma by the protocol of training, 0 being the plain evaluation.

    ``size_hw`` is the network's size in px; ``batch`` images go through at once; ``seed`` draws the noise, which networks of
    equal size share; ``device`` is where ``runner`` takes its images (None: the CPU).
    """
    points = []
    for sigma in sigmas:
        pipeline = Pipeline(
            runner=Noisy(runner, sigma, seed),
            protocol=training_protocol(runner.input),
            size_hw=size_hw,
            device=device or torch.device("cpu"),
        )
        metrics = evaluate(data.coco(), predict(pipeline, data, batch=batch, progress=True), data.names, data.category_ids)
        ap, ap50, ap75 = (metrics.values[name] for name in ("AP", "AP50", "AP75"))
        points.append(NoisePoint(sigma=sigma, ap=ap, ap50=ap50, ap75=ap75))
    return tuple(points)


def noise_curve(
    weights: str,
    sigmas: Sequence[float],
    *,
    data: DataConfig | None = None,
    images: int = 0,
    batch: int = 8,
    seed: int = 0,
    device: str = "auto",
) -> NoiseCurve:
    """``noise_points`` of a ``.pt`` checkpoint on the validation split that it was trained with, or of ``data``.

    ``images`` are the first ones used (0: all), ``batch`` of them at once on ``device``; ``seed`` draws the noise.
    YolomishError where a sigma is negative or the file does not say what it was trained with.
    """
    if any(not sigma >= 0 for sigma in sigmas):
        raise YolomishError(f"sigmas must not be negative: {', '.join(f'{s:g}' for s in sigmas)}")
    loaded = load_network(weights)
    if data is None and loaded.training is None:
        raise YolomishError(f"{weights} does not say what it was trained with: name the data")
    source = open_data(data or loaded.training.data, "val")  # type: ignore[union-attr]
    source = source.with_classes(loaded.names, weights)
    place = choose_device(device)
    network = loaded.network.to(place)
    points = noise_points(
        network,
        source.first(images) if images else source,
        sigmas,
        size_hw=network.input.size_hw,
        batch=batch,
        seed=seed,
        device=place,
    )
    return NoiseCurve(weights=weights, label=network.activation_label(), points=points)
