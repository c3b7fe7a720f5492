"""A report in words, tables and pictures: report.html, report.md, report.tex and report.json, all from one object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolomish.comparison.render.gallery import Disagreement
from yolomish.comparison.render.html import to_html
from yolomish.comparison.render.latex import to_latex
from yolomish.comparison.render.text import summary, to_json, to_markdown
from yolomish.comparison.render.wording import badges, declared, findings, headline, left_out, limits, next_steps, not_controlled
from yolomish.comparison.report import Report
from yolomish.errors import YolomishError
from yolomish.files import digest, make_folder, read_lines, shown_path, write_text
from yolomish.trust import sha256_of

FILES = ("report.json", "report.md", "report.tex", "report.html")
SUMS = "report.sha256"  # as sha256sum writes them

__all__ = [
    "badges",
    "check_report",
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


def check_report(folder: Path, force: bool = False) -> None:
    """YolomishError where ``folder`` holds a report that is not as ``write_report`` left it, unless by ``force``."""
    if force:
        return
    own = set(read_lines(folder / SUMS)) if (folder / SUMS).is_file() else set()
    for file in (folder / name for name in FILES):
        if file.is_file() and _sum_line(file.name, digest(file).sha256) not in own:
            raise YolomishError(
                f"{shown_path(file)} is not as a comparison left it: choose another --name, or --force to overwrite it"
            )


def write_report(report: Report, gallery: Sequence[Disagreement] = (), *, force: bool = False) -> Path:
    """Write report.json, report.md, report.tex and report.html into the report's folder, and their checksums into
    report.sha256; returns the path of report.html. YolomishError as ``check_report`` says."""
    check_report(make_folder(report.folder), force)
    texts = dict(zip(FILES, (to_json(report), to_markdown(report), to_latex(report), to_html(report, gallery)), strict=True))
    sums = [_sum_line(name, sha256_of(text.encode("utf-8", "backslashreplace"))) for name, text in texts.items()]
    before = read_lines(report.folder / SUMS) if (report.folder / SUMS).is_file() else []
    write_text(report.folder / SUMS, "".join(f"{line}\n" for line in (*before, *sums)))  # so that a kill loses no file
    for name, text in texts.items():
        write_text(report.folder / name, text)
    write_text(report.folder / SUMS, "".join(f"{line}\n" for line in sums))
    return report.folder / FILES[-1]


def _sum_line(name: str, sha256: str) -> str:
    return f"{sha256}  {name}"
