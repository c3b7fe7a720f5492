"""The report's pictures as PNG bytes: curves of every seed, and paired differences with their intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from yolomish.comparison.report import RunResult
    from yolomish.evaluation.stats import PairedDifference

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito: told apart by all
DASHES = ("-", "--", "-.", ":")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def draw_curves(runs: Sequence[RunResult], labels: Sequence[str], what: Literal["loss", "ap50"]) -> bytes:
    """Loss or AP50 over epochs, a colour and dash an arm: thin lines are seeds, the thick line their mean, the band
    their range. Epochs without a measurement are left out."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for i, label in enumerate(labels):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        values: dict[int, list[float]] = {}
        of_arm = [run for run in runs if run.arm == label]
        for run in of_arm:
            points = [(p.epoch, getattr(p, what)) for p in run.epochs if getattr(p, what) is not None]
            for epoch, value in points:
                values.setdefault(epoch, []).append(value)
            if len(of_arm) > 1:
                axis.plot([e for e, _ in points], [v for _, v in points], color=colour, linewidth=0.8, alpha=0.5)
        epochs = sorted(e for e, v in values.items() if len(v) == len(of_arm))
        means = [sum(values[e]) / len(values[e]) for e in epochs]
        marker = "." if len(epochs) < 40 else ""
        axis.plot(epochs, means, color=colour, linestyle=dash, linewidth=2, marker=marker, label=label)
        if len(of_arm) > 1:
            lows, highs = [min(values[e]) for e in epochs], [max(values[e]) for e in epochs]
            axis.fill_between(epochs, lows, highs, color=colour, alpha=0.12, linewidth=0)
    axis.set_xlabel("epoch")
    axis.set_ylabel("training loss" if what == "loss" else "AP50 (0..1)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    return _png(figure)


def draw_differences(differences: Sequence[PairedDifference]) -> bytes:
    """A row a pair and metric: dots are the seeds' differences, the bar their mean and interval, the line at 0 equality."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.55 * len(differences)), layout="constrained")
    axis = figure.subplots()
    pairs = list(dict.fromkeys((d.a, d.b) for d in differences))
    for row, d in enumerate(differences):
        colour = COLOURS[pairs.index((d.a, d.b)) % len(COLOURS)]
        axis.scatter(d.per_seed, [row] * len(d.per_seed), color=colour, alpha=0.5, s=30, zorder=3)
        if d.low is not None and d.high is not None:
            error = [[d.mean - d.low], [d.high - d.mean]]
            axis.errorbar([d.mean], [row], xerr=error, color=colour, capsize=5, linewidth=2, fmt="D", markersize=6)
    axis.axvline(0, color="#444444", linewidth=1)
    axis.set_yticks(range(len(differences)), [f"{d.a} - {d.b}: {d.metric}" for d in differences])
    axis.set_ylim(len(differences) - 0.5, -0.5)
    widest = max((abs(v) for d in differences for v in (*d.per_seed, d.low or 0, d.high or 0)), default=0)
    axis.set_xlim(-1.1 * (widest or 0.01), 1.1 * (widest or 0.01))
    axis.set_xlabel("difference, 0..1 scale (right: the first arm is better)")
    axis.grid(alpha=0.3, axis="x")
    return _png(figure)
