"""Pictures of an evaluation: curves, confusion matrix and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from yolomish.drawing.labels import plot_label
from yolomish.evaluation.confusion import Confusion
from yolomish.evaluation.curves import ClassCurve, best_threshold
from yolomish.evaluation.error_types import ErrorBreakdown
from yolomish.files import replace_file

MOST_NAMED = 20  # classes in a legend
MOST_NUMBERED = 25  # classes whose cells hold numbers


def _save(figure: Figure, path: str | Path) -> None:
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110))


def _finish(axis: Axes, xlabel: str, ylabel: str, title: str) -> None:
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def plot_precision_recall(curves: list[ClassCurve], iou: float, path: str | Path) -> None:
    """Write a PNG: precision over recall of each class (at most 20 in the legend) and their mean as COCO samples it."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axis = figure.subplots()
    grid = np.linspace(0, 1, 101)
    sampled = []
    for curve in curves:
        falling = np.maximum.accumulate(curve.precision[::-1])[::-1]
        places = np.searchsorted(curve.recall, grid, side="left")
        values = np.append(falling, 0.0)[np.minimum(places, len(falling))]
        sampled.append(values)
        label = f"{plot_label(curve.name)} {curve.ap:.3f}" if len(curves) <= MOST_NAMED else None
        axis.plot(grid, values, linewidth=1, alpha=0.8, label=label)
    if sampled:
        mean = np.mean(sampled, axis=0)
        axis.plot(grid, mean, color="black", linewidth=2.5, label=f"mean {mean.mean():.3f}")
    _finish(axis, "recall", "precision", f"Precision over recall at IoU {iou:g} (legend: AP)")
    _save(figure, path)


def plot_f1(curves: list[ClassCurve], iou: float, path: str | Path) -> None:
    """Write a PNG: F1 over the confidence threshold of each class, their mean and its best threshold."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axis = figure.subplots()
    grid = np.linspace(0, 1, 1001)
    for curve in curves:
        threshold, value = curve.best()
        label = f"{plot_label(curve.name)} {value:.2f} at {threshold:.2f}" if len(curves) <= MOST_NAMED else None
        axis.plot(grid, curve.at(grid), linewidth=1, alpha=0.8, label=label)
    if curves:
        threshold, value = best_threshold(curves)
        mean = np.mean([curve.at(grid) for curve in curves], axis=0)
        axis.plot(grid, mean, color="black", linewidth=2.5, label=f"mean {value:.2f} at {threshold:.2f}")
        axis.axvline(threshold, color="black", linewidth=0.8, linestyle=":")
    _finish(axis, "confidence threshold", "F1", f"F1 over confidence at IoU {iou:g} (legend: best F1)")
    _save(figure, path)


def plot_confusion(confusion: Confusion, path: str | Path) -> None:
    """Write a PNG: shares of each true class by what it was taken for; up to 25 classes with the counts in the cells."""
    shares, names = confusion.shares(), [plot_label(name) for name in confusion.names]
    labels = (*names, "background")
    n = len(labels)
    side = min(max(5.0, 0.55 * n if n <= MOST_NUMBERED + 1 else 0.18 * n), 18.0)
    figure = Figure(figsize=(side + 1.5, side), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 8 if n <= MOST_NUMBERED + 1 else 5
    axis.set_xticks(range(n), (*names, "missed"), rotation=90, fontsize=size)
    axis.set_yticks(range(n), labels, fontsize=size)
    if n <= MOST_NUMBERED + 1:
        for (i, j), count in np.ndenumerate(confusion.counts):
            if count:
                axis.text(
                    j, i, str(count), ha="center", va="center", fontsize=8, color="white" if shares[i, j] > 0.5 else "black"
                )
    axis.set(xlabel="detected as", ylabel="true class")
    axis.set_title(f"Confusion at confidence {confusion.conf:g}, IoU {confusion.iou:g}", fontsize=10)
    figure.colorbar(picture, ax=axis, shrink=0.7, label="share of the row")
    _save(figure, path)


def plot_errors(errors: ErrorBreakdown, path: str | Path) -> None:
    """Write a PNG: the AP that fixing each type of error would add, with the number of such errors."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    names = list(errors.gains)
    values = [100 * errors.gains[name] for name in names]
    colours = ["#D55E00" if name in errors.counts else "#888888" for name in names]
    bars = axis.barh(range(len(names)), values, color=colours)
    texts = [f"{v:.1f}" + (f"  ({errors.counts[n]:,})" if n in errors.counts else "") for n, v in zip(names, values, strict=True)]
    axis.bar_label(bars, texts, padding=4, fontsize=8)
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axis.invert_yaxis()
    axis.set_xlim(0, max([*values, 1.0]) * 1.2)
    axis.set(xlabel=f"AP points at IoU {errors.iou:g} that fixing it would add to {100 * errors.ap:.1f} (number of errors)")
    axis.grid(alpha=0.3, axis="x")
    _save(figure, path)
