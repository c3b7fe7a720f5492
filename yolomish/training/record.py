"""What a run tells: results.csv (the same bits however often it was interrupted), timing.csv, the epoch's line, TensorBoard."""

from __future__ import annotations

import csv
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from yolomish.files import replace_file
from yolomish.types import CocoMetrics

Log = Callable[[str], Any]
RESULTS = (
    "epoch",
    "train/box_loss",
    "train/objectness_loss",
    "train/class_loss",
    "lr",
    "metrics/AP",
    "metrics/AP50",
    "metrics/AP75",
)
TIMES = ("epoch", "step_ms", "images_per_s", "data_wait_share", "peak_memory_bytes", "seconds")


def result_row(epoch: int, losses: list[float], lr: float, metrics: CocoMetrics | None) -> dict[str, Any]:
    """A row of results.csv: mean losses of the epoch's steps; AP empty where it was not measured."""
    measured = (metrics.ap, metrics.ap50, metrics.ap75) if metrics else (None, None, None)
    return dict(zip(RESULTS, (epoch, *losses, lr, *measured), strict=True))


def save_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], path: Path) -> None:
    """Write rows as CSV, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    replace_file(path, write)


def epoch_line(row: dict[str, Any], times: dict[str, Any], epochs: int) -> str:
    """One line an epoch: losses, rate, AP, step time, share of time waiting for data, memory, and the time left."""
    text = (
        f"epoch {row['epoch']}/{epochs}: box {row['train/box_loss']:.4f} objectness {row['train/objectness_loss']:.4f} "
        f"classes {row['train/class_loss']:.4f} lr {row['lr']:.2e}"
    )
    if row["metrics/AP"] is not None:
        text += f" AP {row['metrics/AP']:.4f} AP50 {row['metrics/AP50']:.4f} AP75 {row['metrics/AP75']:.4f}"
    left = int((epochs - row["epoch"]) * times["seconds"])
    return (
        f"{text} {times['step_ms']:.0f} ms/step {times['images_per_s']:.1f} img/s data wait {times['data_wait_share']:.0%} "
        f"{times['peak_memory_bytes'] / 2**30:.1f} GiB {times['seconds']:.1f} s, {left // 60}:{left % 60:02d} left"
    )


def tensorboard(out_dir: Path, log: Log) -> Any:
    """A SummaryWriter in ``out_dir``, or None, said once, where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log("no TensorBoard logs: it is not installed (pip install 'yolomish[logging]')")
        return None
    return SummaryWriter(str(out_dir))


def peak_memory(device: torch.device) -> int:
    """Bytes: CUDA's most allocated by torch, elsewhere the process's largest resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
