"""A report's files: page, Markdown, LaTeX and JSON, all from one object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolomish.comparison.findings import Report
from yolomish.comparison.gallery import Disagreement
from yolomish.comparison.page import to_html
from yolomish.comparison.text import to_json, to_latex, to_markdown


def write_report(report: Report, out_dir: Path, gallery: Sequence[Disagreement] = ()) -> Path:
    """Write report.html, report.md, report.tex and report.json into ``out_dir``; gives the path of report.html."""
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "report.json").write_text(to_json(report), encoding="utf-8")
    (out_dir / "report.md").write_text(to_markdown(report), encoding="utf-8")
    (out_dir / "report.tex").write_text(to_latex(report), encoding="utf-8")
    page = out_dir / "report.html"
    page.write_text(to_html(report, gallery), encoding="utf-8")
    return page
