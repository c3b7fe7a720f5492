"""The report's pictures as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from yolomish.comparison.layers import LayerStatistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from yolomish.comparison.report import Report
    from yolomish.evaluation.stats import PairedDifference

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito: told apart by all
DASHES = ("-", "--", "-.", ":")
PANELS = {
    "saturated": ("inputs with slope < 0.01", "linear"),
    "mean": ("output mean", "linear"),
    "variance": ("output variance", "log"),
    "gradient": ("gradient norm / kernel norm", "log"),
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def draw_curves(report: Report, what: Literal["loss", "ap"]) -> bytes:
    """Loss or AP over epochs, a colour and dash per arm: thin lines are seeds, the thick line their mean, the band
    their range. Epochs without a measurement are left out."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for i, label in enumerate(arm.label for arm in report.arms):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        values: dict[int, list[float]] = {}
        of_arm = [run for run in report.runs if run.arm == label]
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
    axis.set_ylabel("training loss" if what == "loss" else "AP (0..1)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    return _png(figure)


def draw_differences(differences: Sequence[PairedDifference]) -> bytes:
    """A row per pair and metric: dots are the seeds' differences, the bar their mean and interval, the line at 0 equality."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.1 + 0.36 * len(differences)), layout="constrained")
    axis = figure.subplots()
    pairs = list(dict.fromkeys((d.a, d.b) for d in differences))
    for row, d in enumerate(differences):
        colour = COLOURS[pairs.index((d.a, d.b)) % len(COLOURS)]
        axis.scatter(d.per_seed, [row] * len(d.per_seed), color=colour, alpha=0.5, s=24, zorder=3)
        if d.low is not None and d.high is not None:
            error = [[d.mean - d.low], [d.high - d.mean]]
            axis.errorbar([d.mean], [row], xerr=error, color=colour, capsize=4, linewidth=2, fmt="D", markersize=5)
    axis.axvline(0, color="#444444", linewidth=1)
    several = len(pairs) > 1
    axis.set_yticks(range(len(differences)), [f"{d.a} - {d.b}: {d.metric}" if several else d.metric for d in differences])
    axis.set_ylim(len(differences) - 0.5, -0.5)
    widest = max((abs(v) for d in differences for v in (*d.per_seed, d.low or 0, d.high or 0)), default=0)
    axis.set_xlim(-1.1 * (widest or 0.01), 1.1 * (widest or 0.01))
    axis.set_xlabel(f"{pairs[0][0]} - {pairs[0][1]}, 0..1 scale" if len(pairs) == 1 else "first arm - other, 0..1 scale")
    axis.grid(alpha=0.3, axis="x")
    return _png(figure)


def draw_sizes(report: Report) -> bytes:
    """AP overall and by size of object, with 95 % intervals, a marker per arm."""
    from matplotlib.figure import Figure

    names = [m for m in ("AP", "APs", "APm", "APl") if all(m in arm.levels for arm in report.arms)]
    words = {"AP": "all", "APs": "small\n(< 32² px)", "APm": "medium", "APl": "large\n(> 96² px)"}
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for i, arm in enumerate(report.arms):
        places = [x + 0.16 * (i - (len(report.arms) - 1) / 2) for x in range(len(names))]
        levels = [arm.levels[m] for m in names]
        errors = [
            [v.mean - (v.low if v.low is not None else v.mean) for v in levels],
            [(v.high if v.high is not None else v.mean) - v.mean for v in levels],
        ]
        axis.errorbar(
            places,
            [v.mean for v in levels],
            yerr=[[max(e, 0) for e in side] for side in errors],
            fmt=MARKERS[i % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            capsize=4,
            markersize=7,
            label=arm.label,
        )
    axis.set_xticks(range(len(names)), [words[m] for m in names])
    axis.set_ylabel("AP (0..1)")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3, axis="y")
    axis.legend()
    return _png(figure)


def draw_tradeoff(report: Report) -> bytes:
    """AP with its interval over the time of one image, each arm a disc whose area is its peak training memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    speed = {s.arm: s for s in report.speed}
    most = max((arm.peak_memory_bytes or 0 for arm in report.arms), default=0)
    for i, arm in enumerate(report.arms):
        s, level, colour = speed[arm.label], arm.levels["AP"], COLOURS[i % len(COLOURS)]
        low = level.low if level.low is not None else level.mean
        high = level.high if level.high is not None else level.mean
        axis.errorbar(
            [s.median_ms],
            [level.mean],
            xerr=[[s.median_ms - s.low_ms], [s.high_ms - s.median_ms]],
            yerr=[[max(level.mean - low, 0)], [max(high - level.mean, 0)]],
            color=colour,
            capsize=3,
            linewidth=1,
            fmt="none",
        )
        size = 60 + 300 * (arm.peak_memory_bytes or 0) / most if most else 80
        peak = f", {arm.peak_memory_bytes / 2**20:,.0f} MiB" if arm.peak_memory_bytes else ""
        axis.scatter([s.median_ms], [level.mean], s=size, color=colour, alpha=0.75, zorder=3)
        axis.plot([], [], "o", color=colour, label=f"{arm.label}{peak}")
    axis.set_xlabel("one image, ms (median and quartiles)")
    axis.set_ylabel("AP (0..1), 95 %")
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
    return _png(figure)


def draw_layers(layers: Sequence[LayerStatistics], key: str) -> bytes:
    """``saturated``, ``mean``, ``variance`` or ``gradient`` by layer, a line per arm; the backbone is shaded."""
    from matplotlib.figure import Figure

    title, scale = PANELS[key]
    arms = list(dict.fromkeys(row.arm for row in layers))
    inside = [i for i, row in enumerate(r for r in layers if r.arm == arms[0]) if row.part == "backbone"]
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    if inside:
        axis.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color="#888888", alpha=0.12, linewidth=0)
    for i, arm in enumerate(arms):
        values = [getattr(row, key) for row in layers if row.arm == arm]
        axis.plot(values, color=COLOURS[i % len(COLOURS)], linestyle=DASHES[i % len(DASHES)], label=arm, linewidth=1.6)
    axis.set_yscale(scale)
    axis.set_ylabel(title)
    axis.set_xlabel("layer (shaded: backbone)")
    axis.grid(alpha=0.3)
    axis.legend()
    return _png(figure)
