"""Inference time of the arms' trained networks, side by side: in turn, on one device, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from yolomish.inference.bench import quartiles
from yolomish.ops.device import choose_device, wait
from yolomish.weights.load import load_network

ROUNDS, MOST_SECONDS = 30, 20.0


@dataclass(frozen=True, kw_only=True)
class SpeedResult:
    """Milliseconds of one image through an arm's network, quartiles over rounds, and the median ratio to the first arm."""

    arm: str
    low_ms: float
    median_ms: float
    high_ms: float
    ratio: float
    rounds: int


def measure_speed(
    checkpoints: Mapping[str, Path], device: str = "auto", *, rounds: int = ROUNDS, most_seconds: float = MOST_SECONDS
) -> tuple[SpeedResult, ...]:
    """Forward passes of one image at the run's size, float32, BatchNorm not folded; each round runs every arm in turn.

    Stops early after ``most_seconds``. The pairing within rounds is what makes the ratio trustworthy on a busy machine.
    """
    chosen = torch.device(choose_device(device))
    layout = torch.channels_last
    models = {arm: load_network(str(path)).network.to(chosen).to(memory_format=layout) for arm, path in checkpoints.items()}
    shapes = {arm: (1, model.input.channels, *model.input.size_hw) for arm, model in models.items()}
    images = {arm: torch.rand(shape, device=chosen).contiguous(memory_format=layout) for arm, shape in shapes.items()}
    names = list(models)
    times: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    with torch.no_grad():
        for name in names:
            for _ in range(3):
                models[name](images[name])
        for i in range(rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                wait(chosen)
                start = time.perf_counter()
                models[name](images[name])
                wait(chosen)
                times[name].append(1000 * (time.perf_counter() - start))
            if time.perf_counter() - began > most_seconds and i:
                break
    results = []
    for name in names:
        low, middle, high = quartiles(times[name])
        ratio = statistics.median(a / b for a, b in zip(times[name], times[names[0]], strict=True))
        results.append(SpeedResult(arm=name, low_ms=low, median_ms=middle, high_ms=high, ratio=ratio, rounds=len(times[name])))
    return tuple(results)
