"""The curves of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolomish.files import replace_file


def save_curves(history: Sequence[dict[str, Any]], losses: Sequence[str], metrics: Sequence[str], path: Path) -> None:
    """Losses, metrics and learning rate over the epochs of ``history`` (rows as in results.csv) as a PNG."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    for name in losses:
        axes[0].plot(epochs, [row[f"train/{name}_loss"] for row in history], marker=".", label=name)
    axes[0].set_title("training loss")
    for name in metrics:
        measured = [row for row in history if row[f"metrics/{name}"] is not None]
        axes[1].plot([row["epoch"] for row in measured], [row[f"metrics/{name}"] for row in measured], marker=".", label=name)
    axes[1].set_title("validation (0..1)")
    axes[2].plot(epochs, [row["lr"] for row in history], marker=".", label="lr")
    axes[2].set_title("learning rate at the epoch's end")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110))
