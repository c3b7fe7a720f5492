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
MOST_LABELLED = 200  # classes whose names can be read


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
    title = f"Confusion at confidence {confusion.conf:g}, IoU {confusion.iou:g}"
    names = tuple(plot_label(name) for name in confusion.names)
    plot_matrix(confusion.counts, (*names, "background"), (*names, "missed"), "detected as", title, path)


def plot_matrix(
    counts: np.ndarray, rows: tuple[str, ...], columns: tuple[str, ...], what: str, title: str, path: str | Path
) -> None:
    """Write a PNG of ``counts`` (N, N) coloured by their shares of the row; up to 26 rows with the counts in the cells, and of
    more than 200 without their names. ``what`` says what columns are."""
    sums, n = counts.sum(1, keepdims=True), len(rows)
    shares = np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0)
    numbered = n <= MOST_NUMBERED + 1
    side = min(max(5.0, 0.55 * n if numbered else 0.18 * n), 18.0)
    figure = Figure(figsize=(side + 1.5, side), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 8 if numbered else 5
    if n <= MOST_LABELLED:
        axis.set_xticks(range(n), columns, rotation=90, fontsize=size)
        axis.set_yticks(range(n), rows, fontsize=size)
    if numbered:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                axis.text(
                    j, i, str(count), ha="center", va="center", fontsize=8, color="white" if shares[i, j] > 0.5 else "black"
                )
    axis.set(xlabel=what, ylabel="true class")
    axis.set_title(title, fontsize=10)
    figure.colorbar(picture, ax=axis, shrink=0.7, label="share of the row")
    _save(figure, path)


def plot_calibration(bins: np.ndarray, error: float, path: str | Path) -> None:
    """Write a PNG: accuracy over the mean score of each range, whose (N, 3) images, score and accuracy are ``bins``."""
    counts, scores, accuracy = bins[bins[:, 0] > 0].T
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot((0, 1), (0, 1), color="black", linewidth=0.8, linestyle=":")
    axis.plot(scores, accuracy, marker="o")
    for score, right, count in zip(scores, accuracy, counts.astype(int), strict=True):
        axis.annotate(str(count), (score, right), textcoords="offset points", xytext=(4, -10), fontsize=7)
    _finish(axis, "score of the likeliest class", "accuracy", f"Calibration, expected error {error:.4f} (numbers: images)")
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
