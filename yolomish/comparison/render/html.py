"""The report as one self-contained page: its pictures are inside it, and it fetches nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from yolomish.comparison.render import plots, tables, wording
from yolomish.comparison.render.gallery import Disagreement
from yolomish.comparison.render.text import to_latex
from yolomish.comparison.report import Report


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A PNG with the caption below it, which is also its text for those who do not see it."""

    png: bytes
    caption: str


def to_html(report: Report, gallery: Sequence[Disagreement] = ()) -> str:
    """The page; ``gallery`` are the pictures of the images on which arms disagree."""
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            words=wording,
            tables=tables,
            glance=_glance(report),
            curves=_curves(report),
            breakdown=_breakdown(report),
            tradeoff=_tradeoff(report),
            layers=_layers(report),
            gallery=gallery,
            latex=to_latex(report),
            config=json.dumps(report.config, indent=2) if report.config else "",
        )
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("yolomish.comparison.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment


def _glance(report: Report) -> list[Figure]:
    shown = [d for d in report.differences if d.low is not None or len(d.per_seed) > 1]
    caption = "Dots are seeds, diamonds means, bars intervals; right of 0 the first arm is better."
    return [Figure(png=plots.draw_differences(shown), caption=caption)] if shown else []


def _curves(report: Report) -> list[Figure]:
    if not any(run.epochs for run in report.runs):
        return []
    lines = "thin lines are seeds, thick ones their mean, bands their range" if len(report.seeds) > 1 else "one seed"
    return [
        Figure(png=plots.draw_curves(report, "loss"), caption=f"Training loss by epoch; {lines}."),
        Figure(png=plots.draw_curves(report, "ap"), caption=f"Validation AP by epoch; {lines}."),
    ]


def _breakdown(report: Report) -> list[Figure]:
    figures = []
    if all("AP" in arm.levels for arm in report.arms):
        figures.append(Figure(png=plots.draw_sizes(report), caption="AP by size of object, with 95 % intervals."))
    if report.class_differences:
        chosen = sorted(report.class_differences, key=lambda d: -abs(d.mean))[: tables.MOST_CLASSES]
        caption = "Differences in AP by class, largest first; dots are seeds."
        figures.append(Figure(png=plots.draw_differences(chosen), caption=caption))
    return figures


def _tradeoff(report: Report) -> list[Figure]:
    if not report.speed:
        return []
    caption = "Up and left is better; a disc's area grows with the peak memory of training."
    return [Figure(png=plots.draw_tradeoff(report), caption=caption)]


def _layers(report: Report) -> list[Figure]:
    if not report.layers:
        return []
    return [
        Figure(
            png=plots.draw_layers(report.layers, key),
            caption=f"{title.capitalize()}, layer by layer in the order of the network.",
        )
        for key, (title, _) in plots.PANELS.items()
    ]
