"""The report as Markdown, LaTeX and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from yolomish.comparison import tables
from yolomish.comparison.findings import Report
from yolomish.comparison.tables import Table


def to_markdown(report: Report) -> str:
    """The report as Markdown, without pictures."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    found = [tables.results(report), tables.differences(report), tables.tests(report), tables.cost(report)]
    found += [tables.classes(report), tables.layers(report), tables.tuned(report), tables.changed(report)]
    found += [tables.runs(report), tables.surroundings(report)]
    lines = ["# Activation comparison", "", f"**{report.headline}**", ""]
    for table in found:
        if not table.rows and not (table.note and table.title == "What differs between the arms"):
            continue
        lines += [f"## {table.title}", ""] + ([table.note, ""] if table.note else [])
        if table.rows:
            lines += ["| " + " | ".join(map(cell, table.head)) + " |", "|" + " --- |" * len(table.head)]
            lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.rows] + [""]
    lines += ["## What this does not show", "", *(f"- {line}" for line in report.limits), ""]
    lines += ["## How to reproduce", "", "```", report.command, "```", ""]
    return "\n".join(lines)


def to_json(report: Report) -> str:
    """The report as JSON: the fields of ``Report``; tuples become lists."""
    return json.dumps(asdict(report), indent=2, allow_nan=False) + "\n"


_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$", ">": "$>$"}


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def to_latex(report: Report) -> str:
    """Results and paired differences as two ``booktabs`` tables; the headline and the note are their captions."""
    captions = (report.headline, tables.differences(report).note)
    pairs = zip((tables.results(report), tables.differences(report)), captions, strict=True)
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_latex_table(table, caption) for table, caption in pairs)


def _latex_table(table: Table, caption: str) -> str:
    plain = "l" * len(table.head)
    rows = "\n".join(" & ".join(map(escape, row)) + r" \\" for row in table.rows)
    head = " & ".join(map(escape, table.head))
    return (
        "\\begin{table}\n\\centering\n\\small\n"
        f"\\caption{{{escape(caption)}}}\n\\begin{{tabular}}{{{plain}}}\n\\toprule\n{head} \\\\\n\\midrule\n{rows}\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )
