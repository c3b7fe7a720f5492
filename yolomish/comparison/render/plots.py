"""The report's pictures, each a PNG with its caption."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from yolomish.comparison.render.tables import MOST_CLASSES
from yolomish.comparison.report import Level, Report
from yolomish.drawing.colours import COLOURS
from yolomish.drawing.labels import plot_label
from yolomish.evaluation.stats import Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
TICK_LETTERS = 24  # of an arm or class beside an axis
PANELS = {
    "saturated": ("inputs with slope < 0.01", "linear"),
    "mean": ("output mean", "linear"),
    "variance": ("output variance", "log"),
    "gradient": ("gradient norm / kernel norm", "log"),
}
SIZES = {"AP": "all", "APs": "small\n(< 32² px)", "APm": "medium", "APl": "large\n(> 96² px)"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A PNG with the caption below it, which is also its text for those who do not see it."""

    png: bytes
    caption: str


def glance(report: Report) -> list[Figure]:
    """Every difference that has an interval or several seeds."""
    shown = [d for d in report.differences if d.low is not None or len(d.per_seed) > 1]
    if report.fewest == 1:
        what = "Diamonds are differences, bars intervals over images"
    else:
        what = f"{'Dots are seeds, diamonds' if report.paired else 'Diamonds are'} means, bars intervals"
    return [_differences(shown, f"{what}; right of 0 the first arm is better.")] if shown else []


def curves(report: Report) -> list[Figure]:
    """Loss and AP over epochs; none where no run has a curve."""
    if not any(run.epochs for run in report.runs):
        return []
    lines = "thin lines are seeds, thick ones their mean, bands their range" if report.fewest > 1 else "one seed"
    return [
        _curve(report, "loss", "training loss", f"Training loss by epoch; {lines}."),
        _curve(report, "ap", f"{report.metric} x 100", f"Validation {report.metric} by epoch; {lines}."),
    ]


def breakdown(report: Report) -> list[Figure]:
    """AP by size of object, and the largest differences by class."""
    figures = [_sizes(report)] if all("AP" in arm.levels for arm in report.arms) else []
    dots = report.paired and report.fewest > 1
    chosen = sorted(report.class_differences, key=lambda d: -abs(d.mean))[:MOST_CLASSES]
    return figures + (
        [
            _differences(
                chosen,
                f"Differences in {report.metric} by class, largest first" + ("; dots are seeds." if dots else "."),
            )
        ]
        if chosen
        else []
    )


def layers(report: Report) -> list[Figure]:
    """The activations' statistics, a panel each; none where they were not measured."""
    return [_layer_panel(report, key) for key in PANELS] if report.layers else []


def tradeoff(report: Report) -> list[Figure]:
    """AP with its interval over the time of one image, each arm a disc whose area is its peak training memory."""
    if not report.speed:
        return []
    axis = _axis(6, 4)
    speed = {s.arm: s for s in report.speed}
    most = max((arm.peak_memory_bytes or 0 for arm in report.arms), default=0)
    for i, arm in enumerate(report.arms):
        s, level, colour = speed[arm.label], arm.levels[report.metric], COLOURS[i % len(COLOURS)]
        times = [[s.median_ms - s.low_ms], [s.high_ms - s.median_ms]]
        axis.errorbar(
            [s.median_ms], [100 * level.mean], xerr=times, yerr=_errors([level]), color=colour, capsize=3, linewidth=1, fmt="none"
        )
        size = 60 + 300 * (arm.peak_memory_bytes or 0) / most if most else 80
        peak = f", {arm.peak_memory_bytes / 2**20:,.0f} MiB" if arm.peak_memory_bytes else ""
        axis.scatter([s.median_ms], [100 * level.mean], s=size, color=colour, alpha=0.75, zorder=3)
        axis.plot([], [], "o", color=colour, label=f"{plot_label(arm.label)}{peak}")
    axis.set(xlabel="one image, ms (median and quartiles)", ylabel=f"{report.metric} x 100, 95 %")
    axis.margins(0.12)  # room for whole discs
    axis.set_ylim(*_from_zero(axis))
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
    return [_figure(axis, "Up and left is better; a disc's area grows with the peak memory of training.")]


def _axis(width: float, height: float) -> Axes:
    from matplotlib import figure

    return figure.Figure(figsize=(width, height), layout="constrained").subplots()


def _from_zero(axis: Axes) -> tuple[float, float]:
    """Limits from a little under 0, so that a mark at 0 is whole, to as much above what is drawn."""
    top = axis.dataLim.y1 if axis.dataLim.y1 > 0 else 1.0
    return -0.05 * top, 1.1 * top


def _figure(axis: Axes, caption: str) -> Figure:
    buffer = io.BytesIO()
    cast(Any, axis.figure).savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return Figure(png=buffer.getvalue(), caption=caption)


def _errors(levels: Sequence[Level]) -> list[list[float]]:
    """How far each interval reaches below and above its mean, AP x 100; 0 where there is none."""
    below = [100 * max(v.mean - v.low, 0) if v.low is not None else 0 for v in levels]
    return [below, [100 * max(v.high - v.mean, 0) if v.high is not None else 0 for v in levels]]


