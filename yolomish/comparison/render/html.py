"""The report as one self-contained page: its pictures are inside it, and it fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

from yolomish.comparison.render import plots, tables, wording
from yolomish.comparison.render.gallery import MOST_BOXES, Disagreement
from yolomish.comparison.render.latex import to_latex
from yolomish.comparison.report import Report
from yolomish.drawing.page import templates


def to_html(report: Report, gallery: Sequence[Disagreement] = ()) -> str:
    """The page; ``gallery`` are the pictures of the images on which arms disagree."""
    config = json.dumps(report.config, indent=2) if report.config else ""
    parts = {"words": wording, "tables": tables, "plots": plots, "latex": to_latex(report), "config": config, "boxes": MOST_BOXES}
    return templates("yolomish.comparison.render").get_template("report.html.j2").render(report=report, gallery=gallery, **parts)
