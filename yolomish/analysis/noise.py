"""A network's metrics over the strength of Gaussian noise added to the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolomish.config import DataConfig, TrainConfig
from yolomish.data.streams import Use, stream
from yolomish.errors import YolomishError
from yolomish.networks import Network
from yolomish.ops.device import choose_device
from yolomish.tasks.registry import find_task
from yolomish.types import InputSpec
from yolomish.weights.load import load_network


@dataclass(frozen=True, kw_only=True)
class NoisePoint:
    """Metrics by name at a noise of standard deviation ``sigma``, in units of the images' range 0..1."""

    sigma: float
    values: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class NoiseCurve:
    """The points of one file's network; ``label`` names its activations, part by part; ``metrics`` are its task's, of which
    the first decides."""

    weights: str
    label: str
    metrics: tuple[str, ...]
    points: tuple[NoisePoint, ...]


@dataclass(frozen=True, kw_only=True)
class NoisyInput(InputSpec):
    """An input behind additive Gaussian noise: on resized images in 0..1, clipped to that, before mean and deviation.

    The n-th image that comes through has its own stream, so that neither the batch nor the network changes its noise.
    """

    sigma: float
    seed: int = 0
    numbers: Iterator[int] = field(default_factory=count, compare=False)

    def normalise(self, images: Tensor) -> Tensor:
        if not self.sigma:
            return super().normalise(images)
        streams = [stream(Use.NOISE, self.seed, index=next(self.numbers)) for _ in images]
        noise = np.stack([own.standard_normal(images.shape[1:], np.float32) for own in streams])
        return super().normalise((images + 255 * self.sigma * torch.from_numpy(noise).to(images.device)).clamp(0, 255))


def noise_points(
    network: Network,
    data: Any,
    config: TrainConfig,
    sigmas: Sequence[float],
    *,
    seed: int = 0,
    device: torch.device | None = None,
    log: Callable[[str], Any] = print,
) -> tuple[NoisePoint, ...]:
    """Metrics of ``data`` at each sigma by the protocol of ``config``'s training, 0 being the plain evaluation.

    ``seed`` draws the noise, which networks of equal size share; ``network`` is on ``device`` (None: the CPU).
    """
    task, clean, points = find_task(config.task), network.input, []
    try:
        for sigma in sigmas:
            network.input = NoisyInput(**vars(clean), sigma=sigma, seed=seed)
            values = task.evaluate(network, data, config, device or torch.device("cpu")).values
            points.append(NoisePoint(sigma=sigma, values={name: values[name] for name in task.metrics}))
            log(f"{network.name}, noise {sigma:g}: {task.primary} {values[task.primary]:.4f}")
    finally:
        network.input = clean
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
    log: Callable[[str], Any] = print,
) -> NoiseCurve:
    """``noise_points`` of a detector or classifier on the validation split that it was trained with, or of ``data``.

    ``images`` are so many of it (0: all), ``batch`` of them at once on ``device``; ``seed`` draws the noise; ``log`` takes a
    line a point. YolomishError where a sigma is negative or the file does not say what it was trained with.
    """
    if any(not sigma >= 0 for sigma in sigmas):
        raise YolomishError(f"sigmas must not be negative: {', '.join(f'{s:g}' for s in sigmas)}")
    loaded = load_network(weights)
    if data is None and loaded.training is None:
        raise YolomishError(f"{weights} does not say what it was trained with: name the data")
    config = replace(loaded.config, mini_batch=batch)
    task = find_task(config.task)
    source = task.open(data or config.data, "val").with_classes(loaded.names, weights)
    place = choose_device(device)
    network = loaded.network.to(place)
    some = source.first(images) if images else source
    points = noise_points(network, some, config, sigmas, seed=seed, device=place, log=log)
    return NoiseCurve(weights=weights, label=network.activation_label(), metrics=task.metrics, points=points)
