"""What a run tells: results.csv (the same bits however often it was interrupted), timing.csv, the epoch's line."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from yolomish.files import replace_file
from yolomish.tasks.base import Task
from yolomish.types import Metrics

Log = Callable[[str], Any]
TIMES = ("epoch", "step_ms", "images_per_s", "data_wait_share", "peak_memory_bytes", "seconds")


def columns(task: Task[Any]) -> tuple[str, ...]:
    """The columns of results.csv: mean losses of the epoch's steps, the rate at its end, metrics."""
    return ("epoch", *(f"train/{n}_loss" for n in task.losses), "lr", *(f"metrics/{n}" for n in task.metrics))


def result_row(task: Task[Any], epoch: int, losses: list[float], lr: float, metrics: Metrics | None) -> dict[str, Any]:
    """A row of results.csv; metrics are empty where they were not measured."""
    measured = [metrics.values[name] if metrics else None for name in task.metrics]
    return dict(zip(columns(task), (epoch, *losses, lr, *measured), strict=True))


def save_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], path: Path) -> None:
    """Write rows as CSV, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    replace_file(path, write)


def epoch_line(task: Task[Any], row: dict[str, Any], times: dict[str, Any], epochs: int) -> str:
    """One line per epoch: losses, rate, metrics, step time, share of time waiting for data, memory, and the time left."""
    text = f"epoch {row['epoch']}/{epochs}: " + " ".join(f"{name} {row[f'train/{name}_loss']:.4f}" for name in task.losses)
    text += f" lr {row['lr']:.2e}"
    text += "".join(f" {name} {value:.4f}" for name in task.metrics if (value := row[f"metrics/{name}"]) is not None)
    left = int((epochs - row["epoch"]) * times["seconds"])
    return (
        f"{text} {times['step_ms']:.0f} ms/step {times['images_per_s']:.1f} img/s data wait {times['data_wait_share']:.0%} "
        f"{times['peak_memory_bytes'] / 2**30:.1f} GiB {times['seconds']:.1f} s, {left // 60}:{left % 60:02d} left"
    )


def peak_memory(device: torch.device) -> int:
    """Bytes: CUDA's most allocated by torch, elsewhere the process's largest resident set; 0 where the system tells none."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