def _curve(report: Report, what: Literal["loss", "ap"], label: str, caption: str) -> Figure:
    """A colour and dash per arm: thin lines are seeds, the thick line their mean, the band their range; epochs without a
    measurement are left out."""
    from matplotlib.ticker import MaxNLocator

    axis, scale = _axis(6, 4), 100 if what == "ap" else 1
    last = max(p.epoch for run in report.runs for p in run.epochs)
    evaluated = {p.epoch for run in report.runs for p in run.epochs if getattr(p, what) is not None}
    for i, arm in enumerate(report.arms):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        values: dict[int, list[float]] = {}
        of_arm = [run for run in report.runs if run.arm == arm.label]
        for run in of_arm:
            points = [(p.epoch, scale * getattr(p, what)) for p in run.epochs if getattr(p, what) is not None]
            for epoch, value in points:
                values.setdefault(epoch, []).append(value)
            if len(of_arm) > 1:
                marker = "." if len(points) == 1 else ""  # a line of one epoch would not be seen
                axis.plot([e for e, _ in points], [v for _, v in points], marker=marker, color=colour, linewidth=0.8, alpha=0.5)
        epochs = sorted(e for e, v in values.items() if len(v) == len(of_arm))
        means = [sum(values[e]) / len(values[e]) for e in epochs]
        marker = "o" if len(epochs) == 1 else "." if len(epochs) < 40 else ""
        axis.plot(epochs, means, color=colour, linestyle=dash, linewidth=2, marker=marker, label=plot_label(arm.label))
        if len(of_arm) > 1:
            lows, highs = [min(values[e]) for e in epochs], [max(values[e]) for e in epochs]
            axis.fill_between(epochs, lows, highs, color=colour, alpha=0.12, linewidth=0)
    axis.set(xlabel="epoch", ylabel=label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_xlim(0.5, last + 0.5)  # all epochs, however few were evaluated
    axis.set_ylim(*_from_zero(axis))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left" if what == "ap" and evaluated == {last} else "best")
    return _figure(axis, caption)


def _differences(differences: Sequence[Difference], caption: str) -> Figure:
    """A row per pair and metric: dots are the seeds' differences, the bar their mean and interval, the line at 0 equality."""
    axis = _axis(6, 1.1 + 0.36 * len(differences))
    pairs = list(dict.fromkeys((d.a, d.b) for d in differences))
    for row, d in enumerate(differences):
        colour, mean = COLOURS[pairs.index((d.a, d.b)) % len(COLOURS)], 100 * d.mean
        if len(d.per_seed) > 1:
            axis.scatter([100 * v for v in d.per_seed], [row] * len(d.per_seed), color=colour, alpha=0.5, s=24, zorder=3)
        reach = None
        if d.low is not None and d.high is not None:
            reach = [[mean - 100 * d.low], [100 * d.high - mean]]
        axis.errorbar([mean], [row], xerr=reach, color=colour, capsize=4, linewidth=2, fmt="D", markersize=5)
    axis.axvline(0, color="#444444", linewidth=1)
    several = len(pairs) > 1
    names = [[plot_label(text, TICK_LETTERS) for text in (d.a, d.b, d.metric)] for d in differences]
    axis.set_yticks(range(len(names)), ["{} - {}: {}".format(*n) if several else n[-1] for n in names])
    axis.set_ylim(len(differences) - 0.5, -0.5)
    widest = max(abs(v) for d in differences for v in (*d.per_seed, d.mean, d.low or 0, d.high or 0)) or 0.01
    axis.set_xlim(-110 * widest, 110 * widest)
    axis.set_xlabel("first arm - other, x 100" if several else f"{plot_label(pairs[0][0])} - {plot_label(pairs[0][1])}, x 100")
    axis.grid(alpha=0.3, axis="x")
    return _figure(axis, caption)


def _sizes(report: Report) -> Figure:
    """AP overall and by size of object, with its intervals, a marker per arm."""
    axis = _axis(6, 4)
    bars: list[bool] = []
    names = [m for m in SIZES if all(m in arm.levels for arm in report.arms)]
    for i, arm in enumerate(report.arms):
        places = [x + 0.16 * (i - (len(report.arms) - 1) / 2) for x in range(len(names))]
        levels = [arm.levels[m] for m in names]
        marker, colour, means = MARKERS[i % len(MARKERS)], COLOURS[i % len(COLOURS)], [100 * v.mean for v in levels]
        bars.append(any(v.low is not None for v in levels))
        axis.errorbar(
            places, means, _errors(levels), fmt=marker, color=colour, capsize=4, markersize=7, label=plot_label(arm.label)
        )
    axis.set_xticks(range(len(names)), [SIZES[m] for m in names])
    axis.set_ylabel("AP x 100")
    axis.set_ylim(*_from_zero(axis))
    axis.grid(alpha=0.3, axis="y")
    cast(Any, axis.figure).legend(loc="outside upper center", ncols=3)  # bars reach all over the axes
    return _figure(axis, f"AP by size of object{', with 95 % intervals' * any(bars)}.")


def _layer_panel(report: Report, key: str) -> Figure:
    """A statistic by layer, a line per arm; the backbone is shaded."""
    title, scale = PANELS[key]
    axis = _axis(6, 3.4)
    of_first = [row for row in report.layers if row.arm == report.arms[0].label]
    if inside := [i for i, row in enumerate(of_first) if row.part == "backbone"]:
        axis.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color="#888888", alpha=0.12, linewidth=0)
    for i, arm in enumerate(report.arms):
        values = [getattr(row, key) for row in report.layers if row.arm == arm.label]
        axis.plot(values, DASHES[i % len(DASHES)], color=COLOURS[i % len(COLOURS)], label=plot_label(arm.label), linewidth=1.6)
    axis.set_yscale(scale)
    axis.set(xlabel="layer (shaded: backbone)", ylabel=title)
    axis.grid(alpha=0.3)
    axis.legend()
    return _figure(axis, f"{title.capitalize()}, layer by layer in the order of the network.")
