"""The analyses' pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from yolomish.analysis.loss_landscape import Landscape
from yolomish.analysis.noise import NoiseCurve
from yolomish.analysis.output_landscape import OutputLandscape
from yolomish.analysis.sweep import SweepPoint
from yolomish.drawing.colours import COLOURS
from yolomish.files import replace_file


def plot_loss(landscapes: Sequence[Landscape], path: str | Path) -> None:
    """Write a PNG: each landscape as a surface and a contour map of log10 loss on one scale, and cuts through the centres."""
    logs = [np.log10(np.maximum(landscape.loss, 1e-9)) for landscape in landscapes]
    finite = np.concatenate([values[np.isfinite(values)] for values in logs])
    levels = np.linspace(finite.min(), finite.max() + 1e-9, 21)
    columns = len(landscapes) + 1
    figure = Figure(figsize=(4.6 * columns, 8.2), layout="constrained")
    for i, (landscape, values) in enumerate(zip(landscapes, logs, strict=True)):
        x, y = np.meshgrid(landscape.steps, landscape.steps)
        solid = cast(Any, figure.add_subplot(2, columns, i + 1, projection="3d"))
        solid.plot_surface(x, y, values, cmap="viridis", vmin=levels[0], vmax=levels[-1])
        solid.set(title=landscape.label, zlabel="log10 loss", zlim=(levels[0], levels[-1]))
        axis = figure.add_subplot(2, columns, columns + i + 1)
        filled = axis.contourf(x, y, values, levels=levels, cmap="viridis")
        axis.contour(x, y, values, levels=levels[::2], colors="white", linewidths=0.5)
        axis.plot(0, 0, "r+", markersize=10)
        axis.set(xlabel="first direction", ylabel="second direction", aspect="equal")
    figure.colorbar(filled, ax=axis, label="log10 loss", shrink=0.8, format="%.1f")
    for row, title in enumerate(("cut along the first direction", "cut along the second direction")):
        axis = figure.add_subplot(2, columns, (row + 1) * columns)
        for i, landscape in enumerate(landscapes):
            middle = len(landscape.steps) // 2
            cut = landscape.loss[middle] if row == 0 else landscape.loss[:, middle]
            label = f"{landscape.label}: centre {landscape.loss[middle, middle]:.3f}"
            axis.plot(landscape.steps, cut, color=COLOURS[i % len(COLOURS)], marker=".", label=label)
        axis.set(title=title, xlabel="step (1: each filter by its norm)", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    notes = landscapes[0]
    figure.suptitle(f"Loss around trained weights, {notes.images} images, batch norm statistics: {notes.batch_norm}", fontsize=11)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=100))


def plot_outputs(landscapes: Sequence[OutputLandscape], path: str | Path) -> None:
    """Write a PNG: the random network's output under each activation as a picture and as a surface, each on its own range."""
    columns = len(landscapes)
    figure = Figure(figsize=(4.2 * columns, 7.6), layout="constrained")
    for i, landscape in enumerate(landscapes):
        span = landscape.axis[-1]
        axis = figure.add_subplot(2, columns, i + 1)
        picture = axis.imshow(landscape.values, extent=(-span, span, -span, span), origin="lower", cmap="viridis")
        axis.set(title=f"{landscape.activation}\nroughness {landscape.roughness():.2e}", xlabel="x", ylabel="y")
        figure.colorbar(picture, ax=axis, shrink=0.75)
        solid = cast(Any, figure.add_subplot(2, columns, columns + i + 1, projection="3d"))
        x, y = np.meshgrid(landscape.axis, landscape.axis)
        solid.plot_surface(x, y, landscape.values, cmap="viridis", rcount=80, ccount=80)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=100))


def plot_noise(curves: Mapping[str, NoiseCurve], path: str | Path) -> None:
    """Write a PNG: each metric over the noise's standard deviation, and the share of the first one that noise leaves."""
    metrics = next(iter(curves.values())).metrics
    first = metrics[0]
    titles = (*metrics, f"{first} as a share of the first point's")
    figure = Figure(figsize=(4.4 * len(titles), 4), layout="constrained")
    axes = figure.subplots(1, len(titles))
    for i, (label, curve) in enumerate(curves.items()):
        sigmas = [p.sigma for p in curve.points]
        style = {"color": COLOURS[i % len(COLOURS)], "marker": "o", "label": label}
        for axis, name in zip(axes, metrics, strict=False):
            axis.plot(sigmas, [p.values[name] for p in curve.points], **style)
        whole = curve.points[0].values[first]
        axes[-1].plot(sigmas, [p.values[first] / whole if whole > 0 else 0 for p in curve.points], **style)
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="noise, standard deviation (images in 0..1)")
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110))


def plot_sweep(points: Sequence[SweepPoint], over: str, path: str | Path) -> None:
    """Write a PNG: accuracy over the values of a setting, side by side; a dot a seed, a line through each activation's means."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    values = list(dict.fromkeys(p.value for p in points))
    for i, name in enumerate(dict.fromkeys(p.activation for p in points)):
        mine = [p for p in points if p.activation == name]
        means = [np.mean([p.accuracy for p in mine if p.value == value]) for value in values]
        colour = COLOURS[i % len(COLOURS)]
        axis.plot(range(len(values)), means, color=colour, marker="D", label=name)
        axis.scatter([values.index(p.value) for p in mine], [p.accuracy for p in mine], color=colour, alpha=0.4, s=18)
    axis.set(xlabel=over, ylabel="accuracy on held-out pictures (0..1)", title=f"Plain networks by {over}")
    axis.set_xticks(range(len(values)), [str(value) for value in values])
    axis.grid(alpha=0.3)
    axis.legend()
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110))
