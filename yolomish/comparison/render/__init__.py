"""A report in words, tables and pictures: report.html, report.md, report.tex and report.json, all from one object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolomish.comparison.render.gallery import Disagreement
from yolomish.comparison.render.html import to_html
from yolomish.comparison.render.text import summary, to_json, to_latex, to_markdown
from yolomish.comparison.render.wording import badges, declared, findings, headline, left_out, limits, next_steps, not_controlled
from yolomish.comparison.report import Report
from yolomish.errors import YolomishError
from yolomish.files import write_text

__all__ = [
    "badges",
    "declared",
    "findings",
    "headline",
    "left_out",
    "limits",
    "next_steps",
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
    try:
        report.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise YolomishError(f"{report.folder} cannot be made: {error.strerror}") from None
    page = report.folder / "report.html"
    write_text(report.folder / "report.json", to_json(report))
    write_text(report.folder / "report.md", to_markdown(report))
    write_text(report.folder / "report.tex", to_latex(report))
    write_text(page, to_html(report, gallery))
    return page
