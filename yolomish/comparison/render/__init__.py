"""A report in words, tables and pictures: report.html, report.md, report.tex and report.json, all from one object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolomish.comparison.render.gallery import Disagreement
from yolomish.comparison.render.html import to_html
from yolomish.comparison.render.text import summary, to_json, to_latex, to_markdown
from yolomish.comparison.render.wording import declared, headline, left_out, limits, not_controlled
from yolomish.comparison.report import Report

__all__ = [
    "declared",
    "headline",
    "left_out",
    "limits",
    "not_controlled",
    "summary",
    "to_html",
    "to_json",
    "to_latex",
    "to_markdown",
    "write_report",
]


def write_report(report: Report, gallery: Sequence[Disagreement] = ()) -> Path:
    """Write report.html, report.md, report.tex and report.json into the report's folder; returns the path of report.html."""
    report.folder.mkdir(parents=True, exist_ok=True)
    (report.folder / "report.json").write_text(to_json(report), encoding="utf-8")
    (report.folder / "report.md").write_text(to_markdown(report), encoding="utf-8")
    (report.folder / "report.tex").write_text(to_latex(report), encoding="utf-8")
    page = report.folder / "report.html"
    page.write_text(to_html(report, gallery), encoding="utf-8")
    return page
