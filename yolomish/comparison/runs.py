"""What a finished run left in its folder, whoever trained it: its curve, its cost, and where its checkpoints lie."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from yolomish.config import TrainConfig, from_dict, load_yaml
from yolomish.errors import YolomishError

RESULTS, TIMES, CONFIG = "results.csv", "timing.csv", "config.yaml"


@dataclass(frozen=True, kw_only=True)
class EpochPoint:
    """One epoch of a run: its weighted training loss (None where not finite), and AP and AP50 (0..1) where measured."""

    epoch: int
    loss: float | None
    ap: float | None
    ap50: float | None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One arm at one seed. ``metrics`` (AP, AP50, AP75, APs, APm, APl, 0..1; None without such objects) and ``per_class``
    are the last checkpoint's; ``best_ap`` the best epoch's, chosen on the same images and so too high. What a bare list
    of detections cannot tell (curve, cost) is None or empty."""

    arm: str
    seed: int
    metrics: dict[str, float | None]
    per_class: dict[str, float | None] = field(default_factory=dict)
    best_ap: float | None = None
    best_epoch: int | None = None
    step_ms: float | None = None
    peak_memory_bytes: int | None = None
    initial_kernels: str = ""
    folder: str = ""
    best: str = ""
    epochs: tuple[EpochPoint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run's folder as read: configuration, curve, median step in ms and peak memory in bytes (None where unrecorded)."""

    folder: Path
    config: TrainConfig
    epochs: tuple[EpochPoint, ...]
    step_ms: float | None
    peak_memory_bytes: int | None

    @property
    def last(self) -> Path:
        """The last checkpoint."""
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.folder / "best.pt"

    def best_point(self) -> EpochPoint | None:
        """The epoch of the highest AP on the validation images."""
        measured = [p for p in self.epochs if p.ap is not None]
        return max(measured, key=lambda p: p.ap or 0.0, default=None)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def _number(row: dict[str, str], key: str) -> float | None:
    text = row.get(key) or ""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _points(rows: Iterable[dict[str, str]]) -> tuple[EpochPoint, ...]:
    points = []
    for row in rows:
        parts = [_number(row, f"train/{part}_loss") for part in ("box", "objectness", "class")]
        loss = math.fsum(p for p in parts if p is not None) if None not in parts else None
        ap, ap50 = _number(row, "metrics/AP"), _number(row, "metrics/AP50")
        points.append(EpochPoint(epoch=int(row["epoch"]), loss=loss, ap=ap, ap50=ap50))
    return tuple(points)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: it holds config.yaml and last.pt."""
    return (folder / CONFIG).is_file() and (folder / "last.pt").is_file()


def read_run(folder: Path) -> FinishedRun:
    """A finished run; YolomishError where the folder holds none, or one with epochs left."""
    if not is_run(folder):
        raise YolomishError(f"{folder} is no run folder: it needs config.yaml and last.pt, as yolomish train leaves them")
    config = from_dict(TrainConfig, load_yaml(folder / CONFIG), str(folder / CONFIG))
    points = _points(_rows(folder / RESULTS))
    done = points[-1].epoch if points else 0
    if done < config.epochs:
        raise YolomishError(
            f"{folder} has {done} of {config.epochs} epochs: finish it with yolomish train --resume {folder}, or leave it out"
        )
    times = _rows(folder / TIMES)
    steps = [v for row in times if (v := _number(row, "step_ms")) is not None]
    peaks = [v for row in times if (v := _number(row, "peak_memory_bytes")) is not None]
    return FinishedRun(
        folder=folder,
        config=config,
        epochs=points,
        step_ms=statistics.median(steps) if steps else None,
        peak_memory_bytes=int(max(peaks)) if peaks else None,
    )
