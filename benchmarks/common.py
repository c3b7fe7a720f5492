"""What every benchmark shares: interleaved timing, medians with spread, and a table that names its hardware."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchvision

from yolomish.comparison.environment import processor
from yolomish.inference.bench import interleaved as rounds_of
from yolomish.ops.device import wait


def interleaved(
    variants: dict[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each variant in each round; a round runs all of them in turn, beginning with another each time."""
    wait(device)  # for what the preparation left running
    seconds = rounds_of(list(variants.values()), rounds, device=device, rest=0.0, clock=clock)
    return dict(zip(variants, seconds, strict=True))


def spread(values: list[float]) -> str:
    """Median and, in brackets, the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def ratio(values: list[float], base: list[float]) -> str:
    """Median of the rounds' ratios to ``base``, with quartiles."""
    return spread([v / b for v, b in zip(values, base, strict=True)])


def report(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], device: torch.device, notes: str = "") -> None:
    """Print a Markdown table with the command, the hardware and the versions; its home is ``benchmarks/results/``."""
    gpu = f", {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}" if device.type == "cuda" else ""
    print(f"# {title}\n")
    print(f"`python {' '.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])}`\n")
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}"
    print(f"{processor()}, {torch.get_num_threads()} threads{gpu}; {versions}. Median [quartiles] over interleaved rounds.\n")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    if notes:
        print(f"\n{notes}")
